"""sqlite - the embedded ledger: one SQLite file in WAL mode, shared by all programs of one host.

A batch is one write transaction (BEGIN IMMEDIATE), so operations of all processes happen one after the other, and a batch
is kept wholly or not at all.  Within a batch a tenant's values are read once and written once.  The store's clock is the
host's.  `synchronous=NORMAL`: a commit survives the death of every process; a power cut may lose the last moments.

How it fails: locked beyond the timeout, disk full, unreadable, corrupt: StoreUnavailableError with SQLite's own words.

Known limits: one host only, and a file system with working locks (not NFS).  A tenant's balances stay in the file (some
500 bytes a limit) until the tenant is reset; tickets are removed when they expire.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger import accounting
from relaywarden.ledger.operations import Operation, Result, tenant_of
from relaywarden.ledger.unique import Shelf

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005
_BUSY = "database is locked"  # SQLite's text for SQLITE_BUSY; Python 3.10 gives no error code
_SWEEP_EVERY = 64  # batches
_SWEEP_ROWS = 2000
_LOADED_TOGETHER = 256  # SQLite before 3.32 takes 999 parameters

# The page size holds for new files: a transaction touches a handful of pages, each of which goes to the log whole.
_PRAGMAS = (
    "PRAGMA page_size=2048; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
    "PRAGMA cache_size=-16384; PRAGMA wal_autocheckpoint=4000;"
)
_UPSERTS = {
    "balance": "REPLACE INTO balance VALUES (?,?,?)",  # these have no other index: one descent of the tree, not two
    "tail": "REPLACE INTO tail VALUES (?,?,?)",
    "sketch": "REPLACE INTO sketch VALUES (?,?,?,?)",
    "ticket": "INSERT INTO ticket VALUES (?,?,?,?) "
    "ON CONFLICT DO UPDATE SET value=excluded.value, expires_ms=excluded.expires_ms",
    "pointer": "INSERT INTO pointer VALUES (?,?,?,?) "
    "ON CONFLICT DO UPDATE SET ticket=excluded.ticket, expires_ms=excluded.expires_ms",
    "tenant": "REPLACE INTO tenant VALUES (?,?,?)",
}


def _host_clock() -> int:
    return time.time_ns() // 1_000_000


def _create(path: Path) -> None:
    """Make a new file for whoever owns the folder: made by root for itself, the programs could only read it."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    except FileExistsError:
        return
    try:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)  # SQLite gives its other files the owner of this one
    finally:
        os.close(descriptor)


class SqliteLedger:
    """A `Ledger` on an SQLite file; safe to share between threads, not across fork."""

    def __init__(self, path: Path, *, timeout_ms: int, ticket_ttl_ms: int, clock: Callable[[], int] = _host_clock) -> None:
        """Open (and create) the file; `clock` gives milliseconds since the epoch; raises StoreUnavailableError."""
        self._clock = clock
        self._path = path
        self._timeout = timeout_ms / 1000
        self._ticket_ttl_ms = ticket_ttl_ms
        self._lock = threading.Lock()
        self._batches = 0
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            _create(path)
            self._db = sqlite3.connect(path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
            # Waiting for the lock is ours: SQLite's own steps of up to 100 ms are too coarse for a verdict, and it does not
            # wait at all where two programs switch a new file to WAL at once.
            schema = files("relaywarden.ledger").joinpath("schema.sql").read_text(encoding="utf-8")
            self._patiently(self._db.executescript, f"PRAGMA busy_timeout=0; {_PRAGMAS} {schema}")
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailableError(f"ledger {path}: {error}") from error

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One transaction for the whole batch; raises StoreUnavailableError."""
        with self._lock:
            try:
                self._patiently(self._db.execute, "BEGIN IMMEDIATE")
                try:
                    results = self._run(operations)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreUnavailableError(f"ledger {self._path}: {error}") from error
            return results

    def tenants(self) -> list[str]:
        """Names of all tenants with counters or state."""
        try:
            with self._lock:
                return [name for (name,) in self._db.execute("SELECT name FROM tenant ORDER BY name")]
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"ledger {self._path}: {error}") from error

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        """(tenant, ticket) of the message with this queue id."""
        query = (
            "SELECT ticket.tenant, value FROM pointer JOIN ticket ON ticket.name = ticket AND ticket.tenant = pointer.tenant "
            "WHERE pointer.name = ?"
        )
        try:
            with self._lock:
                return list(self._db.execute(query, (f"q:{queue_id}",)))
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"ledger {self._path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _patiently(self, execute: Callable[[str], object], sql: str) -> None:
        """Execute, and try again while another process holds the lock, until the timeout."""
        deadline = time.monotonic() + self._timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                execute(sql)
            except sqlite3.OperationalError as error:
                if str(error) != _BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(pause)  # another process holds the write lock; there is nothing to be woken by
                pause = min(_LONGEST_PAUSE, pause * 1.5)
            else:
                return

    def _run(self, operations: Sequence[Operation]) -> list[Result]:
        now_ms = self._clock()
        names = [tenant_of(operation) for operation in operations]
        books = {name: _Books(self._db, name, now_ms, self._ticket_ttl_ms) for name in names}
        self._load(books)
        results = [accounting.apply(books[name], operation) for name, operation in zip(names, operations, strict=True)]
        for table, statement in _UPSERTS.items():
            rows = [row for book in books.values() for row in book.rows(table)]
            if rows:
                self._db.executemany(statement, rows)
        self._batches += 1
        if self._batches % _SWEEP_EVERY == 0:
            self._sweep(now_ms)
        return results

    def _load(self, books: Mapping[str, _Books]) -> None:
        """What every operation needs of its tenant, in one query a table for all tenants of the batch."""
        names = list(books)
        for start in range(0, len(names), _LOADED_TOGETHER):
            some = names[start : start + _LOADED_TOGETHER]
            # Filled up to a power of two, so that there are few statements and each stays prepared.
            some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
            marks = ",".join("?" * len(some))
            for tenant, name, value in self._db.execute(f"SELECT * FROM balance WHERE tenant IN ({marks})", some):  # noqa: S608  # question marks
                books[tenant].balances[name] = value
            for tenant, counters, state in self._db.execute(f"SELECT * FROM tenant WHERE name IN ({marks})", some):  # noqa: S608  # question marks
                books[tenant].counters, books[tenant].state = counters, state

    def _sweep(self, now_ms: int) -> None:
        """Remove expired tickets, from the oldest on."""
        for table in ("ticket", "pointer"):
            self._db.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT {_SWEEP_ROWS})"  # noqa: S608  # our own constants
                " AND expires_ms < ?",
                (now_ms,),
            )


class _Books:
    """One tenant inside one transaction: values are read at their first use at the latest, and written at the end."""

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
        self._dirty: dict[str, dict[str, tuple[Any, ...]]] = {table: {} for table in _UPSERTS}

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """What is to be written to `table`."""
        if table == "sketch":
            return [row for shelf in self._shelves.values() for row in shelf.rows()]
        if table == "tenant":
            return [(self._tenant, self.counters, self.state)] if self._dirty[table] else []
        return list(self._dirty[table].values())

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
