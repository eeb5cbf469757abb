"""postfixline - one line of Postfix' log, taken apart: when, where, which daemon, which message.

Wire format: what stands before Postfix' own text is the syslog daemon's business.  All of these are read:

    Nov 24 08:00:00 host postfix/smtp[123]: TEXT                        traditional; postlogd (maillog_file) writes it too
    2026-11-24T08:00:00.123456+00:00 host postfix/smtp[123]: TEXT       rsyslog's default of Debian 12
    <22>Nov 24 08:00:00 host postfix/smtp[123]: TEXT                    RFC 3164, with its priority
    <22>1 2026-11-24T08:00:00Z host postfix/smtp 123 - [id k="v"] TEXT  RFC 5424 section 6
    Nov 24 08:00:00 src@host mail.info postfix/smtp[123]: TEXT          syslog-ng's names, busybox' facility

TEXT is `4jYldL5MV3zKCwR: ...` for a message, `NOQUEUE: ...` before there is one.  A short queue id is 5 hexadecimal digits of
microseconds and an inode; a long one is time in base 52 (no vowels), `z`, inode in base 51 (mail_queue.h of Postfix).
The name before the bracket is `syslog_name/daemon`; a member of a pool has its own, `postfix/tx1/smtp`.  It need not begin with
`postfix`: the daemon decides.

How it fails: what is not a line of a daemon that we read is None.  A line that names Postfix but does not fit is counted in
`strange`, and the first one is logged: then the syslog daemon writes a template that is not above.  Nothing raises, whatever
the bytes.

Known limits: lines are cut at 8,192 bytes.  Traditional times have no year and no zone: the year is the latest one that is
not more than a day after the reference; of the hour that comes twice when summer time ends, the first is taken.
"""

from __future__ import annotations

import datetime
import logging
import re
import time
from dataclasses import dataclass
from functools import lru_cache

from relaywarden import logs

LONGEST_LINE = 8192  # Postfix itself logs at most about 2,000 bytes a field; rsyslog cuts at 8 KiB
NOQUEUE = "NOQUEUE"
AGENTS = frozenset({"smtp", "lmtp", "local", "virtual", "pipe", "error", "discard"})
QUEUE_MANAGERS = frozenset({"qmgr", "nqmgr", "oqmgr"})
SERVERS = frozenset({"smtpd", "qmqpd", "postscreen"})
_DAEMONS = AGENTS | QUEUE_MANAGERS | SERVERS | {"cleanup", "bounce", "postsuper"}

_log = logging.getLogger(__name__)
_DAY = 86_400
_YEARS_BACK = 8  # to find the 29th of February of a year that was no leap year
_MONTHS = {b"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * n : 3 * n + 3]: n + 1 for n in range(12)}
_MOST_MINUTES = 4096
_HEAD_LENGTH = 400  # where Postfix is looked for in a line of unknown form
_HEAD = re.compile(
    rb"(?:<\d{1,3}>(?:1 )?)?"
    rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d|\d{4}-\d\d-\d\d[T ]\d\d:\d\d):([0-5]\d(?:\.\d{1,9})?|60)(Z|[+-]\d\d:?\d\d)? "
    rb"(\S{1,255}) (?:[a-z0-9]{1,16}\.[a-z]{1,16} )?"
    rb"([^\s\[\]:]{1,200})(?:\[(\d{1,10})\]: ?|"
    rb" (\d{1,10}|-) \S{1,64} (?:-|(?:\[[^\]\\]*(?:\\.[^\]\\]*)*\])+) (?:\xef\xbb\xbf)?)"
)
_QUEUE_ID = re.compile(rb"([0-9A-F]{6,24}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{12,32}|NOQUEUE): ")
_SESSION = (b"connect from ", b"disconnect from ")
_STRANGE = re.compile(rb"postfix[^\s\[\]:]*/(?:smtpd?|qmgr|cleanup)[\[ :]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that says something of a message or a session."""

    at: float  # seconds since 1970, UTC
    host: str
    instance: str  # first part of syslog_name: postfix, postfix-out
    service: str  # the daemon: smtp, smtpd, qmgr, ...
    member: str  # tx1 of postfix/tx1/smtp, where the daemon delivers; empty for others and for plain postfix/smtp
    pid: int
    queue_id: str  # NOQUEUE before there is one; empty: the line is about a session
    text: bytes  # the rest, as it was logged


class LineParser:
    """Reads lines of one source; keeps nothing but what makes the next time stamp quick."""

    def __init__(self, tz: datetime.tzinfo | None = None) -> None:
        """`tz`: the zone of stamps that name none; default the system's."""
        self.strange = 0  # lines that name Postfix and have a head that is unknown
        self._tz = tz
        self._reference = 0.0
        self._minutes: dict[tuple[bytes, bytes | None], float | None] = {}

    def parse(self, raw: bytes, reference: float) -> Line | None:
        """`raw` with or without its end; `reference`: seconds since 1970, about when the line was written."""
        if len(raw) > LONGEST_LINE:
            raw = raw[:LONGEST_LINE]
        head = _HEAD.match(raw)
        if head is None:
            self._count_strange(raw)
            return None
        minute, second, zone, host, tag, pid, other_pid = head.groups()
        names = _names(tag)
        if names is None:
            return None
        at = self._minute(minute, zone, reference)
        if at is None:
            self._count_strange(raw)
            return None
        pid = pid or other_pid
        return _line(at + float(second), _host(host), names, 0 if pid == b"-" else int(pid), raw[head.end() :].rstrip(b"\r\n"))

    def _count_strange(self, raw: bytes) -> None:
        if b"postfix" in raw and _STRANGE.search(raw[:_HEAD_LENGTH]):
            if not self.strange:
                logs.event(_log, logging.WARNING, "log line of unknown form", expected="syslog's", line=shown(raw[:500]))
            self.strange += 1

    def _minute(self, minute: bytes, zone: bytes | None, reference: float) -> float | None:
        """When this minute began; None: there is no such minute.  Most lines come in the same one as the line before."""
        minutes = self._minutes
        if reference != self._reference or len(minutes) > _MOST_MINUTES:
            self._reference = reference
            minutes.clear()
        try:
            return minutes[minute, zone]
        except KeyError:
            pass  # the first line of this minute
        try:
            at = self._full(minute, zone) if minute[:1].isdigit() else self._nearest(minute, reference)
        except (ValueError, OverflowError):
            at = None  # the 31st of September
        minutes[minute, zone] = at
        return at

    def _full(self, minute: bytes, zone: bytes | None) -> float:
        stamp = datetime.datetime.fromisoformat(minute.decode())
        return stamp.replace(tzinfo=_zone(zone) if zone else self._tz).timestamp()

    def _nearest(self, minute: bytes, reference: float) -> float | None:
        month, day = _MONTHS.get(minute[:3], 0), int(minute[4:6])
        hour, minutes = int(minute[7:9]), int(minute[10:12])
        year = time.gmtime(reference).tm_year + 1
        for candidate in range(year, year - _YEARS_BACK - 2, -1):
            try:
                at = datetime.datetime(candidate, month, day, hour, minutes, tzinfo=self._tz).timestamp()
            except ValueError:
                continue  # the 29th of February, if any year has it
            if at <= reference + _DAY:
                return at
        return None


def from_parts(at: float, identifier: str, pid: int, message: bytes | str, host: str = "") -> Line | None:
    """The same of a record that is taken apart already, such as journald's: `identifier` is `postfix/smtp`."""
    names = _names(identifier[:256].encode("utf-8", "backslashreplace"))
    if names is None:
        return None
    text = message if isinstance(message, bytes) else message[:LONGEST_LINE].encode("utf-8", "surrogateescape")
    return _line(at, host, names, pid, text[:LONGEST_LINE].rstrip(b"\r\n"))


def shown(data: bytes) -> str:
    """Logged bytes as text that may go anywhere: what is neither UTF-8 nor printable is escaped."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _line(at: float, host: str, names: tuple[str, str, str], pid: int, text: bytes) -> Line | None:
    instance, member, service = names
    found = _QUEUE_ID.match(text)
    if found is not None:
        return Line(at, host, instance, service, member, pid, found[1].decode(), text[found.end() :])
    if service == "smtpd" and text.startswith(_SESSION):
        return Line(at, host, instance, service, member, pid, "", text)
    return None


@lru_cache(maxsize=256)
def _names(tag: bytes) -> tuple[str, str, str] | None:
    """(instance, member, daemon) of a tag; None where it is not a daemon of Postfix that we read."""
    instance, _, rest = shown(tag).partition("/")
    member, _, daemon = rest.rpartition("/")
    if daemon not in _DAEMONS:
        return None
    return instance, member if daemon in AGENTS else "", daemon


_host = lru_cache(maxsize=256)(shown)


def _zone(text: bytes) -> datetime.timezone:
    """`Z`, `+01:00` or `+0100`."""
    if text == b"Z":
        return datetime.timezone.utc
    offset = datetime.timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return datetime.timezone(-offset if text[:1] == b"-" else offset)
