"""logfile - Postfix' log in files as a source: `follow` reads the lines, `postfixlog` makes events of them.

Position: that of the follower, and under `state` what the parser remembers of sessions.  Stamps without a year belong to the
year that is nearest to the file's last change, which rotation and compression keep.

How it fails: as `follow` does; it raises nothing.
"""

from __future__ import annotations

from pathlib import Path

from relaywarden_monitor.ingest.follow import LineFollower
from relaywarden_monitor.ingest.postfixlog import PostfixLog
from relaywarden_monitor.ingest.siblings import Rotated
from relaywarden_monitor.ingest.source import Chunk, Position


class PostfixFile:
    """A log file of Postfix and what rotation made of it; a Source."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        """`from_start`: the first time read rotated files too."""
        self.name = f"log:{path}"
        self.parser = PostfixLog()
        self._follower = LineFollower(Rotated(path), from_start=from_start)

    def open(self, position: Position | None) -> None:
        """Begin at this position; raises nothing."""
        self.parser = PostfixLog()
        if position:
            self.parser.restore(position.get("state", {}))
        self._follower.open(position)

    def read(self, most: int, until: Position | None = None) -> Chunk | None:
        """The events of up to `most` lines, None if there are none; `until`: of those up to that position."""
        cut = self._follower.read(most, until)
        if cut is None:
            return None
        events = self.parser.feed(cut.records, cut.changed)
        return Chunk(events, until or {**cut.position, "state": self.parser.state()}, len(cut.records))

    def lag(self) -> int:
        """Bytes that wait to be read."""
        return self._follower.lag()

    def close(self) -> None:
        """Give the open file back."""
        self._follower.close()
