"""suppress - a tenant's suppression list: recipients that policyd refuses at RCPT.  Shown, changed, imported and exported.

The monitor puts hard bounces and complaints on the list; what an operator adds is `manual`.  An address is one entry whatever
its case; the domain is written in lower case.  A change holds from the next request on every host.  suppression_file.py says
how a file has to look.

How it fails: an import whose file has bad lines changes nothing (exit code 2) unless --skip-bad is given.  If the store fails
in the middle, what was written stays; the same import again completes it.

Known limit: an address in which a control character was found is listed with a blank in its place, and cannot be removed by
that spelling; it expires.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from relaywarden.cli import suppression_file
from relaywarden.cli.accounts import Office, office
from relaywarden.cli.arguments import Duration, one_line
from relaywarden.cli.output import iso_time, json_option, plain, print_json
from relaywarden.errors import RelaywardenError, SpecError, StoreUnavailableError
from relaywarden.ledger.records import DAY_MS, Listed, Suppress, Suppressed, Suppression
from relaywarden.tenants import Tenant

_YEAR_MS = 365 * DAY_MS
_TOGETHER = 1000  # entries written in one step, so that policyd does not wait for an import
_WIDEST = 48  # characters of an address in a table


@click.group()
def suppress() -> None:
    """Show and change the recipients that a tenant may not send to: policyd refuses them at RCPT.

    For example: suppress add acme gone@example.net --for 30d --reason "asked to be left alone"
    """


@suppress.command("list")
@click.argument("tenant")
@json_option
@click.pass_obj
def list_(config: Path, tenant: str, as_json: bool) -> None:
    """List the suppressed recipients of TENANT, with why and until when."""
    with office(config) as opened:
        entries = _listed(opened, opened.tenant(tenant))
    if as_json:
        print_json([_document(entry) for entry in entries])
        return
    width = min(_WIDEST, max((len(plain(entry.address)) for entry in entries), default=0))
    for entry in entries:
        span = f"{iso_time(entry.since_ms)}  until {iso_time(entry.until_ms)}"
        click.echo(f"{plain(entry.address):<{width}}  {plain(entry.kind):<10}  {span}  {plain(entry.reason)}".rstrip())
    if not entries:
        click.echo("nobody is suppressed")


@suppress.command()
@click.argument("tenant")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--reason", default="", help="For the record: shown by `suppress list`.")
@click.option("--for", "duration", type=Duration(), default="365d", show_default=True, help="How long.")
@json_option
@click.pass_obj
def add(config: Path, tenant: str, addresses: Sequence[str], reason: str, duration: int, as_json: bool) -> None:
    """Let TENANT send to these addresses no more; what the list says of them already is replaced."""
    try:
        checked = [suppression_file.check_address(address) for address in addresses]
    except SpecError as error:
        raise click.BadParameter(plain(error)) from None
    with office(config) as opened:
        found = opened.tenant(tenant)
        now_ms = _now_ms(opened, found)
        entries = [Suppression(address, "manual", now_ms, now_ms + duration, one_line(reason)) for address in checked]
        _write(opened, found, entries)
    if as_json:
        print_json({"tenant": found.name, "added": [_document(entry) for entry in entries]})
        return
    for entry in entries:
        click.echo(plain(f"{found.name}: {entry.address} is suppressed until {iso_time(entry.until_ms)}"))


@suppress.command()
@click.argument("tenant")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@json_option
@click.pass_obj
def remove(config: Path, tenant: str, addresses: Sequence[str], as_json: bool) -> None:
    """Let TENANT send to these addresses again; exit code 1 if one of them was not on the list."""
    with office(config) as opened:
        found = opened.tenant(tenant)
        known = {entry.address.casefold() for entry in _listed(opened, found)}
        removed = [address for address in addresses if address.casefold() in known]
        missing = [address for address in addresses if address.casefold() not in known]
        if removed:
            opened.ledger.apply([Suppress(found.name, dict.fromkeys(removed))])
    if as_json:
        print_json({"tenant": found.name, "removed": removed, "missing": missing})
    else:
        for address in removed:
            click.echo(plain(f"{found.name}: {address} is off the list"))
    for address in missing:
        click.echo(plain(f"relaywarden: {address} is not on the list of {found.name}"), err=True)
    if missing:
        raise SystemExit(1)


@suppress.command("import")
@click.argument("tenant")
@click.argument("file", metavar="FILE|-")
@click.option("--skip-bad", is_flag=True, help="Import the good lines although there are bad ones.")
@json_option
@click.pass_obj
def import_(config: Path, tenant: str, file: str, skip_bad: bool, as_json: bool) -> None:
    """Put the addresses of FILE (- is standard input) on the list of TENANT.

    One address a line; or CSV with a header: address, and any of kind (bounced, complained, manual), since, until, reason.
    Without `until` an address is kept as long as the plan keeps its kind, and a year if it is manual.
    """
    with office(config) as opened:
        found = opened.tenant(tenant)
        parsed = _read(file, _defaults(opened, found), _now_ms(opened, found))
        good = bool(skip_bad or not parsed.bad)
        if good:
            _write(opened, found, parsed.entries.values())
    done = len(parsed.entries) if good else 0
    for bad in parsed.bad:
        click.echo(f"relaywarden: {plain(file)}:{bad.number}: {plain(bad.why)}", err=True)
    if as_json:
        faults = [{"line": bad.number, "why": bad.why} for bad in parsed.bad]
        print_json({"tenant": found.name, "imported": done, "expired": parsed.expired, "bad": faults})
    elif good:
        click.echo(plain(f"{found.name}: {done} addresses imported{_left_out(parsed)}"))
    if not good:
        hint = "correct them, or give --skip-bad"
        raise RelaywardenError(f"{plain(file)}: bad lines: {len(parsed.bad)}; nothing was imported: {hint}")


@suppress.command()
@click.argument("tenant")
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file; - or none: to standard output.")
@click.pass_obj
def export(config: Path, tenant: str, output: Path | None) -> None:
    """Write the list of TENANT as CSV, which `suppress import` reads back to the same list."""
    with office(config) as opened:
        entries = _listed(opened, opened.tenant(tenant))
    lines = suppression_file.write(entries)
    if output is not None and str(output) != "-":
        try:
            output.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise RelaywardenError(f"cannot write {plain(output)}: {error.strerror or error}") from error
        click.echo(plain(f"{output}: {len(entries)} addresses"))
    elif sys.stdout.isatty():
        for line in lines:
            click.echo(plain(line.rstrip("\n"), 2000))
    else:
        click.echo("".join(lines).encode("utf-8", "backslashreplace"), nl=False)


def _listed(opened: Office, tenant: Tenant) -> tuple[Suppression, ...]:
    (found,) = cast("list[Listed]", opened.ledger.apply([Suppressed(tenant.name)]))
    return found.entries


def _now_ms(opened: Office, tenant: Tenant) -> int:
    """By the store's clock, which decides what has expired."""
    return opened.read([tenant])[0].now_ms


def _defaults(opened: Office, tenant: Tenant) -> dict[str, int]:
    """How long each kind is kept where the file does not say."""
    rules = opened.settings.plans[tenant.plan].suppression
    return {"bounced": rules.bounced or _YEAR_MS, "complained": rules.complained or _YEAR_MS, "manual": _YEAR_MS}


def _read(file: str, defaults: dict[str, int], now_ms: int) -> suppression_file.Parsed:
    try:
        with click.open_file(file, "rb") as opened:
            return suppression_file.read(cast("BinaryIO", opened), defaults, now_ms)
    except OSError as error:
        raise RelaywardenError(f"cannot read {plain(file)}: {error.strerror or error}") from error
    except RelaywardenError as error:
        raise RelaywardenError(f"{plain(file)}: {plain(error)}") from error


def _write(opened: Office, tenant: Tenant, entries: Iterable[Suppression]) -> None:
    """In steps; raises StoreUnavailableError that says how far it came."""
    left, done = iter(entries), 0
    while step := list(islice(left, _TOGETHER)):
        try:
            opened.ledger.apply([Suppress(tenant.name, {entry.address: entry for entry in step})])
        except StoreUnavailableError as error:
            raise StoreUnavailableError(f"{error}; {done} addresses were written before, do it again for all") from error
        done += len(step)


def _left_out(parsed: suppression_file.Parsed) -> str:
    bad = f", {len(parsed.bad)} bad lines left out" if parsed.bad else ""
    return f"{bad}, {parsed.expired} left out that have expired" if parsed.expired else bad


def _document(entry: Suppression) -> dict[str, Any]:
    times = {"since": iso_time(entry.since_ms), "until": iso_time(entry.until_ms)}
    return {"address": entry.address, "kind": entry.kind, **times, "reason": entry.reason}
