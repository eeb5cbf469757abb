"""message_command - `relaywarden classify --message`: is a message transactional mail or bulk mail, and why.

For each file, in order, one block for people or, with `as_json`, one object a line: `file`, `stream`, `score` (0
transactional to 1 bulk), `reasons` (a list; those that speak against bulk begin with `-`), `fingerprint` (16 hexadecimal
digits; null: too little text).  Each is written at once, so that the command can stand in a pipe.

How it fails: a file that cannot be read ends the command with a ClickException that names it; those before it are answered.
What is not a message is judged by whatever text it shows.

Known limits: 16 MiB of a file are read.  The envelope is not known from a file: one recipient is assumed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from relaywarden.content import text
from relaywarden.content.fingerprint import fingerprint
from relaywarden.content.judge import judge

_LARGEST = 16 * 1024 * 1024


def classify_messages(paths: Sequence[Path], as_json: bool) -> None:
    """Answer for each file; `-` and no path at all are standard input.  Raises click.ClickException."""
    for path in paths or (Path("-"),):
        try:
            with click.open_file(str(path), "rb") as file:
                message = file.read(_LARGEST)
        except OSError as error:
            raise click.ClickException(f"{path}: cannot be read: {error.strerror}") from error
        answer = {"file": str(path), **document(message)}
        click.echo(json.dumps(answer) if as_json else block(answer))
        sys.stdout.flush()


def document(message: bytes) -> dict[str, Any]:
    """The answer for a whole message, for programs."""
    headers, body = text.split(message)
    seen = text.look(headers, body)
    found, mark = judge(headers, seen), fingerprint(seen)
    return {
        "stream": found.stream,
        "score": found.score,
        "reasons": list(found.reasons),
        "fingerprint": f"{mark:016x}" if mark else None,
    }


def block(answer: dict[str, Any]) -> str:
    """The answer for people; a file's name is shown so that no control character reaches the terminal."""
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in answer["file"])
    lines = [f"{name}: {answer['stream']} ({answer['score']:.2f})", *(f"  {reason}" for reason in answer["reasons"])]
    return "\n".join([*lines, f"  fingerprint {answer['fingerprint'] or 'none: too little text'}", ""])
