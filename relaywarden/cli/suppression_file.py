"""suppression_file - a tenant's suppression list as a file: what `suppress import` reads and `suppress export` writes.

The file is UTF-8, in one of two forms:

    one address a line
    CSV (RFC 4180, one record a line) with a header: address, and of kind, since, until, reason those that there are

kind is bounced, complained or manual.  Times are dates or times in ISO 8601, UTC unless they name an offset; an empty `since`
is now, an empty `until` is what the kind's default says.  Blank lines do not count, of an address given twice the last counts.
What is written reads back to the same list.

How it fails: a header that cannot be understood is a RelaywardenError.  Of every other line that is not right its number is
told, and what was expected.  Entries that have expired are left out and counted.

Known limit: addresses that break RFC 5321's lengths or syntax, as the monitor may have met them, are written and not read.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from relaywarden.errors import RelaywardenError, SpecError
from relaywarden.ledger.records import Suppression

COLUMNS = ("address", "kind", "since", "until", "reason")
KINDS = ("bounced", "complained", "manual")
_LONGEST_LINE = 8192  # bytes
_LONGEST = {"local part": 64, "domain": 255, "address": 254}  # octets: RFC 5321 section 4.5.3.1, a path without its brackets
_PLAIN_LOCAL = re.compile(r'[^\s"(),:;<>@\[\]\\]+')
_DOMAIN = re.compile(r'[^\s"(),:;<>@\[\]\\.]+(?:\.[^\s"(),:;<>@\[\]\\.]+)*\.?|\[[0-9A-Za-z.:-]+\]')
_LATEST_MS = 253_370_764_800_000  # the year 9999; datetime knows no year 10000
_UTC = datetime.timezone.utc


class BadLine(NamedTuple):
    """A line that cannot be read."""

    number: int
    why: str


@dataclass(slots=True)
class Parsed:
    """What a file holds."""

    entries: dict[str, Suppression] = field(default_factory=dict)  # by the address without regard to case
    bad: list[BadLine] = field(default_factory=list)
    expired: int = 0


def check_address(text: str) -> str:
    """The address with its domain in lower case; raises SpecError where it is none (loosely: RFC 5321 section 4.1.2)."""
    local, at, domain = text.rpartition("@")
    quoted = len(local) > 2 and local[0] == local[-1] == '"'
    if not at or not text.isprintable() or not (quoted or _PLAIN_LOCAL.fullmatch(local)) or not _DOMAIN.fullmatch(domain):
        raise SpecError(f"expected an address such as user@example.com, got {text!r:.200}")
    for name, part in (("local part", local), ("domain", domain), ("address", text)):
        if len(part.encode()) > _LONGEST[name]:
            raise SpecError(f"expected a {name} of at most {_LONGEST[name]} octets, got {len(part.encode())}: {text!r:.200}")
    return f"{local}@{domain.lower()}"


def read(file: BinaryIO, defaults: Mapping[str, int], now_ms: int) -> Parsed:
    """Read a whole file; `defaults`: how long each kind is kept (ms) where no `until` is given.  Raises RelaywardenError."""
    found = Parsed()
    columns: Sequence[str] = ()
    for number, line in _lines(file, found.bad):
        if not columns:
            header = _header(line, number)
            columns = header or COLUMNS[:1]
            if header:
                continue
        try:
            entry = _entry(line, columns, defaults, now_ms)
        except (SpecError, csv.Error) as error:
            found.bad.append(BadLine(number, str(error)))
            continue
        if entry.until_ms > now_ms:
            found.entries[entry.address.casefold()] = entry
        else:
            found.expired += 1
    found.bad.sort()
    return found


def write(entries: Iterable[Suppression]) -> Iterator[str]:
    """The file, line by line."""
    for row in (COLUMNS, *((e.address, e.kind, _time(e.since_ms), _time(e.until_ms), e.reason) for e in entries)):
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        yield line.getvalue()


def _lines(file: BinaryIO, bad: list[BadLine]) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank."""
    number = 0
    while raw := file.readline(_LONGEST_LINE):
        number += 1
        if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_LONGEST_LINE)
            bad.append(BadLine(number, f"expected a line of at most {_LONGEST_LINE} bytes"))
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            bad.append(BadLine(number, f"expected UTF-8: {error.reason} at byte {error.start}"))
            continue
        if text.strip():
            yield number, text


def _header(line: str, number: int) -> list[str]:
    """The columns that a header names; none: it is the first address."""
    names = [name.strip().lower() for name in line.split(",")]
    if "address" not in names:
        return []
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) < len(names):
        expected = f"expected a header of {', '.join(COLUMNS)}, each at most once"
        raise RelaywardenError(f"line {number}: {expected}, got {line!r:.200}")
    return names


def _entry(line: str, columns: Sequence[str], defaults: Mapping[str, int], now_ms: int) -> Suppression:
    fields = [line.strip()] if len(columns) == 1 else next(csv.reader([line], strict=True))
    if len(fields) > len(columns):
        raise SpecError(f"expected at most {len(columns)} fields ({','.join(columns)}), got {len(fields)}")
    given = zip(columns, fields, strict=False)  # what is missing at the end is empty
    values = dict.fromkeys(COLUMNS, "") | {name: text if name == "reason" else text.strip() for name, text in given}
    kind = values["kind"] or "manual"
    if kind not in KINDS:
        raise SpecError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r:.100}")
    since = _moment("since", values["since"]) or now_ms
    until = _moment("until", values["until"]) or now_ms + defaults[kind]
    return Suppression(check_address(values["address"]), kind, since, until, values["reason"])


def _moment(name: str, text: str) -> int | None:
    """Milliseconds since 1970; None where nothing is said."""
    if not text:
        return None
    try:
        found = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1] in "zZ" else text)
    except ValueError:
        raise SpecError(f"{name}: expected a time such as 2026-12-01T08:00:00Z, got {text!r:.100}") from None
    whole = found if found.tzinfo else found.replace(tzinfo=_UTC)
    ms = round((whole - datetime.datetime(1970, 1, 1, tzinfo=_UTC)) / datetime.timedelta(milliseconds=1))
    if not 0 < ms <= _LATEST_MS:
        raise SpecError(f"{name}: expected a time from 1970 to 9999, got {text!r:.100}")
    return ms


def _time(ms: int) -> str:
    """To the millisecond, so that it reads back to the same."""
    found = datetime.datetime.fromtimestamp(0, _UTC) + datetime.timedelta(milliseconds=max(0, min(ms, _LATEST_MS)))
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
