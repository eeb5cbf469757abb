"""command - `relaywarden classify --report FILE...`: what bounce messages and complaints say, for people or as JSON.

One object a message, and one line an object.  A file with From_ lines is a mailbox: each message in it is one.  `-` is standard
input.  At the top stand the facts of the first recipient that failed; `recipients` has those of all.

How it fails: a file that cannot be read is a RelaywardenError that names it, after those before it were printed.
Known limits: a file is read whole, up to 256 MiB; a compressed one is not read.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from relaywarden.errors import RelaywardenError
from relaywarden.feedback import Tokens
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.reports.read import read
from relaywarden_monitor.reports.report import Kind, Report

_LARGEST_FILE = 256 * 2**20
_FROM_LINE = re.compile(rb"(?:\A|\n\r?\n)(?=From [^\n]{1,300}\d{4}\r?\n[!-9;-~]{1,100}:)")


def classify_reports(paths: Sequence[Path], as_json: bool, classifier: Classifier, tokens: Tokens | None) -> None:
    """Print what the messages in these files are; raises RelaywardenError for a file that cannot be read."""
    for path in paths:
        for data in messages(_content(path)):
            found = document(str(path), read(data, classifier.classify, tokens))
            click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


def messages(data: bytes) -> Iterator[bytes]:
    """The messages of a file: several if it is a mailbox, else one."""
    if not data.startswith(b"From "):
        yield data
        return
    starts = [match.end() for match in _FROM_LINE.finditer(data)] or [0]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[start:end]


def document(file: str, reports: Sequence[Report]) -> dict[str, Any]:
    """What is printed of one message as JSON."""
    first = next((report for report in reports if report.kind is Kind.BOUNCE), reports[0])
    return {"file": file, **_facts(first), "recipients": [_facts(report) for report in reports]}


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    shown = [f"{found['file']}: {found['kind']}"]
    for facts in found["recipients"]:
        for key, value in facts.items():
            if key != "kind" and value not in (None, "", False, 0):
                shown.append(f"  {key.replace('_', ' ')}: {value}")
    return shown


def _facts(report: Report) -> dict[str, Any]:
    verdict = report.verdict
    return {
        "kind": report.kind.value,
        "recipient": report.recipient,
        "status": report.status,
        "action": report.action,
        "reply": report.reply,
        "relay": report.relay,
        "category": verdict.category if verdict else None,
        "scope": verdict.scope.value if verdict else None,
        "blame": verdict.blame.value if verdict else None,
        "severity": verdict.severity.value if verdict else None,
        "provider": verdict.provider if verdict else None,
        "rule": verdict.rule if verdict else None,
        "feedback_type": report.feedback_type,
        "token": report.token,
        "forged": report.forged,
        "queue_id": report.queue_id,
        "message_id": report.message_id,
        "reporter": report.reporter,
        "source_ip": report.source_ip,
        "vmta": report.vmta,
        "at": report.at,
    }


def _content(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_LARGEST_FILE)
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE)
    except OSError as error:
        raise RelaywardenError(f"{path}: cannot be read: {error.strerror or error}; expected a message or a mailbox") from error
