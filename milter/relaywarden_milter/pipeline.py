"""pipeline - one whole message in, one outcome out.  The session only carries the outcome to Postfix.

    delete control headers -> tenant -> size -> From belongs to the tenant -> scan -> route -> sign LAST -> ledger operation

Everything that changes a header comes before the signatures, or they would not verify.  What may be asked on the way is
rspamd, within its deadline and behind its breaker; keys and settings are in memory.

How it fails: towards the client by an outcome with a reply code, never by an exception that it should know of.  A message
whose key cannot be used is put off, a message that rspamd could not judge goes by `scan.on_error`.  A tenant in `observe`
mode is judged and logged, but its From and content never lead to a refusal; that its key is missing still puts mail off.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from relaywarden.config.settings import Mode, OnScanError, Settings
from relaywarden.config.settings import Outcome as Ended
from relaywarden.errors import KeyFileError, MessageError, ScanError
from relaywarden.ledger.operations import Account, Refund, Settle
from relaywarden.logs import event
from relaywarden.tenants import Directory, Tenant
from relaywarden_milter import control, identity, meters
from relaywarden_milter.edits import Add, Change, Edits
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.keyring import Keyring
from relaywarden_milter.message import Message, values
from relaywarden_milter.route import Route, Router
from relaywarden_milter.rspamd import Scanner
from relaywarden_milter.scan import Fate, Meaning, meaning
from relaywarden_milter.sign import Signer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is turned away: a reply for the client."""

    fate: Fate
    code: str
    enhanced: str
    text: str


@dataclass(slots=True)
class Outcome:
    """What the session must do: header steps (only for a message that is taken), a reply, and a ledger operation."""

    result: str  # for the metric and the log
    fate: Fate = Fate.ACCEPT
    refusal: Refusal | None = None
    hold: str = ""  # reason for Postfix's hold queue
    steps: list[Change | Add] = field(default_factory=list)
    operation: Settle | Refund | None = None
    record: dict[str, Any] = field(default_factory=dict)


class Rules:
    """Everything that one configuration says about messages; immutable, a reload makes a new one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = Directory(settings)
        self.keyring = Keyring(settings)
        self.router = Router(settings)
        self.is_control = control.matcher(settings)
        self.scanner = Scanner(settings.scan) if settings.scan is not None else None
        self.unheard: set[str] = set()  # actions of rspamd that were logged as unknown

    def keeps_body(self, login: str | None) -> bool:
        """Will the body be needed again after its hash?"""
        return self.scanner is not None and login is not None

    def close(self) -> None:
        """Give back connections."""
        if self.scanner is not None:
            self.scanner.close()


def handle(rules: Rules, envelope: Envelope, message: Message) -> Outcome:
    """Decide about one message."""
    edits = Edits(message.headers)
    if forged := edits.delete(rules.is_control):
        meters.FORGED.inc(forged)
    tenant = rules.directory.by_login(envelope.login) if envelope.login is not None else None
    work = _Work(rules, envelope, message, edits, tenant, {"forged": forged or None})
    if message.too_large:
        return work.turn_away(Refusal(Fate.REJECT, "552", "5.3.4", f"Message too large: {message.too_large}"))
    if envelope.login is None:
        return Outcome("unauthenticated", steps=edits.steps, record=work.record)
    if tenant is not None:
        return work.run(tenant)
    if rules.settings.unknown_login == "ignore":
        return Outcome("ignored", steps=edits.steps, record=work.record)
    return work.turn_away(Refusal(Fate.REJECT, "550", "5.7.1", "This login may not send mail here, ask your provider"))


def refund(rules: Rules, envelope: Envelope, ended: Ended) -> Refund | None:
    """What the ledger must be told of a message that was aborted, or that we failed to handle; None: it stays charged."""
    if ended not in rules.settings.ledger.refund:
        return None
    # Also without recipients: Postfix may have refused, after policyd charged them, those that it never showed us.
    tenant = rules.directory.by_login(envelope.login) if envelope.login is not None else None
    return None if tenant is None else Refund(_account(tenant, envelope), envelope.queue_id, envelope.connection)


@dataclass(slots=True)
class _Work:
    """The stages of one message; each adds to `edits` and `record`, or returns a refusal."""

    rules: Rules
    envelope: Envelope
    message: Message
    edits: Edits
    tenant: Tenant | None
    record: dict[str, Any]
    domains: tuple[str, ...] = ()
    divert: bool = False
    hold: str = ""

    def run(self, tenant: Tenant) -> Outcome:
        refusal = self._binding(tenant, self._identity(tenant)) or self._scan(tenant)
        if refusal is None:
            refusal = self._route(tenant) or self._sign(tenant)
        if refusal is not None:
            return self.turn_away(refusal)
        result = "held" if self.hold else "diverted" if self.divert else "accepted"
        settle = self._settle(tenant, "held" if self.hold else "")
        return Outcome(result, hold=self.hold, steps=self.edits.steps, operation=settle, record=self.record)

    def _settle(self, tenant: Tenant, counter: str) -> Settle:
        envelope = self.envelope
        recipients = tuple(envelope.recipients)
        return Settle(
            _account(tenant, envelope), envelope.queue_id, envelope.connection, recipients, self.message.size, counter
        )

    def turn_away(self, refusal: Refusal) -> Outcome:
        """Charged or given back as `ledger.refund` has it: by default rejected mail stays charged, so that it is not free."""
        final = refusal.fate is not Fate.TEMPFAIL
        ended, counter = (Ended.REJECTED, "rejected") if final else (Ended.DEFERRED, "")
        operation: Settle | Refund | None = None
        if self.tenant is not None and ended in self.rules.settings.ledger.refund:
            operation = Refund(_account(self.tenant, self.envelope), self.envelope.queue_id, self.envelope.connection, counter)
        elif self.tenant is not None:
            operation = self._settle(self.tenant, counter)
        result = {Fate.REJECT: "rejected", Fate.TEMPFAIL: "deferred"}.get(refusal.fate, "discarded")
        self.record["reply"] = f"{refusal.code} {refusal.enhanced} {refusal.text}".strip()
        return Outcome(result, refusal.fate, refusal, operation=operation, record=self.record)

    def _binding(self, tenant: Tenant, refusal: Refusal | None) -> Refusal | None:
        """A refusal by policy; under `observe` it is only written down."""
        if refusal is not None and tenant.mode is Mode.OBSERVE:
            self.record["observed"] = f"{refusal.code} {refusal.enhanced} {refusal.text}"
            return None
        return refusal

    def _identity(self, tenant: Tenant) -> Refusal | None:
        try:
            self.domains = identity.from_domains(self.message.headers)
        except MessageError as error:
            if not tenant.from_domains and len(values(self.message.headers, "from")) == 1:
                return None  # any From passes; one that cannot be read aligns with no key
            return Refusal(Fate.REJECT, "550", "5.7.1", f"Message refused: {error}")
        self.record["from"] = ",".join(self.domains)
        foreign = [domain for domain in self.domains if not identity.belongs(domain, tenant.from_domains)]
        if not foreign:
            return None
        self.domains = ()  # observed: our keys still never vouch for a domain that is not the tenant's
        text = f"This login may not send mail from {foreign[0]}; use a From address in a domain of your account"
        return Refusal(Fate.REJECT, "550", "5.7.1", text)

    def _scan(self, tenant: Tenant) -> Refusal | None:
        scanner, settings = self.rules.scanner, self.rules.settings.scan
        if scanner is None or settings is None:
            return None
        try:
            scan = scanner.scan(self.message.raw(self.edits.headers), self.envelope)
        except ScanError as error:
            return self._scan_failed(error, settings.on_error)
        found = meaning(scan, settings)
        self.record |= {"action": scan.action, "score": scan.score, "required": scan.required}
        worst = sorted(scan.symbols, key=lambda symbol: -symbol[1])[:5]
        self.record["symbols"] = ",".join(name for name, score in worst if score > 0)
        meters.SCANS.labels(scan.action if found.known else "custom").inc()
        if not found.known and scan.action not in self.rules.unheard:
            self.rules.unheard.add(scan.action)
            event(log, logging.WARNING, "rspamd gave an action of its own, see scan.custom_action",
                  action=scan.action, treated_as=settings.custom_action)  # fmt: skip
        refusal = self._binding(tenant, self._content(found))
        if refusal is None:
            for name, index in scan.remove:
                self.edits.delete_one(name, index)
            for name, value in scan.add:
                if not self.rules.is_control(name.lower()):
                    self.edits.add(name, value)
            if found.spam_header:
                self.edits.add(settings.spam_header, "Yes")
            if found.subject:
                self.edits.replace("Subject", found.subject)
        return refusal

    def _content(self, found: Meaning) -> Refusal | None:
        if found.fate is Fate.HOLD:
            self.hold = found.text
        if found.fate is Fate.REJECT:
            return Refusal(Fate.REJECT, "554", "5.7.1", found.text)
        if found.fate is Fate.TEMPFAIL:
            return Refusal(Fate.TEMPFAIL, "451", "4.7.1", found.text)
        return Refusal(Fate.DISCARD, "", "", "") if found.fate is Fate.DISCARD else None

    def _scan_failed(self, error: ScanError, on_error: OnScanError) -> Refusal | None:
        self.record |= {"action": "error", "scan_error": error}
        if on_error is OnScanError.TEMPFAIL:
            return Refusal(Fate.TEMPFAIL, "451", "4.7.1", "The content filter is not available, try again later")
        # Accept means what it says: we fail open here, unscanned mail is better than none for this operator.
        self.divert = on_error is OnScanError.DIVERT
        return None

    def _route(self, tenant: Tenant) -> Refusal | None:
        route: Route | None = self.rules.router.route(tenant, divert=self.divert)
        if route is not None:
            self.edits.add(route.header, route.value)
            self.record |= {"pool": route.pool, "member": route.member}
        elif self.divert:
            # Mail that is not trusted must not leave from the good addresses because a pool is missing.
            return Refusal(Fate.TEMPFAIL, "451", "4.7.1", "No route for this message at the moment, try again later")
        return None

    def _sign(self, tenant: Tenant) -> Refusal | None:
        try:
            own = self.rules.keyring.for_tenant(tenant, self.domains)
            operator = self.rules.keyring.operator()
        except KeyFileError as error:
            meters.KEY_FAILURES.inc()
            self.record["key_error"] = error
            return Refusal(Fate.TEMPFAIL, "451", "4.7.5", "This message cannot be signed at the moment, try again later")
        if not own and not operator:
            return None
        signer, now = Signer(self.edits.headers, self.message.body), int(time.time())
        for key in [*operator, *own]:  # each goes in above the last: the tenant's ends on top
            self.edits.insert_signature("DKIM-Signature", signer.sign(key, now))
        self.record["signed"] = ",".join(f"{key.domain}/{key.selector}" for key in [*own, *operator])
        meters.SIGNATURES.labels("tenant").inc(len(own))
        meters.SIGNATURES.labels("operator").inc(len(operator))
        return None


def _account(tenant: Tenant, envelope: Envelope) -> Account:
    return tenant.account(login=envelope.login or "", sender=envelope.sender, client=envelope.address)
