"""Postfix' log as events, line by line and as a whole; test_postfixreal has what a real Postfix writes."""

from __future__ import annotations

import datetime
import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loggen import START, Truth, lines, truth
from relaywarden_monitor.events import Accepted, Attempt, Described, Event, Gone, Notified, Outcome, Refused
from relaywarden_monitor.ingest.postfixline import from_parts
from relaywarden_monitor.ingest.postfixlog import MOST_SESSIONS, PostfixLog

UTC = datetime.timezone.utc
AT = START
QID = "4jYldL5MV3zKCwR"
MX = "relay=mx.example[192.0.2.7]:25, delay=1, delays=0/0/1/0"


def one(daemon: str, text: str | bytes, reader: PostfixLog | None = None) -> Event | None:
    """The event of one line."""
    raw = text if isinstance(text, bytes) else text.encode()
    events = (reader or PostfixLog(UTC)).feed([f"Nov 24 08:00:00 relay postfix/{daemon}[7]: ".encode() + raw + b"\n"], AT)
    assert len(events) <= 1
    return events[0] if events else None


def attempt(text: str, daemon: str = "tx1/smtp") -> Attempt:
    event = one(daemon, f"{QID}: {text}")
    assert isinstance(event, Attempt)
    return event


DESCRIPTIONS: dict[str, tuple[str, str, Event]] = {
    "client": ("smtpd", "client=c.example[192.0.2.9]", Accepted(AT, QID, "", "c.example[192.0.2.9]")),
    "client, port and IPv6": ("smtpd", "client=unknown[2001:db8::9]:4711", Accepted(AT, QID, "", "unknown[2001:db8::9]")),
    "login": (
        "submission/smtpd",
        "client=c[192.0.2.9], sasl_method=PLAIN, sasl_username=acme@acme.example",
        Accepted(AT, QID, "acme@acme.example", "c[192.0.2.9]"),
    ),
    "login with a sender that claims another": (
        "smtpd",
        "client=c[192.0.2.9], orig_queue_id=5F1A2B, orig_client=d[192.0.2.8], sasl_method=LOGIN, sasl_username=a b,"
        " sasl_sender=x, sasl_username=other",
        Accepted(AT, QID, "a b", "c[192.0.2.9]"),
    ),
    "message id": ("cleanup", "message-id=<1@a.example>", Described(AT, QID, "1@a.example")),
    "message id without brackets": ("cleanup", "message-id=1@a.example", Described(AT, QID, "1@a.example")),
    "resent": ("cleanup", "resent-message-id=<2@a.example>", Described(AT, QID, "2@a.example")),
    "active": ("qmgr", "from=<a@b>, size=257, nrcpt=5 (queue active)", Described(AT, QID, "", "a@b", 257, 5)),
    "empty sender": ("nqmgr", "from=<>, size=1, nrcpt=1 (queue active)", Described(AT, QID, "", "", 1, 1)),
    "a sender like a log line": (
        "qmgr",
        'from=<"x>, size=9, nrcpt=9 (queue active)"@b>, size=1, nrcpt=2 (queue active)',
        Described(AT, QID, "", '"x>, size=9, nrcpt=9 (queue active)"@b', 1, 2),
    ),
    "expired": (
        "qmgr",
        "from=<a@b>, status=expired, returned to sender",
        Attempt(AT, QID, "", Outcome.BOUNCED, given_up=True),
    ),
    "removed": ("qmgr", "removed", Gone(AT, QID)),
    "removed by hand": ("postsuper", "removed", Gone(AT, QID)),
    "bounce": ("bounce", "sender non-delivery notification: 5F1A2B", Notified(AT, QID, "5F1A2B", "non-delivery")),
    "delay": ("bounce", "sender delay notification: 5F1A2B", Notified(AT, QID, "5F1A2B", "delay")),
    "success": ("bounce", "sender delivery status notification: 5F1A2B", Notified(AT, QID, "5F1A2B", "delivery")),
    "postmaster": ("bounce", "postmaster non-delivery notification: 5F1A2B", Notified(AT, QID, "5F1A2B", "postmaster")),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_message(case: str) -> None:
    daemon, text, expected = DESCRIPTIONS[case]
    assert one(daemon, f"{QID}: {text}") == expected


REPLIES = {
    "250 2.0.0 Ok: queued as 4F0CB2": "250 2.0.0 Ok: queued as 4F0CB2",
    "host mx.example[192.0.2.7] said: 550 5.1.1 no (in reply to RCPT TO command)": "550 5.1.1 no",
    "host mx[192.0.2.7]:25 said: 550-5.7.1 one 550 5.7.1 two (in reply to end of DATA command)": "550-5.7.1 one 550 5.7.1 two",
    "host mx.example[192.0.2.7] refused to talk to me: 421 4.7.0 later": "421 4.7.0 later",
    "host mx.example[192.0.2.7] said: 450 x (in reply to y) (in reply to MAIL FROM command)": "450 x (in reply to y)",
    "host mx.example[private/lmtp] said: 452 full (in reply to RCPT TO command)": "452 full",
    "SASL authentication failed; server mx.example[192.0.2.7] said: 535 no": "535 no",
    "delivered to mailbox": "delivered to mailbox",
    "connect to mx.example[192.0.2.7]:25: Connection refused": "connect to mx.example[192.0.2.7]:25: Connection refused",
    "delivery temporarily suspended: host a[b] said: 421 x": "delivery temporarily suspended: host a[b] said: 421 x",
    "lost connection with mx[192.0.2.7] while sending RCPT TO": "lost connection with mx[192.0.2.7] while sending RCPT TO",
    "user unknown. Command output: (x)": "user unknown. Command output: (x)",
    "": "",
}  # fmt: skip


@pytest.mark.parametrize("text", REPLIES)
def test_the_reply_is_what_the_other_side_said(text: str) -> None:
    assert attempt(f"to=<a@b>, {MX}, dsn=4.0.0, status=deferred ({text})").reply == REPLIES[text]


def test_an_attempt() -> None:
    text = f"to=<a@b>, orig_to=<c@d>, {MX}, conn_use=2, tls=yes, dsn=5.1.1, status=bounced (550 no)"
    expected = Attempt(AT, QID, "a@b", Outcome.BOUNCED, "tx1", "mx.example", "192.0.2.7", "5.1.1", "550 no")
    assert attempt(text) == expected


@pytest.mark.parametrize(
    ("status", "outcome", "given_up"),
    [
        ("sent", Outcome.DELIVERED, False),
        ("deferred", Outcome.DEFERRED, False),
        ("SOFTBOUNCE", Outcome.DEFERRED, False),
        ("bounced", Outcome.BOUNCED, False),
        ("expired", Outcome.BOUNCED, True),
    ],
)
@pytest.mark.parametrize("daemon", ["smtp", "lmtp", "local", "virtual", "pipe", "error", "discard", "qmgr", "cleanup"])
def test_whoever_says_what_became_of_a_recipient(daemon: str, status: str, outcome: Outcome, given_up: bool) -> None:
    found = attempt(f"to=<a@b>, relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0, status={status} (x)", daemon)
    assert (found.outcome, found.given_up, found.relay, found.relay_ip) == (outcome, given_up, "", "")


@pytest.mark.parametrize("status", ["deliverable", "undeliverable"])
def test_a_probe_is_no_attempt(status: str) -> None:
    reader = PostfixLog(UTC)
    assert one("smtp", f"{QID}: to=<a@b>, {MX}, dsn=2.0.0, status={status} (x)", reader) is None
    assert reader.unknown == 0


@pytest.mark.parametrize(
    ("field", "name", "address"),
    [
        ("mx.example[2001:db8::1]:25", "mx.example", "2001:db8::1"),
        ("relay.example[private/dovecot-lmtp]", "relay.example", ""),
        ("local", "local", ""),
        ("mx[a.b]c]", "mx", ""),
    ],
)
def test_a_relay(field: str, name: str, address: str) -> None:
    found = attempt(f"to=<a@b>, relay={field}, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (x)")
    assert (found.relay, found.relay_ip) == (name, address)


@pytest.mark.parametrize(
    "recipient",
    [
        '"x y"@b',
        '"q>, relay=none"@b',
        r'"a\"b>, relay=evil[192.0.2.66]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (x"@b',
        '"a,b"@b',
        "grüße@bücher.example",
        "",
    ],
)
@pytest.mark.parametrize("original", ["", ', orig_to=<"z>, relay=none"@c>'])
def test_a_recipient_may_look_like_anything(recipient: str, original: str) -> None:
    found = attempt(f"to=<{recipient}>{original}, {MX}, dsn=5.0.0, status=bounced (>, relay=x, dsn=2.0.0, status=sent (y))")
    assert (found.recipient, found.relay, found.outcome) == (recipient, "mx.example", Outcome.BOUNCED)
    assert found.reply == ">, relay=x, dsn=2.0.0, status=sent (y)"


def test_a_line_that_syslog_cut_keeps_its_outcome() -> None:
    found = attempt(f"to=<a@b>, {MX}, dsn=5.0.0, status=bounced (host mx[192.0.2.7] said: 550 5.1.1 no su")
    assert (found.outcome, found.reply) == (Outcome.BOUNCED, "550 5.1.1 no su")


CLIENT = "c.example[192.0.2.9]"
ENVELOPE = "from=<a@b> to=<c@d> proto=ESMTP helo=<h>"
REFUSALS: dict[str, tuple[str, str, Refused | None]] = {
    "restriction": (
        "smtpd",
        f"{QID}: reject: RCPT from {CLIENT}: 450 4.7.1 <c@d>: later; {ENVELOPE}",
        Refused(AT, QID, "RCPT", "450 4.7.1 <c@d>: later", "", CLIENT),
    ),
    "before the queue": (
        "smtpd",
        f"NOQUEUE: reject: CONNECT from {CLIENT}: 554 5.7.1 no; client [192.0.2.9] blocked; proto=SMTP",
        Refused(AT, "", "CONNECT", "554 5.7.1 no; client [192.0.2.9] blocked", "", CLIENT),
    ),
    "postscreen": (
        "postscreen",
        "NOQUEUE: reject: RCPT from [192.0.2.9]:4711: 550 5.7.1 no; from=<a@b>, to=<c@d>, proto=ESMTP, helo=<h>",
        Refused(AT, "", "RCPT", "550 5.7.1 no", "", "[192.0.2.9]"),
    ),
    "milter": (
        "cleanup",
        f"{QID}: milter-reject: END-OF-MESSAGE from {CLIENT}: 5.7.1 spam; {ENVELOPE}",
        Refused(AT, QID, "END-OF-MESSAGE", "5.7.1 spam", "", CLIENT, by_milter=True),
    ),
    "milter, with the login": (
        "smtpd",
        f"NOQUEUE: milter-reject: RCPT from {CLIENT}: 550 5.7.1 no; {ENVELOPE} sasl_username=<acme>",
        Refused(AT, "", "RCPT", "550 5.7.1 no", "acme", CLIENT, by_milter=True),
    ),
    "a login that the client wrote himself": (
        "smtpd",
        f'NOQUEUE: reject: RCPT from {CLIENT}: 550 no; from=<a@b> proto=ESMTP helo=<<"x helo=<h> sasl_username=<acme>',
        Refused(AT, "", "RCPT", "550 no", "", CLIENT),
    ),
    "proxy": (
        "smtpd",
        f"NOQUEUE: proxy-reject: END-OF-MESSAGE: 550 5.7.1 no; {ENVELOPE}",
        Refused(AT, "", "END-OF-MESSAGE", "550 5.7.1 no"),
    ),
    "discarded": (
        "smtpd",
        f"NOQUEUE: discard: RCPT from {CLIENT}: <c@d>: gone; {ENVELOPE}",
        Refused(AT, "", "RCPT", "<c@d>: gone", "", CLIENT),
    ),
    "header_checks": (
        "cleanup",
        f"{QID}: reject: header Subject: letter from me[1] from {CLIENT}; {ENVELOPE}: 5.7.1 no spam",
        Refused(AT, QID, "END-OF-MESSAGE", "5.7.1 no spam", "", CLIENT),
    ),
    "header_checks of a local message": (
        "cleanup",
        f"{QID}: reject: header Subject: x from local; from=<a@b>: 5.7.1 no spam",
        Refused(AT, QID, "END-OF-MESSAGE", "5.7.1 no spam"),
    ),
    "held by a milter": ("cleanup", f"{QID}: milter-hold: END-OF-MESSAGE from {CLIENT}: HOLD action; {ENVELOPE}", None),
    "held": ("smtpd", f"NOQUEUE: hold: RCPT from {CLIENT}: <c@d>: held; {ENVELOPE}", None),
    "only warned": ("smtpd", f"NOQUEUE: reject_warning: RCPT from {CLIENT}: 450 4.7.1 x; {ENVELOPE}", None),
    "passed by a proxy": ("smtpd", f"NOQUEUE: proxy-accept: END-OF-MESSAGE: 250 ok; {ENVELOPE}", None),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal(case: str) -> None:
    daemon, text, expected = REFUSALS[case]
    reader = PostfixLog(UTC)
    assert one(daemon, text, reader) == expected
    assert reader.unknown == 0


REJECT = f"NOQUEUE: reject: RCPT from {CLIENT}: 450 4.7.1 later; {ENVELOPE}"
LOGIN = f"{QID}: client={CLIENT}, sasl_method=PLAIN, sasl_username=acme"


def logins(*texts: str) -> list[str]:
    """The logins of the refusals of one smtpd process."""
    reader = PostfixLog(UTC)
    events = [one("smtpd", text, reader) for text in texts]
    return [event.login for event in events if isinstance(event, Refused)]


def test_a_refusal_before_the_queue_belongs_to_the_session() -> None:
    again = f"NOQUEUE: client={CLIENT}, sasl_method=PLAIN, sasl_username=beta"
    assert logins(REJECT, LOGIN, REJECT, REJECT, again, REJECT) == ["", "acme", "acme", "beta"]
    assert logins(LOGIN, f"disconnect from {CLIENT}", REJECT) == [""]
    assert logins(LOGIN, f"connect from {CLIENT}", REJECT) == [""]
    assert logins(LOGIN, REJECT.replace("192.0.2.9", "192.0.2.10")) == [""]
    assert logins(LOGIN, f"{QID}: client={CLIENT}", REJECT) == [""]


def test_sessions_are_few_and_carried_over_a_restart() -> None:
    reader = PostfixLog(UTC)
    for pid in range(3 * MOST_SESSIONS):
        line = from_parts(AT, "postfix/smtpd", pid, LOGIN, "relay")
        assert line is not None
        reader.take(line)
    state = json.loads(json.dumps(reader.state()))
    assert len(state["sessions"]) == MOST_SESSIONS
    assert len(json.dumps(state)) < 32_000
    restored = PostfixLog(UTC)
    restored.restore(state)
    assert restored.state() == state
    line = from_parts(AT, "postfix/smtpd", 3 * MOST_SESSIONS - 1, REJECT, "relay")
    assert line is not None
    event = restored.take(line)
    assert isinstance(event, Refused)
    assert event.login == "acme"


def test_a_login_too_long_to_be_kept_is_forgotten_not_cut() -> None:
    assert logins(LOGIN + "x" * 600, REJECT) == [""]


@pytest.mark.parametrize("state", [{}, {"sessions": 7}, {"sessions": [7, ["a"], ["a", "b", 3]]}])
def test_a_state_of_another_shape_is_left_out(state: dict[str, object]) -> None:
    reader = PostfixLog(UTC)
    reader.restore(state)
    assert reader.state() == {"sessions": []}


@pytest.mark.parametrize(
    ("daemon", "text"),
    [
        ("smtp", "to=<a@b>, status=sent (x)"),
        ("smtp", f"to=<a@b>, {MX}, dsn=2.0.0, status=teleported (x)"),
        ("smtp", f'to=<a"b>, {MX}, dsn=2.0.0, status=sent (x)'),
        ("qmgr", "from=<a@b>, status=forgotten"),
        ("smtpd", "client=nobody"),
        ("smtpd", "reject: for no reason"),
    ],
)
def test_what_is_not_understood_is_counted_and_logged_once(daemon: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    reader = PostfixLog(UTC)
    for _ in range(3):
        assert one(daemon, f"{QID}: {text}", reader) is None
    assert reader.unknown == 3
    assert [record.getMessage() for record in caplog.records] == ["log line not understood"]


@pytest.mark.parametrize(
    ("daemon", "text"),
    [
        ("smtp", "host mx.example[192.0.2.7] said: 450 later (in reply to RCPT TO command)"),
        ("smtp", "lost connection with mx.example[192.0.2.7] while receiving the initial server greeting"),
        ("smtp", "enabling PIX workarounds: disable_esmtp delay_dotcrlf for mx.example[192.0.2.7]:25"),
        ("qmgr", "skipped, still being delivered"),
        ("smtp", "status=deferred (bounce failed)"),
        ("cleanup", f"warning: header Subject: x from {CLIENT}; {ENVELOPE}"),
        ("postsuper", "released from hold"),
        ("bounce", "postmaster notice failed while bouncing to a@b"),
    ],
)
def test_notes_for_people_give_nothing(daemon: str, text: str) -> None:
    reader = PostfixLog(UTC)
    assert one(daemon, f"{QID}: {text}", reader) is None
    assert reader.unknown == 0


LOG = list(lines(120, seed=3, iso=False))
WHOLE = PostfixLog(UTC).feed(LOG, AT)


@given(st.lists(st.integers(0, len(LOG)), max_size=20), st.booleans())
def test_however_the_log_is_cut(cuts: list[int], restarts: bool) -> None:
    reader, events = PostfixLog(UTC), []
    bounds = [0, *sorted(cuts), len(LOG)]
    for begin, end in pairwise(bounds):
        events += reader.feed(LOG[begin:end], AT)
        if restarts:
            state = json.dumps(reader.state())
            reader = PostfixLog(UTC)
            reader.restore(json.loads(state))
    assert events == WHOLE


@pytest.mark.parametrize("iso", [True, False])
def test_a_whole_log_counts_to_what_was_written(iso: bool) -> None:
    reader = PostfixLog(UTC)
    owner, found = {}, dict[str, Truth]()
    for event in reader.feed(lines(3000, seed=7, iso=iso), AT):
        if isinstance(event, Accepted):
            owner[event.queue_id] = event.login
            found.setdefault(event.login, Truth()).messages += 1
        elif isinstance(event, Refused):
            found[event.login].refused += 1
        elif isinstance(event, Attempt):
            tenant = found.setdefault(owner.get(event.queue_id, ""), Truth())
            setattr(tenant, event.outcome.value, getattr(tenant, event.outcome.value) + 1)
    assert reader.unknown == 0
    assert found == truth(3000, seed=7)
    assert sum(one.deferred for one in found.values()) > 50
    assert sum(one.refused for one in found.values()) > 50


HOSTILE = {
    "quotes": b"to=<" + b'"a"' * 2700,
    "a quote without end": b"to=<" + b'"' * 8000,
    "backslashes": b'to=<"' + b'\\"' * 4000,
    "quotes in orig_to": b"to=<a>, orig_to=<" + b'"a"' * 2700,
    "fields": b"to=<a>, relay=x, " + b"a=b, " * 1600,
    "brackets": b"to=<" + b">, orig_to=<" * 700,
    "replies": b"to=<a>, relay=none, dsn=4.0.0, status=sent (host a[b] said: " + b" (in reply to " * 600,
    "froms": b"reject: header " + b" from a[1]" * 800 + b"; from=<",
    "helos": b"reject: RCPT from a[1]: x" + b" helo=<a> sasl_username=<b" * 300,
    "sizes": b"from=<" + b">, size=1, nrcpt=1 (queue active)" * 250 + b"x",
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("daemon", ["smtp", "cleanup", "smtpd", "qmgr"])
def test_no_text_takes_long(case: str, daemon: str) -> None:
    begun = time.process_time()
    one(daemon, f"{QID}: ".encode() + HOSTILE[case])
    assert time.process_time() - begun < 0.05


def test_no_head_takes_long() -> None:
    begun = time.process_time()
    for head in (b"postfix" * 1100, b"postfix/" * 1000, b"<22>1 2026-11-24T08:00:00Z h postfix/smtp 1 - " + b"[a]" * 2700):
        assert PostfixLog(UTC).feed([head], AT) == []
    assert time.process_time() - begun < 0.05


@given(st.sampled_from(sorted(LOG)), st.data())
def test_damage_never_raises_and_never_reaches_a_terminal(raw: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        cut = data.draw(st.integers(0, len(raw)))
        raw = raw[:cut] + data.draw(st.binary(max_size=4)) + raw[cut + data.draw(st.integers(0, 4)) :]
    for event in PostfixLog(UTC).feed([raw], AT):
        texts = [getattr(event, name) for name in type(event).__slots__]
        assert all(text.isprintable() for text in texts if isinstance(text, str))
        assert all(text.encode() for text in texts if isinstance(text, str) and text)  # no surrogates: SQLite takes none
