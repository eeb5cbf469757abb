"""decide - from a request to a verdict, without I/O: what to ask the ledger, and what its answer means to Postfix.

    RCPT              Charge one recipient, and on the first the message
    DATA              Reconcile the ticket with Postfix's count of recipients and the client's claim of the size
    END-OF-MESSAGE    Reconcile it with the count and the true size
    any other state   DUNNO

How it fails: it does not; a request that lacks what a decision needs is DUNNO and a fault of the `wiring`, not of the
mail.

Known limits: at RCPT the number of recipients accepted before is what the caller's connection has seen; a recipient that
Postfix itself turns away later is in that number, DATA knows better.  A limit `per: from_domain` is charged to the domain
of the envelope sender, as the From header has not come yet.  A request without `instance` (no Postfix sends one at these
states) has a ticket of its own, so what belongs to one message is charged once per request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from relaywarden.config.settings import Mode, OnExceed, Outcome, Settings
from relaywarden.ledger.operations import Account, Charge, Decision, Done, Reconcile, Refusal, Refuse, Status
from relaywarden.ledger.records import Suppression
from relaywarden.limits import Limit, Scope, format_bytes
from relaywarden.tenants import Directory, Tenant
from relaywarden_policyd.protocol import Request, State
from relaywarden_policyd.verdict import Action, Cause, Verdict, describe_refusal, describe_suppression
from relaywarden_policyd.wiring import Wiring


class Known:
    """What is made once a tenant: the verdicts that admit, and the accounts (they carry their balances in the store's form)."""

    __slots__ = ("accounts", "admitted", "repeated", "scopes", "tenant", "whole")

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.admitted = Verdict(Action.DUNNO, Cause.ADMITTED, tenant.name, tenant.mode.value)
        self.repeated = Verdict(Action.DUNNO, Cause.ADMITTED, tenant.name, tenant.mode.value, repeated=True)
        self.scopes = frozenset(limit.per for limit in tenant.limits) - {Scope.TENANT}
        self.whole = tenant.account()
        self.accounts: dict[tuple[str, str, str], Account] = {}

    def account(self, request: Request) -> Account:
        """The account that this request is charged to."""
        if not self.scopes:
            return self.whole
        login = request.sasl_username if Scope.LOGIN in self.scopes else ""
        sender = request.sender if Scope.FROM_DOMAIN in self.scopes else ""
        client = request.client_address if Scope.CLIENT in self.scopes else ""
        account = self.accounts.get((login, sender, client))
        if account is None:
            if len(self.accounts) >= _REMEMBERED:
                self.accounts.clear()
            account = self.tenant.account(login=login, sender=sender, client=client)
            self.accounts[login, sender, client] = account
        return account


class Question(NamedTuple):
    """What the ledger must be asked before there is a verdict."""

    operation: Charge | Reconcile | Refuse
    known: Known
    verdict: Verdict | None = None  # stands already: refused whatever the ledger says, or observed


class Judge:
    """Decides by one set of settings; immutable, a reload makes a new one."""

    def __init__(self, settings: Settings, fresh_ticket: Callable[[], str] = lambda: f"-{secrets.token_hex(8)}") -> None:
        self.directory = Directory(settings)
        self._unknown = _UNKNOWN_REJECTED if settings.unknown_login == "reject" else _UNKNOWN_IGNORED
        self._fresh_ticket = fresh_ticket
        self.wiring = Wiring(settings)
        # Where a milter is wired, it knows of an abort for certain; else policyd concludes it from what it is asked next.
        self.gives_back = settings.milter.listen is None and Outcome.ABORTED in settings.ledger.refund
        self._known: dict[str, Known] = {}

    def ask(self, request: Request, earlier: int = 0, dry: bool = False) -> Verdict | Question:
        """The verdict, or what to ask the ledger; `earlier` recipients of this transaction were admitted before."""
        if request.state not in _DECIDED:
            return _NOT_DECIDED
        login = request.sasl_username
        if not login:
            return _UNAUTHENTICATED
        tenant = self.directory.by_login(login)
        if tenant is None:
            return self._unknown
        at_rcpt = request.state is State.RCPT
        if not at_rcpt and request.recipient_count == 0:
            return _NOT_DECIDED
        known = self._known.get(tenant.name) or self._remember(tenant)
        account = known.account(request)
        ticket = request.instance or self._fresh_ticket()
        cap = _cap(tenant, request, earlier)
        if cap is not None and not cap.admits:
            if dry:
                return cap
            # At DATA and later none of the message will be sent: what RCPT charged goes back.
            return Question(Refuse(account, ticket, request.recipient if at_rcpt else ""), known, cap)
        if at_rcpt:
            charge = Charge(account, ticket, request.recipient, request.size, request.queue_id, request.connection, dry)
            return Question(charge, known, cap)
        count, size = request.recipient_count, request.size
        return Question(Reconcile(account, ticket, count, size, request.queue_id, request.connection, dry), known, cap)

    def _remember(self, tenant: Tenant) -> Known:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()  # logins without a tenant of their own are as many as the SASL database holds
        known = self._known[tenant.name] = Known(tenant)
        return known


def answer(question: Question, result: Decision | Done, *, local: bool = False) -> Verdict:
    """The verdict that follows from the ledger's result; `local`: it was decided without the ledger."""
    known, verdict = question.known, question.verdict
    if verdict is not None and not verdict.admits:
        return verdict
    if isinstance(result, Done):  # a refusal that is only counted, which goes with a verdict that stands
        return known.admitted
    tenant = known.tenant
    if local and result.status is Status.REFUSED:
        wait = result.refusal.retry_after_ms if result.refusal else None
        return Verdict(Action.DEFER, Cause.STORE, tenant.name, tenant.mode.value, dsn="4.7.1", text=_WITHOUT_STORE,
                       retry_after_ms=wait, repeated=result.repeated)  # fmt: skip
    if result.status is Status.SUPPRESSED or (result.status is Status.ADMITTED and result.reason):
        return _suppressed(tenant, result)
    if result.refusal is None and result.status is Status.ADMITTED:
        if verdict is not None:
            return verdict
        if local:
            return Verdict(Action.DUNNO, Cause.STORE, tenant.name, tenant.mode.value)
        if result.granted:
            return Verdict(Action.DUNNO, Cause.GRANTED, tenant.name, tenant.mode.value, repeated=result.repeated, granted=True)
        return known.repeated if result.repeated else known.admitted
    if result.refusal is None:
        text = "Sending is suspended for this account, ask your provider"
        return Verdict(Action.REJECT, Cause.SUSPENDED, tenant.name, tenant.mode.value, dsn="5.7.1", text=text,
                       repeated=result.repeated, reason=result.reason)  # fmt: skip
    return _at_limit(tenant, _limit(question.operation.account, result.refusal), result.refusal, result)


def _suppressed(tenant: Tenant, result: Decision) -> Verdict:
    """The recipient is on the tenant's list; ADMITTED: only observed."""
    entry, observed = Suppression.unpack(result.reason), result.status is Status.ADMITTED
    return Verdict(Action.DUNNO if observed else Action.REJECT, Cause.SUPPRESSED, tenant.name, tenant.mode.value,
                   dsn="" if observed else "5.7.1", text=describe_suppression(entry), observed=observed,
                   repeated=result.repeated, reason=f"{entry.kind}: {entry.reason}".rstrip(": "))  # fmt: skip


def _cap(tenant: Tenant, request: Request, earlier: int) -> Verdict | None:
    """What the caps on one message say; with DUNNO in observe mode."""
    recipients = earlier + 1 if request.state is State.RCPT else request.recipient_count
    most, largest = tenant.recipients_per_message, tenant.bytes_per_message
    if most is not None and recipients > most:
        text = f"Too many recipients in one message, at most {most} are allowed"
        # RFC 5321 4.5.3.1.10: at RCPT 452, on which a client sends the rest in another message.
        code, action, dsn = (452, Action.DEFER, "4.5.3") if request.state is State.RCPT else (0, Action.REJECT, "5.5.3")
        cap = (Cause.RECIPIENTS, action, code, dsn, text, f"recipients_per_message: {most}", recipients, most)
    elif largest is not None and request.size > largest:
        text = f"Message of {format_bytes(request.size)} is too large, at most {format_bytes(largest)} are allowed"
        cap = (Cause.SIZE, Action.REJECT, 0, "5.3.4", text, f"bytes_per_message: {largest}", request.size, largest)
    else:
        return None
    cause, action, code, dsn, text, limit, used, allowed = cap
    observed = tenant.mode is Mode.OBSERVE
    return Verdict(Action.DUNNO if observed else action, cause, tenant.name, tenant.mode.value, code, dsn, text, limit,
                   used, allowed, observed=observed)  # fmt: skip


_WITHOUT_STORE = "Sending limits cannot be checked at the moment, try again in a minute"
_REMEMBERED = 16384
_DECIDED = frozenset({State.RCPT, State.DATA, State.END_OF_MESSAGE})
_NOT_DECIDED = Verdict(Action.DUNNO, Cause.STATE)
_UNAUTHENTICATED = Verdict(Action.DUNNO, Cause.UNAUTHENTICATED)
_UNKNOWN_IGNORED = Verdict(Action.DUNNO, Cause.UNKNOWN_LOGIN)
_UNKNOWN_REJECTED = Verdict(
    Action.REJECT, Cause.UNKNOWN_LOGIN, dsn="5.7.1", text="This login may not send mail here, ask your provider"
)


def _limit(account: Account, refusal: Refusal) -> Limit | None:
    return next((balance.limit for balance in account.balances if balance.key == refusal.key), None)


def _at_limit(tenant: Tenant, limit: Limit | None, refusal: Refusal, decision: Decision) -> Verdict:
    """A limit is reached.  The ledger refused; or charged past it, to be held; or admitted, as the limit is only observed."""
    never = refusal.retry_after_ms is None
    action, dsn = Action.REJECT, "5.7.1"
    observed = decision.status is Status.ADMITTED
    if observed:
        action, dsn = Action.DUNNO, ""
    elif decision.status is Status.HELD:
        action, dsn = Action.HOLD, ""
    elif tenant.on_exceed is OnExceed.DEFER and not never:
        action, dsn = Action.DEFER, "4.7.1"
    return Verdict(
        action,
        Cause.NEVER if never else Cause.LIMIT,
        tenant.name,
        tenant.mode.value,
        dsn=dsn,
        text=describe_refusal(limit, refusal),
        limit=str(limit) if limit is not None else refusal.key,
        used=refusal.used,
        allowed=refusal.allowed,
        retry_after_ms=refusal.retry_after_ms,
        observed=observed,
        repeated=decision.repeated,
        granted=decision.granted,
    )
