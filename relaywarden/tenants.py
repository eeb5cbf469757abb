"""tenants - whose login is it?  From the settings to the tenants that the programs work with.

A login belongs to the tenant that names it exactly, else to the one with the longest matching pattern (`*@acme.example`),
else to `unknown_login`.  Logins compare without regard to case, so that a thief gains no second budget by spelling a
login differently.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from relaywarden.config.monitor_settings import HealthSettings, PatternsSettings, SuppressionSettings
from relaywarden.config.settings import (
    DkimSettings,
    IdentitySettings,
    Mode,
    OnBulk,
    OnExceed,
    PlanSettings,
    Settings,
    TenantSettings,
)
from relaywarden.ledger.operations import Account
from relaywarden.limits import Limit, Scope


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer as the programs see it: its plan's limits, its identity, its pool."""

    name: str
    plan: str
    mode: Mode
    limits: tuple[Limit, ...]
    recipients_per_message: int | None
    bytes_per_message: int | None
    on_exceed: OnExceed
    identity: IdentitySettings
    bulk: OnBulk
    settings_id: str
    health: HealthSettings
    suppression: SuppressionSettings
    patterns: PatternsSettings
    from_domains: tuple[str, ...] = ()
    dkim: tuple[DkimSettings, ...] = ()
    pool: str | None = None
    configured: bool = True  # False: an unknown login that became its own tenant
    sole_account: Account | None = None  # where no limit is per login, domain or client: always the same one

    def account(self, *, login: str = "", sender: str = "", client: str = "") -> Account:
        """What the ledger charges: policyd and milter must name the same balances, so this is the only place that does.

        A limit `per: from_domain` belongs to the domain of the envelope sender: policyd is asked before the From header
        comes.  Mail to be held is charged past its limits, or a released queue would be mail that no window knows of.
        """
        if self.sole_account is not None:
            return self.sole_account
        observe, hold = self.mode is Mode.OBSERVE, self.on_exceed is OnExceed.HOLD
        domain = sender.rpartition("@")[2]
        return Account.of(self.name, self.limits, observe, hold, login=login, from_domain=domain, client=client)


class Directory:
    """Answers `login -> tenant`; immutable, a reload builds a new one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._first_pool = next(iter(settings.pools), None)
        self._tenants = {name: self._configured(name, tenant) for name, tenant in settings.tenants.items()}
        self._exact: dict[str, Tenant] = {}
        patterns: list[tuple[str, Tenant]] = []
        for name, tenant in settings.tenants.items():
            for login in tenant.logins or [name]:
                folded = login.casefold()
                if "*" in folded:
                    patterns.append((folded, self._tenants[name]))
                else:
                    self._exact[folded] = self._tenants[name]
        patterns.sort(key=lambda item: -len(item[0]))
        self._patterns = [(re.compile(fnmatch.translate(_only_stars(text))), tenant) for text, tenant in patterns]
        self._by_pattern = lru_cache(maxsize=65536)(self._search)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    def by_login(self, login: str) -> Tenant | None:
        """The tenant that `login` sends for; None where `unknown_login` makes none."""
        folded = login.casefold()
        return self._exact.get(folded) or self._by_pattern(folded)

    def by_name(self, name: str) -> Tenant | None:
        """The tenant called `name`, or else the one that a login `name` sends for."""
        if name in self._tenants:
            return self._tenants[name]
        return self._unknown(name[1:]) if name.startswith("~") else self.by_login(name)

    def _search(self, folded: str) -> Tenant | None:
        for pattern, tenant in self._patterns:
            if pattern.match(folded):
                return tenant
        return self._unknown(folded)

    def _unknown(self, login: str) -> Tenant | None:
        if isinstance(self._settings.unknown_login, str):
            return None
        plan_name = self._settings.unknown_login.plan
        # A login that happens to be spelled like a configured tenant must not spend that tenant's balances, and names that
        # begin with "!" are the ledger's own.
        name = f"~{login}" if login in self._tenants or login.startswith("!") else login
        return _tenant(name, plan_name, self._settings.plans[plan_name], None, self._first_pool)

    def _configured(self, name: str, tenant: TenantSettings) -> Tenant:
        return _tenant(name, tenant.plan, self._settings.plans[tenant.plan], tenant, self._first_pool)


def _tenant(name: str, plan_name: str, plan: PlanSettings, own: TenantSettings | None, first_pool: str | None) -> Tenant:
    made = Tenant(
        name=name,
        plan=plan_name,
        mode=(own.mode if own else None) or plan.mode,
        limits=tuple(plan.limits),
        recipients_per_message=plan.recipients_per_message,
        bytes_per_message=plan.bytes_per_message,
        on_exceed=plan.on_exceed,
        identity=plan.identity,
        bulk=plan.bulk,
        settings_id=plan.settings_id,
        health=plan.health,
        suppression=plan.suppression,
        patterns=plan.patterns,
        from_domains=tuple(own.from_domains) if own else (),
        dkim=tuple(own.dkim) if own else (),
        pool=(own.pool if own else None) or first_pool,
        configured=own is not None,
    )
    scoped = any(limit.per is not Scope.TENANT for limit in made.limits)
    return made if scoped else replace(made, sole_account=made.account())


def _only_stars(pattern: str) -> str:
    """Only `*` is a wildcard in a login; `?` and `[` are ordinary characters there."""
    return re.sub(r"[?\[]", lambda found: f"[{found[0]}]", pattern)
