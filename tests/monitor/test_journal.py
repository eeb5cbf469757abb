"""The journal as a source: real journal files, made by systemd-journal-remote and read by the real journalctl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaywarden_monitor.events import Attempt, Event, Outcome
from relaywarden_monitor.ingest.journal import JournalSource
from testbed.process import program, wait_for

START = 1_795_507_200  # 2026-11-24 08:00 UTC
LINE = "4Xb1cD2dfGz1QRs%03d: to=<user@dest.example>, relay=mx.dest.example[192.0.2.5]:25, dsn=2.0.0, status=sent (250 Ok)"


class Journal:
    """A folder of journal files that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.files = 0
        self._writer = program("/lib/systemd/systemd-journal-remote", "systemd-journal-remote")

    def write(self, count: int = 1, message: bytes | None = None, **fields: str) -> None:
        """One more journal file with so many entries."""
        export = b""
        for _ in range(count):
            self.number += 1
            text = message if message is not None else (LINE % self.number).encode()
            export += b"__REALTIME_TIMESTAMP=%d\n" % ((START + self.number) * 1_000_000)
            export += b"__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=6a1b7c2d6a1b7c2d6a1b7c2d6a1b7c2d\n" % (self.number * 1_000_000)
            given = {"SYSLOG_FACILITY": "2", "SYSLOG_IDENTIFIER": "postfix/tx1/smtp", "SYSLOG_PID": "123", **fields}
            export += "".join(f"{name}={value}\n" for name, value in given.items()).encode()
            export += b"MESSAGE\n" + len(text).to_bytes(8, "little") + text + b"\n\n"
        self.files += 1
        target = self.folder / f"relay{self.files:03d}.journal"
        subprocess.run([self._writer, "-o", target, "-"], input=export, check=True, capture_output=True)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def source(journal: Journal) -> Iterator[JournalSource]:
    made = JournalSource(["SYSLOG_FACILITY=2"], journal.folder)
    yield made
    made.close()


def read(source: JournalSource, count: int, most: int = 100) -> tuple[list[Event], dict[str, Any] | None]:
    """So many events, and the position after them; it may take journalctl a moment."""
    events: list[Event] = []
    position = None

    def enough() -> bool:
        nonlocal position
        if chunk := source.read(min(most, count - len(events))):
            events.extend(chunk.events)
            position = json.loads(json.dumps(chunk.position))
        return len(events) >= count

    wait_for(f"not {count} events", enough)
    return events, position


def ids(events: list[Event]) -> list[int]:
    return [int(event.queue_id[-3:]) for event in events if isinstance(event, Attempt)]


def test_entries_are_read_as_they_come(journal: Journal, source: JournalSource) -> None:
    journal.write(3)
    source.open(None)
    events, _ = read(source, 3)
    assert ids(events) == [1, 2, 3]
    first = events[0]
    assert isinstance(first, Attempt) and first.outcome is Outcome.DELIVERED and first.member == "tx1" and first.at == START + 1
    assert source.read(10) is None and source.lag() == 0
    journal.write(2)
    assert ids(read(source, 2)[0]) == [4, 5]


def test_it_goes_on_at_the_cursor(journal: Journal, source: JournalSource) -> None:
    journal.write(6)
    source.open(None)
    events, position = read(source, 4, most=2)
    source.open(position)
    rest, _ = read(source, 2)
    assert ids(events + rest) == [1, 2, 3, 4, 5, 6] and source.read(10) is None


def test_a_chunk_is_read_again_as_it_was(journal: Journal, source: JournalSource) -> None:
    journal.write(6)
    source.open(None)
    _, before = read(source, 1)
    events, after = read(source, 3)
    source.open(before)
    again = source.read(1, after)
    assert again and list(again.events) == events and again.position == after and again.records == 3
    assert ids(read(source, 2)[0]) == [5, 6]


def test_a_chunk_whose_end_is_gone_is_not_counted_beyond(
    journal: Journal, source: JournalSource, caplog: pytest.LogCaptureFixture
) -> None:
    journal.write(2)
    source.open(None)
    _, before = read(source, 2)
    journal.write(3)
    _, after = read(source, 3)
    (journal.folder / "relay002.journal").unlink()
    journal.number += 600
    journal.write(1)
    source.open(before)
    again = source.read(1, after)
    assert again and not again.events and again.position == after and "before a crash" in caplog.text
    assert ids(read(source, 1)[0]) == [606]


def test_a_vacuumed_entry_is_told(journal: Journal, source: JournalSource, caplog: pytest.LogCaptureFixture) -> None:
    journal.write(3)
    source.open(None)
    _, position = read(source, 2)
    journal.write(2)
    (journal.folder / "relay001.journal").unlink()
    source.open(position)
    assert ids(read(source, 2)[0]) == [4, 5] and "not in the journal any more" in caplog.text


def test_a_cursor_that_is_none_goes_on_after_the_time(
    journal: Journal, source: JournalSource, caplog: pytest.LogCaptureFixture
) -> None:
    journal.write(3)
    source.open({"cursor": "garbage", "logged": (START + 2) * 1_000_000})
    assert ids(read(source, 1)[0]) == [3] and "not a cursor of this journal" in caplog.text
    journal.write(1)
    assert ids(read(source, 1)[0]) == [4]


def test_strange_entries_do_no_harm(journal: Journal, source: JournalSource) -> None:
    journal.write(1, b"\xff\x00 4Xb1cD2dfGz1QRs001: \x1b[31m")
    journal.write(1, b"x" * 3_000_000)
    journal.write(1, SYSLOG_IDENTIFIER="cron", SYSLOG_PID="-1")
    journal.write(1, SYSLOG_FACILITY="3")
    journal.write(1, SYSLOG_PID="99999999999999999999")
    source.open(None)
    assert ids(read(source, 1)[0]) == [5]


def test_a_journal_that_cannot_be_read_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = JournalSource([], tmp_path / "nowhere")
    source.open(None)
    wait_for("no complaint", lambda: source.read(1) is None and "cannot read the journal" in caplog.text)
    assert source.read(1) is None and caplog.text.count("cannot read the journal") == 1
    source.close()
