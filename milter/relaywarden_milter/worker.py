"""worker - the milter as a service: one listening socket, N forked processes, reload, drain.

Master: opens the socket once (`relaywarden.addresses`: mode 0660, group of the folder, non-blocking, TCP_NODELAY), then
`relaywarden.workers` keeps N children.  Child: libmilter in a second thread, the main thread waits for signals:

    SIGTERM, SIGINT   accept nothing more, finish the messages in flight (drain_timeout), settle, exit
    SIGUSR1, SIGHUP   read the configuration and keys again; with any error in them the old ones stay in force

A reload does not touch open sessions: a message keeps the rules it began with.  What is fixed at start (listen, workers,
store) changes by a restart.  Known limit: an SMTP session that stays open without a message for longer than a few seconds
of the drain loses its milter; Postfix then answers its next message by milter_default_action.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import time
from pathlib import Path

from relaywarden import addresses, workers
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError, RelaywardenError
from relaywarden.ledger.connect import open_ledger
from relaywarden.logs import event
from relaywarden_milter.libmilter import Loop
from relaywarden_milter.pipeline import Rules
from relaywarden_milter.session import Runtime
from relaywarden_milter.settler import Settler

log = logging.getLogger(__name__)
_STOP = {signal.SIGTERM, signal.SIGINT}
_RELOAD = {signal.SIGUSR1, signal.SIGHUP}
_IDLE_GRACE = 2.0  # sessions between two messages may begin another one this long after the drain began
_FIXED_AT_START = ("listen", "workers")


def serve(path: Path, settings: Settings) -> None:
    """Run the milter until SIGTERM or SIGINT; raises RelaywardenError when it cannot listen."""
    if settings.milter.listen is None:
        raise RelaywardenError("milter.listen is not set; expected unix:/path or inet:host:port")
    listener = addresses.listen(settings.milter.listen)
    try:
        event(log, logging.INFO, "ready", listen=settings.milter.listen, workers=settings.milter.workers,
              tenants=len(settings.tenants), scan=",".join(settings.scan.url) if settings.scan else "off",
              pools=",".join(settings.pools) or "off")  # fmt: skip
        # A reload that arrives before a child has its handlers must wait, not kill it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _RELOAD)
        workers.supervise(
            "milter",
            settings.milter.workers,
            lambda index: Worker(path, settings, listener, index).run(),
            stop_timeout=settings.milter.drain_timeout / 1000 + 5.0,
        )
    finally:
        listener.close()
        if settings.milter.listen.path is not None:
            Path(settings.milter.listen.path).unlink(missing_ok=True)
        event(log, logging.INFO, "stopped")


class Worker:
    """One child."""

    def __init__(self, path: Path, settings: Settings, listener: socket.socket, index: int) -> None:
        self._path, self._settings, self._index = path, settings, index
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put() may interrupt itself, as handlers do
        self._settler = Settler(lambda: open_ledger(settings), settings.ledger.timeout / 1000)
        self._runtime = Runtime(Rules(self._newest()), self._settler)
        self._loop = Loop(self._runtime, listener)

    def run(self) -> None:
        """Serve until told to stop.  Does not return: libmilter's threads cannot be joined in the middle of a session."""
        for number in _STOP | _RELOAD:
            signal.signal(number, lambda number, _frame: self._signals.put(number))
        # Threads inherit this mask, so that the main thread alone is there to take these signals.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP | _RELOAD)
        self._settler.start()
        self._loop.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, previous - _STOP - _RELOAD)
        event(log, logging.DEBUG, "worker ready", worker=self._index)
        while not self._stop_asked():
            if self._loop.ended.is_set():
                raise RelaywardenError("libmilter ended by itself (accept failures or no threads left)")
        self._drain()
        logging.shutdown()
        os._exit(0)

    def _stop_asked(self) -> bool:
        try:
            number = self._signals.get(timeout=1.0)
        except queue.Empty:
            return False
        if number in _RELOAD:
            self._reload()
        return number in _STOP

    def _reload(self) -> None:
        """New rules for the messages that begin from now on."""
        try:
            settings = load(self._path)
            rules = Rules(settings)
            rules.keyring.require_all()
        except ConfigError as error:
            for problem in error.problems:
                event(log, logging.ERROR, "reload failed, the old settings stay in force", problem=problem)
            return
        except Exception:
            log.exception("reload failed, the old settings stay in force")
            return
        # The old rules are not closed: messages in flight still scan by them, and rspamd keeps no connection open anyway.
        self._runtime.rules = rules
        for name in _FIXED_AT_START:
            if getattr(settings.milter, name) != getattr(self._settings.milter, name):
                event(log, logging.WARNING, "a changed setting needs a restart", setting=f"milter.{name}")
        if settings.store != self._settings.store:
            event(log, logging.WARNING, "a changed setting needs a restart", setting="store")
        event(log, logging.INFO, "reloaded", worker=self._index, tenants=len(settings.tenants))

    def _newest(self) -> Settings:
        """A replaced worker starts with the file as its siblings last read it; one with errors changes nothing."""
        try:
            return load(self._path)
        except ConfigError:
            return self._settings

    def _drain(self) -> None:
        """libmilter has no drain: after a stop it serves nobody, so it is not stopped but left without new sessions."""
        self._loop.drain()
        began = time.monotonic()
        deadline = began + self._settings.milter.drain_timeout / 1000
        runtime = self._runtime
        with runtime.changed:
            while runtime.messages or (runtime.sessions and time.monotonic() < began + _IDLE_GRACE):
                left = deadline - time.monotonic()
                if left <= 0:
                    event(log, logging.WARNING, "messages in flight are dropped", messages=runtime.messages)
                    break
                runtime.changed.wait(min(left, 0.25))
        lost = self._settler.close()
        if lost:
            event(log, logging.ERROR, "ledger operations are lost, the store did not answer", operations=lost)
