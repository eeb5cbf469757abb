"""The judgement of written messages, its margins, and the command that prints it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import pytest

from relaywarden.content import features, lexicon, text
from relaywarden.content.judge import BULK, TRANSACTIONAL, judge
from relaywarden.content.weights import WEIGHTS
from relaywarden_monitor.message_command import classify_messages
from templates_render import Sample, written

MESSAGES = Path(__file__).parents[2] / "bench/messages"
OTP = "Your verification code is 482913. It expires in 10 minutes. If you did not request it, ignore this email."
RESET = (
    "Hi Anna,\nyou requested a password reset. Follow https://id.example/r/8f3c within one hour. Not you? Ignore this email."
)
RECEIPT = "Thank you for your order. Order number A-482913. Subtotal EUR 20.00, VAT 20%, total EUR 24.00. Paid by Visa."
SALE = "Our summer sale ends tonight! Save 30% on everything with code SUN30. Shop now. Free shipping. Unsubscribe"
LETTER = (
    "In this issue: five recipes, what to plant this month, our events. Read more on our blog. Unsubscribe | View in browser"
)
LISTED = [("List-Unsubscribe", "<https://x.example/u>"), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")]
PEOPLE = [("From", "Shop <mail@shop.example>"), ("To", "anna@mailbox.example")]
FOOTER = "<img src=a><img src=b><img src=c width=1 height=1><p>Follow us. Manage preferences. Unsubscribe. View in browser.</p>"


@pytest.fixture(scope="module")
def apart() -> list[tuple[Sample, float]]:
    return [(sample, judge(*text.split(sample.message)).score) for sample in written(MESSAGES / "apart.txt", seed=3)]


def test_written_messages_of_eleven_languages(apart: list[tuple[Sample, float]]) -> None:
    alarms = [sample.where for sample, score in apart if sample.stream == "transactional" and score >= BULK]
    missed = [sample.where for sample, score in apart if sample.stream == "bulk" and score < BULK]
    unsure = [sample.where for sample, score in apart if TRANSACTIONAL <= score < BULK]
    assert alarms == []
    assert len(missed) <= 6, missed
    assert len(unsure) <= 6, unsure


@pytest.mark.parametrize(("subject", "body"), [("Your code", OTP), ("Password reset", RESET), ("Your receipt", RECEIPT)])
@pytest.mark.parametrize("headers", [[], LISTED])
@pytest.mark.parametrize("footer", ["", FOOTER])
def test_business_with_one_person_keeps_its_margin(
    subject: str, body: str, headers: list[tuple[str, str]], footer: str
) -> None:
    given = [*PEOPLE, ("Subject", subject), ("Content-Type", "text/html"), *headers]
    found = judge(given, f"<body><p>{body}</p>{footer}</body>".encode())
    assert found.stream == "transactional"
    assert found.score < 0.3, found


def test_a_code_in_the_subject_is_enough() -> None:
    given = [*PEOPLE, ("Subject", "Kode 482913"), ("Content-Type", "text/html"), *LISTED]
    assert judge(given, f"<body><p>Masukkan kode ini.</p>{FOOTER}</body>".encode()).score < 0.3


def test_a_quota_is_no_discount() -> None:
    given = [*PEOPLE, ("Subject", "Usage alert: 80% of your quota used"), *LISTED]
    body = b"Your app sent 80,000 of 100,000 emails of your plan. At 100% we stop. Upgrade to avoid interruption."
    assert judge(given, body).stream == "transactional"


@pytest.mark.parametrize("end", ["ends in 3 days", "has expired"])
def test_the_end_of_a_trial_is_business(end: str) -> None:
    body = b"Hi Anna, we keep your data for 30 days. To keep your account, choose a plan. Unsubscribe"
    assert judge([*PEOPLE, ("Subject", f"Your free trial {end}"), *LISTED], body).stream == "transactional"


@pytest.mark.parametrize(("subject", "body"), [("Last chance: 30% off", SALE), ("What to plant this month", LETTER)])
@pytest.mark.parametrize("headers", [[], LISTED])
def test_mailings_keep_theirs(subject: str, body: str, headers: list[tuple[str, str]]) -> None:
    found = judge([*PEOPLE, ("Subject", subject), *headers], body.encode())
    assert found.stream == "bulk"
    assert found.score > 0.7, found


def test_weights_keep_the_sign_that_a_person_gave_them() -> None:
    assert [name for name, weight in WEIGHTS.items() if weight.guess * weight.worth < 0.0] == []


@pytest.mark.parametrize(
    "header",
    [*LISTED, ("List-Id", "<a.list.example>"), ("Precedence", "bulk"), ("X-Campaign-ID", "7"), ("X-Mailer", "Mailchimp")],
)
def test_no_header_convicts_alone(header: tuple[str, str]) -> None:
    body = b"Dear Anna, I wanted to tell you that the meeting takes place in the other building."
    neutral = judge(PEOPLE, body)
    found = judge([*PEOPLE, header], body)
    assert found.stream != "bulk"
    assert found.score > neutral.score


def test_a_message_that_shows_nothing_is_not_bulk() -> None:
    assert judge([], b"").stream != "bulk"


def test_list_unsubscribe_does_not_convict() -> None:
    plain = [*PEOPLE, ("Subject", "Hello"), ("Content-Type", "text/plain")]
    body = b"Dear Anna, I wanted to tell you that the meeting takes place in the other building."
    assert judge([*plain, *LISTED], body).stream != "bulk"
    assert judge(plain, body).score < judge([*plain, *LISTED], body).score


def test_more_recipients_are_no_less_bulk() -> None:
    scores = [judge([*PEOPLE, ("Subject", "News")], LETTER.encode(), recipients).score for recipients in (1, 6, 20, 500)]
    assert scores == sorted(scores)


def test_reasons_name_words_and_speak_both_ways() -> None:
    found = judge([*PEOPLE, ("Subject", "Last chance")], SALE.encode())
    assert any("sale" in reason for reason in found.reasons)
    assert all(reason.startswith("-") for reason in judge(PEOPLE, OTP.encode()).reasons)


def test_a_hostile_header_name_is_not_repeated() -> None:
    found = judge([("X-Campaign\x1b[31m", "1"), *PEOPLE], b"hello")
    assert all(reason.isprintable() for reason in found.reasons)


def test_a_look_may_be_shared_with_the_fingerprint() -> None:
    seen = text.look(PEOPLE, SALE.encode())
    assert judge(PEOPLE, seen) == judge(PEOPLE, SALE.encode())
    assert judge(PEOPLE, dataclasses.replace(seen, images=12)).score >= judge(PEOPLE, seen).score


def test_every_feature_has_its_weight() -> None:
    measured = {name for sample in written(MESSAGES / "tuning.txt") for name in features.measure(*_looked(sample)).values}
    assert measured <= WEIGHTS.keys()
    assert {*features.BULK_KINDS, *features.BUSINESS_KINDS} == {kind for kinds in lexicon.ENTRIES.values() for kind in kinds}


def test_entries_are_one_or_two_words() -> None:
    assert [entry for entry in lexicon.ENTRIES if len(entry.split()) > 2] == []


def test_the_command_prints_one_object_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for number, body in enumerate((RECEIPT, SALE)):
        paths.append(tmp_path / f"{number}\x1b.eml")
        paths[-1].write_bytes(f"From: a@b.example\r\nTo: c@d.example\r\nSubject: x\r\n\r\n{body}".encode())
    classify_messages(paths, as_json=True)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(answer["file"], answer["stream"]) for answer in answers] == [
        (str(paths[0]), "transactional"),
        (str(paths[1]), "bulk"),
    ]
    assert answers[0]["score"] < 0.3
    assert answers[1]["score"] > 0.7
    assert all(isinstance(reason, str) for answer in answers for reason in answer["reasons"])
    classify_messages(paths, as_json=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "transactional (0." in shown


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"missing\.eml: cannot be read: No such file"):
        classify_messages([tmp_path / "missing.eml"], as_json=True)


def _looked(sample: Sample) -> tuple[text.Headers, text.Look]:
    headers, body = text.split(sample.message)
    return headers, text.look(headers, body)
