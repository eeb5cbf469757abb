"""steer - `suspend`, `resume`, `reset`: a human's word, in force on every host.

policyd reads a tenant's state with each request; what the milter must know too is also said in `relaywarden.steering`,
which it reads once a second.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from relaywarden.cli.accounts import Office, office
from relaywarden.cli.arguments import Moment, carry_out, milliseconds, one_line, user
from relaywarden.cli.output import json_option
from relaywarden.ledger.accounting import suspended
from relaywarden.ledger.operations import Operation, Reset, Steer
from relaywarden.steering import read, say
from relaywarden.tenants import Tenant


@click.command()
@click.argument("tenant")
@click.option("--reason", default="", help="For the record: shown by `show` and in the log, never to the tenant.")
@click.option("--until", type=Moment(), help="When the suspension ends by itself: a date, a time, or a duration.")
@json_option
@click.pass_obj
def suspend(config: Path, tenant: str, reason: str, until: datetime.datetime | None, as_json: bool) -> None:
    """Refuse everything that TENANT sends, from the next request on."""
    entry: dict[str, Any] = {"reason": one_line(reason), "by": user()}
    if until is not None:
        entry["until_ms"] = milliseconds(until)
    done = "suspended" + (f" until {until:%Y-%m-%d %H:%M %Z}" if until else "")

    def operations(found: Tenant) -> list[Operation]:
        return [Steer(found.name, {"suspended": entry}), say("tenants", {found.name: {"suspended": entry}})]

    carry_out(config, tenant, operations, done, as_json)


@click.command()
@click.argument("tenant")
@json_option
@click.pass_obj
def resume(config: Path, tenant: str, as_json: bool) -> None:
    """End whatever keeps TENANT from sending as usual: a suspension, a divert or a hold, by an operator or by the monitor."""
    with office(config) as opened:
        held = _is_held(opened, opened.tenant(tenant))
    carry_out(
        config,
        tenant,
        lambda found: [Steer(found.name, {"suspended": None}), say("tenants", {found.name: None})],
        "resumed" if held else "was not suspended",
        as_json,
    )


def _is_held(opened: Office, tenant: Tenant) -> bool:
    """Is there anything that `resume` ends: a suspension, for policyd or the milter, or mail diverted or held?"""
    (snapshot,) = opened.read([tenant])
    words = read(opened.ledger)
    said = words.tenants.get(tenant.name, {})
    ends = suspended(snapshot.state, snapshot.now_ms) is not None or suspended(said, words.now_ms) is not None
    return ends or any(said.get(word) for word in ("divert", "hold"))


@click.command()
@click.argument("tenant")
@json_option
@click.pass_obj
def reset(config: Path, tenant: str, as_json: bool) -> None:
    """Forget what TENANT has used of its limits; counters of the day stay."""
    carry_out(config, tenant, lambda found: [Reset(found.name)], "limits reset", as_json)
