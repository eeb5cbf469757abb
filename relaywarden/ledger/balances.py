"""balances - all limits of one account together: either every one admits a cost and is charged, or none is.  No I/O.

A cost is what one request adds: messages, recipients, bytes, and the digests of recipients.  `Balances` opens the balances
that the cost touches, each once, checks them, and stores what changed only on `charge`.  What the
windows of a meter do not admit may go to a grant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from relaywarden.ledger.grants import GRANTED, Grants
from relaywarden.ledger.operations import Account, Balance, Refusal, Used
from relaywarden.ledger.unique import Shelf, Sketch
from relaywarden.ledger.window import PARTS, Rate, Ring
from relaywarden.limits import Meter

NO_METER: frozenset[Meter] = frozenset()


class Cost(NamedTuple):
    """What a request adds (all amounts at least 0)."""

    messages: int = 0
    recipients: int = 0
    size: int = 0
    digests: tuple[bytes, ...] = ()

    def of(self, meter: Meter) -> int:
        """The amount on one meter; for unique recipients an upper bound."""
        if meter is Meter.MESSAGES:
            return self.messages
        if meter is Meter.RECIPIENTS:
            return self.recipients
        return self.size if meter is Meter.BYTES else len(self.digests)


class Check(NamedTuple):
    """What the balances say to a cost: what refuses, what only an observed limit refuses, which meters a grant carries.

    `held` stands in the place of `refused` where the account's excess is to be held: it is charged all the same.
    """

    refused: Refusal | None = None
    observed: Refusal | None = None
    granted: frozenset[Meter] = NO_METER
    held: Refusal | None = None


ADMITTED = Check()


class Fields(Protocol):
    """Where a tenant's balances are kept."""

    def load(self, name: str) -> bytes | None:
        """A balance's value."""
        ...

    def save(self, name: str, value: bytes) -> None:
        """Replace a balance's value."""
        ...

    def load_tail(self, name: str) -> bytes | None:
        """The older slots of a window."""
        ...

    def save_tail(self, name: str, value: bytes) -> None:
        """Replace the older slots of a window."""
        ...

    def shelf(self, name: str) -> Shelf:
        """The fields of a unique-recipients balance."""
        ...


class Balances:
    """The balances of an account at one moment."""

    def __init__(self, fields: Fields, account: Account, state: Mapping[str, Any], now_ms: int, late: bool = False) -> None:
        self._fields = fields
        self._account = account
        self._overrides: Mapping[str, int] = state.get("limits") or {}
        self._observe = late or (account.observe if "mode" not in state else state["mode"] == "observe")
        self._factor = slowed(state, now_ms)
        self._now = now_ms
        self._counters: dict[str, Ring | Rate] = {}
        self._sketches: dict[str, Sketch] = {}
        self.grants = Grants(state, now_ms)

    def check(self, cost: Cost) -> Check:
        """Decide; of several refusals the one with the longest wait is named."""
        refused: Refusal | None = None
        observed: Refusal | None = None
        granted: frozenset[Meter] = NO_METER
        for balance in self._account.balances:
            meter = balance.limit.meter
            amount = cost.of(meter)
            refusal = self._check(balance, amount, cost.digests) if amount > 0 else None
            if refusal is None:
                continue
            if self._observe or balance.limit.observe:
                observed = _longer(observed, refusal)
            elif meter in granted or self.grants.covers(meter, amount):
                granted |= {meter}
            else:
                refused = _longer(refused, refusal)
        if self._account.hold and not self._observe:
            return Check(None, observed, granted, held=refused)
        return Check(refused, observed, granted)

    def charge(self, cost: Cost, granted: frozenset[Meter] = NO_METER) -> None:
        """Charge every balance, whether it admits or not; the meters in `granted` to a grant instead."""
        for meter in granted:
            self.grants.draw(meter, cost.of(meter))
        for balance in self._account.balances:
            amount = cost.of(balance.limit.meter)
            if amount <= 0 or balance.limit.meter in granted:
                continue
            if balance.limit.meter is Meter.UNIQUE_RECIPIENTS:
                sketch = self._sketch(balance)
                for digest in cost.digests:
                    sketch.add(digest)
                sketch.commit()
            else:
                counter = self._counter(balance)
                counter.add(amount)
                self._save(balance.key, counter)

    def take(self, wanted: int) -> tuple[int, int]:
        """Charge as many messages as every limit admits, grants and modes aside: (messages, ms until one more may fit).

        The time is 0 if all of `wanted` was charged, and -1 if waiting never helps.
        """
        balances = [balance for balance in self._account.balances if balance.limit.meter is Meter.MESSAGES]
        taken = min([wanted, *map(self._room, balances)])
        if taken > 0:
            self.charge(Cost(messages=taken))
        if taken == wanted:
            return taken, 0
        refusals = [refusal for balance in balances if (refusal := self._check(balance, 1, ())) is not None]
        waits = [-1 if refusal.retry_after_ms is None else refusal.retry_after_ms for refusal in refusals]
        return taken, -1 if -1 in waits else max([1, *waits])

    def _room(self, balance: Balance) -> int:
        """How much more this window or rate admits."""
        counter = self._counter(balance)
        room = counter.room if isinstance(counter, Rate) else self.allowed(balance) - int(counter.total)
        return max(0, room)

    def take_back(self, entries: Sequence[tuple[Meter, int, float]]) -> None:
        """Give back (meter, amount, time charged in ms) entries; unique recipients stay as they are."""
        for meter, amount, ms in entries:
            if amount > 0 and _by_grant(ms):
                self.grants.give_back(meter, amount)
        for balance in self._account.balances:
            meter = balance.limit.meter
            mine = [(amount, int(ms)) for owner, amount, ms in entries if owner is meter and amount > 0 and not _by_grant(ms)]
            if not mine or balance.limit.meter is Meter.UNIQUE_RECIPIENTS:
                continue
            counter = self._counter(balance)
            for amount, ms in mine:
                if isinstance(counter, Ring):
                    counter.take_back(ms, amount)
                else:
                    counter.take_back(amount)
            self._save(balance.key, counter)

    def used(self) -> tuple[Used, ...]:
        """Every balance as it stands."""
        return tuple(self._used(balance) for balance in self._account.balances)

    def allowed(self, balance: Balance) -> int:
        """The limit's amount (a rate's burst), or what the operator set instead."""
        base = balance.limit.amount if balance.limit.burst is None else balance.limit.burst
        if self._overrides:
            base = int(self._overrides.get(balance.key, self._overrides.get(balance.limit.balance_id, base)))
        return base if self._factor == 1 else _part(base, self._factor)

    def _used(self, balance: Balance) -> Used:
        allowed = self.allowed(balance)
        if balance.limit.meter is Meter.UNIQUE_RECIPIENTS:
            sketch = self._sketch(balance)
            wait = balance.limit.window_ms + balance.limit.window_ms // PARTS if sketch.count else 0
            return Used(balance.key, sketch.count, allowed, wait)
        counter = self._counter(balance)
        if isinstance(counter, Rate):
            return Used(balance.key, counter.used, allowed, counter.wait(counter.burst))
        used = int(counter.total)
        return Used(balance.key, used, allowed, counter.wait(used, self._now) if used else 0)

    def _check(self, balance: Balance, amount: int, digests: Sequence[bytes]) -> Refusal | None:
        allowed = self.allowed(balance)
        if balance.limit.meter is Meter.UNIQUE_RECIPIENTS:
            return self._check_unique(balance, digests, allowed)
        counter = self._counter(balance)
        if isinstance(counter, Rate):
            wait: int | None = counter.wait(amount)
            used = counter.used
        else:
            used = int(counter.total)
            excess = used + amount - allowed
            wait = counter.wait(excess, self._now) if excess > 0 else 0
        if amount > allowed:
            # While the tenant is slowed, what is too much now may fit again later.
            wait = None if self._factor == 1 else balance.limit.window_ms
        return None if wait == 0 else Refusal(balance.key, used, allowed, wait)

    def _check_unique(self, balance: Balance, digests: Sequence[bytes], allowed: int) -> Refusal | None:
        sketch = self._sketch(balance)
        before = sketch.count
        for digest in digests:
            sketch.add(digest)
        if sketch.count == before or sketch.count <= allowed:
            return None
        # The oldest record may expire with the next slot; how many will is not known without trying them all.
        return Refusal(balance.key, before, allowed, max(1, balance.limit.window_ms // PARTS) if allowed else None)

    def _counter(self, balance: Balance) -> Ring | Rate:
        counter = self._counters.get(balance.key)
        if counter is None:
            packed, limit = self._fields.load(balance.key), balance.limit
            if limit.burst is None:
                counter = Ring(packed, limit.window_ms, self._now, partial(self._fields.load_tail, balance.key))
            else:
                amount = limit.amount if self._factor == 1 else _part(limit.amount, self._factor)
                counter = Rate(packed, amount, limit.window_ms, self.allowed(balance), self._now)
            self._counters[balance.key] = counter
        return counter

    def _save(self, key: str, counter: Ring | Rate) -> None:
        self._fields.save(key, counter.pack())
        if isinstance(counter, Ring) and counter.tail_changed:
            self._fields.save_tail(key, counter.pack_tail())

    def _sketch(self, balance: Balance) -> Sketch:
        """Seeing a recipient a second time, when it is charged, changes nothing."""
        if balance.key not in self._sketches:
            self._sketches[balance.key] = Sketch(self._fields.shelf(balance.key), balance.limit.window_ms, self._now)
        return self._sketches[balance.key]


def slowed(state: Mapping[str, Any], now_ms: int) -> float:
    """What every limit is multiplied by: 1, or less while the tenant is slowed."""
    entry = state.get("slow")
    if not entry or (entry.get("until_ms") and entry["until_ms"] <= now_ms):
        return 1
    return float(entry["factor"])


def _part(amount: int, factor: float) -> int:
    return max(1, int(amount * factor)) if amount else 0


def _by_grant(ms: float) -> bool:
    return ms % 1 == GRANTED


def _longer(first: Refusal | None, second: Refusal) -> Refusal:
    """The refusal with the longer wait; None (never) is the longest."""
    if first is None:
        return second
    if first.retry_after_ms is None:
        return first
    return second if second.retry_after_ms is None or second.retry_after_ms > first.retry_after_ms else first
