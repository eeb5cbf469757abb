"""sqlite_books - one tenant's books inside one SQLite transaction: read at the first use, written at the end."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from relaywarden.ledger.records import HOUR_MS
from relaywarden.ledger.unique import Shelf

UPSERTS = {
    "balance": "REPLACE INTO balance VALUES (?,?,?)",  # these have no other index: one descent of the tree, not two
    "tail": "REPLACE INTO tail VALUES (?,?,?)",
    "sketch": "REPLACE INTO sketch VALUES (?,?,?,?)",
    "ticket": "INSERT INTO ticket VALUES (?,?,?,?) "
    "ON CONFLICT DO UPDATE SET value=excluded.value, expires_ms=excluded.expires_ms",
    "pointer": "INSERT INTO pointer VALUES (?,?,?,?) "
    "ON CONFLICT DO UPDATE SET ticket=excluded.ticket, expires_ms=excluded.expires_ms",
    "hour": "INSERT INTO hour VALUES (?,?,?,?,?) "
    "ON CONFLICT DO UPDATE SET amount=amount+excluded.amount, expires_ms=max(expires_ms, excluded.expires_ms)",
    "note expiry": "UPDATE note SET expires_ms=? WHERE book=? AND topic=? AND expires_ms>? AND expires_ms<>?",
    "note": "REPLACE INTO note VALUES (?,?,?,?,?)",
    "suppressed": "REPLACE INTO suppressed VALUES (?,?,?,?)",
    "tenant": "REPLACE INTO tenant VALUES (?,?,?)",
}
_FOREVER = 2**62


class SqliteBooks:
    """Values are read at their first use at the latest, and written at the end."""

    __slots__ = (
        "_db", "_dirty", "_notes", "_pointers", "_shelves", "_tails", "_tenant", "_tickets", "balances", "counters", "now_ms",
        "state", "ticket_ttl_ms",
    )  # fmt: skip

    def __init__(self, db: sqlite3.Connection, tenant: str, now_ms: int, ticket_ttl_ms: int) -> None:
        self.now_ms = now_ms
        self.ticket_ttl_ms = ticket_ttl_ms
        self._db = db
        self._tenant = tenant
        self.balances: dict[str, bytes] = {}
        self.counters: bytes | None = None
        self.state: str | None = None
        self._tails: dict[str, bytes | None] = {}
        self._tickets: dict[str, bytes | None] = {}
        self._pointers: dict[str, str | None] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._notes: dict[str, dict[str, str]] = {}
        self._dirty: defaultdict[str, dict[Any, tuple[Any, ...]]] = defaultdict(dict)

    def changed(self) -> Iterator[tuple[str, Iterable[tuple[Any, ...]]]]:
        """What is to be written, by table."""
        topics = self._dirty["note expiry"]
        for table, rows in self._dirty.items():
            if table == "tenant":
                yield table, [(self._tenant, self.counters, self.state)]
            elif table == "note":
                yield table, [(*row, topics[topic][0]) for (topic, _), row in rows.items()]
            else:
                yield table, rows.values()
        for shelf in self._shelves.values():
            yield "sketch", shelf.rows()

    def load(self, name: str) -> bytes | None:
        return self.balances.get(name)

    def save(self, name: str, value: bytes) -> None:
        self.balances[name] = value
        self._dirty["balance"][name] = (self._tenant, name, value)

    def load_tail(self, name: str) -> bytes | None:
        if name not in self._tails:
            query = "SELECT value FROM tail WHERE tenant=? AND name=?"
            row = self._db.execute(query, (self._tenant, name)).fetchone()
            self._tails[name] = row[0] if row else None
        return self._tails[name]

    def save_tail(self, name: str, value: bytes) -> None:
        self._tails[name] = value
        self._dirty["tail"][name] = (self._tenant, name, value)

    def shelf(self, name: str) -> Shelf:
        if name not in self._shelves:
            self._shelves[name] = _Shelf(self._db, self._tenant, name)
        return self._shelves[name]

    def load_ticket(self, ticket: str) -> bytes | None:
        if ticket not in self._tickets:
            self._tickets[ticket] = self._unexpired("SELECT value, expires_ms FROM ticket WHERE tenant=? AND name=?", ticket)
        return self._tickets[ticket]

    def save_ticket(self, ticket: str, value: bytes, ttl_ms: int) -> None:
        self._tickets[ticket] = value
        self._dirty["ticket"][ticket] = (self._tenant, ticket, value, self.now_ms + ttl_ms)

    def find(self, name: str) -> str | None:
        if name not in self._pointers:
            self._pointers[name] = self._unexpired("SELECT ticket, expires_ms FROM pointer WHERE tenant=? AND name=?", name)
        return self._pointers[name]

    def point(self, name: str, ticket: str, ttl_ms: int) -> None:
        self._pointers[name] = ticket
        self._dirty["pointer"][name] = (self._tenant, name, ticket, self.now_ms + ttl_ms)

    def load_counters(self) -> bytes | None:
        return self.counters

    def save_counters(self, value: bytes) -> None:
        self.counters = value
        self._dirty["tenant"]["*"] = ()

    def load_state(self) -> dict[str, Any]:
        return dict(json.loads(self.state)) if self.state else {}

    def save_state(self, state: Mapping[str, Any]) -> None:
        self.state = json.dumps(state) if state else None
        self._dirty["tenant"]["*"] = ()

    def add_hour(self, hour: int, amounts: Mapping[str, int], keep_ms: int) -> None:
        expires = (hour + 1) * HOUR_MS + keep_ms
        rows = self._dirty["hour"]
        for name, amount in amounts.items():
            row = rows.get((hour, name))
            rows[hour, name] = (self._tenant, hour, name, amount + (row[3] if row else 0), expires)

    def load_hours(self, hours: range) -> dict[int, dict[str, int]]:
        query = "SELECT hour, name, amount FROM hour WHERE book=? AND hour>=? AND hour<? AND expires_ms>?"
        found: dict[int, dict[str, int]] = {}
        for hour, name, amount in self._db.execute(query, (self._tenant, hours.start, hours.stop, self.now_ms)):
            found.setdefault(hour, {})[name] = amount
        for (hour, name), row in self._dirty["hour"].items():
            if hour in hours:
                record = found.setdefault(hour, {})
                record[name] = record.get(name, 0) + row[3]
        return found

    def know_notes(self, topic: str, fields: dict[str, str]) -> None:
        """These were read for the whole batch, before its first operation."""
        self._notes[topic] = fields

    def load_notes(self, topic: str, names: Sequence[str] = ()) -> dict[str, str]:
        known = self._topic(topic)
        return {name: known[name] for name in names if name in known} if names else dict(known)

    def save_notes(self, topic: str, fields: Mapping[str, str | None], ttl_ms: int) -> None:
        known, rows = self._notes.get(topic), self._dirty["note"]
        expires = self.now_ms + ttl_ms if ttl_ms else _FOREVER
        for name, value in fields.items():
            if known is not None:
                known.pop(name, None)
            if value is None:
                rows.pop((topic, name), None)
                self._db.execute("DELETE FROM note WHERE book=? AND topic=? AND name=?", (self._tenant, topic, name))
            else:
                rows[topic, name] = (self._tenant, topic, name, value)
                if known is not None:
                    known[name] = value
        # The whole topic lives as long as what was written last.
        self._dirty["note expiry"][topic] = (expires, self._tenant, topic, self.now_ms, expires)

    def load_suppression(self, digest: bytes) -> str | None:
        written = self._dirty["suppressed"].get(digest)
        if written is not None:
            return str(written[2])
        query = "SELECT value FROM suppressed WHERE book=? AND digest=? AND expires_ms>?"
        row = self._db.execute(query, (self._tenant, digest, self.now_ms)).fetchone()
        return row[0] if row else None

    def load_suppressions(self) -> list[str]:
        query = "SELECT digest, value FROM suppressed WHERE book=? AND expires_ms>?"
        found = dict(self._db.execute(query, (self._tenant, self.now_ms)).fetchall())
        found.update((digest, row[2]) for digest, row in self._dirty["suppressed"].items())
        return list(found.values())

    def save_suppression(self, digest: bytes, value: str | None, until_ms: int = 0) -> None:
        if value is not None:
            self._dirty["suppressed"][digest] = (self._tenant, digest, value, min(until_ms, _FOREVER))
        else:
            self._dirty["suppressed"].pop(digest, None)
            self._db.execute("DELETE FROM suppressed WHERE book=? AND digest=?", (self._tenant, digest))

    def _topic(self, topic: str) -> dict[str, str]:
        if topic not in self._notes:
            # What was written in this transaction before anybody asked is not in the table yet.
            written = {name: row[3] for (of, name), row in self._dirty["note"].items() if of == topic}
            query = "SELECT name, value FROM note WHERE book=? AND topic=? AND expires_ms>?"
            self._notes[topic] = {**dict(self._db.execute(query, (self._tenant, topic, self.now_ms)).fetchall()), **written}
        return self._notes[topic]

    def clear(self) -> None:
        for table in ("balance", "tail", "sketch"):
            self._db.execute(f"DELETE FROM {table} WHERE tenant=?", (self._tenant,))  # noqa: S608  # our own constants
        for kept in (self.balances, self._tails, self._shelves, self._dirty["balance"], self._dirty["tail"]):
            kept.clear()

    def _unexpired(self, query: str, name: str) -> Any:
        row = self._db.execute(query, (self._tenant, name)).fetchone()
        return row[0] if row and row[1] > self.now_ms else None


class _Shelf:
    """One sketch's fields, read together at the first use."""

    def __init__(self, db: sqlite3.Connection, tenant: str, name: str) -> None:
        self._key = (tenant, name)
        self._values: dict[str, bytes] = dict(
            db.execute("SELECT field, value FROM sketch WHERE tenant=? AND name=? AND value<>x''", self._key)
        )
        self._dirty: set[str] = set()

    def rows(self) -> list[tuple[Any, ...]]:
        return [(*self._key, field, self._values[field]) for field in self._dirty]

    def load(self, field: str) -> bytes | None:
        return self._values.get(field)

    def load_all(self) -> dict[str, bytes]:
        return dict(self._values)

    def save(self, field: str, value: bytes) -> None:
        self._values[field] = value
        self._dirty.add(field)
