"""till - one tenant's limits at work on history: the ledger's own arithmetic on balances in memory.  No I/O, no clock.

A message is charged when it reached the queue.  Where one of its limits does not admit it, its recipients are tried one by one,
as policyd does at RCPT, the first that is admitted carrying the message and its size (as with a client that announces SIZE).
What is refused is charged to nothing; what is observed or held is charged all the same.  Caps on one message come first.

Highest uses are taken from the balances as they are saved (the wire formats of `window` and `unique`), so they cost nothing.

Known limits: overrides and grants of the ledger's dynamic state are not looked up.  Of a message with more than MOST_SINGLY
recipients the rest is tried together.  Of limits per login, domain or client the MOST_BALANCES newest balances are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

from relaywarden.config.settings import Mode, OnExceed
from relaywarden.ledger.balances import ADMITTED, Balances, Check, Cost
from relaywarden.ledger.operations import Account
from relaywarden.ledger.unique import HEAD, Shelf, estimate
from relaywarden.limits import Limit
from relaywarden.tenants import Tenant
from relaywarden_monitor.replay.tally import Use

MOST_SINGLY = 1000  # Postfix' smtpd_recipient_limit
MOST_BALANCES = 10_000
_RING = Struct("<3d")  # the head of a window, and of a sketch
_RATE = Struct("<d")


class Mail(NamedTuple):
    """One message as the limits see it."""

    at_ms: int
    recipients: int
    size: int = 0
    digests: Sequence[bytes] = ()  # of the recipients, as far as they are known
    messages: int = 1  # 0: one more recipient of a message that was charged before


class Till:
    """One tenant's balances."""

    def __init__(self, tenant: Tenant, uses: dict[str, Use]) -> None:
        """`uses` is filled: balance id -> what the limit would have done."""
        self._tenant, self._uses = tenant, uses
        self._fields = _Memory()
        self.state: Mapping[str, Any] = {}  # as in the ledger: {"slow": ...} while the tenant is slowed
        action = "hold" if tenant.on_exceed is OnExceed.HOLD else "refuse"
        for limit in tenant.limits:
            observed = limit.observe or tenant.mode is Mode.OBSERVE
            uses[limit.balance_id] = Use(str(limit), "observe" if observed else action, peak=0.0)

    def charge(self, account: Account, mail: Mail) -> int:
        """Charge what the limits admit; how many recipients they would have turned away."""
        mail, capped = self._capped(mail)
        if mail.recipients <= 0 or not account.balances:
            return capped
        self._fields.now_ms = mail.at_ms
        whole = Cost(mail.messages, mail.recipients, mail.size, tuple(mail.digests))
        balances = Balances(self._fields, account, self.state, mail.at_ms)
        if balances.check(whole) == ADMITTED:
            balances.charge(whole)
            return capped
        return capped + self._singly(account, mail)

    def peaks(self) -> None:
        """Write the highest uses down."""
        for limit in self._tenant.limits:
            self._uses[limit.balance_id].peak = self._peak(limit)

    def _capped(self, mail: Mail) -> tuple[Mail, int]:
        """What the caps on one message leave of it."""
        tenant, at = self._tenant, mail.at_ms / 1000
        observe = tenant.mode is Mode.OBSERVE
        if tenant.bytes_per_message is not None and mail.size > tenant.bytes_per_message:
            self._use(f"bytes_per_message: {tenant.bytes_per_message}", observe).refuse(at, mail.recipients)
            return (mail, 0) if observe else (mail._replace(recipients=0), mail.recipients)
        most = tenant.recipients_per_message
        if most is not None and mail.recipients > most:
            over = mail.recipients - most
            self._use(f"recipients_per_message: {most}", observe).refuse(at, over)
            return (mail, 0) if observe else (mail._replace(recipients=most, digests=mail.digests[:most]), over)
        return mail, 0

    def _use(self, cap: str, observe: bool) -> Use:
        return self._uses.setdefault(cap, Use(cap, "observe" if observe else "refuse"))

    def _singly(self, account: Account, mail: Mail) -> int:
        refused, messages, size = 0, mail.messages, mail.size
        for number in range(min(mail.recipients, MOST_SINGLY + 1)):
            count = 1 if number < MOST_SINGLY else mail.recipients - MOST_SINGLY
            cost = Cost(messages, count, size, tuple(mail.digests[number : number + count]))
            balances = Balances(self._fields, account, self.state, mail.at_ms)
            found = balances.check(cost)
            self._note(found, mail.at_ms / 1000, count)
            if found.refused is not None:
                refused += count
            else:
                balances.charge(cost)
                messages = size = 0
        return refused

    def _note(self, found: Check, at: float, count: int) -> None:
        refusal = found.refused or found.held or found.observed
        if refusal is not None:
            self._uses[_id(refusal.key)].refuse(at, count)

    def _peak(self, limit: Limit) -> float:
        highest = self._fields.peaks.get(limit.balance_id, 0.0)
        if limit.burst is not None:  # a rate keeps when its bucket will be full again
            return 100 * highest * limit.amount / limit.window_ms / limit.burst
        return 100 * highest / limit.amount if limit.amount else 0.0


class _Memory:
    """The balances, and the highest value that each kind of them had."""

    __slots__ = ("_shelves", "_tails", "_values", "now_ms", "peaks")

    def __init__(self) -> None:
        self.now_ms = 0
        self.peaks: dict[str, float] = {}
        self._values: dict[str, bytes] = {}
        self._tails: dict[str, bytes] = {}
        self._shelves: dict[str, _Sketch] = {}

    def load(self, name: str) -> bytes | None:
        return self._values.get(name)

    def save(self, name: str, value: bytes) -> None:
        self._values[name] = value
        self._rise(name, _RING.unpack(value)[1] if len(value) == _RING.size else _RATE.unpack(value)[0] - self.now_ms)
        if len(self._values) > MOST_BALANCES:
            oldest = next(iter(self._values))
            del self._values[oldest]
            self._tails.pop(oldest, None)

    def load_tail(self, name: str) -> bytes | None:
        return self._tails.get(name)

    def save_tail(self, name: str, value: bytes) -> None:
        self._tails[name] = value

    def shelf(self, name: str) -> Shelf:
        shelf = self._shelves.get(name)
        if shelf is None:
            if len(self._shelves) >= MOST_BALANCES:
                del self._shelves[next(iter(self._shelves))]
            shelf = self._shelves[name] = _Sketch(lambda count: self._rise(name, count))
        return shelf

    def _rise(self, name: str, amount: float) -> None:
        kind = _id(name)
        if amount > self.peaks.get(kind, 0.0):
            self.peaks[kind] = amount


class _Sketch:
    """One sketch's fields."""

    def __init__(self, rise: Callable[[float], None]) -> None:
        self._rise = rise
        self._values: dict[str, bytes] = {}

    def load(self, field: str) -> bytes | None:
        return self._values.get(field)

    def load_all(self) -> dict[str, bytes]:
        return dict(self._values)

    def save(self, field: str, value: bytes) -> None:
        self._values[field] = value
        if field == HEAD:
            _, harmonic, empty = _RING.unpack(value)
            self._rise(estimate(harmonic, empty))


def _id(key: str) -> str:
    """The balance id in a balance's key."""
    return key.partition("=")[0]
