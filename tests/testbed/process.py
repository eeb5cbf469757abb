"""Start, poll and stop one service of the testbed.

A `Process` is one command in a session of its own, with stdout and stderr in a log file.  `start` returns when the
service answers its `ready` probe; it raises `StartError`, with the tail of the log in its text, when the command ends
first or the time is up.  `stop` sends SIGTERM, waits, then kills what is left of the process group.

A command that is not installed raises `MissingProgramError`, which names the Debian package: the testbed never skips.
Known limit: a child that leaves the process group (Postfix's master does) has to be stopped by its own means.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

POLL = 0.02


class StartError(RuntimeError):
    """A service did not come up (or did not do what was waited for); the text ends with the tail of its log."""


class MissingProgramError(RuntimeError):
    """A program of the testbed is not installed."""


def program(name: str, package: str) -> str:
    """The path of an installed program, looked for in the folders of root too."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/local/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingProgramError(f"{name} is not installed: apt-get install {package}")
    return found


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log, to be shown in an error."""
    try:
        text = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text[-lines:]) or "(the log is empty)"


def wait_for(
    what: str, probe: Callable[[], bool], *, timeout: float = 20.0, log: Path | None = None, every: float = POLL
) -> None:
    """Poll until the probe is true; StartError when the time is up."""
    deadline = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > deadline:
            text = f"{what}: not within {timeout:g} s"
            raise StartError(text if log is None else f"{text}\n--- {log}\n{tail(log)}")
        time.sleep(every)


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread has stopped: the signal alone arrives when it likes.  SIGCONT ends it."""

    def stopped() -> bool:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks} == {"T"}

    os.kill(pid, signal.SIGSTOP)
    wait_for(f"process {pid} does not stop", stopped)


class Process:
    """One running command; subclasses or owners say when it is ready."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.argv, self.log = name, list(argv), log
        self.ready, self.env, self.timeout, self.cwd = ready, env, timeout, cwd
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if self.env is None else {**os.environ, **self.env},
                cwd=self.cwd,
            )
        try:
            wait_for(f"{self.name} did not answer", self._ready_or_dead, timeout=self.timeout, log=self.log)
        except BaseException:
            self.stop(grace=1.0)
            raise

    @property
    def pid(self) -> int:
        if self.child is None:
            raise RuntimeError(f"{self.name} is not running")
        return self.child.pid

    def alive(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def stop(self, grace: float = 10.0, first: int = signal.SIGTERM) -> int | None:
        """Stop it and give back its exit status (None if it never ran)."""
        child, self.child = self.child, None
        if child is None:
            return None
        if child.poll() is None:
            child.send_signal(first)
            try:
                child.wait(grace)
            except subprocess.TimeoutExpired:
                pass  # the whole group is killed below
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nothing of the group is left
        return child.wait()

    def _ready_or_dead(self) -> bool:
        if not self.alive():
            status = self.child.returncode if self.child else None
            raise StartError(f"{self.name} ended with status {status}\n--- {self.log}\n{tail(self.log)}")
        return self.ready()

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
