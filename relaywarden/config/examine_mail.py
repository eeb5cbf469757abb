"""examine_mail - the part of `relaywarden check` about who may send as whom, and who signs it: domains, keys, feedback.

Keys that stand ready (`next`) are looked at like those that sign: the day they are switched to is too late.
Known limit: whether DNS has a key's record is not asked here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relaywarden.config.settings import DkimSettings, FeedbackSettings, OnForeignFrom, Settings, TenantSettings
from relaywarden.dkimkeys import following, load_key
from relaywarden.domains import is_public_suffix
from relaywarden.errors import KeyFileError, Problem
from relaywarden.feedback import Tokens


def problems(settings: Settings) -> Iterator[Problem]:
    """What would fail at run time, or let one customer send as another."""
    for where, key in _keys(settings):
        try:
            load_key(key)
        except KeyFileError as error:
            yield Problem(f"{where}.key", str(error))
    for where, key in _entries(settings):
        if is_public_suffix(key.domain):
            yield Problem(f"{where}.domain", f"{key.domain} is a public suffix: receivers ignore its signatures")
    for name, tenant in settings.tenants.items():
        for index, pattern in enumerate(tenant.from_domains):
            if is_public_suffix(pattern.removeprefix("*.")):
                text = f"{pattern} is a public suffix: it would admit domains of strangers; name the domain below it"
                yield Problem(f"tenants.{name}.from_domains[{index}]", text)
    if not settings.operator.dkim:
        for name in dict.fromkeys(tenant.plan for tenant in settings.tenants.values()):
            if (fate := settings.plans[name].identity.foreign_from) is not OnForeignFrom.REJECT:
                text = f"{fate.value} needs a key in operator.dkim: such mail would leave unsigned"
                yield Problem(f"plans.{name}.identity.foreign_from", text)
    if settings.operator.feedback is not None:
        yield from _feedback_problems(settings.operator.feedback, settings.operator.dkim)


def remarks(settings: Settings) -> Iterator[Problem]:
    """What works as configured but may not be what was meant."""
    for where, key in _keys(settings):
        try:
            if warning := load_key(key).warning:
                yield Problem(f"{where}.key", warning)
        except KeyFileError:
            continue  # that is one of the problems
        yield from _owner_remarks(f"{where}.key", key.key)
    if settings.operator.feedback is not None:
        yield from _owner_remarks("operator.feedback.secret", settings.operator.feedback.secret)
    owners: dict[str, str] = {}
    for name, tenant in settings.tenants.items():
        yield from _tenant_remarks(f"tenants.{name}", tenant, signed=bool(tenant.dkim or settings.operator.dkim))
        for index, pattern in enumerate(tenant.from_domains):
            owner = owners.setdefault(pattern, name)
            if owner != name:
                text = f"{pattern} is a domain of tenant {owner} too: either may send as the other"
                yield Problem(f"tenants.{name}.from_domains[{index}]", text)


def _tenant_remarks(where: str, tenant: TenantSettings, *, signed: bool) -> Iterator[Problem]:
    if not tenant.from_domains:
        yield Problem(where, "no from_domains: any From passes")
    if not signed:
        yield Problem(where, "no dkim key, and no operator.dkim: this tenant's mail is not signed")
    for index, key in enumerate(tenant.dkim):
        if tenant.from_domains and not any(_signs(key.domain, pattern) for pattern in tenant.from_domains):
            text = f"{key.domain} is not one of from_domains, nor a parent of one: this key never signs"
            yield Problem(f"{where}.dkim[{index}].domain", text)


def _feedback_problems(feedback: FeedbackSettings, keys: list[DkimSettings]) -> Iterator[Problem]:
    """Google counts Feedback-ID, and RFC 9477 section 3.1 CFBL-Address, only under a signature of the domain that asks."""
    try:
        if warning := Tokens.from_file(feedback.secret).warning:
            yield Problem("operator.feedback.secret", warning)  # who has the secret can forge complaints
    except KeyFileError as error:
        yield Problem("operator.feedback.secret", str(error))
    domain = feedback.address.rpartition("@")[2]
    if not keys:
        yield Problem("operator.feedback", "needs a key in operator.dkim: unsigned, these headers do not count")
    elif domain and not any(_is_or_below(domain, key.domain) for key in keys):
        names = ", ".join(dict.fromkeys(key.domain for key in keys))
        yield Problem("operator.feedback.address", f"expected an address in a domain of operator.dkim ({names}), got {domain}")


def _owner_remarks(where: str, path: Path) -> Iterator[Problem]:
    """`check` run by root reads what the service cannot."""
    try:
        status = path.stat()
    except OSError:
        return  # that is one of the problems
    grouped = status.st_mode & stat.S_IRGRP and status.st_gid != 0
    if os.geteuid() == 0 and status.st_uid == 0 and not grouped and not status.st_mode & stat.S_IROTH:
        yield Problem(where, f"{path}: only root can read it; the service cannot unless it runs as root (chown or chgrp it)")


def _signs(domain: str, pattern: str) -> bool:
    """Is there a From domain of this pattern that a key of the domain signs for (its own, or one below)?"""
    bare = pattern.removeprefix("*.")
    return _is_or_below(bare, domain) or (bare != pattern and _is_or_below(domain, bare))


def _is_or_below(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith("." + parent)


def _entries(settings: Settings) -> Iterator[tuple[str, DkimSettings]]:
    for name, tenant in settings.tenants.items():
        for index, key in enumerate(tenant.dkim):
            yield f"tenants.{name}.dkim[{index}]", key
    for index, key in enumerate(settings.operator.dkim):
        yield f"operator.dkim[{index}]", key


def _keys(settings: Settings) -> Iterator[tuple[str, DkimSettings]]:
    """Every key that signs, and every one that stands ready to."""
    for where, key in _entries(settings):
        yield where, key
        if (heir := following(key)) is not None:
            yield f"{where}.next", heir
