"""examine_mail - the part of `relaywarden check` about who may send as whom, and who signs it: domains, keys, feedback.

Keys that stand ready (`next`) are looked at like those that sign: the day they are switched to is too late.
`check` looks at each file again and again; it runs once.  Known limit: whether DNS has a key's record is not asked here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relaywarden.config.settings import DkimSettings, FeedbackSettings, OnForeignFrom, Settings, TenantSettings
from relaywarden.dkimkeys import SigningKey, following, load_key
from relaywarden.domains import is_public_suffix
from relaywarden.errors import KeyFileError, Problem
from relaywarden.feedback import Tokens

_FIELD_NAMES = (
    # RFC 5322 section 3.6, RFC 5321 section 4.4, RFC 3834 and 8601
    "from sender reply-to to cc bcc subject date message-id in-reply-to references comments keywords return-path received"
    " resent-from resent-sender resent-to resent-cc resent-bcc resent-date resent-message-id resent-reply-to"
    " delivered-to auto-submitted authentication-results received-spf autocrypt"
    # MIME (RFC 2045, 2183), DKIM and ARC (RFC 6376, 8617)
    " mime-version content-type content-transfer-encoding content-id content-description content-disposition content-language"
    " dkim-signature domainkey-signature arc-seal arc-message-signature arc-authentication-results"
    # lists (RFC 2369, 2919, 8058) and complaints (RFC 9477)
    " list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive precedence"
    " feedback-id cfbl-address cfbl-feedback-id"
    # what PowerMTA obeys, and what the milter itself says
    " x-job x-envid x-dkim-options x-dkim-key x-schedule x-relaywarden-identity x-relaywarden-score x-relaywarden-symbols"
)
_TAKEN_FIELDS = frozenset(_FIELD_NAMES.split())


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
    yield from _header_problems(settings)
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
        if (loaded := _loaded(key)) is not None and loaded.warning:
            yield Problem(f"{where}.key", loaded.warning)
    yield from _root_remarks(settings)
    yield from _shared_remarks(settings)
    yield from _algorithm_remarks(settings)
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


def _header_problems(settings: Settings) -> Iterator[Problem]:
    """The copies that clients send of these headers are deleted: a message without its From would be refused."""
    chosen = [("route.header", settings.route.header)]
    if settings.scan is not None:
        chosen.append(("scan.spam_header", settings.scan.spam_header))
    signed = {name.lower() for name in settings.signing.headers}
    seen: dict[str, str] = {}
    for where, name in chosen:
        folded = name.lower()
        if folded in _TAKEN_FIELDS:
            yield Problem(
                where, f"{name} has a meaning of its own: what clients send of it would be lost; expected a name X-..."
            )
        elif folded in signed:
            yield Problem(where, f"{name} is one of signing.headers: expected a header that is not signed")
        elif (other := seen.setdefault(folded, where)) != where:
            yield Problem(where, f"{name} is {other} already; expected another header")


def _root_remarks(settings: Settings) -> Iterator[Problem]:
    """`check` run by root reads what the service cannot; one line for all, as all have the same cause."""
    files = [(f"{where}.key", key.key) for where, key in _keys(settings)]
    if settings.operator.feedback is not None:
        files.append(("operator.feedback.secret", settings.operator.feedback.secret))
    found: dict[Path, str] = {}
    for where, path in files:
        if os.geteuid() == 0 and _only_root_reads(path):
            found.setdefault(path, where)
    if found:
        first, where = next(iter(found.items()))
        more = f" and {len(found) - 1} more ({len(found)} files)" if len(found) > 1 else ""
        yield Problem(
            where, f"{first}{more}: only root can read it; the service cannot unless it runs as root (chown or chgrp it)"
        )


def _only_root_reads(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False  # that is one of the problems
    grouped = status.st_mode & stat.S_IRGRP and status.st_gid != 0
    return status.st_uid == 0 and not grouped and not status.st_mode & stat.S_IROTH


def _shared_remarks(settings: Settings) -> Iterator[Problem]:
    """A key of two tenants cannot be replaced or withdrawn for one of them."""
    owners: dict[Path, str] = {}
    for where, key in _keys(settings):
        owner = where.partition(".dkim[")[0]
        first = owners.setdefault(Path(os.path.realpath(key.key)), owner)
        if first != owner:
            yield Problem(f"{where}.key", f"{key.key} is a key of {first} too: make one for each (relaywarden keys new)")


def _algorithm_remarks(settings: Settings) -> Iterator[Problem]:
    """RFC 8463 asks for both: to a receiver that verifies RSA only, mail under Ed25519 alone is unsigned."""
    found: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for where, key in _entries(settings):
        if (loaded := _loaded(key)) is not None:
            owner = where.partition(".dkim[")[0]
            found.setdefault((owner, key.domain), []).append((where, loaded.algorithm.startswith(b"rsa-")))
    for (_, domain), keys in found.items():
        if not any(rsa for _, rsa in keys):
            yield Problem(keys[0][0], f"{domain} is signed by Ed25519 only, and many receivers verify RSA only: add an RSA key")


def _loaded(key: DkimSettings) -> SigningKey | None:
    try:
        return load_key(key)
    except KeyFileError:
        return None  # that is one of the problems


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
