"""Outcomes on the command line: what `show`, `pools` and `explain` tell of them, on a real ledger."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden import outcomes, steering, story, warmup
from relaywarden.cli import health, messages
from relaywarden.cli.output import plain, spark
from relaywarden.config.load import load
from relaywarden.config.monitor_settings import HealthSettings, Threshold
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Account, Charge, Ledger, Refusal, Settle, Steer
from relaywarden.ledger.records import DAY_MS, HOUR_MS, Note, Suppress, Suppression, Tally
from relaywarden.ledger.ticket import Phase, Ticket
from relaywarden.outcomes import Share
from relaywarden.story import Story, StoryEvent
from testbed.redis import RedisServer

CONFIG = """
store: {store}
plans: {{p: {{limits: [{{recipients: 99/hour}}], health: {{min_sample: 100}}}}}}
tenants: {{acme: {{plan: p}}}}
pools: {{transactional: {{members: {{tx1: {{ip: 192.0.2.11}}}}}}}}
monitor: {{postfix_log: /var/log/mail.log}}
"""
START = 1_795_507_200.0  # 2026-11-24 08:00 UTC
RULES = HealthSettings()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, f"sqlite:///{tmp_path}/ledger.db")


def write_config(folder: Path, store: str) -> Path:
    path = folder / "relaywarden.yaml"
    path.write_text(CONFIG.format(store=store))
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
    assert all(line.isprintable() for line in done.stdout.splitlines())
    return done.stdout if status == 0 else done.stdout + done.stderr


def document(config: Path, *arguments: str) -> Any:
    return json.loads(call(config, *arguments, "--json"))


@contextmanager
def ledger(config: Path) -> Iterator[Ledger]:
    opened = open_ledger(load(config))
    yield opened
    opened.close()


def count(config: Path, book: str, counts: Mapping[str, int], details: Mapping[str, int] | None = None, ago: int = 0) -> None:
    """So many hours ago."""
    with ledger(config) as opened:
        opened.apply([Tally(book, counts, details or {}, at_ms=time.time_ns() // 1_000_000 - ago * HOUR_MS)])


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_show_tells_outcomes_rates_reasons_and_trend(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if store == "redis":
        server = request.getfixturevalue("redis_server")
        assert isinstance(server, RedisServer)
        url = server.url
    config = write_config(tmp_path, url)
    details = {"invalid": 100, "why.invalid-mailbox": 100, "google.delivered": 900, "google.bounced": 100}
    count(config, "acme", {"delivered": 900, "bounced": 100}, details, ago=2)
    count(config, "acme", {"delivered": 90, "complained": 1}, {"gmx.delivered": 90}, ago=100)
    count(config, "acme", {"delivered": 9}, ago=200)
    with ledger(config) as opened:
        gone = Suppression("a@x", "bounced", 1, 2**50)
        opened.apply([Suppress("acme", {"a@x": gone})])
    shown = document(config, "show", "acme")
    told = shown["outcomes"]
    assert {name: told["day"][name] for name in outcomes.OUTCOMES} == {
        "delivered": 900, "deferred": 0, "bounced": 100, "complained": 0,
    }  # fmt: skip
    assert (told["week"]["delivered"], told["week"]["complained"], told["suppressed"]) == (990, 1, 1)
    assert told["day"]["reasons"] == {"invalid-mailbox": 100}
    assert list(told["week"]["providers"]) == ["google", "gmx"]
    # Two hours ago, or three where an hour has ended since.
    assert [hour["delivered"] for hour in told["trend"]] in ([0] * 21 + [900, 0, 0], [0] * 20 + [900, 0, 0, 0])
    bounces = told["day"]["rates"]["bounces"]
    assert (bounces["part"], bounces["whole"], bounces["share"], bounces["level"]) == (100, 1000, 0.1, "act")
    assert told["week"]["rates"]["complaints"]["level"] == "few"
    (signal,) = shown["signals"]
    assert (signal["signal"], signal["level"], signal["evidence"]["act"]) == ("bounces", "act", 0.08)
    said = call(config, "show", "acme")
    for expected in ("last 7 d", "bounces, last 24 h", "reasons, last 24 h: invalid-mailbox 100", "suppressed recipients: 1"):
        assert expected in said
    assert f"{'.' * 20}█" in said
    assert "act: bounces of the last 1d: 100 of 1000 recipients do not exist (10.00%" in said


def test_a_tenant_without_outcomes(config: Path) -> None:
    assert "no outcomes in the last 7 d" in call(config, "show", "acme")
    shown = document(config, "show", "acme")
    assert (shown["signals"], shown["outcomes"]["day"]["rates"]["bounces"]["level"]) == ([], "few")


def test_pools_tell_outcomes_by_provider(config: Path) -> None:
    book = warmup.books("tx1", "google")
    count(config, book, {"delivered": 50}, ago=30)
    count(config, book, {"delivered": 75, "deferred": 25, "complained": 1}, {"deferred.ip": 5, "why.ip-reputation": 5}, ago=3)
    with ledger(config) as opened:
        entry = warmup.paused({}, "google", None, "[red]blocked\x1b", "monitor", 0)
        opened.apply([steering.say("members", {"tx1": entry})])
    (pool,) = document(config, "pools")
    (row,) = pool["members"][0]["providers"]
    assert row["outcomes"] == {"delivered": 75, "deferred": 25, "bounced": 0, "complained": 1}
    assert (row["rates"]["deferred"]["share"], row["rates"]["address"]["part"]) == (0.25, 5)
    assert (row["reasons"], row["trend"]) == ({"ip-reputation": 5}, {"delivered": 75, "before": 50, "change": 0.5})
    said = call(config, "pools")
    assert ["tx1", "google", "75", "+50%", "25", "(25.00%)"] in [line.split()[:6] for line in said.splitlines()]
    assert "tx1 to google: paused by monitor: [red]blocked\\x1b" in said


def test_a_divert_is_explained_and_undone(config: Path) -> None:
    count(config, "acme", {"delivered": 500, "complained": 30})
    entry = {"divert": "complaints: 30 of 500\x07", "by": "monitor", "until_ms": 4_000_000_000_000}
    with ledger(config) as opened:
        opened.apply([steering.say("tenants", {"acme": entry})])
    assert document(config, "explain", "acme")["steering"]["by"] == "monitor"
    said = call(config, "explain", "acme")
    assert (
        "diverted to the pool called quarantine until 2096-10-02T07:06:40Z by monitor; `relaywarden resume acme` "
        "ends it: complaints: 30 of 500\\x07"
    ) in said
    assert "act: complaints of the last 1d: 30 of 500 delivered messages were complained about (6.00%" in said
    assert call(config, "resume", "acme") == "acme: resumed\n"
    assert document(config, "show", "acme")["steering"] == {}
    with ledger(config) as opened:
        word = {"suspended": {"reason": "blocks", "by": "monitor", "until_ms": time.time_ns() // 1_000_000 + DAY_MS}}
        opened.apply([Steer("acme", word), steering.say("tenants", {"acme": word})])
    lines = [line for line in call(config, "explain", "acme").splitlines() if "suspended until" in line]
    assert len(lines) == 1
    assert "by monitor; `relaywarden resume acme` ends it: blocks" in lines[0]


def test_a_message_is_told_from_the_policy_verdict_to_the_end(config: Path) -> None:
    recipients = ("a@gmail.com", "b@x", "c@x")
    account = Account.of("acme", load(config).plans["p"].limits)
    begun = time.time()
    events = [
        StoryEvent(begun + 5, "delivered", "a@gmail.com", "tx1", "mx.google.com[192.0.2.1]", "2.0.0", "250 OK"),
        StoryEvent(begun + 6, "deferred", "b@x", "tx1", "mx.x", "4.7.1", "450 wait", "greylisted"),
        StoryEvent(begun + 7, "bounced", "c@x", "tx1", "mx.x", "5.1.1", "550 \x1b[31m[bold]no such user", "invalid-mailbox"),
        StoryEvent(begun + 90, "delivered", "B@x", "tx1", "mx.x", "2.0.0", "250 OK"),
        StoryEvent(begun + 91, "notified-non-delivery", reply="4NOTICE"),
    ]
    facts = {"tenant": "acme", "login": "acme", "client": "c[192.0.2.9]", "recipients": 3, "size": 150, "accepted_at": begun}
    milter = {"result": "accepted", "member": "tx1", "score": 1.5, "symbols": ["A", "B"], "at": begun + 1}
    late = StoryEvent(begun + 900, "complained", "a@gmail.com", category="abuse")
    fields = {
        story.LOG: story.dump({**facts, "gone_at": begun + 92, "events": events}),
        story.MILTER: story.dump(milter),
        f"{story.REPORT}1": story.dump(late),
    }
    with ledger(config) as opened:
        opened.apply([Charge(account, "t", recipient, 150, "4XQ", "192.0.2.9:5") for recipient in recipients])
        opened.apply([Settle(account, "4XQ", "", recipients, 150), Note(story.book("4XQ"), story.TOPIC, fields)])
    told = document(config, "explain", "4XQ")
    assert (told["tenant"], told["tickets"][0]["phase"], told["milter"]["score"]) == ("acme", "settled", 1.5)
    assert (told["facts"]["client"], len(told["events"]), told["events"][0]["kind"]) == ("c[192.0.2.9]", 6, "delivered")
    text = "delivered to 2 of 3 recipients, 1 bounced: invalid-mailbox, 1 complained"
    assert told["summary"] == {
        "recipients": 3, "delivered": 2, "deferred": 0, "bounced": 1, "handed_over": 0, "unknown": 0, "complained": 1,
        "reasons": {"invalid-mailbox": 1}, "text": text,
    }  # fmt: skip
    lines = call(config, "explain", "4XQ").splitlines()
    order = (
        "message 4XQ of tenant acme", "policyd: settled", "accepted from client", "milter: accepted, member tx1",
        "delivered to a", "deferred for b@x", "bounced for c@x", "delivered to B@x", "notified-non-delivery: 4NOTICE",
        "left the queue", "complaint of a@gmail.com (abuse)", f"end: {text}",
    )  # fmt: skip
    assert len(lines) == len(order)
    for line, expected in zip(lines, order, strict=True):
        assert expected in line
    assert "by tx1 via mx.x (5.1.1, invalid-mailbox): 550 \\x1b[31m[bold]no such user" in lines[6]


def test_a_message_whose_ticket_has_expired(config: Path) -> None:
    refusal = Refusal("recipients/1h", 99, 99, 1000)
    ticket = Ticket(Phase.REFUNDED, message_ms=START * 1000, refusal=refusal, recipients=[(b"12345678", START * 1000)])
    log = {"tenant": "acme", "accepted_at": START, "ticket": base64.b64encode(ticket.pack()).decode()}
    with ledger(config) as opened:
        opened.apply([Note(story.book("4Z"), story.TOPIC, {story.LOG: story.dump(log)})])
    told = document(config, "explain", "4Z")
    assert (told["tickets"][0]["phase"], told["tickets"][0]["refusal"]["used"]) == ("refunded", 99)
    assert "ticket" not in told["facts"]
    assert "2026-11-24T08:00:00Z  policyd: refunded: aborted or turned away; 1 recipient" in call(config, "explain", "4Z")


def summary(*events: StoryEvent, **facts: Any) -> str:
    told = messages.document("4X", [], Story("4X", facts, events=list(events)), "it sleeps")
    return str(told["summary"]["text"])


def test_ends() -> None:
    delivered, bounced = StoryEvent(1, "delivered", "a@x"), StoryEvent(2, "bounced", "A@x", category="full")
    assert summary(delivered, bounced) == "delivered to 0 of 1 recipient, 1 bounced: full"  # accepted, and bounced after all
    assert summary(delivered, recipients=3) == "delivered to 1 of 3 recipients, 2 without an outcome yet"
    assert summary(StoryEvent(1, "deferred", "a@x")) == "delivered to 0 of 1 recipient, 1 deferred so far: no reason known"
    assert "1 handed over to the next hop" in summary(StoryEvent(1, "handed-over", "a@x"))
    kind = StoryEvent(3, "complained", "a@x", category="not-spam")
    assert summary(delivered, kind) == "delivered to 1 of 1 recipient"
    assert summary(StoryEvent(1, "refused", category="DATA", reply="5.7.1 no")) == "not taken: refused at DATA: 5.7.1 no"
    assert summary(recipients=3) == "no outcome is known yet"
    assert summary() == "the monitor knows nothing of it: it sleeps"


def test_a_saved_ticket_that_is_none_or_cannot_be_read() -> None:
    for text in ("!", "AAAA", base64.b64encode(b"\xff" * 40).decode()):
        told = messages.document("4X", [], Story("4X", {"ticket": text}), "")
        assert any("cannot be read" in line for line in messages.lines(told)), text
    assert "ticket_fault" not in messages.document("4X", [], Story("4X", {"ticket": "none"}), "")


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
JSON = LEAF | st.lists(LEAF, max_size=2) | st.dictionaries(st.text(max_size=3), LEAF, max_size=2)
NAMES = st.sampled_from(
    ["tenant", "events", "recipients", "size", "accepted_at", "gone_at", "ticket", "client", "more", "at", "result"]
)
FACTS = st.dictionaries(NAMES, JSON, max_size=5)


@given(log=FACTS, milter=FACTS, event=st.lists(JSON, max_size=8))
def test_property_whatever_the_notes_hold_is_told_in_lines(log: Any, milter: Any, event: Any) -> None:
    fields = {story.LOG: story.dump({**log, "events": [[1, *event]]}), story.MILTER: story.dump(milter)}
    told = story.read("4X", {**fields, f"{story.REPORT}1": story.dump(event)})
    if told is not None:
        item = messages.document("4X", [], told, "")
        assert all(line.isprintable() for line in messages.lines(item))
        json.dumps(item)


def test_levels() -> None:
    bounds = Threshold(warn=0.04, act=0.08)
    assert health.level(Share(1, 3), bounds, 200, 1.645) == "few"
    assert health.level(Share(0, 200), bounds, 200, 1.645) == "ok"
    assert health.level(Share(9, 200), bounds, 200, 1.645) == "ok"  # 4.5 %, but not surely
    assert health.level(Share(9, 200), bounds, 200, 0) == "warn"
    assert health.level(Share(14, 200), bounds, 200, 1.645) == "warn"
    assert health.level(Share(40, 200), bounds, 200, 1.645) == "act"


@given(st.dictionaries(st.integers(0, 200), st.dictionaries(st.sampled_from(outcomes.OUTCOMES), st.integers(0, 99))))
def test_property_the_trend_adds_up_to_the_day(records: dict[int, dict[str, int]]) -> None:
    told = health.tenant(records, 190 * HOUR_MS + 5, RULES)
    for name in outcomes.OUTCOMES:
        assert told["day"][name] == sum(hour[name] for hour in told["trend"])
        assert told["week"][name] == sum(record.get(name, 0) for hour, record in records.items() if 23 <= hour <= 190)
    assert len(told["trend"]) == 24


@given(st.lists(st.integers(0, 2**53)))
def test_property_sparks(values: list[int]) -> None:
    drawn = spark(values)
    assert len(drawn) == len(values)
    assert all((mark == ".") == (value == 0) for mark, value in zip(drawn, values, strict=True))


@given(st.text())
def test_property_what_is_printed_is_printable(text: str) -> None:
    assert plain(text, 10_000).isprintable()
