"""returned - the message that a report is about: its header fields, wherever the reporter put them.  Pure.

In order of trust: a part message/rfc822, text/rfc822-headers (RFC 6522), message/global or message/global-headers (RFC 6533);
else lines of the text that look like the head of a message, after a separator or quoted by `> `.

How it fails: an empty head.  Known limits: in running text three known fields make a head; fewer are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from relaywarden_monitor.reports.mime import Part, index, split_head

Fields = Mapping[str, tuple[str, ...]]

_HEADERS = frozenset({"text/rfc822-headers", "message/rfc822-headers", "message/global-headers", "text/rfc822"})
_KNOWN = re.compile(
    r"(?:return-path|received|from|to|subject|date|message-id|mime-version|content-type|dkim-signature|"
    r"feedback-id|cfbl-address|cfbl-feedback-id|x-[\w-]{1,60}|reply-to|sender|list-[\w-]{1,40})[ \t]*:",
    re.IGNORECASE,
)
_NEEDED = frozenset({"from", "to", "subject", "date", "message-id", "received"})
_SEPARATOR = re.compile(
    r"(?:-{2,}|={3,}|_{3,})?[ \t]*(?:(?:below this line|this) is a copy of|(?:the )?original message(?! was)|"
    r"original mail|unsent message|returned message|message header|original headers|headers of|the header of|"
    r"begin message|included is a copy|message follows|your (?:original )?message (?:is )?(?:follows|enclosed|attached)|"
    r"the following is a copy|copy of your message|message text follows|start of (?:the )?returned message|"
    r"texte du message|message d'origine|urspr.ngliche nachricht|nachrichtentext|mensaje original|mensagem original|"
    r"исходное сообщение|заголовки|元のメッセージ)",
    re.IGNORECASE,
)  # fmt: skip
_RULE = re.compile(r"[-=_*]{3,}.{0,80}|[-=_]{3,}")
_MOST_LINES = 4000


def head(message: Part) -> Fields:
    """The header fields of the returned message from the parts; empty if none of them is one."""
    for part in message.walk(into_messages=True):
        if part is not message and part.type in _HEADERS:
            fields = index(split_head(part.text().lstrip("\n").encode("utf-8", "surrogatepass"))[0])
            if fields:
                return fields
        elif part.type in {"message/rfc822", "message/global"} and part.parts and part.parts[0].fields:
            return part.parts[0].fields
    return {}


def split(text: str) -> tuple[str, Fields]:
    """The reporter's own words, and the head of the message that follows them in the text."""
    lines = text.split("\n", _MOST_LINES)[:_MOST_LINES]
    for number, line in enumerate(lines):
        bare = line.lstrip("> \t|")
        if _SEPARATOR.match(bare):
            return "\n".join(lines[:number]), _block(lines[number + 1 :])
        if _KNOWN.match(bare) and (number == 0 or _ends(lines[number - 1])):
            fields = _block(lines[number:])
            if len(_NEEDED & fields.keys()) >= 3:
                return "\n".join(lines[:number]), fields
    return text, {}


def _ends(line: str) -> bool:
    """May the head of a message follow this line?"""
    bare = line.strip("> \t|")
    return not bare or _RULE.fullmatch(bare[:100]) is not None or bare.endswith(":")


def _block(lines: list[str]) -> Fields:
    """The fields of the next block that looks like a head, not far away."""
    start = next((n for n, line in enumerate(lines[:12]) if _KNOWN.match(line.lstrip("> \t|"))), None)
    if start is None:
        return {}
    quote = re.match(r"[> \t|]*", lines[start])
    prefix = quote.group() if quote else ""
    block = [line.removeprefix(prefix) for line in lines[start : start + 200]]
    return index(split_head("\n".join(block).encode("utf-8", "surrogatepass"))[0])
