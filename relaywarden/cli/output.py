"""output - how commands print: tables for people, one JSON document for programs.

Names, addresses and replies come from mail: what is printed of them goes through `plain` first, and in rich's tables through
`escape` too.  JSON is ASCII by itself.
"""

from __future__ import annotations

import datetime
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.console import Console

json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_BLOCKS = "▁▂▃▄▅▆▇█"
_DIGITS = "12345678"  # where the terminal has no blocks
_NONE = "."


def console() -> Console:
    """Standard output; wide where it is not a terminal, so that no cell is cut short in a pipe or a log."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    return Console(width=width, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document, indented."""
    click.echo(json.dumps(document, indent=2, default=str))


def duration(seconds: float) -> str:
    """`90061` as `1d 1h`: the two largest units."""
    rest, parts = int(seconds), []
    for suffix, unit in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if rest >= unit:
            parts.append(f"{rest // unit}{suffix}")
            rest %= unit
    return " ".join(parts[:2]) or "0s"


def iso_time(ms: float) -> str:
    """A time of the ledger for people and programs, in UTC; empty for none."""
    return datetime.datetime.fromtimestamp(int(ms) / 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else ""


def plain(value: object, most: int = 400) -> str:
    """One line that does nothing to a terminal: what is not printable, or not in its character set, is escaped."""
    text = str(value)
    text = f"{text[:most]}..." if len(text) > most else text
    encoding = sys.stdout.encoding or "utf-8"
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def spark(values: Sequence[int]) -> str:
    """A line of blocks, as high as each value is; a dot for 0."""
    steps = _BLOCKS if plain(_BLOCKS) == _BLOCKS else _DIGITS
    top = max(values, default=0)
    return "".join(steps[(value * len(steps) - 1) // top] if value > 0 else _NONE for value in values)
