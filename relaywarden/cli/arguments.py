"""arguments - what several commands take from their command line, and how a change of a tenant's state is carried out."""

from __future__ import annotations

import datetime
import getpass
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from relaywarden.cli.accounts import document, office
from relaywarden.cli.output import print_json
from relaywarden.errors import SpecError
from relaywarden.ledger.operations import Operation
from relaywarden.limits import parse_duration
from relaywarden.tenants import Tenant


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


class Duration(click.ParamType[int]):
    """A duration such as `6h`, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The milliseconds."""
        try:
            return value if isinstance(value, int) else parse_duration(value)
        except SpecError as error:
            self.fail(str(error), param, ctx)


def carry_out(config: Path, name: str, make: Callable[[Tenant], Sequence[Operation]], done: str, as_json: bool) -> None:
    """Have the ledger carry out operations on a tenant, and print what came of it."""
    with office(config) as opened:
        tenant = opened.tenant(name)
        opened.ledger.apply(make(tenant))
        item = document(tenant, opened.read([tenant])[0])
    if as_json:
        print_json(item)
    else:
        click.echo(f"{tenant.name}: {done}")


def milliseconds(moment: datetime.datetime) -> int:
    """Since the epoch, as the ledger counts."""
    return int(moment.timestamp() * 1000)


def one_line(text: str) -> str:
    """A reason stands in log lines and tables: one line of printable ASCII."""
    return "".join(char if char.isascii() and char.isprintable() else " " for char in text)[:200].strip()


def user() -> str:
    """Who gives the command, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "unknown"
