"""Postfix' log in files as a source: the same events however often it is interrupted, rotated and compressed."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

from relaywarden_monitor.events import Event, Refused
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.ingest.postfixlog import PostfixLog

STAMP = time.strftime("%b %d %H:%M:%S", time.localtime())


def conversation(number: int) -> list[bytes]:
    """A session that sends one message, is refused the next, and what became of the first."""
    pid, queue_id = 1000 + number, f"4Xb1cD2dfGz{number:04d}"
    client = f"client{number}.example[192.0.2.{number % 250 + 1}]"
    return [
        f"{STAMP} relay {line}\n".encode()
        for line in (
            f"postfix/smtpd[{pid}]: connect from {client}",
            f"postfix/smtpd[{pid}]: {queue_id}: client={client}, sasl_method=PLAIN, sasl_username=acme",
            f"postfix/cleanup[{pid}]: {queue_id}: message-id=<{number}@acme.example>",
            f"postfix/qmgr[1]: {queue_id}: from=<news@acme.example>, size=4000, nrcpt=1 (queue active)",
            f"postfix/smtp[7]: {queue_id}: to=<u{number}@dest.example>, relay=mx.dest.example[192.0.2.9]:25, delay=1,"
            " delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok)",
            f"postfix/smtpd[{pid}]: NOQUEUE: reject: RCPT from {client}: 550 5.7.1 <x@dest.example>: Recipient address"
            " rejected: limit; from=<news@acme.example> to=<x@dest.example> proto=ESMTP helo=<c>",
            f"postfix/qmgr[1]: {queue_id}: removed",
            "cron[9]: noise",
        )
    ]


def test_interruptions_change_nothing(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    lines = [line for number in range(40) for line in conversation(number)]
    expected = PostfixLog().feed([line.rstrip(b"\n") for line in lines], time.time())
    events: list[Event] = []
    position = None
    for turn in range(10):
        with log.open("ab") as file:
            file.writelines(lines[turn * 32 : (turn + 1) * 32])
        source = PostfixFile(log)
        source.open(position)
        while chunk := source.read(5 + turn):
            events += chunk.events
            position = json.loads(json.dumps(chunk.position))
            if turn == 4 and log.exists() and chunk.records == 5 + turn:
                old = tmp_path / "mail.log.1.gz"
                old.write_bytes(gzip.compress(log.read_bytes()))
                log.unlink()
        assert source.lag() == 0
        source.close()
    assert events == expected
    assert sum(isinstance(event, Refused) and event.login == "acme" for event in events) == 40  # the state came along


def test_the_year_is_that_of_the_file(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(b"Nov 24 08:00:00 relay postfix/qmgr[1]: 4Xb1cD2dfGz0001: removed\n")
    year = time.gmtime().tm_year - 3
    changed = time.mktime((year, 11, 24, 9, 0, 0, 0, 0, -1))
    os.utime(log, (changed, changed))
    source = PostfixFile(log, from_start=True)
    source.open(None)
    chunk = source.read(10)
    assert chunk and time.localtime(chunk.events[0].at).tm_year == year
    source.close()


def test_a_chunk_gives_the_same_events_again(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(b"".join(line for number in range(10) for line in conversation(number)))
    source = PostfixFile(log)
    source.open(None)
    first, second = source.read(21), source.read(30)
    assert first and second
    source.open(first.position)
    again = source.read(1, second.position)
    assert again and (again.events, again.position, again.records) == (second.events, second.position, 30)
    source.close()
