"""acceptor - N workers accept from the same sockets, and share the connections evenly.

Policy connections live long (Postfix: up to 1000 s), so an unequal share would stay unequal: the workers keep the number of
their connections in a page of shared memory, and one that has more than another lets a new connection wait some
milliseconds for a worker with fewer.

How it fails: without file descriptors it waits a second and leaves peers in the backlog, where Postfix waits for them.

Known limit: while a worker hangs or is being replaced, the others take at most fifty new connections a second.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
from collections.abc import Sequence

from relaywarden.logs import event
from relaywarden_policyd.connection import Connection
from relaywarden_policyd.desk import Desk

log = logging.getLogger(__name__)
YIELD_SECONDS = 0.002  # how long a busier worker leaves a new connection to another, for each that it has more
LONGEST_YIELD_SECONDS = 0.020  # a worker that hangs must not keep the others from accepting
FD_SHORTAGE_SECONDS = 1.0


class Board:
    """How many connections each worker has, in memory that all of them share."""

    def __init__(self, workers: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * workers)).cast("I")
        self._started = memoryview(mmap.mmap(-1, workers))

    def started(self, index: int) -> bool:
        """Whether there was a worker `index` before; from now on there was."""
        before, self._started[index] = bool(self._started[index]), 1
        return before

    def set(self, index: int, count: int) -> None:
        """Worker `index` has `count`."""
        self._counts[index] = count

    def lead(self, index: int) -> int:
        """How many more worker `index` has than the one with the fewest."""
        return self._counts[index] - min(self._counts)


class Acceptor:
    """Takes connections from the listening sockets, for one worker."""

    def __init__(self, index: int, sockets: Sequence[socket.socket], board: Board, desk: Desk) -> None:
        self._index, self._sockets, self._board, self._desk = index, sockets, board, desk
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        desk.counted = self._counted
        self._counted(0)

    def start(self) -> None:
        """Accept from now on."""
        for sock in self._sockets:
            self._watch(sock)

    def stop(self) -> None:
        """Accept no more."""
        self._stopped = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _counted(self, connections: int) -> None:
        self._board.set(self._index, connections)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            event(log, logging.WARNING, "a new connection was lost", error=str(error))

    def _watch(self, sock: socket.socket) -> None:
        if not self._stopped:
            self._loop.add_reader(sock, self._readable, sock)

    def _readable(self, sock: socket.socket) -> None:
        lead = self._board.lead(self._index)
        if lead:
            self._loop.remove_reader(sock)
            self._loop.call_later(min(LONGEST_YIELD_SECONDS, lead * YIELD_SECONDS), self._accept_late, sock)
        else:
            self._accept(sock)

    def _accept_late(self, sock: socket.socket) -> None:
        if self._accept(sock):
            self._watch(sock)

    def _accept(self, sock: socket.socket) -> bool:
        """Take one connection if there is one; whether the socket is fit to be watched."""
        if self._stopped:
            return False
        try:
            peer, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return True  # another worker was faster, or the peer is gone again
        except OSError as error:
            # No file descriptors left: wait for some rather than spin; what cannot be accepted stays in the backlog.
            event(log, logging.ERROR, "cannot accept a connection", error=error.strerror, open=len(self._desk.connections))
            self._loop.remove_reader(sock)
            self._loop.call_later(FD_SHORTAGE_SECONDS, self._watch, sock)
            return False
        peer.setblocking(False)
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that vanished must not hold its place
        self._board.set(self._index, len(self._desk.connections) + 1)
        task = self._loop.create_task(self._connect(peer))
        self._tasks.add(task)
        task.add_done_callback(self._connected)
        return True

    async def _connect(self, peer: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: Connection(self._desk), peer)
