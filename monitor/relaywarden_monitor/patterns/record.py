"""record - all that is kept of one tenant: its normal, what it did lately, and where it stands.

`observe` counts a slice.  At the first slice of another hour the hours before it are closed: they teach the normal, as far as
the tenant's step allows, and the expectations of the new hour are worked out once.

State (JSON): a list for each part, 3 to 4 KiB; numbers are exact, so that a restored tenant is judged as it would have been,
but for the counts of templates, which are rounded to thousandths.

How it fails: `restore` raises StateError for what is not a state; the tenant then has to begin anew.  Times that go back count
in the current hour.  A slice belongs to the hour in which it begins.
"""

from __future__ import annotations

from typing import Any

from relaywarden.errors import RelaywardenError
from relaywarden_monitor.patterns.baseline import SLOTS, Baseline
from relaywarden_monitor.patterns.domains import Domains
from relaywarden_monitor.patterns.ladder import Standing, Step
from relaywarden_monitor.patterns.names import Names
from relaywarden_monitor.patterns.peaks import Peaks
from relaywarden_monitor.patterns.settings import PatternSettings
from relaywarden_monitor.patterns.templates import Templates
from relaywarden_monitor.patterns.traffic import Slice
from relaywarden_monitor.patterns.usual import Usual
from relaywarden_monitor.patterns.windows import FIELDS, RECIPIENTS, Windows

VERSION = 1
_NO_CLIP = float("inf")
SORTS = ("network", "from", "helo", "login")


class StateError(RelaywardenError):
    """What was kept of a tenant's patterns cannot be read."""


class Record:
    """One tenant."""

    __slots__ = (
        "baseline", "born", "day", "domains", "expected", "former", "high", "hour", "names", "peaks", "recent", "standing",
        "tally", "templates", "tenant", "usual", "windows",
    )  # fmt: skip

    def __init__(self, tenant: str, born: float, settings: PatternSettings) -> None:
        """`born`: when it was first seen, seconds since 1970."""
        self.tenant, self.born = tenant, born
        self.hour = int(born // 3600)
        self.baseline, self.usual, self.peaks = Baseline(), Usual(), Peaks()
        self.windows, self.templates, self.domains = Windows(), Templates(), Domains()
        self.names = tuple(Names(settings.signals.name_chance) for _ in SORTS)
        self.standing = Standing()
        self.high = Step.NORMAL  # of the current hour
        self.tally = [0.0] * FIELDS  # of the current hour
        self.recent = [0.0] * 24  # recipients of the last hours, by hour of the day
        self.expected = self.former = self.day = 0.0  # recipients in this hour, the one before, and 24 hours

    def observe(self, piece: Slice, settings: PatternSettings) -> None:
        """Count a slice."""
        hour = int(piece.begin // 3600)
        if hour > self.hour:
            self._close(hour, settings)
        standing = self.standing
        # What a person allowed for once is not learned as usual.
        self.high = max(self.high, standing.step if standing.automatic else max(standing.step, Step.WATCHED))
        learns = self.high < Step.SLOWED
        unfamiliar = self.templates.add(piece.groups, piece.end, learns=learns) if piece.groups else 0.0
        strange = self.domains.strange(piece.domains, piece.end, learns=learns) if piece.domains else 0
        amounts = _amounts(piece, unfamiliar, strange)
        tally = self.tally
        for name, amount in amounts:
            tally[name] += amount
        self.windows.add(piece.begin, piece.end, amounts)
        self.peaks.see(self.windows, piece.end)
        settled = piece.begin - self.born >= settings.learning.settle_names
        used = (piece.networks, piece.from_domains, piece.helos, piece.logins)
        for names, found in zip(self.names, used, strict=True):
            names.see(found, self.hour, settled=settled, alarmed=not learns)

    def forgive(self) -> None:
        """What was seen so far is not held against the tenant again; what it learned stays."""
        self.windows.clear()
        self.templates.clear()
        self.peaks.clear()

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "version": VERSION, "born": self.born, "hour": self.hour, "high": int(self.high), "tally": _sparse(self.tally),
            "recent": [round(count, 1) for count in self.recent], "expected": [self.expected, self.former, self.day],
            "baseline": self.baseline.state(), "usual": self.usual.state(), "peaks": self.peaks.state(),
            "windows": self.windows.state(), "templates": self.templates.state(),
            "domains": self.domains.state(),
            "names": [names.state() for names in self.names], "standing": self.standing.document(),
        }  # fmt: skip

    @classmethod
    def restore(cls, tenant: str, state: dict[str, Any], settings: PatternSettings) -> Record:
        """From `state()`; raises StateError."""
        try:
            if state["version"] != VERSION:
                raise ValueError(f"expected version {VERSION}, got {state['version']!r:.20}")  # noqa: TRY301
            record = cls(tenant, float(state["born"]), settings)
            record._read(state)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
            raise StateError(f"{tenant!r:.80}: expected the state of a tenant: {type(error).__name__}: {error}") from error
        return record

    def _read(self, state: dict[str, Any]) -> None:
        self.hour, self.high = int(state["hour"]), Step(state["high"])
        for name, amount in state["tally"]:
            self.tally[name] = float(amount)
        self.recent = [float(count) for count in state["recent"]]
        self.expected, self.former, self.day = (float(value) for value in state["expected"])
        for part in ("baseline", "usual", "peaks", "windows", "templates", "domains"):
            getattr(self, part).restore(state[part])
        for names, kept in zip(self.names, state["names"], strict=True):
            names.restore(kept)
        self.standing = Standing.read(state["standing"])
        if len(self.recent) != 24:
            raise ValueError("expected 24 hours")

    def _close(self, hour: int, settings: PatternSettings) -> None:
        """Hours have ended; after more than a week of silence the rest of it teaches nothing."""
        learning = settings.learning
        quiet = min(hour, self.hour + SLOTS)
        clip = {Step.NORMAL: learning.clip, Step.WATCHED: learning.clip_watched}.get(self.high)
        count = self.tally[RECIPIENTS]
        self.peaks.sum_up(count, self.expected, self.day, settings.signals)
        self.recent[self.hour % 24] = count
        if clip is not None:
            self.baseline.learn(self.hour, count, clip, learning)
            self.peaks.learn(_NO_CLIP if self.high is Step.NORMAL else clip, learning)
            if count or any(self.tally):
                self.usual.learn(self.tally)
        for silent in range(self.hour + 1, quiet):
            self.peaks.sum_up(0.0, self.baseline.expected(silent, learning), max(self.day, 1.0), settings.signals)
            self.recent[silent % 24] = 0.0
            self.baseline.learn(silent, 0.0, clip or learning.clip, learning)
        self.hour, self.high, self.tally = hour, self.standing.step, [0.0] * FIELDS
        self.expected, self.former = self.baseline.expected(hour, learning), self.baseline.expected(hour - 1, learning)
        self.day = self.baseline.day(hour, learning)


def _amounts(piece: Slice, unfamiliar: float, strange: float) -> list[tuple[int, float]]:
    """What the slice adds to the fields of `windows`, without zeros."""
    grouped = sum([max(group.recipients, group.messages) for group in piece.groups.values()])
    placed = sum(piece.domains.values())
    # In the order of the fields of `windows`.
    values = (
        piece.recipients, piece.messages, piece.new_recipients, unfamiliar, grouped, piece.bulk, piece.score, piece.scored,
        piece.refused, piece.suppressed, piece.delivered, piece.invalid, piece.blocked, piece.complained, strange, placed,
    )  # fmt: skip
    return [(name, value) for name, value in enumerate(values) if value]


def _sparse(tally: list[float]) -> list[list[float]]:
    return [[name, amount] for name, amount in enumerate(tally) if amount]
