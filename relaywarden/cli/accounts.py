"""accounts - what the commands know of a tenant: its configuration and the ledger's books, as one document.

The document is the contract of `tenants --json` and `show --json`: tenant, plan, mode, standing, pool, used; times are in
seconds, `bytes` in bytes.  `show` has more: `signals` and `outcomes` as health.py makes them (`suppressed`: how many recipients
are on the suppression list), and `steering`, what operator and monitor said to the milters of this tenant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import click

from relaywarden import steering
from relaywarden.cli import health
from relaywarden.cli.output import iso_time
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.ledger.accounting import suspended
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Account, Ledger, Operation, Read, Snapshot
from relaywarden.ledger.records import HOUR_MS, History, Hours, Listed, Suppressed
from relaywarden.ledger.scores import SCORE_EDGES, Scores
from relaywarden.standing import Step, heard
from relaywarden.tenants import Directory, Tenant


@dataclass(frozen=True, slots=True)
class Office:
    """Settings, tenants and ledger, opened for one command."""

    settings: Settings
    directory: Directory
    ledger: Ledger

    def find(self, name: str) -> Tenant | None:
        """The tenant of that name or login."""
        found = self.directory.by_name(name)
        # Where every login is a tenant of its own, a mistyped name would be one too: it must have sent something.
        return found if found is not None and (found.configured or found.name in self.ledger.tenants()) else None

    def tenant(self, name: str, kinds: str = "tenant or login") -> Tenant:
        """The tenant of that name; ends the command with exit code 1 where there is none: "no KINDS 'name'"."""
        found = self.find(name)
        if found is None:
            click.echo(f"relaywarden: no {kinds} {name!r}; `relaywarden tenants` lists the tenants", err=True)
            raise SystemExit(1)
        return found

    def all_tenants(self) -> list[Tenant]:
        """Every configured tenant, then every other one the ledger knows and the settings still allow."""
        listed = {tenant.name: tenant for tenant in self.directory}
        for name in self.ledger.tenants():
            tenant = None if name in listed or name.startswith("!") else self.directory.by_name(name)
            if tenant is not None and tenant.name == name:
                listed[name] = tenant
        return list(listed.values())

    def faults(self) -> dict[str, Any]:
        """What policyd found wrong in how Postfix asks: fault -> when, and on which policy_context."""
        (snapshot,) = self.ledger.apply([Read(Account("!policyd", ()))])
        found = snapshot.state.get("faults", {}) if isinstance(snapshot, Snapshot) else {}
        return {
            name: {"last_start_seen": iso_time(entry["at_ms"]), "policy_context": entry["context"]}
            for name, entry in found.items()
        }

    def read(self, tenants: list[Tenant]) -> list[Snapshot]:
        """The books of several tenants, in one batch."""
        operations = [Read(tenant.account()) for tenant in tenants]
        return cast("list[Snapshot]", self.ledger.apply(operations)) if operations else []


@contextmanager
def office(config: Path) -> Iterator[Office]:
    """Open everything; raises ConfigError, StoreUnavailableError."""
    settings = load(config)
    ledger = open_ledger(settings)
    try:
        yield Office(settings, Directory(settings), ledger)
    finally:
        ledger.close()


def document(tenant: Tenant, snapshot: Snapshot) -> dict[str, Any]:
    """The contract of `tenants --json`."""
    balances = tenant.account().balances  # those of single logins, domains and clients are not known by name
    return {
        "tenant": tenant.name,
        "plan": tenant.plan,
        "mode": snapshot.state.get("mode", tenant.mode.value),
        "standing": standing(snapshot),
        "pool": tenant.pool,
        "used": [
            {
                "meter": balance.limit.meter.value,
                "window": balance.limit.window,
                "used": used.used,
                "limit": used.allowed,
                "reset_after": math.ceil(used.reset_after_ms / 1000),
            }
            for balance, used in zip(balances, snapshot.balances, strict=True)
        ],
    }


def full_document(opened: Office, tenant: Tenant) -> dict[str, Any]:
    """The contract of `show --json`."""
    (snapshot,) = opened.read([tenant])
    return document(tenant, snapshot) | {
        "counters": {"hour": dict(snapshot.hour), "today": dict(snapshot.today)},
        **_outcomes(opened, tenant, snapshot.now_ms),
        "steering": _steering(opened, tenant),
        "last_refusal": _last_refusal(snapshot),
        "scores": _scores(snapshot.scores),
        "grants": [_grant(name, entry) for name, entry in sorted(snapshot.state.get("grants", {}).items())],
        "state": dict(snapshot.state),
    }


def _outcomes(opened: Office, tenant: Tenant, now_ms: int) -> dict[str, Any]:
    rules = opened.settings.plans[tenant.plan].health
    since_ms = now_ms - (health.needed_hours(rules) - 1) * HOUR_MS
    operations: list[Operation] = [History(tenant.name, since_ms, now_ms), Suppressed(tenant.name)]
    found, listed = cast("tuple[Hours, Listed]", tuple(opened.ledger.apply(operations)))
    return {
        "signals": health.signals(found.hours, now_ms, rules),
        "outcomes": {**health.tenant(found.hours, now_ms, rules), "suppressed": len(listed.entries)},
    }


def _steering(opened: Office, tenant: Tenant) -> dict[str, Any]:
    """What the milters have heard of the tenant; a suspension that is over is left out."""
    words = steering.read(opened.ledger)
    said = dict(words.tenants.get(tenant.name, {}))
    if suspended(said, words.now_ms) is None:
        said.pop("suspended", None)
    return said


def _last_refusal(snapshot: Snapshot) -> dict[str, Any] | None:
    refusal = snapshot.last_refusal
    if refusal is None:
        return None
    wait = None if refusal.retry_after_ms is None else math.ceil(refusal.retry_after_ms / 1000)
    facts = {"limit": refusal.key, "used": refusal.used, "allowed": refusal.allowed, "retry_after": wait}
    return {"at": iso_time(snapshot.refused_ms)} | facts


def _scores(scores: Scores | None) -> dict[str, Any] | None:
    """What rspamd said of today's mail (UTC)."""
    if scores is None or not scores.count:
        return None
    edges = [f"below {SCORE_EDGES[0]}", *(f"{a} to {b}" for a, b in pairwise(SCORE_EDGES)), f"{SCORE_EDGES[-1]} and more"]
    return {
        "messages": scores.count,
        "mean": round(scores.total / scores.count, 3),
        "buckets": dict(zip(edges, scores.buckets, strict=True)),
        "symbols": dict(scores.symbols),
    }


def _grant(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name, "meter": entry["meter"], "amount": entry["amount"], "used": entry.get("used", 0),
        "until": iso_time(entry.get("until_ms", 0)), "reason": entry.get("reason", ""), "by": entry.get("by", ""),
    }  # fmt: skip


def standing(snapshot: Snapshot) -> str:
    """Where the tenant stands on the ladder."""
    word = heard(snapshot.state, snapshot.now_ms)
    return (word.step if word is not None else Step.NORMAL).value
