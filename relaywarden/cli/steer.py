"""steer - `suspend`, `resume`, `reset`: a human's word, in force from the next request on every host."""

from __future__ import annotations

import datetime
import getpass
from pathlib import Path
from typing import Any

import click

from relaywarden.cli.accounts import document, office
from relaywarden.cli.output import json_option, print_json
from relaywarden.errors import SpecError
from relaywarden.ledger.operations import Operation, Reset, Steer
from relaywarden.limits import parse_duration


class Moment(click.ParamType[datetime.datetime]):
    """A point in time: `2026-12-01`, `2026-12-01T08:00` (UTC unless it names an offset), or a duration from now: `2h`."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.datetime:
        """The moment, with its time zone."""
        if isinstance(value, datetime.datetime):
            return value
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            return now + datetime.timedelta(milliseconds=parse_duration(value))
        except SpecError:
            pass  # not a duration, so it has to be a date
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"expected a date such as 2026-12-01, a time such as 2026-12-01T08:00, or a duration such as 2h, got {value!r}",
                param,
                ctx,
            )
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
        if moment <= now:
            self.fail(f"{value} lies in the past", param, ctx)
        return moment


@click.command()
@click.argument("tenant")
@click.option("--reason", default="", help="Shown to the operator and, as the cause of refusal, to the tenant.")
@click.option("--until", type=Moment(), help="When the suspension ends by itself: a date, a time, or a duration.")
@json_option
@click.pass_obj
def suspend(config: Path, tenant: str, reason: str, until: datetime.datetime | None, as_json: bool) -> None:
    """Refuse everything that TENANT sends, from the next request on."""
    entry: dict[str, Any] = {"reason": _one_line(reason), "by": _user()}
    if until is not None:
        entry["until_ms"] = int(until.timestamp() * 1000)
    _carry_out(
        config,
        tenant,
        lambda name: Steer(name, {"suspended": entry}),
        "suspended" + (f" until {until:%Y-%m-%d %H:%M %Z}" if until else ""),
        as_json,
    )


@click.command()
@click.argument("tenant")
@json_option
@click.pass_obj
def resume(config: Path, tenant: str, as_json: bool) -> None:
    """End a suspension of TENANT."""
    _carry_out(config, tenant, lambda name: Steer(name, {"suspended": None}), "resumed", as_json)


@click.command()
@click.argument("tenant")
@json_option
@click.pass_obj
def reset(config: Path, tenant: str, as_json: bool) -> None:
    """Forget what TENANT has used of its limits; counters of the day stay."""
    _carry_out(config, tenant, Reset, "limits reset", as_json)


def _carry_out(config: Path, name: str, make: Any, done: str, as_json: bool) -> None:
    with office(config) as opened:
        tenant = opened.tenant(name)
        operation: Operation = make(tenant.name)
        opened.ledger.apply([operation])
        item = document(tenant, opened.read([tenant])[0])
    if as_json:
        print_json(item)
    else:
        click.echo(f"{tenant.name}: {done}")


def _one_line(text: str) -> str:
    """The reason is shown in an SMTP reply: one line of printable ASCII."""
    return "".join(char if char.isascii() and char.isprintable() else " " for char in text)[:200].strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "unknown"
