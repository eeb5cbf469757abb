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

CREATE TABLE IF NOT EXISTS pointer (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    ticket TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    UNIQUE (name, tenant)
);
