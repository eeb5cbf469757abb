"""dkimdns - is a DKIM key's public half in DNS, and the same on every name server of its zone?

Before a new selector signs, every receiver must be able to find it: so the resolver is asked, and then each authoritative
server of the zone itself, because a record that only some of them have verifies only some of the mail.

Wire format: TXT at `selector._domainkey.domain`, RFC 6376 section 3.6.1: `v=DKIM1; k=rsa; p=BASE64`; strings of one record
are joined.  How it fails: never by an exception; a server that does not answer is a finding like any other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.resolver

from relaywarden.dkimkeys import SigningKey

_SECONDS = 5.0
_MOST_SERVERS = 16
_PORT = 53


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server said of a key."""

    server: str
    ok: bool
    text: str


def published(key: SigningKey, resolver: dns.resolver.Resolver | None = None) -> list[Answer]:
    """What the resolver and every authoritative server of the zone say; the key may sign when all are ok."""
    resolver = resolver or dns.resolver.Resolver()
    name = dns.name.from_text(f"{key.selector}._domainkey.{key.domain}")
    first = _by_resolver(key, name, resolver)
    return [first, *_by_servers(key, name, resolver, first)]


def judge(key: SigningKey, records: Sequence[bytes]) -> tuple[bool, str]:
    """Does this set of TXT records carry the key?  Pure."""
    found = [record for record in map(_tags, records) if record.get("v", "DKIM1") == "DKIM1" and "p" in record]
    if not found:
        return False, "no DKIM record" if not records else "a TXT record, but no DKIM key in it"
    if len(found) > 1:
        return False, f"{len(found)} DKIM records; receivers take any of them"
    (tags,) = found
    if not tags["p"]:
        return False, "revoked (p= is empty)"
    if tags.get("k", "rsa") != ("rsa" if key.algorithm.startswith(b"rsa") else "ed25519"):
        return False, f"a key of another kind (k={tags.get('k', 'rsa')})"
    if "sha256" not in tags.get("h", "sha256").split(":"):
        return False, f"does not allow sha256 (h={tags['h']})"
    if "s" in tags and not {"*", "email"} & set(tags["s"].split(":")):
        return False, f"is not for mail (s={tags['s']})"
    if _octets(tags["p"]) != _octets(_tags(key.dns_record().encode())["p"]):
        return False, "another public key than that of the file"
    return True, "test mode (t=y): receivers may ignore it" if "y" in tags.get("t", "").split(":") else "published"


def _tags(record: bytes) -> dict[str, str]:
    """tag=value pairs (section 3.2); blanks in values do not count."""
    tags: dict[str, str] = {}
    for part in record.decode("utf-8", "replace").split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip(), re.sub(r"\s+", "", value))
    return tags


def _octets(text: str) -> bytes | str:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text


def _by_resolver(key: SigningKey, name: dns.name.Name, resolver: dns.resolver.Resolver) -> Answer:
    try:
        answer = resolver.resolve(name, dns.rdatatype.TXT, lifetime=_SECONDS)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return Answer("resolver", False, "no DKIM record")
    except dns.exception.DNSException as error:
        return Answer("resolver", False, f"no answer from DNS ({type(error).__name__})")
    return Answer("resolver", *judge(key, [b"".join(record.strings) for record in answer]))


def _by_servers(key: SigningKey, name: dns.name.Name, resolver: dns.resolver.Resolver, first: Answer) -> Iterator[Answer]:
    """What each authoritative server of the zone says; `first` is the resolver's answer."""
    try:
        zone = dns.resolver.zone_for_name(name, resolver=resolver, lifetime=_SECONDS)
        servers = sorted(record.target.to_text() for record in resolver.resolve(zone, dns.rdatatype.NS, lifetime=_SECONDS))
    except (dns.resolver.NoRootSOA, dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return  # a private name server without zones: there is nobody else to ask
    except dns.exception.DNSException as error:
        yield Answer("name servers", False, f"cannot be found out ({type(error).__name__})")
        return
    for server in servers[:_MOST_SERVERS]:
        addresses = list(_addresses(server, resolver))
        if not addresses:
            yield Answer(server.rstrip("."), False, "has no address")
        for address in addresses:
            yield _by_server(key, name, f"{server.rstrip('.')} ({address})", address, first)


def _addresses(server: str, resolver: dns.resolver.Resolver) -> Iterator[str]:
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
        try:
            yield from (record.address for record in resolver.resolve(server, kind, lifetime=_SECONDS))
        except dns.exception.DNSException:
            continue  # none of this kind; none at all is reported


def _by_server(key: SigningKey, name: dns.name.Name, label: str, address: str, first: Answer) -> Answer:
    query = dns.message.make_query(name, dns.rdatatype.TXT)
    try:
        reply, _ = dns.query.udp_with_fallback(query, address, timeout=_SECONDS, port=_PORT)
    except (dns.exception.DNSException, OSError) as error:
        return Answer(label, False, f"does not answer ({type(error).__name__})")
    records = [b"".join(item.strings) for rrset in reply.answer for item in rrset if item.rdtype == dns.rdatatype.TXT]
    alias = next((item.target for rrset in reply.answer for item in rrset if item.rdtype == dns.rdatatype.CNAME), None)
    if alias is not None and not records:
        # Where the alias leads is another zone's matter, which the resolver has followed.
        return Answer(label, first.ok, f"an alias of {alias.to_text(omit_final_dot=True)}: {first.text}")
    return Answer(label, *judge(key, records))
