"""findings - what a check of DNS found, for people, programs and the periodic runner.  Plain values.

A finding is named by its subject and check ("member tx1", "blocklist zen.spamhaus.org"); the pair stays the same from one run
to the next, whatever DNS says, so the runner can tell what is new and what is over:

    before = problems(earlier); now = problems(later)
    new: now.keys() - before.keys()         over: before.keys() - now.keys() - unsure(later)

Known limit: a finding of something that left the configuration is over as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

_LONGEST = 200  # characters of anything that DNS said
Key = tuple[str, str]


class Level(Enum):
    """How bad it is; UNKNOWN: DNS did not answer, or not in earnest."""

    OK = "ok"
    ADVICE = "advice"
    FAULT = "fault"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one subject."""

    subject: str
    check: str
    level: Level
    text: str  # one line: what is so, and what was expected
    evidence: str = ""  # what DNS said, made harmless by `clean`

    @property
    def key(self) -> Key:
        """The same in every run."""
        return self.subject, self.check

    def document(self) -> dict[str, str]:
        """The contract of `relaywarden dns --json`."""
        return {
            "subject": self.subject,
            "check": self.check,
            "level": self.level.value,
            "text": self.text,
            "evidence": self.evidence,
        }


def problems(findings: Iterable[Finding]) -> dict[Key, Finding]:
    """The faults, by what stays the same of them."""
    return {finding.key: finding for finding in findings if finding.level is Level.FAULT}


def unsure(findings: Iterable[Finding]) -> frozenset[Key]:
    """What could not be found out this time: a fault seen earlier is not over."""
    return frozenset(finding.key for finding in findings if finding.level is Level.UNKNOWN)


def worst(levels: Iterable[Level]) -> Level:
    """A fault that is known outweighs what is not known."""
    found = set(levels)
    return next((level for level in (Level.FAULT, Level.UNKNOWN, Level.ADVICE) if level in found), Level.OK)


def clean(text: str, longest: int = _LONGEST) -> str:
    """What DNS said, fit for a terminal: no control or direction characters, not long."""
    cut = text[:longest]
    shown = "".join(char if char.isprintable() and char.isascii() else char.encode("unicode_escape").decode() for char in cut)
    return shown[:longest] + ("..." if len(text) > longest or len(shown) > longest else "")
