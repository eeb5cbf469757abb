"""scoring - what the engine did to one simulated tenant.  Pure.  Part of the SIMULATION.

A Judge gives a tenant's traffic to an engine of its own and asks for a turn after each slice, as the monitor does.  Times of
detection are those of the turn, seconds after the misuse began; messages are those of the misuse until then, the slice that
gave it away included.

What counts as honest: all days until misuse begins; of tenants that are simply there on the first day without the first
fourteen (an operator observes while the relay is new to the monitor; these are told apart), and without the two days of a
granted bout.  A retry storm may be SLOWED, no more: such steps are told apart too.

Known limits: a tenant is not judged on after its misuse.  While nothing is sent there are no turns, so a step ends late.  A
tenant that stands at SLOWED already when misuse begins counts as met.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from relaywarden_monitor.patterns.engine import Change, Engine, Step
from simulation.bout import Bout, Plan
from simulation.misuse import KINDS
from simulation.rhythm import DAY, HOUR
from simulation.stream import Piece, Stream

LEARNING = 14  # days
RELEVANT = Step.SLOWED
NEWCOMERS = ("onboarding",)  # sorts whose first days are the point
TOLERATED = ("retries",)  # labels during which SLOWED is no error
_CONFIDENCE = 0.05
_AFTER = 120.0  # seconds that the engine may still react after the misuse
_GRANTED_DAYS = 2


@dataclass(frozen=True, slots=True)
class Wrong:
    """A step to SLOWED or beyond that an honest tenant did not deserve."""

    tenant: str
    sort: str
    at: float
    step: str
    during: str  # labels of what was going on
    text: str


@dataclass(frozen=True, slots=True)
class Caught:
    """How misuse was met; None: it was not."""

    kind: str
    tenant: str
    sort: str
    size: float  # recipients on a mean day
    in_time: bool
    seconds: float | None
    messages: int | None
    final: str  # the highest step


@dataclass(slots=True)
class Score:
    """Of one tenant."""

    sort: str
    days: int = 0  # honest ones
    wrong: list[Wrong] = field(default_factory=list)
    learning_days: int = 0
    learning: list[Wrong] = field(default_factory=list)  # steps within these
    tolerated: int = 0
    watched: int = 0  # times that the honest tenant was watched
    highest: Counter[tuple[str, str]] = field(default_factory=Counter)  # (label of a bout, highest step meanwhile)
    caught: Caught | None = None


def at_most(count: int) -> float:
    """The highest mean that makes so few events a chance of 5 % (Poisson; found by halving)."""
    low, high = float(count), count + 10 + 4 * math.sqrt(count)
    for _ in range(50):
        mean = (low + high) / 2
        term = chance = math.exp(-mean)
        for number in range(1, count + 1):
            term *= mean / number
            chance += term
        low, high = (mean, high) if chance > _CONFIDENCE else (low, mean)
    return high


class Judge:
    """One tenant under judgement."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self._plan, self._engine, self._score = plan, engine, Score(plan.profile.sort)
        attack = self._attack = plan.misuse
        self._begin = attack.begin if attack else float("inf")
        self._step = Step.NORMAL
        self._met: tuple[float, int] | None = None
        self._misused = 0
        self._highest: dict[Bout, Step] = {}
        self._grants = [bout for bout in plan.bouts if bout.granted]
        self._granted = 0

    def run(self, stream: Stream) -> Score:
        """All of it."""
        stop = self._plan.attack_end + _AFTER if self._attack else float("inf")
        for piece in stream.pieces():
            if piece.slice.begin > stop:
                break
            self._look(piece, stream.active)
        self._sum_up()
        return self._score

    def _look(self, piece: Piece, active: list[Bout]) -> None:
        at = piece.slice.end
        self._grant(piece.slice.begin)
        self._misused += piece.misused
        self._engine.observe(piece.slice)
        for change in self._engine.turn(at):
            self._step = change.after
            if piece.slice.begin < self._begin:
                self._honest(change, active)
        if self._misused and self._met is None and self._step >= RELEVANT:
            self._met = at, self._misused
        for bout in active:
            if bout.misuse or piece.slice.begin < self._begin:
                self._highest[bout] = max(self._highest.get(bout, Step.NORMAL), self._step)

    def _honest(self, change: Change, active: list[Bout]) -> None:
        at, score, profile = change.at, self._score, self._plan.profile
        if change.after is Step.WATCHED and change.before is Step.NORMAL:
            score.watched += 1
        if change.after < RELEVANT or change.before >= change.after or self._near_grant(at):
            return
        labels = sorted({bout.label for bout in active})
        if change.after is RELEVANT and any(label in TOLERATED for label in labels):
            score.tolerated += 1
            return
        wrong = Wrong(profile.name, profile.sort, at, change.after.name, ", ".join(labels), change.text)
        (score.learning if self._learns(at) else score.wrong).append(wrong)

    def _grant(self, at: float) -> None:
        """A person allows what the tenant announced."""
        while self._granted < len(self._grants) and self._grants[self._granted].begin <= at:
            bout = self._grants[self._granted]
            self._granted += 1
            self._engine.word(self._plan.profile.name, Step.NORMAL, "operator", "breach notification", at, bout.end + HOUR)

    def _near_grant(self, at: float) -> bool:
        return any(bout.begin <= at < bout.begin + _GRANTED_DAYS * DAY for bout in self._grants)

    def _learns(self, at: float) -> bool:
        profile = self._plan.profile
        return profile.sort not in NEWCOMERS and at < profile.start + LEARNING * DAY

    def _sum_up(self) -> None:
        score, profile, attack = self._score, self._plan.profile, self._attack
        whole = int((min(self._begin, profile.start + profile.days * DAY) - profile.start) / DAY)
        score.learning_days = min(whole, LEARNING) if self._learns(profile.start) else 0
        score.days = max(0, whole - score.learning_days - _GRANTED_DAYS * len(self._grants))
        for bout, step in self._highest.items():
            if not bout.misuse:
                score.highest[bout.label, step.name] += 1
        if attack is None:
            return
        kind, met = KINDS[attack.label], self._met
        final = max((step for bout, step in self._highest.items() if bout.misuse), default=Step.NORMAL).name
        score.highest[attack.label, final] += 1
        in_time = met is not None and (met[0] - attack.begin <= kind.seconds or met[1] <= kind.messages)
        seconds, messages = (None, None) if met is None else (round(met[0] - attack.begin, 1), met[1])
        score.caught = Caught(
            attack.label, profile.name, profile.sort, round(profile.size, 1), in_time, seconds, messages, final
        )
