"""limiter - who decides while the ledger does not answer: a small ledger in memory, with a share of each limit.

Every worker keeps the books of the tenants it meets by the ledger's own algorithm (`relaywarden.ledger.accounting`), but
with limits of `amount * ledger.local_share / policyd.workers`: all workers of this host together admit no more than that
share in any window, whatever the windows of the store held before.  A request sent again is answered as before.  What is
beyond the share is put off, never rejected.

How it fails: when more tenants come than it keeps, the one that was quiet longest is forgotten, and may then send its share
again.  Known limits: suspensions, grants and overrides live in the store and are not known here; a limit whose share is
below one admits nothing; each host has a share of its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

from relaywarden.config.settings import OnDown
from relaywarden.ledger import accounting
from relaywarden.ledger.operations import Account, Balance, Charge, Decision, Operation, Reconcile, Refusal, Status
from relaywarden.ledger.unique import Shelf

MAX_TENANTS = 20_000
_MAX_TICKETS = 2_000  # of one tenant
_RETRY_MS = 60_000


class Limiter(Protocol):
    """Decides without the store."""

    def decide(self, operation: Operation) -> Decision:
        """The decision on one operation that the store did not take."""
        ...


class Fixed:
    """The same answer to everything: `ledger.on_down: accept` (we fail open because the operator says so) or `defer`."""

    def __init__(self, on_down: OnDown) -> None:
        wait = Refusal("store", 0, 0, _RETRY_MS)
        accept = on_down is OnDown.ACCEPT
        self._answer = Decision(Status.ADMITTED) if accept else Decision(Status.REFUSED, wait)

    def decide(self, operation: Operation) -> Decision:  # noqa: ARG002  # that is the point of it
        """Always the same."""
        return self._answer


class LocalLimiter:
    """A share of each limit, kept in memory; `index` of `workers` says which part of the share is this worker's."""

    def __init__(self, share: float, workers: int, index: int) -> None:
        self._share, self._workers, self._index = share, workers, index
        self._books: OrderedDict[str, _Books] = OrderedDict()
        self._accounts: dict[int, tuple[Account, Account]] = {}

    def decide(self, operation: Operation) -> Decision:
        """By the ledger's algorithm, on the books in memory."""
        if not isinstance(operation, Charge | Reconcile):
            return Decision(Status.ADMITTED)  # what only counts needs no decision
        account = self._scaled(operation.account)
        books = self._books.get(account.tenant)
        if books is None:
            if len(self._books) >= MAX_TENANTS:
                self._books.popitem(last=False)
            books = self._books[account.tenant] = _Books()
        self._books.move_to_end(account.tenant)
        books.now_ms = time.monotonic_ns() // 1_000_000 + 1  # only differences count; 0 would mean "never" in a ticket
        result = accounting.apply(books, operation._replace(account=account))
        return result if isinstance(result, Decision) else Decision(Status.ADMITTED)

    def _scaled(self, account: Account) -> Account:
        known = self._accounts.get(id(account))
        if known is None or known[0] is not account:
            if len(self._accounts) >= MAX_TENANTS:
                self._accounts.clear()
            balances = tuple(self._part(balance) for balance in account.balances)
            known = self._accounts[id(account)] = (account, dataclasses.replace(account, balances=balances))
        return known[1]

    def _part(self, balance: Balance) -> Balance:
        limit = balance.limit
        if limit.burst is not None:
            # The pace is shared like the burst; a pace below one a window would divide by nothing.
            amount, burst = max(1, self._mine(limit.amount)), self._mine(limit.burst)
            return Balance(dataclasses.replace(limit, amount=amount, burst=burst), balance.key)
        return Balance(dataclasses.replace(limit, amount=self._mine(limit.amount)), balance.key)

    def _mine(self, amount: int) -> int:
        """This worker's part; the remainder goes to the first workers, one each."""
        part, rest = divmod(int(amount * self._share), self._workers)
        return part + (self._index < rest)


class _Books:
    """One tenant's books in memory: what `accounting` needs, and not more."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.ticket_ttl_ms = 0  # tickets go when others need their place
        self._fields: dict[str, bytes] = {}
        self._tails: dict[str, bytes] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._tickets: OrderedDict[str, bytes] = OrderedDict()

    def load(self, name: str) -> bytes | None:
        return self._fields.get(name)

    def save(self, name: str, value: bytes) -> None:
        self._fields[name] = value

    def load_tail(self, name: str) -> bytes | None:
        return self._tails.get(name)

    def save_tail(self, name: str, value: bytes) -> None:
        self._tails[name] = value

    def shelf(self, name: str) -> Shelf:
        return self._shelves.setdefault(name, _Shelf())

    def load_ticket(self, ticket: str) -> bytes | None:
        return self._tickets.get(ticket)

    def save_ticket(self, ticket: str, value: bytes, ttl_ms: int) -> None:  # noqa: ARG002  # see ticket_ttl_ms
        self._tickets[ticket] = value
        if len(self._tickets) > _MAX_TICKETS:
            self._tickets.popitem(last=False)

    def find(self, name: str) -> str | None:  # noqa: ARG002  # nothing is settled here
        return None

    def point(self, name: str, ticket: str, ttl_ms: int) -> None:
        """Nothing is settled here."""

    def load_counters(self) -> bytes | None:
        return None

    def save_counters(self, value: bytes) -> None:
        """The store counts, when what was admitted is charged there."""

    def load_state(self) -> dict[str, Any]:
        return {}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """There is none here."""

    def clear(self) -> None:
        """Nobody resets these."""


class _Shelf:
    """One sketch's fields."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def load(self, field: str) -> bytes | None:
        return self._values.get(field)

    def load_all(self) -> dict[str, bytes]:
        return dict(self._values)

    def save(self, field: str, value: bytes) -> None:
        self._values[field] = value
