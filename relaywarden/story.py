"""story - what is kept of one message, so that `explain QUEUE-ID` can tell it from the policy verdict to the final outcome.

The ledger keeps it as notes (topic TOPIC) of the books "!m:QUEUE-ID", for `monitor.remember` after they were last written to:

    milter     JSON object: what the milter decided (result, pool, member, provider, stream, score, reply, at); written by it
    log        JSON object, written by the monitor alone: tenant, login, client, message_id, sender, size, recipients (number),
               accepted_at, gone_at, ticket (base64 of the ledger's ticket, as it was when the message was first seen), and
               events: [[at, kind, recipient, member, relay, status, reply, category], ...]: all, or the first FIRST_EVENTS and
               the last of them, MOST_EVENTS together; `more`: how many between them were not kept; and only then `last`: a list
               like `events`, the last outcome of each of MOST_RECIPIENTS recipients (without reply, if it was delivered);
               `blocked`: digests (`short`) of recipients with whom the customer's own fault was counted
    report:ID  JSON list like one of `events`: a bounce or complaint that came as mail

A report may come weeks later.  Where operator.feedback is set, the monitor keeps for `monitor.history` under the topic TRACE:

    sent       JSON object: tenant, at (when it was accepted), n (number of recipients), m (member), to: digests of the first
               MOST_TRACED recipients in the order in which the log named them

Times are seconds since 1970.  Values come from mail, so JSON is written in ASCII.

How it fails: what is not JSON, or not of this form, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

TOPIC, TRACE = "story", "trace"
MILTER, LOG, REPORT, SENT = "milter", "log", "report:", "sent"
MOST_EVENTS = 100
FIRST_EVENTS = 50
MOST_RECIPIENTS = 1000  # as many as Postfix takes for one message (smtpd_recipient_limit)
MOST_TRACED = 20
DELIVERED, DEFERRED, BOUNCED, HANDED_OVER = "delivered", "deferred", "bounced", "handed-over"
ENDS = frozenset({DELIVERED, DEFERRED, BOUNCED, HANDED_OVER})
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
    more: int = 0  # events that were not kept, after the first FIRST_EVENTS
    last: dict[str, StoryEvent] = field(default_factory=dict)  # by recipient (casefolded), also of events not kept
    blocked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for event in () if self.last else self.events:
            settle(self.last, event)

    @property
    def tenant(self) -> str:
        """Whose message it is; empty where nobody knows."""
        return str(self.facts.get("tenant") or self.milter.get("tenant") or "")


class Trace(NamedTuple):
    """What is left of a message when its story is forgotten."""

    tenant: str = ""
    at: float = 0.0  # 0: not known
    recipients: int = 0  # 0: not known
    member: str = ""
    to: tuple[str, ...] = ()  # digests: `short`


def settle(last: dict[str, StoryEvent], event: StoryEvent) -> None:
    """Take note of an outcome.  A bounce is final; times are compared in seconds, since accounting knows no finer ones."""
    name = event.recipient.casefold()
    if event.kind not in ENDS or not name:
        return
    known = last.get(name)
    if len(last) < MOST_RECIPIENTS if known is None else _supersedes(event, known):
        last[name] = event


def _supersedes(event: StoryEvent, known: StoryEvent) -> bool:
    if BOUNCED in (event.kind, known.kind):
        return known.kind != BOUNCED
    return event.at >= known.at // 1 and (event.kind, known.kind) != (HANDED_OVER, DELIVERED)


def short(text: str) -> str:
    """A name of bounded length for a text from outside."""
    return blake2b(text.casefold().encode("utf-8", "replace"), digest_size=8).hexdigest()


def book(queue_id: str) -> str:
    """The books of a message."""
    return f"!m:{queue_id}"


def dump(value: object) -> str:
    """JSON in ASCII, short."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def read(queue_id: str, notes: Mapping[str, str]) -> Story | None:
    """The story behind the notes; None where there is none."""
    log, milter = _mapping(notes.get(LOG)), _mapping(notes.get(MILTER))
    logged = list(_events(log.pop("events", None)))
    reported = list(_events(_load(text) for name, text in notes.items() if name.startswith(REPORT)))
    events = [*logged, *reported]
    if not log and not milter and not events:
        return None
    more, blocked = log.pop("more", 0), log.pop("blocked", None)
    last: dict[str, StoryEvent] = {}
    ends = list(_events(log.pop("last", None)))  # of all events, where some were not kept
    for event in (*(ends or logged), *reported):
        settle(last, event)
    events.sort(key=lambda event: event.at)
    return Story(queue_id, log, milter, events, more if isinstance(more, int) else 0, last, set(_texts(blocked)))


def trace(text: str | None) -> Trace:
    """The trace behind its note; an empty one where there is none."""
    found = _mapping(text)
    at, count, to = found.get("at"), found.get("n"), found.get("to")
    return Trace(
        str(found.get("tenant", "")),
        float(at) if isinstance(at, int | float) and abs(at) < _LATEST else 0.0,
        count if isinstance(count, int) else 0,
        str(found.get("m", "")),
        tuple(_texts(to)),
    )


def _texts(raw: Any) -> Iterable[str]:
    return [text for text in raw if isinstance(text, str)] if isinstance(raw, list) else []


def _events(raw: Any) -> Iterable[StoryEvent]:
    return [event for item in raw if (event := _event(item))] if isinstance(raw, Iterable) else []


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
