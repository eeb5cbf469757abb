"""allow - `grant` and `set`: let a tenant send more (or less) than its plan says, from the next request on every host.

A grant is so much of a meter beyond the limits, until a day: what the limits would refuse is charged to it instead, so that
ordinary mail keeps its ordinary room.  `set` changes the amount of one limit, or the mode, until it is set back to `plan`.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from relaywarden.cli.accounts import office
from relaywarden.cli.arguments import Moment, carry_out, milliseconds, one_line, user
from relaywarden.cli.output import json_option
from relaywarden.errors import SpecError
from relaywarden.ledger.operations import Steer
from relaywarden.limits import Limit, Meter, parse_amount, parse_duration
from relaywarden.tenants import Tenant

_PLAN = "plan"


@click.command()
@click.argument("tenant")
@click.argument("amounts", nargs=-1, metavar="METER=AMOUNT...")
@click.option("--until", type=Moment(), help="When it ends: a date, a time, or a duration from now.")
@click.option("--reason", default="", help="For the record: shown by `show`.")
@click.option("--revoke", metavar="ID", help="End the grant of this id (`show` lists them).")
@json_option
@click.pass_obj
def grant(
    config: Path,
    tenant: str,
    amounts: Sequence[str],
    until: datetime.datetime | None,
    reason: str,
    revoke: str | None,
    as_json: bool,
) -> None:
    """Let TENANT send so much beyond its limits.

    For example: grant acme recipients=500000 --until 2026-12-01 --reason "breach notification"
    """
    if revoke is not None:
        if amounts:
            raise click.UsageError("--revoke takes no amounts")
        change: dict[str, Any] = {revoke: None}
        done = f"grant {revoke} revoked"
    else:
        if not amounts or until is None:
            raise click.UsageError("expected METER=AMOUNT and --until")
        change = dict(_grant(text, until, one_line(reason)) for text in amounts)
        done = f"granted {' '.join(amounts)} until {until:%Y-%m-%d %H:%M %Z}"
    if revoke is not None:
        _must_exist(config, tenant, revoke)
    carry_out(config, tenant, lambda found: [Steer(found.name, {"grants": change})], done, as_json)


def _must_exist(config: Path, name: str, grant_id: str) -> None:
    """A mistyped id would leave the grant open; ends the command with exit code 1."""
    with office(config) as opened:
        (snapshot,) = opened.read([opened.tenant(name)])
    if grant_id not in snapshot.state.get("grants", {}):
        click.echo(f"relaywarden: {name} has no grant {grant_id!r}; `relaywarden show {name}` lists them", err=True)
        raise SystemExit(1)


@click.command("set")
@click.argument("tenant")
@click.argument("changes", nargs=-1, required=True, metavar="WHAT=VALUE...")
@json_option
@click.pass_obj
def set_(config: Path, tenant: str, changes: Sequence[str], as_json: bool) -> None:
    """Change a limit or the mode of TENANT: set acme recipients/hour=1000 mode=observe; VALUE plan sets it back."""
    carry_out(config, tenant, lambda found: [Steer(found.name, _state(found, changes))], f"set {' '.join(changes)}", as_json)


def _grant(text: str, until: datetime.datetime, reason: str) -> tuple[str, dict[str, Any]]:
    name, _, amount = text.partition("=")
    entry = {"meter": _meter(name).value, "amount": _amount(amount), "used": 0, "until_ms": milliseconds(until)}
    return f"g{secrets.token_hex(3)}", entry | {"reason": reason, "by": user()}


def _state(tenant: Tenant, changes: Sequence[str]) -> dict[str, Any]:
    """The change of the dynamic state that the arguments ask for."""
    state: dict[str, Any] = {}
    for text in changes:
        what, _, value = text.partition("=")
        if what == "mode":
            if value not in ("observe", "enforce", _PLAN):
                raise click.BadParameter(f"expected mode=observe, mode=enforce or mode=plan, got {text!r}")
            state["mode"] = None if value == _PLAN else value
        else:
            limit = _limit(tenant, what)
            state.setdefault("limits", {})[limit.balance_id] = None if value == _PLAN else _amount(value)
    return state


def _limit(tenant: Tenant, text: str) -> Limit:
    """The limit that METER/WINDOW names."""
    name, _, window = text.partition("/")
    try:
        window_ms = parse_duration(window)
    except SpecError:
        window_ms = 0
    for limit in tenant.limits:
        if limit.meter.value == name and limit.window_ms == window_ms:
            return limit
    limits = ", ".join(f"{limit.meter.value}/{limit.window}" for limit in tenant.limits) or "none"
    raise click.BadParameter(f"no limit {text!r}; the limits of {tenant.name} are: {limits}, and there is mode")


def _meter(name: str) -> Meter:
    try:
        return Meter(name)
    except ValueError:
        raise click.BadParameter(f"expected one of {', '.join(meter.value for meter in Meter)}, got {name!r}") from None


def _amount(text: str) -> int:
    try:
        return parse_amount(text)
    except SpecError as error:
        raise click.BadParameter(str(error)) from None
