"""The command line, run as an operator runs it: tables, JSON, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relaywarden import story
from relaywarden.config.load import load
from relaywarden.feedback import Tokens, headers
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Account, Charge, Settle
from relaywarden.ledger.records import Note
from relaywarden.tenants import Directory

CONFIG = """
store: sqlite:///{folder}/ledger.db
policyd: {{listen: "unix:{folder}/policy"}}
plans: {{standard: {{limits: [{{recipients: 3/hour}}, {{bytes: 1GiB/day}}, {{messages: 9/s burst 9}}]}}}}
unknown_login: {unknown}
tenants: {{acme: {{plan: standard, logins: [acme, "*@acme.example"]}}, beta: {{plan: standard, mode: observe}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "relaywarden.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, unknown="{plan: standard}"))
    return path


def call(config: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "relaywarden", "--config", str(config), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


def document(config: Path, *arguments: str) -> Any:
    return json.loads(call(config, *arguments, "--json"))


def send(config: Path, name: str, recipients: int) -> None:
    settings = load(config)
    tenant = Directory(settings).by_name(name)
    assert tenant is not None
    account = Account.of(tenant.name, tenant.limits)
    names = tuple(f"r{n}@x" for n in range(recipients))
    ledger = open_ledger(settings)
    ledger.apply([Charge(account, "t1", recipient, 100, "Q1", "127.0.0.1:5") for recipient in names])
    ledger.apply([Settle(account, "Q1", "", names, 150)])
    ledger.close()


def test_tenants_and_show_tell_what_was_used(config: Path) -> None:
    send(config, "acme", 2)
    send(config, "stranger@else.example", 1)
    listed = document(config, "tenants")
    assert [item["tenant"] for item in listed] == ["acme", "beta", "stranger@else.example"]
    acme = listed[0]
    assert {"tenant", "plan", "mode", "standing", "pool", "used"} <= set(acme)
    assert (acme["plan"], acme["mode"], acme["standing"], acme["pool"]) == ("standard", "enforce", "normal", None)
    assert [(row["meter"], row["window"], row["used"], row["limit"]) for row in acme["used"]] == [
        ("recipients", "1h", 2, 3), ("bytes", "1d", 150, 1 << 30), ("messages", "1s", acme["used"][2]["used"], 9),
    ]  # fmt: skip
    assert 3500 < acme["used"][0]["reset_after"] <= 3661
    shown = document(config, "show", "who@acme.example")  # a login stands for its tenant
    assert shown["tenant"] == "acme"
    assert shown["counters"]["today"] == shown["counters"]["hour"] == {
        "messages": 1, "recipients": 2, "bytes": 150, "refused": 0, "rejected": 0, "held": 0,
        "delivered": 0, "deferred": 0, "bounced": 0, "complained": 0,
    }  # fmt: skip
    assert shown["signals"] == []
    table = call(config, "tenants")
    assert "stranger@else.example" in table
    assert "recipients 2/3 1h" in table
    assert "recipients per 1h" in call(config, "show", "acme")


def test_suspend_resume_and_reset_act_on_the_ledger(config: Path) -> None:
    send(config, "acme", 3)
    suspended = document(config, "suspend", "acme", "--reason", "stolen\npassword", "--until", "2h")
    assert suspended["standing"] == "suspended"
    assert document(config, "show", "acme")["state"]["suspended"]["reason"] == "stolen password"
    assert "stolen password" in call(config, "show", "acme")
    assert document(config, "resume", "acme")["standing"] == "normal"
    assert call(config, "resume", "acme") == "acme: sends as usual already: nothing was taken back\n"
    call(config, "suspend", "acme")
    assert call(config, "resume", "acme") == "acme: resumed\n"
    assert document(config, "reset", "acme")["used"][0]["used"] == 0
    assert document(config, "show", "acme")["counters"]["today"]["recipients"] == 3
    assert call(config, "reset", "acme") == "acme: limits reset\n"


def test_a_mistyped_name_is_nobody(config: Path) -> None:
    """Although every login is a tenant of its own."""
    for command in ("suspend", "resume", "reset", "show"):
        assert "no tenant or login 'shpo'" in call(config, command, "shpo", status=1)
    assert "no tenant, login or message 'shpo'" in call(config, "explain", "shpo", status=1)


def test_a_new_ledger_belongs_to_the_owner_of_its_folder(config: Path, tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    call(config, "tenants")
    status = (tmp_path / "ledger.db").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o640)


def test_exit_codes_can_be_trusted(config: Path, tmp_path: Path) -> None:
    assert "lies in the past" in call(config, "suspend", "acme", "--until", "2001-01-01", status=2)
    assert "expected a date" in call(config, "suspend", "acme", "--until", "soon", status=2)
    config.write_text(CONFIG.format(folder=tmp_path, unknown="reject"))
    assert "no tenant or login 'nobody'" in call(config, "show", "nobody", status=1)
    assert "no tenant or login 'nobody'" in call(config, "suspend", "nobody", status=1)
    config.write_text("plans: 5")
    assert "plans: expected a mapping" in call(config, "tenants", status=2)
    assert "plans: expected a mapping" in call(config, "check", status=1)
    assert "cannot read the configuration" in call(tmp_path / "none", "tenants", status=2)
    config.write_text("store: sqlite:////proc/nowhere/ledger.db")
    assert "ledger /proc/nowhere/ledger.db" in call(config, "tenants", status=2)
    assert "nothing to run" in call(config, "run", status=2)
    config.write_text("store: redis://:hunter2@127.0.0.1:1/0")
    said = call(config, "tenants", status=2)
    assert "127.0.0.1:1" in said
    assert "hunter2" not in said


def test_check_prints_the_effective_settings(config: Path) -> None:
    printed = call(config, "check")
    assert "ticket_ttl: 1h" in printed
    told = document(config, "check")
    assert told["ok"]
    assert told["settings"]["plans"]["standard"]["limits"][0] == {"recipients": "3/1h"}
    assert any("no from_domains" in remark["what"] for remark in told["remarks"])


def test_check_finds_what_would_fail_at_run_time(config: Path, tmp_path: Path) -> None:
    (tmp_path / "weak.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    config.write_text(
        f"""
store: sqlite:///{tmp_path}/ledger.db
policyd: {{listen: ["unix:{tmp_path}/no/policy", "inet:127.0.0.1:25"]}}
milter: {{listen: "inet:127.0.0.1:25"}}
plans: {{p: {{}}}}
tenants: {{acme: {{plan: p, dkim: [{{domain: a.example, selector: s, key: {tmp_path}/weak.pem}}]}}}}
operator: {{dkim: [{{domain: b.example, selector: s, key: {tmp_path}/absent.pem}}]}}
"""
    )
    said = call(config, "check", status=1)
    for expected in (
        "tenants.acme.dkim[0].key",
        "weak.pem",
        "operator.dkim[0].key",
        "absent.pem",
        "no does not exist",
        "is the address of",
    ):
        assert expected in said


def test_grants_and_settings_act_and_are_explained(config: Path) -> None:
    send(config, "acme", 3)
    assert "recipients/1h is used up: 3 of 3" in call(config, "explain", "acme")
    granted = document(
        config, "grant", "acme", "recipients=500", "bytes=1GiB", "--until", "2h", "--reason", "breach notification"
    )
    assert granted["tenant"] == "acme"
    grants = document(config, "show", "acme")["grants"]
    assert sorted((entry["meter"], entry["amount"], entry["used"], entry["reason"]) for entry in grants) == [
        ("bytes", 1 << 30, 0, "breach notification"),
        ("recipients", 500, 0, "breach notification"),
    ]
    assert "0 of 500 recipients used" in call(config, "explain", "acme")
    call(config, "grant", "beta", "recipients=7", "--until", "2h")
    for command in ("explain", "show"):  # without a reason, no colon waits for one
        (line,) = [line for line in call(config, command, "beta").splitlines() if "0 of 7 recipients used" in line]
        assert line.rstrip().endswith("Z")
    assert "has no grant 'g0'" in call(config, "grant", "acme", "--revoke", "g0", status=1)
    document(config, "grant", "acme", "--revoke", grants[0]["id"])
    assert len(document(config, "show", "acme")["grants"]) == 1
    changed = document(config, "set", "acme", "recipients/hour=1_000", "mode=observe")
    assert (changed["mode"], changed["used"][0]["limit"]) == ("observe", 1000)
    assert "recipients/1h is set to 1000 by hand" in call(config, "explain", "acme")
    changed = document(config, "set", "acme", "recipients/hour=plan", "mode=plan", "messages/s=50")
    assert (changed["mode"], changed["used"][0]["limit"], changed["used"][2]["limit"]) == ("enforce", 3, 50)


def test_a_message_is_explained_by_its_queue_id(config: Path) -> None:
    send(config, "acme", 2)
    told = document(config, "explain", "Q1")
    (ticket,) = told["tickets"]
    assert (ticket["tenant"], ticket["phase"], ticket["recipients"], ticket["bytes"]) == ("acme", "settled", 2, 150)
    said = call(config, "explain", "Q1")
    assert "message Q1 of tenant acme" in said
    assert "the monitor knows nothing of it: it has no source" in said


def test_a_message_is_explained_by_whatever_a_complaint_brings_back(config: Path, tmp_path: Path) -> None:
    secret = tmp_path / "feedback.secret"
    secret.write_bytes(bytes(range(32)))
    secret.chmod(0o600)
    feedback = f"sender_id: relayex, address: fbl@relay.example, secret: {secret}"
    config.write_text(config.read_text() + f"operator: {{feedback: {{{feedback}}}}}\n")
    given, tokens = load(config).operator.feedback, Tokens.from_file(secret)
    assert given is not None
    fields = headers(given, tokens, "acme", "bulk", "4jYcDs3tkyzJJfm", 1_795_522_043)
    token = dict(fields)["CFBL-Feedback-ID"]
    texts = [token, token.upper(), f" {token[:20]} {token[20:]} ", f"<fbl+{token}@relay.example>"]
    texts += [value for _, value in fields] + [f"{name}: {value}" for name, value in fields]
    expected = "token of message 4jYcDs3tkyzJJfm, taken from tenant acme in the hour from 2026-11-24T12:00:00Z"
    for text in texts:
        assert expected in call(config, "explain", text), text
    assert expected in call(config, "explain", "CFBL-Feedback-ID:", token[:20], token[20:])
    assert document(config, "explain", token) == {
        "tenant": "acme", "queue_id": "4jYcDs3tkyzJJfm", "hour": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    ledger = open_ledger(load(config))
    ledger.apply([Note(story.book("4jYcDs3tkyzJJfm"), story.TOPIC, {story.MILTER: '{"result": "accepted"}'})])
    ledger.close()
    told = document(config, "explain", token)
    assert (told["token"]["tenant"], told["milter"]) == ("acme", {"result": "accepted"})
    forged = token[:-3] + "aaa"
    for text in (forged, f"fbl+{forged}@relay.example", f"{forged}:urv67nxi:bulk:relayex"):
        assert "not a token of this relay" in call(config, "explain", text, status=1)
    assert "no tenant, login or message 'fbl+x@relay.example'" in call(config, "explain", "fbl+x@relay.example", status=1)


def test_a_token_without_feedback_configured_is_told_as_that(config: Path) -> None:
    assert "operator.feedback is not configured" in call(config, "explain", "a" * 50, status=1)


def test_a_password_of_the_demo_can_stand_behind_an_option(tmp_path: Path) -> None:
    demo = Path(__file__).resolve().parents[2] / "contrib" / "demo"
    code = "import pathlib, world\nprint(*world.World(pathlib.Path('.')).passwords.values())"
    environment = os.environ | {"PYTHONPATH": f"{demo}:{demo.parents[1] / 'tests'}"}
    printed = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        for _ in range(3)
    ]
    passwords = [word for done in printed for word in done.stdout.split()]
    assert len(set(passwords)) == 9
    assert all(word.isalnum() and len(word) >= 12 for word in passwords)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("grant", "acme", "recipients=5"), "expected METER=AMOUNT and --until"),
        (("grant", "acme", "mails=5", "--until", "2h"), "expected one of messages, recipients"),
        (("grant", "acme", "recipients=lots", "--until", "2h"), "expected an amount"),
        (("set", "acme", "recipients/day=5"), "the limits of acme are: recipients/1h, bytes/1d, messages/1s"),
        (("set", "acme", "mode=off"), "expected mode=observe"),
    ],
)
def test_what_cannot_be_granted_or_set(config: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in " ".join(call(config, *arguments, status=2).split())
