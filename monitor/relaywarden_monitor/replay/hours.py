"""hours - the ledger's own record as history: what each tenant sent in each hour, and what became of it.

An hour's record has `sent` and `sent_to` (where a log was read), `delivered`, `bounced` and the others of `outcomes`.  It
goes to the patterns as one slice of an hour, to the health as it is, and to those limits whose window is an hour or longer.

Limits are judged by whole hours of the clock: a window of W holds the last W whole hours, which lie within a window of the real
thing; so what is refused here, the ledger would have refused, and the highest use may have been higher.

An SQLite ledger is opened read-only, and nothing of it changes.  Of a Redis one nothing is asked but History.

How it fails: StoreUnavailableError with the store's own words.

Known limits: of windows below an hour, of bytes and of unique recipients an hour's record says nothing: these limits are not
judged.  Nor are bursts of invalid recipients, and replies that blame a member.  Order within the hour is not known.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from relaywarden.config.settings import Mode, Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours
from relaywarden.ledger.sqlite_books import SqliteBooks
from relaywarden.ledger.store_url import Store
from relaywarden.limits import Limit, Meter, Scope
from relaywarden.outcomes import BLOCKED, INVALID, SENT, SENT_TO
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.patterns.traffic import Slice
from relaywarden_monitor.replay.panel import Panel
from relaywarden_monitor.replay.tally import Tally, Use

_HOUR = 3600
_SLOW_FOR = 24  # hours looked at one by one while anything may end
Amounts = Mapping[str, int]


class Records(Protocol):
    """Where hours come from."""

    def tenants(self) -> list[str]:
        """Names of all that were counted."""
        ...

    def hours(self, tenant: str, hours: range) -> Mapping[int, Amounts]:
        """The records of these hours (since 1970); raises StoreUnavailableError."""
        ...

    def close(self) -> None:
        """Give files and connections back."""
        ...


class SqliteRecords:
    """The hours of an SQLite ledger, which is not written to."""

    def __init__(self, path: Path) -> None:
        """Raises StoreUnavailableError."""
        self._path = path
        try:
            self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"ledger {path}: {error}") from error

    def tenants(self) -> list[str]:
        """Names of all that were counted."""
        try:
            return [name for (name,) in self._db.execute("SELECT name FROM tenant ORDER BY name") if not name.startswith("!")]
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"ledger {self._path}: {error}") from error

    def hours(self, tenant: str, hours: range) -> Mapping[int, Amounts]:
        """The records of these hours."""
        try:
            return SqliteBooks(self._db, tenant, int(time.time() * 1000), 0).load_hours(hours)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"ledger {self._path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class LedgerRecords:
    """The hours of any other ledger."""

    def __init__(self, ledger: Ledger, kept_ms: int) -> None:
        """`kept_ms`: older hours are not asked for."""
        self._ledger, self._kept = ledger, kept_ms // HOUR_MS

    def tenants(self) -> list[str]:
        """Names of all that were counted."""
        return [name for name in self._ledger.tenants() if not name.startswith("!")]

    def hours(self, tenant: str, hours: range) -> Mapping[int, Amounts]:
        """The records of these hours."""
        first = max(hours.start, int(time.time() // _HOUR) - self._kept)
        (found,) = self._ledger.apply([History(tenant, first * HOUR_MS, (hours.stop - 1) * HOUR_MS)])
        return found.hours if isinstance(found, Hours) else {}

    def close(self) -> None:
        """Give connections back."""
        self._ledger.close()


def open_records(settings: Settings) -> Records:
    """Open the configured ledger for reading; raises RelaywardenError."""
    store = Store.parse(settings.store)
    return (
        SqliteRecords(Path(store.path))
        if store.scheme == "sqlite"
        else LedgerRecords(open_ledger(settings), settings.monitor.history)
    )


@dataclass(slots=True)
class _Share:
    """A limit that hours can judge, and what it has admitted in the last ones."""

    limit: Limit
    use: Use
    window: int  # hours
    admitted: deque[tuple[int, int]] = field(default_factory=deque)  # hour, amount
    total: int = 0

    def used(self, hour: int) -> int:
        """What the window that ends with this hour has admitted."""
        while self.admitted and self.admitted[0][0] <= hour - self.window:
            self.total -= self.admitted.popleft()[1]
        return self.total

    def admit(self, hour: int, amount: int) -> None:
        """So much was charged in this hour."""
        self.admitted.append((hour, amount))
        self.total += amount


class HourlyTill:
    """One tenant's limits on hours."""

    def __init__(self, tenant: Tenant, uses: dict[str, Use]) -> None:
        """`uses` is filled: balance id -> what the limit would have done."""
        self._shares = [
            _Share(limit, use, limit.window_ms // HOUR_MS)
            for limit in tenant.limits
            if judges(limit)
            for use in [uses.setdefault(limit.balance_id, Use(str(limit), _action(tenant, limit), peak=0.0))]
        ]

    def charge(self, hour: int, messages: int, recipients: int) -> None:
        """An hour's mail; what one enforced limit refuses is charged to none."""
        part = 1.0
        amounts = {Meter.MESSAGES: messages, Meter.RECIPIENTS: recipients}
        for share in self._shares:
            amount, used = amounts[share.limit.meter], share.used(hour)
            over = used + amount - share.limit.amount
            if amount and over > 0:
                share.use.refuse(hour * _HOUR, -(-min(over, amount) * recipients // amount))
                if share.use.action == "refuse":
                    part = min(part, max(0, amount - over) / amount)
        for share in self._shares:
            if taken := int(amounts[share.limit.meter] * part):
                share.admit(hour, taken)
            if share.limit.amount:
                share.use.peak = max(share.use.peak or 0.0, 100 * share.used(hour) / share.limit.amount)


def judges(limit: Limit) -> bool:
    """Whether hours say anything of this limit."""
    counted = limit.meter in (Meter.MESSAGES, Meter.RECIPIENTS)
    return counted and limit.window_ms >= HOUR_MS and limit.burst is None and limit.per is Scope.TENANT


class HourlyReplay:
    """Replays the record of one tenant after another."""

    def __init__(self, settings: Settings, tally: Tally, normal_of: str = "") -> None:
        """`normal_of`: the normal of this tenant is kept for drawing."""
        self._directory, self._tally, self._normal_of = Directory(settings), tally, normal_of
        self._settings = settings

    def tenant(self, name: str, hours: Mapping[int, Amounts]) -> None:
        """All of one tenant's hours; those without a record were silent."""
        tenant = self._directory.by_name(name)
        if tenant is None or tenant.name != name:
            return
        # One a tenant: their times are not one another's.
        panel, tally = Panel(self._settings, self._directory, self._tally), self._tally
        found = panel.tally(tenant)
        till = HourlyTill(tenant, found.uses)
        for hour in _hours(sorted(hours), panel):
            amounts, end = hours.get(hour), float((hour + 1) * _HOUR)
            if amounts is not None:
                messages, recipients = volume(amounts)
                tally.records["hours"] += 1
                tally.saw(hour * _HOUR)
                found.sent(hour * _HOUR, messages, recipients, panel.step(name, hour * _HOUR))
                tally.volume.add(hour * _HOUR, recipients)
                till.charge(hour, messages, recipients)
                panel.outcomes(name, hour, amounts)
                panel.observe(_slice(name, hour, messages, recipients, amounts))
            panel.turn(end, [name])
            panel.look(end - 1)
            if name == self._normal_of:
                tally.normal[hour] = panel.expected(name, hour * _HOUR)


def volume(amounts: Amounts) -> tuple[int, int]:
    """Messages and recipients of an hour; where no log was read, what was delivered or bounced."""
    recipients = amounts.get(SENT_TO) or amounts.get("delivered", 0) + amounts.get("bounced", 0)
    return amounts.get(SENT) or recipients, recipients


def _hours(recorded: list[int], panel: Panel) -> Iterator[int]:
    """The hours with a record, and the silent ones after them as long as something has to end."""
    for index, hour in enumerate(recorded):
        yield hour
        following = recorded[index + 1] if index + 1 < len(recorded) else hour + _SLOW_FOR
        for silent in range(hour + 1, following):
            if not panel.waiting:
                break
            yield silent


def _slice(name: str, hour: int, messages: int, recipients: int, amounts: Amounts) -> Slice:
    return Slice(
        name, hour * _HOUR, (hour + 1) * _HOUR, messages, recipients, suppressed=amounts.get("suppressed", 0),
        delivered=amounts.get("delivered", 0), invalid=amounts.get(INVALID, 0), blocked=amounts.get(BLOCKED, 0),
        complained=amounts.get("complained", 0),
    )  # fmt: skip


def _action(tenant: Tenant, limit: Limit) -> str:
    if limit.observe or tenant.mode is Mode.OBSERVE:
        return "observe"
    return "hold" if tenant.on_exceed.value == "hold" else "refuse"
