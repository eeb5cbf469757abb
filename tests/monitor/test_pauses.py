"""From replies that blame an address to what the milter, PowerMTA and people are told, and when that ends."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaywarden import steering, warmup
from relaywarden.config.settings import Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.records import HOUR_MS, Note, Tally
from relaywarden_monitor import pauses as module
from relaywarden_monitor.attribute import Attributor
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.events import Accepted, Attempt, Event, Outcome
from relaywarden_monitor.notify.alerts import AlertBook
from relaywarden_monitor.notify.notice import Kind, Notice
from relaywarden_monitor.pauses import TOPIC, Pauses
from relaywarden_monitor.steps import BOOK
from testbed.classifying import classifier
from testbed.fakeclock import FakeClock
from testbed.ledgerstore import START_MS, TICKET_TTL_MS
from testbed.process import wait_for
from testbed.raced import RacedLedger

CALM = 60.0
MX = {"yahoo": "mta5.am0.yahoodns.net", "google": "gmail-smtp-in.l.google.com", "microsoft": "a.mail.protection.outlook.com"}
DOMAINS = {"yahoo": "yahoo.com", "google": "gmail.com", "microsoft": "hotmail.com"}
COMPLAINTS = (
    "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"
)
BANNED = "550 5.7.606 Access denied, banned sending IP [192.0.2.1]."
NO_PTR = "550 5.7.25 The IP address sending this message does not have a PTR record"
PHISHING = "550 5.7.1 phishing message detected"
OUR_OWN = "450 4.7.1 <r@x.example>: Recipient address rejected: Sending limit of 500 recipients in hour reached, 500 used"


class Desk:
    """Pauses on a ledger whose clock the test sets, with everything that was told."""

    def __init__(self, folder: Path, **react: Any) -> None:
        self.clock = FakeClock(folder / "clock", START_MS)
        self.ledger = RacedLedger(folder / "ledger.db", timeout_ms=100, ticket_ttl_ms=TICKET_TTL_MS, clock=self.clock)
        self.alerts, self.notices, self.number = AlertBook(CALM), list[Notice](), 0
        self.use(**react)

    def use(self, *, host: str = "mx1", **react: Any) -> None:
        """(Again) with these settings, as after a restart."""
        self.settings = self.configured(**react)
        self.pauses = Pauses(self.settings, self.ledger, self._tell, host)
        self.pauses.restore()

    def reload(self, **react: Any) -> None:
        """Other settings while it runs."""
        self.settings = self.configured(**react)
        self.pauses.use(self.settings)

    def configured(self, **react: Any) -> Settings:
        return Settings.model_validate({
            "store": "sqlite:////nowhere.db", "plans": {"p": {}}, "react": react,
            "tenants": {name: {"plan": "p"} for name in ("acme", "beta", "calm")}, "unknown_login": {"plan": "p"},
            "pools": {
                "t": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}},
                "bulk": {"members": {"bk1": {"ip": "192.0.2.21"}}},
            },
        })  # fmt: skip

    def _tell(self, reading: Any) -> None:
        if notice := self.alerts.look(reading, self.clock() / 1000):
            self.notices.append(notice)

    def hears(self, reply: str, count: int = 2, *, tenant: str = "acme", member: str = "tx1", provider: str = "yahoo") -> None:
        """So many attempts, each of a message of its own; an empty reply: delivered."""
        events: list[Event] = []
        outcome = {"4": Outcome.DEFERRED, "5": Outcome.BOUNCED}.get(reply[:1], Outcome.DELIVERED)
        for _ in range(count):
            self.number += 1
            queue_id, at = f"4bQ{self.number}", self.clock() / 1000
            recipient = f"r{self.number}@{DOMAINS[provider]}"
            events.append(Accepted(at, queue_id, tenant))
            events.append(
                Attempt(at, queue_id, recipient, outcome, member, MX[provider], "198.51.100.1", "", reply or "250 2.0.0 Ok")
            )
        for judged in Attributor(self.settings, classifier()).attribute(events, Docket()).judged:
            self.pauses.feed(judged)

    def wait(self, seconds: float) -> None:
        """Until then, and look for what is over."""
        self.clock.now_ms += int(seconds * 1000)
        self.pauses.turn(alerting=list(self.alerts.alerting))

    def paused(self, provider: str = "yahoo") -> dict[str, float]:
        """Members that rest for the provider, and how many seconds more."""
        words = steering.read(self.ledger)
        found = {name: warmup.pause_of(entry, provider, words.now_ms) for name, entry in words.members.items()}
        return {name: ((one.until_ms or 0) - words.now_ms) / 1000 for name, one in found.items() if one}

    def told(self) -> list[str]:
        found = [f"{notice.key} {notice.kind.value} {notice.severity.value}" for notice in self.notices]
        self.notices.clear()
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


def test_a_blamed_address_rests_for_that_provider(desk: Desk) -> None:
    desk.hears(COMPLAINTS)
    assert desk.paused() == {}  # nothing is done before the turn
    assert desk.pauses.turn()
    assert (desk.paused(), desk.paused("google")) == ({"tx1": 600.0}, {})
    entry = steering.read(desk.ledger).members["tx1"]
    found = warmup.pause_of(entry, "yahoo", START_MS)
    assert found is not None
    assert (found.by, COMPLAINTS[:40] in found.reason) == ("monitor", True)
    (notice,) = desk.notices
    assert (notice.key, notice.subject) == ("member:tx1:yahoo", "tx1")
    assert notice.undo == "relaywarden pools resume tx1 --provider yahoo"
    assert notice.evidence["category"] == "ip-reputation"
    assert desk.told() == ["member:tx1:yahoo crossed act"]
    assert not desk.pauses.turn()


def test_people_hear_when_it_is_over_also_after_a_restart(desk: Desk) -> None:
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    desk.told()
    desk.use()
    desk.wait(599)
    desk.wait(CALM)
    assert desk.told() == []  # it had just ended
    desk.wait(CALM)
    (notice,) = desk.notices
    assert (notice.kind, notice.what) == (Kind.RECOVERED, "tx1 carries mail to yahoo again")
    assert desk.alerts.alerting == {}


def test_a_restart_keeps_the_doubling(desk: Desk) -> None:
    lasted = []
    for _ in range(4):
        desk.hears(COMPLAINTS)
        desk.pauses.turn()
        (seconds,) = desk.paused().values()
        lasted.append(seconds)
        desk.use()
        desk.hears(COMPLAINTS, 20)  # what was in the queue neither prolongs nor doubles
        desk.pauses.turn()
        desk.wait(seconds + 1)
    assert lasted == [600, 1200, 2400, 4800]


def test_the_last_member_goes_on(desk: Desk) -> None:
    desk.hears(COMPLAINTS, member="bk1")
    desk.pauses.turn()
    assert (desk.paused(), desk.told()) == ({}, ["member:bk1:yahoo crossed warn"])


@pytest.mark.parametrize("together", [True, False])
def test_two_blamed_members_leave_one(desk: Desk, together: bool) -> None:
    for member in ("tx1", "tx2"):
        desk.hears(COMPLAINTS, member=member)
        if not together:
            desk.pauses.turn()
    desk.pauses.turn()
    assert list(desk.paused()) == ["tx1"]
    assert desk.told() == ["member:tx1:yahoo crossed act", "member:tx2:yahoo crossed warn"]


def test_the_others_are_those_who_could_carry_the_mail(desk: Desk) -> None:
    word = warmup.paused({}, warmup.EVERY, None, "cable", "root", START_MS)
    desk.ledger.apply([steering.say("members", {"tx2": word})])
    desk.use()
    desk.hears(BANNED, provider="microsoft")
    desk.pauses.turn()
    assert "tx1" not in desk.paused("microsoft")


def test_a_persons_longer_pause_stays(desk: Desk) -> None:
    word = warmup.paused({}, "yahoo", None, "asked them", "root", START_MS)
    desk.ledger.apply([steering.say("members", {"tx1": word})])
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    assert (steering.read(desk.ledger).members["tx1"], desk.told()) == (word, [])


def test_an_old_log_pauses_nobody_now(desk: Desk) -> None:
    desk.hears(COMPLAINTS)
    desk.clock.now_ms += 2 * HOUR_MS
    desk.pauses.turn()
    assert (desk.paused(), desk.told()) == ({}, [])


def test_who_sent_more_than_usual_is_named(desk: Desk) -> None:
    for name in ("acme", "calm"):  # 100 recipients in each hour of the past week
        desk.ledger.apply([
            Tally(name, {"delivered": 100}, {"yahoo.delivered": 100}, at_ms=START_MS - hour * HOUR_MS)
            for hour in range(1, 7 * 24 + 1)
        ])  # fmt: skip
    desk.clock.now_ms -= HOUR_MS // 2
    desk.hears("", 100, tenant="calm")
    desk.clock.now_ms += 89 * 60_000  # 08:59
    desk.hears("", 98, tenant="calm")  # in both hours as ever: together they are not twice as much an hour
    desk.hears("", 400, tenant="acme")
    desk.hears("", 90, tenant="beta")
    desk.hears("", 30, tenant="beta", provider="google")
    desk.hears(COMPLAINTS, 300)
    desk.pauses.turn()
    (notice,) = desk.notices
    assert notice.evidence["more_than_usual"] == (
        "acme (700 in the last hour, usually 100); beta (90 in the last hour, usually 0)"
    )


def test_in_mode_observe_it_is_only_said(desk: Desk) -> None:
    desk.use(mode="observe")
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    (notice,) = desk.notices
    assert "would be paused for yahoo for 10m, but react.mode is observe" in notice.what
    assert (desk.paused(), desk.told()) == ({}, ["member:tx1:yahoo crossed warn"])


def test_in_mode_off_members_are_left_alone(desk: Desk) -> None:
    desk.use(mode="off")
    desk.hears(COMPLAINTS, 50)
    assert not desk.pauses.turn()
    assert (desk.paused(), desk.told()) == ({}, [])


def test_our_own_words_cause_nothing(desk: Desk) -> None:
    desk.hears(OUR_OWN, 500)
    assert not desk.pauses.turn()


def test_what_no_pause_mends_is_told_for_a_day_beside_the_pauses(desk: Desk) -> None:
    desk.hears(NO_PTR, 5, provider="google")
    desk.pauses.turn()
    assert (desk.paused("google"), desk.told()) == ({}, ["member:tx1:google:reverse-dns crossed warn"])
    desk.use()
    desk.hears(NO_PTR, 5, provider="google")
    desk.wait(86_399)
    assert desk.told() == []
    desk.wait(1)
    desk.wait(CALM)
    assert desk.told() == ["member:tx1:google:reverse-dns recovered warn"]


def test_an_unmistakable_customer_is_told_of_and_nobody_is_paused(desk: Desk) -> None:
    desk.hears(PHISHING, 5, tenant="beta", provider="microsoft")
    desk.pauses.turn()
    assert (desk.paused("microsoft"), [notice.subject for notice in desk.notices]) == ({}, ["beta"])
    assert desk.told() == ["tenant:beta:phishing crossed warn"]
    desk.use()
    desk.wait(86_400)
    desk.wait(CALM)
    assert desk.told() == ["tenant:beta:phishing recovered warn"]


def test_alerts_of_others_are_not_touched(desk: Desk) -> None:
    desk.pauses.turn(alerting=["tenant:acme:bounces", "dns:tx1:ptr", "tenant:acme:standing"])
    assert desk.told() == []


@pytest.mark.parametrize("mode", ["off", "offer", "run"])
def test_powermta_is_told_too(desk: Desk, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    program, log = tmp_path / "pmta", tmp_path / "told"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]), file=open({str(log)!r}, 'a'))\n")
    program.chmod(0o755)
    desk.use(pmta=mode, pmta_command=str(program))
    desk.hears(COMPLAINTS, 2)
    desk.pauses.turn()
    command = ["disable", "source", "--reenable-after=600s", "192.0.2.1", "yahoo.com/tx1"]
    if mode == "run":
        wait_for("PowerMTA to be told", lambda: log.exists() and log.read_text().endswith("\n"))
    told = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    assert told == ([command] if mode == "run" else [])
    (notice,) = desk.notices
    assert notice.evidence.get("pmta", "") == ("" if mode == "off" else f"pmta {' '.join(command)}")
    assert ("should be told" in caplog.text) == (mode == "offer")
    assert desk.paused() == {"tx1": 600.0}


def test_a_powermta_that_does_not_answer_does_not_keep_the_member_going(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.use(pmta="run", pmta_command="/nowhere/pmta")
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    wait_for("what became of it", lambda: "was told" in caplog.text)
    (said,) = [vars(record)["relaywarden_fields"] for record in caplog.records if "was told" in record.getMessage()]
    assert "cannot be started" in said["problem"]
    assert desk.paused() == {"tx1": 600.0}


def test_a_powermta_that_hangs_keeps_nobody_waiting(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "_MOST_COMMANDS", 1)
    gate, program = tmp_path / "gate", tmp_path / "pmta"
    os.mkfifo(gate)
    program.write_text(f"#!/bin/sh\nread line < {gate}\n")  # until somebody opens the gate
    program.chmod(0o755)
    desk.use(pmta="run", pmta_command=str(program))
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    assert (desk.paused(), "was told" in caplog.text) == ({"tx1": 600.0}, False)
    keys = list[int]()

    def runs() -> bool:
        try:
            keys.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads yet
            return False
        return True

    wait_for("the program to run", runs)
    desk.hears(BANNED, provider="microsoft")  # waits
    desk.hears(COMPLAINTS, member="tx2")  # one too many
    desk.pauses.turn()
    desk.pauses.stop()
    os.write(keys[0], b"go on\n")
    os.close(keys[0])
    wait_for("the first to end", lambda: "PowerMTA was told" in caplog.text)
    assert caplog.text.count("not told, too much waits for it already") == 1
    assert caplog.text.count("was not told, the monitor ends") == 1


def test_a_person_who_pauses_while_we_decide_is_not_overwritten(desk: Desk) -> None:
    word = warmup.paused({"back": {"*": 3}}, "yahoo", START_MS + 60_000, "asked them", "root", START_MS)
    desk.ledger.quicker = [steering.say("members", {"tx1": word})]
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    assert (steering.read(desk.ledger).members["tx1"], desk.told()) == (word, [])


def test_what_a_person_says_of_other_providers_while_we_decide_stays(desk: Desk) -> None:
    word = warmup.paused({"back": {"*": 3}}, "google", None, "asked them", "root", START_MS)
    desk.ledger.quicker = [steering.say("members", {"tx1": word})]
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    entry = steering.read(desk.ledger).members["tx1"]
    assert (entry["back"], sorted(entry["paused"])) == ({"*": 3}, ["google", "yahoo"])
    assert desk.told() == ["member:tx1:yahoo crossed act"]


def test_a_reload_forgets_nothing(desk: Desk) -> None:
    desk.hears(COMPLAINTS, 1)
    desk.hears(BANNED, 2, provider="microsoft")  # decided, not carried out
    desk.reload(pause="20m")
    desk.hears(COMPLAINTS, 1)
    desk.pauses.turn()
    assert (desk.paused(), desk.paused("microsoft")) == ({"tx1": 1200.0}, {"tx1": 600.0})


def test_each_host_knows_its_own_pauses(desk: Desk) -> None:
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    desk.use(host="mx2")
    desk.hears(NO_PTR, 5, provider="google")
    desk.pauses.turn()
    desk.use(host="mx1")
    desk.wait(601)
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    assert desk.paused() == {"tx1": 1200.0}, "the other one's state did not take the place of ours"


def test_what_undoes_it_can_be_pasted_into_a_shell(desk: Desk) -> None:
    desk.hears(PHISHING, 5, tenant="beta;reboot", provider="microsoft")
    desk.pauses.turn()
    assert [notice.undo for notice in desk.notices] == ["relaywarden explain 'beta;reboot'"]


def test_while_the_store_is_locked_the_decision_waits(desk: Desk, tmp_path: Path) -> None:
    desk.hears(COMPLAINTS)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError):
        desk.pauses.turn()
    other.execute("ROLLBACK")
    other.close()
    desk.pauses.turn()
    assert (desk.paused(), desk.told()) == ({"tx1": 600.0}, ["member:tx1:yahoo crossed act"])


def test_a_state_that_cannot_be_read_begins_anew(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    for text in ('{"version": 99}', "{", "[]"):
        desk.ledger.apply([Note(BOOK, TOPIC, {"mx1": text})])
        desk.use()
    assert caplog.text.count("pauses begin anew") == 3
    desk.hears(COMPLAINTS)
    desk.pauses.turn()
    assert desk.paused() == {"tx1": 600.0}
