"""edits - the changes to a message's headers, planned before any of them is sent.  Pure.

The milter protocol changes and deletes the n-th header of a name, counted from 1 among the headers of that name that the
milter was shown; Postfix counts its own Received only for insert positions (milter-traps, 8).  An `Edits` keeps the headers
as they will be, so that what is signed is what is sent, and the steps that lead there, in order.  Deletions of one name
run from the last to the first, because each shifts those behind it.
"""

from __future__ import annotations

import email.header
import re
from collections.abc import Callable
from dataclasses import dataclass

from relaywarden_milter.headers import Header, field_name, values

BELOW_RECEIVED = 1  # insert position: 0 is above Postfix's own Received, 1 is below it
APPEND = -1
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,256}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BREAKS = re.compile(r"[ \t]*(?:\r\n|\r|\n)[ \t]*")


@dataclass(frozen=True, slots=True)
class Change:
    """The `index`-th header called `name` gets `value`; None deletes it."""

    name: str
    index: int
    value: str | None


@dataclass(frozen=True, slots=True)
class Add:
    """A new header at `position` (see BELOW_RECEIVED, APPEND)."""

    name: str
    value: str
    position: int = APPEND


class Edits:
    """Headers as they will be, and the steps that make them so."""

    __slots__ = ("headers", "steps")

    def __init__(self, headers: list[Header]) -> None:
        self.headers = list(headers)
        self.steps: list[Change | Add] = []

    def delete(self, wanted: Callable[[str], bool]) -> int:
        """Delete every header whose name (in lower case) is wanted; how many there were."""
        doomed: dict[str, int] = {}
        for name, _ in self.headers:
            folded = field_name(name)
            if wanted(folded):
                doomed[folded] = doomed.get(folded, 0) + 1
        if not doomed:
            return 0
        self.steps += [Change(name, index, None) for name, count in doomed.items() for index in range(count, 0, -1)]
        self.headers = [header for header in self.headers if field_name(header[0]) not in doomed]
        return sum(doomed.values())

    def delete_one(self, name: str, index: int) -> None:
        """Delete the `index`-th header of a name; negative counts from the end, 0 is all of them (rspamd's rule)."""
        folded = field_name(name)
        places = [place for place, (given, _) in enumerate(self.headers) if field_name(given) == folded]
        position = index if index > 0 else len(places) + 1 + index
        if index == 0:
            self.delete(lambda given: given == folded)
        elif 1 <= position <= len(places):
            self.steps.append(Change(name, position, None))
            del self.headers[places[position - 1]]

    def replace(self, name: str, value: str) -> None:
        """Set the first header of a name, or add it."""
        value = clean(value)
        for place, (given, _) in enumerate(self.headers):
            if field_name(given) == field_name(name):
                self.headers[place] = (given, value.encode())
                self.steps.append(Change(given, 1, value))
                return
        self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Append a header; one whose name is not fit for a header is left out."""
        if _NAME.fullmatch(name):
            value = clean(value)
            self.headers.append((name, value.encode()))
            self.steps.append(Add(name, value))

    def values(self, name: str) -> list[bytes]:
        """All values of one header as they will be; `name` in lower case."""
        return values(self.headers, name)

    def insert_signature(self, name: str, value: str) -> None:
        """Put a header below Postfix's own Received; it is not part of what further signatures cover."""
        self.steps.append(Add(name, value, BELOW_RECEIVED))


def clean(value: str) -> str:
    """A value that libmilter can take and that stays one header: no controls, folds by LF and one space, ASCII only.

    libmilter sends CR and LF verbatim (milter-traps, 7), pymilter raises on NUL and on lone surrogates (6).
    """
    value = _BREAKS.sub("\n ", _CONTROL.sub("", value.strip()))
    if value.isascii():
        return value
    sound = value.encode("utf-8", "replace").decode().replace("\n", "")
    return email.header.Header(sound, "utf-8", maxlinelen=76).encode(linesep="\n")
