-- schema.sql - the SQLite ledger.  Values are the binary formats of window.py, unique.py, ticket.py and counters.py.
CREATE TABLE IF NOT EXISTS tenant (
    name TEXT PRIMARY KEY,
    counters BLOB,
    state TEXT
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS balance (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

-- The older slots of a window: wide, and read only when a slot passes.
CREATE TABLE IF NOT EXISTS tail (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS sketch (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    field TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (tenant, name, field)
) WITHOUT ROWID;

-- Tickets and pointers are inserted in time order and removed from the oldest on, so they need no index on `expires_ms`.
CREATE TABLE IF NOT EXISTS ticket (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    UNIQUE (name, tenant)
);

-- What happened in an hour (hours since 1970).
CREATE TABLE IF NOT EXISTS hour (
    book TEXT NOT NULL,
    hour INTEGER NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (book, hour, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hour_expiry ON hour (expires_ms);

CREATE TABLE IF NOT EXISTS note (
    book TEXT NOT NULL,
    topic TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (book, topic, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS note_expiry ON note (expires_ms);

CREATE TABLE IF NOT EXISTS suppressed (
    book TEXT NOT NULL,
    digest BLOB NOT NULL,
    value TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (book, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS suppressed_expiry ON suppressed (expires_ms);

CREATE TABLE IF NOT EXISTS pointer (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    ticket TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    UNIQUE (name, tenant)
);
