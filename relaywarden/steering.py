"""steering - what operators and the monitor say to every worker at once: one small document in the ledger.

The milter does not read a tenant's books before it decides about a message.  What it must know of the ledger, it reads once a
second for all messages: the dynamic state of one reserved tenant, TENANT, which no customer can be called.

    tenants    {name: {"divert": reason, "until_ms": n} or {"hold": reason, "until_ms": n} or
                       {"suspended": {"reason", "until_ms"}}}, with "by" beside it; without until_ms it has no end
    selectors  {"domain/selector": {"to": selector, "since_ms": n}}     a key that another one has replaced (`keys switch`)
    members    {member: {...}}                                          warm-up of a pool member, see `warmup`

How it fails: while the store is down the last words read hold on; a worker that starts meanwhile knows none and does what the
configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relaywarden.ledger.operations import Account, Ledger, Read, Snapshot, Steer

TENANT = "!steering"
_ACCOUNT = Account(TENANT, ())


@dataclass(frozen=True, slots=True)
class Words:
    """The document as it was last read."""

    tenants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    now_ms: int = 0  # the store's clock when it was read


def read(ledger: Ledger) -> Words:
    """The newest words; raises StoreUnavailableError."""
    (found,) = ledger.apply([Read(_ACCOUNT)])
    if not isinstance(found, Snapshot):
        raise TypeError(f"expected a Snapshot, got {type(found).__name__}")
    state = found.state
    return Words(_entries(state, "tenants"), _entries(state, "selectors"), _entries(state, "members"), found.now_ms)


def say(section: str, entries: Mapping[str, Mapping[str, Any] | None], by: str = "") -> Steer:
    """The operation that changes entries of `tenants`, `selectors` or `members`; None removes one.

    With `by` what somebody else said and still holds is left as it is, decided in the store (see `ledger.merging`); of a member
    then give only what changes, {"paused": {provider: pause}}: the rest of its entry stays.
    """
    return Steer(TENANT, {section: dict(entries)}, by)


def _entries(state: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
    found = state.get(section)
    entries = found if isinstance(found, Mapping) else {}
    return {str(name): entry for name, entry in entries.items() if isinstance(entry, Mapping)}
