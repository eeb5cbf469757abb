r"""reply - a reply text in one canonical form, whatever log or report it came from.  Pure.

Taken are `421 4.7.0 text`, `550-5.1.1 text 550 5.1.1 text` (multi-line, joined), `smtp; 550 text` (RFC 3464 section 2.3.6),
`host mx.example[192.0.2.1] said: 550 text (in reply to RCPT TO command)` (Postfix), `SMTP error from remote mail server after
RCPT TO:<a@b.example>: 550 text` (Exim), and a text without a code.

The canonical text is lower case, one line, at most LONGEST characters:

    421 4.7.0 [0.0.0.0] messages from <@> deferred

The basic and the enhanced code stand first, once.  Addresses, IP addresses and long identifiers are replaced, so that no
rule sees what a stranger chose for a name, and so that replies of one kind are one text, which a cache can hold.  Accents on
Latin letters are dropped, because they often arrive broken.

How it fails: never.  Whatever is not printable becomes a blank.

Known limits: of a chain of servers the first code counts.  A code within a sentence is not seen, except behind `:` or `;`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

LONGEST = 1000
_LONGEST_RAW = 4 * LONGEST
_BLANKS = re.compile(r"(?:[\s\x00-\x1f\x7f]|#01[25]|\\[rn](?=\\|[245]\d\d[ -]))+")
_ACCENTS = re.compile(r"(?<=[a-z])[\u0300-\u036f]+")
_PREFIX = re.compile(r"(?:(?:smtp|lmtp|x-[a-z-]{1,20}|dns) ?; ?)+")
_HEAD = re.compile(r"([245]\d\d)(?![\w/])(?![.:]\d)[ -]*")
_CODE = re.compile(r"(?:said: ?|[;:>,)\]] ?|\berror |\bcode |\(|\")([45]\d\d)(?=[ -]|$)")
_ENHANCED = re.compile(r"(?<![\w.])([45]\.\d{1,3}\.\d{1,3})(?![\w]|\.\d)")
_STATUS = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")
_REPEATED = re.compile(r"(?<![\w.])[45]\d\d(?:-(?=[a-z<\[(#45])| (?=[45]\.\d{1,3}\.\d{1,3}\b))")
_WRAPPED = re.compile(r"(?:(?:delivery temporarily suspended: )?host [^ ]{1,255} (?:said|refused to talk to me): ?)+")
_STAGE = re.compile(
    r"\(?in reply to (?:the )?(end of data|data|mail from|rcpt to|ehlo|helo|mail|rcpt)(?: command)?\)?|"
    r"after (end of data|data|mail from|rcpt to|ehlo|helo|mail|rcpt|initial connection)\b"
)
_ADDRESS = re.compile(r"<?[^\s<>\"'()\[\],;:@]{1,64}@[\w.-]{1,255}>?")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}(?!\w)")
_IDENTIFIER = re.compile(r"(?<![\w-])[\w-]{16,}")
_DIGIT = re.compile(r"\d")
_SOME_IP = "0.0.0.0"  # noqa: S104 - stands for any


@dataclass(frozen=True, slots=True)
class Reply:
    """What was said."""

    text: str  # canonical
    code: int  # basic reply code, 0: none
    enhanced: str  # enhanced status code (RFC 3463), "": none
    stage: str  # command that was answered: mail, rcpt, data, ...; initial: the connection itself; "": not said


def parse(raw: str, status: str = "") -> Reply:
    """The canonical form; `status`: the enhanced code where the source gives it apart."""
    text = _BLANKS.sub(" ", fold(raw[:_LONGEST_RAW])).strip()
    if found := _PREFIX.match(text):
        text = text[found.end() :]
    stage = ""
    if (" reply to" in text or "after " in text) and (found := _STAGE.search(text)):
        stage = (found[1] or found[2]).removeprefix("end of ").partition(" ")[0]
        if found[1]:
            text = f"{text[: found.start()]}{text[found.end() :]}"
    if found := _WRAPPED.match(text):
        stage = stage or ("initial" if "refused to talk" in found[0] else "")
        text = text[found.end() :]
    code = ""
    if found := _HEAD.match(text):
        code, text = found[1], text[found.end() :]
    elif found := _CODE.search(text):
        code = found[1]
    enhanced = _ENHANCED.search(text)
    shown = enhanced[1] if enhanced else status if _STATUS.fullmatch(status) else ""
    if enhanced:
        text = text.replace(shown, "", 4)
    if code and code in text:
        text = _REPEATED.sub("", text)
    head = f"{code} {shown} ".lstrip() if code and shown else f"{code or shown} ".lstrip()
    return Reply(f"{head}{_anonymous(text)}".strip()[:LONGEST], int(code or 0), shown, stage)


def fold(text: str) -> str:
    """Lower case, without accents on Latin letters and without what is not printable.  For texts and patterns alike."""
    text = text.lower()
    if text.isascii():
        return text
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    composed = unicodedata.normalize("NFC", plain)
    return "".join(character if character.isprintable() else " " for character in composed)


def _anonymous(text: str) -> str:
    if "@" in text:
        text = _ADDRESS.sub("<@>", text)
    text = _IPV4.sub(_SOME_IP, text)
    if text.count(":") >= 3:
        text = _IPV6.sub(_SOME_IP, text)
    text = _IDENTIFIER.sub(lambda found: "#" if _DIGIT.search(found[0]) else found[0], text)
    return " ".join(text.split())
