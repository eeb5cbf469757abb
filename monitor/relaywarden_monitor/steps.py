"""steps - carry what a source says to the ledger, exactly once, whatever dies in between.

A source is read in chunks.  A chunk becomes one step or more, one for each hour that its events happened in, and the ledger
keeps for each source (books "!monitor", topic "positions") a JSON object:

    at       where the chunk begins
    until    where it ends, once it is known and not yet carried over; else null
    tag      the number of the chunk
    done     the last hour (since 1970) whose step was carried over; 0: none

First `until` is written: from then on this chunk will be carried over in this cut, whatever happens.  Then its steps, each a
batch of Tally operations marked with source and tag, which the ledger counts once however often they are sent; the last one
carries the stories and the suppression lists too, which may be written twice.  Then `at` moves on.  After a crash the chunk is
read again up to `until`, makes the same steps, and those that were carried over change nothing.

How it fails: while the store is down the step is tried again and again, and nothing more is read.  After an error of ours the
next call begins as after a crash, so a chunk that always fails holds up its source, and loses nothing.

Known limit: a reload of the settings between a crash and the repetition may attribute the repeated chunk otherwise.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from relaywarden import story
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import Ledger, Operation, Result
from relaywarden.ledger.records import (
    HOUR_MS,
    Claim,
    Claimed,
    Look,
    Looked,
    Note,
    Noted,
    Notes,
    Suppress,
    Tally,
)
from relaywarden.logs import event
from relaywarden.outcomes import OUTCOMES
from relaywarden_monitor import meters
from relaywarden_monitor.attribute import Attributor, Counted, ticket_text
from relaywarden_monitor.docket import Docket, Message
from relaywarden_monitor.events import Accepted, Complaint, Event
from relaywarden_monitor.ingest.source import Chunk, Position, Source
from relaywarden_monitor.patterns import sent
from relaywarden_monitor.patterns.sent import Sent

_T = TypeVar("_T")

log = logging.getLogger(__name__)
BOOK, POSITIONS = "!monitor", "positions"
ROWS = "!rows:"  # and the first digit: the books of accounting rows that were counted, by their digests
_ROWS_KNOWN_MS = 3 * 86_400_000
_MOST_TOGETHER = 500  # operations in one batch: while a transaction of SQLite lasts, policyd waits
_RETRY_SECONDS = 1.0


class Stopped(Exception):  # noqa: N818  # not an error: the monitor was asked to stop while the store was down
    """The step was not carried over; it will be repeated."""


class Stepper:
    """Reads one source on and on; used by one thread."""

    def __init__(self, source: Source, ledger: Ledger, docket: Docket, pause: Callable[[float], bool], *,
                 sift: bool, remember_ms: int, history_ms: int) -> None:  # fmt: skip
        """`pause` waits so many seconds and says whether to stop; `sift`: leave out rows that another source has had."""
        self.source = source
        self._ledger, self._docket, self._pause = ledger, docket, pause
        self._sift, self._remember_ms, self._history_ms = sift, remember_ms, history_ms
        self._state: dict[str, Any] | None = None
        self._down = False

    def step(self, attributor: Attributor, most: int) -> tuple[int, Counted | None]:
        """Carry over the next chunk: (records, what was counted); (0, None) if there is none; raises Stopped."""
        try:
            return self._step(attributor, most)
        except BaseException:
            # The source has gone on already: the same chunk comes again only from where the ledger says, as after a crash.
            self._state = None
            self._docket.clear()
            raise

    def _step(self, attributor: Attributor, most: int) -> tuple[int, Counted | None]:
        if self._state is None:
            self._open()
        state = self._state or {}
        until: Position | None = state.get("until")
        chunk = self.source.read(most, until)
        if chunk is None:
            if until is None:
                return 0, None
            event(log, logging.WARNING, "what was being read when the monitor ended cannot be read again; going on after it",
                  source=self.source.name)  # fmt: skip
            chunk = Chunk((), until)
        if until is None:
            tag = state.get("tag", int(time.time() * 1000)) + 1  # marks only grow: a position that was lost must not begin at 1
            state = {"at": state.get("at"), "until": chunk.position, "tag": tag, "done": 0}
            if chunk.events:
                self._save(state)
        counted = self._carry_over(chunk, state, attributor)
        self._save({"at": chunk.position, "until": None, "tag": state["tag"], "done": 0})
        return chunk.records, counted

    def _open(self) -> None:
        (found,) = self._apply([Notes(BOOK, POSITIONS, (self.source.name,))])
        text = found.fields.get(self.source.name) if isinstance(found, Noted) else None
        self._state = json.loads(text) if text else {}
        self.source.open(self._state.get("at"))

    def _save(self, state: dict[str, Any]) -> None:
        self._apply([Note(BOOK, POSITIONS, {self.source.name: json.dumps(state)})])
        self._state = state

    def _carry_over(self, chunk: Chunk, state: dict[str, Any], attributor: Attributor) -> Counted:
        events = self._fresh(chunk, state["tag"]) if self._sift else chunk.events
        self._recall(events, attributor)
        counted = attributor.attribute(events, self._docket)
        hours = [hour for hour in sorted(counted.hours) if hour > state["done"]]
        for hour in hours:
            self._apply_all(list(self._tallies(counted, hour, f"{state['tag']}.{hour}")))
            if hour != hours[-1]:
                state = {**state, "done": hour}
                self._save(state)
        changed = self._docket.changed()
        self._learn(changed, counted)
        suppressions = (Suppress(name, entries) for name, entries in counted.suppressions.items())
        self._apply_all([*self._once(counted), *suppressions])
        # In a batch of their own: they keep things from being counted again, and the nodes of a cluster keep no order.
        self._apply_all([*self._stories(changed, attributor.traces), *self._reports(counted)])
        self._docket.written(changed)
        return counted

    def _fresh(self, chunk: Chunk, tag: int) -> Sequence[Event]:
        """The events whose row no other source has brought, and no other chunk."""
        digests: Sequence[bytes] = getattr(chunk, "digests", ())
        if not digests:
            return chunk.events
        names = [digest.hex() for digest in digests]
        fresh: set[str] = set()
        for start in range(0, len(names), _MOST_TOGETHER):
            shelves: dict[str, dict[str, None]] = {}  # by the first digit: in a cluster they are on several nodes
            for name in names[start : start + _MOST_TOGETHER]:
                shelves.setdefault(name[0], {})[name] = None
            tag_of_step = f"{self.source.name}.{tag}"
            claims = [Claim(ROWS + digit, tuple(some), tag_of_step, _ROWS_KNOWN_MS) for digit, some in shelves.items()]
            for claim, claimed in zip(claims, self._apply(claims), strict=True):
                if isinstance(claimed, Claimed):
                    fresh.update(name for name, is_fresh in zip(claim.names, claimed.fresh, strict=True) if is_fresh)
        return [item for item, name in zip(chunk.events, names, strict=True) if name in fresh]

    def _recall(self, events: Sequence[Event], attributor: Attributor) -> None:
        """Put on the docket what the log said of messages that were accepted before this chunk; not what reports said."""
        missing = self._complained(events, attributor)
        begun: set[str] = set()
        for item in events:
            queue_id = item.queue_id
            if isinstance(item, Accepted):
                begun.add(queue_id)
            elif queue_id and queue_id not in begun and queue_id not in self._docket:
                missing[queue_id] = None
        for results in self._in_batches([Notes(story.book(queue_id), story.TOPIC, (story.LOG,)) for queue_id in missing]):
            for operation, result in results:
                queue_id = operation.book.removeprefix("!m:") if isinstance(operation, Notes) else ""
                found = story.read(queue_id, result.fields) if isinstance(result, Noted) else None
                if found is not None:
                    self._docket.recall(found)

    def _complained(self, events: Sequence[Event], attributor: Attributor) -> dict[str, None]:
        """The messages that complaints are about and that are not on the docket; of all of them what is left goes there."""
        opened = [one for item in events if isinstance(item, Complaint) and (one := attributor.opened(item)) is not None]
        attributor.learn(opened, lambda: self._until_done(self._ledger.tenants))
        asked = dict.fromkeys(one.queue_id for one in opened)
        for results in self._in_batches([Notes(story.book(queue_id), story.TRACE, (story.SENT,)) for queue_id in asked]):
            for operation, result in results:
                if isinstance(operation, Notes) and isinstance(result, Noted):
                    self._docket.retrace(operation.book.removeprefix("!m:"), story.trace(result.fields.get(story.SENT)))
        return {queue_id: None for queue_id in asked if queue_id not in self._docket}

    def _tallies(self, counted: Counted, hour: int, tag: str) -> Iterator[Operation]:
        for book, amounts in counted.hours[hour].items():
            counts = {name: amounts[name] for name in OUTCOMES if name in amounts}
            details = {name: amount for name, amount in amounts.items() if name not in counts}
            yield Tally(book, counts, details, at_ms=hour * HOUR_MS, mark=(self.source.name, tag), keep_ms=self._history_ms)

    def _once(self, counted: Counted) -> Iterator[Operation]:
        for item in counted.once:
            yield Tally(item.book, {item.outcome: 1}, dict.fromkeys(item.details, 1), at_ms=int(item.at * 1000),
                        once=item.name, once_ms=self._history_ms, keep_ms=self._history_ms)  # fmt: skip

    def _learn(self, messages: Sequence[Message], counted: Counted) -> None:
        """What policyd and milter said of messages that are new in the queue, before the ledger forgets the tickets."""
        new = {one.queue_id: one for one in messages if one.tenant and "accepted_at" in one.facts and _is_new(one)}
        looks = [Look(one.tenant, one.queue_id) for one in new.values()]
        notes = [Notes(story.book(queue_id), story.TOPIC, (story.MILTER,)) for queue_id in new]
        for results in self._in_batches([*looks, *notes]):
            for operation, result in results:
                if isinstance(operation, Look) and isinstance(result, Looked):
                    new[operation.queue_id].know(ticket=ticket_text(result.ticket) if result.ticket else "none")
                elif isinstance(operation, Notes) and isinstance(result, Noted):
                    message = new[operation.book.removeprefix("!m:")]
                    counted.sent.append(_sent(message, result.fields))

    def _stories(self, messages: Sequence[Message], traces: bool) -> Iterator[Operation]:
        for message in messages:
            if traces and (text := message.fresh_trace()):
                yield Note(story.book(message.queue_id), story.TRACE, {story.SENT: text}, self._history_ms)
            yield Note(story.book(message.queue_id), story.TOPIC, {story.LOG: message.dump()}, self._remember_ms)

    def _reports(self, counted: Counted) -> Iterator[Operation]:
        for queue_id, name, told in counted.reports:
            fields = {story.REPORT + story.short(name): story.dump(told)}
            yield Note(story.book(queue_id), story.TOPIC, fields, self._remember_ms)

    def _in_batches(self, operations: Sequence[Operation]) -> Iterator[Iterator[tuple[Operation, Result]]]:
        for start in range(0, len(operations), _MOST_TOGETHER):
            some = operations[start : start + _MOST_TOGETHER]
            yield zip(some, self._apply(some), strict=True)

    def _apply_all(self, operations: Sequence[Operation]) -> None:
        for start in range(0, len(operations), _MOST_TOGETHER):
            self._apply(operations[start : start + _MOST_TOGETHER])

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Until it is done: every operation here may be sent again; raises Stopped."""
        return self._until_done(lambda: self._ledger.apply(operations))

    def _until_done(self, work: Callable[[], _T]) -> _T:
        while True:
            try:
                results = work()
            except StoreUnavailableError as error:
                if not self._down:
                    event(log, logging.ERROR, "the store does not answer; sources wait", source=self.source.name, error=error)
                self._down = True
                meters.LAG.labels(self.source.name).set(self.source.lag())  # it grows meanwhile
                if self._pause(_RETRY_SECONDS):
                    raise Stopped from error
            else:
                if self._down:
                    event(log, logging.INFO, "the store answers again", source=self.source.name)
                self._down = False
                return results


def _is_new(message: Message) -> bool:
    """It has reached the queue or its end, so that the milter is done with it; and nobody has asked for its ticket yet."""
    return "ticket" not in message.facts and ("recipients" in message.facts or bool(message.events))


def _sent(message: Message, notes: Mapping[str, str]) -> Sent:
    found = story.read(message.queue_id, notes)
    facts = message.facts
    recipients, login = int(facts.get("recipients") or 0), str(facts.get("login") or "")
    return sent.read(message.tenant, float(facts["accepted_at"]), recipients, login, found.milter if found else {})
