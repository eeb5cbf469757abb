"""siblings - which files belong together: a log and what rotation made of it, or all that match some patterns.

`mail.log` has as siblings what logrotate, savelog, newsyslog and `postfix logrotate` leave: mail.log.1, mail.log.2.gz,
mail.log-20261124, mail.log.20261124-120000.zst, mail-20261124.log, mail.1.log.xz.  Other names beside it are not its own.

The oldest come first: by the time of their last change, then by number or date in the name.

How it fails: a folder that is not there has no files; one that cannot be read is told once in the log, until it can be.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relaywarden import logs

_log = logging.getLogger(__name__)
_TURN = r"(?:[._-]\d[\d._:TZ-]{0,40})?"
_SUFFIX = r"(?:\.old)?(?:\.(?:gz|bz2|xz|zst|Z))?"
_NUMBER = re.compile(r"\d+")
_NEWEST = 10**15


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there."""

    path: Path
    status: os.stat_result

    @property
    def key(self) -> tuple[int, int]:
        """What the file system knows it by, as long as it is there."""
        return self.status.st_dev, self.status.st_ino


class Finder(Protocol):
    """Says which files there are."""

    live: Path | None  # the one that is written; None: any of them may be

    def files(self) -> list[Found]:
        """All there are now, oldest first."""
        ...


class Rotated:
    """A log and what rotation made of it."""

    def __init__(self, path: Path) -> None:
        self.live: Path | None = path
        self._folder, self._denied = path.parent, False
        stem, suffix = re.escape(path.stem), re.escape(path.suffix)
        self._name = re.compile(f"{stem}{_TURN}{suffix}{_TURN}{_SUFFIX}")

    def files(self) -> list[Found]:
        """All there are now, oldest first."""
        try:
            paths = [path for path in self._folder.iterdir() if self._name.fullmatch(path.name)]
            self._denied = False
        except OSError as error:
            if not self._denied and not isinstance(error, FileNotFoundError):
                logs.event(_log, logging.ERROR, "cannot read the folder of a log", folder=self._folder, error=error.strerror)
                self._denied = True
            paths = []
        return _sorted(paths, self.live)


class Matching:
    """All files that match one of some patterns of the shell (`*`, `?`, `[...]`, `**`)."""

    live: Path | None = None

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns

    def files(self) -> list[Found]:
        """All there are now, oldest first."""
        # Path.glob takes no absolute patterns.
        names = {name for pattern in self._patterns for name in glob.iglob(pattern, recursive=True)}  # noqa: PTH207
        return _sorted(map(Path, names), None)


def _sorted(paths: Iterable[Path], live: Path | None) -> list[Found]:
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue  # renamed or removed since the folder was read; if it is denied, the next open says so
        if stat.S_ISREG(status.st_mode):
            found.append(Found(path, status))
    return sorted(found, key=lambda one: (one.status.st_mtime_ns, _turn(one.path, live)))


def _turn(path: Path, live: Path | None) -> tuple[int, str]:
    """Where it stands among files of the same time: .2 before .1, dates as they come, the live one last."""
    if path == live:
        return _NEWEST, path.name
    numbers = _NUMBER.findall(path.name)
    if live and numbers and len(numbers[-1]) < 5:
        return -int(numbers[-1]), path.name
    return 0, path.name
