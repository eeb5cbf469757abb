"""server - the monitor as a service: reads its sources in turn, takes reports, judges, until it is told to stop.

One thread reads (`steps`), judges and reacts (`oversight`); reports come in by threads of their own (`intake`), DNS is asked
by another (`dnsround`), notices go out by one a channel (`notify`).  All share one ledger.

    SIGTERM, SIGINT   finish the step in hand, stop
    SIGHUP            read the configuration again; with any error in it the old one stays in force

How it fails: while the store is down sources wait, and whoever brings a report is told to come again.  An error of our own in
one part is logged with its traceback and counted, and the part is tried again; the others go on.

Known limits: sources, the LMTP addresses and the store are fixed at start.  Two monitors must not read the same sources: on
one host a second one for the same ledger does not start.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from relaywarden.config import examine_monitor
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError, RelaywardenError, StoreUnavailableError
from relaywarden.feedback import Tokens
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.logs import event
from relaywarden_monitor import meters
from relaywarden_monitor.attribute import Attributor, Counted
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.ingest.source import NotNowError
from relaywarden_monitor.oversight import Oversight
from relaywarden_monitor.reporting import ReportDesk
from relaywarden_monitor.sources import listeners, maildirs, sources
from relaywarden_monitor.steps import Stepper, Stopped

log = logging.getLogger(__name__)
MOST_RECORDS = 10_000  # in one chunk
GARBAGE = 100_000  # containers made since the last collection: a chunk makes as many, and none of them is part of a cycle
_AFTER_FAULT = 5.0  # seconds


def serve(path: Path, settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; raises RelaywardenError for what it cannot start with."""
    only = _only_ones(settings)
    gc.set_threshold(GARBAGE)
    try:
        Server(path, settings).run()
    finally:
        for lock in only:
            lock.close()


class Rules:
    """What one configuration says; a reload makes a new one.  Raises RelaywardenError: what is wrong, and where."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.classifier = Classifier.load(settings.monitor.rules)
        feedback = settings.operator.feedback
        self.tokens = Tokens.from_file(feedback.secret) if feedback is not None else None
        self.attributor = Attributor(settings, self.classifier, self.tokens)


class Server:
    """One per process."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path, self._rules = path, Rules(settings)
        self._stop, self._reload = threading.Event(), threading.Event()
        self._ledger: Ledger = open_ledger(settings)
        self._docket = Docket()
        monitor = settings.monitor
        sift = monitor.spool is not None and bool(monitor.accounting)
        self._steppers = [
            Stepper(source, self._ledger, self._docket, self._stop.wait, sift=sift, remember_ms=monitor.remember,
                    history_ms=monitor.history)
            for source in sources(settings)
        ]  # fmt: skip
        self._quiet_until: dict[str, float] = {}
        self._oversight = Oversight(settings, self._ledger, settings.monitor.host)
        self._desk = self._new_desk()
        self._listeners = listeners(monitor, self._deliver)
        self._maildirs = maildirs(monitor, self._deliver)

    def run(self) -> None:
        """Until a signal says stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        signal.signal(signal.SIGHUP, lambda *_: self._reload.set())
        self._oversight.start()
        try:
            for listener in self._listeners:
                listener.start()
            event(log, logging.INFO, "ready", sources=",".join(self._rules.settings.monitor.sources),
                  tenants=len(self._rules.settings.tenants))  # fmt: skip
            for remark in examine_monitor.remarks(self._rules.settings):
                event(log, logging.WARNING, "note on the configuration", note=remark)
            while not self._stop.is_set():
                self._turn()
        finally:
            for listener in self._listeners:
                listener.stop()
            for stepper in self._steppers:
                stepper.source.close()
            self._oversight.stop()
            self._ledger.close()
            event(log, logging.INFO, "stopped")

    def _turn(self) -> None:
        """Look at everything once; wait where nothing was new."""
        if self._reload.is_set():
            self._reload.clear()
            self._read_again()
        worked = False
        for stepper in self._steppers:
            worked |= self._part(stepper.source.name, lambda stepper=stepper: self._step(stepper))  # type: ignore[misc]
        for maildir in self._maildirs:
            worked |= self._part("maildir", lambda maildir=maildir: maildir.poll() > 0)  # type: ignore[misc]
        self._part("oversight", self._oversight.turn)
        if not worked:
            self._stop.wait(self._rules.settings.monitor.interval / 1000)

    def _step(self, stepper: Stepper) -> bool:
        meters.LAG.labels(stepper.source.name).set(stepper.source.lag())  # also while the store is down
        records, counted = stepper.step(self._rules.attributor, MOST_RECORDS)
        if counted is None:
            meters.LAG.labels(stepper.source.name).set(0)
            return False
        meters.RECORDS.labels(stepper.source.name).inc(records)
        meters.LAG.labels(stepper.source.name).set(stepper.source.lag())
        _measure(counted)
        self._oversight.heard(counted)
        return True

    def _part(self, name: str, work: Callable[[], bool]) -> bool:
        """Do a part's work; an error of ours stops this part for a moment and no other one."""
        if self._quiet_until.get(name, 0.0) > time.monotonic():
            return False
        try:
            return work()
        except Stopped:
            return False
        except NotNowError as error:
            event(log, logging.WARNING, "tried again in a moment", part=name, error=error)
        except StoreUnavailableError as error:
            event(log, logging.WARNING, "the store does not answer", part=name, error=error)
        except Exception:
            log.exception("an error in %s; it is tried again", name)
            meters.FAULTS.labels(name).inc()
        self._quiet_until[name] = time.monotonic() + _AFTER_FAULT
        return False

    def _deliver(self, data: bytes, envelope_to: str) -> None:
        """A report came in, by whatever way; by the rules of this moment."""
        self._desk.deliver(data, envelope_to)

    def _new_desk(self) -> ReportDesk:
        rules = self._rules
        return ReportDesk(rules.settings, self._ledger, rules.classifier, rules.tokens, self._oversight.touch)

    def _read_again(self) -> None:
        try:
            rules = Rules(load(self._path))
            self._oversight.reload(rules.settings)
        except ConfigError as error:
            for problem in error.problems:
                event(log, logging.ERROR, "reload failed, the old settings stay in force", problem=problem)
        except RelaywardenError as error:
            event(log, logging.ERROR, "reload failed, the old settings stay in force", problem=error)
        else:
            self._rules = rules
            self._desk = self._new_desk()
            event(log, logging.INFO, "reloaded", tenants=len(rules.settings.tenants))


def _measure(counted: Counted) -> None:
    totals: dict[str, int] = {}
    for judged in counted.judged:
        name = judged.attempt.outcome.value
        totals[name] = totals.get(name, 0) + 1
    for name, amount in totals.items():
        meters.OUTCOMES.labels(name).inc(amount)


def _only_ones(settings: Settings) -> list[socket.socket]:
    """Held while the monitor runs, one for each source: names in the kernel's own space, which go with the process."""
    monitor = settings.monitor
    places = [*(source.name for source in sources(settings)), *map(str, monitor.maildir), *map(str, monitor.listen)]
    locks: list[socket.socket] = []
    for place in places:
        name = hashlib.sha256(f"{settings.store}\0{place}".encode()).hexdigest()[:32]
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        locks.append(lock)
        try:
            lock.bind(f"\0relaywarden-monitor-{name}")
        except OSError as error:
            for held in locks:
                held.close()
            raise RelaywardenError(f"another monitor reads {place} into this ledger; stop it first") from error
    return locks
