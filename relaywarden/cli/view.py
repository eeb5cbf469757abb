"""view - `tenants` and `show`: what the operator looks at.  outcome_tables.py prints what became of the mail."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from relaywarden.cli import normal
from relaywarden.cli.accounts import Office, document, full_document, office
from relaywarden.cli.outcome_tables import print_outcomes
from relaywarden.cli.output import console, duration, json_option, plain, print_json
from relaywarden.cli.standing import tenant_lines
from relaywarden.limits import format_bytes


@click.command()
@json_option
@click.pass_obj
def tenants(config: Path, as_json: bool) -> None:
    """List the tenants with what each has used of its limits."""
    with office(config) as opened:
        listed = opened.all_tenants()
        faults = opened.faults()
        documents = [document(tenant, snapshot) for tenant, snapshot in zip(listed, opened.read(listed), strict=True)]
    if as_json:
        print_json(documents)
        return
    table = Table("tenant", "plan", "mode", "standing", "pool", "used", box=None, header_style="bold", pad_edge=False)
    for item in documents:
        used = "  ".join(
            f"{row['meter']} {_amount(row, 'used')}/{_amount(row, 'limit')} {row['window']}" for row in item["used"]
        )
        table.add_row(
            escape(plain(item["tenant"])), item["plan"], item["mode"], item["standing"], item["pool"] or "-", used or "-"
        )
    console().print(table)
    _print_faults(faults)


@click.command()
@click.argument("tenant")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the last week against normal: a .png or .svg file."
)
@json_option
@click.pass_obj
def show(config: Path, tenant: str, plot: Path | None, as_json: bool) -> None:
    """Show one TENANT (or the tenant of a login): balances, counters, outcomes, normal against now, state."""
    with office(config) as opened:
        item = _full(opened, tenant)
        faults = item["faults"]
        if plot is not None:
            normal.plot(opened, opened.tenant(tenant), round(time.time() * 1000), plot)
    if as_json:
        print_json(item)
        return
    out = console()
    facts = (f"{key} {item[key] or '-'}" for key in ("plan", "mode", "standing", "pool"))
    out.print(f"[bold]{escape(plain(item['tenant']))}[/]", *facts, sep="  ")
    _print_balances(item["used"])
    counters = Table("", *item["counters"]["today"], box=None, header_style="bold", pad_edge=False)
    for label, key in (("this hour", "hour"), ("today (UTC)", "today")):
        values = item["counters"][key]
        counters.add_row(label, *(format_bytes(value) if name == "bytes" else str(value) for name, value in values.items()))
    out.print(counters)
    print_outcomes(out, item["outcomes"])
    for line in normal.lines(item["patterns"]):
        out.print(escape(line))
    for line in list(tenant_lines(item))[1:]:
        out.print(escape(line))
    _print_faults(faults)


def _full(opened: Office, name: str) -> dict[str, Any]:
    tenant = opened.tenant(name)
    now_ms = round(time.time() * 1000)
    return full_document(opened, tenant) | {"patterns": normal.document(opened, tenant, now_ms), "faults": opened.faults()}


def _print_faults(faults: dict[str, Any]) -> None:
    for name, entry in sorted(faults.items()):
        context = f" (policy_context {entry['policy_context']})" if entry["policy_context"] else ""
        console().print(f"wiring of Postfix: {name}, seen at {entry['last_start_seen']}{context}; policyd/README.rst says more")


def _print_balances(rows: list[dict[str, Any]]) -> None:
    if not rows:
        console().print("no limits")
        return
    table = Table("limit", "used", "allowed", "", "all free again in", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        share = min(1.0, row["used"] / row["limit"]) if row["limit"] else 1.0
        bar = "#" * round(share * 20) + "." * (20 - round(share * 20))
        reset = duration(row["reset_after"]) if row["used"] else "-"
        table.add_row(f"{row['meter']} per {row['window']}", _amount(row, "used"), _amount(row, "limit"), bar, reset)
    console().print(table)


def _amount(row: dict[str, Any], key: str) -> str:
    return format_bytes(row[key]) if row["meter"] == "bytes" else str(row[key])
