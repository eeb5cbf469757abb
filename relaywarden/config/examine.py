"""examine - the deeper look of `relaywarden check`: what the table of settings cannot see by itself.

Problems keep relaywarden from doing what the file says (an unusable key, an impossible store); remarks are things an
operator should know (a tenant whose From is not checked, mail that nobody signs).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relaywarden.addresses import Address
from relaywarden.config.settings import DkimSettings, OnScanError, Settings
from relaywarden.dkimkeys import load_key
from relaywarden.errors import KeyFileError, Problem
from relaywarden.ledger.store_url import Store


def problems(settings: Settings) -> Iterator[Problem]:
    """Everything that would fail at run time."""
    for where, key in _keys(settings):
        try:
            load_key(key)
        except KeyFileError as error:
            yield Problem(where, str(error))
    store = Store.parse(settings.store)
    if store.scheme == "sqlite" and not _folder(Path(store.path)).is_dir():
        yield Problem("store", f"the folder {Path(store.path).parent} does not exist and cannot be made; create it")
    if settings.scan is not None and settings.scan.on_error is OnScanError.DIVERT and "quarantine" not in settings.pools:
        yield Problem("scan.on_error", "divert needs a pool named quarantine; without one such mail is put off (4.7.1)")
    addresses = [("policyd.listen", address) for address in settings.policyd.listen]
    if settings.milter.listen is not None:
        addresses.append(("milter.listen", settings.milter.listen))
    seen: dict[str, str] = {}
    for where, address in addresses:
        yield from _address_problems(where, address, seen)


def remarks(settings: Settings) -> Iterator[Problem]:
    """What works as configured but may not be what was meant."""
    for where, key in _keys(settings):
        try:
            if warning := load_key(key).warning:
                yield Problem(where, warning)
        except KeyFileError:
            pass  # that is one of the problems
    for name in settings.tenants:
        yield from _tenant_remarks(settings, name)
    for name, plan in settings.plans.items():
        if plan.mode.value == "observe":
            yield Problem(f"plans.{name}", "mode observe: nothing is refused")
    if settings.unknown_login == "ignore":
        yield Problem("unknown_login", "ignore: a login that no tenant names sends without limits")
    if settings.milter.listen is not None:
        yield from _milter_remarks(settings)


def _tenant_remarks(settings: Settings, name: str) -> Iterator[Problem]:
    where, tenant = f"tenants.{name}", settings.tenants[name]
    if not tenant.from_domains:
        yield Problem(where, "no from_domains: any From passes")
    if not tenant.dkim and not settings.operator.dkim:
        yield Problem(where, "no dkim key, and no operator.dkim: this tenant's mail is not signed")
    if not settings.plans[tenant.plan].limits:
        yield Problem(where, f"plan {tenant.plan} has no limits")
    if "*" in tenant.logins:
        yield Problem(where, "login * catches every login that no other tenant names")


def _milter_remarks(settings: Settings) -> Iterator[Problem]:
    if settings.scan is None:
        yield Problem("scan", "not set: nothing is scanned")
    if not settings.pools:
        yield Problem("pools", "not set: nothing is tagged")
    for name, pool in settings.pools.items():
        for member in pool.members:
            if member in settings.pools:
                yield Problem(f"pools.{name}", f"{member} names a pool and a member; PowerMTA has one name space for both")


def _keys(settings: Settings) -> Iterator[tuple[str, DkimSettings]]:
    for name, tenant in settings.tenants.items():
        for index, key in enumerate(tenant.dkim):
            yield f"tenants.{name}.dkim[{index}].key", key
    for index, key in enumerate(settings.operator.dkim):
        yield f"operator.dkim[{index}].key", key


def _folder(path: Path) -> Path:
    """The nearest folder above `path` that exists or could not be made."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _address_problems(where: str, address: Address, seen: dict[str, str]) -> Iterator[Problem]:
    text = str(address)
    if text in seen:
        yield Problem(where, f"{text} is the address of {seen[text]} already")
    seen[text] = where
    if address.path is not None and not Path(address.path).is_absolute():
        yield Problem(where, f"expected an absolute path, got {address.path}")
    elif address.path is not None and not Path(address.path).parent.is_dir():
        yield Problem(where, f"the folder {Path(address.path).parent} does not exist; create it (group postfix, mode 0750)")
