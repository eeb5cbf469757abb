"""What a bounce message or a complaint that came as mail counts, against whom, and how often: once, and only with a token."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from relaywarden import story
from relaywarden.config.settings import Settings, UnknownLoginPlan
from relaywarden.errors import StoreUnavailableError
from relaywarden.feedback import Tokens
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger, recipient_digest
from relaywarden.ledger.records import HOUR_MS, History, Hours, Listed, Note, Noted, Notes, Suppressed, Tally
from relaywarden.outcomes import total
from relaywarden_monitor.attribute import Attributor
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.reporting import ReportDesk
from relaywarden_monitor.steps import Stepper
from testbed.classifying import classifier
from testbed.redis import RedisServer

TOKENS = Tokens(bytes(range(40)))
QUEUE_ID = "4bQ1HBDY6Xz1"
GONE = "550 5.1.1 The email account that you tried to reach does not exist"
FULL = "552 5.2.2 The recipient's inbox is out of storage space"


def settings(store: str, **monitor: Any) -> Settings:
    return Settings.model_validate({
        "store": store,
        "ledger": {"timeout": "200ms"},
        "plans": {"p": {}},
        "tenants": {"acme": {"plan": "p"}, "beta": {"plan": "p"}},
        "unknown_login": "reject",
        "pools": {"t": {"members": {"tx1": {"ip": "192.0.2.1"}}}},
        "monitor": {"postfix_log": "/var/log/mail.log", **monitor},
    })  # fmt: skip


@dataclass
class Relay:
    """A ledger, whoever takes reports for it, and the log of a Postfix."""

    ledger: Ledger
    settings: Settings
    log: Path
    touched: list[str] = field(default_factory=list)
    tokens: Tokens | None = TOKENS

    def __post_init__(self) -> None:
        self.desk = ReportDesk(self.settings, self.ledger, classifier(), TOKENS, self.touched.append)
        self._stepper = Stepper(
            PostfixFile(self.log), self.ledger, Docket(most=0), lambda _: True, sift=False, remember_ms=HOUR_MS,
            history_ms=24 * HOUR_MS,
        )  # fmt: skip

    def logs(self, *texts: str) -> None:
        """Postfix writes these lines, and the monitor reads them."""
        with self.log.open("a") as file:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            file.writelines(f"{stamp} relay postfix/{text}\n" for text in texts)
        while self._stepper.step(Attributor(self.settings, classifier(), self.tokens), 100)[1] is not None:
            pass

    def accepts(self, *recipients: str, login: str = "acme") -> str:
        """A message to these recipients is delivered; its token."""
        self.logs(
            f"submission/smtpd[7]: {QUEUE_ID}: client=web.example[203.0.113.5], sasl_method=PLAIN, sasl_username={login}",
            f"qmgr[8]: {QUEUE_ID}: from=<shop@acme.example>, size=900, nrcpt={len(recipients)} (queue active)",
            *(delivery(recipient, "2.0.0", "sent", "250 2.0.0 Ok") for recipient in recipients),
        )
        return TOKENS.make(login, QUEUE_ID, time.time())

    def counted(self, book: str = "acme") -> Counter[str]:
        """Outcomes; what was sent is another matter."""
        now_ms = int(time.time() * 1000)
        (found,) = self.ledger.apply([History(book, now_ms - HOUR_MS, now_ms + HOUR_MS)])
        amounts = total(cast("Hours", found).hours.values())
        return Counter({name: amount for name, amount in amounts.items() if not name.startswith("sent")})

    def suppressed(self) -> dict[str, str]:
        (listed,) = self.ledger.apply([Suppressed("acme")])
        return {entry.address: entry.kind for entry in cast("Listed", listed).entries}

    def told(self) -> list[str]:
        """What the message's story says happened."""
        (found,) = self.ledger.apply([Notes(story.book(QUEUE_ID), story.TOPIC)])
        read = story.read(QUEUE_ID, cast("Noted", found).fields)
        return [f"{item.kind} {item.recipient}".strip() for item in read.events] if read else []


@pytest.fixture(params=["sqlite", "redis"])
def relay(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Relay]:
    store = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        store = server.url
    values = settings(store)
    ledger = open_ledger(values)
    yield Relay(ledger, values, tmp_path / "mail.log")
    ledger.close()


def delivery(recipient: str, dsn: str, status: str, reply: str) -> str:
    said = f"host mx.x.example[198.51.100.1] said: {reply} (in reply to RCPT TO command)" if status != "sent" else reply
    return (
        f"tx1/smtp[9]: {QUEUE_ID}: to=<{recipient}>, relay=mx.x.example[198.51.100.1]:25, delay=1, delays=0/0/0.5/0.5, "
        f"dsn={dsn}, status={status} ({said})"
    )


def report(kind: str, fields: str, returned: str = "") -> bytes:
    """A multipart/report of this kind, with the header of the message that came back."""
    text = (
        f"From: MAILER-DAEMON@provider.example\nTo: fbl@relay.example\nSubject: report\nMIME-Version: 1.0\n"
        f"Content-Type: multipart/report; report-type={kind}; boundary=x\n\n--x\nContent-Type: text/plain\n\nA report.\n"
        f"--x\nContent-Type: message/{kind}\n\n{fields}\n"
        f"--x\nContent-Type: text/rfc822-headers\n\nSubject: Your receipt\n{returned}\n--x--\n"
    )
    return text.replace("\n", "\r\n").encode()


def complaint(token: str, *recipients: str, kind: str = "abuse") -> bytes:
    fields = "".join(f"Original-Rcpt-To: {recipient}\n" for recipient in recipients)
    return report(
        "feedback-report", f"Feedback-Type: {kind}\nUser-Agent: Test/1\nVersion: 1\n{fields}", f"CFBL-Feedback-ID: {token}\n"
    )


def bounce(recipient: str, reply: str = GONE, head: str = "Reporting-MTA: dns; mx.provider.example\n", more: str = "") -> bytes:
    about = (
        f"Final-Recipient: rfc822; {recipient}\nAction: failed\nStatus: {reply[4:9]}\nDiagnostic-Code: smtp; {reply}\n{more}"
    )
    return report("delivery-status", f"{head}\n{about}")


def return_path(token: str) -> str:
    return f"bounce+{token}@relay.example"


def reports(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log says of each report."""
    return [vars(record)["relaywarden_fields"] for record in caplog.records if record.getMessage() == "report"]


def test_a_complaint_counts_once_however_often_it_comes(relay: Relay) -> None:
    token = relay.accepts("r@gmail.com")
    for _ in range(3):
        relay.desk.deliver(complaint(token, "r@gmail.com"), "fbl@relay.example")
    relay.desk.deliver(complaint(token.upper(), "R@gmail.com", kind="fraud"), "fbl@relay.example")
    assert relay.counted()["complained"] == relay.counted()["google.complained"] == 1
    assert relay.counted("!member:tx1/google")["complained"] == 1
    assert (relay.suppressed(), set(relay.touched)) == ({"r@gmail.com": "complained"}, {"acme"})
    assert relay.told() == ["delivered r@gmail.com", "complained r@gmail.com"]


def test_a_late_bounce_counts_once_with_its_reasons(relay: Relay) -> None:
    token = relay.accepts("r@x.example")
    for _ in range(2):
        relay.desk.deliver(bounce("r@x.example"), return_path(token))
    expected = {"bounced": 1, "bounced.mailbox": 1, "why.no-mailbox": 1, "invalid": 1}
    assert relay.counted() == {**expected, "other.bounced": 1, "delivered": 1, "other.delivered": 1}
    assert relay.counted("!member:tx1/other") == {**expected, "delivered": 1}
    assert relay.suppressed() == {"r@x.example": "bounced"}


@pytest.mark.parametrize("reply", [FULL, "550 5.7.1 Message rejected because of spam content"])
def test_a_bounce_that_is_not_about_the_mailbox_suppresses_nobody(relay: Relay, reply: str) -> None:
    relay.desk.deliver(bounce("r@x.example", reply), return_path(relay.accepts("r@x.example")))
    assert (relay.counted()["bounced"], relay.counted()["invalid"], relay.suppressed()) == (1, 0, {})
    assert relay.counted()["blocked"] == ("spam" in reply)


def test_a_forged_report_counts_for_nobody(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    token = relay.accepts("r@x.example")
    before = relay.counted()
    other = Tokens(bytes(range(1, 41))).make("acme", QUEUE_ID, time.time())
    with caplog.at_level(logging.INFO):
        for wrong in (other, "a" + token[1:], token[:-1]):
            relay.desk.deliver(complaint(wrong, "r@x.example"), "fbl@relay.example")
            relay.desk.deliver(bounce("r@x.example"), return_path(wrong))
    assert (relay.counted(), relay.suppressed(), relay.touched) == (before, {}, [])
    assert relay.told() == ["delivered r@x.example"]
    assert [(said["forged"], said["verified"]) for said in reports(caplog)] == [(True, False)] * 6


def test_without_a_token_nobody_is_to_blame(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    relay.accepts("r@x.example")
    with caplog.at_level(logging.INFO):
        relay.desk.deliver(bounce("r@x.example", more=f"X-Postfix-Queue-ID: {QUEUE_ID}\n"), "bounce@relay.example")
    assert (relay.counted()["bounced"], relay.suppressed()) == (0, {})
    assert [(said["forged"], said["verified"]) for said in reports(caplog)] == [(None, False)]


@pytest.mark.parametrize("recipients", [(), ("redacted",), ("0123456789abcdef@redacted.invalid",)])
def test_a_redacted_recipient_is_the_only_one_of_the_message(relay: Relay, recipients: tuple[str, ...]) -> None:
    relay.desk.deliver(complaint(relay.accepts("only@x.example"), *recipients), "fbl@relay.example")
    relay.desk.deliver(complaint(relay.accepts("only@x.example"), "only@x.example"), "fbl@relay.example")
    assert (relay.counted()["complained"], relay.suppressed()) == (1, {"only@x.example": "complained"})


def test_of_several_recipients_only_one_who_is_named_is_suppressed(relay: Relay) -> None:
    token = relay.accepts("a@x.example", "b@x.example")
    relay.desk.deliver(complaint(token, "redacted"), "fbl@relay.example")
    assert (relay.counted()["complained"], relay.suppressed()) == (1, {})
    relay.desk.deliver(complaint(token, "A@x.example", "b@x.example"), "fbl@relay.example")
    assert (relay.counted()["complained"], set(relay.suppressed())) == (2, {"a@x.example", "b@x.example"})


def test_what_a_report_says_is_no_evidence_for_the_next(relay: Relay) -> None:
    """A customer's own recipient cannot have anybody else suppressed, not even in two steps with the log between them."""
    token = relay.accepts("a@x.example", "b@x.example")
    for _ in range(2):
        relay.desk.deliver(bounce("victim@x.example"), return_path(token))
        relay.logs(f"qmgr[8]: {QUEUE_ID}: removed")
    assert (relay.suppressed(), relay.told().count("bounced victim@x.example")) == ({}, 1)


@pytest.mark.parametrize(("kind", "listed"), [("opt-out", True), ("not-spam", False), ("auth-failure", False)])
def test_what_is_no_reproach_is_not_counted(relay: Relay, kind: str, listed: bool) -> None:
    relay.desk.deliver(complaint(relay.accepts("r@x.example"), "r@x.example", kind=kind), "fbl@relay.example")
    assert (relay.counted()["complained"], relay.touched) == (0, [])
    assert relay.suppressed() == ({"r@x.example": "complained"} if listed else {})


@pytest.mark.parametrize("known", [True, False])
def test_a_token_of_a_tenant_that_is_gone_counts_for_nobody(
    relay: Relay, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if known:
        relay.ledger.apply([Tally("left", {"delivered": 1})])
    relay.desk.deliver(complaint(TOKENS.make("left", QUEUE_ID, time.time()), "r@x.example"), "fbl@relay.example")
    assert (relay.counted("left")["complained"], relay.touched, relay.told()) == (0, [], [])
    assert "a tenant that is not here any more" in caplog.text


@pytest.mark.parametrize("log_first", [True, False])
def test_our_own_notification_and_our_own_log_count_one_bounce(relay: Relay, log_first: bool) -> None:
    """With a return path of ours Postfix sends its own notifications to the monitor, too."""
    relay.logs(f"submission/smtpd[7]: {QUEUE_ID}: client=web.example[203.0.113.5], sasl_method=PLAIN, sasl_username=acme")
    mail = bounce(
        "r@x.example",
        head=f"Reporting-MTA: dns; relay.example\nX-Postfix-Queue-ID: {QUEUE_ID}\nX-Postfix-Sender: rfc822; a@b.c\n",
    )
    token = TOKENS.make("acme", QUEUE_ID, time.time())
    ways: list[Callable[[], None]] = [
        lambda: relay.logs(delivery("r@x.example", "5.1.1", "bounced", GONE)),
        lambda: relay.desk.deliver(mail, return_path(token)),
    ]
    for way in ways if log_first else reversed(ways):
        way()
    assert (relay.counted()["bounced"], relay.counted()["invalid"]) == (1, 1)
    assert relay.suppressed() == {"r@x.example": "bounced"}


def test_powermtas_own_notification_counts_where_no_accounting_is_read(tmp_path: Path) -> None:
    mail = bounce("r@x.example", more="X-PowerMTA-VirtualMTA: tx1\n")
    for read_too, expected in ((True, 0), (False, 1)):
        values = settings(f"sqlite:///{tmp_path}/{expected}.db", **({"accounting": ["/x/*.csv"]} if read_too else {}))
        ledger = open_ledger(values)
        relay = Relay(ledger, values, tmp_path / f"{expected}.log")
        relay.desk.deliver(mail, return_path(relay.accepts("r@x.example")))
        assert relay.counted()["bounced"] == expected
        ledger.close()


def test_while_the_store_is_locked_whoever_brings_a_report_keeps_it(tmp_path: Path) -> None:
    values = settings(f"sqlite:///{tmp_path}/ledger.db")
    ledger = open_ledger(values)
    relay = Relay(ledger, values, tmp_path / "mail.log")
    mail = complaint(relay.accepts("r@x.example"), "r@x.example")
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError):
        relay.desk.deliver(mail, "fbl@relay.example")
    assert relay.touched == []
    other.execute("ROLLBACK")
    other.close()
    for _ in range(2):
        relay.desk.deliver(mail, "fbl@relay.example")
    assert (relay.counted()["complained"], set(relay.touched)) == (1, {"acme"})
    ledger.close()


def test_what_counted_before_the_store_failed_is_looked_at_when_it_comes_again(tmp_path: Path) -> None:
    values = settings(f"sqlite:///{tmp_path}/ledger.db")
    ledger = open_ledger(values)
    relay = Relay(ledger, values, tmp_path / "mail.log")
    mail = complaint(relay.accepts("r@x.example"), "r@x.example")
    nobody: list[str] = []
    ReportDesk(values, ledger, classifier(), TOKENS, nobody.append).deliver(mail, "")  # and dies before anybody is told
    relay.desk.deliver(mail, "fbl@relay.example")
    assert (relay.counted()["complained"], relay.touched) == (1, ["acme"])
    ledger.close()


def test_one_token_counts_no_more_than_its_message_has_recipients(relay: Relay) -> None:
    """A hundred groups of one report, and a hundred names in others: whoever is not named by our log is one together."""
    groups = "\n".join(
        f"Final-Recipient: rfc822; v{number}@x.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; {GONE}\n"
        for number in range(100)
    )
    many = report("delivery-status", f"Reporting-MTA: dns; mx.provider.example\n\n{groups}")
    token = relay.accepts("a@x.example", "b@x.example")
    relay.desk.deliver(many, return_path(token))
    assert (relay.counted()["bounced"], relay.counted()["invalid"], relay.suppressed()) == (1, 1, {})
    relay.desk.deliver(complaint(token, *(f"v{number}@x.example" for number in range(50))), "fbl@relay.example")
    assert relay.counted()["complained"] == 1
    for recipient in ("a@x.example", "b@x.example", "A@x.example", "c@x.example"):
        relay.desk.deliver(complaint(token, recipient), "fbl@relay.example")
        relay.desk.deliver(bounce(recipient), return_path(token))
    assert (relay.counted()["complained"], relay.counted()["bounced"]) == (2, 2)
    assert set(relay.suppressed()) == {"a@x.example", "b@x.example"}
    assert len(relay.told()) == 6, "a story grows by no more than what counts"


@pytest.mark.parametrize(("days", "counts"), [(34, 1), (36, 0)])
def test_a_token_counts_as_long_as_the_hours_are_kept(relay: Relay, days: int, counts: int) -> None:
    token = TOKENS.make("acme", QUEUE_ID, time.time() - days * 86_400)
    relay.desk.deliver(complaint(token, "r@x.example"), "fbl@relay.example")
    assert (relay.counted()["complained"], len(relay.touched), len(relay.told())) == (counts, counts, counts)


@pytest.mark.parametrize(("login", "hours"), [("beta", 0), ("acme", 5)])
def test_a_queue_id_that_came_again_is_another_message(relay: Relay, login: str, hours: int) -> None:
    token = TOKENS.make("acme", QUEUE_ID, time.time() - hours * 3600)
    relay.accepts("r@gmail.com", login=login)
    relay.desk.deliver(complaint(token, "r@gmail.com"), "fbl@relay.example")
    assert (relay.counted()["complained"], relay.suppressed()) == (1, {})
    assert (relay.counted("!member:tx1/google")["complained"], relay.told()) == (0, ["delivered r@gmail.com"])


def test_a_complaint_finds_recipient_and_member_when_the_story_is_forgotten(relay: Relay) -> None:
    token = relay.accepts("a@gmail.com", "b@gmail.com")
    relay.ledger.apply([Note(story.book(QUEUE_ID), story.TOPIC, {story.LOG: None})])
    for recipient in ("stranger@gmail.com", "B@gmail.com", "redacted"):
        relay.desk.deliver(complaint(token, recipient), "fbl@relay.example")
    assert (relay.counted()["complained"], set(relay.suppressed())) == (2, {"B@gmail.com"})
    assert relay.counted("!member:tx1/google")["complained"] == 1
    assert relay.counted("!member:tx1/other")["complained"] == 0, "nobody knows which provider that was"


def test_a_message_of_which_a_trace_is_left_suppresses_nobody_by_guess(relay: Relay) -> None:
    token = relay.accepts("only@x.example")
    relay.ledger.apply([Note(story.book(QUEUE_ID), story.TOPIC, {story.LOG: None})])
    for recipient in ("redacted", "victim@x.example", "only@x.example"):
        relay.desk.deliver(complaint(token, recipient), "fbl@relay.example")
    assert (relay.counted()["complained"], relay.suppressed()) == (1, {"only@x.example": "complained"})


def test_no_trace_is_kept_where_there_are_no_tokens(tmp_path: Path) -> None:
    values = settings(f"sqlite:///{tmp_path}/ledger.db")
    ledger = open_ledger(values)
    relay = Relay(ledger, values, tmp_path / "mail.log")
    relay.tokens = None
    relay.accepts("r@x.example")
    (found,) = ledger.apply([Notes(story.book(QUEUE_ID), story.TRACE)])
    assert (cast("Noted", found).fields, relay.told()) == ({}, ["delivered r@x.example"])
    ledger.close()


def test_a_tenant_who_comes_up_later_is_found_after_a_while(relay: Relay) -> None:
    now = time.time()
    values = settings("sqlite:////nowhere.db").model_copy(update={"unknown_login": UnknownLoginPlan(plan="p")})
    desk = ReportDesk(values, relay.ledger, classifier(), TOKENS, relay.touched.append, lambda: now)
    mail = complaint(TOKENS.make("late@x.example", QUEUE_ID, now), "r@x.example")
    desk.deliver(mail, "fbl@relay.example")
    relay.ledger.apply([Tally("late@x.example", {"delivered": 1})])
    for counted in (0, 1):
        desk.deliver(mail, "fbl@relay.example")
        assert relay.counted("late@x.example")["complained"] == counted
        now += 61
    assert relay.touched == ["late@x.example"]


def test_what_the_log_counted_as_blocked_is_not_blocked_again_by_a_report(relay: Relay) -> None:
    spam = "550 5.7.1 Message rejected because of spam content"
    token = relay.accepts("a@x.example")
    relay.logs(delivery("b@x.example", "4.7.1", "deferred", spam.replace("550 5", "450 4")))
    assert relay.counted()["blocked"] == 1
    relay.desk.deliver(bounce("b@x.example", spam), return_path(token))
    assert (relay.counted()["bounced"], relay.counted()["blocked"]) == (1, 1)


def test_the_milter_knows_the_member_before_the_log_is_read(relay: Relay) -> None:
    to = recipient_digest("other@x.example").hex() + recipient_digest("r@gmail.com").hex()
    said = story.dump({"tenant": "acme", "member": "tx1", "to": to})
    relay.ledger.apply([Note(story.book(QUEUE_ID), story.TOPIC, {story.MILTER: said}, HOUR_MS)])
    for recipient in ("r@gmail.com", "stranger@outlook.com"):
        relay.desk.deliver(complaint(TOKENS.make("acme", QUEUE_ID, time.time()), recipient), "fbl@relay.example")
    assert relay.counted("!member:tx1/google")["complained"] == 1
    assert relay.counted("!member:tx1/microsoft")["complained"] == 0, "a stranger does not choose for which provider it counts"
    assert relay.suppressed() == {}, "nobody knows yet whether the message went there"
