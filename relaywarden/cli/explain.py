"""explain - why is this tenant refused, what became of this message?  One answer in words (`--json` for programs).

A message is named by its queue id, or by the token of its Feedback-ID, CFBL-Address or CFBL-Feedback-ID header, which only
this relay can read (`relaywarden.feedback`).  The token may stand as a report brings it: with the header's name, as a whole
Feedback-ID (`TOKEN:LABEL:STREAM:ID`), as `fbl+TOKEN@relay.example`, in upper case, or with blanks in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from relaywarden.cli.accounts import Office, full_document, iso_time, office
from relaywarden.cli.output import duration, json_option, print_json
from relaywarden.feedback import Tokens
from relaywarden.ledger.ticket import Phase, Ticket
from relaywarden.limits import format_bytes

_HEADER = re.compile(r"\s*(?:feedback-id|cfbl-address|cfbl-feedback-id)\s*:", re.IGNORECASE)
_ADDRESS = re.compile(r"\+([^+@]*)@")  # fbl+TOKEN@relay.example
_LIKE_TOKEN = re.compile(r"[a-z2-7]{36,}", re.IGNORECASE)  # base32; ours have 40 characters and more
_PHASES = {
    Phase.OPEN: "open: charged by policyd, not yet settled by the milter",
    Phase.REFUSED: "refused by policyd at DATA or END-OF-MESSAGE; given back",
    Phase.SETTLED: "settled: what it was charged stays charged",
    Phase.REFUNDED: "refunded: aborted or turned away",
}


@click.command()
@click.argument("words", metavar="TENANT-or-QUEUE-ID-or-TOKEN", nargs=-1, required=True)
@json_option
@click.pass_obj
def explain(config: Path, words: Sequence[str], as_json: bool) -> None:
    """Explain one message by its queue id or feedback token, or where a tenant stands and why.

    The token may be a whole Feedback-ID, CFBL-Address or CFBL-Feedback-ID header, or the address that a complaint went to.
    """
    name = " ".join(words)
    with office(config) as opened:
        origin = _origin(opened, _token(name))
        name = origin["queue_id"] if origin else name
        messages = [_message(tenant, Ticket.unpack(value) or Ticket()) for tenant, value in opened.ledger.messages(name)]
        item: Any = messages or origin or _tenant(opened, name)
    if as_json:
        print_json(item)
        return
    if origin:
        click.echo(f"token of message {name}, taken from tenant {origin['tenant']} in the hour from {origin['hour']}")
    if item is origin:
        click.echo("  the ledger no longer knows this message")
        return
    for line in [line for message in messages for line in _message_lines(name, message)] or tenant_lines(item):
        click.echo(line)


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


def _message(tenant: str, ticket: Ticket) -> dict[str, Any]:
    refusal = ticket.refusal
    return {
        "tenant": tenant,
        "phase": ticket.phase.name.lower(),
        "charged_at": iso_time(ticket.message_ms),
        "recipients": len(ticket.charged),
        "refused_recipients": len(ticket.recipients) - len(ticket.charged),
        "bytes": ticket.size,
        "held": ticket.held,
        "granted": any(ms % 1 for _, ms in ticket.recipients),
        "refusal": None if refusal is None else {"limit": refusal.key, "used": refusal.used, "allowed": refusal.allowed},
    }


def _message_lines(queue_id: str, message: dict[str, Any]) -> Iterator[str]:
    yield f"message {queue_id} of tenant {message['tenant']}"
    yield f"  {_PHASES[Phase[message['phase'].upper()]]}"
    if message["charged_at"]:
        yield f"  charged at {message['charged_at']}: {message['recipients']} recipients, {format_bytes(message['bytes'])}"
    if message["granted"]:
        yield "  beyond the limits, charged to a grant"
    if message["held"]:
        yield "  beyond a limit, to be held"
    if message["refusal"]:
        yield f"  refused: {message['refusal']['limit']}: {message['refusal']['used']} of {message['refusal']['allowed']} used"


def _tenant(opened: Office, name: str) -> dict[str, Any]:
    if opened.find(name) is None and _LIKE_TOKEN.fullmatch(_token(name)):
        why = "" if opened.settings.operator.feedback else " (operator.feedback is not configured)"
        click.echo(f"relaywarden: not a token of this relay{why}: {_token(name)}", err=True)
        raise SystemExit(1)
    tenant = opened.tenant(name, "tenant, login or message")
    return full_document(tenant, opened.read([tenant])[0])


def tenant_lines(item: dict[str, Any]) -> Iterator[str]:
    """Where a tenant stands, and by what."""
    yield f"tenant {item['tenant']}, plan {item['plan']}, mode {item['mode']}, standing {item['standing']}"
    if item["standing"] == "suspended":
        entry = item["state"]["suspended"]
        until = f" until {iso_time(entry['until_ms'])}" if entry.get("until_ms") else ""
        yield f"  suspended{until} by {entry.get('by', 'unknown')}: {entry.get('reason') or 'no reason given'}"
    full = [row for row in item["used"] if row["used"] >= row["limit"]]
    for row in full:
        state = f"{row['used']} of {row['limit']}, all free in {duration(row['reset_after'])}"
        yield f"  {row['meter']}/{row['window']} is used up: {state}"
    if not full:
        yield "  every limit has room"
    last = item["last_refusal"]
    if last:
        wait = "never" if last["retry_after"] is None else f"after {duration(last['retry_after'])}"
        used = f"{last['used']} of {last['allowed']} used"
        yield f"  last refused at {last['at']} by {last['limit']}: {used}; room {wait}"
    for grant in item["grants"]:
        used = f"{grant['used']} of {grant['amount']} {grant['meter']} used"
        because = f": {grant['reason']}" if grant["reason"] else ""
        yield f"  grant {grant['id']}: {used}, until {grant['until']}{because}"
    scores = item["scores"]
    if scores:
        yield f"  rspamd today: {scores['messages']} messages, mean score {scores['mean']:.1f}; {_histogram(scores['buckets'])}"
        if scores["symbols"]:
            top = ", ".join(f"{name} {count}" for name, count in list(scores["symbols"].items())[:5])
            yield f"  most often: {top}"
    for key, amount in item["state"].get("limits", {}).items():
        yield f"  {key} is set to {amount} by hand"
    if "mode" in item["state"]:
        yield f"  mode is set to {item['state']['mode']} by hand"


def _histogram(buckets: dict[str, int]) -> str:
    return ", ".join(f"{count} at {edges}" for edges, count in buckets.items() if count)
