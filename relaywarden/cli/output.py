"""output - how commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


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
