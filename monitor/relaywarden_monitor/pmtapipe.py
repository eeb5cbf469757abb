"""pmtapipe - `relaywarden pmta-pipe`: PowerMTA writes its accounting to our standard input, we put it into the spool.

PowerMTA starts the program once, `<acct-file "|/usr/bin/relaywarden pmta-pipe">`, and writes the header row first, again at
each start.  What comes is appended to `pmta-DATE-NUMBER.csv` in `monitor.spool` as it comes, in one write for what is there at
once; the monitor follows these files.  A file begins with the header, and ends between two rows after 64 MiB or an hour.
After two days it is deleted.

How it fails: on SIGTERM what is in the pipe is still written.  On a full disk, or any other error of the spool, the row that
could not be written whole is taken back, the log says so, and the program ends with status 1: PowerMTA starts it again after
its retry-interval.  What PowerMTA logs meanwhile never comes by the pipe; so let it write a file too, and the monitor read
both.

Known limits: nothing is synced to the disk, so a crash of the host may cost the last seconds.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import click

from relaywarden import logs
from relaywarden.config.load import load
from relaywarden.errors import ConfigError, Problem

LARGEST: Final = 64 * 2**20  # bytes of a file
LONGEST: Final = 3600.0  # seconds that a file is written
KEPT: Final = 7 * 86_400.0  # seconds after its last change
_BLOCK = 1024 * 1024
_LONGEST_HEADER = 64 * 1024
_NAMES = "pmta-*.csv*"

_log = logging.getLogger(__name__)


@click.command("pmta-pipe")
@click.pass_obj
def pmta_pipe(path: Path) -> None:
    """Take PowerMTA's accounting from standard input into the spool (an acct-file of the form |command)."""
    settings = load(path)
    logs.configure(settings.log, "pmta-pipe")
    if settings.monitor is None or settings.monitor.spool is None:
        raise ConfigError([Problem(f"{path}: monitor.spool", "expected the folder for PowerMTA's records")])
    sys.exit(run(Spool(settings.monitor.spool), sys.stdin.fileno()))


class Spool:
    """The files that rows are put into."""

    def __init__(self, folder: Path, largest: int = LARGEST, longest: float = LONGEST, kept: float = KEPT) -> None:
        """`largest` in bytes; `longest` and `kept` in seconds."""
        self._folder, self._largest, self._longest, self._kept = folder, largest, longest, kept
        self._descriptor = -1
        self._path = folder
        self._header = b""
        self._header_ends = False
        self._size = self._good = 0  # of the file; up to the last row end
        self._opened = 0.0
        self._quoted = False  # what comes next is within quotes

    def write(self, data: bytes) -> None:
        """Append what came; raises OSError, after it took an unfinished row back."""
        if not self._header_ends:
            self._learn_header(data)
        if self._descriptor < 0 or os.fstat(self._descriptor).st_nlink == 0:  # or somebody deleted it
            self._next()
        elif self._size >= self._largest or time.monotonic() - self._opened > self._longest:
            end = self._row_end(data)
            if end is not None:
                self._append(data[:end])
                self._next()
                data = data[end:]
        self._append(data)

    def close(self) -> None:
        """Finish the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def clean(self) -> None:
        """Delete files that are old enough."""
        for path in self._folder.glob(_NAMES):
            try:
                if path != self._path and time.time() - path.stat().st_mtime > self._kept:
                    path.unlink()
            except OSError as error:
                logs.event(_log, logging.WARNING, "cannot delete an old file of the spool", file=path, error=error.strerror)

    def _learn_header(self, data: bytes) -> None:
        """The first line is the header; it may come in pieces."""
        end = data.find(b"\n")
        self._header += data[: end + 1] if end >= 0 else data
        self._header_ends = end >= 0
        if not self._header_ends and len(self._header) > _LONGEST_HEADER:
            raise OSError("standard input: expected a header row first, got a line of more than 64 KiB")

    def _append(self, data: bytes) -> None:
        at = 0
        try:
            while at < len(data):
                at += os.write(self._descriptor, data[at:])
        except OSError:
            self._take_back(data[:at])
            raise
        self._account(data)

    def _row_end(self, data: bytes) -> int | None:
        """Where in what comes next the row ends that was begun; None: it does not yet."""
        if self._good == self._size:
            return 0
        at, inside = 0, self._quoted
        while (end := data.find(b"\n", at) + 1) > 0:
            inside ^= data.count(b'"', at, end) % 2 == 1
            if not inside:
                return end
            at = end
        return None

    def _next(self) -> None:
        follows = self._descriptor >= 0
        self.close()
        self.clean()
        day = time.strftime("%Y-%m-%d", time.gmtime())
        number = sum(1 for _ in self._folder.glob(f"pmta-{day}-*"))
        while self._descriptor < 0:
            self._path = self._folder / f"pmta-{day}-{number:04d}.csv"
            try:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            except FileExistsError:
                number += 1
        self._size = self._good = 0
        self._opened = time.monotonic()
        if follows:
            os.write(self._descriptor, self._header)
            self._size = self._good = len(self._header)

    def _account(self, data: bytes) -> None:
        """Where the last whole row ends."""
        end = data.rfind(b"\n") + 1
        quotes_before, quotes_after = data.count(b'"', 0, end), data.count(b'"', end)
        inside = self._quoted ^ (quotes_before % 2 == 1)
        if end and not inside:
            self._good = self._size + end
        self._size += len(data)
        self._quoted = inside ^ (quotes_after % 2 == 1)

    def _take_back(self, written: bytes) -> None:
        self._account(written)
        try:
            os.ftruncate(self._descriptor, self._good)
        except OSError as error:
            logs.event(_log, logging.ERROR, "cannot take back an unfinished row", file=self._path, error=error.strerror)


def run(spool: Spool, source: int) -> int:
    """Copy a pipe into the spool until it ends, or SIGTERM or SIGINT; the exit status."""
    stopping = _stop_signal()
    while True:
        readable, _, _ = select.select([source, stopping], [], [])
        last = stopping in readable
        if last:
            os.set_blocking(source, False)
        try:
            while data := _read(source):
                spool.write(data)
                if not last:
                    break
            else:
                spool.close()
                return 0
        except OSError as error:
            logs.event(_log, logging.ERROR, "cannot write PowerMTA's records; PowerMTA is to start this program again",
                       error=str(error))  # fmt: skip
            return 1


def _read(source: int) -> bytes:
    """What is there; nothing at the end, or where nothing is there now."""
    try:
        return os.read(source, _BLOCK)
    except BlockingIOError:
        return b""


def _stop_signal() -> int:
    """A descriptor that becomes readable when we are asked to stop."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os.write(writing, b"x")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return reading
