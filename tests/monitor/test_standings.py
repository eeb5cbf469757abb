"""From thresholds to consequences: a tenant is diverted or suspended, for how long, who may end it, and what is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relaywarden import standing, steering
from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Charge, Decision, Ledger, Read, Snapshot, Status, Steer
from relaywarden.ledger.records import HOUR_MS, Note, Noted, Notes, Tally
from relaywarden.outcomes import Share
from relaywarden.standing import Step, Word
from relaywarden.tenants import Directory
from relaywarden_monitor.judge import WEEK_MS, Finding
from relaywarden_monitor.notify.alerts import AlertBook, Level, Reading
from relaywarden_monitor.notify.notice import Notice
from relaywarden_monitor.standings import SAID, TOPIC, Standings
from relaywarden_monitor.steps import BOOK
from testbed.fakeclock import FakeClock
from testbed.ledgerstore import START_MS, TICKET_TTL_MS
from testbed.raced import RacedLedger
from testbed.redis import RedisServer

CALM = 60.0
Named = dict[str, Any]


def settings(store: str = "sqlite:////nowhere.db", *, quarantine: bool = True, plan: Named | None = None) -> Settings:
    pools = {"t": {"members": {"tx1": {"ip": "192.0.2.1"}}}}
    if quarantine:
        pools["quarantine"] = {"members": {"q1": {"ip": "192.0.2.31"}}}
    return Settings.model_validate(
        {"store": store, "plans": {"p": plan or {}}, "tenants": {"acme": {"plan": "p"}, "beta": {"plan": "p"}}, "pools": pools}
    )


@dataclass
class Office:
    """Standings on a ledger, by a clock that the test sets, with everything that was told."""

    ledger: Ledger
    clock: Callable[[], int]
    settings: Settings
    notices: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alerts = AlertBook(CALM)
        self.restart()

    def restart(self) -> None:
        self.standings = Standings(self.settings, self.ledger, self._tell)

    def _tell(self, reading: Reading) -> None:
        if notice := self.alerts.look(reading, self.clock() / 1000):
            self.notices.append(notice)

    def sends(self, *, bad: int, good: int = 900, tenant: str = "acme") -> None:
        """So many recipients in this hour, of whom so many do not exist; then they are looked at."""
        counts = {"delivered": good, "bounced": bad}
        self.ledger.apply([Tally(tenant, counts, {"invalid": bad, "why.no-mailbox": bad}, at_ms=self.clock())])
        self.look()

    def look(self, bursts: Mapping[str, Finding] | None = None) -> None:
        self.standings.look(["acme", "beta"], bursts or {})

    def wait(self, ms: int) -> None:
        assert isinstance(self.clock, FakeClock)
        self.clock.now_ms += ms
        self.look()

    def entry(self, tenant: str = "acme") -> Named:
        return dict(steering.read(self.ledger).tenants.get(tenant, {}))

    def says(self, step: Step) -> Named:
        """An operator's word, as the command line gives it; what is said then."""
        self.ledger.apply(standing.say("acme", Word(step, "looked at by people", "root", self.clock())))
        return self.entry()

    def quicker(self, step: Step) -> None:
        """The operator says it just before the monitor's next word is written."""
        assert isinstance(self.ledger, RacedLedger)
        self.ledger.quicker = standing.say("acme", Word(step, "looked at by people", "root", self.clock()))

    def heard(self) -> tuple[Step, str] | None:
        """Where the tenant stands by its own books, and who says so."""
        account = next(tenant for tenant in Directory(self.settings) if tenant.name == "acme").account()
        (found,) = self.ledger.apply([Read(account)])
        assert isinstance(found, Snapshot)
        word = standing.heard(found.state, found.now_ms)
        return (word.step, word.by) if word else None

    def told(self) -> list[str]:
        found = [f"{notice.key.removeprefix('tenant:')} {notice.kind.value}" for notice in self.notices]
        self.notices.clear()
        return sorted(found)


@pytest.fixture
def open_office(tmp_path: Path) -> Iterator[Callable[..., Office]]:
    clock = FakeClock(tmp_path / "clock", START_MS)
    ledger = RacedLedger(tmp_path / "ledger.db", timeout_ms=1000, ticket_ttl_ms=TICKET_TTL_MS, clock=clock)
    yield lambda **more: Office(ledger, clock, settings(**more))
    ledger.close()


@pytest.fixture
def office(open_office: Callable[..., Office]) -> Office:
    return open_office()


def test_few_bad_outcomes_convict_nobody(office: Office) -> None:
    office.ledger.apply([Tally("acme", {"delivered": 3, "complained": 1}, at_ms=START_MS)])
    office.look()
    office.sends(bad=2, good=0, tenant="beta")
    assert (office.told(), office.entry(), office.entry("beta")) == ([], {}, {})


def test_a_threshold_for_people_is_told_once_and_its_recovery_too(office: Office) -> None:
    office.sends(bad=60)
    assert office.told() == ["acme:bounces crossed"]
    office.sends(bad=3, good=50)
    assert (office.told(), office.entry()) == ([], {})
    office.wait(25 * HOUR_MS)
    office.wait(int(CALM * 1000))
    assert office.told() == ["acme:bounces recovered"]


def test_a_threshold_of_ours_diverts_until_it_is_over(office: Office) -> None:
    office.sends(bad=200)
    entry = office.entry()
    assert (entry["by"], entry["times"], entry["until_ms"]) == ("monitor", 1, START_MS + HOUR_MS)
    assert entry["divert"].startswith("hard bounces: 200 of 1100 (18.18%)")
    crossed = list(office.notices)
    assert office.told() == ["acme:bounces crossed", "acme:standing crossed"]
    assert (crossed[1].subject, crossed[1].undo) == ("acme", "relaywarden resume acme")
    assert "diverted to quarantine" in crossed[1].what
    for _ in range(3):  # what comes meanwhile neither prolongs nor doubles
        office.sends(bad=50)
    assert (office.told(), office.entry()) == ([], entry)
    office.wait(HOUR_MS)
    assert office.entry() == {}
    office.wait(int(CALM * 1000))
    assert office.told() == ["acme:bounces recovered", "acme:standing recovered"]


def test_what_was_punished_is_not_punished_again_and_a_relapse_doubles(office: Office) -> None:
    lasted = []
    for _ in range(3):
        office.sends(bad=200)
        entry = office.entry()
        lasted.append((entry["times"], entry["until_ms"] - office.clock()))
        office.wait(entry["until_ms"] - office.clock())
        for _ in range(3):
            office.wait(HOUR_MS)
            assert office.entry() == {}
    assert lasted == [(1, HOUR_MS), (2, 2 * HOUR_MS), (3, 4 * HOUR_MS)]
    assert office.told().count("acme:standing crossed") == 3
    office.wait(WEEK_MS + HOUR_MS)
    office.sends(bad=200)
    assert office.entry()["times"] == 1, "after a good week it is a first time again"


def test_a_restart_neither_repeats_nor_forgets(office: Office) -> None:
    office.sends(bad=200)
    entry = office.entry()
    office.restart()
    office.look()
    assert office.entry() == entry
    assert office.standings.held() == ["acme"]
    office.restart()
    office.wait(HOUR_MS)
    assert office.entry() == {}


@pytest.mark.parametrize("step", [Step.HELD, Step.DIVERTED, Step.SUSPENDED])
def test_a_persons_word_is_kept(office: Office, step: Step) -> None:
    word = office.says(step)
    office.sends(bad=200)
    assert (office.entry(), bool(word)) == (word, True)
    assert office.told() == ["acme:bounces crossed"]  # people are told, nothing is done
    office.wait(30 * HOUR_MS)
    assert office.entry() == word


@pytest.mark.parametrize("step", [Step.WATCHED, Step.SLOWED, Step.DIVERTED, Step.HELD, Step.SUSPENDED])
def test_a_person_who_speaks_while_we_decide_is_not_overwritten(office: Office, step: Step) -> None:
    office.quicker(step)
    office.sends(bad=200)
    assert office.heard() == (step, "root")
    assert office.entry().get("by", "root") == "root"
    assert office.told() == ["acme:bounces crossed"], "nothing was done, so nothing is told"
    office.wait(HOUR_MS)
    assert office.heard() == (step, "root")


@pytest.mark.parametrize("step", [Step.SLOWED, Step.HELD, Step.SUSPENDED])
def test_the_end_of_ours_does_not_end_what_a_person_says_meanwhile(office: Office, step: Step) -> None:
    office.sends(bad=200)
    office.quicker(step)
    office.wait(HOUR_MS)
    assert office.heard() == (step, "root")
    assert office.entry().get("by", "root") == "root"


@pytest.mark.parametrize("step", [Step.HELD, Step.DIVERTED, Step.SUSPENDED])
def test_a_persons_word_takes_the_place_of_ours(office: Office, step: Step) -> None:
    office.sends(bad=200)
    word = office.says(step)
    for _ in range(3):
        office.wait(HOUR_MS)
        assert office.entry() == word


def test_a_person_ends_it_for_good(office: Office) -> None:
    """`relaywarden resume`: the same bounces do not convict again, new ones do."""
    office.sends(bad=200)
    office.told()
    office.says(Step.NORMAL)
    office.wait(60_000)
    office.wait(int(CALM * 1000))
    assert (office.entry(), office.told()) == ({}, ["acme:bounces recovered", "acme:standing recovered"])
    office.sends(bad=200)
    assert office.entry()["times"] == 2


def charged(office: Office, ticket: str) -> Status:
    """What policyd would hear now."""
    account = next(tenant for tenant in Directory(office.settings) if tenant.name == "acme").account()
    (decision,) = office.ledger.apply([Charge(account, ticket, "r@x.example")])
    assert isinstance(decision, Decision)
    return decision.status


def test_a_suspension_reaches_policyd_and_ends_by_itself(open_office: Callable[..., Office]) -> None:
    office = open_office(plan={"health": {"action": "suspend", "hold_for": "10m"}})
    assert charged(office, "t1") is Status.ADMITTED
    office.sends(bad=200)
    suspended = office.entry()["suspended"]
    assert (suspended["by"], suspended["until_ms"]) == ("monitor", START_MS + 600_000)
    assert charged(office, "t2") is Status.SUSPENDED
    office.wait(600_000)
    assert (charged(office, "t3"), office.entry()) == (Status.ADMITTED, {})


def test_a_person_resumes_a_suspended_tenant(open_office: Callable[..., Office]) -> None:
    office = open_office(plan={"health": {"action": "suspend"}})
    office.sends(bad=200)
    office.says(Step.NORMAL)
    office.wait(60_000)
    assert (charged(office, "t1"), office.entry()) == (Status.ADMITTED, {})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"plan": {"mode": "observe"}}, "mode observe"),
        ({"quarantine": False}, "there is no pool called quarantine"),
        ({"plan": {"health": {"action": "none"}}}, None),
    ],
)
def test_where_nothing_may_be_done_it_is_only_told(
    open_office: Callable[..., Office], caplog: pytest.LogCaptureFixture, more: Named, why: str | None
) -> None:
    office = open_office(**more)
    for _ in range(5):
        office.sends(bad=200)
    assert (office.entry(), office.told(), office.standings.held()) == ({}, ["acme:bounces crossed"], [])
    said = [vars(record)["relaywarden_fields"] for record in caplog.records if "would act" in record.getMessage()]
    assert [fields["why_not"] for fields in said] == ([why] if why else []), "told once, not with every look"


def test_a_tenant_that_the_operator_set_to_observe_is_only_told(office: Office) -> None:
    office.ledger.apply([Steer("acme", {"mode": "observe"})])
    office.sends(bad=200)
    assert (office.entry(), office.standings.held()) == ({}, [])


def test_a_suspension_needs_no_quarantine(open_office: Callable[..., Office]) -> None:
    office = open_office(quarantine=False, plan={"health": {"action": "suspend"}})
    office.sends(bad=200)
    assert "suspended" in office.entry()


def test_a_dirty_burst_is_enough(office: Office) -> None:
    share = Share(12, 40)
    text = "invalid recipients: 12 of 40 (30.00%) of the first ones of a burst"
    office.look({"acme": Finding("invalid", Level.ACT, share, share.lower(2.0), 0.1, text)})
    assert office.entry()["divert"] == text
    assert office.told() == ["acme:standing crossed"]


def test_a_record_that_cannot_be_read_begins_anew(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.ledger.apply([Note(BOOK, TOPIC, {"acme": '{"action": "explode"}'})])
    office.sends(bad=200)
    assert "begins anew" in caplog.text
    assert office.entry()["times"] == 1


def test_what_undoes_it_can_be_pasted_into_a_shell(office: Office) -> None:
    name = "a;reboot"
    values = office.settings.model_dump(mode="json", exclude_unset=True)
    office.settings = Settings.model_validate({**values, "unknown_login": {"plan": "p"}})
    office.standings.use(office.settings)
    office.ledger.apply([Tally(name, {"delivered": 900, "bounced": 200}, {"invalid": 200}, at_ms=office.clock())])
    office.standings.look([name], {})
    assert {notice.undo for notice in office.notices} == {"relaywarden resume 'a;reboot'"}


def test_a_note_of_what_was_said_that_cannot_be_read_is_left_out(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.ledger.apply([Note(BOOK, SAID, {"acme": "[]", "beta": '{"step": "explode"}'})])
    office.look()
    assert caplog.text.count("what was last said of a tenant cannot be read") == 2


def test_names_of_nobody_are_left_out(office: Office) -> None:
    office.standings.look(["nobody", "", "!steering"], {})
    assert office.told() == []


def test_what_is_over_for_long_is_forgotten(office: Office) -> None:
    office.sends(bad=200)
    office.wait(HOUR_MS)
    office.wait(WEEK_MS + HOUR_MS)
    assert office.standings.held() == []


def test_two_hosts_with_one_redis_go_by_one_record(redis_server: RedisServer) -> None:
    values = settings(redis_server.url)
    ledgers = [open_ledger(values) for _ in range(2)]
    clock = lambda: steering.read(ledgers[0]).now_ms  # noqa: E731
    first, second = (Office(ledger, clock, values) for ledger in ledgers)
    first.sends(bad=200)
    entry = first.entry()
    second.sends(bad=200)
    assert second.entry() == entry
    assert second.told() == ["acme:bounces crossed"]
    (found,) = ledgers[1].apply([Notes(BOOK, TOPIC)])
    assert isinstance(found, Noted)
    assert list(found.fields) == ["acme"]
    for ledger in ledgers:
        ledger.close()
