"""Whose it is: what each event counts for which tenant, member and provider, and whom it keeps from being sent to again."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden import story
from relaywarden.config.settings import Settings
from relaywarden.feedback import Tokens
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours, Listed, Note, Noted, Notes, Suppressed, Tally
from relaywarden.outcomes import total
from relaywarden_monitor.attribute import Attributor, Counted
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.events import Accepted, Attempt, Complaint, Described, Event, Gone, Notified, Outcome, Refused
from relaywarden_monitor.ingest.accounting import AccountingFiles
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.reporting import ReportDesk
from relaywarden_monitor.steps import Stepper
from testbed.classifying import classifier
from testbed.redis import RedisServer

AT = float(int(time.time()) - 60)  # what is listed is listed from then on
TOKENS = Tokens(bytes(range(40)))
KEPT_MS = 100 * 365 * 24 * HOUR_MS
NO_MAILBOX = "550 5.1.1 <r@x.example>: Recipient address rejected: User unknown"
FULL = "452 4.2.2 The recipient's inbox is out of storage space"
OUR_OWN = "554 5.7.1 <r@x.example>: Recipient address rejected: Sending is suspended for this account, ask your provider"


def settings(store: str = "sqlite:////nowhere.db", **more: Any) -> Settings:
    return Settings.model_validate({
        "store": store,
        "plans": {"p": {}, "lenient": {"suppression": {"bounced": None, "complained": None}}},
        "tenants": {
            "acme": {"plan": "p", "logins": ["acme", "*@acme.example"]}, "beta": {"plan": "p"}, "lax": {"plan": "lenient"},
        },
        "unknown_login": "reject",
        "pools": {"t": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}}},
        "monitor": {"postfix_log": "/var/log/mail.log", "handover": ["pmta.example", "192.0.2.99"]},
        **more,
    })  # fmt: skip


def attempt(outcome: Outcome = Outcome.DELIVERED, reply: str = "250 2.0.0 Ok", **more: Any) -> Attempt:
    values: dict[str, Any] = {
        "queue_id": "4bQ1", "recipient": "r@x.example", "member": "tx1", "relay": "mx.x.example", "relay_ip": "198.51.100.1",
    }  # fmt: skip
    return Attempt(AT, outcome=outcome, reply=reply, **{**values, **more})


def attribute(*events: Event, docket: Docket | None = None, **more: Any) -> Counted:
    found = Docket() if docket is None else docket
    return Attributor(settings(**more), classifier(), TOKENS).attribute(events, found)


def books(counted: Counted) -> dict[str, Counter[str]]:
    """All hours together."""
    found: dict[str, Counter[str]] = {}
    for amounts in counted.hours.values():
        for book, names in amounts.items():
            found.setdefault(book, Counter()).update(names)
    return found


@pytest.mark.parametrize(
    ("login", "tenant"), [("acme", "acme"), ("ACME", "acme"), ("web@acme.example", "acme"), ("stranger", ""), ("", "")]
)
def test_the_login_says_whose_message_it_is(login: str, tenant: str) -> None:
    counted = attribute(Accepted(AT, "4bQ1", login, "web.example[203.0.113.5]"), attempt())
    expected = {tenant: {"delivered": 1, "other.delivered": 1}} if tenant else {}
    assert books(counted) == {**expected, "!member:tx1/other": {"delivered": 1}}
    assert counted.tenants == ({tenant} if tenant else set())
    assert [judged.tenant for judged in counted.judged] == [tenant]


def test_an_unknown_login_may_be_a_tenant_of_its_own() -> None:
    counted = attribute(Accepted(AT, "4bQ1", "Stranger"), attempt(), unknown_login={"plan": "p"})
    assert counted.tenants == {"stranger"}


def test_a_notification_is_nobodys_mail() -> None:
    docket = Docket()
    events: list[Event] = [
        Accepted(AT, "4bQ1", "acme"), Described(AT, "4bQ1", "<m@acme.example>", "shop@acme.example", 900, 1),
        attempt(Outcome.BOUNCED, NO_MAILBOX), Notified(AT, "4bQ1", "4bN1", "non-delivery"), Gone(AT, "4bQ1"),
        Described(AT, "4bN1", sender=""), attempt(queue_id="4bN1", recipient="shop@acme.example", member="tx2"),
    ]  # fmt: skip
    found = books(attribute(*events, docket=docket))
    assert (found["acme"]["bounced"], found["acme"]["delivered"]) == (1, 0)
    assert found["!member:tx2/other"] == {"delivered": 1}
    assert docket.find("4bN1").facts["sender"] == "<>"
    assert [(item.kind, item.reply) for item in docket.find("4bQ1").events] == [
        ("bounced", NO_MAILBOX), ("notified-non-delivery", "4bN1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("member", "source", "expected"),
    [
        ("tx2", "", "tx2"),
        ("tx2", "192.0.2.1", "tx2"),
        ("smtp", "192.0.2.1", "tx1"),
        ("smtp", "192.0.2.7", None),
        ("", "", None),
    ],
)
def test_the_member_goes_by_transport_then_by_source_address(member: str, source: str, expected: str | None) -> None:
    counted = attribute(Accepted(AT, "4bQ1", "acme"), attempt(member=member, source=source))
    assert set(books(counted)) == {"acme", *([f"!member:{expected}/other"] if expected else [])}


@pytest.mark.parametrize(
    ("relay", "recipient", "provider"),
    [
        ("gmail-smtp-in.l.google.com", "info@customer.example", "google"),
        ("mail.protection.outlook.com", "r@gmail.com", "microsoft"),  # who answers, not who is written to
        ("", "r@gmail.com", "google"),
        ("mx.x.example", "r@yahoo.co.uk", "yahoo"),
        ("mx.x.example", "r@x.example", "other"),
    ],
)
def test_the_provider_goes_by_mx_then_by_domain(relay: str, recipient: str, provider: str) -> None:
    counted = attribute(Accepted(AT, "4bQ1", "acme"), attempt(relay=relay, recipient=recipient))
    assert books(counted) == {
        "acme": {"delivered": 1, f"{provider}.delivered": 1}, f"!member:tx1/{provider}": {"delivered": 1},
    }  # fmt: skip


@pytest.mark.parametrize("where", [{"relay": "PMTA.example"}, {"relay": "10.0.0.1", "relay_ip": "192.0.2.99"}])
def test_what_goes_to_our_own_next_hop_is_not_delivered_yet(where: dict[str, Any]) -> None:
    docket = Docket()
    counted = attribute(Accepted(AT, "4bQ1", "acme"), attempt(**where), docket=docket)
    assert (books(counted), counted.judged, counted.tenants) == ({}, [], set())
    assert [item.kind for item in docket.find("4bQ1").events] == ["handed-over"]
    failed = attribute(Accepted(AT, "4bQ1", "acme"), attempt(Outcome.DEFERRED, "421 4.7.0 busy", **where))
    assert set(books(failed)) == {"acme"}, "a next hop of ours in trouble must not be held against the member"


@pytest.mark.parametrize(
    ("outcome", "reply", "names"),
    [
        (Outcome.BOUNCED, NO_MAILBOX, {"bounced", "bounced.mailbox", "why.no-mailbox", "invalid"}),
        (Outcome.DEFERRED, FULL, {"deferred", "deferred.full", "why.mailbox-full"}),
        (
            Outcome.BOUNCED, "554 5.7.1 Message rejected because of spam content",
            {"bounced", "bounced.content", "why.spam-content", "blocked"},
        ),
        (Outcome.DEFERRED, "451 4.7.1 Greylisted, try again later", {"deferred", "deferred.greylist", "why.greylisted"}),
        (Outcome.BOUNCED, OUR_OWN, {"bounced", "bounced.policy", "why.own"}),
        (Outcome.BOUNCED, "", {"bounced", "bounced.policy", "why.unclear"}),
        (Outcome.DELIVERED, "250 2.0.0 Ok", {"delivered"}),
    ],
)  # fmt: skip
def test_what_a_reply_is_counted_as(outcome: Outcome, reply: str, names: set[str]) -> None:
    found = books(attribute(Accepted(AT, "4bQ1", "acme"), attempt(outcome, reply)))
    assert set(found["acme"]) == {*names, f"other.{outcome.value}"}
    assert set(found["!member:tx1/other"]) == names


@pytest.mark.parametrize(
    ("event", "listed"),
    [
        (attempt(Outcome.BOUNCED, NO_MAILBOX), True),
        (attempt(Outcome.DEFERRED, "450 4.1.1 <r@x.example>: User unknown"), False),  # it may be there tomorrow
        (attempt(Outcome.BOUNCED, "552 5.2.2 mailbox full"), False),
        (attempt(Outcome.BOUNCED, "450 4.1.1 <r@x.example>: User unknown", given_up=True), False),
        (attempt(Outcome.BOUNCED, "554 5.7.1 Message rejected because of spam content"), False),
        (attempt(Outcome.BOUNCED, OUR_OWN), False),
        (attempt(Outcome.BOUNCED, NO_MAILBOX, recipient=""), False),
        (attempt(Outcome.DELIVERED), False),
    ],
)
def test_only_a_hard_bounce_keeps_a_recipient_from_being_sent_to(event: Attempt, listed: bool) -> None:
    found = attribute(Accepted(AT, "4bQ1", "acme"), event).suppressions
    assert {name: list(entries) for name, entries in found.items()} == ({"acme": ["r@x.example"]} if listed else {})
    for entry in found.get("acme", {}).values():
        assert (entry.kind, entry.since_ms, entry.until_ms) == ("bounced", AT * 1000, AT * 1000 + 30 * 86_400_000)
        assert entry.reason == NO_MAILBOX


def test_a_plan_may_suppress_nobody() -> None:
    events = Accepted(AT, "4bQ1", "lax"), attempt(Outcome.BOUNCED, NO_MAILBOX)
    assert attribute(*events).suppressions == {}


def test_giving_up_a_message_is_a_bounce_of_who_was_put_off_last() -> None:
    late = "450 4.2.1 The user you are trying to contact is receiving mail too quickly"
    events: list[Event] = [
        Accepted(AT, "4bQ1", "acme"),
        attempt(Outcome.DEFERRED, late, recipient="a@gmail.com"), attempt(Outcome.DEFERRED, late, recipient="a@gmail.com"),
        attempt(Outcome.DEFERRED, late, recipient="b@x.example"), attempt(recipient="b@x.example"),
        attempt(Outcome.BOUNCED, "", recipient="", given_up=True),
    ]  # fmt: skip
    found = books(attribute(*events))["acme"]
    assert (found["deferred"], found["delivered"], found["bounced"], found["google.bounced"]) == (3, 1, 1, 1)


def test_a_message_that_the_milter_refuses_is_over() -> None:
    docket = Docket()
    refused = Refused(AT + 1, "4bQ1", "END-OF-MESSAGE", "550 5.7.1 virus", by_milter=True)
    nobody = Refused(AT, "", "RCPT", "450 4.7.1 later", "acme")
    assert books(attribute(Accepted(AT, "4bQ1", "acme"), refused, nobody, docket=docket)) == {}
    assert (docket.find("4bQ1").facts["gone_at"], len(docket)) == (AT + 1, 1)


def test_what_repeats_for_another_recipient_causes_no_reaction() -> None:
    text = "delivery temporarily suspended: host mx.x.example[198.51.100.1] refused to talk to me: 421 4.7.0 blocked"
    events = [attempt(Outcome.DEFERRED, "421 4.7.0 blocked"), attempt(Outcome.DEFERRED, text, relay="", relay_ip="")]
    counted = attribute(Accepted(AT, "4bQ1", "acme"), *events)
    assert (books(counted)["acme"]["deferred"], len(counted.judged)) == (2, 1)


HEADER = (
    "type,timeLogged,orig,rcpt,vmta,dsnMta,dsnStatus,dsnDiag,bounceCat,jobId,envId,dlvSourceIp,feedbackType,"
    "header_Cfbl-Feedback-ID\n"
)


def row(kind: str, rcpt: str = "", **more: str) -> str:
    values = {"vmta": "tx1", "dsnMta": "mx.x.example (198.51.100.1)", "jobId": "beta", "envId": "4bQ1", **more}
    names = HEADER.strip().split(",")
    known = {"type": kind, "timeLogged": str(AT), "rcpt": rcpt, **values}
    return ",".join(f'"{known.get(name, "")}"' for name in names) + "\n"


@pytest.fixture(params=["sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    store = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        store = server.url
    opened = open_ledger(settings(store))
    yield opened
    opened.close()


def read_all(ledger: Ledger, *sources: PostfixFile | AccountingFiles, most: int = 3, **more: Any) -> None:
    attributor, docket = Attributor(settings(**more), classifier(), TOKENS), Docket()
    for source in sources:
        stepper = Stepper(source, ledger, docket, lambda _: True, sift=False, remember_ms=KEPT_MS, history_ms=KEPT_MS)
        while stepper.step(attributor, most)[1] is not None:
            pass


def counters(ledger: Ledger, book: str) -> Counter[str]:
    (found,) = ledger.apply([History(book, int(AT * 1000) - HOUR_MS, int(AT * 1000) + HOUR_MS)])
    return total(cast("Hours", found).hours.values())


def test_log_and_accounting_tell_one_story(ledger: Ledger, tmp_path: Path) -> None:
    """Postfix hands over to PowerMTA, whose rows say what became of it, and later that one bounced after all."""
    log, rows = tmp_path / "mail.log", tmp_path / "acct.csv"
    head = f"{datetime.datetime.fromtimestamp(AT, datetime.timezone.utc).isoformat()} relay postfix/"
    log.write_text("".join(f"{head}{text}\n" for text in (
        "submission/smtpd[7]: 4bQ1HBDY6Xz1: client=web.example[203.0.113.5], sasl_method=PLAIN, sasl_username=acme",
        "qmgr[8]: 4bQ1HBDY6Xz1: from=<shop@acme.example>, size=900, nrcpt=3 (queue active)",
        *(f"smtp[9]: 4bQ1HBDY6Xz1: to=<{name}@x.example>, relay=pmta.example[192.0.2.99]:25, delay=1, dsn=2.0.0, "
          "status=sent (250 2.6.0 message received)" for name in ("a", "b", "c")),
        "qmgr[8]: 4bQ1HBDY6Xz1: removed",
    )))  # fmt: skip
    ours = {"envId": "4bQ1HBDY6Xz1", "jobId": "acme"}
    user_unknown = {"dsnStatus": "5.1.1 (bad destination mailbox address)", "dsnDiag": "smtp;550 5.1.1 no such user"}
    rows.write_text(HEADER + "".join((
        row("d", "a@x.example", **ours), row("d", "b@x.example", **ours), row("b", "c@x.example", **ours, **user_unknown),
        row("tq", "", dsnStatus="4.4.1", dsnDiag="smtp;421 4.7.0 try again later", jobId="", envId=""),
        row("rb", "b@x.example", **ours, **user_unknown), row("rb", "B@X.example", **ours, **user_unknown),
        row("rb", "c@x.example", **ours, **user_unknown),  # PowerMTA read its own notification
        row("rb", "stranger@x.example", **ours, **user_unknown),  # the message did not go there
        row("rb", "a@x.example", envId="4bForged1234", jobId="acme", **user_unknown),  # there is no such message
        row("d", "z@x.example", jobId="beta", envId=""), row("d", "z@x.example", jobId="nobody", envId=""),
    )))  # fmt: skip
    read_all(ledger, PostfixFile(log), AccountingFiles("files", [str(rows)]))
    found = counters(ledger, "acme")
    assert {name: found[name] for name in ("delivered", "bounced", "invalid")} == {"delivered": 2, "bounced": 2, "invalid": 2}
    assert counters(ledger, "beta")["delivered"] == 1
    member = counters(ledger, "!member:tx1/other")
    assert (member["delivered"], member["deferred"], member["bounced"]) == (4, 1, 2)
    (notes,) = ledger.apply([Notes(story.book("4bQ1HBDY6Xz1"), story.TOPIC)])
    told = story.read("4bQ1HBDY6Xz1", cast("Noted", notes).fields)
    assert told is not None
    assert (told.tenant, sorted(Counter(item.kind for item in told.events).items())) == (
        "acme", [("bounced", 2), ("delivered", 2), ("handed-over", 3)],
    )  # fmt: skip
    (listed,) = ledger.apply([Suppressed("acme")])
    assert {entry.address for entry in cast("Listed", listed).entries} == {"b@x.example", "c@x.example"}


@pytest.mark.parametrize("mail_first", [True, False])
def test_a_complaint_counts_once_by_accounting_and_by_mail(ledger: Ledger, tmp_path: Path, mail_first: bool) -> None:
    token, rows = TOKENS.make("acme", "4bQ1", AT), tmp_path / "acct.csv"
    delivered = tmp_path / "delivered.csv"
    delivered.write_text(HEADER + row("d", "a@x.example", jobId="acme"))
    read_all(ledger, AccountingFiles("before", [str(delivered)]))
    rows.write_text(HEADER + "".join((
        row("f", "a@x.example", feedbackType="abuse", **{"header_Cfbl-Feedback-ID": token}),
        row("f", "A@x.example", feedbackType="abuse", **{"header_Cfbl-Feedback-ID": token.upper()}),
        row("f", "b@x.example", feedbackType="not-spam", **{"header_Cfbl-Feedback-ID": token}),
        row("f", "c@x.example", feedbackType="abuse", **{"header_Cfbl-Feedback-ID": "a" + token[1:]}),
        row("f", "d@x.example", feedbackType="abuse", jobId="acme", envId="4bQ1"),  # no token: anybody can write this
    )))  # fmt: skip
    ways: list[Callable[[], None]] = [
        lambda: ReportDesk(settings(), ledger, classifier(), TOKENS, lambda _: None).deliver(
            complaint("a@x.example", token), ""
        ),
        lambda: read_all(ledger, AccountingFiles("files", [str(rows)])),
    ]
    for way in ways if mail_first else reversed(ways):
        way()
        assert complained(ledger) == 1
    (listed,) = ledger.apply([Suppressed("acme")])
    assert {entry.address.casefold() for entry in cast("Listed", listed).entries} == {"a@x.example"}


def complaint_row(recipient: str, token: str) -> str:
    return row("f", recipient, feedbackType="abuse", **{"header_Cfbl-Feedback-ID": token})


@pytest.mark.parametrize("same_chunk", [True, False])
def test_rows_with_one_token_suppress_only_who_had_the_message(ledger: Ledger, tmp_path: Path, same_chunk: bool) -> None:
    """And a hundred of them count no more than the message has recipients; its member bears them."""
    token, mail = TOKENS.make("acme", "4bQ1", AT), tmp_path / "mail.csv"
    files = [AccountingFiles("files", [str(mail)])]
    sent = "".join(row("d", f"{name}@x.example", jobId="acme") for name in "ab")
    rows = "".join(complaint_row(f"v{number}@x.example", token) for number in range(100))
    rows += complaint_row("b@x.example", token) + complaint_row("B@X.example", token)
    mail.write_text(HEADER + sent + (rows if same_chunk else ""))
    if not same_chunk:
        later = tmp_path / "later.csv"
        later.write_text(HEADER + rows)
        files.append(AccountingFiles("later", [str(later)]))
    for source in files:
        read_all(ledger, source, most=1000)
    assert complained(ledger) == 2
    assert counters(ledger, "!member:tx1/other")["complained"] == 2
    (listed,) = ledger.apply([Suppressed("acme")])
    assert [entry.address for entry in cast("Listed", listed).entries] == ["b@x.example"]


def test_a_row_finds_recipient_and_member_when_the_story_is_forgotten(ledger: Ledger, tmp_path: Path) -> None:
    token, mail, later = TOKENS.make("acme", "4bQ1", AT), tmp_path / "mail.csv", tmp_path / "later.csv"
    mail.write_text(HEADER + row("d", "a@x.example", jobId="acme"))
    read_all(ledger, AccountingFiles("files", [str(mail)]))
    ledger.apply([Note(story.book("4bQ1"), story.TOPIC, {story.LOG: None})])
    later.write_text(HEADER + complaint_row("v@x.example", token) + complaint_row("A@x.example", token))
    read_all(ledger, AccountingFiles("later", [str(later)]))
    (listed,) = ledger.apply([Suppressed("acme")])
    assert [entry.address for entry in cast("Listed", listed).entries] == ["A@x.example"]
    assert (complained(ledger), counters(ledger, "!member:tx1/other")["complained"]) == (1, 1)


def test_a_row_about_a_queue_id_that_came_again_is_not_about_its_story() -> None:
    docket = Docket()
    mine: list[Event] = [Accepted(AT, "4bQ1", "beta"), attempt()]
    stale = Complaint(AT, "r@x.example", "abuse", TOKENS.make("acme", "4bQ1", AT))
    older = Complaint(AT, "r@x.example", "abuse", TOKENS.make("beta", "4bQ1", AT - 5 * 3600))
    too_old = Complaint(AT, "r@x.example", "abuse", TOKENS.make("beta", "4bQ1", AT - 36 * 86_400))
    counted = attribute(*mine, stale, older, too_old, docket=docket)
    assert [once.book for once in counted.once] == ["acme", "beta"]
    assert (counted.suppressions, counted.reports) == ({}, [])
    own = Complaint(AT, "r@x.example", "abuse", TOKENS.make("beta", "4bQ1", AT))
    assert list(attribute(*mine, own).suppressions) == ["beta"]


def test_a_complaint_about_a_tenant_that_only_the_ledger_knows(ledger: Ledger, tmp_path: Path) -> None:
    token, rows = TOKENS.make("stranger", "4bQ1", AT), tmp_path / "acct.csv"
    rows.write_text(HEADER + complaint_row("a@x.example", token))
    read_all(ledger, AccountingFiles("before", [str(rows)]), unknown_login={"plan": "p"})
    assert counters(ledger, "stranger")["complained"] == 0, "nobody of this name has sent anything"
    ledger.apply([Tally("stranger", {"delivered": 1}, at_ms=int(AT * 1000))])
    read_all(ledger, AccountingFiles("after", [str(rows)]), unknown_login={"plan": "p"})
    assert counters(ledger, "stranger")["complained"] == 1


def test_a_retry_that_is_blocked_again_is_no_news() -> None:
    """Three messages to one hostile mailbox, thirty retries each: three blocked, and then the giving up is no news either."""
    docket = Docket()
    spam = "450 4.7.1 Message rejected because of spam content"
    ids = ("4bQ1", "4bQ2", "4bQ3")
    events: list[Event] = [Accepted(AT, queue_id, "acme") for queue_id in ids]
    events += [replace(attempt(Outcome.DEFERRED, spam, queue_id=name), at=AT + n) for n in range(30) for name in ids]
    found = books(attribute(*events, docket=docket))
    assert [(found[book]["blocked"], found[book]["deferred"]) for book in ("acme", "!member:tx1/other")] == [(3, 90)] * 2
    written = story.read("4bQ1", {story.LOG: docket.find("4bQ1").dump()})
    assert written is not None
    again = Docket()
    again.recall(written)
    over = attempt(Outcome.BOUNCED, "", recipient="", given_up=True)
    found = books(attribute(replace(over, at=AT + 99), attempt(Outcome.DEFERRED, spam, recipient="b@x.example"), docket=again))
    assert (found["acme"]["bounced"], found["acme"]["blocked"]) == (1, 1), "another recipient is news"


def complained(ledger: Ledger) -> int:
    """A row counts when it was written, a complaint by mail when it comes."""
    hours: dict[int, Mapping[str, int]] = {}
    for at_ms in (int(AT * 1000), int(time.time() * 1000)):
        (found,) = ledger.apply([History("acme", at_ms - HOUR_MS, at_ms + HOUR_MS)])
        hours.update(cast("Hours", found).hours)
    return total(hours.values())["complained"]


def complaint(recipient: str, token: str) -> bytes:
    return f"""From: fbl@provider.example
To: fbl@relay.example
Subject: complaint
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=x

--x
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Test/1
Version: 1
Original-Rcpt-To: {recipient}
CFBL-Feedback-ID: {token}

--x--
""".encode()


TEXT = st.text(max_size=40)


@given(
    st.lists(
        st.one_of(
            st.builds(Accepted, st.just(AT), TEXT, TEXT, TEXT),
            st.builds(Attempt, st.just(AT), TEXT, TEXT, st.sampled_from(Outcome), TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT,
                      st.booleans(), st.booleans()),
            st.builds(Complaint, st.just(AT), TEXT, TEXT, TEXT),
            st.builds(Notified, st.just(AT), TEXT, TEXT, TEXT),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_property_whatever_a_source_says_can_be_written_down(events: list[Event]) -> None:
    docket = Docket()
    counted = attribute(*events, docket=docket, unknown_login={"plan": "p"})
    for book, amounts in books(counted).items():
        Tally(book, {}, {name: amount for name, amount in amounts.items() if name not in {"delivered", "deferred", "bounced"}})
    assert sum(names["delivered"] for book, names in books(counted).items() if not book.startswith("!member:")) <= len(events)
    for message in docket.changed():
        assert story.read(message.queue_id, {story.LOG: message.dump()}) is not None
