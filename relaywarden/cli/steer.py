"""steer - `suspend`, `hold`, `resume`, `reset`: a human's word, in force on every host (see `relaywarden.standing`)."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from relaywarden import standing
from relaywarden.cli.accounts import Office, office
from relaywarden.cli.arguments import Moment, carry_out, milliseconds, one_line, user
from relaywarden.cli.output import json_option
from relaywarden.ledger.operations import Operation, Reset
from relaywarden.standing import Step, Word
from relaywarden.steering import read
from relaywarden.tenants import Tenant

_reason: Callable[[Any], Any] = click.option(
    "--reason", default="", help="For the record: shown by `show` and in the log, never to the tenant."
)
_until: Callable[[Any], Any] = click.option(
    "--until", type=Moment(), help="When it ends by itself: a date, a time, or a duration."
)


@click.command()
@click.argument("tenant")
@_reason
@_until
@json_option
@click.pass_obj
def suspend(config: Path, tenant: str, reason: str, until: datetime.datetime | None, as_json: bool) -> None:
    """Refuse everything that TENANT sends, from the next request on."""
    _put(config, tenant, Step.SUSPENDED, reason, until, as_json)


@click.command()
@click.argument("tenant")
@_reason
@_until
@json_option
@click.pass_obj
def hold(config: Path, tenant: str, reason: str, until: datetime.datetime | None, as_json: bool) -> None:
    """Take TENANT's mail, and put it into Postfix' hold queue until `release`."""
    _put(config, tenant, Step.HELD, reason, until, as_json)


@click.command()
@click.argument("tenant")
@json_option
@click.pass_obj
def resume(config: Path, tenant: str, as_json: bool) -> None:
    """Let TENANT send as usual: ends a suspension, a hold, a divert or a slow-down, an operator's or the monitor's.

    Mail that waits in Postfix' hold queue stays there: `relaywarden release` lets it go.
    """
    with office(config) as opened:
        stands = _stands(opened, opened.tenant(tenant))
    done = "resumed" if stands else "sends as usual already: nothing was taken back"
    carry_out(config, tenant, lambda found: standing.say(found.name, None), done, as_json)


@click.command()
@click.argument("tenant")
@json_option
@click.pass_obj
def reset(config: Path, tenant: str, as_json: bool) -> None:
    """Forget what TENANT has used of its limits; counters of the day stay."""
    carry_out(config, tenant, lambda found: [Reset(found.name)], "limits reset", as_json)


def _put(config: Path, tenant: str, step: Step, reason: str, until: datetime.datetime | None, as_json: bool) -> None:
    until_ms = None if until is None else milliseconds(until)
    word = Word(step, one_line(reason), user(), int(time.time() * 1000), until_ms)
    done = step.value + (f" until {until:%Y-%m-%d %H:%M %Z}" if until else "")

    def operations(found: Tenant) -> list[Operation]:
        return standing.say(found.name, word)

    carry_out(config, tenant, operations, done, as_json)


def _stands(opened: Office, tenant: Tenant) -> bool:
    """Is there anything that `resume` ends?"""
    (snapshot,) = opened.read([tenant])
    words = read(opened.ledger)
    entry = words.tenants.get(tenant.name, {})
    stop, until = entry.get("suspended"), entry.get("until_ms")
    if isinstance(stop, dict):
        until = stop.get("until_ms")
    said = any(entry.get(word) for word in ("divert", "hold", "suspended")) and not (until and until <= words.now_ms)
    return said or standing.heard(snapshot.state, snapshot.now_ms) is not None
