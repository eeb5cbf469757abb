"""allowance - whether a member that warms up may carry this message, answered from memory.

`admits` spends local credit: recipients that this process has leased from the ledger for (member, provider).  A thread leases
more (`Take`), every second or as soon as credit ran short, in chunks of about a minute's share of the hourly cap, and only
for pairs that mail asked for in the last minute; so all workers of all hosts together never lease more than the caps of
`relaywarden.warmup`, and none hoards.  What is not spent within ten minutes lapses, and stays counted.

The same thread reads the steering (unless its owner brings it, `steer`) and, with each lease, the day's counters of the pair;
when they are bad it pauses the pair, or steps it back one day, for all workers, and logs that.

Where no member of a pool has credit, `borrows` asks the ledger for just what one message needs: mail that would be put off may
wait for one round trip.

How it fails: without credit the answer is no, and the mail goes to a warm member.  The store down: credit runs out, and no
new one comes.  DNS down: domains that are not known yet are not admitted.

Known limits: the first message to a provider after a quiet minute finds no credit.  A message with more than 100 recipients
at one provider is only ever borrowed for.  Leased credit is spent up to ten minutes
later than the ledger counted it, so a window of what was sent may hold a chunk a worker more than the cap.  What is sent in
spite of the caps (`when_full: send`) is not counted.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relaywarden import steering, warmup
from relaywarden.config.settings import RampSettings, Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import (
    Ledger,
    Operation,
    PartlyUnavailableError,
    Read,
    Result,
    Snapshot,
    Take,
    Taken,
)
from relaywarden.logs import event
from relaywarden.steering import Words
from relaywarden.warmup import EVERY, Action, Caps, Verdict, Warming
from relaywarden_milter.mxcache import MxCache

log = logging.getLogger(__name__)
MOST = 100  # recipients leased at once
LIFE = 600.0  # seconds that leased credit may be spent in
_TURN = 1.0
_ASKED = 60.0  # leases are for pairs that were asked for within so many seconds
_OWNERS_WORDS = 5.0  # words that the owner brought are good for so long
_LONGEST_WAIT = 60.0  # however long the ledger says: caps change, and steering too
_CLOSING = 2.0
_BY = "relaywarden"


class _Pair:
    """A member and a provider: what holds today, and the credit in hand.  Guarded by the lock of its Allowance."""

    __slots__ = ("asked", "caps", "credit", "due", "member", "needed", "provider")

    def __init__(self, member: str, provider: str, caps: Caps | None) -> None:
        self.member, self.provider, self.caps = member, provider, caps
        self.credit: deque[list[float]] = deque()  # [amount, time it lapses], oldest first
        self.asked = float("-inf")
        self.needed = 0  # the largest message that found too little
        self.due = 0.0  # when the ledger may be asked again

    def left(self, now: float) -> int:
        """Credit that may be spent now; a clock that was set back by more than LIFE ends it too."""
        while self.credit and not now < self.credit[0][1] <= now + LIFE:
            self.credit.popleft()
        return int(sum(amount for amount, _ in self.credit))

    def spend(self, amount: int) -> None:
        """Oldest first; the caller has looked at `left`."""
        while amount > 0:
            part = min(amount, int(self.credit[0][0]))
            self.credit[0][0] -= part
            amount -= part
            if self.credit[0][0] < 1:
                self.credit.popleft()

    @property
    def chunk(self) -> int:
        """What is leased at once: a minute's share of the hourly cap."""
        return max(1, min(MOST, self.caps.hourly // 60)) if self.caps is not None else 0

    def wants(self, now: float) -> int:
        """How much to lease now."""
        if self.caps is None or 0 in self.caps or now < self.due or not now - _ASKED <= self.asked <= now:
            return 0
        left = self.left(now)
        needed = self.needed if self.needed <= min(MOST, *self.caps) else 0
        return max(self.chunk, needed) - left if left < max(self.chunk / 2, needed) else 0


class Allowance:
    """One per worker process; safe to use from several threads."""

    def __init__(
        self, settings: Settings, connect: Callable[[], Ledger], cache: MxCache, clock: Callable[[], float] = time.time
    ) -> None:
        """`cache` stays the owner's, who starts and closes it; `clock` in seconds since the epoch; raises ConfigError."""
        self._connect, self._cache, self._clock = connect, cache, clock
        self._ledger: Ledger | None = None
        self._lock = threading.Lock()  # guards all that follows
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._words = Words()
        self._words_at = self._brought_at = float("-inf")
        self._ahead = 0.0  # seconds by which the store's clock is ahead of ours
        self._retry_at = 0.0
        self._down = False
        self._warming: Mapping[str, Warming] = {}
        self._ramp: RampSettings = settings.ramp
        self.reload(settings)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="allowance", daemon=True)

    @property
    def warming(self) -> frozenset[str]:
        """Members with a warm-up, over or not."""
        return frozenset(self._warming)

    def reload(self, settings: Settings) -> None:
        """Take over changed pools, schedules and thresholds; raises ConfigError and changes nothing."""
        plan = warmup.plan(settings)
        with self._lock:
            self._warming, self._ramp = plan, settings.ramp
            self._pairs = {key: pair for key, pair in self._pairs.items() if pair.member in plan}
            self._refresh()

    def start(self) -> None:
        """Start the leasing thread; after fork, with signals blocked."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, if it is not stuck in the store, and give back its connection; unspent credit lapses."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)
        if self._ledger is not None and not self._thread.is_alive():
            self._ledger.close()

    def steer(self, words: Words) -> None:
        """The words that the owner has just read; while they keep coming, none are read here."""
        with self._lock:
            self._brought_at = self._clock()
            self._adopt(words)

    def admits(self, member: str, recipients: Sequence[str]) -> bool:
        """Whether `member` may carry a message to all these recipients now, and if so, spend their credit.  Never blocks."""
        with self._lock:
            entry = self._words.members.get(member, {})
            if self._is_warm(member, entry) and not entry.get("paused"):
                return True
        groups = self._groups(recipients)
        with self._lock:
            entry, now_ms = self._words.members.get(member, {}), self._now_ms()
            if any(warmup.pause_of(entry, provider or EVERY, now_ms) for provider in groups):
                return False
            if self._is_warm(member, entry):
                return True
            known = [(self._pair(member, provider), count) for provider, count in groups.items() if provider is not None]
            return self._spend(known, complete=None not in groups)

    def borrows(self, member: str, recipients: Sequence[str]) -> bool:
        """Like `admits`, but asks the ledger for what is missing, within its timeout.

        For mail that no member of its pool has credit for: without this each worker would refuse it once before it leases.
        """
        groups = self._groups(recipients)
        with self._lock:
            ledger, now, now_ms = self._ledger, self._clock(), self._now_ms()
            entry = self._words.members.get(member, {})
            if ledger is None or self._down or now < self._retry_at or None in groups or member not in self._warming:
                return False
            if any(warmup.pause_of(entry, provider or EVERY, now_ms) for provider in groups):
                return False
            known = [(self._pair(member, provider), count) for provider, count in groups.items() if provider is not None]
            short = [(pair, count - pair.left(now), pair.caps) for pair, count in known if pair.caps and pair.left(now) < count]
            if any(now < pair.due or missing > min(caps) for pair, missing, caps in short):
                return False
        try:
            results = ledger.apply([Take(warmup.account(pair.member, pair.provider, caps), n) for pair, n, caps in short])
        except StoreUnavailableError:
            self._put_off()  # the thread meets it again, and says so
            return False
        with self._lock:
            for (pair, missing, _), taken in zip(short, results, strict=True):
                if isinstance(taken, Taken):
                    pair.needed = 0
                    self._keep(pair, missing, taken)
            return self._spend(known, complete=True)

    def largest(self, members: Collection[str], recipients: Sequence[str] = ()) -> str | None:
        """The warming member with the largest cap today that is not paused, for these recipients; None: there is none."""
        groups = [provider for provider in self._groups(recipients) if provider] or [EVERY]
        with self._lock:
            today, now_ms = self._today(), self._now_ms()
            found: list[tuple[float, str]] = []
            for member in members:
                warming, entry = self._warming.get(member), self._words.members.get(member, {})
                if warming is None or any(warmup.pause_of(entry, provider, now_ms) for provider in groups):
                    continue
                caps = [warming.caps(provider, today, entry) for provider in groups]
                found.append((min(float("inf") if cap is None else cap.daily for cap in caps), member))
        most = max((cap for cap, _ in found), default=0)
        return next((member for cap, member in found if cap == most), None) if most else None

    def turn(self) -> None:
        """One round of the thread: read the steering, lease what is wanted, look at the counters."""
        try:
            self._ledger = self._ledger or self._connect()
            if self._clock() - self._brought_at > _OWNERS_WORDS:
                words = steering.read(self._ledger)
                with self._lock:
                    self._adopt(words)
            with self._lock:
                self._refresh()
                wanted = self._wanted()
            if wanted:
                self._lease(self._ledger, wanted)
        except StoreUnavailableError as error:
            self._put_off()
            if not self._down:
                event(log, logging.ERROR, "the store does not answer; members that warm up get no more mail", error=error)
            self._down = True
        else:
            if self._down:
                event(log, logging.INFO, "the store answers again; warm-up goes on")
            self._down = False

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception:  # without this thread no member would ever get credit again
                log.exception("leasing credit failed in a way that nobody expected")
                self._put_off()
            self._wake.wait(_TURN)
            self._wake.clear()

    def _put_off(self) -> None:
        with self._lock:
            self._retry_at = self._clock() + _TURN

    def _groups(self, recipients: Sequence[str]) -> Counter[str | None]:
        """How many recipients each provider has; None: not known yet."""
        return Counter(self._cache.provider(recipient.rpartition("@")[2]) for recipient in recipients)

    def _spend(self, wanted: list[tuple[_Pair, int]], *, complete: bool) -> bool:
        """All or nothing.  Where something is missing, every pair counts as asked for: the next message finds credit."""
        now = self._clock()
        wanted = [(pair, count) for pair, count in wanted if pair.caps is not None]
        short = [(pair, count) for pair, count in wanted if pair.left(now) < count]
        granted = complete and not short
        for pair, count in wanted:
            pair.asked = now
            if granted:
                pair.spend(count)
        for pair, count in short:
            pair.needed = max(pair.needed, count)
        if now >= self._retry_at and any(pair.wants(now) for pair, _ in wanted):
            self._wake.set()
        return granted

    def _pair(self, member: str, provider: str) -> _Pair:
        pair = self._pairs.get((member, provider))
        if pair is None:
            entry = self._words.members.get(member, {})
            caps = self._warming[member].caps(provider, self._today(), entry)
            pair = self._pairs[member, provider] = _Pair(member, provider, caps)
        return pair

    def _is_warm(self, member: str, entry: Mapping[str, Any]) -> bool:
        warming = self._warming.get(member)
        return warming is None or warming.over(self._today(), entry)

    def _adopt(self, words: Words) -> None:
        self._words = words
        if words.now_ms:
            self._ahead = words.now_ms / 1000 - self._clock()
        self._refresh()

    def _refresh(self) -> None:
        """What holds for each pair now; credit ends where nothing may be carried."""
        today, now_ms = self._today(), self._now_ms()
        for pair in self._pairs.values():
            entry = self._words.members.get(pair.member, {})
            caps = self._warming[pair.member].caps(pair.provider, today, entry)
            if caps != pair.caps:
                pair.caps, pair.due = caps, 0.0
            if warmup.pause_of(entry, pair.provider, now_ms) or caps == warmup.NOTHING:
                pair.credit.clear()

    def _wanted(self) -> list[tuple[_Pair, int, Caps]]:
        now, now_ms, members = self._clock(), self._now_ms(), self._words.members
        found = []
        for pair in self._pairs.values():
            amount = pair.wants(now)
            if amount > 0 and pair.caps and not warmup.pause_of(members.get(pair.member, {}), pair.provider, now_ms):
                found.append((pair, amount, pair.caps))
        return found

    def _lease(self, ledger: Ledger, wanted: list[tuple[_Pair, int, Caps]]) -> None:
        """Raises StoreUnavailableError, after what was leased nevertheless is in hand."""
        operations: list[Operation] = []
        for pair, amount, caps in wanted:
            account = warmup.account(pair.member, pair.provider, caps)
            operations += [Take(account, amount), Read(account)]
        results: Sequence[Result | StoreUnavailableError]
        failure: PartlyUnavailableError | None = None
        try:
            results = ledger.apply(operations)
        except PartlyUnavailableError as error:
            results, failure = error.results, error
        for (pair, amount, _), taken, snapshot in zip(wanted, results[::2], results[1::2], strict=True):
            if isinstance(taken, Taken) and isinstance(snapshot, Snapshot):
                self._receive(ledger, pair, amount, taken, snapshot)
        if failure is not None:
            raise failure

    def _receive(self, ledger: Ledger, pair: _Pair, amount: int, taken: Taken, snapshot: Snapshot) -> None:
        with self._lock:
            entry, ramp = self._words.members.get(pair.member, {}), self._ramp
        verdict = warmup.review(entry, pair.provider, snapshot.today, warmup.date_of(snapshot.now_ms), ramp)
        if verdict.action is not Action.OK:
            self._act(ledger, pair, snapshot, ramp)
            return
        with self._lock:
            pair.needed = 0
            self._keep(pair, amount, taken)

    def _keep(self, pair: _Pair, wanted: int, taken: Taken) -> None:
        """Put what was leased to the credit in hand; where it is less than wanted, wait as long as the ledger says."""
        now = self._clock()
        if taken.amount > 0:
            pair.credit.append([taken.amount, now + LIFE])
        if taken.amount < wanted:
            wait = taken.retry_after_ms / 1000 if taken.retry_after_ms >= 0 else _LONGEST_WAIT
            pair.due = now + min(_LONGEST_WAIT, max(_TURN, wait))

    def _act(self, ledger: Ledger, pair: _Pair, snapshot: Snapshot, ramp: RampSettings) -> None:
        """Pause or step back for all workers, unless one of them has done so since our words were read."""
        words, today, provider = steering.read(ledger), warmup.date_of(snapshot.now_ms), pair.provider
        entry = words.members.get(pair.member, {})
        verdict = warmup.review(entry, provider, snapshot.today, today, ramp)
        if verdict.action is not Action.OK and warmup.pause_of(entry, provider, words.now_ms) is None:
            entry = _changed(entry, provider, verdict, words.now_ms, today, ramp)
            entry = warmup.judged(entry, provider, snapshot.today, today)
            ledger.apply([steering.say("members", {pair.member: entry})])
            words = replace(words, members={**words.members, pair.member: entry})
            paused = verdict.action is Action.PAUSE
            text = "warm-up paused by its own counters" if paused else "warm-up stepped back one day by its own counters"
            event(log, logging.WARNING, text, member=pair.member, provider=provider, reason=verdict.reason)
        with self._lock:
            self._adopt(words)

    def _today(self) -> datetime.date:
        return warmup.date_of(self._now_ms())

    def _now_ms(self) -> float:
        return (self._clock() + self._ahead) * 1000


def _changed(
    entry: warmup.Entry, provider: str, verdict: Verdict, now_ms: int, today: datetime.date, ramp: RampSettings
) -> warmup.Entry:
    if verdict.action is Action.PAUSE:
        return warmup.paused(entry, provider, now_ms + ramp.pause, verdict.reason, _BY, now_ms)
    return warmup.stepped_back(entry, provider, 1, today)
