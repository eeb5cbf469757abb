"""prose - bounce messages that are written for people: is it one, whose mail failed, why.  Pure.

The forms that are known: `<user@example.com>:` and the reason below (qmail, Postfix), the address alone and the reason indented
(Exim), a transcript of the session (Sendmail), an address after a label (Exchange, Domino, GroupWise, MDaemon, Zimbra, the
Japanese carriers), and sentences with an address in them.  Each address collects points for how it stands; the best are taken.
Where none stands well, flufl.bounce is asked.

How it fails: an empty list; the caller still has the variable return path and the returned message's To.

Known limits: what says nothing but "your mail came back" is taken as a bounce only from a mailer-daemon.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from functools import lru_cache

from flufl.bounce import all_failures

from relaywarden_monitor.reports import address, wording
from relaywarden_monitor.reports.dsn import Failure, bare_reply, status_in
from relaywarden_monitor.reports.mime import Part, words

_MOST_LINES = 600
_MOST_ADDRESSES = 200
_MOST_RECIPIENTS = 50
_FLUFL_LINES, _FLUFL_LINE = 120, 200  # its patterns take quadratic time over a line
_ROBOT_NAME = re.compile(
    r"mail ?(?:er)?[- ]?(?:delivery|daemon|admin\w*|system|router|robot)|mail delivery|post ?master|system ?administrator|"
    r"delivery (?:sub)?system|mailer|internet mail delivery|message transfer|mailserver|microsoft ?exchange|undeliver",
    re.IGNORECASE,
)
_CODE = re.compile(r"(?<![\d.])[45]\d\d(?:[ :-]|$)|(?<![\d.])[45]\.\d{1,3}\.\d{1,3}(?!\d)")
_REPLY_LINE = re.compile(r"<<< ?[45]\d\d|(?<![\d.:])[45]\d\d[ :-]#?\s?[45]?\.?\d?|(?<![\d.])#?[45]\.\d{1,3}\.\d{1,3}(?!\d)")
_LEADING = re.compile(r"[\s>*\"'(<\[•·-]*(?:\d{1,3}[.)]\s*)?<?")
_ENDING = re.compile(r"[>)\"'\]]*\s*(?:$|:|\.\.\.|\.{3}|\(|;|,?\s*$|-\s)")
_FROM = re.compile(
    r"(?:from|sender|von|absender|exp[ée]diteur|remitente|mittente|отправител\w+|mail from|reply-to|by)\W{0,8}$", re.I
)
_CONTACT = re.compile(
    r"(?:contact|write to|send (?:mail|e-?mail|a message|your)|ask|questions|help|forward|report(?:ed)? (?:this|it)? ?to|"
    r"support|postmaster|assistance|administrat\w+|message-id|id:|kontakt)\b[^@]{0,40}$",
    re.IGNORECASE,
)
_TALKING = re.compile(
    r"(?:while talking to|conversation with|remote (?:mail )?server|remote host|remote mta|host|server|generating server:|"
    r"connected to)"
    r"[ \t:]{1,3}(?:\()?<?((?=[\w.-]{0,253}\.)[\w-][\w.-]{2,252})",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(
    r"this (?:is (?:the|an)|message was)\b|automatically|"
    r"following|one or more|was not delivered to|transcript|sorry to have to",
    re.IGNORECASE,
)
_COURTESY = re.compile(r"\s*(?:please (?:reply|contact|try)|if you (?:feel|think|believe|have)|because:)", re.IGNORECASE)
_RECIPIENT_WORD = re.compile(r"^\W*(?:says?|reason|error|grund|raison|because|response)?\W*")

# Exim's and Postfix' words for an address that another one was rewritten to: that other one was written to.
_ALIAS = re.compile(
    rf"(?<![\w.+-])({address.PATTERN})>?:?\s{{1,20}}\((?:ultimately )?(?:generated|expanded) (?:from|by) "
    rf"<?({address.PATTERN})>?\)"
)

# It logs a traceback where a message is not what one of its detectors expects, and then raises what is caught below.
logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class _Standing:
    points: int
    line: int
    end: int


def from_robot(message: Part) -> bool:
    """Does a mailer-daemon say that it sent this?"""
    sender = words(message.first("from"))
    return address.is_robot(address.clean(sender)) or "<>" in sender or _ROBOT_NAME.search(sender[:200]) is not None


def from_nobody(message: Part) -> bool:
    """Is the envelope sender empty, as far as a delivery agent has left it in the message?"""
    return message.first("return-path").strip() == "<>"


def is_bounce(message: Part, text: str) -> bool:
    """Do sender, subject and text together say that mail came back?"""
    subject = words(message.first("subject"))[:500]
    if message.first("x-failed-recipients"):
        return True
    said = wording.BOUNCE_TEXT.search(text) is not None
    titled = wording.BOUNCE_SUBJECT.search(subject) is not None
    coded = _CODE.search(text) is not None
    if from_robot(message) or message.parameters.get("report-type", "").lower() == "delivery-status":
        return titled or said
    if from_nobody(message):  # vacation notices have no sender either
        return titled or (said and coded and wording.AUTO_SUBJECT.search(subject) is None)
    if wording.ANSWER.match(subject) or message.first("list-unsubscribe") or message.first("in-reply-to"):
        return False
    return titled and said and coded and bool(_standings(text, frozenset()))


def is_delay(message: Part, text: str) -> bool:
    """Does the text say that delivery goes on?"""
    return wording.DELAY.search(f"{words(message.first('subject'))[:500]}\n{text[:8000]}") is not None and not re.search(
        r"giving up|gave up|failed permanently|permanent (?:fatal )?error", text[:8000], re.IGNORECASE
    )


def failures(message: Part, text: str, own: frozenset[str]) -> list[Failure]:
    """The recipients that the text names; `own` are addresses that cannot be one (to whom the report was sent)."""
    action = "delayed" if is_delay(message, text) else "failed"
    named = address.every(" ".join(message.fields.get("x-failed-recipients", ())), _MOST_RECIPIENTS)
    standings = _standings(text, own)
    if not named:
        best = max((standing.points for standing in standings.values()), default=0)
        named = [found for found, standing in standings.items() if standing.points >= max(3, best - 1)][:_MOST_RECIPIENTS]
    if not named:
        named, temporary = _flufl(message, text)
        named = [found for found in named if found not in own]
        action = "delayed" if temporary and not named else action
    found = [failure_of(recipient, text, action) for recipient in named]
    aliases = {address.lower(real): address.lower(alias) for real, alias in _ALIAS.findall(text)}
    return [replace(failure, recipient=aliases.get(failure.recipient, failure.recipient)) for failure in found]


def failure_of(recipient: str, text: str, action: str = "failed") -> Failure:
    """What the text says of one recipient (or, where it is not named, at all)."""
    lines = text.split("\n", _MOST_LINES)[:_MOST_LINES]
    standing = _standings(text, frozenset()).get(recipient)
    block = _block(lines, standing) if standing else ""
    reply = block if _CODE.search(block) else _coded(lines, recipient) or block or _spoken(lines)
    bare, said_by = bare_reply(reply)
    talking = _TALKING.search(reply) or _TALKING.search(text[:8000])
    relay = said_by or (talking.group(1).lower().rstrip(".") if talking else "")
    return Failure(recipient, action, status_in(bare) or status_in(block), bare, relay)


@lru_cache(maxsize=4)  # asked again for each recipient of a report
def _standings(text: str, own: frozenset[str]) -> dict[str, _Standing]:
    lines = text.split("\n", _MOST_LINES)[:_MOST_LINES]
    telling = [wording.BOUNCE_TEXT.search(line) is not None or _CODE.search(line) is not None for line in lines]
    found: dict[str, _Standing] = {}
    for number, line in enumerate(lines):
        if "@" not in line:
            continue
        near = telling[number - 1 : number] + telling[number + 1 : number + 2]
        if number > 1 and not lines[number - 1].strip():
            near.append(telling[number - 2])
        if not lines[number + 1 : number + 2] or not "".join(lines[number + 1 : number + 2]).strip():
            near += telling[number + 2 : number + 3]
        for match in address.FIND.finditer(line[:1000]):
            name = address.lower(match.group(1))
            points = _points(line, match, telling[number], any(near))
            if name in own or address.is_robot(name):
                points -= 6
            known = found.get(name)
            if known is None or points > known.points:
                found[name] = _Standing(points, number, match.end())
            if len(found) >= _MOST_ADDRESSES:
                return found
    return found


def _points(line: str, match: re.Match[str], telling: bool, near: bool) -> int:
    before, after = line[max(0, match.start() - 100) : match.start()], line[match.end() : match.end() + 100]
    points = 2 * telling + 2 * near
    if _LEADING.fullmatch(before) or wording.LABEL.search(before):
        points += 2
    if _ENDING.match(after):
        points += 1
    if line.lstrip().startswith((">>> RCPT", "RCPT TO")):
        points += 2
    if _FROM.search(before) or _CONTACT.search(before):
        points -= 5
    return points


def _block(lines: list[str], standing: _Standing) -> str:
    """The rest of the address's line and the paragraph below."""
    line = lines[standing.line]
    rest = line[standing.end :].lstrip(">)]\"' \t").lstrip(":;,.( \t").rstrip(")")
    if not _LEADING.fullmatch(line[: line.find("@")].rpartition(" ")[0]):
        rest = line.strip().removeprefix("<<< ")  # a sentence around the address
    gathered = [rest] if rest and not rest.upper().startswith(("RCPT TO", ">>> RCPT")) else []
    for line in lines[standing.line + 1 : standing.line + 15]:
        if not line.strip():
            if gathered:
                break
            continue
        if re.match(r"\s{0,8}<?[^\s@<>]{1,64}@[^\s@<>]{1,255}>?:?\s*$", line) or re.match(r"\s*(?:-{4,}|={4,}|>>> )", line):
            break  # the next recipient, or the next section
        if not _COURTESY.match(line):
            gathered.append(line.strip().removeprefix("<<< "))
    return _RECIPIENT_WORD.sub("", " ".join(gathered), count=1)[:4000]


def _coded(lines: list[str], recipient: str) -> str:
    """The reply line of a transcript: the answer to the recipient's RCPT, or one that names it, or the first."""
    coded = [number for number, line in enumerate(lines) if _REPLY_LINE.search(line)]
    if not coded:
        return ""
    naming = [number for number in coded if recipient and recipient.lower() in lines[number].lower()]
    answers = [number for number in coded if lines[number].lstrip().startswith("<<<")]
    asked = next((n for n, line in enumerate(lines) if "RCPT" in line.upper() and recipient and recipient in line), len(lines))
    answered = [number for number in coded if number > asked]
    start = (answered or answers or naming or coded)[0]
    gathered: list[str] = []
    for line in lines[start : start + 8]:
        if not line.strip() or (gathered and line.lstrip().startswith((">>>", "---"))):
            break
        gathered.append(line.strip().removeprefix("<<<").strip())
    text = " ".join(gathered)
    return text[:4000]


def _spoken(lines: list[str]) -> str:
    """The lines that tell of the failure in words; those that every report has come last."""
    telling = [line.strip() for line in lines if wording.BOUNCE_TEXT.search(line)][:20]
    return " ".join(sorted(telling, key=lambda line: _TEMPLATE.search(line) is not None))[:1000]


def _flufl(message: Part, text: str) -> tuple[list[str], list[str]]:
    """Permanent and temporary failures as flufl.bounce sees them, on a cut copy that bounds its time."""
    copy = Message()
    for name in ("from", "to", "subject", "x-failed-recipients"):
        value = "".join(c for c in message.first(name)[:_FLUFL_LINE] if c.isascii() and c.isprintable())
        copy[name] = value
    lines = [line[:_FLUFL_LINE] for line in text.split("\n", _FLUFL_LINES)[:_FLUFL_LINES]]
    copy.set_payload("\n".join(lines).encode("ascii", "replace").decode())
    try:
        temporary, permanent = all_failures(copy)
    except (ValueError, TypeError, AttributeError, LookupError, AssertionError):
        return [], []  # its detectors expect well-formed mail; nothing found is then the answer
    return list(_cleaned(permanent)), list(_cleaned(temporary))


def _cleaned(found: frozenset[bytes]) -> Iterator[str]:
    for raw in sorted(found)[:_MOST_RECIPIENTS]:
        text = address.clean(raw.decode("utf-8", "replace"))
        if text and not address.is_robot(text):
            yield text
