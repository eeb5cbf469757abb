"""limiter - who decides while the ledger does not answer: a small ledger in memory, with a share of each limit.

Every worker keeps the books of the tenants it meets by the ledger's own algorithm (`relaywarden.ledger.accounting`), but
with limits of `amount * ledger.local_share / policyd.workers`: all workers of this host together admit no more than that
share in any window, whatever the windows of the store held before.  A request sent again is answered as before.  What is
beyond the share is put off, never rejected nor held.

How it fails: when more tenants or transactions come than it keeps, those that were quiet longest are forgotten: the tenant
may then send its share again, and a request sent again is decided anew.  Known limits: what the store holds beside the
windows is known only as this worker last saw it: a tenant that was suspended then is put off, grants and overrides are not
known; a limit whose share is below one admits nothing; each host has a share of its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

from relaywarden.config.settings import OnDown
from relaywarden.ledger import accounting
from relaywarden.ledger.operations import Account, Balance, Charge, Decision, Operation, Reconcile, Refusal, Status, tenant_of
from relaywarden.ledger.unique import Shelf

MAX_TENANTS = 10_000
MAX_TICKETS = 50_000
LATER = Decision(Status.REFUSED, Refusal("store", 0, 0, 60_000))


class Limiter(Protocol):
    """Decides without the store."""

    def decide(self, operation: Operation) -> Decision:
        """The decision on one operation that the store did not take."""
        ...


class Fixed:
    """The same answer to everything: `ledger.on_down: accept` (we fail open because the operator says so) or `defer`."""

    def __init__(self, on_down: OnDown) -> None:
        self._answer = Decision(Status.ADMITTED) if on_down is OnDown.ACCEPT else LATER

    def decide(self, operation: Operation) -> Decision:  # noqa: ARG002  # that is the point of it
        """Always the same."""
        return self._answer


class LastSeen:
    """Puts off whom the store called suspended when it last answered for them; asks `limiter` about all others."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.suspended: OrderedDict[str, None] = OrderedDict()

    def learn(self, operation: Operation, decision: Decision) -> None:
        """What the store said; it need not be told of admissions while nobody is `suspended`."""
        tenant = tenant_of(operation)
        if decision.status is not Status.SUSPENDED:
            self.suspended.pop(tenant, None)
            return
        self.suspended[tenant] = None
        if len(self.suspended) > MAX_TENANTS:
            self.suspended.popitem(last=False)

    def decide(self, operation: Operation) -> Decision:
        """Never a rejection: the suspension may have ended meanwhile."""
        if isinstance(operation, Charge | Reconcile) and operation.account.tenant in self.suspended:
            return LATER
        return self._limiter.decide(operation)


class LocalLimiter:
    """A share of each limit, kept in memory; `index` of `workers` says which part of the share is this worker's."""

    def __init__(self, share: float, workers: int, index: int) -> None:
        self._share, self._workers, self._index = share, workers, index
        self._books: OrderedDict[str, _Books] = OrderedDict()
        self._tickets: _Tickets = OrderedDict()
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
            books = self._books[account.tenant] = _Books(account.tenant, self._tickets)
        self._books.move_to_end(account.tenant)
        books.now_ms = time.monotonic_ns() // 1_000_000 + 1  # only differences count; 0 would mean "never" in a ticket
        return accounting.decide(books, operation._replace(account=account))

    def _scaled(self, account: Account) -> Account:
        known = self._accounts.get(id(account))
        if known is None or known[0] is not account:
            if len(self._accounts) >= MAX_TENANTS:
                self._accounts.clear()
            balances = tuple(self._part(balance) for balance in account.balances)
            # Not to be held either: somebody would have to release by hand what only had to wait for the store.
            known = self._accounts[id(account)] = (account, dataclasses.replace(account, balances=balances, hold=False))
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


_Tickets = OrderedDict[tuple[str, str], bytes]  # by tenant and name, those of all tenants together


class _Books:
    """One tenant's books in memory: what `accounting` needs, and not more."""

    __slots__ = ("_fields", "_shelves", "_tails", "_tenant", "_tickets", "now_ms", "ticket_ttl_ms")

    def __init__(self, tenant: str, tickets: _Tickets) -> None:
        self._tenant, self._tickets = tenant, tickets
        self.now_ms = 0
        self.ticket_ttl_ms = 0  # tickets go when others need their place
        self._fields: dict[str, bytes] = {}
        self._tails: dict[str, bytes] = {}
        self._shelves: dict[str, _Shelf] = {}

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
        return self._tickets.get((self._tenant, ticket))

    def save_ticket(self, ticket: str, value: bytes, ttl_ms: int) -> None:  # noqa: ARG002  # see ticket_ttl_ms
        self._tickets[self._tenant, ticket] = value
        self._tickets.move_to_end((self._tenant, ticket))
        if len(self._tickets) > MAX_TICKETS:
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

    def load_suppression(self, digest: bytes) -> str | None:  # noqa: ARG002  # the lists are in the store
        return None

    def add_hour(self, hour: int, amounts: Mapping[str, int], keep_ms: int) -> None:
        """Nobody is refused here for being on a list."""


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
