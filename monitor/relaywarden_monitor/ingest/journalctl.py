"""journalctl - one running `journalctl --follow -o json`: its entries, as far as they are there now.

Wire format: one JSON object a line.  A field is a string; a list of numbers where it is not UTF-8 (its bytes); a list of
strings where the entry has it more than once; null where it is too large (not with --all).

How it fails: a line that is too long, or not such an object, is told in the log and left out.  JournalError says why
the program could not be started, or ended by itself, in its own words.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relaywarden import logs
from relaywarden.errors import RelaywardenError

LONGEST: Final = 1024 * 1024  # bytes of one entry
_FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_SOURCE_REALTIME_TIMESTAMP"
_BLOCK = 64 * 1024
_MOST_WORDS = 500  # bytes of what journalctl says on standard error

_log = logging.getLogger(__name__)


class JournalError(RelaywardenError):
    """journalctl cannot be run, or gave up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the journal."""

    cursor: str
    logged: int  # when the journal took it, microseconds since 1970
    at: float  # when it was sent, seconds since 1970
    identifier: str
    pid: int
    message: bytes


class Journalctl:
    """A journalctl that runs.  The owner closes it."""

    def __init__(self, matches: Sequence[str], directory: Path | None, start: str) -> None:
        """`start`: an option that says where to begin, such as --cursor=...; raises JournalError."""
        argv = ["journalctl", "--output=json", "--all", "--quiet", "--no-pager", "--follow", "--no-tail"]
        argv += [f"--output-fields={_FIELDS}", start, *([f"--directory={directory}"] if directory else []), *matches]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `close`
        self._lines: deque[bytes] = deque()
        self._rest, self._too_long = b"", False
        try:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, bufsize=0)
        except OSError as error:
            self._said.close()
            raise JournalError(f"cannot run journalctl: {error.strerror}; expected systemd's, in the PATH") from error
        if self._child.stdout is None:  # cannot be: it was asked for
            raise JournalError("journalctl has no standard output")
        self._output = self._child.stdout

    def entries(self, wait: float) -> Iterator[Entry]:
        """Those that come without a pause of more than `wait` seconds; raises JournalError when the program has ended."""
        deadline = time.monotonic() + wait
        while True:
            while self._lines:
                if entry := self._entry(self._lines.popleft()):
                    yield entry
                    deadline = time.monotonic() + wait
            if not select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return
            data = os.read(self._output.fileno(), _BLOCK)
            if not data:
                raise JournalError(self._last_words())
            *lines, rest = (self._rest + data).split(b"\n")
            self._lines.extend(lines)
            self._rest = self._bounded(rest)

    def close(self) -> None:
        """End the program; once only."""
        self._child.kill()  # it only reads
        self._child.wait()
        self._output.close()
        self._said.close()

    def _bounded(self, rest: bytes) -> bytes:
        """Nothing instead of the beginning of a line that is too long; its end is then left out as well."""
        if len(rest) > LONGEST:
            if not self._too_long:
                logs.event(_log, logging.WARNING, "an entry of the journal is too long and is left out", longest=LONGEST)
            self._too_long = True
            return b""
        return rest

    def _entry(self, line: bytes) -> Entry | None:
        if self._too_long:
            self._too_long = False
            return None
        try:
            fields = json.loads(line)
            logged = int(fields["__REALTIME_TIMESTAMP"])
            sent = int(_text(fields.get("_SOURCE_REALTIME_TIMESTAMP")) or logged)
            pid = _text(fields.get("SYSLOG_PID")) or _text(fields.get("_PID"))
            return Entry(
                cursor=str(fields["__CURSOR"]),
                logged=logged,
                at=sent / 1_000_000,
                identifier=_text(fields.get("SYSLOG_IDENTIFIER")),
                pid=int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 10 else 0,
                message=_octets(fields.get("MESSAGE")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            logs.event(_log, logging.WARNING, "not an entry of the journal", line=line[:200], error=repr(error))
            return None

    def _last_words(self) -> str:
        status = self._child.wait()
        self._said.seek(0)
        words = self._said.read(_MOST_WORDS).decode("utf-8", "replace").strip()
        return f"journalctl ended with status {status}: {words or 'it said nothing'}"


def _octets(value: Any) -> bytes:
    """A field's value; of several the first."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        value = value[0]
    return bytes(value) if isinstance(value, list) else str(value or "").encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    return _octets(value).decode("utf-8", "replace")
