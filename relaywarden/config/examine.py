"""examine - the deeper look of `relaywarden check`: what the table of settings cannot see by itself.

Problems keep relaywarden from doing what the file says (an unusable key, an impossible store); remarks are things an
operator should know (a tenant whose From is not checked, mail that nobody signs).  Here: the services, the pools and the
limits; `examine_mail` looks at domains, keys and signatures, `examine_monitor` at what the monitor reads and tells.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from relaywarden import warmup
from relaywarden.addresses import Address
from relaywarden.config import examine_mail, examine_monitor
from relaywarden.config.settings import OnBulk, OnFull, OnScanError, ScanSettings, Settings
from relaywarden.errors import Problem
from relaywarden.ledger.store_url import Store

_FAR_AHEAD_DAYS = 30  # a warm-up that begins later is more often a slip of the pen than a plan


def problems(settings: Settings) -> Iterator[Problem]:
    """Everything that would fail at run time."""
    yield from examine_mail.problems(settings)
    store = Store.parse(settings.store)
    if store.scheme == "sqlite" and not _is_dir(_folder(Path(store.path))):
        yield Problem(
            "store", f"the folder {Path(store.path).parent} does not exist and cannot be made, or not be entered; create it"
        )
    if settings.scan is not None:
        yield from _scan_problems(settings.scan, quarantine="quarantine" in settings.pools)
    for name, plan in settings.plans.items():
        if plan.bulk is OnBulk.DIVERT and "bulk" not in settings.pools:
            yield Problem(f"plans.{name}.bulk", "divert needs a pool named bulk; add it to pools")
    yield from _pool_problems(settings)
    yield from _listen_problems(settings)
    yield from examine_monitor.problems(settings)


def remarks(settings: Settings) -> Iterator[Problem]:
    """What works as configured but may not be what was meant."""
    yield from examine_mail.remarks(settings)
    for name in settings.tenants:
        yield from _tenant_remarks(settings, name)
    for name, plan in settings.plans.items():
        if plan.mode.value == "observe":
            yield Problem(f"plans.{name}", "mode observe: nothing is refused")
        for index, limit in enumerate(plan.limits):
            if limit.amount == 0 and not limit.observe:
                yield Problem(f"plans.{name}.limits[{index}]", f"{limit}: nothing can be sent")
    if settings.unknown_login == "ignore":
        yield Problem("unknown_login", "ignore: a login that no tenant names sends without limits")
    elif settings.unknown_login != "reject":
        yield Problem("unknown_login", "plan: every unknown login is a tenant of its own; any From passes")
    for where, address in _listeners(settings):
        yield from _folder_remarks(where, address)
    if settings.milter.listen is not None:
        yield from _milter_remarks(settings)
    yield from _pool_remarks(settings)
    yield from examine_monitor.remarks(settings)


def _pool_remarks(settings: Settings) -> Iterator[Problem]:
    for name, pool in settings.pools.items():
        if pool.when_full is OnFull.DEFER and all(member.warmup is not None for member in pool.members.values()):
            yield Problem(f"pools.{name}.when_full", "every member warms up: mail over their caps is put off (4.7.1)")
        for member, values in pool.members.items():
            if values.warmup is not None:
                yield from _start_remarks(f"pools.{name}.members.{member}.warmup.start", values.warmup.start)


def _tenant_remarks(settings: Settings, name: str) -> Iterator[Problem]:
    where, tenant = f"tenants.{name}", settings.tenants[name]
    if not settings.plans[tenant.plan].limits:
        yield Problem(where, f"plan {tenant.plan} has no limits")
    if "*" in tenant.logins:
        yield Problem(where, "login * catches every login that no other tenant names")


def _start_remarks(where: str, start: datetime.date) -> Iterator[Problem]:
    ahead = (start - datetime.datetime.now(datetime.timezone.utc).date()).days
    if ahead > _FAR_AHEAD_DAYS:
        yield Problem(where, f"{start} is {ahead} days ahead: until then nothing is sent by this member")


def _milter_remarks(settings: Settings) -> Iterator[Problem]:
    if settings.scan is None:
        yield Problem("scan", "not set: nothing is scanned")
    if not settings.pools:
        yield Problem("pools", "not set: nothing is tagged")
    for name, pool in settings.pools.items():
        for member in pool.members:
            if member in settings.pools:
                yield Problem(f"pools.{name}", f"{member} names a pool and a member; PowerMTA has one name space for both")


def _scan_problems(scan: ScanSettings, *, quarantine: bool) -> Iterator[Problem]:
    for index, url in enumerate(scan.url):
        where = f"scan.url[{index}]" if len(scan.url) > 1 else "scan.url"
        if not _is_url(url):
            yield Problem(where, f"expected http://host:port, got {url!r}")
    if scan.on_error is OnScanError.DIVERT and not quarantine:
        yield Problem("scan.on_error", "divert needs a pool named quarantine; without one such mail is put off (4.7.1)")
    if scan.divert_score is not None and not quarantine:
        yield Problem("scan.divert_score", "needs a pool named quarantine; add it to pools")


def _is_url(text: str) -> bool:
    try:
        parsed = urlsplit(text if "://" in text else f"http://{text}")
        _ = parsed.port  # ValueError: not a port
    except ValueError:
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.hostname)


def _pool_problems(settings: Settings) -> Iterator[Problem]:
    yield from warmup.problems(settings)
    owners: dict[str, str] = {}
    for name, pool in settings.pools.items():
        for member, values in pool.members.items():
            where = f"pools.{name}.members.{member}"
            owner = owners.setdefault(values.ip, where)
            if owner != where:  # each would have caps and shares of its own, and receivers see one address
                yield Problem(f"{where}.ip", f"{values.ip} is the address of {owner} already")


def _listen_problems(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for where, address in _listeners(settings):
        yield from _address_problems(where, address, seen)


def _listeners(settings: Settings) -> Iterator[tuple[str, Address]]:
    yield from (("policyd.listen", address) for address in settings.policyd.listen)
    if settings.milter.listen is not None:
        yield "milter.listen", settings.milter.listen
    yield from (("monitor.listen", address) for address in settings.monitor.listen)
    if settings.metrics.listen is not None:
        yield "metrics.listen", settings.metrics.listen


def _folder(path: Path) -> Path:
    """The nearest folder above `path` that exists or could not be made."""
    folder = path.parent
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    except OSError:
        pass  # one above it may not be entered: the caller finds that it is not a folder for this user
    return folder


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # a folder above it may not be entered


def _address_problems(where: str, address: Address, seen: dict[str, str]) -> Iterator[Problem]:
    text = str(address)
    if text in seen:
        yield Problem(where, f"{text} is the address of {seen[text]} already")
    seen[text] = where
    if address.path is None:
        return
    path = Path(address.path)
    recipe = f"install -d -m 2750 -o relaywarden -g postfix {path.parent}"
    if where == "metrics.listen":
        yield Problem(where, f"expected inet:host:port, got {address}")
    elif not path.is_absolute():
        yield Problem(where, f"expected an absolute path, got {path}")
    elif not _is_dir(path.parent):
        yield Problem(where, f"the folder {path.parent} does not exist, or this user may not enter it; create it: {recipe}")
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        yield Problem(where, f"the folder {path.parent} cannot be written by this user; expected it as made by: {recipe}")


def _folder_remarks(where: str, address: Address) -> Iterator[Problem]:
    """`check` run by root may write everywhere; the service, which is not root, may not."""
    if address.path is None or os.geteuid() != 0:
        return
    folder = Path(address.path).parent
    try:
        status = folder.stat()
    except OSError:
        return  # that is one of the problems
    grouped = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    if status.st_uid == 0 and not grouped and not status.st_mode & stat.S_IWOTH:
        yield Problem(
            where, f"only root can write to the folder {folder}; the service cannot, unless it runs as root (chown it)"
        )
