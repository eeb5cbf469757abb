"""maildir - bounce messages and complaints from a maildir: read in new, counted, moved to cur.

Layout: maildir(5): tmp, new, cur.  A message is moved to cur with `:2,S` (seen) after it was delivered.  A crash between the
two delivers it again, which counts once, because delivery is idempotent.  The same holds for the spool folder that
`relaywarden report` fills; the envelope recipient stands in the first line there (`deliver.marked`).

How it fails: StoreUnavailableError ends the round, and what is left is read in the next one.  A file that cannot be read or
moved is logged once and left; this process does not look at it again until its name is gone from new.  A symbolic link, a
folder or a fifo in new is no message.

Known limits: of a message larger than `most_bytes` only the beginning is read.  Nothing in cur is ever removed.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relaywarden.errors import StoreUnavailableError
from relaywarden.logs import event
from relaywarden_monitor.intake.deliver import Deliver, unmarked

log = logging.getLogger(__name__)
_SEEN = ":2,S"
_MOST_TROUBLES = 10_000


class Maildir:
    """One maildir; used by one thread."""

    def __init__(self, folder: Path, most_bytes: int, deliver: Deliver) -> None:
        """`folder`: holds new and cur, or will."""
        self._new, self._cur = folder / "new", folder / "cur"
        self._most_bytes, self._deliver = most_bytes, deliver
        self._stuck: set[str] = set()  # delivered or unreadable, and still in new
        self._down = False

    def poll(self, most: int = 1000) -> int:
        """Deliver up to `most` new messages; how many it were.  Raises nothing."""
        done = 0
        for name in self._waiting():
            if done >= most:
                break
            data = self._read(name)
            if data is None:
                continue
            message, recipient = unmarked(data)
            try:
                self._deliver(message, recipient)
            except StoreUnavailableError as error:
                if not self._down:
                    event(log, logging.WARNING, "reports wait, the store is down", maildir=str(self._new), reason=str(error))
                self._down = True
                break
            self._down = False
            done += 1
            self._move(name)
        return done

    def _waiting(self) -> Iterator[str]:
        """Names in new, oldest first as their names begin with the time."""
        try:
            names = sorted(entry.name for entry in os.scandir(self._new) if not entry.name.startswith("."))
        except FileNotFoundError:
            return  # nothing was delivered into it yet
        except OSError as error:
            event(log, logging.ERROR, "cannot look into a maildir", maildir=str(self._new), reason=error.strerror)
            return
        self._stuck &= set(names)
        yield from (name for name in names if name not in self._stuck)

    def _read(self, name: str) -> bytes | None:
        path = self._new / name
        try:
            # Not blocking: a fifo must not stop us.  Not following: a link may point at a file that others must not see moved.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(0, "expected a plain file")  # noqa: TRY301 - told like the other reasons
                return file.read(self._most_bytes)
        except FileNotFoundError:
            return None  # another program took it
        except OSError as error:
            self._trouble("cannot read a report, it is left where it is", name, error)
            return None

    def _move(self, name: str) -> None:
        try:
            self._cur.mkdir(mode=0o700, exist_ok=True)
            (self._new / name).rename(self._cur / (name.partition(":2,")[0] + _SEEN))
        except FileNotFoundError:
            return  # another program took it
        except OSError as error:
            self._trouble("cannot move a report that was read, it is left where it is", name, error)

    def _trouble(self, what: str, name: str, error: OSError) -> None:
        event(log, logging.ERROR, what, file=str(self._new / name), reason=error.strerror)
        if len(self._stuck) < _MOST_TROUBLES:
            self._stuck.add(name)
