"""logs - structured log lines on standard error: `text key=value ...`, or one JSON object a line.

Values come from mail clients, so control characters are escaped: a line break in a recipient never starts a log line of
its own.  No secret (key, password, store URL with credentials) is ever passed here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from functools import lru_cache
from typing import Any

from relaywarden.config.settings import LogSettings

_FIELDS = "relaywarden_fields"
_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without blank, quote and equals sign


def configure(settings: LogSettings, program: str) -> None:
    """Send all logging of this process to standard error in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(program) if settings.format == "json" else _TextLines(program))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # Nothing here prints where in the code a line was logged, nor in which thread: the logging HOWTO's section "Optimization".
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = False
    logging.raiseExceptions = False  # a full disk or closed pipe behind standard error must not reach a mail session


def event(log: logging.Logger, level: int, text: str, **fields: Any) -> None:
    """Log `text` with `fields`; None and empty values are left out."""
    if log.isEnabledFor(level):
        log.log(level, "%s", text, extra={_FIELDS: fields})


class _TextLines(logging.Formatter):
    """`2026-11-24T08:00:00.123Z relaywarden/policyd[12]: info: text key=value key="quoted value"`."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the values hold; a traceback follows it."""
        stamp = f"{_second(int(record.created))}.{int(record.msecs):03d}Z"
        parts = [
            f"{stamp} relaywarden/{self._program}[{record.process}]: {record.levelname.lower()}: {_clean(record.getMessage())}"
        ]
        parts += [f"{key}={_quoted(value)}" for key, value in getattr(record, _FIELDS, {}).items() if value not in (None, "")]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, program, pid, level, text, and the fields."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """One line; what JSON cannot hold is written as text."""
        document: dict[str, Any] = {
            "time": record.created, "program": self._program, "pid": record.process,
            "level": record.levelname.lower(), "text": record.getMessage(),
        }  # fmt: skip
        document |= getattr(record, _FIELDS, {})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    """The beginning of a line's time; most lines come in the same second as the one before."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _clean(text: str) -> str:
    if text.isprintable() and text.isascii():
        return text
    escaped = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in escaped)


def _quoted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    text = _clean(text)
    return json.dumps(text, ensure_ascii=False) if not text or any(char in ' "=' for char in text) else text
