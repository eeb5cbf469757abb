"""Following files: rotation in all its forms, truncation, compression, restarts; every line exactly once."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_monitor.ingest.follow import LineFollower
from relaywarden_monitor.ingest.records import LONGEST
from relaywarden_monitor.ingest.siblings import Found, Rotated
from relaywarden_monitor.ingest.source import NotNowError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
HOUR = 3600 * 10**9


class Log:
    """A log that is written, rotated and followed; what was read is kept over restarts, as the ledger does."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "mail.log"
        self.options = options
        self.position: dict[str, Any] | None = None
        self.lines: list[bytes] = []
        self.number = 0
        self.restart()

    def restart(self) -> None:
        """As after a restart of the monitor: nothing is left but the position, and that went through JSON."""
        self.follower = LineFollower(Rotated(self.path), **self.options)
        self.follower.open(json.loads(json.dumps(self.position)))

    def write(self, count: int = 1, path: Path | None = None, end: bytes = b"\n") -> list[bytes]:
        """Append that many new lines."""
        first = self.number + 1
        self.number += count
        lines = [b"Nov 24 08:00:00 relay postfix/smtp[%d]: line" % number for number in range(first, self.number + 1)]
        with (path or self.path).open("ab") as file:
            file.write(b"\n".join(lines) + end)
        return lines

    def read(self, most: int = 1000) -> list[bytes]:
        """One chunk."""
        cut = self.follower.read(most)
        if cut is None:
            return []
        self.position = cut.position
        self.lines += cut.records
        return cut.records

    def read_all(self) -> list[bytes]:
        """Until there is nothing new."""
        before = len(self.lines)
        while self.read():
            pass
        return self.lines[before:]

    def shift(self, pack: str = "") -> None:
        """mail.log.1 becomes mail.log.2 (compressed), the live file mail.log.1, as logrotate does it."""
        names = {path.name: path for path in self.path.parent.iterdir()}
        numbers = sorted((int(name.split(".")[2]), name) for name in names if name != "mail.log")
        for number, name in reversed(numbers):
            suffix = name.removeprefix(f"mail.log.{number}")
            moved = names[name].rename(self.path.parent / f"mail.log.{number + 1}{suffix}")
            if pack and not suffix:
                self.pack(moved, pack)
        if self.path.exists():
            self.path.rename(self.path.parent / "mail.log.1")

    @staticmethod
    def pack(path: Path, suffix: str) -> None:
        """As gzip, bzip2, xz and zstd do it: the time of the last change stays."""
        status = path.stat()
        packed = path.with_name(path.name + suffix)
        packed.write_bytes(PACKERS[suffix](path.read_bytes()))
        os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
        path.unlink()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def numbers(lines: list[bytes]) -> list[int]:
    return [int(line.split(b"[")[1].split(b"]")[0]) for line in lines]


def test_what_grows_is_read_once(log: Log) -> None:
    assert log.read() == []  # not there yet
    assert log.read_all() == [] and log.write(3) == log.read_all()
    log.restart()
    assert log.read_all() == [] and log.write(2) == log.read_all()


def test_a_line_waits_for_its_end(log: Log) -> None:
    log.write(1)
    log.write(1, end=b"")
    assert numbers(log.read_all()) == [1]
    log.restart()
    with log.path.open("ab") as file:
        file.write(b" and its end\n")
    assert log.read_all() == [b"Nov 24 08:00:00 relay postfix/smtp[2]: line and its end"]


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1, 3 * 2**20])
def test_a_long_line_is_cut_but_consumed_whole(log: Log, length: int) -> None:
    log.write(1)
    with log.path.open("ab") as file:
        file.write(b"x" * length)
    assert numbers(log.read_all()) == [1]
    with log.path.open("ab") as file:
        file.write(b"\n")
    log.write(1)
    lines = log.read_all()
    assert len(lines[0]) == min(length, LONGEST) and numbers(lines[1:]) == [2]


@pytest.mark.parametrize("suffix", ["", *PACKERS])
def test_two_generations_between_two_looks_are_not_lost(log: Log, suffix: str) -> None:
    log.write(5)
    assert len(log.read(3)) == 3
    log.write(2)
    log.shift()
    log.write(40)
    log.shift(suffix)
    log.write(1)
    log.restart()
    assert numbers(log.read_all()) == list(range(4, 49))
    log.shift(suffix)
    assert log.read_all() == []


@pytest.mark.parametrize(
    "name", ["mail.log-20261124", "mail.log.20261124-120000", "mail-20261124.log", "mail.1.log", "mail.log.old"]
)
def test_other_ways_to_name_what_was_rotated(log: Log, name: str) -> None:
    log.write(2)
    assert len(log.read(1)) == 1
    log.write(1)
    log.path.rename(log.path.parent / name)
    log.write(1)
    log.restart()
    assert numbers(log.read_all()) == [2, 3, 4]


def test_other_files_beside_a_log_are_not_its_own(log: Log) -> None:
    log.write(1)
    for name in ("mail.log.offset", "mail.log~", "mail.log.1.swp", "mail.logs", "mail.info", "xmail.log", "mail.err.1"):
        log.write(1, log.path.parent / name)
    (log.path.parent / "mail.log.3").mkdir()
    os.mkfifo(log.path.parent / "mail.log.4")
    assert numbers(log.read_all()) == [1]


def test_copied_and_truncated(log: Log) -> None:
    log.write(3)
    log.read_all()
    log.write(2)
    copy = log.path.parent / "mail.log.1"
    shutil.copyfile(log.path, copy)
    os.truncate(log.path, 0)
    log.write(100)  # longer than it was
    assert numbers(log.read_all()) == list(range(4, 106))
    log.restart()
    assert log.read_all() == []


def test_lines_that_come_after_the_renaming_count_too(log: Log) -> None:
    log.write(3)
    log.read_all()
    log.shift()
    log.write(2, log.path.parent / "mail.log.1")
    log.write(1)
    log.write(1, log.path.parent / "mail.log.1")
    assert sorted(numbers(log.read_all())) == [4, 5, 6, 7]
    log.write(1, log.path.parent / "mail.log.1")
    assert numbers(log.read_all()) == [8]


def test_what_is_deleted_while_it_is_open_is_read_to_its_end(log: Log) -> None:
    log.write(3)
    log.read_all()
    log.write(2)
    log.path.unlink()
    assert numbers(log.read_all()) == [4, 5] and log.read_all() == []


def test_vanished_and_back(log: Log) -> None:
    log.write(3)
    log.read_all()
    away = log.path.rename(log.path.parent / "elsewhere")
    assert log.read_all() == []
    shutil.copyfile(away, log.path)
    assert log.write(1) == log.read_all()


def test_the_same_lines_again_are_not_new(log: Log) -> None:
    log.write(50)
    log.read_all()
    content = log.path.read_bytes()
    log.path.write_bytes(b"")
    assert log.read_all() == []
    log.path.write_bytes(content)
    assert log.read_all() == []


def test_replaced_by_another_file(log: Log) -> None:
    log.write(50)
    log.read_all()
    log.path.unlink()
    assert log.write(80) == log.read_all()
    log.path.write_bytes(b"")
    assert log.write(2) == log.read_all()


def test_a_file_that_lost_its_end_goes_on_there(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.write(50)
    log.read_all()
    os.truncate(log.path, log.path.stat().st_size // 2)
    log.read_all()
    log.restart()
    log.read_all()
    log.read_all()
    assert "shorter than what was read" in caplog.text
    with log.path.open("ab") as file:
        file.write(b"\n")  # ends the line that was cut in two
    assert len(log.read_all()) == 1
    assert log.write(1) == log.read_all()


def test_a_copy_that_is_being_made_is_no_truncation(log: Log) -> None:
    log.write(50)
    log.read_all()
    half = log.path.read_bytes()[:1500]
    (log.path.parent / "mail.log.1").write_bytes(half)
    for _ in range(3):
        assert log.read_all() == []
    assert log.write(1) == log.read_all()


def test_the_first_time_only_the_live_file_is_read(log: Log) -> None:
    log.write(2)
    log.shift()
    os.utime(log.path.parent / "mail.log.1", ns=(0, log.path.parent.stat().st_mtime_ns - HOUR))
    log.write(1)
    log.restart()
    assert numbers(log.read_all()) == [3]
    log.shift()
    log.write(1)
    assert numbers(log.read_all()) == [4]


def test_or_from_the_start(tmp_path: Path) -> None:
    log = Log(tmp_path, from_start=True)
    log.write(2)
    log.shift()
    log.write(1)
    assert numbers(log.read_all()) == [1, 2, 3]


def test_compressed_files_may_have_several_members_padding_and_no_last_line_end(log: Log) -> None:
    log.write(2)
    log.write(2, end=b"")
    assert numbers(log.read_all()) == [1, 2, 3]
    content = log.path.read_bytes()
    log.path.unlink()
    packed = gzip.compress(content[:100]) + gzip.compress(content[100:]) + bytes(512)
    (log.path.parent / "mail.log.1.gz").write_bytes(packed)
    assert numbers(log.read_all()) == [4]
    log.restart()
    assert log.read_all() == []


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_can_be_read_of_a_damaged_file_is_read(log: Log, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    content = b"".join(b"%d Nov 24 08:00:00 relay postfix/smtp[%d]: line\n" % (n * n, n) for n in range(40_000))
    packed = bytearray(PACKERS[suffix](content))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    log.path.write_bytes(packed)
    log.read_all()
    log.read_all()
    assert caplog.text.count("damaged") == 1
    # What a decompressor makes of the bytes behind the damage is noise; bzip2 and zstd give out nothing of a damaged block.
    assert log.lines[:5000] == content.split(b"\n")[: min(5000, len(log.lines))]
    assert suffix in (".bz2", ".zst") or len(log.lines) > 5000
    log.path.write_bytes(b"")
    assert log.write(1) == log.read_all()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_file_that_is_still_being_written(log: Log, suffix: str) -> None:
    log.write(20_000)
    packed = PACKERS[suffix](log.path.read_bytes())
    log.path.write_bytes(packed[: len(packed) // 2])
    log.read_all()
    log.path.write_bytes(packed)
    log.read_all()
    assert numbers(log.lines) == list(range(1, 20_001))


def test_a_bomb_does_not_fill_the_memory(log: Log) -> None:
    log.path.write_bytes(zstandard.ZstdCompressor().compress(bytes(200 * 2**20) + b"\nlast\n"))
    assert [len(line) for line in log.read_all()] == [LONGEST, 4]


def test_the_last_line_of_an_old_rotated_file_needs_no_end(log: Log) -> None:
    log.write(2, end=b"")
    assert numbers(log.read_all()) == [1]
    log.shift()
    log.write(1)
    assert numbers(log.read_all()) == [3]
    old = log.path.parent / "mail.log.1"
    os.utime(old, ns=(0, old.stat().st_mtime_ns - HOUR))
    assert numbers(log.read_all()) == [2]
    log.restart()
    assert log.read_all() == []


def test_a_cut_is_read_again_as_it_was(log: Log) -> None:
    log.write(10)
    log.read(3)
    first = log.follower.read(4)
    assert first
    log.write(5)
    log.shift(".gz")
    log.write(5)
    log.restart()
    again = log.follower.read(1, first.position)
    assert again and (again.records, again.position) == (first.records, first.position)
    log.position = again.position
    assert numbers(log.read_all()) == list(range(8, 21))


def test_a_cut_that_is_nowhere_any_more(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.write(10)
    first = log.follower.read(4)
    assert first
    log.path.unlink()
    log.write(5)
    log.restart()
    again = log.follower.read(1, first.position)
    assert again and again.records == [] and again.position == first.position and "before a crash" in caplog.text
    assert numbers(log.read_all()) == list(range(11, 16))


def test_a_broken_position_is_told_and_begins_anew(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.position = {"files": [["x"]]}
    log.write(1)
    log.restart()
    assert len(log.read_all()) == 1 and "not a position" in caplog.text


def test_there_is_a_bound_on_what_is_remembered(tmp_path: Path) -> None:
    log = Log(tmp_path, keep=4)
    for number in range(12):
        log.write(3)
        os.utime(log.path, ns=(0, (number + 1) * HOUR))
        log.path.rename(tmp_path / f"mail.log-202611{number + 10}")
    log.options["from_start"] = True
    log.restart()
    assert numbers(log.read_all()) == list(range(1, 37))
    assert log.position and len(log.position["files"]) == 4
    log.restart()
    assert log.read_all() == []
    assert log.follower.lag() == 0


def test_lag_is_what_waits(log: Log) -> None:
    log.write(10)
    size = log.path.stat().st_size
    assert log.follower.lag() == size
    log.read(5)
    assert size / 3 < log.follower.lag() < size * 2 / 3
    log.read_all()
    assert log.follower.lag() == 0
    log.write(1)
    assert 0 < log.follower.lag() < size / 5


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.just("read"), st.integers(1, 50)),
        st.tuples(st.just("rotate"), st.sampled_from(["", *PACKERS])),
        st.sampled_from([("unfinished", 0), ("copytruncate", 0), ("restart", 0), ("crash", 5), ("crash", 500)]),
    ),
    max_size=30,
)


@given(STEPS)
def test_whatever_happens_every_line_is_read_exactly_once(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder))
        for what, value in steps:
            if what == "write":
                log.write(value)
            elif what == "unfinished":
                log.write(1, end=b"")
                log.read_all()
                with log.path.open("ab") as file:
                    file.write(b"\n")
            elif what == "read":
                log.read(value)
            elif what == "restart":
                log.restart()
            elif what == "crash":
                crash(log, value)
            elif log.path.exists() and log.path.stat().st_size:
                rotate(log, what, value)
        log.restart()
        log.read_all()
        assert sorted(numbers(log.lines)) == list(range(1, log.number + 1))


def crash(log: Log, most: int) -> None:
    """A chunk is read, the ledger knows how far it was to go but not more; meanwhile the log goes on."""
    cut = log.follower.read(most)
    log.write(3)
    log.restart()
    if cut:
        again = log.follower.read(1, cut.position)
        assert again and (again.records, again.position) == (cut.records, cut.position)
        log.position = again.position
        log.lines += again.records


def rotate(log: Log, how: str, suffix: str) -> None:
    if not log.number or not log.lines:
        log.read(1)  # the first time siblings are not read, so something must have been
    if how == "rotate":
        log.shift(suffix)
        return
    log.shift()
    shutil.copyfile(log.path.parent / "mail.log.1", log.path)
    log.read(2)
    os.truncate(log.path, 0)


class Renamed:
    """A finder that looks in the very moment of a rename: what it names is not there any more."""

    def __init__(self, path: Path) -> None:
        self.live: Path | None = path
        self._rotated, self._path, self.now = Rotated(path), path, False

    def files(self) -> list[Found]:
        found = self._rotated.files()
        return [replace(one, path=self._path.with_suffix(".gone")) for one in found] if self.now else found


def test_a_file_that_is_renamed_while_it_is_looked_for_is_not_given_up(tmp_path: Path) -> None:
    """What is to be read again after a crash may be under another name in that moment."""
    log = tmp_path / "mail.log"
    log.write_bytes(b"".join(b"line %d of a log that is long enough to be told from others\n" % n for n in range(40)))
    first = LineFollower(Rotated(log))
    first.open(None)
    cut = first.read(100)
    assert cut is not None
    finder = Renamed(log)
    again = LineFollower(finder)
    again.open(None)
    finder.now = True
    with pytest.raises(NotNowError, match="cannot be read now"):
        again.read(100, cut.position)
    finder.now = False
    found = again.read(100, cut.position)
    assert found is not None
    assert found.records == cut.records
