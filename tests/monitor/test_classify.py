"""What replies mean: providers' own words, forms of replies, order of rules, our own texts, and the command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywarden.ledger.operations import Refusal
from relaywarden.limits import Limit, Meter
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.classify.reply import parse
from relaywarden_monitor.classify.source import provider_of
from relaywarden_monitor.classify_command import classify
from relaywarden_monitor.verdict import Blame, Scope, Severity
from relaywarden_policyd.verdict import describe_refusal

CLASSIFIER = Classifier.load()
REPLIES = Path(__file__).parent / "data/replies.yaml"
KEYS = {"category", "scope", "blame", "severity", "wait", "provider", "rule"}


def meaning(reply: str, relay: str = "", status: str = "") -> str:
    verdict = CLASSIFIER.classify(reply, relay, status)
    return f"{verdict.scope.value}/{verdict.blame.value}"


def test_at_least_98_in_100_of_the_replies_mean_what_they_say() -> None:
    wrong = Counter[str]()
    groups = yaml.safe_load(REPLIES.read_text())
    for right, replies in groups.items():
        for reply in replies:
            relay, _, text = reply.rpartition("\t")
            wrong.update([] if (found := meaning(text, relay)) == right else [f"{reply}: {found}, not {right}"])
    total = sum(map(len, groups.values()))
    assert total >= 1000
    assert wrong.total() <= 0.02 * total, "\n".join(wrong)


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.1.1 <a@b.example>: Recipient address rejected: User unknown",
        "550-5.1.1 <a@b.example>: Recipient address rejected: 550 5.1.1 User unknown",
        "550-5.1.1 <a@b.example>: Recipient address rejected:\r\n550 5.1.1 User unknown\r\n",
        "smtp; 550 5.1.1 <a@b.example>: Recipient address rejected: User unknown",
        "SMTP; 550 <a@b.example>: Recipient address rejected: User unknown (#5.1.1)",
        "host mx.b.example[192.0.2.1] said: 550 5.1.1 <a@b.example>: User unknown (in reply to RCPT TO command)",
        "SMTP error from remote mail server after RCPT TO:<a@b.example>: 550 5.1.1 <a@b.example>: User unknown",
        "<a@b.example>: Recipient address rejected: User unknown",
        "550 5.1.1 <a@b.example>: Recipient address rejected:#015#012User unknown",
    ],
)  # fmt: skip
def test_the_form_of_a_reply_does_not_matter(reply: str) -> None:
    found = CLASSIFIER.classify(reply)
    assert (found.category, found.scope, found.blame) == ("no-mailbox", Scope.MAILBOX, Blame.RECIPIENT)
    said = parse(reply)
    assert (said.code, said.enhanced) in {(550, "5.1.1"), (0, "")}


@pytest.mark.parametrize(
    ("reply", "status", "temporary"),
    [
        ("421 4.7.0 hello", "", True),
        ("550 hello", "", False),
        ("hello", "4.4.1", True),
        ("hello", "5.1.1", False),
        ("connect to mx.b.example[192.0.2.1]:25: Connection timed out", "", True),
        ("User unknown", "", False),
        ("450-4.2.1 text 550 5.1.1 text", "5.0.0", True),
    ],
)
def test_temporary(reply: str, status: str, temporary: bool) -> None:
    assert CLASSIFIER.classify(reply, "", status).temporary is temporary


@pytest.mark.parametrize(
    ("status", "reply", "right"),
    [
        ("5.1.1", "sorry", "mailbox/recipient"),
        ("4.2.2", "sorry", "full/recipient"),
        ("5.7.25", "sorry", "infra/pool"),
        ("5.7.26", "sorry", "auth/customer"),
        ("4.3.1", "sorry", "infra/recipient"),
        ("", "550 sorry (in reply to end of DATA command)", "content/customer"),
        ("", "550 sorry (in reply to MAIL FROM command)", "policy/customer"),
        ("", "550 5.7.1 message rejected (in reply to end of DATA command)", "content/customer"),
        ("", "550 5.7.1 message rejected by local policy (in reply to end of DATA command)", "policy/recipient"),
        ("", "550 5.7.1 rejected (in reply to MAIL FROM command)", "policy/customer"),
        ("", "550 5.7.1 message rejected", "policy/recipient"),
        ("", "host mx.b.example[192.0.2.1] refused to talk to me: 554 mx.b.example", "ip/pool"),
        ("", "host mx.b.example[192.0.2.1] refused to talk to me: 421 mx.b.example", "infra/recipient"),
        ("", "550 sorry", "mailbox/recipient"),
        ("", "552 sorry", "full/recipient"),
        ("5.7.1", "sorry", "policy/recipient"),
        ("5.1.1", "550 5.7.1 mailbox is full", "full/recipient"),
    ],
)
def test_text_first_then_the_code(status: str, reply: str, right: str) -> None:
    assert meaning(reply, "", status) == right


def test_nothing_is_known_of_nothing() -> None:
    for nothing in ("", " ", "\x00", "xyzzy"):
        assert CLASSIFIER.classify(nothing).rule == "nothing"
    assert CLASSIFIER.classify("550").rule == "status-code"


@pytest.mark.parametrize(
    ("reply", "relay", "wait"),
    [
        (
            "421 4.7.28 unusual rate of unsolicited mail originating from your IP address",
            "gmail-smtp-in.l.google.com[192.0.2.1]:25",
            600,
        ),
        ("421 4.7.0 [TSS05] Messages temporarily deferred", "mta5.am0.yahoodns.net", 14400),
        ("421 Too many spams from your IP", "", 86400),
        ("451 Internal resource temporarily unavailable", "us-smtp-inbound-1.mimecast.com", 60),
        ("550 5.1.1 User unknown", "", None),
    ],
)
def test_waits_follow_the_providers_rule(reply: str, relay: str, wait: int | None) -> None:
    assert CLASSIFIER.classify(reply, relay).wait == wait


def test_known_spammer_is_a_lost_reputation() -> None:
    for reply in ("550 5.7.1 MailBlockKnownSpammer", "554 Rejected: mailblockknownspammer-abc 192.0.2.1"):
        found = CLASSIFIER.classify(reply)
        assert (found.scope, found.blame, found.severity) == (Scope.IP, Blame.POOL, Severity.HIGH)


@pytest.mark.parametrize(
    ("relay", "text", "provider"),
    [
        ("mx1.hotmail.com[192.0.2.1]:25", "", "microsoft"),
        ("dns; gmail-smtp-in.l.google.com", "", "google"),
        ("MTA7.AM0.YAHOODNS.NET.", "", "yahoo"),
        ("gmail.com", "", "google"),
        ("Yahoo", "", "yahoo"),
        ("exchangeonline", "", "microsoft"),
        ("mx.b.example[192.0.2.1]", "see postmaster.live.com", "microsoft"),
        ("", "421 4.7.0 [tss04] messages deferred", "yahoo"),
        ("mx.b.example", "no marks", "other"),
        ("[" * 400, "", "other"),
    ],
)
def test_the_provider_is_known_by_host_or_marks(relay: str, text: str, provider: str) -> None:
    assert provider_of(relay, text) == provider


def test_a_code_that_others_use_too_is_gated_by_provider() -> None:
    assert CLASSIFIER.classify("550 5.7.25 no", "aspmx.l.google.com").rule == "google-ptr"
    assert CLASSIFIER.classify("550 5.7.25 no", "mx.b.example").rule == "status-code"


def test_unmistakable_words_need_no_provider() -> None:
    for relay in ("", "mx.b.example", "mx.comcast.net"):
        assert CLASSIFIER.classify("421 4.7.0 [TSS04] Messages from 192.0.2.1 deferred", relay).rule == "yahoo-volume"


def test_names_in_addresses_and_hosts_do_not_count() -> None:
    assert meaning("550 5.1.1 <spam-quota@virus.example>: User unknown") == "mailbox/recipient"
    assert meaning("host spamfilter.b.example[192.0.2.1] said: 550 5.1.1 User unknown") == "mailbox/recipient"


def test_operators_rules_are_asked_first_and_gated(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "source: 'own 2026-11-24'\n"
        "rules:\n  - {name: mine, match: 'USER UNKNOWN', providers: [google], category: ip-blocked, wait: 2h}\n"
    )
    mine = Classifier.load([path])
    assert mine.classify("550 User unknown", "aspmx.l.google.com").rule == "mine"
    assert mine.classify("550 User unknown", "aspmx.l.google.com").wait == 7200
    assert mine.classify("550 User unknown", "mta5.am0.yahoodns.net").rule == "no-mailbox"


def own_texts() -> list[str]:
    limits = [Limit.parse(meter, text) for meter in Meter for text in ("500/hour", "3/30d")]
    limits.append(Limit.parse(Meter.RECIPIENTS, "10/s burst 50"))
    refusals = [Refusal("key", 500, 500, 700_000), Refusal("key", 10, 5, None)]
    texts = [describe_refusal(limit, refusal) for limit in [None, *limits] for refusal in refusals]
    return [
        *texts,
        "Sending is suspended for this account, ask your provider",
        "This login may not send mail here, ask your provider",
        "This login may not send mail from brand.example; use a From address in a domain of your account",
        "Sending limits cannot be checked at the moment, try again in a minute",
        "Too many recipients in one message, at most 50 are allowed",
        "Message of 30MiB is too large, at most 25MiB are allowed",
        "This relay cannot take more mail of this kind at the moment, try again later",
        "This message cannot be signed at the moment, try again later",
        "Content scan is unavailable, try again later",
        "Message refused: the From header has no address",
    ]


@pytest.mark.parametrize("text", own_texts())
def test_our_own_words_are_ours(text: str) -> None:
    for reply in (text, f"450 4.7.1 {text}", f"550 5.7.1 <a@b.example>: Recipient address rejected: {text}"):
        assert CLASSIFIER.classify(reply).own


def test_others_words_are_not_ours() -> None:
    replies = [reply for group in yaml.safe_load(REPLIES.read_text()).values() for reply in group]
    assert not [reply for reply in replies if CLASSIFIER.classify(reply).own]


@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))), st.text(), st.text())
def test_nothing_makes_it_raise(reply: str, relay: str, status: str) -> None:
    found = CLASSIFIER.explain(reply, relay, status)
    assert found.verdict == CLASSIFIER.classify(reply, relay, status)
    assert found.matched.isprintable()


# --- the command


def run(text: str, *arguments: str, config: Path = Path("/nonexistent/relaywarden.yaml")) -> Result:
    return CliRunner().invoke(classify, list(arguments), input=text, obj=config)


def test_json_has_one_object_a_line_also_for_an_empty_one() -> None:
    lines = ["mx.b.example[192.0.2.1]:25\t550 5.1.1 User unknown", "", "\t", "421 4.7.0 [TSS04] deferred", "550 \x1b[31m spam"]
    result = run("\n".join(lines), "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [item["rule"] for item in found] == ["no-mailbox", "nothing", "nothing", "yahoo-volume", "spam"]
    assert all(item.keys() >= KEYS for item in found)
    assert found[3]["provider"] == "yahoo"


@settings(max_examples=8)  # each reads all the rules
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")), max_size=9))
def test_as_many_answers_as_lines(lines: list[str]) -> None:
    result = run("".join(f"{line}\n" for line in lines), "--json")
    assert len(result.stdout.splitlines()) == len(lines)


def test_a_long_line_has_one_answer() -> None:
    assert len(run(f"550 {'x' * 200_000}\n550 spam\n", "--json").stdout.splitlines()) == 2


def test_an_answer_for_people_names_rule_source_and_match() -> None:
    shown = run("550 5.7.1 messages weren't sent, part of their network is on our block list (S3150)\n").stdout
    for text in (
        "ip-blocked",
        "pool",
        "high",
        "microsoft-network-blocked",
        "on our block list (s3150)",
        "S3150",
        "smtp-field-manual",
    ):
        assert text in shown


def test_rules_come_from_the_option_and_from_the_configuration(tmp_path: Path) -> None:
    for name in ("one", "two"):
        rule = f"{{name: {name}, match: 'word {name}', category: ip-blocked, source: 'own 2026-11-24'}}"
        (tmp_path / f"{name}.yaml").write_text(f"rules: [{rule}]\n")
    config = tmp_path / "relaywarden.yaml"
    config.write_text(f"monitor: {{rules: [{tmp_path}/two.yaml]}}\n")
    result = run("word one\nword two\n", "--json", "--rules", str(tmp_path / "one.yaml"), config=config)
    assert [json.loads(line)["rule"] for line in result.stdout.splitlines()] == ["one", "two"]


def test_files_are_read_in_order_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"550 spam\n550 caf\xe9 User unknown")
    (tmp_path / "b").write_text("452 4.2.2 Mailbox full\n")
    result = run("", "--json", str(tmp_path / "a"), str(tmp_path / "b"))
    assert [json.loads(line)["category"] for line in result.stdout.splitlines()] == [
        "spam-content",
        "no-mailbox",
        "mailbox-full",
    ]
    missing = run("", str(tmp_path / "c"))
    assert missing.exit_code == 1
    assert str(tmp_path / "c") in missing.output
