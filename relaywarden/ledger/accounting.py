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

from relaywarden.ledger.balances import ADMITTED, Balances, Check, Cost, Fields
from relaywarden.ledger.counters import Counters
from relaywarden.ledger.grants import GRANTED
from relaywarden.ledger.merging import merge
from relaywarden.ledger.operations import (
    Abandon,
    Account,
    Charge,
    Decision,
    Done,
    Operation,
    Read,
    Reconcile,
    Refund,
    Refusal,
    Refuse,
    Reset,
    Result,
    Score,
    Settle,
    Settlement,
    Snapshot,
    Status,
    Steer,
    Take,
    Taken,
    recipient_digest,
)
from relaywarden.ledger.recording import RecordBooks, SuppressionBooks, record, suppression
from relaywarden.ledger.records import HISTORY_MS, HOUR_MS
from relaywarden.ledger.scores import SCORES, Tableau
from relaywarden.ledger.ticket import ANONYMOUS, Phase, Ticket, read_refusal, write_refusal
from relaywarden.limits import Meter

LAST_REFUSAL = "r"  # the field that keeps when and by what a tenant was last refused: "ms TAB refusal"
SETTLED_TTL_MS = 300_000  # a settled or refused ticket still answers a resent request this long


class Books(Fields, SuppressionBooks, Protocol):
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


class StoreBooks(Books, RecordBooks, Protocol):
    """The same, where records are kept too."""


def decide(books: Books, operation: Charge | Reconcile) -> Decision:
    """Charge a request, or refuse it."""
    return _charge(books, operation) if isinstance(operation, Charge) else _reconcile(books, operation)


def apply(books: StoreBooks, operation: Operation) -> Result:
    """Carry out one operation on the books of its tenant."""
    match operation:
        case Charge() | Reconcile():
            return decide(books, operation)
        case Refuse():
            return _refuse(books, operation)
        case Abandon():
            return _abandon(books, operation)
        case Settle():
            return _settle(books, operation)
        case Refund():
            return _refund(books, operation)
        case Read(account):
            return _read(books, account)
        case Steer(_, change, by):
            state = merge(books.load_state(), change, by, books.now_ms)
            books.save_state(state)
            return Done(state)
        case Reset():
            return _reset(books)
        case Take():
            return _take(books, operation)
        case Score():
            return _score(books, operation)
        case _:
            return record(books, operation, recipient_digest)


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
    if _is_over(books, op, ticket):
        return Decision(Status.ADMITTED, repeated=True)
    if (reason := suspended(state, books.now_ms)) is not None and not op.late_ms:
        return _refuse_suspended(books, op, ticket, digest, reason)
    answered = ticket.answered(digest)
    if answered > 0 or ticket.phase in (Phase.SETTLED, Phase.REFUNDED):
        return Decision(Status.ADMITTED, repeated=True)
    if (answered < 0 or ticket.phase is Phase.REFUSED) and ticket.refusal and not op.late_ms:
        return Decision(Status.REFUSED, ticket.refusal, repeated=True)
    listed = suppression(books, digest) if not op.late_ms else ""
    if listed and not _observes(op.account, state):
        return _refuse_suppressed(books, op, ticket, digest, listed)
    ticket.phase = Phase.OPEN  # a late charge was admitted without the store, whatever was said of it before
    cost = Cost(
        messages=0 if ticket.message_ms else 1,
        recipients=1,
        size=max(0, op.size - ticket.size),
        digests=(digest,),
    )
    balances = Balances(books, op.account, state, books.now_ms, late=op.late_ms > 0)
    found = balances.check(cost)
    if op.dry:
        return _decision(found)._replace(reason=listed)
    if found.refused is not None:
        ticket.recipients.append((digest, -books.now_ms))
        _note_refusal(books, ticket, found.refused)
        _save(books, op.ticket, ticket, "", "")
        return _decision(found)
    if answered < 0:  # refused by a suspension that has ended since
        ticket.recipients = [entry for entry in ticket.recipients if entry[0] != digest]
    _book(books, ticket, balances, cost, found)
    _keep_grants(books, balances, state)
    _save(books, op.ticket, ticket, op.queue_id, op.connection if cost.messages else "")
    return _decision(found)._replace(reason=listed)


def _decision(found: Check, repeated: bool = False) -> Decision:
    if found.refused is not None:
        return Decision(Status.REFUSED, found.refused)
    if found.held is not None:
        return Decision(Status.HELD, found.held, repeated, granted=bool(found.granted))
    return Decision(Status.ADMITTED, found.observed, repeated, granted=bool(found.granted))


def _note_refusal(books: Books, ticket: Ticket, refusal: Refusal) -> None:
    ticket.refusal = refusal
    books.save(LAST_REFUSAL, f"{books.now_ms}\t{write_refusal(refusal)}".encode())
    _count(books, refused=1)


def _keep_grants(books: Books, balances: Balances, state: dict[str, Any]) -> None:
    if balances.grants.drawn:
        books.save_state(state)  # whose grants were drawn on in place


def _is_over(books: Books, op: Charge | Reconcile, ticket: Ticket) -> bool:
    """Whether a late charge comes after the milter's last word, which found no ticket and counted the message by itself.

    Messages of one connection follow each other: if one of it ended after this was admitted, this one has.
    """
    if not op.late_ms or ticket.message_ms or not op.connection:
        return False
    ended = books.find(f"e:{op.connection}")
    return ended is not None and int(ended) >= books.now_ms - op.late_ms


def _refuse_suspended(books: Books, op: Charge, ticket: Ticket, digest: bytes, reason: str) -> Decision:
    if not op.dry and not ticket.answered(digest):
        ticket.recipients.append((digest, -books.now_ms))
        _count(books, refused=1)
        _save(books, op.ticket, ticket, "", "")
    return Decision(Status.SUSPENDED, reason=reason)


def _refuse_suppressed(books: Books, op: Charge, ticket: Ticket, digest: bytes, listed: str) -> Decision:
    if not op.dry and not ticket.answered(digest):
        ticket.recipients.append((digest, -books.now_ms))
        _count(books, refused=1)
        books.add_hour(books.now_ms // HOUR_MS, {"suppressed": 1}, HISTORY_MS)
        _save(books, op.ticket, ticket, "", "")
    return Decision(Status.SUPPRESSED, reason=listed)


def _observes(account: Account, state: Mapping[str, Any]) -> bool:
    return account.observe if "mode" not in state else bool(state["mode"] == "observe")


def _reconcile(books: Books, op: Reconcile) -> Decision:
    state = books.load_state()
    ticket = Ticket.unpack(books.load_ticket(op.ticket)) or Ticket()
    if ticket.phase is Phase.REFUSED and ticket.refusal and not op.late_ms:
        return Decision(Status.REFUSED, ticket.refusal, repeated=True)
    if ticket.phase in (Phase.SETTLED, Phase.REFUNDED):
        return Decision(Status.ADMITTED, repeated=True)
    if _is_over(books, op, ticket):
        return Decision(Status.ADMITTED, repeated=True)
    balances = Balances(books, op.account, state, books.now_ms, late=op.late_ms > 0)
    if (reason := suspended(state, books.now_ms)) is not None and not op.late_ms:
        if not op.dry:
            _give_all_back(books, ticket, balances)
            _keep_grants(books, balances, state)
            _count(books, refused=1)
            ticket.phase = Phase.REFUNDED
            _save(books, op.ticket, ticket, "", "")
        return Decision(Status.SUSPENDED, reason=reason)
    ticket.phase = Phase.OPEN  # see _charge
    cost = _missing(ticket, op.recipients or len(ticket.charged), op.size, ())
    found = balances.check(cost)
    if op.dry:
        return _decision(found)
    if found.refused is not None:
        _give_all_back(books, ticket, balances)
        ticket.phase = Phase.REFUSED
        _note_refusal(books, ticket, found.refused)
        _keep_grants(books, balances, state)
        _save(books, op.ticket, ticket, "", "")
        return _decision(found)
    repeated = ticket.message_ms > 0 and cost == Cost()
    _give_surplus_back(books, ticket, balances, op.recipients or len(ticket.charged), op.size)
    _book(books, ticket, balances, cost, found)
    _keep_grants(books, balances, state)
    _save(books, op.ticket, ticket, op.queue_id, op.connection if cost.messages else "")
    return _decision(found, repeated)


def _refuse(books: Books, op: Refuse) -> Done:
    state = books.load_state()
    ticket = Ticket.unpack(books.load_ticket(op.ticket)) or Ticket()
    digest = recipient_digest(op.recipient) if op.recipient else ANONYMOUS
    if ticket.phase is not Phase.OPEN or ticket.answered(digest):
        return Done(state)
    ticket.recipients.append((digest, -books.now_ms))
    if not op.recipient:
        balances = Balances(books, op.account, state, books.now_ms)
        _give_all_back(books, ticket, balances)
        _keep_grants(books, balances, state)
        ticket.phase = Phase.REFUNDED
    _count(books, refused=1)
    _save(books, op.ticket, ticket, "", "")
    return Done(state)


def _abandon(books: Books, op: Abandon) -> Done:
    state = books.load_state()
    ticket = Ticket.unpack(books.load_ticket(op.ticket))
    if ticket is not None and ticket.phase is Phase.OPEN and ticket.message_ms:
        balances = Balances(books, op.account, state, books.now_ms)
        _give_all_back(books, ticket, balances)
        _keep_grants(books, balances, state)
        books.save_ticket(op.ticket, ticket.pack(), SETTLED_TTL_MS)
    return Done(state)


def _settle(books: Books, op: Settle) -> Settlement:
    name, ticket = _find_ticket(books, op.queue_id, op.connection)
    if ticket is not None and ticket.phase is not Phase.OPEN:
        return Settlement(True, len(ticket.charged), ticket.size)  # settled before: sent again after a lost answer
    found = ticket is not None
    ticket = ticket or Ticket()
    state = books.load_state()
    balances = Balances(books, op.account, state, books.now_ms)
    known = {digest for digest, _ in ticket.recipients}
    fresh = tuple(digest for digest in map(recipient_digest, op.recipients) if digest not in known)
    count = max(1, len(op.recipients))
    cost = _missing(ticket, count, op.size, fresh)
    _give_surplus_back(books, ticket, balances, count, op.size)
    _book(books, ticket, balances, cost)  # the mail is on its way: it is counted even past a limit
    _keep_grants(books, balances, state)
    return _close(books, name, ticket, Phase.SETTLED, op, found)


def _refund(books: Books, op: Refund) -> Settlement:
    name, ticket = _find_ticket(books, op.queue_id, op.connection)
    if ticket is not None and ticket.phase is not Phase.OPEN:
        return Settlement(True, len(ticket.charged), ticket.size)
    if ticket is None and not (op.counter and op.queue_id):
        _note_end(books, op)
        return Settlement(False)
    found = ticket is not None
    ticket = ticket or Ticket()
    state = books.load_state()
    balances = Balances(books, op.account, state, books.now_ms)
    _give_all_back(books, ticket, balances)
    _keep_grants(books, balances, state)
    return _close(books, name, ticket, Phase.REFUNDED, op, found)


def _close(books: Books, name: str, ticket: Ticket, phase: Phase, op: Settle | Refund, found: bool) -> Settlement:
    """The end of a ticket; its queue id finds it from now on, so that the same word again changes nothing."""
    if op.counter:
        _count(books, **{op.counter: 1})
    ticket.phase = phase
    books.save_ticket(name, ticket.pack(), SETTLED_TTL_MS)
    if op.queue_id:
        books.point(f"q:{op.queue_id}", name, SETTLED_TTL_MS)
    if not found:
        _note_end(books, op)
    return Settlement(found, len(ticket.charged), ticket.size)


def _note_end(books: Books, op: Settle | Refund) -> None:
    """A message of this connection ended whose ticket is not here, or not yet (see _is_over)."""
    if op.connection:
        books.point(f"e:{op.connection}", str(books.now_ms), SETTLED_TTL_MS)


def _read(books: Books, account: Account) -> Snapshot:
    state = books.load_state()
    hour, today = Counters(books.load_counters(), books.now_ms).snapshot()
    used = Balances(books, account, state, books.now_ms).used()
    refused_ms, _, refusal = (books.load(LAST_REFUSAL) or b"0").decode().partition("\t")
    last = read_refusal(refusal) if refusal else None
    scores = Tableau(books.load_tail(SCORES), books.now_ms).scores()
    return Snapshot(used, hour, today, state, books.now_ms, int(refused_ms), last, scores)


def _reset(books: Books) -> Done:
    scores = books.load_tail(SCORES)
    books.clear()
    if scores is not None:
        books.save_tail(SCORES, scores)
    return Done(books.load_state())


def _take(books: Books, op: Take) -> Taken:
    taken, wait = Balances(books, op.account, books.load_state(), books.now_ms).take(op.amount)
    if taken:
        _count(books, messages=taken)
    return Taken(taken, wait)


def _score(books: Books, op: Score) -> Done:
    tableau = Tableau(books.load_tail(SCORES), books.now_ms)
    tableau.add(op.score, op.symbols)
    books.save_tail(SCORES, tableau.pack())
    if books.load_counters() is None:  # by them the tenant is listed
        books.save_counters(Counters(None, books.now_ms).pack())
    return Done()


def _find_ticket(books: Books, queue_id: str, connection: str) -> tuple[str, Ticket | None]:
    """The message's ticket, by its queue id, closed or not; else the open one of its connection; else a name for a new one."""
    for name in (f"q:{queue_id}" if queue_id else "", f"c:{connection}" if connection else ""):
        ident = books.find(name) if name else None
        ticket = Ticket.unpack(books.load_ticket(ident)) if ident else None
        if ident and ticket and (ticket.phase is Phase.OPEN or name.startswith("q:")):
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


def _book(books: Books, ticket: Ticket, balances: Balances, cost: Cost, found: Check = ADMITTED) -> None:
    """Charge `cost` to the balances (or a grant), the counters and the ticket."""
    if found.held is not None and not ticket.held:
        ticket.held = True
        _count(books, held=1)
    if cost == Cost():
        return
    granted = found.granted
    balances.charge(cost, granted)
    _count(books, messages=cost.messages, recipients=cost.recipients, bytes=cost.size)

    def now(meter: Meter) -> float:
        return books.now_ms + (GRANTED if meter in granted else 0)

    if cost.messages:
        ticket.message_ms = now(Meter.MESSAGES)
    if cost.size:
        ticket.add_size(cost.size, now(Meter.BYTES))
    named = cost.digests[: cost.recipients]
    names = (*named, *(ANONYMOUS,) * (cost.recipients - len(named)))
    ticket.recipients += [(digest, now(Meter.RECIPIENTS)) for digest in names]


def _give_surplus_back(books: Books, ticket: Ticket, balances: Balances, recipients: int, size: int) -> None:
    """Recipients that Postfix refused after we admitted them, and bytes that were claimed but not sent.

    Which recipients they were is not known: the oldest are given back, so what stays expires late rather than early.
    """
    charged = ticket.charged
    surplus = charged[: max(0, len(charged) - recipients)]
    entries: list[tuple[Meter, int, float]] = [(Meter.RECIPIENTS, 1, ms) for _, ms in surplus]
    if size and size < ticket.size:
        entries += [(Meter.BYTES, part, ms) for part, ms in ticket.take_size(ticket.size - size)]
    for entry in surplus:
        ticket.recipients.remove(entry)
    _give_back(books, balances, entries)


def _give_all_back(books: Books, ticket: Ticket, balances: Balances) -> None:
    entries: list[tuple[Meter, int, float]] = [(Meter.RECIPIENTS, 1, ms) for _, ms in ticket.charged]
    entries.append((Meter.MESSAGES, 1 if ticket.message_ms else 0, ticket.message_ms))
    entries += [(Meter.BYTES, part, ms) for part, ms in ticket.take_size(ticket.size)]
    ticket.recipients = [entry for entry in ticket.recipients if entry[1] < 0]
    ticket.message_ms = 0
    _give_back(books, balances, entries)


def _give_back(books: Books, balances: Balances, entries: list[tuple[Meter, int, float]]) -> None:
    entries = [entry for entry in entries if entry[1] > 0]
    if not entries:
        return
    balances.take_back(entries)
    counters = Counters(books.load_counters(), books.now_ms)
    for meter, amount, ms in entries:
        counters.take_back(meter.value, amount, int(ms))
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
