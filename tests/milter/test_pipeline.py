"""One message in, one outcome out: identity, modes, failing keys and scanners, without a socket in between."""

from __future__ import annotations

from typing import Any

import pytest

from relaywarden.config.settings import Outcome as Ended
from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Refund, Settle
from relaywarden_milter.edits import Add, Change
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.headers import Header
from relaywarden_milter.message import Message
from relaywarden_milter.outcome import Outcome
from relaywarden_milter.pipeline import handle, refund
from relaywarden_milter.rules import Rules
from relaywarden_milter.scan import Fate
from testbed.ports import free_port
from testbed.rspamd import Rspamd

HEADERS: list[Header] = [("From", b"a@acme.example"), ("To", b"b@x.example"), ("Subject", b"hi"), ("X-Virtual-MTA", b"evil")]


def config(keys: Any = None, **change: Any) -> dict[str, Any]:
    tenant: dict[str, Any] = {"plan": "p", "from_domains": ["acme.example"]}
    if keys is not None:
        tenant["dkim"] = [keys.setting("acme.example", "rw1"), keys.setting("acme.example", "ed1", "ed25519")]
    base: dict[str, Any] = {
        "plans": {
            "p": {"limits": [{"messages": "10/hour"}, {"messages": "5/hour", "per": "from_domain"}]},
            "watch": {"mode": "observe"},
        },
        "tenants": {"acme": tenant},
        "pools": {
            "transactional": {"members": {"tx1": {"ip": "192.0.2.1"}}},
            "quarantine": {"members": {"q1": {"ip": "192.0.2.4"}}},
        },
    }
    return {**base, **change}


def judge(document: dict[str, Any], headers: list[Header] = HEADERS, login: str | None = "acme", size: int = 0) -> Outcome:
    rules = Rules(Settings.model_validate(document))
    envelope = Envelope("192.0.2.9", 4000, "h", "h", "m", login, "bounce@acme.example", ["b@x.example"], "4Q")
    message = Message(rules.settings.milter.max_message_size, keep_body=rules.keeps_body(login))
    for name, value in headers:
        message.add_header(name, value)
    message.add_body(b"hello\r\n" + b"x" * size)
    try:
        return handle(rules, envelope, message)
    finally:
        rules.close()


def added(outcome: Outcome, name: str) -> list[str]:
    return [step.value for step in outcome.steps if isinstance(step, Add) and step.name == name]


def settlement(outcome: Outcome) -> Settle | Refund | None:
    first = outcome.operations[0] if outcome.operations else None
    assert first is None or isinstance(first, Settle | Refund)
    return first


def reply(outcome: Outcome) -> str:
    assert outcome.refusal is not None
    return f"{outcome.refusal.code} {outcome.refusal.enhanced}"


def test_signed_tagged_and_settled(keys: Any) -> None:
    outcome = judge(config(keys, operator={"dkim": [keys.setting("relay.example", "rw1", "rsa2")]}))
    assert outcome.result == "accepted"
    assert outcome.steps[0] == Change("x-virtual-mta", 1, None)
    assert added(outcome, "X-Virtual-MTA") == ["tx1"]
    assert [value.split("d=")[1].split(";")[0] for value in added(outcome, "DKIM-Signature")] == [
        "relay.example",
        "acme.example",
        "acme.example",
    ]
    operation = settlement(outcome)
    assert isinstance(operation, Settle)
    assert (operation.queue_id, operation.connection, operation.recipients) == ("4Q", "192.0.2.9:4000", ("b@x.example",))
    assert operation.account.tenant == "acme"
    assert [balance.key for balance in operation.account.balances] == ["messages/1h", "messages/1h@from_domain=acme.example"]


@pytest.mark.parametrize(
    "headers",
    [
        [("From", b"a@evil.example")],
        [("From", b"a@acme.example, b@evil.example")],
        [("From", b"a@acme.example"), ("from", b"a@acme.example")],
        [("Subject", b"no From")],
        [("From", b"garbage")],
    ],
)
def test_foreign_or_unclear_from_is_rejected_and_never_signed(keys: Any, headers: list[Header]) -> None:
    outcome = judge(config(keys), headers)
    assert reply(outcome) == "550 5.7.1"
    settled = settlement(outcome)
    assert isinstance(settled, Settle)
    assert settled.counter == "rejected"
    document = config(keys)
    document["tenants"]["acme"]["mode"] = "observe"
    observed = judge(document, headers)
    assert observed.result == "accepted"
    assert observed.record["observed"].startswith("550 5.7.1")
    assert added(observed, "DKIM-Signature") == []


def test_without_from_domains_any_from_passes(keys: Any) -> None:
    document = config(keys)
    document["tenants"]["acme"]["from_domains"] = []
    assert judge(document, [("From", b"x@any.example")]).result == "accepted"
    assert judge(document, [("From", b"root")]).result == "accepted"
    assert reply(judge(document, [("From", b"a@b.example")] * 2)) == "550 5.7.1"
    assert len(added(judge(document), "DKIM-Signature")) == 2


def test_logins() -> None:
    outcome = judge(config(), login=None)
    assert (outcome.result, outcome.steps, settlement(outcome)) == ("unauthenticated", [Change("x-virtual-mta", 1, None)], None)
    assert reply(judge(config(), login="nobody")) == "550 5.7.1"
    ignored = judge(config(unknown_login="ignore"), login="nobody")
    assert (ignored.result, ignored.steps) == ("ignored", [Change("x-virtual-mta", 1, None)])
    own = judge(config(unknown_login={"plan": "p"}), login="nobody")
    settled = settlement(own)
    assert settled is not None
    assert (own.result, settled.account.tenant) == ("accepted", "nobody")


def test_a_message_over_the_bound_is_refused() -> None:
    document = config(milter={"max_message_size": "1_000"})
    assert reply(judge(document, size=2000)) == "552 5.3.4"
    assert reply(judge(document, size=2000, login=None)) == "552 5.3.4"


def test_a_missing_key_puts_mail_off(keys: Any) -> None:
    for place in ("tenant", "operator"):
        document = config(keys)
        missing = {"domain": "acme.example", "selector": "gone", "key": "/nonexistent/key.pem"}
        (document["tenants"]["acme"] if place == "tenant" else document.setdefault("operator", {"dkim": []}))["dkim"].append(
            missing
        )
        outcome = judge(document)
        assert reply(outcome) == "451 4.7.5"
        assert outcome.fate is Fate.TEMPFAIL
        settled = settlement(outcome)
        assert isinstance(settled, Refund)
        assert settled.counter == ""


@pytest.mark.parametrize(
    ("on_error", "result", "pool"), [("accept", "accepted", "tx1"), ("divert", "diverted", "q1"), ("tempfail", "deferred", "")]
)
def test_a_dead_scanner(on_error: str, result: str, pool: str) -> None:
    outcome = judge(config(scan={"url": f"http://127.0.0.1:{free_port()}", "on_error": on_error, "timeout": "1s"}))
    assert outcome.result == result
    assert added(outcome, "X-Virtual-MTA") == ([pool] if pool else [])
    if not pool:
        assert reply(outcome) == "451 4.7.1"


def test_diverted_mail_never_leaves_from_the_good_addresses() -> None:
    document = config(scan={"url": f"http://127.0.0.1:{free_port()}", "on_error": "divert"})
    del document["pools"]["quarantine"]
    assert reply(judge(document)) == "451 4.7.1"


@pytest.mark.parametrize(
    ("action", "result", "code"),
    [
        ("no action", "accepted", ""), ("greylist", "accepted", ""), ("add header", "accepted", ""),
        ("rewrite subject", "accepted", ""), ("quarantine", "held", ""), ("discard", "discarded", " "),
        ("soft reject", "deferred", "451 4.7.1"), ("reject", "rejected", "554 5.7.1"),
    ],
)  # fmt: skip
def test_rspamd_is_obeyed(rspamd: Rspamd, keys: Any, action: str, result: str, code: str) -> None:
    document = config(keys, scan={"url": rspamd.url})
    outcome = judge(document, [*HEADERS, ("X-Testbed-Action", action.encode()), ("X-Spam", b"forged")])
    assert outcome.result == result
    if code:
        assert reply(outcome) == code
        settled = settlement(outcome)
        assert isinstance(settled, Refund if result == "deferred" else Settle)
        assert settled.counter == ("" if result == "deferred" else "rejected")
        return
    assert len(added(outcome, "DKIM-Signature")) == 2
    assert added(outcome, "X-Spam") == (["Yes"] if action == "add header" else [])
    assert Change("x-spam", 1, None) in outcome.steps
    subjects = [step.value for step in outcome.steps if isinstance(step, Change) and step.name == "Subject"]
    assert bool(subjects) is (action == "rewrite subject")
    assert bool(outcome.hold) is (action == "quarantine")
    settled = settlement(outcome)
    assert isinstance(settled, Settle)
    assert settled.counter == ("held" if action == "quarantine" else "")


def test_observed_content_is_not_refused(rspamd: Rspamd) -> None:
    document = config(scan={"url": rspamd.url})
    document["tenants"]["acme"]["plan"] = "watch"
    outcome = judge(document, [*HEADERS, ("X-Testbed-Action", b"reject")])
    assert outcome.result == "accepted"
    assert outcome.record["observed"].startswith("554 5.7.1")


def test_refund_of_an_aborted_message() -> None:
    rules = Rules(Settings.model_validate(config()))
    told = refund(rules, Envelope("192.0.2.9", 4000, login="acme", recipients=["b@x.example"], queue_id="4Q"), Ended.ABORTED)
    assert told is not None
    assert (told.account.tenant, told.queue_id, told.counter) == ("acme", "4Q", "")
    assert refund(rules, Envelope("192.0.2.9", 4000, recipients=["b@x.example"]), Ended.ABORTED) is None
    assert refund(rules, Envelope("192.0.2.9", 4000, login="nobody"), Ended.ABORTED) is None


def test_what_is_given_back_follows_the_configuration() -> None:
    foreign: list[Header] = [("From", b"a@evil.example")]
    rejected = settlement(judge(config(ledger={"refund": ["rejected"]}), foreign))
    assert isinstance(rejected, Refund)
    assert rejected.counter == "rejected"
    document = config(ledger={"refund": []}, scan={"url": f"http://127.0.0.1:{free_port()}", "on_error": "tempfail"})
    assert isinstance(settlement(judge(document)), Settle)
    rules = Rules(Settings.model_validate(document))
    assert refund(rules, Envelope("192.0.2.9", 4000, login="acme", recipients=["b@x.example"]), Ended.ABORTED) is None
