"""references - names in the configuration that refer to other names: plans, pools, logins, members.

It works on the document as it was read, before types are checked, so that a wrong plan name is reported together with a
wrong type elsewhere.  What has the wrong shape is passed over here: the table of settings reports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]


def check(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every reference that leads nowhere, and every name that two own."""
    yield from _plans(document)
    yield from _pools(document)
    yield from _logins(document)


def _plans(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    plans = _mapping(document.get("plans"))
    listed = f"plans are: {', '.join(map(str, plans)) or 'none defined'}"
    unknown = document.get("unknown_login")
    wanted = _mapping(unknown).get("plan")
    if isinstance(wanted, str) and wanted not in plans:
        yield ("unknown_login", "plan"), f"no such plan {wanted!r}; {listed}"
    for name, tenant in _mapping(document.get("tenants")).items():
        plan = _mapping(tenant).get("plan")
        if isinstance(plan, str) and plan not in plans:
            yield ("tenants", name, "plan"), f"no such plan {plan!r}; {listed}"


def _pools(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    pools = _mapping(document.get("pools"))
    for name, tenant in _mapping(document.get("tenants")).items():
        pool = _mapping(tenant).get("pool")
        if isinstance(pool, str) and pool not in pools:
            yield ("tenants", name, "pool"), f"no such pool {pool!r}; pools are: {', '.join(map(str, pools)) or 'none defined'}"
    owners: dict[Any, Any] = {}
    for name, pool in pools.items():
        for member in _mapping(_mapping(pool).get("members")):
            if owners.setdefault(member, name) != name:
                yield ("pools", name, "members", member), f"member {member!r} belongs to pool {owners[member]!r} already"


def _logins(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    owners: dict[str, Any] = {}
    for name, tenant in _mapping(document.get("tenants")).items():
        logins = _mapping(tenant).get("logins") or [name]
        for index, login in enumerate(logins if isinstance(logins, list) else [logins]):
            if isinstance(login, str) and owners.setdefault(login.casefold(), name) != name:
                where = ("tenants", name, "logins", index) if isinstance(logins, list) else ("tenants", name, "logins")
                yield where, f"login {login!r} belongs to tenant {owners[login.casefold()]!r} already"


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
