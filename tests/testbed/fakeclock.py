"""A clock that a test sets, and a real redis-server that runs by it.

The server takes its time (TIME, key expiry) from gettimeofday(), which a small preloaded library answers from a file
mapped into memory; so a test moves both stores through weeks without waiting.  Needs a C compiler, which pymilter needs
anyway.  Known limit: the server's own timers run by the monotonic clock, as they should.
"""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path

from testbed.process import program

_SOURCE = Path(__file__).with_name("fakeclock.c")


class FakeClock:
    """Milliseconds since the epoch, as one number in a file."""

    def __init__(self, work: Path, now_ms: int) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "clock"
        self.path.write_bytes(bytes(8))
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self._library = work / "fakeclock.so"
        self.now_ms = now_ms

    @property
    def now_ms(self) -> int:
        return int.from_bytes(self._map[:8], "little") // 1000

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        self._map[:8] = (value * 1000).to_bytes(8, "little")

    def __call__(self) -> int:
        return self.now_ms

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to run by this clock."""
        if not self._library.exists():
            command = [program("gcc", "gcc"), "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE)]
            subprocess.run(command, check=True, capture_output=True, text=True)
        return {"LD_PRELOAD": str(self._library), "FAKECLOCK": str(self.path)}
