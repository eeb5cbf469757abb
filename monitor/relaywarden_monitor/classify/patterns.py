r"""patterns - what a rule's regular expression needs to match, and what it may cost.  Pure.

`study` reads a pattern that `re` has accepted and finds
- literals: texts of which at least one must stand in whatever the pattern matches.  The classifier asks only patterns whose
  literals are there, so that hundreds of rules cost little.
- cost: a bound on the steps from one starting point.  Texts are short (reply.LONGEST), so a pattern is safe against
  backtracking where this is small: the product of what its repeats may take, `*` and `+` counted as a whole text.

How it fails: PatternError for what is not allowed in a rule: named groups, backreferences, inline flags, conditionals, and
repeats of repeats.

Known limits: alternatives without a repeat are not counted.  The bound is coarse: `a.{0,40}b.{0,40}c` counts as 1600, though
most texts cost a handful of steps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relaywarden_monitor.classify.reply import LONGEST

HIGHEST_COST = 20_000
SHORTEST_LITERAL = 2
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})\??")
_GROUP = re.compile(r"\((\?:|\?=|\?!|\?<=|\?<!|(?!\?))")
_ANY = ("",)
_MOST_LITERALS = 24  # of one run: more are more work than they save


class PatternError(ValueError):
    """The pattern is not one that a rule may have."""


@dataclass(frozen=True, slots=True)
class Study:
    """`literals` is empty where no literal of useful length is needed."""

    literals: tuple[str, ...]
    cost: int


@dataclass(slots=True)
class _Part:
    """A piece of a pattern: one of `needed` must be there; `exact`: it matches these and nothing else."""

    needed: tuple[str, ...] = _ANY
    cost: int = 1
    exact: bool = False


def study(pattern: str) -> Study:
    """Read a pattern; raises PatternError."""
    reader = _Reader(pattern)
    part = reader.alternatives()
    if reader.at < len(pattern):
        raise PatternError(f"not understood from {pattern[reader.at :][:20]!r}")
    useful = all(len(literal) >= SHORTEST_LITERAL for literal in part.needed)
    return Study(tuple(dict.fromkeys(part.needed)) if useful else (), part.cost)


def split(pattern: str) -> list[str]:
    """The alternatives of a pattern, each a pattern of its own: short ones are easier to look up."""
    reader, begins, parts = _Reader(pattern), 0, list[str]()
    while reader.at <= len(pattern):
        reader.sequence()
        parts.append(pattern[begins : reader.at])
        reader.at += 1
        begins = reader.at
    return parts


class _Reader:
    """Recursive descent over the pattern; `re` has checked the syntax before."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def alternatives(self) -> _Part:
        """`a|b|c`."""
        parts = [self.sequence()]
        while self._next() == "|":
            self.at += 1
            parts.append(self.sequence())
        if len(parts) == 1:
            return parts[0]
        needed = tuple(literal for part in parts for literal in part.needed)
        dear = sum(part.cost for part in parts if part.cost > 1)  # plain texts fail at once
        return _Part(needed, max(1, dear), all(part.exact for part in parts))

    def sequence(self) -> _Part:
        """What stands between two bars."""
        best: tuple[str, ...] = _ANY
        run: tuple[str, ...] = _ANY
        cost, exact = 1, True
        while self._next() not in {"", "|", ")"}:
            part, least, most = self._repeated()
            cost *= part.cost * max(1, most if most != least else 1)
            if part.exact and least == most == 1:
                if len(run) * len(part.needed) <= _MOST_LITERALS:
                    run = tuple(before + after for before in run for after in part.needed)
                    continue
                best, run = _better(best, run), part.needed
            else:
                best, run = _better(_better(best, run), part.needed if least > 0 else _ANY), _ANY
            exact = False
        return _Part(run, cost, exact=True) if exact else _Part(_better(best, run), cost)

    def _repeated(self) -> tuple[_Part, int, int]:
        part = self._atom()
        found = _QUANTIFIER.match(self.pattern, self.at)
        if not found:
            return part, 1, 1
        self.at = found.end()
        least, most = _bounds(found)
        if most > 1 and part.cost > 1 and most != least:
            raise PatternError("a repeat within a repeat, which may take for ever")
        return part, least, most

    def _atom(self) -> _Part:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            end = self.pattern.index("]", self.at + 2 + (self.pattern[self.at + 1] == "^"))
            while self.pattern[end - 1] == "\\" and self.pattern[end - 2] != "\\":
                end = self.pattern.index("]", end + 1)
            self.at = end + 1
            return _Part()
        if character == "\\":
            escaped = self.pattern[self.at + 1]
            self.at += 2
            if escaped in "123456789":
                raise PatternError("a backreference")
            return _Part() if escaped.isalnum() else _Part((escaped,), exact=True)
        self.at += 1
        return _Part() if character in ".^$" else _Part((character,), exact=True)

    def _group(self) -> _Part:
        found = _GROUP.match(self.pattern, self.at)
        if not found:
            raise PatternError(f"expected (...) or (?:...), got {self.pattern[self.at :][:8]!r}")
        self.at = found.end()
        part = self.alternatives()
        self.at += 1
        return part if found[1] in {"", "?:"} else _Part(cost=part.cost)

    def _next(self) -> str:
        return self.pattern[self.at : self.at + 1]


def _bounds(found: re.Match[str]) -> tuple[int, int]:
    if found[1]:
        return {"*": (0, LONGEST), "+": (1, LONGEST), "?": (0, 1)}[found[1]]
    least = int(found[2] or 0)
    return least, (int(found[4]) if found[4] else LONGEST) if found[3] else least


def _better(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The more telling of two: the one whose shortest literal is longer, of equal ones that with fewer literals."""
    return max(one, other, key=lambda literals: (min(map(len, literals)), -len(literals)))
