"""`relaywarden pmta-pipe` as PowerMTA runs it: a process that gets rows on standard input, and the spool it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import acctgen
from bench_accounting import counts
from relaywarden_monitor.events import Event
from relaywarden_monitor.ingest.accounting import AccountingFiles
from relaywarden_monitor.pmtapipe import Spool
from testbed.process import wait_for

ROOT = Path(__file__).resolve().parents[2]
RUN = (
    "import sys, pathlib; from relaywarden_monitor.pmtapipe import pmta_pipe; pmta_pipe.main([], obj=pathlib.Path(sys.argv[1]))"
)


class Pipe:
    """A running pmta-pipe."""

    def __init__(self, folder: Path, limit: str = "") -> None:
        self.spool = folder / "spool"
        self.spool.mkdir(exist_ok=True)
        config = folder / "relaywarden.yaml"
        config.write_text(f"monitor: {{spool: {self.spool}}}\n")
        argv = [sys.executable, "-c", RUN, str(config)]
        self.child = subprocess.Popen(
            ["prlimit", limit, *argv] if limit else argv,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/monitor"},
        )

    def write(self, data: bytes) -> None:
        assert self.child.stdin
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Exit status, and what it said."""
        _, said = self.child.communicate(timeout=20)
        return self.child.returncode, said.decode()

    def content(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.spool.glob("pmta-*.csv")))


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path)
    yield made
    made.child.kill()
    made.child.communicate()


def spooled(folder: Path) -> list[Event]:
    """The events of what is in the spool."""
    source = AccountingFiles("spool", [f"{folder}/pmta-*.csv*"])
    source.open(None)
    found: list[Event] = []
    while chunk := source.read(100):
        found += chunk.events
    source.close()
    assert source.parser.garbage == 0
    return found


def test_rows_are_in_the_spool_at_once_and_for_good(pipe: Pipe) -> None:
    rows = b"".join(acctgen.rows(2000, 3))
    pipe.write(rows[:1000])
    wait_for("no rows in the spool", lambda: pipe.content() == rows[:1000])
    pipe.write(rows[1000:])
    assert pipe.end() == (0, "") and pipe.content() == rows
    assert counts(spooled(pipe.spool)) == acctgen.truth(2000, 3)


def test_a_restart_begins_a_new_file_and_repeats_the_header(tmp_path: Path) -> None:
    rows = list(acctgen.rows(20, 4))
    header = rows[0].split(b"\n")[0] + b"\n"
    for part in (b"".join(rows[:10]), header + b"".join(rows[10:])):
        pipe = Pipe(tmp_path)
        pipe.write(part)
        assert pipe.end()[0] == 0
    assert len(list(pipe.spool.iterdir())) == 2 and counts(spooled(pipe.spool)) == acctgen.truth(20, 4)


def test_what_is_in_the_pipe_is_written_before_it_ends(pipe: Pipe) -> None:
    rows = b"".join(acctgen.rows(100, 5))  # fits into a pipe
    pipe.write(rows[:10])
    wait_for("not started", lambda: pipe.content() != b"")
    pipe.child.send_signal(signal.SIGSTOP)
    pipe.write(rows[10:])
    pipe.child.send_signal(signal.SIGTERM)
    pipe.child.send_signal(signal.SIGCONT)
    assert pipe.child.wait(20) == 0 and pipe.content() == rows


def test_a_full_disk_is_told_and_leaves_whole_rows(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: the write comes back short, then fails.
    pipe = Pipe(tmp_path, "--fsize=30000")
    rows = list(acctgen.rows(400, 6))
    try:
        pipe.write(b"".join(rows))
    except BrokenPipeError:
        pass  # it ended before we had written all
    status, said = pipe.end()
    assert status == 1 and "cannot write" in said and "PowerMTA is to start" in said
    content = pipe.content()
    assert 25_000 < len(content) <= 30_000 and b"".join(rows).startswith(content)
    assert counts(spooled(pipe.spool)) == acctgen.truth(len(spooled(pipe.spool)), 6)


def test_a_configuration_without_a_spool_is_told(tmp_path: Path) -> None:
    config = tmp_path / "relaywarden.yaml"
    config.write_text("monitor: {}\n")
    argv = [sys.executable, "-c", RUN, str(config)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/monitor"}
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, env=env)
    assert done.returncode and b"monitor.spool: expected the folder" in done.stderr


def test_files_end_between_rows_and_begin_with_the_header(tmp_path: Path) -> None:
    rows = list(acctgen.rows(300, 8))
    header = rows[0].split(b"\n")[0] + b"\n"
    data = b"".join(rows)
    spool = Spool(tmp_path, largest=5000)
    for start in range(0, len(data), 777):  # within rows, within quotes
        spool.write(data[start : start + 777])
    spool.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 5 and all(path.read_bytes().startswith(header) for path in files)
    assert counts(spooled(tmp_path)) == acctgen.truth(300, 8)


def test_old_files_are_deleted_and_a_deleted_one_is_replaced(tmp_path: Path) -> None:
    rows = list(acctgen.rows(30, 9))
    old, other = tmp_path / "pmta-2020-01-01-0000.csv.gz", tmp_path / "report.eml"
    for path in (old, other):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    spool = Spool(tmp_path)
    spool.write(b"".join(rows[:10]))
    assert not old.exists() and other.exists()
    for path in tmp_path.glob("pmta-*"):
        path.unlink()
    spool.write(b"".join(rows[10:]))
    spool.close()
    assert len(spooled(tmp_path)) == 20
