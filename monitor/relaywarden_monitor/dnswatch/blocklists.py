"""blocklists - DNS blocklists (RFC 5782): what to ask them, and what their answers mean.  Pure.

    2.0.0.127.zen.spamhaus.org  A  127.0.0.2      an address: its octets reversed (IPv6: its nibbles), then the zone
    acme.example.dbl.spamhaus.org  A  127.0.1.2   a domain, then the zone

Not every answer is a listing.  Taken for "I do not serve you": 127.255.255.x (Spamhaus and those who follow it), 127.0.0.1 and
127.0.0.255 anywhere, bit 0 of lists that answer in bits (SURBL, URIBL), 127.0.1.255 and 127.0.2.255 (an address asked of a
domain list).  An answer outside 127.0.0.0/8 comes from a wildcard, a domain that was sold, or a resolver that redirects.

Whether a zone works at all tell its test entries (section 5): 127.0.0.2 (::FFFF:7F00:2) must be listed, 127.0.0.1
(::FFFF:7F00:1) must not; of domains TEST should, INVALID must not.  Some lists have a test domain of their own.

Sources: docs.spamhaus.com (zones and return codes), docs.abusix.com, uribl.com/refused.shtml, surbl.org (guidelines), and the
codes that rspamd's rbl.conf knows.  Known limits: lists that are not known here have no meanings, only codes; the key in the
name of a paid zone is a secret and is never shown (`label`), but that is known of Spamhaus' and Abusix' zones only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from relaywarden.domains import organizational

_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_ERRORS = ipaddress.IPv4Network("127.255.0.0/16")
_ERROR_TEXTS = {
    "127.255.255.250": "the key in the zone's name is not accepted",
    "127.255.255.251": "the key in the zone's name is not accepted",
    "127.255.255.252": "the zone's name is mistyped",
    "127.255.255.254": "asked through a public resolver; run a resolver of your own and name it in dns.nameservers",
    "127.255.255.255": "too many queries from this resolver",
    "127.0.0.1": "the list refuses to serve this resolver",
    "127.0.0.255": "the list refuses to serve this resolver",
    "127.0.1.255": "a list of domains that was asked for an address; it belongs into dns.domain_blocklists",
    "127.0.2.255": "a list of domains that was asked for an address; it belongs into dns.domain_blocklists",
}
_MOST_CODES = 8


class Kind(Enum):
    """What a zone is asked for."""

    IPV4 = "IPv4 addresses"
    IPV6 = "IPv6 addresses"
    DOMAIN = "domains"


class Standing(Enum):
    """What an answer says."""

    CLEAN = "not listed"
    LISTED = "listed"
    REFUSED = "refused"  # the list does not serve us
    BROKEN = "broken"  # no answer of a blocklist


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer, read."""

    standing: Standing
    text: str  # codes and meanings, or what is wrong


@dataclass(frozen=True, slots=True)
class Rules:
    """What is known of a list."""

    codes: Mapping[str, str] = field(default_factory=dict)  # the last octets of 127.0.*, "0.2" for 127.0.0.2
    bits: Mapping[int, str] = field(default_factory=dict)  # of the last octet; bit 1 is a refusal
    harmless: frozenset[str] = frozenset()  # codes that say something good
    test_domains: tuple[str, ...] = ()
    registered_only: bool = False  # lists organizational domains, not hosts below
    key: bool = False  # one label before the name of the list is the customer's secret


_SPAMHAUS = Rules(
    {
        "0.2": "SBL", "0.3": "SBL CSS", "0.4": "XBL", "0.5": "XBL", "0.6": "XBL", "0.7": "XBL", "0.9": "SBL DROP",
        "0.10": "PBL, by the network's owner", "0.11": "PBL, by Spamhaus", "0.20": "AuthBL", "0.30": "BCL",
        "1.2": "spam domain", "1.4": "phishing domain", "1.5": "malware domain", "1.6": "botnet control domain",
        "1.102": "abused legitimate domain", "1.103": "abused redirector", "1.104": "abused for phishing",
        "1.105": "abused for malware", "1.106": "abused for botnet control",
    },
    test_domains=("dbltest.com",),
)  # fmt: skip
_ABUSIX = Rules(
    {
        "0.2": "spam trap or reputation", "0.3": "spam trap or reputation", "0.4": "compromised or proxy",
        "0.11": "generic reverse name", "0.12": "no reverse name", "1.1": "domain in spam", "1.2": "newly observed domain",
    },
    key=True,
)  # fmt: skip
_SPAM = Rules({"0.2": "sends spam"})
_KNOWN: dict[str, Rules] = {
    "spamhaus.org": _SPAMHAUS,
    "dq.spamhaus.net": Rules(_SPAMHAUS.codes, test_domains=_SPAMHAUS.test_domains, key=True),
    "mail.abusix.zone": _ABUSIX,
    "bl.spamcop.net": _SPAM,
    "b.barracudacentral.org": _SPAM,
    "psbl.surriel.com": _SPAM,
    "ix.dnsbl.manitu.net": _SPAM,
    "dnsbl-1.uceprotect.net": Rules({"0.2": "the address sends spam"}),
    "dnsbl-2.uceprotect.net": Rules({"0.2": "its network sends spam"}),
    "dnsbl-3.uceprotect.net": Rules({"0.2": "its provider's networks send spam"}),
    "mailspike.net": Rules(
        {"0.2": "sends spam", "0.10": "worst reputation", "0.11": "very bad reputation", "0.12": "bad reputation"},
        harmless=frozenset(f"0.{code}" for code in range(13, 21)),
    ),
    "spamrats.com": Rules({"0.36": "dynamic", "0.37": "no reverse name", "0.38": "sends spam"}),
    "hostkarma.junkemailfilter.com": Rules(
        {"0.2": "black", "0.4": "brown"}, harmless=frozenset({"0.1", "0.3", "0.5"}),
    ),
    "surbl.org": Rules(
        bits={8: "phishing", 16: "malware", 64: "abuse", 128: "cracked site"},
        test_domains=("surbl-org-permanent-test-point.com",),
        registered_only=True,
    ),
    "uribl.com": Rules(bits={2: "black", 4: "grey", 8: "red"}, test_domains=("test.uribl.com",), registered_only=True),
}  # fmt: skip
_UNKNOWN_LIST = Rules()


def rules(zone: str) -> Rules:
    """What is known of this zone, by the longest name above it."""
    labels = zone.split(".")
    found = (_KNOWN.get(".".join(labels[start:])) for start in range(len(labels)))
    return next((known for known in found if known is not None), _UNKNOWN_LIST)


def label(zone: str) -> str:
    """The zone without a customer's key, fit for people, logs and notices."""
    if not rules(zone).key:
        return zone
    parent = next(name for name in _KNOWN if zone.endswith(name))
    rest = zone.removesuffix(parent).rstrip(".").split(".")
    return f"{rest[-1]}.{parent}" if len(rest) > 1 else parent


def kind_of(address: str) -> Kind:
    """Which entries of a zone an address needs."""
    return Kind.IPV4 if ipaddress.ip_address(address).version == 4 else Kind.IPV6


def address_name(address: str, zone: str) -> str:
    """The name that lists an address (RFC 5782 sections 2.1 and 2.4)."""
    reverse = ipaddress.ip_address(address).reverse_pointer
    return f"{reverse.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


def domain_name(domain: str, zone: str) -> str:
    """The name that lists a domain (section 2.5, there called a name-based list)."""
    asked = organizational(domain) or domain if rules(zone).registered_only else domain
    return f"{asked}.{zone}"


def test_names(zone: str, kind: Kind) -> tuple[list[str], str]:
    """(of these names one must be listed, this one must not), section 5."""
    if kind is Kind.IPV4:
        return [address_name("127.0.0.2", zone)], address_name("127.0.0.1", zone)
    if kind is Kind.IPV6:
        return [address_name("::ffff:7f00:2", zone)], address_name("::ffff:7f00:1", zone)
    return [f"{domain}.{zone}" for domain in (*rules(zone).test_domains, "test")], f"invalid.{zone}"


def judge(zone: str, records: Sequence[str]) -> Verdict:
    """What the A records of an answer mean; none: not listed."""
    known = rules(zone)
    meanings = []
    for text in records[:_MOST_CODES]:
        code = ipaddress.IPv4Address(text)
        if code not in _LOOPBACK:
            return Verdict(Standing.BROKEN, f"answers {code}, which is no answer of a blocklist")
        short = text.partition(".")[2].partition(".")[2] if text.startswith("127.0.") else ""
        if short in known.harmless:
            continue
        last = code.packed[3]
        if text in _ERROR_TEXTS or code in _ERRORS or (known.bits and last & 1):
            return Verdict(Standing.REFUSED, f"{_ERROR_TEXTS.get(text, 'the list refuses to serve this resolver')} ({text})")
        names = [name for bit, name in known.bits.items() if last & bit] or [known.codes.get(short, "")]
        meanings.append(f"{', '.join(filter(None, names)) or 'listed'} ({text})")
    return Verdict(Standing.LISTED, "; ".join(sorted(meanings))) if meanings else Verdict(Standing.CLEAN, "not listed")
