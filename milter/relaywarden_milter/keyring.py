"""keyring - which DKIM keys sign a message: the tenant's for the From domain, and the operator's on every message.

A tenant's key signs when its d= is the From domain or a parent of it (DMARC's relaxed alignment); of several domains that
fit, the longest wins, and all its keys sign (RSA beside Ed25519).  Keys are parsed once, and again when their file changes.

Rollover: `keys switch` says (`steering`, selectors) that a key's `next` has taken its place; `select` makes that so from the
next message on, in every worker.  Both keys are in memory all the time, so no message is unsigned meanwhile.

How it fails: a key that could not be loaded is tried again every few seconds when it is needed; meanwhile the messages it
should sign are put off (KeyFileError), never passed unsigned.  A key that was good once stays in use when its file goes bad.
A `next` that cannot be used leaves the signing to the key before it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relaywarden.config.settings import DkimSettings, Settings
from relaywarden.dkimkeys import SigningKey, following, load_key
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
        self._settings = {_id(wanted): wanted for wanted in _all(settings)}
        self._seen = {name: _looks(wanted.key) for name, wanted in self._settings.items()}  # before they are read
        self._keys: dict[_Id, SigningKey | _Missing] = {name: _load(wanted) for name, wanted in self._settings.items()}
        self._replaced: dict[_Id, _Id] = {}
        self._lock = threading.Lock()

    def require_all(self) -> None:
        """Raise ConfigError when any key is missing: a reload then leaves the old keys in force."""
        missing = [(key, found) for key, found in self._keys.items() if isinstance(found, _Missing)]
        if missing:
            raise ConfigError(
                [Problem(f"dkim {domain}/{selector}", str(found.error)) for (domain, selector, _), found in missing]
            )

    def for_tenant(self, tenant: Tenant, from_domains: Iterable[str]) -> list[SigningKey]:
        """The tenant's keys for these From domains; raises KeyFileError."""
        wanted: dict[_Id, None] = {}
        for domain in from_domains:
            wanted |= dict.fromkeys(_id(key) for key in aligned(tenant.dkim, domain))
        return [self._key(name) for name in wanted]

    def operator(self) -> list[SigningKey]:
        """The operator's keys; raises KeyFileError."""
        return [self._key(_id(key)) for key in self._operator]

    def select(self, selectors: Mapping[str, Mapping[str, Any]]) -> None:
        """Let the keys that `keys switch` named sign: {"domain/selector": {"to": selector of its `next`}}."""
        replaced = {}
        for name, wanted in self._settings.items():
            heir = following(wanted)
            said = selectors.get(f"{wanted.domain}/{wanted.selector}")
            if heir is not None and said and said.get("to") == heir.selector:
                replaced[name] = _id(heir)
        for name in replaced.keys() - self._replaced.keys():
            found = self._keys[replaced[name]]
            if isinstance(found, SigningKey):
                event(
                    log,
                    logging.INFO,
                    "another DKIM key signs from now on",
                    domain=name[0],
                    selector=found.selector,
                    before=name[1],
                )
            else:
                event(log, logging.ERROR, "a DKIM key that was switched to cannot be used; the one before it signs on",
                      domain=name[0], selector=replaced[name][1], before=name[1], error=found.error)  # fmt: skip
        self._replaced = replaced

    def refresh(self) -> None:
        """Load again the keys whose files have changed; called now and then, never on the hot path."""
        for name, wanted in self._settings.items():
            looks = _looks(wanted.key)
            if looks == self._seen[name]:
                continue
            self._seen[name] = looks
            fresh = _load(wanted)
            if isinstance(fresh, SigningKey) or isinstance(self._keys[name], _Missing):
                self._keys[name] = fresh
                event(log, logging.INFO, "a DKIM key file was read again", domain=wanted.domain, selector=wanted.selector)
            else:
                event(log, logging.ERROR, "the DKIM key of before stays in use", domain=wanted.domain, selector=wanted.selector)

    def _key(self, name: _Id) -> SigningKey:
        if self._replaced and (heir := self._replaced.get(name)) is not None:
            found = self._keys[heir]
            if isinstance(found, SigningKey):
                return found
        found = self._keys[name]
        return found if isinstance(found, SigningKey) else self._try_again(name)

    def _try_again(self, name: _Id) -> SigningKey:
        with self._lock:
            found = self._keys[name]
            if isinstance(found, _Missing) and time.monotonic() >= found.due:
                found = self._keys[name] = _load(self._settings[name])
        if isinstance(found, _Missing):
            raise found.error
        return found


def aligned(keys: Sequence[DkimSettings], domain: str) -> list[DkimSettings]:
    """The keys of the longest d= that is `domain` or a parent of it."""
    fitting = [key for key in keys if domain == key.domain or domain.endswith("." + key.domain)]
    longest = max((len(key.domain) for key in fitting), default=0)
    return [key for key in fitting if len(key.domain) == longest]


def _load(wanted: DkimSettings) -> SigningKey | _Missing:
    try:
        key = load_key(wanted)
    except KeyFileError as error:
        event(log, logging.ERROR, "a DKIM key cannot be used", domain=wanted.domain, selector=wanted.selector, error=error)
        return _Missing(error)
    if key.warning:
        event(log, logging.WARNING, key.warning, domain=wanted.domain, selector=wanted.selector)
    return key


def _looks(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written, replaced, or given to others; None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode


def _id(settings: DkimSettings) -> _Id:
    return settings.domain, settings.selector, settings.key


def _all(settings: Settings) -> Iterator[DkimSettings]:
    """Every key that may sign, those to come included."""
    for key in (*(key for tenant in settings.tenants.values() for key in tenant.dkim), *settings.operator.dkim):
        yield key
        if (heir := following(key)) is not None:
            yield heir
