"""story - what is kept of one message, so that `explain QUEUE-ID` can tell it from the policy verdict to the final outcome.

The ledger keeps it as notes (topic TOPIC) of the books "!m:QUEUE-ID", for `monitor.remember` after they were last written to:

    milter     JSON object: what the milter decided (result, pool, member, provider, stream, score, reply, at); written by it
    log        JSON object, written by the monitor alone: tenant, login, client, message_id, sender, size, recipients (number),
               accepted_at, gone_at, ticket (base64 of the ledger's ticket, as it was when the message was first seen), and
               events: [[at, kind, recipient, member, relay, status, reply, category], ...], the first MOST_EVENTS of them,
               and `more`: how many there were beside
    report:ID  JSON list like one of `events`: a bounce or complaint that came as mail

Times are seconds since 1970.  Values come from mail, so JSON is written in ASCII.

How it fails: what is not JSON, or not of this form, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TOPIC = "story"
MILTER, LOG, REPORT = "milter", "log", "report:"
MOST_EVENTS = 100
_LATEST = 2**40  # seconds; beyond it nothing happens


class StoryEvent(NamedTuple):
    """One thing that happened to a message.  `kind`: delivered, deferred, bounced, complained, handed-over, notified, ..."""

    at: float
    kind: str
    recipient: str = ""
    member: str = ""
    relay: str = ""
    status: str = ""
    reply: str = ""
    category: str = ""


@dataclass(slots=True)
class Story:
    """Everything that is kept of a message."""

    queue_id: str
    facts: dict[str, Any] = field(default_factory=dict)  # of `log`, without its events
    milter: dict[str, Any] = field(default_factory=dict)
    events: list[StoryEvent] = field(default_factory=list)  # in the order of time
    more: int = 0

    @property
    def tenant(self) -> str:
        """Whose message it is; empty where nobody knows."""
        return str(self.facts.get("tenant") or self.milter.get("tenant") or "")


def book(queue_id: str) -> str:
    """The books of a message."""
    return f"!m:{queue_id}"


def dump(value: object) -> str:
    """JSON in ASCII, short."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def read(queue_id: str, notes: Mapping[str, str]) -> Story | None:
    """The story behind the notes; None where there is none."""
    log, milter = _mapping(notes.get(LOG)), _mapping(notes.get(MILTER))
    events = [event for raw in log.pop("events", []) if (event := _event(raw))]
    events += [event for name, text in notes.items() if name.startswith(REPORT) and (event := _event(_load(text)))]
    if not log and not milter and not events:
        return None
    more = log.pop("more", 0)
    return Story(queue_id, log, milter, sorted(events), more if isinstance(more, int) else 0)


def _load(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None  # cut or foreign: said in the docstring


def _mapping(text: str | None) -> dict[str, Any]:
    found = _load(text)
    return found if isinstance(found, dict) else {}


def _event(raw: Any) -> StoryEvent | None:
    if not isinstance(raw, list) or not 2 <= len(raw) <= len(StoryEvent._fields):
        return None
    at, *texts = raw
    if not isinstance(at, int | float) or not abs(at) < _LATEST:
        return None
    return StoryEvent(float(at), *map(str, texts))
