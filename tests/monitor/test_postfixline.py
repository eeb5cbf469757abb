"""One line of Postfix' log, in every form that syslog daemons write."""

from __future__ import annotations

import calendar
import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_monitor.ingest.postfixline import LONGEST_LINE, Line, LineParser, from_parts, shown

UTC = datetime.timezone.utc
AT = datetime.datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC).timestamp()
TEXT = "postfix/tx1/smtp[123]: 4jYldL5MV3zKCwR: to=<a@b.example>"
REST = "postfix/tx1/smtp 123 {} 4jYldL5MV3zKCwR: to=<a@b.example>"
HEXTEXT = "postfix/tx1/smtp[123]: 5F1A2B3C4D: to=<a@b.example>"
FORMS = {
    "traditional": f"Nov 24 08:00:00 relay {TEXT}",
    "rsyslog": f"2026-11-24T08:00:00.000000+00:00 relay {TEXT}",
    "rsyslog, another zone": f"2026-11-24T09:30:00+01:30 relay {TEXT}",
    "zone without colon": f"2026-11-24T06:00:00-0200 relay {TEXT}",
    "priority": f"<22>Nov 24 08:00:00 relay {TEXT}",
    "priority and full time": f"<22>2026-11-24T08:00:00Z relay {TEXT}",
    "RFC 5424": "<22>1 2026-11-24T08:00:00Z relay " + REST.format("- -"),
    "RFC 5424 with data": "<22>1 2026-11-24T08:00:00.0Z relay " + REST.format(r'ID7 [a@1 b="x\] \"c"][d]'),
    "RFC 5424 with a byte order mark": "<22>1 2026-11-24T08:00:00Z relay " + REST.format("- -").replace(" 4j", " \ufeff4j"),
    "busybox": f"Nov 24 08:00:00 relay mail.info {TEXT}",
    "with its end": f"Nov 24 08:00:00 relay {TEXT}\r\n",
}


def parse(text: str | bytes, reference: float = AT, tz: datetime.tzinfo = UTC) -> Line | None:
    return LineParser(tz).parse(text if isinstance(text, bytes) else text.encode(), reference)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form: str) -> None:
    assert parse(FORMS[form]) == Line(AT, "relay", "postfix", "smtp", "tx1", 123, "4jYldL5MV3zKCwR", b"to=<a@b.example>")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("postfix/smtp", ("postfix", "", "smtp")),
        ("postfix-out/smtp", ("postfix-out", "", "smtp")),
        ("postfix-out/tx2/smtp", ("postfix-out", "tx2", "smtp")),
        ("mail/lmtp", ("mail", "", "lmtp")),
        ("postfix/submission/smtpd", ("postfix", "", "smtpd")),
        ("postfix/qmgr", ("postfix", "", "qmgr")),
    ],
)
def test_the_name_says_instance_member_and_daemon(tag: str, expected: tuple[str, str, str]) -> None:
    line = parse(f"Nov 24 08:00:00 src@relay.example {tag}[7]: 5F1A2B: removed")
    assert line is not None
    assert (line.instance, line.member, line.service) == expected
    assert (line.host, line.pid, line.queue_id, line.text) == ("src@relay.example", 7, "5F1A2B", b"removed")
    assert from_parts(AT, tag, 7, "5F1A2B: removed", "src@relay.example") == line


@pytest.mark.parametrize("queue_id", ["5F1A2B", "5F1A2B3C4D", "4jYldL5MV3zKCwR", "4jYldL5P1qzB", "NOQUEUE"])
def test_a_queue_id(queue_id: str) -> None:
    line = parse(f"Nov 24 08:00:00 relay postfix/smtpd[1]: {queue_id}: text")
    assert line is not None
    assert line.queue_id == queue_id


@pytest.mark.parametrize(
    "text",
    ["warning: x", "statistics: max", "fatal: no", "5F1A2: short", "4jYldL5aV3zKCwR: a vowel", "4jYldL5MV3zKCwR to=<a>", ""],
)
def test_no_queue_id(text: str) -> None:
    assert parse(f"Nov 24 08:00:00 relay postfix/smtpd[1]: {text}") is None


@pytest.mark.parametrize(
    "text",
    [
        "Nov 24 08:00:00 relay dovecot: imap-login: Login: user=<a>",
        "Nov 24 08:00:00 relay systemd[1]: 5F1A2B: removed",
        "Nov 24 08:00:00 relay postfix/anvil[1]: statistics: max connection rate 1/60s",
        "Nov 24 08:00:00 relay other/program[1]: postfix/smtp[1]: 5F1A2B: removed",
        "",
    ],
)
def test_other_programs_are_not_strange(text: str) -> None:
    parser = LineParser(UTC)
    assert parser.parse(text.encode(), AT) is None
    assert parser.strange == 0


@pytest.mark.parametrize(
    "text",
    ["08:00 relay postfix/smtp[1]: 5F1A2B: removed", "Sep 31 08:00:00 relay postfix/qmgr[1]: 5F1A2B: removed", f"x {TEXT}"],
)
def test_a_template_that_nobody_knows_is_counted_and_logged_once(text: str, caplog: pytest.LogCaptureFixture) -> None:
    parser = LineParser(UTC)
    for _ in range(3):
        assert parser.parse(text.encode(), AT) is None
    assert parser.strange == 3
    assert [record.getMessage() for record in caplog.records] == ["log line of unknown form"]


@given(
    st.integers(calendar.timegm((2021, 1, 1, 0, 0, 0)), calendar.timegm((2037, 1, 1, 0, 0, 0))),
    st.integers(-86_400, 360 * 86_400),
    st.booleans(),
)
def test_the_year_is_the_one_that_was_meant(at: int, later: int, padded: bool) -> None:
    moment = datetime.datetime.fromtimestamp(at, UTC)
    stamp = f"{moment:%b} {moment.day:02} {moment:%H:%M:%S}" if padded else f"{moment:%b} {moment.day:2} {moment:%H:%M:%S}"
    line = parse(f"{stamp} relay {HEXTEXT}", at + later)
    assert line is not None
    assert line.at == at


def test_the_29th_of_february_belongs_to_a_leap_year() -> None:
    line = parse(f"Feb 29 12:00:00 relay {TEXT}", AT)
    assert line is not None
    assert line.at == calendar.timegm((2024, 2, 29, 12, 0, 0))


def test_traditional_times_are_local() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    winter, summer = parse(f"Nov 24 09:00:00 relay {TEXT}", AT, berlin), parse(f"Jul 24 10:00:00 relay {TEXT}", AT, berlin)
    assert winter is not None
    assert summer is not None
    assert (winter.at, summer.at) == (AT, calendar.timegm((2026, 7, 24, 8, 0, 0)))


def test_the_system_is_local_by_default() -> None:
    line = LineParser().parse(f"Nov 24 08:00:00 relay {TEXT}".encode(), AT)
    assert line is not None
    assert line.at == datetime.datetime(2026, 11, 24, 8, 0, 0).timestamp()  # the same zone, whichever it is


def test_a_new_reference_makes_a_new_year() -> None:
    parser = LineParser(UTC)
    raw = f"Dec 31 23:59:59 relay {TEXT}".encode()
    years = [calendar.timegm((year, 12, 31, 23, 59, 59)) for year in (2025, 2026)]
    lines = [parser.parse(raw, reference) for reference in (AT, years[1] + 60)]
    assert [line.at for line in lines if line is not None] == years


def test_what_is_neither_text_nor_printable_is_shown_escaped() -> None:
    assert shown(b"plain") == "plain"
    assert shown("grüße".encode()) == "grüße"
    assert shown(b"\xff\x1b[2J\n\xe2\x80\xae") == r"\xff\x1b[2J\n\u202e"


def test_a_line_is_cut() -> None:
    line = parse(b"Nov 24 08:00:00 relay postfix/smtp[1]: 5F1A2B: " + b"x" * 3 * LONGEST_LINE)
    assert line is not None
    assert len(line.text) < LONGEST_LINE


@given(st.one_of(st.binary(max_size=200), st.sampled_from(list(FORMS.values())).map(str.encode)), st.data())
def test_nothing_raises(raw: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(raw)))
    damaged = raw[:cut] + data.draw(st.binary(max_size=3)) + raw[cut + data.draw(st.integers(0, 3)) :]
    line = LineParser(UTC).parse(damaged, AT)
    assert line is None or (line.host.isprintable() and line.queue_id.isalnum())
