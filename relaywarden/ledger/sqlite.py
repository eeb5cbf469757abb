"""sqlite - the embedded ledger: one SQLite file in WAL mode, shared by all programs of one host.

A batch is one write transaction (BEGIN IMMEDIATE), so operations of all processes happen one after the other, and a batch
is kept wholly or not at all.  Within a batch a tenant's values are read once and written once.  The store's clock is the
host's.  `synchronous=NORMAL`: a commit survives the death of every process; a power cut may lose the last moments.

How it fails: locked beyond the timeout, disk full, unreadable, corrupt: StoreUnavailableError with SQLite's own words.

Known limits: one host only, and a file system with working locks (not NFS).  A tenant's balances stay in the file (some
500 bytes a limit) until the tenant is reset; everything else is removed some time after it expired.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger import accounting
from relaywarden.ledger.operations import Operation, Result, tenant_of
from relaywarden.ledger.records import Claim, History, Look, Note, Notes, Suppress, Suppressed
from relaywarden.ledger.sqlite_books import UPSERTS, SqliteBooks

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005
_BUSY = "database is locked"  # SQLite's text for SQLITE_BUSY; Python 3.10 gives no error code
_SWEEP_EVERY = 64  # batches
_SWEEP_ROWS = 2000
# What has an index on `expires_ms`: after each batch up to twice as many expired rows go as the batch wrote, so none pile up.
_EXPIRING = {"hour": "book, hour, name", "note": "book, topic, name", "suppressed": "book, digest"}
_LOADED_TOGETHER = 256  # SQLite before 3.32 takes 999 parameters
_WITHOUT_BALANCES = (Note, Notes, Claim, Look, Suppress, Suppressed, History)

# The page size holds for new files: a transaction touches a handful of pages, each of which goes to the log whole.
_PRAGMAS = (
    "PRAGMA page_size=2048; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
    "PRAGMA cache_size=-16384; PRAGMA wal_autocheckpoint=4000;"
)


def _together(names: list[str]) -> Iterator[tuple[list[str], str]]:
    """Some names at a time, and question marks for them: filled up to a power of two, so that there are few statements and each
    stays prepared."""
    for start in range(0, len(names), _LOADED_TOGETHER):
        some = names[start : start + _LOADED_TOGETHER]
        some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
        yield some, ",".join("?" * len(some))


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
        books = {name: SqliteBooks(self._db, name, now_ms, self._ticket_ttl_ms) for name in names}
        self._load(books, [name for name, op in zip(names, operations, strict=True) if not isinstance(op, _WITHOUT_BALANCES)])
        self._load_notes(books, operations)
        results = [accounting.apply(books[name], operation) for name, operation in zip(names, operations, strict=True)]
        changed: dict[str, list[tuple[Any, ...]]] = {table: [] for table in UPSERTS}
        for book in books.values():
            for table, rows in book.changed():
                changed[table] += rows
        for table, statement in UPSERTS.items():
            if changed[table]:
                self._db.executemany(statement, changed[table])
        for table in _EXPIRING:
            if changed[table]:
                self._sweep_expired(table, now_ms, 2 * len(changed[table]))
        self._batches += 1
        if self._batches % _SWEEP_EVERY == 0:
            self._sweep(now_ms)
        return results

    def _load(self, books: Mapping[str, SqliteBooks], wanted: Sequence[str]) -> None:
        """What most operations need of their tenant, in one query a table for all tenants of the batch."""
        for some, marks in _together(list(dict.fromkeys(wanted))):
            for tenant, name, value in self._db.execute(f"SELECT * FROM balance WHERE tenant IN ({marks})", some):  # noqa: S608  # question marks
                books[tenant].balances[name] = value
            for tenant, counters, state in self._db.execute(f"SELECT * FROM tenant WHERE name IN ({marks})", some):  # noqa: S608  # question marks
                books[tenant].counters, books[tenant].state = counters, state

    def _load_notes(self, books: Mapping[str, SqliteBooks], operations: Sequence[Operation]) -> None:
        """The topics that are asked for, in one query a topic."""
        topics: dict[str, dict[str, None]] = {}
        for operation in operations:
            if isinstance(operation, Notes):
                topics.setdefault(operation.topic, {})[operation.book] = None
        for topic, names in topics.items():
            for some, marks in _together(list(names)):
                query = f"SELECT book, name, value, expires_ms FROM note WHERE topic=? AND book IN ({marks})"  # noqa: S608  # question marks
                found: dict[str, dict[str, str]] = {name: {} for name in some}
                for book, name, value, expires_ms in self._db.execute(query, (topic, *some)):
                    if expires_ms > books[book].now_ms:
                        found[book][name] = value
                for book, fields in found.items():
                    books[book].know_notes(topic, fields)

    def _sweep(self, now_ms: int) -> None:
        """Remove what has expired; tickets from the oldest on."""
        for table in ("ticket", "pointer"):
            self._db.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT {_SWEEP_ROWS})"  # noqa: S608  # our own constants
                " AND expires_ms < ?",
                (now_ms,),
            )
        for table in _EXPIRING:
            self._sweep_expired(table, now_ms, _SWEEP_ROWS)

    def _sweep_expired(self, table: str, now_ms: int, most: int) -> None:
        keys = _EXPIRING[table]
        oldest = f"SELECT {keys} FROM {table} WHERE expires_ms < ? ORDER BY expires_ms LIMIT ?"  # noqa: S608  # our own constants
        self._db.execute(f"DELETE FROM {table} WHERE ({keys}) IN ({oldest})", (now_ms, most))  # noqa: S608  # the same
