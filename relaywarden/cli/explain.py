"""explain - why is this tenant refused, what became of this message?  One answer in words (`--json` for programs).

A message is named by its queue id, or by the token of its Feedback-ID, CFBL-Address or CFBL-Feedback-ID header, which only
this relay can read (`relaywarden.feedback`).  The token may stand as a report brings it: with the header's name, as a whole
Feedback-ID (`TOKEN:LABEL:STREAM:ID`), as `fbl+TOKEN@relay.example`, in upper case, or with blanks in it.

With `--json` a message is the document of messages.py (and `token`, if it was named by one), a tenant that of `show`, and a
token whose message is forgotten {tenant, queue_id, hour}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from relaywarden import story
from relaywarden.cli import messages
from relaywarden.cli.accounts import Office, full_document, office
from relaywarden.cli.output import duration, json_option, plain, print_json
from relaywarden.cli.standing import tenant_lines
from relaywarden.feedback import Tokens
from relaywarden.ledger.records import Noted, Notes
from relaywarden.ledger.ticket import Ticket

_HEADER = re.compile(r"\s*(?:feedback-id|cfbl-address|cfbl-feedback-id)\s*:", re.IGNORECASE)
_ADDRESS = re.compile(r"\+([^+@]*)@")  # fbl+TOKEN@relay.example
_LIKE_TOKEN = re.compile(r"[a-z2-7]{36,}", re.IGNORECASE)  # base32; ours have 40 characters and more
_SOURCES = ("postfix_log", "journal", "accounting", "spool", "listen", "maildir")


@click.command()
@click.argument("words", metavar="TENANT-or-QUEUE-ID-or-TOKEN", nargs=-1, required=True)
@json_option
@click.pass_obj
def explain(config: Path, words: Sequence[str], as_json: bool) -> None:
    """Tell the story of one message by its queue id or feedback token, or where a tenant stands and why.

    The token may be a whole Feedback-ID, CFBL-Address or CFBL-Feedback-ID header, or the address that a complaint went to.
    """
    name = " ".join(words)
    with office(config) as opened:
        origin = _origin(opened, _token(name))
        message = _message(opened, origin["queue_id"] if origin else name)
        item = None if message or origin else _tenant(opened, name)
    if as_json:
        print_json({**message, "token": origin} if message and origin else message or origin or item)
        return
    for line in _lines(origin, message, item):
        click.echo(line)


def _lines(origin: dict[str, Any] | None, message: dict[str, Any] | None, item: dict[str, Any] | None) -> Iterator[str]:
    if origin:
        whose = f"taken from tenant {origin['tenant']} in the hour from {origin['hour']}"
        yield plain(f"token of message {origin['queue_id']}, {whose}")
    if message:
        yield from messages.lines(message)
    elif item:
        yield from tenant_lines(item)
    else:
        yield "  the ledger no longer knows this message"


def _token(text: str) -> str:
    """The part of a header or an address that is the token, without blanks; of any other text what it begins with."""
    value = "".join(_HEADER.sub("", text).split())
    tagged = _ADDRESS.search(value)
    return tagged[1] if tagged else value.partition(":")[0]


def _origin(opened: Office, token: str) -> dict[str, Any] | None:
    """The message that a feedback token stands for; None: it is none of ours."""
    given = opened.settings.operator.feedback
    tokens = Tokens.from_file(given.secret) if given is not None else None
    found = tokens.open(token) if tokens is not None else None
    if tokens is None or found is None:
        return None
    names = [tenant.name for tenant in opened.all_tenants()]
    hour = found.hour.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"tenant": tokens.find(found.tenant_tag, names) or "unknown", "queue_id": found.queue_id, "hour": hour}


def _message(opened: Office, queue_id: str) -> dict[str, Any] | None:
    """All that policyd, the milter and the monitor have left of a message; None: nothing."""
    if not queue_id.isprintable():
        return None  # no queue id, and lone surrogates are more than a store takes
    tickets = [(tenant, Ticket.unpack(value) or Ticket()) for tenant, value in opened.ledger.messages(queue_id)]
    (noted,) = opened.ledger.apply([Notes(story.book(queue_id), story.TOPIC)])
    told = story.read(queue_id, noted.fields) if isinstance(noted, Noted) else None
    if not tickets and told is None:
        return None
    return messages.document(queue_id, tickets, told or story.Story(queue_id), _silence(opened))


def _silence(opened: Office) -> str:
    """Why the monitor may know nothing of a message."""
    settings = opened.settings.monitor
    if not any(getattr(settings, name) for name in _SOURCES):
        return f"it has no source (monitor: {', '.join(_SOURCES)})"
    return f"not read yet, or forgotten after {duration(settings.remember / 1000)} (monitor.remember)"


def _tenant(opened: Office, name: str) -> dict[str, Any]:
    if opened.find(name) is None and _LIKE_TOKEN.fullmatch(_token(name)):
        why = "" if opened.settings.operator.feedback else " (operator.feedback is not configured)"
        click.echo(f"relaywarden: not a token of this relay{why}: {_token(name)}", err=True)
        raise SystemExit(1)
    return full_document(opened, opened.tenant(name, "tenant, login or message"))
