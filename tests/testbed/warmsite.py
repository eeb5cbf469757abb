"""A pool with members that warm up, on one ledger whose clock is in the test's hand, and the workers that share it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relaywarden import steering, warmup
from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Read, Snapshot
from relaywarden.ledger.records import Tally
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden_milter.allowance import Allowance
from relaywarden_milter.mxcache import MxCache
from testbed.fakeclock import FakeClock

START = datetime.date(2026, 11, 24)


def settings(schedule: dict[str, Any], store: str = "sqlite:////nowhere.db", start: datetime.date = START) -> Settings:
    warming = {"start": start, "schedule": "mine"}
    return Settings.model_validate(
        {
            "store": store,
            "ledger": {"timeout": "5s"},
            "schedules": {"mine": schedule},
            "pools": {
                "tx": {
                    "members": {
                        "new1": {"ip": "192.0.2.1", "warmup": warming},
                        "new2": {"ip": "192.0.2.2", "warmup": {**warming, "schedule": "default"}},
                        "old": {"ip": "192.0.2.3"},
                    }
                }
            },
        }
    )


def to(provider: str, amount: int = 1) -> list[str]:
    return [f"r{number}@{provider}" for number in range(amount)]


@dataclass
class Site:
    """One ledger, and the workers that share it."""

    folder: Path
    clock: FakeClock
    settings: Settings
    ledgers: list[SqliteLedger] = field(default_factory=list)

    def connect(self) -> SqliteLedger:
        ledger = SqliteLedger(self.folder / "ledger.db", timeout_ms=5000, ticket_ttl_ms=3_600_000, clock=self.clock)
        self.ledgers.append(ledger)
        return ledger

    def worker(self, ahead: float = 0.0) -> Allowance:
        """One more; `ahead`: how many seconds its own clock is ahead of the store's."""
        clock = self.clock
        return Allowance(self.settings, self.connect, MxCache(), lambda: clock.now_ms / 1000 + ahead)

    def happened(self, member: str, provider: str, **counters: int) -> None:
        """What the monitor counts."""
        self.ledger.apply([Tally(warmup.books(member, provider), counters)])

    @property
    def ledger(self) -> SqliteLedger:
        return self.ledgers[0] if self.ledgers else self.connect()

    def entry(self, member: str) -> Any:
        return steering.read(self.ledger).members.get(member, {})

    def used(self, member: str, provider: str, caps: warmup.Caps = warmup.NOTHING) -> list[int]:
        (found,) = self.ledger.apply([Read(warmup.account(member, provider, caps))])
        assert isinstance(found, Snapshot)
        return [balance.used for balance in found.balances]
