"""The patterns at work: from the milter's notes to a step of the ladder, over a restart, and by a person's word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaywarden import patterns, standing
from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger, Read, Snapshot
from relaywarden.ledger.records import Noted, Notes
from relaywarden.standing import MONITOR, Step, Word
from relaywarden.tenants import Directory
from relaywarden_monitor.attribute import Counted
from relaywarden_monitor.notify.alerts import AlertBook, Reading
from relaywarden_monitor.notify.notice import Notice
from relaywarden_monitor.patterns.sent import Sent
from relaywarden_monitor.patterns.watch import Watch
from relaywarden_monitor.standings import Standings


def settings(store: str, **plan: str) -> Settings:
    return Settings.model_validate({
        "store": store, "plans": {"p": plan}, "tenants": {"acme": {"plan": "p"}},
        "pools": {"t": {"members": {"tx1": {"ip": "192.0.2.1"}}}, "quarantine": {"members": {"q1": {"ip": "192.0.2.2"}}}},
    })  # fmt: skip


class World:
    """A ledger, what looks at it, and what was told."""

    def __init__(self, ledger: Ledger, values: Settings) -> None:
        self.ledger, self.values, self.notices = ledger, values, list[Notice]()
        self.alerts = AlertBook(60.0)
        self.restart()

    def restart(self) -> None:
        self.watch = Watch(self.ledger)
        self.standings = Standings(self.values, self.ledger, self._tell, self.watch)

    def _tell(self, reading: Reading) -> None:
        if notice := self.alerts.look(reading, time.time()):
            self.notices.append(notice)

    def look(self) -> Step:
        self.watch.know(["acme"])
        self.standings.look(["acme"], {})
        (snapshot,) = self.ledger.apply([Read(next(iter(Directory(self.values))).account())])
        assert isinstance(snapshot, Snapshot)
        word = standing.heard(snapshot.state, snapshot.now_ms)
        return word.step if word else Step.NORMAL

    def broadcast(self, count: int) -> None:
        """One newsletter to so many people within a minute that has just gone by."""
        now = time.time()
        counted = Counted()
        for number in range(count):
            at = now - 60 * (1 - number / count)
            counted.sent.append(
                Sent("acme", at, 1, "acme", 0xABCDEF, 0.95, (f"{number:016x}",), "acme.example", "192.0.2.0/24", "h")
            )
        self.watch.heard(counted)
        self.watch.turn(now)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    values = settings(f"sqlite:///{tmp_path}/ledger.db")
    ledger = open_ledger(values)
    yield World(ledger, values)
    ledger.close()


def test_a_broadcast_is_noticed_kept_over_a_restart_and_forgiven(world: World) -> None:
    assert world.look() is Step.NORMAL
    world.broadcast(2000)
    step = world.look()
    assert step.height >= Step.SLOWED.height
    assert [notice.kind.value for notice in world.notices] == ["crossed"]
    assert "acme" in world.notices[0].what
    world.restart()
    assert world.look() is step
    assert len(world.notices) == 1
    (found,) = world.ledger.apply([Notes(patterns.book("acme"), patterns.TOPIC, (patterns.VIEW,))])
    assert isinstance(found, Noted)
    view = json.loads(found.fields[patterns.VIEW])
    assert view["evidence"]
    assert len(view["week"]) == patterns.HOURS_OF_WEEK
    world.ledger.apply(standing.say("acme", None))  # relaywarden resume
    assert world.look() is Step.NORMAL
    assert world.look() is Step.NORMAL


def test_a_persons_word_stands_above_evidence(world: World) -> None:
    now_ms = round(time.time() * 1000)
    world.ledger.apply(standing.say("acme", Word(Step.HELD, "looked at", "root", now_ms)))
    world.broadcast(2000)
    assert world.look() is Step.HELD
    assert world.notices == []
    world.ledger.apply(standing.say("acme", None))
    assert world.look() is Step.NORMAL


@pytest.mark.parametrize("when", ["reload", "before a restart", "during a restart"])
def test_a_step_that_a_person_took_back_does_not_come_again(world: World, when: str) -> None:
    world.broadcast(2000)
    assert world.look().height >= Step.SLOWED.height
    if when == "before a restart":
        world.watch.close(time.time())
    world.ledger.apply(standing.say("acme", None))  # relaywarden resume
    if when == "reload":
        world.standings.use(world.values)
    else:
        world.restart()
    assert world.look() is Step.NORMAL
    world.restart()
    assert world.look() is Step.NORMAL, "and it is forgotten by what was learned, too"


def test_evidence_counts_again_where_a_persons_word_ended_during_a_restart(world: World) -> None:
    world.ledger.apply(standing.say("acme", Word(Step.HELD, "looked at", "root", round(time.time() * 1000))))
    world.broadcast(20)
    assert world.look() is Step.HELD
    world.watch.close(time.time())
    world.ledger.apply(standing.say("acme", None))
    world.restart()
    assert world.look() is Step.NORMAL
    world.broadcast(2000)
    assert world.look().height >= Step.SLOWED.height


def test_observe_only_tells(tmp_path: Path) -> None:
    values = settings(f"sqlite:///{tmp_path}/ledger.db", mode="observe")
    ledger = open_ledger(values)
    try:
        world = World(ledger, values)
        world.broadcast(2000)
        assert world.look() in (Step.NORMAL, Step.WATCHED)
        opinion = world.watch.opinion("acme", time.time())
        assert opinion is not None
        assert opinion.by == MONITOR
    finally:
        ledger.close()
