"""Notices by mail to a real SMTP server, from hostile texts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.monitor_settings import NoticeMailSettings
from relaywarden_monitor.notify.channel import NotToldError
from relaywarden_monitor.notify.mail import Mail, compose
from relaywarden_monitor.notify.notice import Kind, Notice, NoticeError, Severity
from testbed.ports import HOST, free_port
from testbed.sink import Sink

HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"} | {
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
}
NOW = 1_764_000_000.0


def settings(server: str = "127.0.0.1:25", to: tuple[str, ...] = ("ops@relay.example",)) -> NoticeMailSettings:
    return NoticeMailSettings.model_validate({"to": list(to), "sender": "relaywarden@relay.example", "server": server})


def notice(subject: str = "acme", what: str = "hard bounces: 9.3 %", value: str | float = 93) -> Notice:
    return Notice.make(
        f"tenant/{subject}/bounces", Kind.CROSSED, Severity.ACT, subject=subject, what=what, at=NOW,
        evidence={"bounced": value}, undo="relaywarden explain acme",
    )  # fmt: skip


@pytest.fixture
def mail(sink: Sink) -> Iterator[Mail]:
    sink.clear()
    sink.replies.clear()
    yield Mail("mail", settings(f"{sink.host}:{sink.port}", ("ops@relay.example", "boss@relay.example")), "relay1", lambda: NOW)
    sink.replies.clear()


def test_one_mail_tells_what_happened_the_evidence_and_how_to_undo_it(mail: Mail, sink: Sink) -> None:
    second = Notice.make("m", Kind.RECOVERED, Severity.WARN, subject="tx1", what="well", at=NOW, evidence={"share": 0.015})
    mail.tell([second, notice()])
    mail.tell([second, notice()])
    received, again = sink.wait(2)
    assert received.sender == "relaywarden@relay.example"
    assert received.recipients == ("ops@relay.example", "boss@relay.example")
    message = received.message
    assert message["Auto-Submitted"] == "auto-generated"
    # Python folds a subject of this length before its first word.
    assert message["Subject"].strip() == "[relaywarden relay1] acme crossed act (and 1 more): hard bounces: 9.3 %"
    assert message["Date"].datetime.timestamp() == NOW
    assert message["Message-ID"] == again.message["Message-ID"]
    text = message.get_content()
    for part in ("hard bounces: 9.3 %", "bounced: 93", "explain acme", notice().id, "tx1 recovered warn", "share: 0.015"):
        assert part in text


def test_hostile_texts_stay_inside(mail: Mail, sink: Sink) -> None:
    evil = "x\r\nBcc: victim@example.com\r\n\r\n.\r\nMAIL FROM:<a@b>\r\n\x1b[2J\x00\u202e\udc80 é"
    mail.tell([notice(evil, evil, evil)])
    (received,) = sink.wait()
    message = received.message
    assert set(message.keys()) == HEADERS
    assert message["Subject"].isprintable()
    assert "é" in message["Subject"]
    assert all(line.isprintable() for line in message.get_content().splitlines())
    assert received.raw.isascii()
    assert b"\x1b" not in received.raw
    assert len(sink.messages) == 1


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_makes_a_header_or_a_control_character(subject: str, what: str, value: str, host: str) -> None:
    message = compose([notice(subject, what, value)], settings(), host, NOW)
    octets = message.as_bytes()
    head = octets.partition(b"\n\n")[0]
    names = {line.partition(b":")[0].decode() for line in head.split(b"\n") if line[:1] not in b" \t"}
    assert names == HEADERS
    assert octets.isascii()
    assert all(octet >= 32 or octet == 10 for octet in octets)
    assert max(map(len, octets.split(b"\n"))) <= 998


@pytest.mark.parametrize(
    ("replies", "lasting", "unfit"),
    [
        ({"MAIL": "451 4.3.0 later\x1b[2J"}, False, False),
        ({"MAIL": "550 5.7.1 not you"}, True, False),
        ({"DATA": "451 4.7.0 later"}, False, False),
        ({"DATA": "554 5.7.1 spam"}, False, True),
        ({"ops@relay.example": "550 5.1.1 who", "boss@relay.example": "450 4.2.1 busy"}, False, False),
        ({"ops@relay.example": "550 5.1.1 who", "boss@relay.example": "550 5.1.1 who"}, True, False),
    ],
)
def test_refusals(mail: Mail, sink: Sink, replies: dict[str, str], lasting: bool, unfit: bool) -> None:
    sink.replies.update(replies)
    with pytest.raises(NotToldError) as raised:
        mail.tell([notice()])
    assert (raised.value.lasting, raised.value.unfit) == (lasting, unfit)
    assert f"{sink.host}:{sink.port} answered" in str(raised.value)
    assert str(raised.value).isprintable()


def test_one_refused_recipient_is_logged_the_other_is_told(mail: Mail, sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    sink.replies["boss@relay.example"] = "550 5.1.1 who"
    mail.tell([notice()])
    assert sink.wait()[0].recipients == ("ops@relay.example",)
    (record,) = [record for record in caplog.records if "a recipient of notices is refused" in record.message]
    assert record.__dict__["relaywarden_fields"] == {"recipient": "boss@relay.example", "reply": "550 5.1.1 who"}


def test_nobody_answers() -> None:
    channel = Mail("mail", settings(f"{HOST}:{free_port()}"), "relay1")
    with pytest.raises(NotToldError, match="Connection refused"):
        channel.tell([notice()])


@pytest.mark.parametrize("server", ["", "host:", "host:port", "host:99999", ":25"])
def test_a_server_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(NoticeError, match=r"notify\.mail\.server: expected host:port"):
        Mail("mail", settings(server), "relay1")
