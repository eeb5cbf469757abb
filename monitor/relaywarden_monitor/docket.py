"""docket - the messages that are on their way: what is known of each, until it is written to the ledger as its story.

A message is on the docket from its first event of a chunk to the end of that chunk's step; the newest MOST of them stay longer,
so that the next events find them without asking the ledger.

How it fails: a message that has left the docket is read from the ledger again; where the ledger has forgotten it too
(`monitor.remember`), later events of it are counted for the pool member and for no tenant.

Known limit: short queue ids are used again and again; a new message under an old id takes the old one's place.  With
enable_long_queue_ids = yes there is no such thing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from relaywarden import story
from relaywarden.story import (
    DELIVERED,
    FIRST_EVENTS,
    MOST_EVENTS,
    MOST_RECIPIENTS,
    MOST_TRACED,
    Story,
    StoryEvent,
    Trace,
    short,
)

MOST = 50_000


@dataclass(slots=True)
class Message:
    """One message."""

    queue_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    events: list[StoryEvent] = field(default_factory=list)
    more: int = 0
    last: dict[str, StoryEvent] = field(default_factory=dict)  # as in a Story
    blocked: set[str] = field(default_factory=set)
    changed: bool = False
    traced: str = ""

    @property
    def tenant(self) -> str:
        """Whose it is; empty where nobody knows."""
        return str(self.facts.get("tenant", ""))

    def know(self, **facts: Any) -> None:
        """Take note of facts; empty ones say nothing."""
        for name, value in facts.items():
            if value not in ("", 0, None) and self.facts.get(name) != value:
                self.facts[name] = value
                self.changed = True

    def add(self, event: StoryEvent) -> None:
        """One more event; the same again is that of before, read again after a crash.

        What a message begins with and how it ends is kept; of those between them only the last outcome of each recipient.
        """
        if event in self.events:
            return
        story.settle(self.last, event)
        self.changed = True
        if self.more and event.at < self.events[FIRST_EVENTS].at:
            return  # one of those that are not kept, read again
        self.events.append(event)
        if len(self.events) > MOST_EVENTS:
            del self.events[FIRST_EVENTS]
            self.more += 1

    def block(self, recipient: str) -> bool:
        """The customer's own fault with this recipient; whether that is news, and so counts.  Retries are none."""
        name = short(recipient)
        if name in self.blocked or len(self.blocked) >= MOST_RECIPIENTS:
            return False
        self.blocked.add(name)
        self.changed = True
        return True

    def told(self) -> Story:
        """What the log has said so far."""
        return Story(self.queue_id, self.facts, events=self.events, more=self.more, last=dict(self.last), blocked=self.blocked)

    def dump(self) -> str:
        """The field `log` of its story."""
        found: dict[str, Any] = {**self.facts, "events": self.events}
        if self.more:
            last = [item._replace(reply="") if item.kind == DELIVERED else item for item in self.last.values()]
            found |= {"more": self.more, "last": last}
        if self.blocked:
            found["blocked"] = sorted(self.blocked)
        return story.dump(found)

    def fresh_trace(self) -> str:
        """The note by which later reports know the message; empty where it says what was written before."""
        if not self.tenant or not self.last:
            return ""
        found: dict[str, Any] = {"tenant": self.tenant, "to": [short(name) for name in islice(self.last, MOST_TRACED)]}
        members = (item.member for item in reversed(self.last.values()) if item.member)
        known = {"at": self.facts.get("accepted_at"), "n": self.facts.get("recipients"), "m": next(members, "")}
        text = story.dump({**found, **{name: value for name, value in known.items() if value}})
        if text == self.traced:
            return ""
        self.traced = text
        return text


class Docket:
    """Messages by queue id; used by one thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self._traces: dict[str, Trace] = {}  # of messages about which the chunk in hand has complaints

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, queue_id: str) -> bool:
        return queue_id in self._messages

    def find(self, queue_id: str) -> Message:
        """The message of this id; a new one, if it is not there."""
        message = self._messages.get(queue_id)
        if message is None:
            message = self._messages[queue_id] = Message(queue_id)
        else:
            self._messages.move_to_end(queue_id)
        return message

    def begin(self, queue_id: str, accepted_at: float) -> Message:
        """A message that the MTA has just taken: what was known under its id was another's."""
        message = self._messages.get(queue_id)
        if message is None or message.facts.get("accepted_at") not in (None, accepted_at):
            message = self._messages[queue_id] = Message(queue_id)
        return message

    def clear(self) -> None:
        """Forget all messages; the ledger has what was written of them."""
        self._messages.clear()
        self._traces.clear()

    def recall(self, found: Story) -> None:
        """Put a message back that the ledger still knows."""
        message = Message(found.queue_id, dict(found.facts), list(found.events), found.more, dict(found.last))
        message.blocked = set(found.blocked)
        self._messages[found.queue_id] = message

    def retrace(self, queue_id: str, found: Trace) -> None:
        """What is left of a message, where complaints of this chunk are about it."""
        self._traces[queue_id] = found

    def trace(self, queue_id: str) -> Trace:
        """The same; an empty one where nothing is left."""
        return self._traces.get(queue_id) or Trace()

    def changed(self) -> list[Message]:
        """Those whose story is to be written."""
        return [message for message in self._messages.values() if message.changed]

    def written(self, messages: Iterable[Message]) -> None:
        """Their stories are in the ledger; the oldest leave, those that have left the queue first."""
        self._traces.clear()
        for message in messages:
            message.changed = False
            if "gone_at" in message.facts:
                self._messages.pop(message.queue_id, None)
        while len(self._messages) > self._most:
            self._messages.popitem(last=False)
