"""What each stage does to a message: standing, sender, form, streams, labels; all by the pipeline, without a socket."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relaywarden import story
from relaywarden.config.settings import Settings
from relaywarden.feedback import Tokens
from relaywarden.ledger.operations import Score
from relaywarden.ledger.records import Note
from relaywarden.steering import Words
from relaywarden_milter.edits import Add, Change
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.headers import Header
from relaywarden_milter.message import Message
from relaywarden_milter.outcome import Outcome
from relaywarden_milter.pipeline import handle
from relaywarden_milter.rules import Rules
from testbed.rspamd import Rspamd

GOOD: list[Header] = [
    ("From", b"Acme <a@acme.example>"), ("To", b"b@x.example"), ("Subject", b"hi"),
    ("Date", b"Tue, 24 Nov 2026 08:00:00 +0000"), ("Message-ID", b"<1@acme.example>"),
]  # fmt: skip
POOLS = {
    "transactional": {"members": {"tx1": {"ip": "192.0.2.1"}}},
    "bulk": {"members": {"bk1": {"ip": "192.0.2.3"}}},
    "quarantine": {"members": {"q1": {"ip": "192.0.2.4"}}},
}


class Desk:
    """One configuration, and what it makes of messages."""

    def __init__(self, keys: Any, plan: dict[str, Any] | None = None, **change: Any) -> None:
        document = {
            "plans": {"p": plan or {}},
            "tenants": {
                "acme": {"plan": "p", "from_domains": ["acme.example"], "dkim": [keys.setting("acme.example", "st")]},
                "bank": {"plan": "p", "from_domains": ["bank.example"]},
            },
            "operator": {"dkim": [keys.setting("relay.example", "st", "rsa2")]},
            "pools": POOLS,
            **change,
        }
        self.rules = Rules(Settings.model_validate(document))

    def judge(
        self, headers: list[Header], body: bytes = b"hello\r\n", sender: str = "bounce@mail.acme.example",
        recipients: Sequence[str] = ("b@x.example",), eight_bit: bool = False,
    ) -> Outcome:  # fmt: skip
        envelope = Envelope("192.0.2.9", 4000, "h", "h", "m", "acme", sender, list(recipients), "4Q", eight_bit)
        message = Message(2**20, keep_body=self.rules.keeps_body("acme"))
        for name, value in headers:
            message.add_header(name, value)
        message.add_body(body)
        outcome = handle(self.rules, envelope, message)
        message.close()
        return outcome


def added(outcome: Outcome, name: str) -> list[str]:
    return [step.value for step in outcome.steps if isinstance(step, Add) and step.name == name]


def signers(outcome: Outcome) -> list[str]:
    return [re.sub(r"\s", "", value).partition("d=")[2].partition(";")[0] for value in added(outcome, "DKIM-Signature")]


def reply(outcome: Outcome) -> str:
    return f"{outcome.refusal.code} {outcome.refusal.enhanced} {outcome.refusal.text}" if outcome.refusal else ""


def with_(*more: Header, drop: str = "") -> list[Header]:
    return [*(header for header in GOOD if header[0] != drop), *more]


FOREIGN = with_(("From", b"x@evil.example"), drop="From")


@pytest.mark.parametrize(
    ("action", "refused", "signed", "tag"),
    [
        ("reject", True, [], []),
        ("resign", False, ["relay.example"], []),
        ("tag", False, ["relay.example"], ["foreign-from evil.example"]),
    ],
)
def test_a_foreign_from(keys: Any, action: str, refused: bool, signed: list[str], tag: list[str]) -> None:
    outcome = Desk(keys, {"identity": {"foreign_from": action}}).judge(FOREIGN)
    assert (reply(outcome)[:9] == "550 5.7.1") is refused
    assert signers(outcome) == signed
    assert added(outcome, "X-Relaywarden-Identity") == tag


def test_a_foreign_from_is_never_sent_unsigned(keys: Any) -> None:
    outcome = Desk(keys, {"identity": {"foreign_from": "resign"}}, operator={}).judge(FOREIGN)
    assert reply(outcome).startswith("550 5.7.1")


def test_sender_and_envelope_where_the_plan_asks(keys: Any) -> None:
    desk = Desk(keys, {"identity": {"check_sender": True, "check_envelope": True}})
    assert signers(desk.judge(GOOD)) == ["relay.example", "acme.example"]  # a bounce subdomain is related
    assert "evil.example" in reply(desk.judge(GOOD, sender="x@evil.example"))
    assert not reply(desk.judge(GOOD, sender=""))
    assert "evil.example" in reply(desk.judge(with_(("Sender", b"x@evil.example"))))
    assert not reply(desk.judge(with_(("Sender", b"x@mail.acme.example"))))
    assert reply(desk.judge(with_(("Sender", b"a@acme.example"), ("Sender", b"a@acme.example"))))
    assert not reply(Desk(keys).judge(with_(("Sender", b"x@evil.example")), sender="x@evil.example"))  # not asked


@pytest.mark.parametrize(
    ("action", "refused", "noted"), [("ignore", False, False), ("signal", False, True), ("reject", True, True)]
)
def test_a_name_that_shows_another_tenant(keys: Any, action: str, refused: bool, noted: bool) -> None:
    desk = Desk(keys, {"identity": {"spoofed_name": action}})
    outcome = desk.judge(with_(("From", b'"service@bank.example" <a@acme.example>'), drop="From"))
    assert bool(reply(outcome)) is refused
    assert (outcome.record.get("spoofed_name") == "bank.example") is noted
    assert "spoofed_name" not in desk.judge(with_(("From", b'"acme.example shop" <a@acme.example>'), drop="From")).record


def test_observe_refuses_none_of_it(keys: Any) -> None:
    desk = Desk(keys, {"mode": "observe", "bulk": "reject"}, lint={"missing_headers": "refuse"})
    outcome = desk.judge([("From", b"x@evil.example"), ("Precedence", b"bulk"), ("List-Id", b"x")])
    assert outcome.result == "accepted"
    assert "observed" in outcome.record
    assert signers(outcome) == ["relay.example"]


def test_repairs_come_before_the_signature(keys: Any) -> None:
    desk = Desk(keys)
    outcome = desk.judge([("From", b"a@acme.example"), ("Subject", b"one"), ("Subject", b"two")], "Grüße\r\n".encode())
    assert added(outcome, "Date")
    assert added(outcome, "Message-ID")[0].endswith("@acme.example>")
    assert Change("Subject", 2, None) in outcome.steps
    assert added(outcome, "Content-Transfer-Encoding") == ["quoted-printable"]
    assert outcome.body is not None
    assert b"".join(outcome.body) == b"Gr=C3=BC=C3=9Fe\r\n"
    outcome.body.close()
    first = next(i for i, step in enumerate(outcome.steps) if isinstance(step, Add) and step.name == "DKIM-Signature")
    assert all(isinstance(step, Add) and step.name == "DKIM-Signature" for step in outcome.steps[first:])


def test_what_may_not_be_repaired_is_refused_with_a_text(keys: Any) -> None:
    refuse = {"eight_bit": "refuse", "duplicate_headers": "refuse", "long_lines": "refuse"}
    desk = Desk(keys, lint=refuse)
    assert "8-bit" in reply(desk.judge(GOOD, b"\xfc\r\n"))
    assert not reply(desk.judge(GOOD, b"\xfc\r\n", eight_bit=True))
    assert "Subject" in reply(desk.judge(with_(("Subject", b"again"))))
    assert "1200" in reply(desk.judge(GOOD, b"x" * 1200 + b"\r\n"))
    ignoring = Desk(keys, lint={"long_lines": "ignore"}).judge(GOOD, b"x" * 1200 + b"\r\n")
    assert (reply(ignoring), ignoring.body) == ("", None)


BULK = with_(("Precedence", b"bulk"), ("List-Id", b"<news.acme.example>"))


@pytest.mark.parametrize(("action", "pool"), [("allow", "tx1"), ("divert", "bk1"), ("reject", None)])
def test_bulk_mail(keys: Any, action: str, pool: str | None) -> None:
    outcome = Desk(keys, {"bulk": action}).judge(BULK)
    assert added(outcome, "X-Virtual-MTA") == ([pool] if pool else [])
    assert bool(reply(outcome)) is (pool is None)
    receipt = with_(("List-Unsubscribe", b"<https://acme.example/u>"), ("List-Unsubscribe-Post", b"List-Unsubscribe=One-Click"))
    assert added(Desk(keys, {"bulk": action}).judge(receipt), "X-Virtual-MTA") == ["tx1"]  # no single header convicts


def test_observe_does_not_divert_bulk_mail(keys: Any) -> None:
    outcome = Desk(keys, {"mode": "observe", "bulk": "divert"}).judge(BULK)
    assert added(outcome, "X-Virtual-MTA") == ["tx1"]
    assert outcome.record["observed"] == "divert to bulk"


def test_what_was_said_of_a_tenant(keys: Any) -> None:
    desk = Desk(keys)
    desk.rules.hear(Words(tenants={"acme": {"divert": "complaints"}}))
    assert added(desk.judge(GOOD), "X-Virtual-MTA") == ["q1"]
    desk.rules.hear(Words(tenants={"acme": {"hold": "burst"}}))
    held = desk.judge(GOOD)
    assert (held.result, held.hold) == ("held", "burst")
    desk.rules.hear(Words(tenants={"acme": {"suspended": {"reason": "stolen"}}}))
    assert reply(desk.judge(GOOD)).startswith("550 5.7.1")
    desk.rules.hear(Words(tenants={"acme": {"suspended": {"reason": "stolen", "until_ms": 1}}}))
    assert not reply(desk.judge(GOOD))  # it is over


def test_powermta_is_told_tenant_and_message(keys: Any) -> None:
    outcome = Desk(keys, route={"powermta": True}).judge(with_(("X-Job", b"forged"), ("x-envid", b"forged")))
    assert (added(outcome, "X-Job"), added(outcome, "X-Envid")) == (["acme"], ["4Q"])
    assert {Change("x-job", 1, None), Change("x-envid", 1, None)} <= set(outcome.steps)
    assert not added(Desk(keys).judge(GOOD), "X-Job")


def test_complaints_find_their_way_back(keys: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    feedback = {"sender_id": "relaytest", "address": "fbl@relay.example", "secret": str(secret)}
    operator = {"dkim": [keys.setting("relay.example", "st", "rsa2")], "feedback": feedback}
    outcome = Desk(keys, operator=operator).judge(
        with_(("Feedback-ID", b"a:forged:x:relaytest"), ("CFBL-Address", b"x@evil.example"))
    )
    assert {Change("feedback-id", 1, None), Change("cfbl-address", 1, None)} <= set(outcome.steps)
    token, label, stream, sender_id = added(outcome, "Feedback-ID")[0].split(":")
    tokens = Tokens.from_file(secret)
    opened = tokens.open(token)
    assert opened is not None
    assert (opened.queue_id, tokens.find(opened.tenant_tag, ["bank", "acme"])) == ("4Q", "acme")
    assert (label, stream, sender_id) == (tokens.label("acme"), "transactional", "relaytest")
    assert added(outcome, "CFBL-Address") == [f"fbl+{token}@relay.example; report=arf"]
    for value in added(outcome, "DKIM-Signature"):
        names = re.sub(r"\s", "", value).partition("h=")[2].partition(";")[0].split(":")
        assert {"feedback-id", "cfbl-address", "cfbl-feedback-id"} <= set(names)


def test_scores_go_to_headers_ledger_and_pool(keys: Any, rspamd: Rspamd) -> None:
    scan = {"url": rspamd.url, "headers": ["score", "symbols"], "divert_score": -100}
    outcome = Desk(keys, scan=scan).judge(with_(("X-Relaywarden-Score", b"forged")))
    assert re.fullmatch(r"-?\d+\.\d\d / \d+\.\d\d", added(outcome, "X-Relaywarden-Score")[0])
    assert len(added(outcome, "X-Relaywarden-Symbols")) == 1
    assert added(outcome, "X-Virtual-MTA") == ["q1"]
    note = outcome.operations[-1]
    assert isinstance(note, Score)
    assert note.tenant == "acme"


def test_observe_neither_holds_nor_diverts_by_content(keys: Any, rspamd: Rspamd) -> None:
    desk = Desk(keys, {"mode": "observe"}, scan={"url": rspamd.url, "divert_score": -100})
    outcome = desk.judge(with_(("X-Testbed-Action", b"quarantine")))
    assert (outcome.result, outcome.hold) == ("accepted", "")
    assert added(outcome, "X-Virtual-MTA") == ["tx1"]
    assert outcome.record["observed"] == "divert"


def test_bounces_come_back_to_us(keys: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    feedback = {"sender_id": "relaytest", "secret": str(secret), "bounces": "bounce@relay.example"}
    desk = Desk(keys, operator={"dkim": [keys.setting("relay.example", "st", "rsa2")], "feedback": feedback})
    local, _, domain = desk.judge(GOOD).sender.rpartition("@")
    opened = Tokens.from_file(secret).open(local.removeprefix("bounce+"))
    assert (domain, opened.queue_id if opened else "") == ("relay.example", "4Q")
    assert desk.judge(GOOD, sender="").sender == ""
    assert Desk(keys).judge(GOOD).sender == ""


def test_a_diversion_ends_by_itself(keys: Any) -> None:
    desk = Desk(keys)
    for until, pool in ((1, "tx1"), (2**50, "q1"), (None, "q1")):
        entry = {"divert": "complaints", "by": "monitor"} | ({"until_ms": until} if until else {})
        desk.rules.hear(Words(tenants={"acme": entry}))
        assert added(desk.judge(GOOD), "X-Virtual-MTA") == [pool]


def test_the_monitor_is_told_what_was_decided(keys: Any) -> None:
    assert not [item for item in Desk(keys).judge(GOOD).operations if isinstance(item, Note)]
    desk = Desk(keys, monitor={"postfix_log": "/var/log/mail.log"})
    (note,) = [item for item in desk.judge(GOOD).operations if isinstance(item, Note)]
    found = story.read("4Q", {name: text or "" for name, text in note.fields.items()})
    assert found is not None
    assert (note.book, found.tenant, found.milter["result"], found.milter["member"]) == ("!m:4Q", "acme", "accepted", "tx1")
