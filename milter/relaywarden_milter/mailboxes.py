"""mailboxes - the addresses in From or Sender, and the names shown beside them.  Pure.

The parser takes RFC 5322 section 3.4 with its obsolete forms, and refuses what it does not understand: where programs
disagree about the author of a message, a thief chooses the reading that suits him.  It never takes an address out of a
quoted string, a comment or an encoded word.

A name is everything a mail program could show beside the address: the phrase before it, comments, the name of the group.
Encoded words (RFC 2047) are decoded also where they must not stand, as in a quoted string, because programs do that.

How it fails: MessageError, with a text for the client.  A name alone never does: an encoded word that cannot be decoded stays
as it is, and octets that its charset does not have become U+FFFD.

Known limit: a charset that Python does not have stays encoded.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from relaywarden.errors import MessageError

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |(?P<quoted>"(?:[^"\\\r\n\x00]|\r?\n[ \t]|\\[^\x00])*")
    |(?P<literal>\[[^\[\]\\\r\n\x00]*\])
    |(?P<special>[<>@,;:])
    |(?P<atom>[^\x00-\x20\x7f"()<>@,;:\\\[\]]+)""",
    re.VERBOSE,
)
_LARGEST = 64 * 1024
_USUAL_LENGTH = 256
_MOST_ADDRESSES = 100
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_BLANKS = re.compile(r"[\t-\r ]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]+")
_SURROGATES = re.compile(r"[\ud800-\udfff]")  # utf-7 makes them
# Blanks and "?" must not stand in an encoded word, but programs take them.  What may hold "?" is short, or a header full of
# beginnings without an end would be searched to its end from each of them.
_WORD = re.compile(r"=\?[^?\s]{1,64}\?[bBqQ]\?(?:[^?\r\n]*|[^\r\n]{0,200}?)\?=")
_WORDS = re.compile(rf"{_WORD.pattern}(?:\s*{_WORD.pattern})*")
# Only names that Python lists: a failed lookup of any other stays in its table of codecs for ever, and mail makes names up.
_NO_CHARSETS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs"}
_CHARSETS = {name for pair in aliases.items() if pair[1] not in _NO_CHARSETS for name in pair} | {"cp874", "koi8_u"}

_Token = tuple[str, str]  # kind, text; a blank or a comment is "blank", with the comment as its text


class Mailbox(NamedTuple):
    """One address and the name shown with it."""

    display_name: str  # decoded; "" where there is none
    address: str  # as it is written, without blanks


def parse_mailboxes(value: bytes, field: str = "From") -> list[Mailbox]:
    """The mailboxes of a header's value; raises MessageError naming the `field`."""
    try:
        return list(_usual(value) if len(value) <= _USUAL_LENGTH else _parse(value))
    except MessageError as error:
        raise MessageError(f"the {field} header {error}") from error


def parse_addresses(value: bytes) -> list[str]:
    """The addr-specs of a From value; raises MessageError."""
    return [mailbox.address for mailbox in parse_mailboxes(value)]


def decode_words(text: str) -> str:
    """The text with its encoded words decoded (RFC 2047); those that cannot be decoded stay.  Never raises."""
    return _WORDS.sub(lambda found: _decode(found[0]), text) if "=?" in text else text


def _parse(value: bytes) -> tuple[Mailbox, ...]:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MessageError("is not valid UTF-8") from error
    if len(text) > _LARGEST:
        raise MessageError("is too long")
    found = [_mailbox(above, part) for above, part in _parts(_tokens(text))]
    if not found or len(found) > _MOST_ADDRESSES:
        raise MessageError("has no address" if not found else "has too many addresses")
    return tuple(found)


_usual = lru_cache(maxsize=4096)(_parse)  # a tenant's mail comes from the same few authors


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            end = _after_comment(text, at)
            tokens.append(("blank", text[at:end]))
            at = end
            continue
        matched = _TOKEN.match(text, at)
        if matched is None or matched.lastgroup is None:
            raise MessageError("cannot be understood")
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
    raise MessageError("has a comment that does not end")


def _parts(tokens: list[_Token]) -> list[tuple[list[_Token], list[_Token]]]:
    """Cut at commas, and at the colon and semicolon of groups, outside of angle brackets.

    First of each pair is what stands above the mailbox though it is no part of it: the name of its group, a loose comment.
    """
    parts: list[tuple[list[_Token], list[_Token]]] = []
    above: list[_Token] = []
    part: list[_Token] = []
    angle = False
    for kind, text in [*tokens, ("special", ",")]:
        if kind == "special" and text in "<>":
            if angle == (text == "<"):
                raise MessageError("has unbalanced angle brackets")
            angle = not angle
        if kind != "special" or angle or text not in ",;:":
            part.append((kind, text))
        elif text == ":":
            if any(token[1] == "@" for token in part):
                raise MessageError("cannot be understood")
            above += [*part, (kind, text)]
            part = []
        elif any(kind != "blank" for kind, _ in part):
            parts.append((above, part))
            above, part = [], []
        else:
            above += part
            part = []
    if angle:
        raise MessageError("has unbalanced angle brackets")
    if parts:
        parts[-1][0].extend(above)
    return parts


def _mailbox(above: list[_Token], tokens: list[_Token]) -> Mailbox:
    """One mailbox: its addr-spec is what stands in angle brackets, else all of it; its name is the rest and the comments."""
    texts = [text if kind == "special" else "" for kind, text in tokens]
    shown = [token for token in tokens if token[0] == "blank" and token[1]]
    if "<" in texts:
        start, end = texts.index("<"), texts.index(">")
        if any(kind != "blank" for kind, _ in tokens[end + 1 :]) or "@" in texts[:start]:
            raise MessageError("cannot be understood")
        shown = [*tokens[:start], *(token for token in tokens[start:] if token[0] == "blank")]
        tokens = _without_route(tokens[start + 1 : end])
    return Mailbox(_name([*above, *shown]) if above or shown else "", _address(tokens))


def _address(tokens: list[_Token]) -> str:
    words = [(kind, text) for kind, text in tokens if kind != "blank"]
    ats = [place for place, token in enumerate(words) if token == ("special", "@")]
    if len(ats) != 1 or any(kind == "special" and text != "@" for kind, text in words):
        raise MessageError("has no proper address")
    local, domain = words[: ats[0]], words[ats[0] + 1 :]
    if not local or not domain or any(kind == "quoted" for kind, _ in domain):
        raise MessageError("has no proper address")
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
            raise MessageError("has no proper address")
        previous, gap = text, False


def _without_route(tokens: list[_Token]) -> list[_Token]:
    """Drop the obsolete source route of `<@a,@b:user@c>`."""
    colons = [place for place, token in enumerate(tokens) if token == ("special", ":")]
    return tokens[colons[-1] + 1 :] if colons else tokens


def _name(tokens: list[_Token]) -> str:
    """The tokens as a reader sees them: without quotes, backslashes, outer parentheses and line breaks, decoded."""
    pieces = []
    for kind, text in tokens:
        inner = _PAIR.sub(r"\1", text[1:-1]) if kind == "quoted" or (kind == "blank" and text) else text
        pieces.append(f" {inner} " if kind == "blank" else inner)
    name = decode_words("".join(pieces)).strip()
    if name.isprintable() and "  " not in name:
        return name
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _BLANKS.sub(" ", name))).strip()


def _decode(run: str) -> str:
    """Encoded words one after the other; blanks between them do not count, and a character may go on in the next one."""
    pieces = []
    for charset, words in groupby(map(_octets, _WORD.findall(run)), key=itemgetter(0)):
        data = [octets for _, octets in words]
        pieces.append(b"".join(data).decode(charset, "replace") if charset else b" ".join((b"", *data, b"")).decode())
    return "".join(pieces)


def _octets(word: str) -> tuple[str, bytes]:
    """Charset and octets of one encoded word; no charset: it cannot be decoded, and the octets are the word itself."""
    try:
        ((octets, charset),) = decode_header(word)
    except (HeaderParseError, ValueError):
        return "", word.encode()
    known = normalize_encoding((charset or "").partition("*")[0]).lower()  # RFC 2231 section 5: utf-8*en
    return (known, octets) if known in _CHARSETS and isinstance(octets, bytes) else ("", word.encode())
