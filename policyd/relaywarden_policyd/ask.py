"""ask - what would Postfix be told?  A dry run of policy requests from a file: it decides on the real ledger, spends nothing.

The file holds requests as Postfix sends them (`postconf`'s debug_peer_list logs them, or write `name=value` lines); CRLF
line ends, several empty lines between requests and a missing last one are tolerated here, unlike on the socket.

Known limits: as nothing is spent, each request is decided on its own: ten recipients against a limit with room for five
are ten admissions.  The cap on recipients of one message does count the requests with one `instance`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from relaywarden.errors import ProtocolError
from relaywarden.ledger.operations import Account, Balance, Decision, Done, Ledger, Read, Snapshot
from relaywarden_policyd.decide import Judge, answer
from relaywarden_policyd.protocol import Request, State, parse_request
from relaywarden_policyd.verdict import Action, Cause, Verdict, format_wait

_EMPTY_LINES = re.compile(rb"\n{2,}")


class Answer(NamedTuple):
    """One request and what it would be told; `nearest` is the balance with the least room left, by (limit, used, allowed)."""

    request: Request
    verdict: Verdict
    nearest: tuple[str, int, int] | None = None

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        verdict = self.verdict
        document: dict[str, Any] = {"action": verdict.reply, **verdict.fields()}
        document |= {"state": self.request.state.value, "recipient": self.request.recipient}
        document["reason"] = verdict.reason or verdict.text or _WORDS.get(verdict.cause, verdict.cause.value)
        if not verdict.limit:
            limit, used, allowed = self.nearest or (None, None, None)
            document |= {"limit": limit, "used": used, "allowed": allowed}
        document["tenant"] = verdict.tenant or None
        return document

    def lines(self) -> Iterator[str]:
        """For people."""
        request, verdict = self.request, self.verdict
        who = f"{request.sasl_username or 'nobody (no sasl_username)'}"
        yield f"{request.state.value or 'unknown state'} {request.recipient or '-'} by {who}: {verdict.action.name.lower()}"
        yield f"  action    {verdict.reply}"
        if verdict.tenant:
            yield f"  tenant    {verdict.tenant} ({verdict.mode})"
        if verdict.limit:
            yield f"  limit     {verdict.limit}, {verdict.used} used of {verdict.allowed}"
        elif self.nearest:
            yield "  limit     nearest is {}, {} used of {}".format(*self.nearest)
        if verdict.retry_after_ms is not None:
            yield f"  retry     in {format_wait(verdict.retry_after_ms)}"
        observed = ", would be refused in enforce mode" if verdict.observed else ""
        note = f": {verdict.reason}" if verdict.reason else ""
        granted = ", part of it charged to a grant" if verdict.granted and verdict.cause is not Cause.GRANTED else ""
        yield f"  reason    {_WORDS.get(verdict.cause, verdict.cause.value)}{observed}{granted}{note}"


_WORDS = {
    Cause.ADMITTED: "within all limits",
    Cause.GRANTED: "beyond a limit, charged to a grant",
    Cause.LIMIT: "a limit is reached",
    Cause.NEVER: "more than a limit allows as a whole",
    Cause.SUSPENDED: "the tenant is suspended",
    Cause.SUPPRESSED: "the recipient is on the tenant's suppression list",
    Cause.RECIPIENTS: "too many recipients in one message",
    Cause.SIZE: "the message is too large",
    Cause.UNKNOWN_LOGIN: "no tenant has this login (unknown_login)",
    Cause.UNAUTHENTICATED: "not authenticated, so nobody's limits hold",
    Cause.STATE: "nothing is decided at this state",
}


def read_requests(data: bytes) -> list[Request]:
    """All requests of a file; raises ProtocolError, which says which one is wrong."""
    blocks = [block for block in _EMPTY_LINES.split(data.replace(b"\r\n", b"\n").strip(b"\n")) if block]
    if not blocks:
        raise ProtocolError("there is no request in it")
    requests = []
    for number, block in enumerate(blocks, 1):
        try:
            requests.append(parse_request(block))
        except ProtocolError as error:
            raise ProtocolError(f"request {number}: {error}") from None
    return requests


def ask(judge: Judge, ledger: Ledger, requests: Iterable[Request]) -> Iterator[Answer]:
    """What each request would be told now; raises StoreUnavailableError."""
    admitted: dict[str, int] = {}
    for request in requests:
        asked = judge.ask(request, admitted.get(request.instance, 0), dry=True)
        if isinstance(asked, Verdict):
            yield Answer(request, asked)
            continue
        account = asked.operation.account
        decision, snapshot = ledger.apply([asked.operation, Read(account)])
        if not isinstance(decision, Decision | Done):
            raise ProtocolError(f"the ledger answered a request by {type(decision).__name__}")
        verdict = answer(asked, decision)
        if verdict.action in (Action.DUNNO, Action.HOLD) and request.state is State.RCPT:
            admitted[request.instance] = admitted.get(request.instance, 0) + 1
        yield Answer(request, verdict, _nearest(account, snapshot) if isinstance(snapshot, Snapshot) else None)


def _nearest(account: Account, snapshot: Snapshot) -> tuple[str, int, int] | None:
    limits: dict[str, Balance] = {balance.key: balance for balance in account.balances}
    balances = [balance for balance in snapshot.balances if balance.key in limits]
    if not balances:
        return None
    nearest = max(balances, key=lambda balance: balance.used / max(1, balance.allowed))
    return str(limits[nearest.key].limit), nearest.used, nearest.allowed
