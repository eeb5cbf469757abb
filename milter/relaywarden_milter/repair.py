"""repair - mend what `lint` found, before anything is signed.  Pure.

Headers are changed through `Edits`; of the body comes a `BodyPlan`, which `body` carries out chunk by chunk, with a few
kilobytes of memory whatever the length of its lines, and with the same result however the chunks are cut.

The text that a person reads stays the same where that is possible: a body of one part is encoded as quoted-printable
(RFC 2045 section 6.7), which mends long lines and 8-bit text at once.  What cannot be encoded (multipart) gets a CRLF before
the last blank that fits, else with a space at the limit, as Postfix' smtp client would do it after the signature.

How it fails: what cannot be mended is refused, and then nothing is changed.  A changed header is sent as UTF-8, since
pymilter takes nothing else (milter-traps, 6); one in another charset is refused.  So is a line without a blank to fold at.

Known limits: a broken line in a quoted-printable part of a multipart body ends where it is broken.  8-bit text in multipart
is announced at the top, the headers of its parts stay.  At most 100 headers are changed or removed, and 64 KiB are joined.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime

from relaywarden.config.settings import LintSettings, OnFault
from relaywarden.errors import MessageError
from relaywarden_milter.edits import Change, Edits
from relaywarden_milter.headers import Header, field_name, values
from relaywarden_milter.lint import (
    NEEDED,
    ONCE,
    BodyLint,
    Finding,
    Kind,
    has_stray,
    long_line,
    stray,
    too_long,
    transfer_encoding,
)
from relaywarden_milter.rebody import BodyPlan, How

_JOINED = frozenset({"to", "cc", "bcc", "reply-to"})
_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary", b"7-bit", b"8-bit"})  # RFC 2045 section 6.2, and two common slips
_LEAF = re.compile(rb"\s*(?!multipart\b|message\b)[a-z0-9.+_-]+/[a-z0-9.+_-]+\s*(?:;|\Z)", re.IGNORECASE)
_BREAKS = re.compile(r"[\r\n][ \t\r\n]*")
_WORDS = re.compile(r"[ \t]*[^ \t]+")
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]+")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Za-z.:]+\]")
_CRLF = b"\r\n"
_EMPTY = b" \t\r\n\v\f"
_MOST_CHANGES = 100
_MOST_JOINED = 64 * 1024
_MOST_LOGGED = 5


class UnrepairableError(MessageError):
    """A fault that cannot be mended; `finding` is what the client must be told."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.text)


@dataclass(frozen=True, slots=True)
class Mended:
    """`done` in short words for the log; `refused`: turn the message away; `body`: replace the body (see `body`)."""

    done: list[str]
    refused: Finding | None = None
    body: BodyPlan | None = None


def mend(
    edits: Edits,
    body: BodyLint,
    findings: list[Finding],
    now: float,
    message_id_domain: str,
    queue_id: str,
    settings: LintSettings,
) -> Mended:
    """Mend all of `findings` (of `lint.examine`) or nothing: when one must be refused, `edits` stay as they are.

    `now` in seconds; `message_id_domain` and `queue_id` make the Message-ID that is missing.
    """
    for finding in findings:
        if getattr(settings, finding.kind) is OnFault.REFUSE:
            return Mended([], finding)
    if not findings:
        return Mended([])
    attempt = Edits(edits.headers)
    try:
        done = headers(attempt, findings, now, message_id_domain, queue_id, settings)
        planned = plan(attempt.headers, body, findings, settings)
        for name, value in planned.headers if planned is not None else ():
            _set(attempt, name, value)
    except UnrepairableError as error:
        return Mended([], error.finding)
    if planned is not None:
        done += _described(planned)
    edits.headers = attempt.headers
    edits.steps += attempt.steps
    return Mended(done, None, planned if planned is not None and planned.changes_body else None)


def headers(
    edits: Edits, findings: list[Finding], now: float, message_id_domain: str, queue_id: str, settings: LintSettings
) -> list[str]:
    """Mend the headers; what was done.  Raises UnrepairableError, with a part of the changes already planned."""
    kinds = {finding.kind for finding in findings if finding.header}
    done: list[str] = []
    if "duplicate_headers" in kinds:
        for name in ONCE:
            done += _make_single(edits, name, settings)
    if kinds & {"bare_line_ends", "long_lines"}:
        done += _rewrite(edits, kinds, settings)
    if "missing_headers" in kinds:
        fresh = {"Date": lambda: date(now), "Message-ID": lambda: message_id(now, message_id_domain, queue_id)}
        for name in NEEDED:
            if not _filled(edits.headers, name.lower()):
                edits.replace(name, fresh[name]())
                done.append(f"added {name}")
    return done


def plan(headers: list[Header], body: BodyLint, findings: list[Finding], settings: LintSettings) -> BodyPlan | None:
    """What the body needs; None: nothing.  `headers` as they will be.  Raises UnrepairableError."""
    kinds = {finding.kind: finding for finding in findings if not finding.header}
    encoding = transfer_encoding(headers)
    types = _filled(headers, "content-type")
    leaf = not types or _LEAF.match(types[0]) is not None
    long, eight, ends = "long_lines" in kinds, kinds.get("eight_bit"), "bare_line_ends" in kinds
    if (long or eight is not None) and leaf and encoding in _IDENTITY:
        return BodyPlan(How.QUOTED, ends, headers=tuple(_quoted_headers(headers, body)))
    if (long or eight is not None) and leaf and encoding == b"quoted-printable":
        return BodyPlan(How.SOFT, ends)
    changes: tuple[tuple[str, str], ...] = ()
    if eight is not None:
        if encoding not in _IDENTITY:
            why = "and that cannot be mended with the Content-Transfer-Encoding that is there"
            raise UnrepairableError(Finding("eight_bit", f"{eight.text}, {why}"))
        changes = (("Content-Transfer-Encoding", "8bit"),)
    if long:
        glue = _CRLF if leaf and encoding == b"base64" else b"\r\n "
        return BodyPlan(How.BREAK, ends, settings.line_length, glue, changes)
    return BodyPlan(mend_ends=ends, headers=changes) if ends or changes else None


def date(now: float) -> str:
    """A Date in UTC (RFC 5322 section 3.3)."""
    return format_datetime(datetime.fromtimestamp(int(now), timezone.utc))


def message_id(now: float, domain: str, queue_id: str) -> str:
    """A Message-ID (RFC 5322 section 3.6.4) of time and queue id, which Postfix uses again later; else by chance."""
    unique = queue_id if queue_id.isascii() and queue_id.isalnum() else secrets.token_hex(8)
    return f"<{int(now * 1_000_000):x}.{unique}@{domain if _DOMAIN.fullmatch(domain) else 'localhost'}>"


def _described(plan: BodyPlan) -> list[str]:
    words = {How.QUOTED: "body as quoted-printable", How.SOFT: "body lines soft-broken", How.BREAK: "body lines broken"}
    done = [words[plan.how]] if plan.how in words else []
    if plan.mend_ends:
        done.append("body line ends")
    if plan.how in {How.KEEP, How.BREAK} and plan.headers:
        done.append("declared 8bit")
    return done


def _quoted_headers(headers: list[Header], body: BodyLint) -> Iterator[tuple[str, str]]:
    if not _filled(headers, "mime-version"):
        yield "MIME-Version", "1.0"
    if not _filled(headers, "content-type"):
        charset = "us-ascii" if not body.eight_bit else "utf-8" if body.utf8 else "iso-8859-1"
        yield "Content-Type", f"text/plain; charset={charset}"
    yield "Content-Transfer-Encoding", "quoted-printable"


def _set(edits: Edits, name: str, value: str) -> None:
    """The only header of its name: a second one would contradict it."""
    _delete_all_but(edits, name, 1)
    edits.replace(name, value)


def _delete_all_but(edits: Edits, name: str, kept: int) -> None:
    """Keep only the `kept`-th header of a name."""
    count = len(values(edits.headers, name.lower()))
    if count > _MOST_CHANGES:
        text = f"the header {name} is there {count} times, once is allowed, and these are too many to mend"
        raise UnrepairableError(Finding("duplicate_headers", text, name))
    for index in range(count, 0, -1):
        if index != kept:
            edits.delete_one(name, index)


def _make_single(edits: Edits, name: str, settings: LintSettings) -> list[str]:
    """Join addresses, of other headers keep the first that says something."""
    found = values(edits.headers, name)
    if len(found) < 2:
        return []
    shown = ONCE[name]
    fault = f"the header {shown} is there {len(found)} times, once is allowed"
    nothing = _EMPTY + b"," if name in _JOINED else _EMPTY
    filled = [index for index, value in enumerate(found, 1) if value.strip(nothing)] or [1]
    if name not in _JOINED or len(filled) == 1:
        _delete_all_but(edits, shown, filled[0])
        return [f"dropped {shown}"]
    if sum(map(len, found)) > _MOST_JOINED:
        raise UnrepairableError(Finding("duplicate_headers", f"{fault}, and these are too long to join", shown))
    _delete_all_but(edits, shown, 1)
    joined = b", ".join(part for value in found if (part := value.strip(nothing)))
    place = next(place for place, header in enumerate(edits.headers) if field_name(header[0]) == name)
    given = edits.headers[place][0]
    _change(edits, place, 1, _sendable(Finding("duplicate_headers", fault, shown), given, joined, settings))
    return [f"joined {shown}"]


def _rewrite(edits: Edits, kinds: set[Kind], settings: LintSettings) -> list[str]:
    """Fold long lines, and make folds or spaces of stray line ends."""
    counts: dict[str, int] = {}
    changed: list[str] = []
    place = -1
    for name, value in list(edits.headers):
        place += 1
        folded = field_name(name)
        counts[folded] = counts.get(folded, 0) + 1
        line = long_line(name, value, settings.line_length) if "long_lines" in kinds else None
        fault: Finding | None = None
        if line is not None:
            fault = Finding("long_lines", too_long(name, line, settings.line_length), name)
        elif "bare_line_ends" in kinds and has_stray(value):
            fault = Finding("bare_line_ends", stray(name), name)
        if fault is None:
            continue
        if len(changed) >= _MOST_CHANGES:
            raise UnrepairableError(Finding(fault.kind, f"{fault.text}, and too many headers are like that", name))
        text = _sendable(fault, name, value, settings)
        if text:
            _change(edits, place, counts[folded], text)
        else:  # the milter protocol has no empty value, it would delete the header
            edits.delete_one(name.strip(), counts[folded])
            place, counts[folded] = place - 1, counts[folded] - 1
        changed.append(name.strip())
    return [f"refolded {name}" for name in dict.fromkeys(changed)][:_MOST_LOGGED]


def _change(edits: Edits, place: int, index: int, value: str) -> None:
    """`Edits.replace` for any header, and without its encoded words, which would hide an address."""
    name = edits.headers[place][0]
    edits.headers[place] = (name, value.encode())
    edits.steps.append(Change(name.strip(), index, value))


def _sendable(fault: Finding, name: str, value: bytes, settings: LintSettings) -> str:
    """The value as it can be given to pymilter: UTF-8, only line ends that fold, no line too long if that can be."""
    if not _NAME.fullmatch(name.strip()):
        raise UnrepairableError(Finding(fault.kind, f"{fault.text}, and its name is not valid", fault.header))
    try:
        text = value.decode().strip(" \t\r\n").replace("\0", "\ufffd")
    except UnicodeDecodeError as error:
        raise UnrepairableError(Finding(fault.kind, f"{fault.text}, and its text is not UTF-8", fault.header)) from error
    text = _BREAKS.sub(lambda found: "\n " if "\n" in found[0] else " ", text)
    if settings.long_lines is OnFault.IGNORE:
        return text
    lines: list[str] = []
    room = settings.line_length - len(name) - 2
    for line in text.split("\n"):
        parts = _fold(line, room, settings.line_length)
        if parts is None:
            raise UnrepairableError(Finding(fault.kind, f"{fault.text}, and it has no blank to fold at", fault.header))
        lines += parts
        room = settings.line_length
    return "\n".join(lines)


def _fold(line: str, first_room: int, room: int) -> list[str] | None:
    """Lines of at most `room` octets, all but the first beginning with a blank; None: a word is too long."""
    if len(line.encode()) <= first_room:
        return [line]
    lines, current, left = [], "", first_room
    for word in _WORDS.findall(line.rstrip(" \t")):
        size = len(word.encode())
        if size > left and current.strip():
            lines.append(current)
            current, left = "", room
        if size > left:  # a long run of blanks means no more than one
            word = " " * (word[0] in " \t") + word.strip(" \t")  # noqa: PLW2901
            size = len(word.encode())
        if size > left:
            return None
        current, left = current + word, left - size
    return [*lines, current]


def _filled(headers: list[Header], name: str) -> list[bytes]:
    return [value for value in values(headers, name) if value.strip()]
