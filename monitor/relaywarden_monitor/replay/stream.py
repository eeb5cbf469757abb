"""stream - a log or accounting as the panel and the limits see it: event by event, time going forward with them.  No I/O.

    minute     events are attributed by the minute, and then the health of those concerned is judged
    5 seconds  what was sent and what became of it goes into slices, and the patterns judge

The second goes DELAY behind the first: by then the log has said to whom a message went, which it does not when it takes it.  So
new recipients and `unique_recipients` are known, but for those whose first attempt came later than that.

A message counts when it reaches the queue.  Accounting alone does not say when that was: there a recipient counts when it was
delivered or bounced (`by_rows`).

Known limits: From domain, HELO, wording and templates are not in a log, nor is what was refused at the time.  Events must come
in the order of time; one that comes late is counted with those of its moment.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import deque
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from relaywarden.config.settings import Settings
from relaywarden.feedback import Tokens
from relaywarden.ledger.operations import Account, recipient_digest
from relaywarden.limits import Scope
from relaywarden.logs import event
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.attribute import Attributor, Counted, Judged
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.docket import Docket, Message
from relaywarden_monitor.events import Described, Event, Gone, Outcome
from relaywarden_monitor.patterns.gather import SPAN, Gatherer
from relaywarden_monitor.patterns.ladder import Step
from relaywarden_monitor.patterns.sent import Sent
from relaywarden_monitor.replay.panel import Panel
from relaywarden_monitor.replay.tally import Tally, day_of
from relaywarden_monitor.replay.till import Mail, Till

log = logging.getLogger(__name__)
DELAY = 10.0  # seconds
MINUTE = 60.0
MOST_EVENTS = 20_000  # attributed together
_BACK = 7200.0  # so far back events are late; beyond that, a clock was wrong
_MOST_STEPS = 100_000  # in which silence is passed
_COUNTED = "replayed"  # a fact of a message: it was counted


class _Waiting(NamedTuple):
    """Mail that is to be counted when its time comes."""

    at: float
    tenant: Tenant
    message: Message
    recipients: int
    new: bool  # whether it is the first that is counted of the message
    recipient: str  # the one that accounting named; empty: those that the log has named by then


class Stream:
    """One per replay; used by one thread."""

    def __init__(
        self, settings: Settings, tally: Tally, *, only: Collection[str] = (), by_rows: bool = False, normal_of: str = ""
    ) -> None:
        """`only`: these tenants; `normal_of`: the normal of this one is kept for drawing.  Raises RelaywardenError."""
        feedback = settings.operator.feedback
        tokens = Tokens.from_file(feedback.secret) if feedback is not None else None
        self._attributor = Attributor(settings, Classifier.load(settings.monitor.rules), tokens)
        self._directory = Directory(settings)
        self._tally, self._only, self._by_rows, self._normal_of = tally, frozenset(only), by_rows, normal_of
        self._panel = Panel(settings, self._directory, tally)
        self._docket, self._gatherer = Docket(), Gatherer()
        self._tills: dict[str, Till] = {}
        self._sent: deque[_Waiting] = deque()
        self._judged: deque[Judged] = deque()
        self._batch: list[Event] = []
        self._end_of_batch = 0.0
        self._ticked = 0.0  # up to here the patterns have judged
        self._looked = 0.0  # and here the health

    def feed(self, events: Iterable[Event]) -> None:
        """Events in the order of time."""
        for one in events:
            if one.at >= self._end_of_batch or one.at < self._end_of_batch - _BACK or len(self._batch) >= MOST_EVENTS:
                self._attribute()
                self._end_of_batch = (one.at // MINUTE + 1) * MINUTE
            self._batch.append(one)

    def close(self) -> None:
        """All was fed."""
        self._attribute()
        if self._tally.last:
            self._pass(self._tally.last + DELAY + SPAN, self._tally.last)
        for till in self._tills.values():
            till.peaks()

    def _attribute(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        begin, end = batch[0].at, batch[-1].at
        if begin < self._ticked - _BACK:
            self._go_back(begin)
        self._pass(begin, begin)
        self._tally.saw(begin)
        self._tally.saw(end)
        counted = self._attributor.attribute(batch, self._docket)
        self._take(batch, counted)
        self._docket.written([self._docket.find(one.queue_id) for one in batch if type(one) is Gone])
        self._pass(end, end)

    def _go_back(self, at: float) -> None:
        """A clock was wrong: finish what waits, and go on from here."""
        self._tick(max([self._ticked, *(one.at for one in self._sent), *(one.attempt.at for one in self._judged)]) + SPAN)
        self._ticked, self._looked = at // SPAN * SPAN, at
        event(log, logging.WARNING, "time goes back in the history; going on from there", to=day_of(at))

    def _take(self, batch: list[Event], counted: Counted) -> None:
        """What was counted: for the health at once, for patterns and limits when their time comes."""
        for hour, books in counted.hours.items():
            for name, amounts in books.items():
                if not name.startswith("!") and self._wanted(name):
                    self._panel.outcomes(name, hour, amounts)
        for once in counted.once:
            if not once.book.startswith("!") and self._wanted(once.book):
                self._panel.outcomes(once.book, int(once.at // 3600), {once.outcome: 1, **dict.fromkeys(once.details, 1)})
                if once.outcome == "complained":
                    self._gatherer.complained(once.book, once.at)
        self._judged.extend(counted.judged)
        if self._by_rows:
            for judged in counted.judged:
                self._row(judged)
            return
        for one in batch:
            if type(one) is Described and one.recipients:
                message = self._docket.find(one.queue_id)
                if message.tenant and _COUNTED not in message.facts:
                    self._queue(one.at, message, one.recipients, new=True)

    def _row(self, judged: Judged) -> None:
        """A recipient of whom accounting has spoken for the last time."""
        attempt = judged.attempt
        if not judged.tenant or not attempt.recipient or attempt.remote or attempt.outcome is Outcome.DEFERRED:
            return
        message = self._docket.find(attempt.queue_id) if attempt.queue_id else Message("", {"tenant": judged.tenant})
        self._queue(attempt.at, message, 1, new=_COUNTED not in message.facts, recipient=attempt.recipient)

    def _queue(self, at: float, message: Message, recipients: int, *, new: bool, recipient: str = "") -> None:
        message.facts[_COUNTED] = True
        tenant = self._directory.by_name(message.tenant)
        if tenant is not None and self._wanted(tenant.name):
            self._sent.append(_Waiting(at, tenant, message, recipients, new, recipient))

    def _wanted(self, name: str) -> bool:
        return not self._only or name in self._only

    def _pass(self, now: float, looked: float) -> None:
        """Time goes on to `now`."""
        self._tick_to(now - DELAY)
        if looked - self._looked >= MINUTE:
            if self._panel.waiting:
                step = max(MINUTE, (looked - self._looked) / _MOST_STEPS)
                while self._looked + step < looked and self._panel.waiting:
                    self._looked += step
                    self._panel.look(self._looked)
            self._looked = looked
            self._panel.look(looked)

    def _tick_to(self, until: float) -> None:
        """Have the patterns judge up to here, SPAN by SPAN; where nothing happened, minute by minute, or not at all."""
        while self._ticked + SPAN <= until:
            following = min(self._sent[0].at if self._sent else until, self._judged[0].attempt.at if self._judged else until)
            span, gap = SPAN, following - self._ticked
            if gap >= MINUTE:
                if not self._panel.waiting:
                    self._ticked = max(self._ticked + SPAN, following // SPAN * SPAN)
                    continue
                span = max(MINUTE, gap / _MOST_STEPS)
            self._ticked += span
            self._tick(self._ticked)

    def _tick(self, now: float) -> None:
        sent, judged = self._sent, self._judged
        while sent and sent[0].at < now:
            self._accept(sent.popleft())
        while judged and judged[0].attempt.at < now:
            one = judged.popleft()
            if self._wanted(one.tenant):
                self._gatherer.outcome(one)
                self._panel.hear(one)
        pieces = self._gatherer.slices()
        pieces.sort(key=lambda piece: piece.end)
        for piece in pieces:
            self._panel.observe(piece)
        for change in self._panel.turn(now):
            self._steer(change.tenant, change.after, change.until)

    def _steer(self, name: str, step: Step, until: float | None) -> None:
        """While a tenant is slowed, its limits are lower."""
        tenant, till = self._directory.by_name(name), self._tills.get(name)
        if tenant is None or till is None:
            return
        entry = {"factor": tenant.patterns.slow, "until_ms": int(until * 1000) if until else None}
        till.state = {"slow": entry} if step is Step.SLOWED else {}

    def _accept(self, mail: _Waiting) -> None:
        """A message is new in the queue."""
        at, tenant, facts = mail.at, mail.tenant, mail.message.facts
        tally = self._panel.tally(tenant)
        till = self._tills.get(tenant.name)
        if till is None:
            till = self._tills[tenant.name] = Till(tenant, tally.uses)
        tally.sent(at, int(mail.new), mail.recipients, self._panel.step(tenant.name, at))
        self._tally.volume.add(at, mail.recipients)
        digests = _digests(mail)
        address = str(facts.get("client", "")).rpartition("[")[2].rstrip("]")
        size = int(facts.get("size", 0)) if mail.new else 0
        till.charge(_account(mail, address), Mail(int(at * 1000), mail.recipients, size, digests, int(mail.new)))
        login, names = str(facts.get("login", "")), tuple([digest.hex() for digest in digests])
        self._gatherer.sent(Sent(tenant.name, at, mail.recipients, login, digests=names, network=_network(address)))
        if tenant.name == self._normal_of and (hour := int(at // 3600)) not in self._tally.normal:
            self._tally.normal[hour] = self._panel.expected(tenant.name, at)


def _digests(mail: _Waiting) -> tuple[bytes, ...]:
    """Of the recipients that are known, each once."""
    if mail.recipient:
        return (recipient_digest(mail.recipient),)
    names = dict.fromkeys([told.recipient for told in mail.message.events if told.recipient])
    return tuple([recipient_digest(name) for name in names][: mail.recipients])


def _account(mail: _Waiting, address: str) -> Account:
    """What policyd would have charged; `address` is the client's."""
    if mail.tenant.sole_account is not None:
        return mail.tenant.sole_account
    facts, scopes = mail.message.facts, {limit.per for limit in mail.tenant.limits}
    client = address if Scope.CLIENT in scopes else ""
    return mail.tenant.account(login=str(facts.get("login", "")), sender=str(facts.get("sender", "")), client=client)


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The /24 or /48 of a client's address; empty where it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((found.packed, 24 if found.version == 4 else 48), strict=False))
