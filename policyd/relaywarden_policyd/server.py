"""server - the processes of policyd: start, reload, stop.

The master opens the sockets (Unix and TCP, several if configured) and every worker accepts from the same ones.

    SIGTERM    accept no more, answer what is in flight, close, end
    SIGUSR1    read the configuration again; if it has errors, log them and keep what is in force

How it fails: an error in one connection or batch is logged and stays there; a worker that dies, or whose event loop does not
turn for a minute, is replaced by the supervisor, its peers reconnect and resend, and the ledger's tickets see to it that
nothing is charged twice.

Known limits: `store`, `listen` and `workers` are read at the start only; a reload that changes them says so.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import uvloop

from relaywarden.addresses import listen
from relaywarden.config.load import load
from relaywarden.config.settings import OnDown, Settings
from relaywarden.errors import ConfigError, RelaywardenError, StoreUnavailableError
from relaywarden.ledger.connect import open_ledger
from relaywarden.logs import event
from relaywarden.workers import beat, supervise
from relaywarden_policyd.acceptor import Acceptor, Board
from relaywarden_policyd.batch import Batcher
from relaywarden_policyd.decide import Judge
from relaywarden_policyd.desk import Desk
from relaywarden_policyd.lateledger import LateLedger
from relaywarden_policyd.limiter import Fixed, LastSeen, LocalLimiter
from relaywarden_policyd.meters import Meters

log = logging.getLogger(__name__)
DRAIN_SECONDS = 10.0
FLUSH_SECONDS = 1.0
TIMEOUT_MARGIN = 0.25  # beyond the ledger's own timeout
BEAT_SECONDS = 1.0
HANG_SECONDS = 60.0  # a worker whose event loop does not turn for so long is replaced


def serve(path: Path, settings: Settings) -> None:
    """Run policyd until SIGTERM; raises RelaywardenError if it cannot start."""
    if not settings.policyd.listen:
        raise RelaywardenError(f"{path}: policyd.listen is empty, so policyd has nothing to do")
    _raise_file_limit()
    _prepare_store(settings)
    sockets = [listen(address) for address in settings.policyd.listen]
    board = Board(settings.policyd.workers)
    event(log, logging.INFO, "policyd listens", addresses=",".join(map(str, settings.policyd.listen)),
          workers=settings.policyd.workers)  # fmt: skip

    def work(index: int) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a reload that comes before the loop does is not needed
        current = _current(path, settings) if board.started(index) else settings
        uvloop.run(Worker(index, path, current, sockets, board).run())

    try:
        supervise("policyd", settings.policyd.workers, work, stop_timeout=DRAIN_SECONDS + 5.0, hang_timeout=HANG_SECONDS)
    finally:
        for sock in sockets:
            sock.close()
        for address in settings.policyd.listen:
            if address.path is not None:
                Path(address.path).unlink(missing_ok=True)


def _prepare_store(settings: Settings) -> None:
    """Let one process create an embedded ledger, before several want to; a store that is down stops nobody."""
    try:
        open_ledger(settings).close()
    except StoreUnavailableError as error:
        event(log, logging.ERROR, "the store does not open, starting without it", reason=str(error))


def _current(path: Path, fallback: Settings) -> Settings:
    """What a replacement starts with: the file as it is now (the one it replaces may have reloaded), else as it once was."""
    try:
        return load(path)
    except ConfigError as error:
        event(log, logging.ERROR, "the configuration has errors, the one from the start is in force", errors=str(error))
        return fallback


def _raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Worker:
    """One process: the sockets, the desk, the signals."""

    def __init__(self, index: int, path: Path, settings: Settings, sockets: Sequence[socket.socket], board: Board) -> None:
        self._index, self._path, self._settings, self._sockets, self._board = index, path, settings, sockets, board
        self._reloads: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until SIGTERM."""
        self._loop = loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._meters = meters = Meters()
        ledger = LateLedger(self._settings)
        timeout = self._settings.ledger.timeout / 1000 + TIMEOUT_MARGIN
        self._batcher = batcher = Batcher(ledger, self._limiter(), meters, timeout, self._settings.policyd.patience / 1000)
        self._desk = Desk(Judge(self._settings), batcher, meters)
        acceptor = Acceptor(self._index, self._sockets, self._board, self._desk)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, self._start_reload)
        await ledger.open()
        acceptor.start()
        self._beat()
        event(log, logging.INFO, "worker ready", worker=self._index)
        gc.collect()
        gc.freeze()  # settings and modules live as long as the process: not to be looked through again and again
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), FLUSH_SECONDS)
            except asyncio.TimeoutError:
                pass  # nobody wants us to stop
            batcher.tick()
            meters.connections(len(self._desk.connections), self._desk.open_tickets())
            meters.flush()
        acceptor.stop()
        await self._drain(batcher)
        await ledger.close()
        meters.flush()

    def _beat(self) -> None:
        beat()
        self._loop.call_later(BEAT_SECONDS, self._beat)

    def _limiter(self) -> LastSeen:
        ledger = self._settings.ledger
        if ledger.on_down is OnDown.LOCAL:
            return LastSeen(LocalLimiter(ledger.local_share, self._settings.policyd.workers, self._index))
        return LastSeen(Fixed(ledger.on_down))

    def _start_reload(self) -> None:
        task = self._loop.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            settings, judge = await self._loop.run_in_executor(None, _read, self._path)
        except ConfigError as error:
            event(log, logging.ERROR, "the configuration has errors, the old one stays in force", errors=str(error))
            return
        old = self._settings
        for name, changed in (
            ("store", settings.store != old.store),
            ("policyd", settings.policyd != old.policyd),
            ("ledger", settings.ledger != old.ledger),
        ):
            if changed:
                event(log, logging.WARNING, "this setting takes effect at the next start only", setting=name)
        self._settings, self._desk.judge = settings, judge
        event(log, logging.INFO, "the configuration was read again", tenants=len(settings.tenants), worker=os.getpid())

    async def _drain(self, batcher: Batcher) -> None:
        """Answer what is in flight, then let go of the peers."""
        deadline = self._loop.time() + DRAIN_SECONDS
        for connection in list(self._desk.connections):
            connection.stop()
        while self._desk.connections and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        await batcher.close()


def _read(path: Path) -> tuple[Settings, Judge]:
    settings = load(path)
    return settings, Judge(settings)
