"""identity - does the From of a message belong to the tenant whose login sent it?  Pure.

Exactly one From is required (RFC 5322 section 3.6; two of them show one sender to filters and another to people, and
dkimpy signs both without complaint: milter-traps, 38).  Every address in it must be in a domain of the tenant.

The parser takes RFC 5322 section 3.4 with its obsolete forms, and refuses what it does not understand: where programs
disagree about the author of a message, a thief chooses the reading that suits him.  It never takes an address out of a
quoted string, a comment or an encoded word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from relaywarden.errors import MessageError
from relaywarden_milter.message import Header, values

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |(?P<quoted>"(?:[^"\\\r\n\x00]|\r?\n[ \t]|\\[^\x00])*")
    |(?P<literal>\[[^\[\]\\\r\n\x00]*\])
    |(?P<special>[<>@,;:])
    |(?P<atom>[^\x00-\x20\x7f"()<>@,;:\\\[\]]+)""",
    re.VERBOSE,
)
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\Z")
_LARGEST = 64 * 1024
_MOST_ADDRESSES = 100


def from_domains(headers: list[Header]) -> tuple[str, ...]:
    """The domains in the one From header, each once, in order; raises MessageError with a text for the client."""
    found = values(headers, "from")
    if len(found) != 1:
        raise MessageError(f"expected exactly one From header, got {len(found)}")
    domains = dict.fromkeys(_domain_of(address) for address in parse_addresses(found[0]))
    return tuple(domains)


def belongs(domain: str, patterns: Sequence[str]) -> bool:
    """Is the domain one of a tenant's `from_domains` (`acme.example`, `*.acme.example`)?  No patterns: any is."""
    if not patterns:
        return True
    return any(domain.endswith(pattern[1:]) if pattern.startswith("*.") else domain == pattern for pattern in patterns)


def parse_addresses(value: bytes) -> list[str]:
    """The addr-specs of a From value; raises MessageError."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MessageError("the From header is not valid UTF-8") from error
    if len(text) > _LARGEST:
        raise MessageError("the From header is too long")
    addresses = [_address(part) for part in _mailboxes(_tokens(text))]
    if not addresses or len(addresses) > _MOST_ADDRESSES:
        raise MessageError("the From header has no address" if not addresses else "the From header has too many addresses")
    return addresses


_Token = tuple[str, str]  # kind, text; a blank or a comment leaves a ("blank", "") between its neighbours


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            at = _after_comment(text, at)
            tokens.append(("blank", ""))
            continue
        matched = _TOKEN.match(text, at)
        if matched is None or matched.lastgroup is None:
            raise MessageError("the From header cannot be understood")
        tokens.append((matched.lastgroup, matched[0] if matched.lastgroup != "blank" else ""))
        at = matched.end()
    return tokens


def _after_comment(text: str, at: int) -> int:
    """The position behind the comment that opens at `at`; comments nest."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise MessageError("the From header has a comment that does not end")


def _mailboxes(tokens: list[_Token]) -> list[list[_Token]]:
    """Cut at commas, and at the colon and semicolon of groups, outside of angle brackets."""
    parts: list[list[_Token]] = [[]]
    angle = False
    for kind, text in tokens:
        if kind == "special" and text in "<>":
            if angle == (text == "<"):
                raise MessageError("the From header has unbalanced angle brackets")
            angle = not angle
        if kind == "special" and text in ",;" and not angle:
            parts.append([])
        elif kind == "special" and text == ":" and not angle:
            if any(token[1] == "@" for token in parts[-1]):
                raise MessageError("the From header cannot be understood")
            parts[-1] = []  # what stood before it was the name of a group
        else:
            parts[-1].append((kind, text))
    if angle:
        raise MessageError("the From header has unbalanced angle brackets")
    return [part for part in parts if any(kind != "blank" for kind, _ in part)]


def _address(tokens: list[_Token]) -> str:
    """The addr-spec of one mailbox: what stands in angle brackets, else all of it."""
    texts = [text if kind == "special" else "" for kind, text in tokens]
    if "<" in texts:
        start, end = texts.index("<"), texts.index(">")
        if any(kind != "blank" for kind, _ in tokens[end + 1 :]) or "@" in texts[:start]:
            raise MessageError("the From header cannot be understood")
        tokens = _without_route(tokens[start + 1 : end])
    words = [(kind, text) for kind, text in tokens if kind != "blank"]
    ats = [place for place, token in enumerate(words) if token == ("special", "@")]
    if len(ats) != 1 or any(kind == "special" and text != "@" for kind, text in words):
        raise MessageError("the From header has no proper address")
    local, domain = words[: ats[0]], words[ats[0] + 1 :]
    if not local or not domain or any(kind == "quoted" for kind, _ in domain):
        raise MessageError("the From header has no proper address")
    _refuse_loose_words(tokens)
    return "".join(text for _, text in local) + "@" + "".join(text for _, text in domain)


def _refuse_loose_words(tokens: list[_Token]) -> None:
    """`a b@c` is two words, and only some programs take the last one; blanks beside `.` and `@` are the obsolete form."""
    previous: str | None = None
    gap = False
    for kind, text in tokens:
        if kind == "blank":
            gap = True
            continue
        if gap and previous is not None and "@" not in (previous, text) and previous[-1] != "." and text[0] != ".":
            raise MessageError("the From header has no proper address")
        previous, gap = text, False


def _without_route(tokens: list[_Token]) -> list[_Token]:
    """Drop the obsolete source route of `<@a,@b:user@c>`."""
    colons = [place for place, token in enumerate(tokens) if token == ("special", ":")]
    return tokens[colons[-1] + 1 :] if colons else tokens


def _domain_of(address: str) -> str:
    """The domain in ASCII (IDNA) and lower case, as the configuration writes it."""
    domain = address.rpartition("@")[2].rstrip(".").lower()
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode()
        except UnicodeError as error:
            raise MessageError("the From header has no proper domain") from error
    if not _DOMAIN.match(domain) and not domain.startswith("["):
        raise MessageError("the From header has no proper domain")
    return domain
