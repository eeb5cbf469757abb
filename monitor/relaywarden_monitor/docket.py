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
from typing import Any

from relaywarden import story
from relaywarden.story import MOST_EVENTS, Story, StoryEvent

MOST = 50_000


@dataclass(slots=True)
class Message:
    """One message."""

    queue_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    events: list[StoryEvent] = field(default_factory=list)
    more: int = 0
    changed: bool = False

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
        """One more event; the same again is that of before, read again after a crash."""
        if event in self.events:
            return
        self.changed = True
        if len(self.events) < MOST_EVENTS:
            self.events.append(event)
        else:
            self.more += 1

    def dump(self) -> str:
        """The field `log` of its story."""
        return story.dump({**self.facts, "events": self.events, **({"more": self.more} if self.more else {})})


class Docket:
    """Messages by queue id; used by one thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._messages: OrderedDict[str, Message] = OrderedDict()

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

    def recall(self, found: Story) -> None:
        """Put a message back that the ledger still knows."""
        self._messages[found.queue_id] = Message(found.queue_id, dict(found.facts), list(found.events), found.more)

    def changed(self) -> list[Message]:
        """Those whose story is to be written."""
        return [message for message in self._messages.values() if message.changed]

    def written(self, messages: Iterable[Message]) -> None:
        """Their stories are in the ledger; the oldest leave, those that have left the queue first."""
        for message in messages:
            message.changed = False
            if "gone_at" in message.facts:
                self._messages.pop(message.queue_id, None)
        while len(self._messages) > self._most:
            self._messages.popitem(last=False)
