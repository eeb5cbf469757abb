"""accounting - what each operation does to a tenant's books.  No I/O: the specification that lua/ repeats.

Every operation is one step: the store gives a `Books` whose changes are kept together or not at all.

Exactly once: a recipient is charged once a ticket, a message once a ticket, bytes to the ticket's size; so the same
request again changes nothing and is answered as before.  A recipient named twice in one transaction looks exactly like a
resent request and is charged once at RCPT; DATA then brings the count to Postfix's own.

All or nothing: `Balances.check` over every limit, then `Balances.charge`.  A refused RCPT costs nothing; a refused DATA or
END-OF-MESSAGE gives back what RCPT was charged, since none of the message will be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from relaywarden.ledger.balances import Balances, Cost, Fields
from relaywarden.ledger.counters import Counters
from relaywarden.ledger.operations import (
    Account,
    Charge,
    Decision,
    Done,
    Operation,
    Read,
    Reconcile,
    Refund,
    Reset,
    Result,
    Settle,
    Settlement,
    Snapshot,
    Status,
    Steer,
    recipient_digest,
)
from relaywarden.ledger.ticket import ANONYMOUS, Phase, Ticket
from relaywarden.limits import Meter

SETTLED_TTL_MS = 300_000  # a settled or refused ticket still answers a resent request this long


class Books(Fields, Protocol):
    """One tenant's part of the store, inside one step."""

    now_ms: int
    ticket_ttl_ms: int

    def load_ticket(self, ticket: str) -> bytes | None:
        """A ticket's value."""
        ...

    def save_ticket(self, ticket: str, value: bytes, ttl_ms: int) -> None:
        """Replace a ticket's value."""
        ...

    def find(self, name: str) -> str | None:
        """The ticket that a queue id ("q:...") or connection ("c:...") stands for."""
        ...

    def point(self, name: str, ticket: str, ttl_ms: int) -> None:
        """Let a queue id or connection stand for a ticket."""
        ...

    def load_counters(self) -> bytes | None:
        """The counters' value."""
        ...

    def save_counters(self, value: bytes) -> None:
        """Replace the counters' value."""
        ...

    def load_state(self) -> dict[str, Any]:
        """The dynamic state."""
        ...

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the dynamic state."""
        ...

    def clear(self) -> None:
        """Drop every balance."""
        ...


def apply(books: Books, operation: Operation) -> Result:
    """Carry out one operation on the books of its tenant."""
    match operation:
        case Charge():
            return _charge(books, operation)
        case Reconcile():
            return _reconcile(books, operation)
        case Settle():
            return _settle(books, operation)
        case Refund():
            return _refund(books, operation)
        case Read(account):
            return _read(books, account)
        case Steer(_, change):
            state = {**books.load_state(), **change}
            state = {key: value for key, value in state.items() if value is not None}
            books.save_state(state)
            return Done(state)
        case Reset():
            books.clear()
            return Done(books.load_state())


def suspended(state: Mapping[str, Any], now_ms: int) -> str | None:
    """The reason of a suspension that holds now, else None."""
    entry = state.get("suspended")
    if not entry or (entry.get("until_ms") and entry["until_ms"] <= now_ms):
        return None
    return str(entry.get("reason") or "")


def _charge(books: Books, op: Charge) -> Decision:
    state = books.load_state()
    ticket = Ticket.unpack(books.load_ticket(op.ticket)) or Ticket()
    digest = recipient_digest(op.recipient)
    if (reason := suspended(state, books.now_ms)) is not None:
        return _refuse_suspended(books, op, ticket, digest, reason)
    answered = ticket.answered(digest)
    if answered > 0 or ticket.phase in (Phase.SETTLED, Phase.REFUNDED):
        return Decision(Status.ADMITTED, repeated=True)
    if (answered < 0 or ticket.phase is Phase.REFUSED) and ticket.refusal:
        return Decision(Status.REFUSED, ticket.refusal, repeated=True)
    cost = Cost(
        messages=0 if ticket.message_ms else 1,
        recipients=1,
        size=max(0, op.size - ticket.size),
        digests=(digest,),
    )
    balances = Balances(books, op.account, state, books.now_ms)
    refused, observed = balances.check(cost)
    if op.dry:
        return Decision(Status.REFUSED, refused) if refused else Decision(Status.ADMITTED, observed)
    if refused:
        ticket.refusal = refused
        ticket.recipients.append((digest, -books.now_ms))
        _count(books, refused=1)
        _save(books, op.ticket, ticket, "", "")
        return Decision(Status.REFUSED, refused)
    _book(books, ticket, balances, cost)
    _save(books, op.ticket, ticket, op.queue_id, op.connection if cost.messages else "")
    return Decision(Status.ADMITTED, observed)


def _refuse_suspended(books: Books, op: Charge, ticket: Ticket, digest: bytes, reason: str) -> Decision:
    if not op.dry and not ticket.answered(digest):
        ticket.recipients.append((digest, -books.now_ms))
        _count(books, refused=1)
        _save(books, op.ticket, ticket, "", "")
    return Decision(Status.SUSPENDED, reason=reason)


def _reconcile(books: Books, op: Reconcile) -> Decision:
    state = books.load_state()
    ticket = Ticket.unpack(books.load_ticket(op.ticket)) or Ticket()
    if ticket.phase is Phase.REFUSED and ticket.refusal:
        return Decision(Status.REFUSED, ticket.refusal, repeated=True)
    if ticket.phase in (Phase.SETTLED, Phase.REFUNDED):
        return Decision(Status.ADMITTED, repeated=True)
    balances = Balances(books, op.account, state, books.now_ms)
    if (reason := suspended(state, books.now_ms)) is not None:
        if not op.dry:
            _give_all_back(books, ticket, balances)
            _count(books, refused=1)
            ticket.phase = Phase.REFUNDED
            _save(books, op.ticket, ticket, "", "")
        return Decision(Status.SUSPENDED, reason=reason)
    cost = _missing(ticket, op.recipients or len(ticket.charged), op.size, ())
    refused, observed = balances.check(cost)
    if op.dry:
        return Decision(Status.REFUSED, refused) if refused else Decision(Status.ADMITTED, observed)
    if refused:
        _give_all_back(books, ticket, balances)
        ticket.phase, ticket.refusal = Phase.REFUSED, refused
        _count(books, refused=1)
        _save(books, op.ticket, ticket, "", "")
        return Decision(Status.REFUSED, refused)
    repeated = ticket.message_ms > 0 and cost == Cost()
    _give_surplus_back(books, ticket, balances, op.recipients or len(ticket.charged), op.size)
    _book(books, ticket, balances, cost)
    _save(books, op.ticket, ticket, op.queue_id, op.connection if cost.messages else "")
    return Decision(Status.ADMITTED, observed, repeated)


def _settle(books: Books, op: Settle) -> Settlement:
    name, ticket = _open_ticket(books, op.queue_id, op.connection)
    found = ticket is not None
    ticket = ticket or Ticket()
    balances = Balances(books, op.account, books.load_state(), books.now_ms)
    known = {digest for digest, _ in ticket.recipients}
    fresh = tuple(digest for digest in map(recipient_digest, op.recipients) if digest not in known)
    count = max(1, len(op.recipients))
    cost = _missing(ticket, count, op.size, fresh)
    _give_surplus_back(books, ticket, balances, count, op.size)
    _book(books, ticket, balances, cost)  # the mail is on its way: it is counted even past a limit
    if op.counter:
        _count(books, **{op.counter: 1})
    ticket.phase = Phase.SETTLED
    books.save_ticket(name, ticket.pack(), SETTLED_TTL_MS)
    if not found:
        books.point(f"q:{op.queue_id}", name, SETTLED_TTL_MS)
    return Settlement(found, len(ticket.charged), ticket.size)


def _refund(books: Books, op: Refund) -> Settlement:
    if op.counter:
        _count(books, **{op.counter: 1})
    name, ticket = _open_ticket(books, op.queue_id, op.connection)
    if ticket is None:
        return Settlement(False)
    _give_all_back(books, ticket, Balances(books, op.account, books.load_state(), books.now_ms))
    ticket.phase = Phase.REFUNDED
    books.save_ticket(name, ticket.pack(), SETTLED_TTL_MS)
    return Settlement(True, len(ticket.charged), ticket.size)


def _read(books: Books, account: Account) -> Snapshot:
    state = books.load_state()
    hour, today = Counters(books.load_counters(), books.now_ms).snapshot()
    return Snapshot(Balances(books, account, state, books.now_ms).used(), hour, today, state, books.now_ms)


def _open_ticket(books: Books, queue_id: str, connection: str) -> tuple[str, Ticket | None]:
    """The ticket that policyd opened for this message, if it did and nobody closed it; else a name for a new one."""
    for name in (f"q:{queue_id}" if queue_id else "", f"c:{connection}" if connection else ""):
        ident = books.find(name) if name else None
        ticket = Ticket.unpack(books.load_ticket(ident)) if ident else None
        if ident and ticket and ticket.phase is Phase.OPEN:
            return ident, ticket
    return f"q:{queue_id}", None


def _missing(ticket: Ticket, recipients: int, size: int, digests: tuple[bytes, ...]) -> Cost:
    """What the ticket lacks to be one message with so many recipients and bytes."""
    return Cost(
        messages=0 if ticket.message_ms else 1,
        recipients=max(0, recipients - len(ticket.charged)),
        size=max(0, size - ticket.size),
        digests=digests,
    )


def _book(books: Books, ticket: Ticket, balances: Balances, cost: Cost) -> None:
    """Charge `cost` to the balances, the counters and the ticket."""
    if cost == Cost():
        return
    balances.charge(cost)
    _count(books, messages=cost.messages, recipients=cost.recipients, bytes=cost.size)
    if cost.messages:
        ticket.message_ms = books.now_ms
    if cost.size:
        ticket.size += cost.size
        ticket.size_ms = books.now_ms
    named = cost.digests[: cost.recipients]
    names = (*named, *(ANONYMOUS,) * (cost.recipients - len(named)))
    ticket.recipients += [(digest, books.now_ms) for digest in names]


def _give_surplus_back(books: Books, ticket: Ticket, balances: Balances, recipients: int, size: int) -> None:
    """Recipients that Postfix refused after we admitted them, and bytes that were claimed but not sent.

    Which recipients they were is not known: the oldest are given back, so what stays expires late rather than early.
    """
    charged = ticket.charged
    surplus = charged[: max(0, len(charged) - recipients)]
    entries = [(Meter.RECIPIENTS, 1, ms) for _, ms in surplus]
    if size and size < ticket.size:
        entries.append((Meter.BYTES, ticket.size - size, ticket.size_ms))
        ticket.size = size
    for entry in surplus:
        ticket.recipients.remove(entry)
    _give_back(books, balances, entries)


def _give_all_back(books: Books, ticket: Ticket, balances: Balances) -> None:
    entries = [(Meter.RECIPIENTS, 1, ms) for _, ms in ticket.charged]
    entries.append((Meter.MESSAGES, 1 if ticket.message_ms else 0, ticket.message_ms))
    entries.append((Meter.BYTES, ticket.size, ticket.size_ms))
    ticket.recipients = [entry for entry in ticket.recipients if entry[1] < 0]
    ticket.message_ms = ticket.size = ticket.size_ms = 0
    _give_back(books, balances, entries)


def _give_back(books: Books, balances: Balances, entries: list[tuple[Meter, int, int]]) -> None:
    entries = [entry for entry in entries if entry[1] > 0]
    if not entries:
        return
    balances.take_back(entries)
    counters = Counters(books.load_counters(), books.now_ms)
    for meter, amount, ms in entries:
        counters.take_back(meter.value, amount, ms)
    books.save_counters(counters.pack())


def _count(books: Books, **amounts: int) -> None:
    counters = Counters(books.load_counters(), books.now_ms)
    for name, amount in amounts.items():
        if amount:
            counters.add(name, amount)
    books.save_counters(counters.pack())


def _save(books: Books, name: str, ticket: Ticket, queue_id: str, connection: str) -> None:
    """Store the ticket; let a queue id find it from the first time it is known, and a connection from the first charge."""
    ttl = books.ticket_ttl_ms if ticket.phase is Phase.OPEN and ticket.message_ms else SETTLED_TTL_MS
    if queue_id and not ticket.indexed:
        books.point(f"q:{queue_id}", name, ttl)
        ticket.indexed = True
    if connection:
        books.point(f"c:{connection}", name, ttl)
    books.save_ticket(name, ticket.pack(), ttl)
