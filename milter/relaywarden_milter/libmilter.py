"""libmilter - everything that works around the library's process model: socket, callbacks, accept loop.

libmilter wants to open its own socket, but its blocking mode, its umask, and a Unix path that the first worker to exit
removes (milter-traps, 18) do not fit a pre-forking server.  So it opens a throw-away socket of the same family, and the
listening socket that the master made is put over that file descriptor.  The same trick drains, and lets other workers go
first (`balance`): a socket that nobody knows is put there, and open sessions go on while no new ones arrive (17).

Signals: libmilter blocks SIGTERM, SIGINT and SIGHUP in the thread that runs it and waits for them in one of its own, where
they mean "stop at once".  Linux delivers a signal of the process to the main thread whenever that one does not block it.
So libmilter runs in a second thread, and the main thread stays free for Python's handlers (`worker`).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import Milter

from relaywarden.errors import RelaywardenError
from relaywarden_milter.session import ACTIONS, Runtime, Session

log = logging.getLogger(__name__)
WAKE = signal.SIGUSR2  # interrupts libmilter's poll(2); does nothing else
_IDLE_SECONDS = 7210  # libmilter's own default, said aloud: longer than Postfix keeps any connection


class Loop:
    """libmilter's accept loop on a listening socket of ours; one per process, after fork."""

    def __init__(self, runtime: Runtime, listener: socket.socket) -> None:
        self._runtime = runtime
        self._listener = listener
        self._fd = -1
        self._deaf = _deaf(listener.family)  # made now: a drain must not need a descriptor
        self._drains = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="libmilter", daemon=True)
        self.ended = threading.Event()

    def start(self) -> None:
        """Accept connections from now on; from the main thread; raises RelaywardenError."""
        signal.signal(WAKE, lambda _number, _frame: None)
        _register(self._runtime)
        self._fd = _open_throwaway(self._listener.family)
        self._put(self._listener)
        self._thread.start()

    def drain(self) -> None:
        """Accept nothing more; open sessions go on."""
        with self._lock:
            self._drains = True
            self._put(self._deaf)

    def hold_back(self) -> None:
        """Accept nothing until `listen_again`; open sessions go on."""
        with self._lock:
            if not self._drains:
                self._put(self._deaf)

    def listen_again(self) -> None:
        """Accept again.

        libmilter may sleep in poll(2) on the socket that nobody knows, for up to 5 s; the signal makes it look again.  (A
        connection to that socket would not do: woken, poll looks at what the descriptor is now, and sleeps on.)
        """
        with self._lock:
            if not self._drains:
                self._put(self._listener)
                if self._thread.ident is not None:
                    signal.pthread_kill(self._thread.ident, WAKE)

    def _put(self, sock: socket.socket) -> None:
        os.dup2(sock.fileno(), self._fd, inheritable=False)

    def _run(self) -> None:
        try:
            Milter.main()
        finally:
            self.ended.set()


def _deaf(family: int) -> socket.socket:
    """A listening socket that nobody knows."""
    deaf = socket.socket(family, socket.SOCK_STREAM)
    deaf.setblocking(False)
    if family == socket.AF_UNIX:
        deaf.bind("")  # an abstract address of the kernel's choice
    else:
        deaf.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    deaf.listen(1)
    return deaf


def _register(runtime: Runtime) -> None:
    def negotiate(context: Any, opts: list[int]) -> int:
        try:
            session = Session(runtime)
            session._setctx(context)
            return session.negotiate(opts)
        except Exception:
            log.exception("a milter session could not be opened")
            return int(Milter.REJECT)

    Milter.set_flags(ACTIONS)
    Milter.set_connect_callback(_of_session(Session.connect))
    Milter.set_helo_callback(_of_session(Session.hello))
    Milter.set_envfrom_callback(_of_session(Session.envfrom_bytes))
    Milter.set_envrcpt_callback(_of_session(Session.envrcpt_bytes))
    Milter.set_header_callback(_header)
    Milter.set_body_callback(_body)
    Milter.set_eom_callback(_of_session(Session.eom))
    Milter.set_abort_callback(_of_session(Session.abort))
    Milter.set_close_callback(Milter.close_callback)
    # What fails before our code is reached must not end the dialogue of a step that is never answered (milter-traps, 1).
    Milter.set_exception_policy(Milter.CONTINUE)
    Milter.settimeout(_IDLE_SECONDS)
    Milter.register("relaywarden", negotiate=negotiate)


def _of_session(method: Callable[..., int]) -> Callable[..., int]:
    """A callback for libmilter.  A peer that never negotiated has no session, so no verdict: its mail must not pass."""

    def call(context: Any, *args: Any) -> int:
        session = context.getpriv()
        return method(session, *args) if session is not None else int(Milter.TEMPFAIL)

    return call


def _header(context: Any, name: str, value: bytes) -> int:
    """`Session.header` without its wrappers: it is called a dozen times a message."""
    session: Session | None = context.getpriv()
    if session is None:
        return int(Milter.TEMPFAIL)
    try:
        session.message.add_header(name, value)
    except BaseException as error:  # noqa: BLE001  # see `session.guarded`
        session.note_fault("header", error)
    return session.header_answer


def _body(context: Any, chunk: bytes) -> int:
    """`Session.body` in the same way."""
    session: Session | None = context.getpriv()
    if session is None:
        return int(Milter.TEMPFAIL)
    try:
        session.message.add_body(chunk)
    except BaseException as error:  # noqa: BLE001
        session.note_fault("body", error)
    return session.body_answer


def _open_throwaway(family: int) -> int:
    """Let libmilter open a socket of this family; which descriptor it is shows by what is open afterwards."""
    before = _listening()
    with tempfile.TemporaryDirectory(prefix="relaywarden-milter-") as folder:
        name = {int(socket.AF_UNIX): f"unix:{folder}/socket", int(socket.AF_INET): "inet:0@127.0.0.1"}.get(
            family, "inet6:0@::1"
        )
        Milter.setconn(name)
        try:
            Milter.opensocket(False)
        except Milter.error as error:
            raise RelaywardenError(f"libmilter cannot open a socket: {error}") from error
    listening = _listening() - before
    if len(listening) != 1:
        raise RelaywardenError(f"cannot tell libmilter's socket among descriptors {sorted(listening)}")
    return listening.pop()


def _listening() -> set[int]:
    """The descriptors of listening sockets (the listing's own descriptor is closed by the time it is looked at)."""
    return {fd for fd in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()) if _listens(fd)}


def _listens(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # not a socket, or closed by now
