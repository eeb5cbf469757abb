"""keyring - which DKIM keys sign a message: the tenant's for the From domain, and the operator's on every message.

A tenant's key signs when its d= is the From domain or a parent of it (DMARC's relaxed alignment); of several domains that
fit, the longest wins, and all its keys sign (RSA beside Ed25519, old selector beside new).  Keys are parsed once.

How it fails: a key that could not be loaded is tried again every few seconds when it is needed; meanwhile the messages it
should sign are put off (KeyFileError), never passed unsigned.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from relaywarden.config.settings import DkimSettings, Settings
from relaywarden.dkimkeys import SigningKey, load_key
from relaywarden.errors import ConfigError, KeyFileError, Problem
from relaywarden.logs import event
from relaywarden.tenants import Tenant

log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_Id = tuple[str, str, Path]


class _Missing:
    """A key that could not be loaded, and when it may be tried again."""

    def __init__(self, error: KeyFileError) -> None:
        self.error = error
        self.due = time.monotonic() + _RETRY_SECONDS


class Keyring:
    """All keys of one configuration."""

    def __init__(self, settings: Settings) -> None:
        """Load every key; those that fail are logged and stay missing."""
        self._operator = tuple(settings.operator.dkim)
        self._keys: dict[_Id, SigningKey | _Missing] = {}
        self._lock = threading.Lock()
        for wanted in _all(settings):
            if _id(wanted) not in self._keys:
                self._keys[_id(wanted)] = self._load(wanted)

    def require_all(self) -> None:
        """Raise ConfigError when any key is missing: a reload then leaves the old keys in force."""
        missing = [(key, found) for key, found in self._keys.items() if isinstance(found, _Missing)]
        if missing:
            raise ConfigError(
                [Problem(f"dkim {domain}/{selector}", str(found.error)) for (domain, selector, _), found in missing]
            )

    def for_tenant(self, tenant: Tenant, from_domains: Iterable[str]) -> list[SigningKey]:
        """The tenant's keys for these From domains; raises KeyFileError."""
        wanted: dict[_Id, DkimSettings] = {}
        for domain in from_domains:
            wanted |= {_id(key): key for key in aligned(tenant.dkim, domain)}
        return [self._key(key) for key in wanted.values()]

    def operator(self) -> list[SigningKey]:
        """The operator's keys; raises KeyFileError."""
        return [self._key(key) for key in self._operator]

    def _key(self, wanted: DkimSettings) -> SigningKey:
        found = self._keys[_id(wanted)]
        if isinstance(found, SigningKey):
            return found
        with self._lock:
            found = self._keys[_id(wanted)]
            if isinstance(found, _Missing) and time.monotonic() >= found.due:
                found = self._keys[_id(wanted)] = self._load(wanted)
        if isinstance(found, _Missing):
            raise found.error
        return found

    @staticmethod
    def _load(wanted: DkimSettings) -> SigningKey | _Missing:
        try:
            key = load_key(wanted)
        except KeyFileError as error:
            event(log, logging.ERROR, "a DKIM key cannot be used, mail it should sign is put off",
                  domain=wanted.domain, selector=wanted.selector, error=error)  # fmt: skip
            return _Missing(error)
        if key.warning:
            event(log, logging.WARNING, key.warning, domain=wanted.domain, selector=wanted.selector)
        return key


def aligned(keys: Sequence[DkimSettings], domain: str) -> list[DkimSettings]:
    """The keys of the longest d= that is `domain` or a parent of it."""
    fitting = [key for key in keys if domain == key.domain or domain.endswith("." + key.domain)]
    longest = max((len(key.domain) for key in fitting), default=0)
    return [key for key in fitting if len(key.domain) == longest]


def _id(key: DkimSettings) -> _Id:
    return key.domain, key.selector, key.key


def _all(settings: Settings) -> Iterable[DkimSettings]:
    for tenant in settings.tenants.values():
        yield from tenant.dkim
    yield from settings.operator.dkim
