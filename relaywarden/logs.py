"""logs - structured log lines on standard error: `text key=value ...`, or one JSON object a line.

Values come from mail clients, so control characters are escaped: a line break in a recipient never starts a log line of
its own.  No secret (key, password, store URL with credentials) is ever passed here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from relaywarden.config.settings import LogSettings

_FIELDS = "relaywarden_fields"
_LEVELS = {number: logging.getLevelName(number).lower() for number in (10, 20, 30, 40, 50)}
_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without blank, quote and equals sign


class _Format(Protocol):
    """How a line looks."""

    def line(self, created: float, pid: int, level: int, text: str, fields: Mapping[str, Any]) -> str:
        """One line, without its end, whatever the values hold; `created` in seconds since the epoch."""
        ...


def configure(settings: LogSettings, program: str) -> None:
    """Send all logging of this process to standard error in the configured form."""
    global _direct  # noqa: PLW0603  # like the handlers of the root logger: one a process
    form: _Format = _JsonLines(program) if settings.format == "json" else _TextLines(program)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # a full disk or closed pipe behind standard error must not reach a mail session
    _direct = _Direct(form, handler)


def event(log: logging.Logger, level: int, text: str, **fields: Any) -> None:
    """Log `text` with `fields`; None and empty values are left out."""
    if not log.isEnabledFor(level):
        return
    if _direct is not None and _direct.handler in logging.root.handlers:
        _direct.write(level, text, fields)
    else:
        log.log(level, "%s", text, extra={_FIELDS: fields})


class _Direct:
    """The way of events to the handler without a LogRecord, which costs more than all the rest of a line."""

    def __init__(self, form: _Format, handler: logging.StreamHandler[Any]) -> None:
        self.handler = handler
        self._form = form

    def write(self, level: int, text: str, fields: Mapping[str, Any]) -> None:
        """Like `logging`: what cannot be written is dropped."""
        line = self._form.line(time.time(), os.getpid(), level, text, fields)
        handler = self.handler
        handler.acquire()
        try:
            handler.stream.write(line + "\n")
            handler.stream.flush()
        except (OSError, ValueError):
            pass  # a full disk or closed pipe must not reach a mail session
        finally:
            handler.release()


_direct: _Direct | None = None


class _Formatter(logging.Formatter):
    """For what comes by `logging` itself, tracebacks above all."""

    def __init__(self, form: _Format) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows it, or stands in it."""
        fields: dict[str, Any] = dict(getattr(record, _FIELDS, {}))
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if trace and isinstance(self._form, _JsonLines):
            fields["traceback"], trace = trace, ""
        line = self._form.line(record.created, record.process or 0, record.levelno, record.getMessage(), fields)
        return f"{line}\n{trace}" if trace else line


class _TextLines:
    """`2026-11-24T08:00:00.123Z relaywarden/policyd[12]: info: text key=value key="quoted value"`."""

    def __init__(self, program: str) -> None:
        self._program = program

    def line(self, created: float, pid: int, level: int, text: str, fields: Mapping[str, Any]) -> str:
        """One line, whatever the values hold."""
        second = int(created)
        stamp = f"{_second(second)}.{int((created - second) * 1000):03d}Z"
        parts = [f"{stamp} relaywarden/{self._program}[{pid}]: {_LEVELS.get(level, 'info')}: {_clean(text)}"]
        parts += [f"{key}={_quoted(value)}" for key, value in fields.items() if value is not None and value != ""]
        return " ".join(parts)


class _JsonLines:
    """One JSON object a line: time, program, pid, level, text, and the fields."""

    def __init__(self, program: str) -> None:
        self._program = program

    def line(self, created: float, pid: int, level: int, text: str, fields: Mapping[str, Any]) -> str:
        """One line; what JSON cannot hold is written as text."""
        head: dict[str, Any] = {"time": created, "program": self._program, "pid": pid, "level": _LEVELS.get(level, "info")}
        return json.dumps({**head, "text": text, **fields}, default=str)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    """The beginning of a line's time; most lines come in the same second as the one before."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _clean(text: str) -> str:
    if text.isprintable() and text.isascii():
        return text
    escaped = text.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in escaped)


def _quoted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    text = _clean(text)
    return json.dumps(text, ensure_ascii=False) if not text or any(char in ' "=' for char in text) else text
