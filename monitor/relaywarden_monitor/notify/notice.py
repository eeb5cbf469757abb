"""notice - one thing that somebody is told: what happened to whom, on what evidence, and which command undoes or explains it.

JSON form, an element of `notices` in a webhook's body, and what the store keeps:

    version    1; it changes when a field changes its meaning or goes.  New fields do not change it
    id         16 hexadecimal digits, the same however often the notice is told: drop what you have seen
    key        what alerts: the same for a crossing and its recovery, such as tenant/acme/bounces
    kind       crossed | recovered | information
    severity   info | warn | act (the monitor acted); of a recovery: the highest of what is over
    subject    tenant, pool member or domain
    what       one line for people
    evidence   object of strings and numbers; names are of A-Z a-z 0-9 _ . -
    undo       the command that undoes it or tells more; may be empty
    at         when it happened, seconds since 1970 (UTC)

Texts come from tenants and remote servers.  A Notice holds them on one line, bounded, with control, format and undecodable
characters escaped: no channel has to do that again.

How it fails: `from_json` raises NoticeError for what is no notice.  Text that is too long is cut, and ends in an ellipsis.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from relaywarden.errors import RelaywardenError

VERSION = 1
Evidence = Mapping[str, str | int | float]

_LONGEST = {"key": 200, "subject": 253, "what": 500, "undo": 200}  # characters
_LONGEST_VALUE = 300
_LONGEST_NAME = 40
_MOST_EVIDENCE = 24
_LARGEST = 2**53  # beyond it JSON's readers disagree (RFC 8259 section 6)
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_ID = re.compile(r"[0-9a-f]{16}")


class NoticeError(RelaywardenError):
    """A notice, or the setting of a channel for notices, is not usable."""


class Kind(Enum):
    """What a notice says of its key."""

    CROSSED = "crossed"
    RECOVERED = "recovered"
    INFORMATION = "information"


class Severity(Enum):
    """Who has to do something: nobody, somebody who looks, or the monitor already did."""

    INFO = "info"
    WARN = "warn"
    ACT = "act"


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice; made by `Notice.make`, or of JSON."""

    key: str
    kind: Kind
    severity: Severity
    subject: str
    what: str
    evidence: Evidence
    undo: str
    at: float  # seconds since 1970
    id: str

    def __post_init__(self) -> None:
        """Make every text fit for one line of a log, a header field and a terminal."""
        for name, longest in _LONGEST.items():
            object.__setattr__(self, name, one_line(getattr(self, name), longest))
        some = list(self.evidence.items())[:_MOST_EVIDENCE]
        evidence = {_UNFIT.sub("_", name[:_LONGEST_NAME]) or "_": _plain(value) for name, value in some}
        object.__setattr__(self, "evidence", evidence)

    @classmethod
    def make(
        cls,
        key: str,
        kind: Kind,
        severity: Severity,
        *,
        subject: str,
        what: str,
        at: float,
        evidence: Evidence | None = None,
        undo: str = "",
        episode: str | None = None,
    ) -> Notice:
        """A notice with the id that belongs to it; `episode` tells one crossing of a key from the next (default: `at`)."""
        identity = json.dumps([key, kind.value, severity.value, f"{at:.3f}" if episode is None else episode])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return cls(key, kind, severity, subject, what, evidence or {}, undo, at, digest)

    def to_json(self) -> dict[str, Any]:
        """The JSON form, as values."""
        return {"version": VERSION, **asdict(self), "kind": self.kind.value, "severity": self.severity.value}

    @classmethod
    def from_json(cls, document: Any) -> Notice:
        """The notice again; raises NoticeError."""
        try:
            if document["version"] != VERSION:
                raise NoticeError(f"expected a notice of version {VERSION}, got version {document['version']!r}")
            texts = {name: document[name] for name in ("key", "subject", "what", "undo", "id")}
            evidence, at = document["evidence"], float(document["at"])
            kind, severity = Kind(document["kind"]), Severity(document["severity"])
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise NoticeError(f"expected a notice as JSON object: {type(error).__name__}: {error}") from error
        if not all(isinstance(text, str) for text in texts.values()) or not _ID.fullmatch(texts["id"]):
            raise NoticeError("expected a notice with texts and an id of 16 hexadecimal digits")
        if not isinstance(evidence, dict) or not math.isfinite(at):
            raise NoticeError("expected a notice with an object as evidence and a time")
        return cls(kind=kind, severity=severity, evidence=evidence, at=at, **texts)


def one_line(text: str, longest: int) -> str:
    """At most `longest` printable characters; what is not printable is written as an escape."""
    text = text[: longest + 1]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _plain(value: Any) -> str | int | float:
    """A value that JSON can hold and everybody reads alike."""
    if isinstance(value, int | float):
        return value if abs(value) < _LARGEST else "out of range"  # nor is NaN less than anything
    return one_line(value if isinstance(value, str) else type(value).__name__, _LONGEST_VALUE)
