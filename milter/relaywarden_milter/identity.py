"""identity - does a message belong to the tenant whose login sent it?  From, Sender, envelope sender, shown names.  Pure.

Exactly one From is required (RFC 5322 section 3.6; two of them show one sender to filters and another to people, and
dkimpy signs both without complaint: milter-traps, 38).  Every address in it must be in a domain of the tenant.  Sender and
envelope sender may also be in the organizational domain of one, since bounces usually have a subdomain of their own.

A name shows another tenant's domain when it has a word that looks like a domain name and belongs to that tenant's
organizational domain.  Before that is looked at, the name becomes what a reader sees: without invisible characters, in one
width (NFKC) and case, with everything that looks like a dot as a dot, and also with Cyrillic and Greek letters that look
Latin as Latin ones.

How it fails: MessageError with a text for the client, from what reads headers and the envelope; the rest never raises.

Known limits: a domain with blanks in it (`acme . example`, `acme dot example`), at the beginning of a longer one
(`acme.example.evil.test`), with figures for letters, or behind the first 1000 characters of a name is not seen.  A tenant
that may send from a mailbox provider's domain (gmail.com) makes every name that shows such an address foreign to the others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from relaywarden.domains import organizational
from relaywarden.errors import MessageError
from relaywarden.tenants import Tenant
from relaywarden_milter.headers import Header, values
from relaywarden_milter.mailboxes import Mailbox, parse_addresses, parse_mailboxes

__all__ = [
    "OtherDomains", "authors", "belongs", "domains_of", "envelope_domain", "from_domains", "other_domains", "parse_addresses",
    "related", "sender_domain", "spoofed",
]  # fmt: skip

OtherDomains = Mapping[str, str]  # organizational domain -> name of the tenant that it belongs to

_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\Z")
_LITERAL = re.compile(r"\[[\x21-\x5a\x5e-\x7e]{1,255}\]\Z")
_LONGEST_NAME = 1_000
_LONGEST_DOMAIN = 253
# What NFKC makes a full stop (or more, or less: a test compares this with the table of Unicode), and what looks like one.
_DOTLIKE = (
    "\u3002\uff61\u2024-\u2026\u2488-\u249b\u33c2\u33c7\u33d8\ufe12\ufe19\ufe30\ufe52\uff0e\U0001f100"
    "\u00b7\u0387\u0660\u0701\u0702\u06d4\u06f0\u2022\u2027\u2219\u22c5\u30fb\uff65\ua4f8\ua60e\U00010a50"
)
_ANY_DOT = re.compile(f"[.{_DOTLIKE}]")
# Format characters (Cf), and letters and marks that nobody sees.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u0600-\u0605\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_REVERSED = "\u202e"  # right-to-left override: what follows is shown backwards
_LOOKS = str.maketrans(
    dict.fromkeys("\u3002\u00b7\u0387\u0660\u0701\u0702\u06d4\u06f0\u2022\u2027\u2219\u22c5\u30fb\ua4f8\ua60e\U00010a50", ".")
    | dict.fromkeys("\u2010\u2212", "-")
)
_LATIN = str.maketrans(
    # Letters of other scripts that look like the Latin letter below them: Cyrillic capital and small, Greek capital and small
    # (nu is N or v), Armenian, and Latin ones beyond ASCII.
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u0423"
    "\u0430\u0441\u0435\u04bb\u0456\u0458\u043a\u04cf\u043e\u0440\u051b\u0455\u0475\u051d\u0445\u0443\u0501"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03b1\u03b9\u03bd\u03bf\u03c1\u03c5"
    "\u0570\u0578\u0566\u057d\u0585\u0131\u0251\u0261\u0269",
    "abcehijkmopstxy" "acehijklopqsvwxyd" "abezhikmnoptyxaivopu" "hnquoiagi",
)  # fmt: skip
_BETWEEN = re.compile(r"[^a-z0-9.-]+|\.\.+")
_BETWEEN_ANY = re.compile(r"\s+|\.\.+")


def authors(headers: list[Header]) -> list[Mailbox]:
    """The mailboxes of the one From header; raises MessageError with a text for the client."""
    found = values(headers, "from")
    if len(found) != 1:
        raise MessageError(f"expected exactly one From header, got {len(found)}")
    return parse_mailboxes(found[0])


def domains_of(mailboxes: Iterable[Mailbox]) -> tuple[str, ...]:
    """Their domains, each once, in order; raises MessageError."""
    return tuple(dict.fromkeys(_domain_of(mailbox.address, "From header") for mailbox in mailboxes))


def from_domains(headers: list[Header]) -> tuple[str, ...]:
    """The domains in the one From header, each once, in order; raises MessageError with a text for the client."""
    return domains_of(authors(headers))


def sender_domain(headers: list[Header]) -> str | None:
    """The domain of Sender, None without one; raises MessageError for two (RFC 5322 section 3.6.2: one mailbox, once)."""
    found = values(headers, "sender")
    if not found:
        return None
    if len(found) > 1:
        raise MessageError(f"expected at most one Sender header, got {len(found)}")
    mailboxes = parse_mailboxes(found[0], "Sender")
    if len(mailboxes) > 1:
        raise MessageError(f"expected one address in the Sender header, got {len(mailboxes)}")
    return _domain_of(mailboxes[0].address, "Sender header")


def envelope_domain(sender: str) -> str | None:
    """The domain of an envelope sender without its angle brackets, None for the empty one; raises MessageError.

    A quoted local part may have an `@`, a domain never (RFC 5321 section 4.1.2): the last one counts.
    """
    if not sender:
        return None
    if "@" not in sender:
        raise MessageError("the envelope sender has no domain")
    return _domain_of(sender, "envelope sender")


def belongs(domain: str, patterns: Sequence[str]) -> bool:
    """Is the domain one of a tenant's `from_domains` (`acme.example`, `*.acme.example`)?  No patterns: any is."""
    if not patterns:
        return True
    return any(domain.endswith(pattern[1:]) if pattern.startswith("*.") else domain == pattern for pattern in patterns)


def related(domain: str, patterns: Sequence[str]) -> bool:
    """`belongs`, or has the organizational domain of a pattern: DMARC's relaxed alignment (RFC 7489 section 3.1)."""
    return belongs(domain, patterns) or _own(organizational(domain), patterns)


def other_domains(tenants: Iterable[Tenant]) -> OtherDomains:
    """All organizational domains of a Directory's tenants; built once for each configuration, the first tenant counts."""
    found: dict[str, str] = {}
    for tenant in tenants:
        for pattern in tenant.from_domains:
            domain = organizational(pattern.removeprefix("*."))
            if domain is not None:
                found.setdefault(domain, tenant.name)
    return found


def spoofed(names: Sequence[str], own: Sequence[str], others: OtherDomains) -> str | None:
    """The organizational domain of another tenant that one of the display names shows; `others[it]` is the tenant's name.

    `own`: the `from_domains` of the tenant that sends; what they share an organizational domain with never counts.
    """
    for name in names:
        if name.isascii():
            if "." in name and (found := _foreign(_candidates(name), own, others)):
                return found
        elif _ANY_DOT.search(name) and (found := _foreign(_any_candidates(name), own, others)):
            return found
    return None


def _own(organization: str | None, patterns: Sequence[str]) -> bool:
    return organization is not None and any(organization == organizational(p.removeprefix("*.")) for p in patterns)


def _foreign(candidates: Iterable[tuple[str, ...]], own: Sequence[str], others: OtherDomains) -> str | None:
    """Each candidate is one word in all its readings: if one of them is our own domain, the word is harmless."""
    for readings in candidates:
        organizations = [organizational(reading) for reading in readings]
        found = next((name for name in organizations if name in others), None)
        if found is not None and not any(_own(name, own) for name in organizations):
            return found
    return None


def _candidates(name: str) -> Iterator[tuple[str, ...]]:
    """The words of an ASCII name that have a dot inside."""
    for word in _BETWEEN.split(_visible(name).lower()):
        bare = word.strip(".-")
        if "." in bare:
            yield (bare,)


def _any_candidates(name: str) -> Iterator[tuple[str, ...]]:
    """The words of any name that have a dot inside: as they are (IDNA), and as they look."""
    text = unicodedata.normalize("NFKC", _visible(name))[:_LONGEST_NAME].translate(_LOOKS)
    text = "".join(char if char in ".-" or unicodedata.category(char)[0] in "LMN" else " " for char in text)
    for shown in (text, text[::-1]) if _REVERSED in name else (text,):
        for word in _BETWEEN_ANY.split(shown):
            bare = word.strip(".-")
            if "." in bare:
                yield tuple(filter(None, (_ascii(bare.casefold()), _ascii(bare.translate(_LATIN).casefold()))))


def _visible(name: str) -> str:
    """The beginning of the name as it is seen."""
    return " ".join(_INVISIBLE.sub("", name).split())[:_LONGEST_NAME]


def _ascii(domain: str) -> str | None:
    """A domain in ASCII (IDNA); None: it has no such form."""
    if domain.isascii():
        return domain
    if len(domain) > _LONGEST_DOMAIN:  # the codec takes long for long ones
        return None
    try:
        return domain.encode("idna").decode()
    except UnicodeError:
        return None


def _domain_of(address: str, where: str) -> str:
    """The domain in ASCII (IDNA) and lower case, as the configuration writes it."""
    domain = _ascii(address.rpartition("@")[2].rstrip(".").lower())
    if domain is None or not (_DOMAIN.match(domain) or _LITERAL.match(domain)):
        raise MessageError(f"the {where} has no proper domain")
    return domain
