"""worker - the milter as a service: one listening socket, N forked processes, reload, drain.

Master: opens the socket once (`relaywarden.addresses`: mode 0660, group of the folder, non-blocking, TCP_NODELAY), then
`relaywarden.workers` keeps N children.  Child: libmilter in a second thread, the main thread waits for signals:

    SIGTERM, SIGINT   accept nothing more, finish the messages in flight (drain_timeout), settle, exit
    SIGUSR1, SIGHUP   read the configuration and keys again; with any error in them the old ones stay in force

About once a second the main thread gives a sign of life and looks whether this worker should be replaced (`upkeep`): it has
grown, or a message hangs.  The master then starts another one, and SIGTERM comes when that one serves.  Because mail goes on
elsewhere, this drain is patient: open sessions may go on for drain_timeout.  A second SIGTERM makes it an ordinary stop.

A reload does not touch open sessions: a message keeps the rules it began with.  What is fixed at start (listen, workers,
store) changes by a restart.  Known limit: an SMTP session that stays open without a message for longer than a few seconds
of the drain (a replacement: for longer than drain_timeout) loses its milter; Postfix then answers its next message by
milter_default_action.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from relaywarden import addresses, domains, warmup, workers
from relaywarden.aside import Aside
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError, RelaywardenError
from relaywarden.health import Reason
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.logs import event
from relaywarden.steering import Words
from relaywarden_milter.allowance import Allowance
from relaywarden_milter.balance import Balance, Board
from relaywarden_milter.hearing import Hearing
from relaywarden_milter.libmilter import Loop
from relaywarden_milter.mxcache import MxCache
from relaywarden_milter.rules import Rules
from relaywarden_milter.session import Runtime
from relaywarden_milter.settler import Settler
from relaywarden_milter.upkeep import SelfWatch

log = logging.getLogger(__name__)
_STOP = {signal.SIGTERM, signal.SIGINT}
_RELOAD = {signal.SIGUSR1, signal.SIGHUP}
_IDLE_GRACE = 2.0  # sessions between two messages may begin another one this long after the drain began
_ACCEPTED_GRACE = 0.5  # a connection accepted just before the drain is counted as a session only once Postfix has spoken
_REPLY_GRACE = 0.25  # a message is over for us shortly before libmilter has written the reply
_GARBAGE = 20_000  # containers made since the last collection; a message makes a few hundred, and almost never a cycle
_FIXED_AT_START = ("listen", "workers")
BEAT_SECONDS = 1.0
KEYS_SECONDS = 5.0
SHORTEST_SILENCE = 10.0  # what a loaded machine, or a large configuration at start, may do to a healthy worker


def serve(path: Path, settings: Settings) -> None:
    """Run the milter until SIGTERM or SIGINT; raises RelaywardenError when it cannot listen."""
    if settings.milter.listen is None:
        raise RelaywardenError("milter.listen is not set; expected unix:/path or inet:host:port")
    newest = _Newest(path, settings)
    domains.load()  # shared by the workers, as it comes before the fork
    listener = addresses.listen(settings.milter.listen)
    board = Board(settings.milter.workers)
    try:
        event(log, logging.INFO, "ready", listen=settings.milter.listen, workers=settings.milter.workers,
              tenants=len(settings.tenants), scan=",".join(settings.scan.url) if settings.scan else "off",
              pools=",".join(settings.pools) or "off")  # fmt: skip
        # A reload that arrives before a child has its handlers must wait, not kill it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _RELOAD)
        workers.supervise(
            "milter",
            settings.milter.workers,
            lambda index: Worker(path, newest.settings, listener, index, board).run(),
            stop_timeout=settings.milter.drain_timeout / 1000 + 5.0,
            hang_timeout=settings.milter.hang_timeout and max(SHORTEST_SILENCE, settings.milter.hang_timeout / 1000),
            reload=newest.read,
        )
    finally:
        listener.close()
        if settings.milter.listen.path is not None:
            Path(settings.milter.listen.path).unlink(missing_ok=True)
        event(log, logging.INFO, "stopped")


class _Newest:
    """The last good settings, in the master: workers that are started later begin with them, not with a file half edited."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Raises RelaywardenError for what no worker could start with."""
        self._path, self.settings = path, settings
        Rules(settings)
        warmup.plan(settings)

    def read(self) -> bool:
        """Read the file again; whether it can be used, keys included."""
        rules = _usable(self._path)
        if rules is not None:
            self.settings = rules.settings
        return rules is not None


def _usable(path: Path) -> Rules | None:
    """The rules of the file, if messages can be handled by them; else the reasons are logged."""
    try:
        settings = load(path)
        warmup.plan(settings)
        rules = Rules(settings)
        rules.keyring.require_all()
    except ConfigError as error:
        for problem in error.problems:
            event(log, logging.ERROR, "reload failed, the old settings stay in force", problem=problem)
    except RelaywardenError as error:
        event(log, logging.ERROR, "reload failed, the old settings stay in force", problem=error)
    except Exception:
        log.exception("reload failed, the old settings stay in force")
    else:
        return rules
    return None


class _Part(Protocol):
    def start(self) -> None: ...


class Worker:
    """One child."""

    def __init__(self, path: Path, settings: Settings, listener: socket.socket, index: int, board: Board) -> None:
        self._path, self._settings, self._index = path, settings, index
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put() may interrupt itself, as handlers do

        def connect() -> Ledger:
            return open_ledger(settings)

        self._settler = Settler(connect, settings.ledger.timeout / 1000)
        self._providers = MxCache()
        self._allowance = Allowance(settings, connect, self._providers)
        self._hearing = Hearing(connect, self._hear)
        self._words = Words()
        self._runtime = Runtime(Rules(settings, self._allowance), self._settler)
        self._loop = Loop(self._runtime, listener)
        self._balance = Balance(board, index, self._loop)
        self._runtime.has_sessions = self._balance.has
        self._watch, self._asked = SelfWatch(), False
        self._reloading = Aside("reload", self._reload)
        self._refreshing = Aside("reading the key files again", self._refresh_keys)
        self._keys_due = time.monotonic() + KEYS_SECONDS

    def run(self) -> None:
        """Serve until told to stop.  Does not return: libmilter's threads cannot be joined in the middle of a session."""
        for number in _STOP | _RELOAD:
            signal.signal(number, lambda number, _frame: self._signals.put(number))
        # Threads inherit this mask, so that the main thread alone is there to take these signals.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP | _RELOAD)
        gc.collect()
        gc.freeze()  # settings, keys and modules stay: a collection need not look at them again
        gc.set_threshold(_GARBAGE, 20, 20)
        for part in self._parts():
            part.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, previous - _STOP - _RELOAD)
        event(log, logging.DEBUG, "worker ready", worker=self._index)
        while True:
            workers.beat()
            if self._stop_asked():
                break
            if self._loop.ended.is_set():
                raise RelaywardenError("libmilter ended by itself (accept failures or no threads left)")
            self._see_to_itself()
        self._drain()
        logging.shutdown()
        os._exit(0)

    def _parts(self) -> Iterator[_Part]:
        """What has a thread of its own, in the order of starting."""
        yield from (self._settler, self._providers, self._allowance, self._hearing, self._reloading, self._refreshing)
        yield from (self._balance, self._loop)

    def _stop_asked(self) -> bool:
        try:
            number = self._signals.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            return False
        if number in _RELOAD:
            self._reloading.ask()
        return number in _STOP

    def _see_to_itself(self) -> None:
        """Nothing in here may wait for a file, a peer or a lock that a session holds."""
        runtime = self._runtime
        reason = self._watch.look(runtime.rules.settings.milter, runtime.oldest_work())
        if reason is not Reason.NONE:
            self._asked = True
            workers.ask(reason)
        if time.monotonic() >= self._keys_due:
            self._keys_due = time.monotonic() + KEYS_SECONDS
            self._refreshing.ask()
        self._reloading.look()
        self._refreshing.look()

    def _reload(self) -> None:
        """New rules for the messages that begin from now on."""
        rules = _usable(self._path)
        if rules is None:
            return
        settings = rules.settings
        rules.admission = self._allowance
        rules.hear(self._words)
        self._allowance.reload(settings)
        # The old rules are not closed: messages in flight still scan by them, and rspamd keeps no connection open anyway.
        self._runtime.rules = rules
        for name in _FIXED_AT_START:
            if getattr(settings.milter, name) != getattr(self._settings.milter, name):
                event(log, logging.WARNING, "a changed setting needs a restart", setting=f"milter.{name}")
        if settings.store != self._settings.store:
            event(log, logging.WARNING, "a changed setting needs a restart", setting="store")
        event(log, logging.INFO, "reloaded", worker=self._index, tenants=len(settings.tenants))

    def _hear(self, words: Words) -> None:
        """What operator and monitor said, for the messages from now on."""
        self._words = words
        self._allowance.steer(words)
        self._runtime.rules.hear(words)

    def _refresh_keys(self) -> None:
        self._runtime.rules.keyring.refresh()

    def _drain(self) -> None:
        """libmilter has no drain: after a stop it serves nobody, so it is not stopped but left without new sessions."""
        self._balance.close()
        self._loop.drain()
        began = time.monotonic()
        deadline = began + self._settings.milter.drain_timeout / 1000
        patient_until = deadline if self._asked else began + _IDLE_GRACE
        settle_until = began + _ACCEPTED_GRACE if self._asked else began
        runtime = self._runtime
        with runtime.changed:
            while (now := time.monotonic()) < deadline:
                waits = runtime.messages or (runtime.sessions and now < patient_until)
                if not waits and now >= settle_until:
                    break
                runtime.changed.wait(min(deadline - now, 0.25))
                if not self._signals.empty() and self._signals.get() in _STOP:
                    patient_until, settle_until = min(patient_until, time.monotonic() + _IDLE_GRACE), began
            if runtime.messages:
                event(log, logging.WARNING, "messages in flight are dropped", messages=runtime.messages)
            elif runtime.sessions:
                runtime.changed.wait_for(lambda: not runtime.sessions, _REPLY_GRACE)
        lost = self._settler.close()  # first: it alone has something to lose
        for part in (self._hearing, self._allowance, self._providers):
            part.close()
        if lost:
            event(log, logging.ERROR, "ledger operations are lost, the store did not answer", operations=lost)
