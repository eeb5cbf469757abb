"""oversight - what the monitor does about what it counts: judge tenants, pause members, ask DNS, tell people.

    heard    what a step has counted
    turn     about once a second: bursts and blamed addresses, outcome by outcome; then the tenants of which something was
             counted, and now and then all that wait for an end

Notices go out by `notify`, which has threads of its own; what is alerting is kept in the ledger (books "!monitor", topic
"alerts", a field for each host), so that a restart tells nobody twice.  Of several hosts one tells a crossing, and the same
one its end (`notices.claim`).

How it fails: with the store down nothing is judged; it is made up for when it answers again.  Notices wait for that, too, as
only the store knows who tells them; at the end they are told unasked.

Known limits: hosts are told apart by their names.  If the host that told a crossing is gone, nobody tells its end.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections import OrderedDict, deque

from relaywarden.config.settings import Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import Note, Noted, Notes
from relaywarden.logs import event
from relaywarden.tenants import Directory
from relaywarden_monitor import meters
from relaywarden_monitor.attribute import Counted, Judged
from relaywarden_monitor.bursts import Bursts
from relaywarden_monitor.dnsround import DnsRound
from relaywarden_monitor.events import Outcome
from relaywarden_monitor.judge import Finding
from relaywarden_monitor.notices import LedgerStore, claim
from relaywarden_monitor.notify.alerts import AlertBook, Level, Reading
from relaywarden_monitor.notify.notice import Kind, Notice, NoticeError
from relaywarden_monitor.notify.notifier import Notifier
from relaywarden_monitor.patterns.watch import Watch
from relaywarden_monitor.pauses import Pauses
from relaywarden_monitor.standings import Standings
from relaywarden_monitor.steps import BOOK
from relaywarden_monitor.verdict import Scope

log = logging.getLogger(__name__)
ALERTS = "alerts"
_SILENT = "silent"  # beside the state of the alerts: the keys that another host tells of
CALM_SECONDS = 900.0  # below a threshold before a recovery is told
_AGAIN_SECONDS = 30.0  # how often those are looked at that wait for an end
_MOST_TENANTS = 200  # in one turn; the others wait for the next


class Oversight:
    """One per monitor; `touch` from any thread, the rest from one."""

    def __init__(self, settings: Settings, ledger: Ledger, host: str = "") -> None:
        """`host`: who this is (default: this host's name); raises RelaywardenError for settings that cannot work."""
        self._ledger, self._host = ledger, host or socket.gethostname()
        self._notifier = Notifier(settings.notify, LedgerStore(ledger, self._host), host=self._host)
        self._alerts = AlertBook(CALM_SECONDS)
        self._saved: str | None = None  # the state of the alerts as the ledger has it
        self._bursts, self._found = Bursts(), dict[str, Finding]()
        self._heard: deque[Counted] = deque()
        self._watch = Watch(ledger)
        self._touched: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._again_at = 0.0
        self._news = list[tuple[str, Notice]]()  # what is to be told, each with the key of the alert
        self._silent = set[str]()  # keys that another host tells of
        self._standings = Standings(settings, ledger, self._tell, self._watch)
        self._pauses = Pauses(settings, ledger, self._tell, self._host)
        self._use(settings)

    def start(self) -> None:
        """Start the threads of notices and DNS."""
        self._notifier.start()
        self._dns.start()

    def stop(self) -> None:
        """Tell what waits, as far as that takes a few seconds; the rest stays in the ledger."""
        self._dns.stop()
        self._pauses.stop()
        self._publish(at_last=True)
        try:
            if self._saved is not None:
                self._save()
            self._watch.close(time.time())
        except StoreUnavailableError as error:
            event(log, logging.WARNING, "what is new since the last writing is lost, the store is down", error=error)
        self._notifier.stop()

    def reload(self, settings: Settings) -> None:
        """Go on by new settings; raises RelaywardenError, the old ones then stay in force."""
        self._notifier.reload(settings.notify)
        self._dns.stop()
        self._use(settings)
        self._dns.start()

    def touch(self, tenant: str) -> None:
        """Something was counted of this tenant."""
        with self._lock:
            self._touched[tenant] = None

    def heard(self, counted: Counted) -> None:
        """A step was carried over."""
        with self._lock:
            self._touched.update(dict.fromkeys(counted.tenants))
        self._heard.append(counted)

    def turn(self) -> bool:
        """Look at what has changed; whether there was something; raises StoreUnavailableError."""
        try:
            worked = self._work()
        finally:
            self._publish()  # one tenant that cannot be looked at keeps nothing secret of the others
        self._save()
        return worked or bool(self._touched)

    def _work(self) -> bool:
        self._restore()
        self._pauses.restore()  # before anything is decided: what comes again is not the first time
        self._listen()
        for reading in self._dns.news():
            self._tell(reading)
        due = time.monotonic() >= self._again_at
        worked = self._pauses.turn(alerting=list(self._alerts.alerting) if due else None)
        if due:
            self._look_again()
            self._again_at = time.monotonic() + _AGAIN_SECONDS
        for name in self._watch.turn(time.time()):
            self.touch(name)
        self._look(self._take())
        return worked

    def _listen(self) -> None:
        """What was heard since the last turn, outcome by outcome."""
        while self._heard:
            counted = self._heard.popleft()
            self._watch.heard(counted)
            for judged in counted.judged:
                if judged.tenant:
                    self._feed_burst(judged)
                self._pauses.feed(judged)

    def _look_again(self) -> None:
        """Have those looked at that wait for an end, or whose recovery has to be seen."""
        for name in self._standings.held():
            self.touch(name)
        for key in list(self._alerts.alerting):
            kind, _, rest = key.partition(":")
            name = rest.rpartition(":")[0]
            if kind == "tenant" and self._directory.by_name(name) is not None:
                self.touch(name)
            elif kind == "tenant":
                self._tell(Reading(key, Level.NONE, name, f"{name} is no tenant any more"))

    def _look(self, names: list[str]) -> None:
        for name in names:
            self._burst_over(name)
        try:
            self._watch.know(names)  # else what was done before a restart would be taken back
            self._standings.look(names, {name: self._found[name] for name in names if name in self._found})
        except StoreUnavailableError:
            for name in names:
                self.touch(name)  # it is made up for
            raise
        for name in names:
            self._found.pop(name, None)
            self._watch.changed.pop(name, None)

    def _use(self, settings: Settings) -> None:
        self._directory = Directory(settings)
        self._watch.use(self._directory)
        self._standings.use(settings)
        self._pauses.use(settings)
        self._dns = DnsRound(settings)

    def _take(self) -> list[str]:
        with self._lock:
            return [self._touched.popitem(last=False)[0] for _ in range(min(_MOST_TENANTS, len(self._touched)))]

    def _feed_burst(self, judged: Judged) -> None:
        attempt, verdict = judged.attempt, judged.verdict
        tenant = self._directory.by_name(judged.tenant)
        if tenant is None or not attempt.recipient or attempt.outcome is Outcome.DEFERRED:
            return
        if time.time() - attempt.at > tenant.health.window / 1000:
            return  # an old log that is read for the first time
        invalid = verdict is not None and verdict.scope is Scope.MAILBOX and not verdict.own
        finding = self._bursts.feed(tenant.name, attempt.at, int(invalid), 1, tenant.health)
        if finding is not None:
            self._found[tenant.name] = finding
            self.touch(tenant.name)
            self._tell(finding.reading(tenant.name))

    def _burst_over(self, name: str) -> None:
        """A burst that alerted recovers by ending."""
        key = f"tenant:{name}:invalid"
        if key in self._alerts.alerting and self._bursts.level(name, time.time()) is Level.NONE:
            self._tell(Reading(key, Level.NONE, name, f"the burst of tenant {name} is over"))

    def _tell(self, reading: Reading) -> None:
        notice = self._alerts.look(reading, time.time())
        if notice is not None:
            self._news.append((reading.key, notice))

    def _publish(self, *, at_last: bool = False) -> None:
        """Tell what is ours to tell; raises StoreUnavailableError, unless it is the last time."""
        crossings = [notice for _, notice in self._news if notice.kind is Kind.CROSSED]
        try:
            ours = dict(zip((notice.id for notice in crossings), claim(self._ledger, self._host, crossings), strict=True))
        except StoreUnavailableError as error:
            if not at_last:
                raise
            ours = {}
            event(log, logging.WARNING, "the store does not say who tells; another host may tell the same", error=error)
        news, self._news = self._news, []
        for key, notice in news:
            if notice.kind is Kind.CROSSED:
                (self._silent.discard if ours.get(notice.id, True) else self._silent.add)(key)
            if key not in self._silent:
                meters.REACTIONS.labels("told").inc()
                self._notifier.submit(notice)
            if notice.kind is Kind.RECOVERED:
                self._silent.discard(key)

    def _restore(self) -> None:
        """What is alerting, as it was before a restart."""
        if self._saved is not None:
            return
        (found,) = self._ledger.apply([Notes(BOOK, ALERTS, (self._host,))])
        text = found.fields.get(self._host, "") if isinstance(found, Noted) else ""
        try:
            if text:
                state = json.loads(text)
                self._alerts.restore(state)
                self._silent = {str(key) for key in state.get(_SILENT, ())}
        except (NoticeError, TypeError, ValueError) as error:
            event(log, logging.ERROR, "what was alerting cannot be read; it may be told again", error=error)
        self._saved = text

    def _save(self) -> None:
        text = json.dumps({**self._alerts.state(), _SILENT: sorted(self._silent & self._alerts.alerting.keys())})
        if text != self._saved:
            self._ledger.apply([Note(BOOK, ALERTS, {self._host: text})])
            self._saved = text
