"""ledger - the store of counters and tickets: one small interface, two stores (SQLite, Redis), one algorithm.

`operations` is the interface; `window`, `unique`, `ticket` and `accounting` specify the algorithm in Python; `sqlite` runs
it in a transaction, `redis` runs its Lua port (lua/) on the server.  docs/ledger.rst explains it.
"""
