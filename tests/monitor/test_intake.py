"""Reports come in by maildir, by `relaywarden report` and by LMTP; none is lost while the store is down, none is refused."""

from __future__ import annotations

import logging
import os
import smtplib
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.addresses import Address
from relaywarden.errors import RelaywardenError, StoreUnavailableError
from relaywarden_monitor.intake.deliver import marked, unmarked
from relaywarden_monitor.intake.lmtp import Limits, LmtpIntake
from relaywarden_monitor.intake.maildir import Maildir
from relaywarden_monitor.intake.report_command import EX_TEMPFAIL, report, store
from testbed.ports import HOST, free_port
from testbed.process import wait_for

MESSAGE = b"From: mailer-daemon@isp.example\nSubject: failure\n\nnothing\n"


class Desk:
    """Takes reports, as the ledger would; `down` makes it fail as that would."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, str]] = []
        self.down: Exception | None = None

    def __call__(self, data: bytes, recipient: str) -> None:
        if self.down:
            raise self.down
        self.taken.append((data, recipient))


@given(st.binary(max_size=200), st.text(max_size=600))
def test_the_envelope_recipient_survives_the_file_and_starts_no_line_of_its_own(data: bytes, recipient: str) -> None:
    line, _, rest = marked(data, recipient).partition(b"\n")
    message, read_back = unmarked(line + b"\n" + rest)
    assert message == (data.partition(b"\n")[2] if data.startswith(b"From ") else data)
    assert read_back == "".join(c for c in recipient[:512] if "!" <= c <= "~")


def test_new_messages_move_to_cur_once_they_are_delivered(tmp_path: Path) -> None:
    desk = Desk()
    maildir = Maildir(tmp_path / "box", 1000, desk)
    assert maildir.poll() == 0  # nothing is there yet
    store(tmp_path / "box", marked(MESSAGE, "fbl+x@relay.example"))
    plain = store(tmp_path / "box", b"x" * 2000)
    assert maildir.poll() == 2
    assert desk.taken == [(MESSAGE, "fbl+x@relay.example"), (b"x" * 1000, "")]
    assert not list((tmp_path / "box" / "new").iterdir())
    assert (tmp_path / "box" / "cur" / (plain.name + ":2,S")).read_bytes() == b"x" * 2000
    assert maildir.poll() == 0


def test_while_the_store_is_down_messages_stay_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    maildir = Maildir(tmp_path, 1000, desk)
    store(tmp_path, MESSAGE)
    desk.down = StoreUnavailableError("no connection")
    assert maildir.poll() == maildir.poll() == 0
    assert caplog.text.count("reports wait") == 1
    desk.down = None
    assert maildir.poll() == 1
    assert desk.taken == [(MESSAGE, "")]


def test_what_is_no_message_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    store(tmp_path, MESSAGE)
    new = tmp_path / "new"
    os.mkfifo(new / "0-fifo")
    (new / "0-link").symlink_to("/etc/passwd")
    (new / "0-folder").mkdir()
    maildir = Maildir(tmp_path, 1000, desk)
    assert maildir.poll() == 1
    assert caplog.text.count("cannot read a report") == 3
    caplog.clear()
    assert maildir.poll() == 0
    assert caplog.text == ""


def run_report(path: Path, data: bytes, *arguments: str) -> int:
    return CliRunner().invoke(report, arguments, input=data, obj=path).exit_code


def test_the_pipe_command_stores_a_message_and_asks_postfix_to_keep_it_where_it_cannot(tmp_path: Path) -> None:
    config = tmp_path / "relaywarden.yaml"
    config.write_text(f"store: sqlite:///{tmp_path}/l.db\nmonitor: {{spool: {tmp_path}/spool, max_report_size: 1_000}}\n")
    assert run_report(config, b"From mailer\n" + MESSAGE, "--to", "fbl+a\nb@relay.example") == 0
    [stored] = (tmp_path / "spool" / "reports" / "new").iterdir()
    assert stored.read_bytes() == b"X-Relaywarden-To: fbl+ab@relay.example\n" + MESSAGE
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert run_report(config, b"x" * 5000, "--to", "a@b.example") == 0
    assert not list((tmp_path / "spool" / "reports" / "tmp").iterdir())

    (tmp_path / "spool").rename(tmp_path / "gone")
    (tmp_path / "spool").write_text("a file where the folder should be")
    assert run_report(config, MESSAGE) == EX_TEMPFAIL
    config.write_text("monitor: {spool: [}")
    assert run_report(config, MESSAGE) == EX_TEMPFAIL
    config.write_text("{}")
    assert run_report(config, MESSAGE) == EX_TEMPFAIL


@contextmanager
def listening(desk: Callable[[bytes, str], None], limits: Limits | None = None) -> Iterator[tuple[LmtpIntake, int]]:
    port = free_port()
    intake = LmtpIntake([Address(None, HOST, port)], limits or Limits(timeout=20), desk)
    intake.start()
    try:
        yield intake, port
    finally:
        intake.stop()


def test_lmtp_answers_for_each_recipient(tmp_path: Path) -> None:
    def desk(data: bytes, recipient: str) -> None:
        if recipient.startswith("down"):
            raise StoreUnavailableError("no connection")
        taken.append((data, recipient))

    taken: list[tuple[bytes, str]] = []
    path = tmp_path / "lmtp"
    intake = LmtpIntake([Address(str(path)), Address(None, HOST, free_port())], Limits(timeout=20), desk)
    intake.start()
    with smtplib.LMTP(str(path)) as client:
        client.ehlo()
        assert client.has_extn("smtputf8")
        assert not client.has_extn("size")
        client.docmd("LHLO", "test")
        client.mail("")
        for name in ("a", "down", "b"):
            client.rcpt(f"{name}@relay.example")
        assert client.docmd("DATA")[0] == 354
        client.send(MESSAGE.replace(b"\n", b"\r\n") + b"..dot\r\n\n.\r\nQUIT\r\n.\r\n")
        # smtplib itself reads but one reply.
        assert [client.getreply()[0] for _ in range(3)] == [250, 451, 250]
    intake.stop()
    expected = MESSAGE.replace(b"\n", b"\r\n") + b".dot\r\n\n.\r\nQUIT\r\n"  # a bare line feed ends nothing
    assert taken == [(expected, "a@relay.example"), (expected, "b@relay.example")]
    assert intake.counts.deferred == 1
    assert not path.exists()


def test_a_fault_of_ours_keeps_the_report_with_its_sender(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    with listening(desk) as (_, port), smtplib.LMTP(HOST, port) as client:
        desk.down = KeyError("ours")
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            client.sendmail("", ["a@relay.example"], MESSAGE)
        assert refusal.value.smtp_code == 451
        desk.down = None
        client.sendmail("", ["a@relay.example"], MESSAGE)
    assert len(desk.taken) == 1
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("line", [b"y" * 300_000, b"y" * 76 + b"\r\n"], ids=["one line", "many lines"])
def test_what_is_too_large_is_accepted_and_cut(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    data = b"Subject: large\r\n\r\n" + line * (3_000_000 // len(line)) + b"\r\n"
    with listening(desk, Limits(most_bytes=1_000_000, timeout=20)) as (intake, port), smtplib.LMTP(HOST, port) as client:
        client.sendmail("", ["a@relay.example"], data)
        client.sendmail("", ["b@relay.example"], MESSAGE)
    assert [len(taken) for taken, _ in desk.taken] == [1_000_000, len(MESSAGE + b"\r\n")]
    assert data.startswith(desk.taken[0][0])
    assert intake.counts.cut == 1
    assert "max_report_size" in caplog.text


def test_connections_beyond_the_limit_are_turned_away_and_idle_ones_closed() -> None:
    with listening(Desk(), Limits(connections=2, timeout=0.5)) as (intake, port):
        held = [socket.create_connection((HOST, port), timeout=20) for _ in range(2)]
        for client in held:
            assert client.recv(100).startswith(b"220")
        with socket.create_connection((HOST, port), timeout=20) as third:
            assert third.recv(100).startswith(b"421 4.3.2")
        for client in held:
            while client.recv(100):
                pass  # until the server closes it, as it says nothing
            client.close()
        wait_for("sessions stay", lambda: not intake.sessions)
        with smtplib.LMTP(HOST, port) as other:
            assert other.noop()[0] == 250


def test_stop_waits_for_what_is_being_delivered() -> None:
    entered, leave, taken = threading.Event(), threading.Event(), []

    def desk(data: bytes, recipient: str) -> None:
        entered.set()
        assert leave.wait(20)
        taken.append(recipient)

    with listening(desk) as (intake, port), smtplib.LMTP(HOST, port) as client:
        sender = threading.Thread(target=lambda: client.sendmail("", ["a@relay.example"], MESSAGE))
        sender.start()
        assert entered.wait(20)
        stopper = threading.Thread(target=intake.stop)
        stopper.start()
        wait_for("not stopping", lambda: intake.stopping)
        leave.set()
        stopper.join(20)
        sender.join(20)
    assert taken == ["a@relay.example"]


def test_an_address_in_use_is_an_error_that_names_it() -> None:
    with listening(Desk()) as (_, port):
        other = LmtpIntake([Address(None, HOST, port)], Limits(), Desk())
        with pytest.raises(RelaywardenError, match=str(port)):
            other.start()
        other.stop()


def test_binary_rubbish_on_the_line_ends_only_its_own_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with listening(Desk()) as (_, port):
        with socket.create_connection((HOST, port), timeout=20) as client:
            client.sendall(b"LHLO \xff\xfe\r\n\x00\x01" + b"z" * 100_000 + b"\r\nMAIL FROM:<\xff>\r\nDATA\r\nQUIT\r\n")
            while client.recv(1000):
                pass  # all the answers there are
        with smtplib.LMTP(HOST, port) as other:
            assert other.noop()[0] == 250
