"""records - cut what a file holds into whole records: lines of a log, or rows of a CSV file (RFC 4180).  Pure.

A line ends with a line feed.  A row does too, but not within quotes, where it may hold line feeds and commas: a row is whole
once the number of its quotes is even.  Records come without the line feed that ends them; a carriage return before it stays.

How it fails: a record that is not finished yet stays where it is.  A quote that nothing closes within 64 KiB would take all
that follows with it: its first line is given out as a row (which the reader of rows finds to be garbage), and the next
line begins a new one.  The same bytes are cut in the same places, however much of them is there at a time.

Known limits: of a record only the first 64 KiB are given out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 64 * 1024  # bytes of one record

_NAME = re.compile(rb'"?[A-Za-z][A-Za-z0-9_.-]{0,99}"?')


@dataclass(frozen=True, slots=True)
class Form:
    """How the records of a kind of file are cut."""

    # Whole records at the beginning of the bytes, and how many bytes they and their ends are.
    cut: Callable[[bytes], tuple[list[bytes], int]]
    # Whether a record names the columns of those that follow; None: there are no such records in this kind of file.
    names_columns: Callable[[bytes], bool] | None = None


def cut_lines(data: bytes) -> tuple[list[bytes], int]:
    """All whole lines."""
    end = data.rfind(b"\n") + 1
    return (data[: end - 1].split(b"\n"), end) if end else ([], 0)


def cut_rows(data: bytes) -> tuple[list[bytes], int]:
    """All whole rows; line feeds within quotes are part of one."""
    lines, end = cut_lines(data)
    if not lines or data.find(b'"', 0, end) < 0:
        return lines, end
    rows: list[bytes] = []
    start = position = 0  # start: offset of the row that begins with lines[position]
    while position < len(lines):
        size, after = _row(lines, position)
        if after > len(lines) and len(data) - start <= LONGEST:
            return rows, start  # not finished yet
        if after > len(lines) or size > LONGEST:
            size, after = len(lines[position]), position + 1
        rows.append(lines[position] if after == position + 1 else b"\n".join(lines[position:after]))
        start += size + 1
        position = after
    return rows, start


def is_header(row: bytes) -> bool:
    """Whether a row of PowerMTA's accounting names the columns; it does so again after each restart of the pipe program.

    Data cannot look like it: a data row has empty columns, numbers or times, a header nothing but names.
    """
    if b"timeLogged" not in row:
        return False
    names = row.rstrip(b"\r").split(b",")
    return {b"type", b"timeLogged"} <= {name.strip(b'"') for name in names} and all(map(_NAME.fullmatch, names))


def _row(lines: list[bytes], position: int) -> tuple[int, int]:
    """Size of the row that begins here, and the line after it; beyond the last line if the row does not end."""
    size, quotes = -1, 0
    for after in range(position, len(lines)):
        size += len(lines[after]) + 1
        quotes += lines[after].count(b'"')
        if quotes % 2 == 0:
            return size, after + 1
        if size > LONGEST:
            return size, after + 1
    return size, len(lines) + 1


LINES: Final = Form(cut_lines)
ROWS: Final = Form(cut_rows, is_header)
