"""domains - which names belong to one owner: the organizational domain, by the Public Suffix List.

The organizational domain is the public suffix (`com`, `co.uk`) and one label more: `acme.co.uk` for `mail.acme.co.uk`
(RFC 7489 section 3.2).  RFC 9989 finds it by DNS instead; nothing here asks DNS, because mail waits for the answer.

Both sections of the list count, also the private one (`github.io`, `s3.amazonaws.com`).  Two names below a suffix of that
section have two owners.  With the ICANN section alone `thief.github.io` and `acme.github.io` would be one organization, and
one customer could speak for the other.  The price: `github.io` itself has no organizational domain.

Names are expected in ASCII (IDNA) and lower case, as the settings and `relaywarden_milter.identity` write them.  A top-level
domain that is not on the list is a public suffix too, so `acme.internal` is an organizational domain and `internal` is none.

How it fails: not at all; what is no domain (an address literal, an IP address, an empty label) has no organizational domain.

Known limit: the list is the one that the package publicsuffixlist brings; it is as old as that package.
"""

from __future__ import annotations

from functools import lru_cache

from publicsuffixlist import PublicSuffixList

_LONGEST = 253  # RFC 1035 section 2.3.4, without the last dot: longer names are not kept in the cache
_REMEMBERED = 16_384


def load() -> None:
    """Read the list (35 ms, 1.2 MB).  Call it before the workers are forked: they share it, and no message waits for it."""
    _suffixes()


def organizational(domain: str) -> str | None:
    """The organizational domain of a name; None for a public suffix, for an address, and for what is no domain."""
    return _organizational(domain) if len(domain) <= _LONGEST else None


def is_public_suffix(domain: str) -> bool:
    """May anybody register names below it?  Also for a name that the list does not know and that has one label only."""
    return _is_name(domain) and bool(_suffixes().is_public(domain))


def same_organization(one: str, other: str) -> bool:
    """Relaxed alignment (RFC 7489 section 3.1): the same name, or the same organizational domain."""
    if one == other:
        return True
    shared = organizational(one)
    return shared is not None and shared == organizational(other)


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(maxsize=_REMEMBERED)
def _organizational(domain: str) -> str | None:
    found = _suffixes().privatesuffix(domain) if _is_name(domain) else None
    return str(found) if found is not None else None


def _is_name(domain: str) -> bool:
    """Not `[192.0.2.1]`, `192.0.2.1`, `::1`: no top-level domain is a number (RFC 3696 section 2)."""
    last = domain.rpartition(".")[2]
    return bool(last) and not last.isdecimal() and ":" not in domain and "[" not in domain and "]" not in domain
