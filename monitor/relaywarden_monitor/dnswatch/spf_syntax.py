"""spf_syntax - SPF records (RFC 7208 section 4.6, 5, 6 and 7) as terms.  Pure.

    v=spf1 ip4:192.0.2.0/24 include:_spf.relay.example a:%{d}/24//64 ~all redirect=other.example

The whole record is parsed before anything of it counts: one error anywhere makes it a permerror (section 4.6).

How it fails: SpfError with the term and what is wrong with it.  Known limits: a record of more than 16 KB is an error, though
the RFC names no limit; `exp=` is checked and not used.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from relaywarden.errors import ProtocolError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LARGEST = 16 * 1024
_VERSION = "v=spf1"
_LONGEST_NAME = 253  # RFC 7208 section 7.3
_TERM = re.compile(r"(?P<qualifier>[+?~-]?)(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P<rest>.*)", re.ASCII)
_MACRO = re.compile(r"%\{([slodiphvSLODIPHV])([0-9]{0,3})(r?|R?)([.+,/_=-]*)\}|%%|%_|%-")
_LITERAL = re.compile(r"[!-$&-~]+")  # visible, without %
_TOP = re.compile(r"\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?\Z")
_CIDR = r"(?:/(?P<cidr4>0|[1-9][0-9]?))?(?://(?P<cidr6>0|[1-9][0-9]{0,2}))?"
_DUAL = re.compile(rf"(?P<domain>.*?){_CIDR}\Z")
_PREFIX = re.compile(r"0|[1-9][0-9]{0,2}")
_HAVE_DOMAIN = {"a", "mx", "ptr", "include", "exists"}
_NEED_DOMAIN = {"include", "exists"}
_HAVE_CIDR = {"a", "mx"}


class SpfError(ProtocolError):
    """A record that receivers answer with permerror, or (`temporary`) a look-up that failed."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        self.temporary = temporary
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One term that matches an address, or does not."""

    qualifier: str  # + - ~ ?
    name: str
    text: str  # as it was written
    domain: str = ""  # macro-string; "": the domain of the record
    network: Network | None = None  # of ip4 and ip6
    cidr4: int = 32
    cidr6: int = 128


@dataclass(frozen=True, slots=True)
class Record:
    """One SPF record."""

    mechanisms: tuple[Mechanism, ...]
    redirect: str = ""  # macro-string


def is_spf(text: str) -> bool:
    """Is this TXT record an SPF record (section 4.5)?"""
    return text[: len(_VERSION)].lower() == _VERSION and text[len(_VERSION) : len(_VERSION) + 1] in {"", " "}


@lru_cache(maxsize=64)
def parse(text: str) -> Record:
    """The terms of a record that `is_spf`; raises SpfError."""
    if len(text) > _LARGEST:
        raise SpfError(f"a record of {len(text)} octets")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in text[len(_VERSION) :].split(" "):
        found = _TERM.fullmatch(term)
        if not term:
            continue
        if found is None:
            raise SpfError(f"not a term: {term[:80]}")
        qualifier, name, rest = found.group("qualifier", "name", "rest")
        if rest.startswith("=") and not qualifier:
            _modifier(modifiers, name.lower(), rest[1:], term)
        else:
            mechanisms.append(_mechanism(qualifier or "+", name.lower(), rest, term))
    return Record(tuple(mechanisms), modifiers.get("redirect", ""))


def _modifier(modifiers: dict[str, str], name: str, value: str, term: str) -> None:
    if name in {"redirect", "exp"}:
        if name in modifiers:
            raise SpfError(f"{name}= stands twice")
        if not is_domain(value):
            raise SpfError(f"expected a domain in {term[:80]}")
        modifiers[name] = value
    elif not _is_macro_string(value):
        raise SpfError(f"not a macro-string: {term[:80]}")


def _mechanism(qualifier: str, name: str, rest: str, term: str) -> Mechanism:
    if name == "all" and not rest:
        return Mechanism(qualifier, name, term)
    if name in {"ip4", "ip6"} and rest.startswith(":"):
        return Mechanism(qualifier, name, term, network=_network(name, rest[1:], term))
    if name not in _HAVE_DOMAIN:
        raise SpfError(f"no such mechanism: {term[:80]}")
    cidr4, cidr6 = 32, 128
    if name in _HAVE_CIDR and (parts := _DUAL.match(rest)) is not None:
        rest, four, six = parts.group("domain", "cidr4", "cidr6")
        cidr4, cidr6 = int(four or 32) if four != "0" else 0, int(six or 128) if six != "0" else 0
        if cidr4 > 32 or cidr6 > 128:
            raise SpfError(f"a prefix too long in {term[:80]}")
    if (rest or name in _NEED_DOMAIN) and (not rest.startswith(":") or not is_domain(rest[1:])):
        raise SpfError(f"expected a domain in {term[:80]}")
    return Mechanism(qualifier, name, term, rest[1:], cidr4=cidr4, cidr6=cidr6)


def _network(name: str, text: str, term: str) -> Network:
    address, slash, prefix = text.partition("/")
    kind, most = (ipaddress.IPv4Network, 32) if name == "ip4" else (ipaddress.IPv6Network, 128)
    try:
        if "%" not in address and (not slash or _PREFIX.fullmatch(prefix)):  # no scope of an IPv6 address
            return kind(f"{address}/{prefix if slash else most}", strict=False)
    except ValueError:
        pass  # said below
    raise SpfError(f"expected an {'IPv4' if name == 'ip4' else 'IPv6'} address or network in {term[:80]}")


def is_domain(text: str) -> bool:
    """Is it a domain-spec (section 7.1): a macro-string that ends in a macro or a top-level domain?"""
    if not _is_macro_string(text):
        return False
    return any(found.end() == len(text) for found in _MACRO.finditer(text)) or _TOP.search(text) is not None


def _is_macro_string(text: str) -> bool:
    at = 0
    while at < len(text):
        found = _LITERAL.match(text, at) or _MACRO.match(text, at)
        if found is None or (found[0].startswith("%{") and found[2] and not int(found[2])):
            return False
        at = found.end()
    return True


def letters(text: str) -> set[str]:
    """The macro letters that a macro-string uses, in lower case."""
    return {found[1].lower() for found in _MACRO.finditer(text) if found[1]}


def expand(text: str, values: Mapping[str, str]) -> str:
    """A domain-spec with its macros replaced (section 7.3), cut from the left to what DNS can hold; `values` by letter."""
    whole = _MACRO.sub(lambda found: _value(found, values), text).rstrip(".")
    while len(whole) > _LONGEST_NAME and "." in whole:
        whole = whole.partition(".")[2]
    return whole


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    letter, digits, turned, delimiters = found.groups()
    if letter is None:
        return {"%%": "%", "%_": " ", "%-": "%20"}[found[0]]
    parts = re.split(f"[{re.escape(delimiters or '.')}]", values[letter.lower()])
    if turned:
        parts.reverse()
    if digits:
        parts = parts[-int(digits) :]
    value = ".".join(parts)
    return quote(value, safe="-._~") if letter.isupper() else value
