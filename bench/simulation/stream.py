"""stream - one tenant's traffic as slices, in the order of time.  Part of the SIMULATION.

An ordinary hour is one slice.  While something is going on, slices last a minute, or five seconds for misuse; and so does a
sample of the ordinary hours (`detail`), because bursts within an hour are otherwise not seen.  What is sampled is not weighed:
with `detail` 0.01, a false alarm that only a minute shows is found once in a hundred times.

Counts are negative binomial: a gamma factor for the day, one for the hour, one for the minute, then chance.

Known limits: a slice ends where its hour ends, so what a real gatherer would cut at other moments is cut here at even ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from relaywarden_monitor.patterns.traffic import Slice
from simulation.bout import MINUTE, Bout, Plan
from simulation.draws import poisson, wobble
from simulation.flow import Flow, fill, outcomes
from simulation.profile import Profile, is_shop
from simulation.rhythm import DAY, HOUR, growth, holidays, hour_of_week, season

_RUSH = 3.0  # a holiday's factor from which the whole day is looked at by the minute


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice, and what the engine is not told."""

    slice: Slice
    misused: int  # messages of it that are misuse


class Stream:
    """The traffic of one tenant."""

    def __init__(self, plan: Plan, rng: Random, detail: float = 0.01) -> None:
        """`detail`: share of the ordinary hours that are looked at by the minute."""
        self._plan, self._rng, self._detail = plan, rng, detail
        self._waiting: deque[Bout] = deque(plan.bouts)
        self._active: list[Bout] = []
        self._late: deque[tuple[float, Flow, int]] = deque()  # outcomes that are not known yet
        self._flows = deque(plan.flows)
        self._flow = plan.profile.flow

    @property
    def active(self) -> list[Bout]:
        """What is going on during the piece that was given out last."""
        return self._active

    def pieces(self) -> Iterator[Piece]:
        """Everything from the first day to the last."""
        profile = self._plan.profile
        for day in range(profile.days):
            midnight = profile.start + day * DAY
            holiday = holidays(midnight, shop=is_shop(profile))
            factor = holiday * trend(profile, midnight) * wobble(self._rng, profile.of_day)
            for hour in range(24):
                begin = midnight + hour * HOUR
                mean = profile.size / 24 * factor * profile.hours[hour_of_week(begin)] * wobble(self._rng, profile.of_hour)
                fine = holiday >= _RUSH or self._rng.random() < self._detail
                yield from self._hour(begin, mean, fine=fine)

    def _hour(self, begin: float, mean: float, *, fine: bool) -> Iterator[Piece]:
        at, end = begin, begin + HOUR
        self._begin(at)
        while at < end:
            step = self._step(at, end, fine=fine)
            piece = self._slice(at, at + step, mean * step / HOUR, split=step < HOUR)
            if piece is not None:
                yield piece
            at += step
            self._begin(at)

    def _begin(self, at: float) -> None:
        """Bouts and flows that begin now, or end."""
        while self._flows and self._flows[0][0] <= at:
            self._flow = self._flows.popleft()[1]
        self._active = [bout for bout in self._active if bout.end > at]
        while self._waiting and self._waiting[0].begin <= at:
            self._active.append(self._waiting.popleft())

    def _step(self, at: float, end: float, *, fine: bool) -> float:
        """Seconds of the next slice: no bout begins or ends within, but for shorter than it."""
        if not (self._active or self._late or fine):
            upcoming = self._waiting[0].begin if self._waiting else end
            return min(end, max(upcoming, at + 1)) - at
        steps = [bout.step for bout in self._active] or [MINUTE]
        limits = [at + min(steps), end, *(bout.end for bout in self._active)]
        if self._waiting:
            limits.append(self._waiting[0].begin)
        return max(1.0, min(limits) - at) if min(limits) < end else end - at

    def _slice(self, begin: float, end: float, mean: float, *, split: bool) -> Piece | None:
        """One slice with all that happens in it; None if nothing does."""
        rng, profile, piece = self._rng, self._plan.profile, Slice(self._plan.profile.name, begin, end)
        for bout in self._active:
            mean *= bout.ordinary
        if split:
            mean *= wobble(rng, profile.of_minute)
        count, misused = poisson(rng, mean), 0
        if count:
            fill(piece, self._flow, count, rng)
            outcomes(piece, self._flow, count, rng)
        for bout in self._active:
            share = bout.part(begin, end)
            amount = poisson(rng, bout.recipients * share)
            messages = fill(piece, bout.flow, amount, rng)
            misused += messages if bout.misuse else 0
            piece.refused += poisson(rng, bout.refused * share)
            if amount:
                self._late.append((end + bout.lag, bout.flow, amount))
        while self._late and self._late[0][0] <= end:
            _, flow, amount = self._late.popleft()
            outcomes(piece, flow, amount, rng)
        return Piece(piece, misused) if piece.messages or piece.refused or piece.delivered or piece.invalid else None


def trend(profile: Profile, at: float) -> float:
    """Growth, season, and for a tenant that is moving in, how far it is."""
    factor = growth(at, profile.start, profile.weekly)
    if profile.peak is not None:
        factor *= season(at, profile.peak)
    if profile.sort == "onboarding":
        factor *= moved_in((at - profile.start) / DAY)
    return factor


def moved_in(days: float) -> float:
    """The share of its mail that a tenant sends through us after so many days: a tenth, a quarter, half, all."""
    return 0.1 if days < 4 else 0.25 if days < 8 else 0.5 if days < 12 else 1.0
