"""`relaywarden pools`, run as an operator runs it, on a real ledger."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relaywarden import steering, warmup
from relaywarden.config.load import load
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger, Take
from relaywarden.ledger.records import Tally
from testbed.redis import RedisServer

CONFIG = """
store: {store}
schedules: {{slow: {{daily: [24, 48, 96]}}}}
pools:
  transactional:
    members:
      tx1: {{ip: 192.0.2.11}}
      tx2: {{ip: 192.0.2.12, warmup: {{start: {start}, schedule: slow}}}}
  bulk: {{members: {{bk1: {{ip: 192.0.2.13, warmup: {{start: {later}, providers: {{google: slow}}}}}}}}}}
"""


def today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()


def write(folder: Path, store: str, start: datetime.date) -> Path:
    path = folder / "relaywarden.yaml"
    path.write_text(CONFIG.format(store=store, start=start, later=today() + datetime.timedelta(days=3)))
    return path


@pytest.fixture(params=["sqlite", "redis"])
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """tx2 is on its second day, bk1 begins in three days."""
    if request.param == "sqlite":
        store = f"sqlite:///{tmp_path}/ledger.db"
    else:
        server = request.getfixturevalue("redis_server")
        assert isinstance(server, RedisServer)
        store = server.url
    return write(tmp_path, store, today() - datetime.timedelta(days=1))


def call(config: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "relaywarden", "--config", str(config), "pools", *arguments],
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


def member(config: Path, name: str) -> Any:
    (found,) = [item for pool in document(config) for item in pool["members"] if item["member"] == name]
    return found


@contextmanager
def ledger(config: Path) -> Iterator[Ledger]:
    opened = open_ledger(load(config))
    yield opened
    opened.close()


def carry(config: Path, amount: int, **counters: int) -> None:
    """tx2 carries so much to google, and the monitor counts what became of it."""
    account = warmup.account("tx2", "google", warmup.Caps(1_000, 1_000))
    with ledger(config) as opened:
        opened.apply([Take(account, amount), Tally(account.tenant, counters)])


def test_pools_tell_how_far_each_member_is(config: Path) -> None:
    carry(config, 3, delivered=2, deferred=1)
    first, second = document(config)
    assert (first["pool"], second["pool"]) == ("transactional", "bulk")
    tx1, tx2 = first["members"]
    assert tx1 == {
        "member": "tx1", "ip": "192.0.2.11", "state": "warm", "paused": None, "warmup": None, "providers": [],
    }  # fmt: skip
    assert (tx2["ip"], tx2["state"], tx2["warmup"]["day"], tx2["warmup"]["daily_cap"]) == ("192.0.2.12", "warming", 1, 48)
    tomorrow = today() + datetime.timedelta(days=1)
    (google,) = tx2["providers"]
    told = {name: google.pop(name) for name in ("outcomes", "rates", "reasons", "trend")}
    assert told["outcomes"] == {"delivered": 2, "deferred": 1, "bounced": 0, "complained": 0}
    assert (told["rates"]["deferred"]["share"], told["reasons"]) == (0.333333, {})
    assert told["trend"] == {"delivered": 2, "before": 0, "change": None}
    assert tx2["providers"] == [
        {
            "provider": "google", "day": 1, "days": 3, "back": 0, "daily_cap": 48, "hourly_cap": 4,
            "daily_used": 3, "hourly_used": 3,
            "next": {"date": tomorrow.isoformat(), "daily_cap": 96, "hourly_cap": 8},
            "today": {"delivered": 2, "deferred": 1, "bounced": 0}, "paused": None,
        }
    ]  # fmt: skip
    (bk1,) = second["members"]
    assert (bk1["state"], bk1["warmup"]["day"], bk1["warmup"]["daily_cap"]) == ("warming", -3, 0)
    start = (today() + datetime.timedelta(days=3)).isoformat()
    assert bk1["warmup"]["next"] == {"date": start, "daily_cap": 200, "hourly_cap": 17}
    assert bk1["providers"][0]["provider"] == "google"  # the configuration names it
    assert bk1["providers"][0]["next"]["daily_cap"] == 24
    table = call(config)
    lines = [line.split() for line in table.splitlines()]
    assert ["transactional", "tx1", "192.0.2.11", "warm", *"-" * 5] in lines
    assert [
        "transactional", "tx2", "192.0.2.12", "warming", "google", "1", "of", "3", "3/48", "3/4", str(tomorrow), "96",
    ] in lines  # fmt: skip
    assert ["tx2", "google", "2", "new", "1", "(33.33%)", "0", "0", "0", "-"] in lines


def test_pause_and_resume(config: Path) -> None:
    carry(config, 1, deferred=60)
    assert call(config, "pause", "tx2", "--provider", "google", "--for", "6h", "--reason", "too\nmany deferrals").startswith(
        "tx2 to google: paused until 20"
    )
    (google,) = member(config, "tx2")["providers"]
    assert member(config, "tx2")["state"] == "warming"
    assert (google["paused"]["reason"], google["paused"]["whole"]) == ("too many deferrals", False)
    assert "tx2 to google: paused until 20" in call(config)
    assert document(config, "pause", "tx1", "--reason", "listed")["state"] == "paused"
    assert member(config, "tx1")["paused"]["until"] == ""
    assert "tx1: paused by" in call(config)
    assert document(config, "pause", "tx2", "--reason", "moved")["state"] == "paused"
    assert "still paused, as a whole: moved" in call(config, "resume", "tx2", "--provider", "google")
    resumed = document(config, "resume", "tx2")
    assert (resumed["state"], resumed["providers"][0]["paused"]) == ("warming", None)
    with ledger(config) as opened:  # the workers do not pause it again for what the operator has seen
        entry = steering.read(opened).members["tx2"]
    assert warmup.review(entry, "google", {"deferred": 60}, today(), load(config).ramp) == warmup.OK
    assert call(config, "resume", "tx1") == "tx1: resumed\n"
    assert member(config, "tx1")["state"] == "warm"
    assert call(config, "resume", "tx1") == "tx1: was not paused\n"
    assert call(config, "resume", "tx2", "--provider", "google") == "tx2 to google: was not paused\n"
    assert document(config, "resume", "tx1")["state"] == "warm"


def test_a_pause_needs_no_reason(config: Path) -> None:
    assert call(config, "pause", "tx1") == "tx1: paused\n"
    (line,) = [line for line in call(config).splitlines() if line.startswith("tx1: paused by ")]
    assert not line.rstrip().endswith(":")
    said = call(config, "resume", "tx1", "--provider", "google")
    assert said == "tx1 to google: still paused, as a whole\n"


def test_back_stops_at_day_0_and_forward_takes_it_back(config: Path) -> None:
    assert call(config, "back", "tx2", "--days", "100") == "tx2: back by 1 day, now day 0\n"
    whole = member(config, "tx2")["warmup"]
    tomorrow = (today() + datetime.timedelta(days=1)).isoformat()
    assert (whole["back"], whole["next"]["date"], whole["next"]["daily_cap"]) == (1, tomorrow, 48)
    assert call(config, "back", "tx2") == "tx2: on day 0 already\n"
    assert "leave --provider out" in call(config, "forward", "tx2", "--provider", "google")
    assert call(config, "forward", "tx2", "--days", "9") == "tx2: forward by 1 day, now day 1\n"
    assert call(config, "forward", "tx2") == "tx2: on the calendar's day already, day 1\n"
    call(config, "back", "tx2", "--provider", "google")
    assert "not back as a whole, but to google" in call(config, "forward", "tx2")
    assert document(config, "forward", "tx2", "--provider", "google")["warmup"]["back"] == 0
    assert "has not begun" in call(config, "back", "bk1")
    assert "has no warm-up" in call(config, "forward", "tx1", status=1)
    with ledger(config) as opened:  # as an older version left it
        opened.apply([steering.say("members", {"tx2": {"back": {"*": 100}}})])
    assert call(config, "forward", "tx2") == "tx2: forward by 1 day, now day 1\n"


def test_back(config: Path, tmp_path: Path) -> None:
    carry(config, 1)
    assert call(config, "back", "tx2", "--provider", "google") == "tx2 to google: back by 1 day, now day 0\n"
    assert member(config, "tx2")["providers"][0]["daily_cap"] == 24
    assert member(config, "tx2")["warmup"]["day"] == 1
    assert document(config, "back", "tx2", "--days", "7")["warmup"]["day"] == 0
    assert "member 'tx1' has no warm-up; with one are: tx2, bk1" in call(config, "back", "tx1", status=1)
    write(tmp_path, load(config).store, today() - datetime.timedelta(days=50))
    assert "and still warm: its schedule ended longer ago" in call(config, "back", "tx2")
    assert member(config, "tx2")["state"] == "warm"


def test_what_is_mistyped_changes_nothing(config: Path) -> None:
    for words in (["pause", "tx9"], ["resume", "tx9"], ["back", "tx9"], ["forward", "tx9"]):
        assert "no pool member 'tx9'; members are: tx1, tx2, bk1" in call(config, *words, status=1)
    said = call(config, "pause", "tx2", "--provider", "gogle", "--reason", "x", status=1)
    assert "no mailbox provider 'gogle'; providers are: amazon, apple" in said
    assert "expected a duration such as 10s" in call(config, "pause", "tx2", "--for", "soon", "--reason", "x", status=2)
    assert "1<=x<=365" in call(config, "back", "tx2", "--days", "0", status=2)
    assert "No such command" in call(config, "stop", status=2)
    with ledger(config) as opened:
        assert steering.read(opened).members == {}


def test_a_schedule_that_nobody_knows_and_no_pools_at_all(tmp_path: Path) -> None:
    config = tmp_path / "relaywarden.yaml"
    store = f"store: sqlite:///{tmp_path}/ledger.db\n"
    config.write_text(store)
    assert call(config) == "no pools\n"
    assert document(config) == []
    config.write_text(store + "pools: {p: {members: {m: {ip: 192.0.2.1, warmup: {start: 2026-11-24, schedule: fast}}}}}\n")
    assert "pools.p.members.m.warmup.schedule: no such schedule 'fast'" in call(config, status=2)
    config.write_text("store: redis://127.0.0.1:1/0\npools: {p: {members: {m: {ip: 192.0.2.1}}}}\n")
    assert "127.0.0.1:1" in call(config, status=2)
