"""Bounce messages, complaints and what is neither: each fixture of data/reports against its row in expected.tsv."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from relaywarden.errors import RelaywardenError
from relaywarden.feedback import Tokens
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.reports import address, arf, mime
from relaywarden_monitor.reports.command import classify_reports
from relaywarden_monitor.reports.read import read
from relaywarden_monitor.reports.report import Kind, Report
from relaywarden_monitor.verdict import Scope

DATA = Path(__file__).parent / "data" / "reports"
ROWS = [line.split("\t") for line in (DATA / "expected.tsv").read_text().splitlines()[1:]]
TOKENS = Tokens(bytes(range(32)))
TOKEN = TOKENS.make("acme", "3Pt2mN2VXxznjll", 1_795_514_400.0)
FORGED = ("b" if TOKEN[0] != "b" else "c") + TOKEN[1:]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


def fixture(classifier: Classifier, name: str, envelope_to: str = "", **replaced: str) -> list[Report]:
    data = (DATA / f"{name}.eml").read_text()
    for old, new in replaced.items():
        before, data = data, data.replace(old.replace("_", " "), new)
        assert data != before
    return read(data.encode(), classifier.classify, TOKENS, envelope_to)


def test_every_fixture_has_a_row() -> None:
    assert sorted(row[0] for row in ROWS) == sorted(path.stem for path in DATA.glob("*.eml"))
    assert len(ROWS) >= 60


@pytest.mark.parametrize(("name", "kind", "recipients", "status", "said"), ROWS, ids=[row[0] for row in ROWS])
def test_a_message_is_what_it_is(classifier: Classifier, name: str, kind: str, recipients: str, status: str, said: str) -> None:
    found = fixture(classifier, name)
    if kind == "bounce":
        found = [report for report in found if report.kind is Kind.BOUNCE]
    assert [report.kind.value for report in found] == [kind] * len(found)
    assert ",".join(report.recipient for report in found) == recipients
    assert found[0].status == status
    assert said == (found[0].feedback_type or found[0].action)
    assert (found[0].verdict is not None) == (found[0].action in {"failed", "delayed"})


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("postfix-dsn", Scope.MAILBOX), ("qmail", Scope.MAILBOX), ("exim", Scope.MAILBOX), ("zimbra", Scope.FULL),
        ("docomo", Scope.MAILBOX), ("domino", Scope.MAILBOX), ("netscape", Scope.FULL), ("sendmail-dsn", Scope.CONTENT),
    ],
)  # fmt: skip
def test_the_reply_is_told_apart_from_the_words_around_it(classifier: Classifier, name: str, scope: Scope) -> None:
    verdict = fixture(classifier, name)[0].verdict
    assert verdict is not None
    assert verdict.scope is scope


def test_the_facts_of_a_notification(classifier: Classifier) -> None:
    [report] = fixture(classifier, "postfix-dsn")
    assert report.reply == "550 5.1.1 <kai@example.org>: Recipient address rejected: User unknown in virtual mailbox table"
    assert (report.relay, report.reporter, report.queue_id) == ("mx.example.org", "relay.example", "3Pt2mN2VXxznjll")
    assert (report.message_id, report.at) == ("order-17@acme.example", 1_795_514_400.0)
    assert fixture(classifier, "powermta")[0].vmta == "tx1"
    assert fixture(classifier, "qmail")[0].reply == "550 5.1.1 <nobody@example.org>... User unknown"
    assert fixture(classifier, "exim")[0].relay == "mx.example.org"
    assert [report.status for report in fixture(classifier, "sendmail-two")] == ["5.1.1", "5.2.2"]


def test_a_token_leads_back_from_wherever_it_comes(classifier: Classifier) -> None:
    place = f"Feedback-ID: {TOKEN}:t1a2b3c4:transactional:relayex\nMessage-ID: <o"
    folded = f"CFBL-Feedback-ID: {TOKEN[:20]}\n\t{TOKEN[20:].upper()}\nMessage-ID: <o"
    for name in ("arf", "postfix-dsn"):
        for replaced in ({"Message-ID:_<o": place}, {"Message-ID:_<o": folded}, {"To:_kai": f"To: fbl+{TOKEN}@x.example,kai"}):
            [report] = fixture(classifier, name, **replaced)
            assert report.token == TOKEN
            assert report.opened is not None
            assert report.queue_id == report.opened.queue_id == "3Pt2mN2VXxznjll"
            assert not report.forged
    [report] = fixture(classifier, "verp-only", f"bounce+{TOKEN}@relay.example")
    assert (report.token, report.recipient) == (TOKEN, "tim@example.org")
    [report] = fixture(classifier, "arf", **{"Version:_1": f"Version: 1\nOriginal-Envelope-Id: {TOKEN}"})
    assert report.token == TOKEN


def test_a_token_that_does_not_verify_opens_nothing_and_is_said_to_be_forged(classifier: Classifier) -> None:
    for envelope_to in (f"fbl+{FORGED}@relay.example", f"fbl+{TOKEN[:-1]}@relay.example"):
        [report] = fixture(classifier, "arf", envelope_to)
        assert (report.token, report.opened, report.forged) == ("", None, True)
    assert not fixture(classifier, "arf", "fbl@relay.example")[0].forged
    one = read((DATA / "arf.eml").read_bytes(), classifier.classify, None, f"fbl+{TOKEN}@relay.example")[0]
    assert (one.token, one.forged) == ("", False)


def test_all_fields_of_a_feedback_report() -> None:
    found = arf.find(mime.parse((DATA / "arf.eml").read_bytes()))
    assert found == arf.ArfReport(
        feedback_type="abuse", user_agent="SomeGenerator/1.0", version=1, arrival_date=1_795_510_800,
        original_mail_from="<shop@acme.example>", original_rcpt_to=("<kai@example.org>",), reported_domain=("acme.example",),
        reported_uri=("http://acme.example/a", "http://acme.example/b"), reporting_mta="mail.isp.example",
        source_ip="192.0.2.11",
    )  # fmt: skip
    redacted = arf.find(mime.parse((DATA / "arf-redacted.eml").read_bytes()))
    assert redacted is not None
    assert redacted.source_ip == "2001:db8::11"
    assert redacted.headers == "From: shop@acme.example\nTo: redacted@example.net"


@pytest.mark.parametrize(
    ("sender", "recipient"),
    [
        ("bounce+user=example.com@relay.example", "user@example.com"),
        ("<bounces-17-user=Example.COM@relay.example>", "user@example.com"),
        ("bounce-2a9f01c7-first-last=example.com@relay.example", "first-last@example.com"),
        ("news-bounces+a.b=example.co.uk@relay.example", "a.b@example.co.uk"),
        ("prvs=1234567890=user@relay.example", ""), ("SRS0=abcd=T1=example.com=user@fwd.example", ""),
        ("user@example.com", ""), ("a=b@example.com", ""),
    ],
)  # fmt: skip
def test_the_recipient_in_a_variable_return_path(sender: str, recipient: str) -> None:
    assert address.recipient_of_verp(sender) == recipient


def test_one_object_a_message_and_one_line_an_object(
    classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = tmp_path / "box"
    box.write_bytes(
        b"".join(
            b"From MAILER-DAEMON Tue Nov 24 10:00:00 2026\n" + (DATA / f"{name}.eml").read_bytes() + b"\n"
            for name in ("postfix-mixed", "arf", "person")
        )
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((DATA / "qmail.eml").read_bytes())))
    classify_reports([box, Path("-")], True, classifier, TOKENS)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["kind"] for one in found] == ["bounce", "complaint", "not-a-report", "bounce"]
    assert found[0]["recipient"] == "bob@example.net"  # the first that failed, not the first
    assert [one["recipient"] for one in found[0]["recipients"]] == ["ann@example.org", "bob@example.net"]
    assert found[1].keys() >= {"file", "kind", "recipient", "status", "category", "scope", "blame", "feedback_type", "token"}
    assert found[3]["scope"] == "mailbox"

    classify_reports([DATA / "arf.eml"], False, classifier, None)
    assert "feedback type: abuse" in capsys.readouterr().out
    with pytest.raises(RelaywardenError, match="nowhere"):
        classify_reports([tmp_path / "nowhere"], True, classifier, None)


def test_nothing_that_a_report_says_reaches_a_terminal_raw(classifier: Classifier) -> None:
    data = (DATA / "postfix-dsn.eml").read_bytes().replace(b"User unknown in", b"User \x1b[2J\x07\x9b unknown")
    [report] = read(data.replace(b"mx.example.org\n", b"mx.\x1b[31m\n"), classifier.classify)
    for value in (report.reply, report.relay, report.recipient, report.message_id, report.reporter):
        assert value.isprintable()
    assert "unknown" in report.reply
