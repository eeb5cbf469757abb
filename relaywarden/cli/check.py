"""check - validate the whole configuration, keys included, and print the effective settings.

With --pmta FILE also PowerMTA's, as far as it concerns us (config/pmta.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import yaml

from relaywarden.cli.output import json_option, print_json
from relaywarden.config import pmta as pmta_rules
from relaywarden.config.examine import problems, remarks
from relaywarden.config.load import load, located
from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError, Problem
from relaywarden.ledger.store_url import Store


@click.command()
@click.option("--pmta", metavar="FILE", type=click.Path(path_type=Path), help="Compare with this PowerMTA configuration too.")
@json_option
@click.pass_obj
def check(config: Path, pmta: Path | None, as_json: bool) -> None:
    """Validate the configuration; exit code 1 if anything in it would fail."""
    found: list[Problem]
    settings: Settings | None = None
    try:
        settings = load(config)
        found = [*problems(settings), *_of_programs(settings)]
    except ConfigError as error:
        found = list(error.problems)
    noted = list(remarks(settings)) if settings is not None else []
    if pmta is not None:
        powermta = pmta_rules.read(pmta)
        found += pmta_rules.problems(settings, powermta) if settings is not None else powermta.problems
        noted += pmta_rules.remarks(settings, powermta) if settings is not None else powermta.remarks
    if settings is not None:
        found, noted = located(config, found), located(config, noted)
    effective = _effective(settings) if settings is not None else None
    if as_json:
        print_json({"ok": not found, "problems": _documents(found), "remarks": _documents(noted), "settings": effective})
    else:
        _print(config, found, noted, effective)
    sys.exit(1 if found else 0)


def _of_programs(settings: Settings) -> Iterator[Problem]:
    """What the programs themselves find: the library imports none of them."""
    for entry in entry_points(group="relaywarden.checks"):
        yield from entry.load()(settings)


def _print(config: Path, found: list[Problem], noted: list[Problem], effective: dict[str, Any] | None) -> None:
    for problem in found:
        click.echo(f"problem: {problem}", err=True)
    for remark in noted:
        click.echo(f"note: {remark}", err=True)
    if found:
        click.echo(f"{config}: {len(found)} problem{'s' if len(found) > 1 else ''}", err=True)
        return
    click.echo(yaml.safe_dump(effective, sort_keys=False, allow_unicode=True).rstrip())
    click.echo(f"{config}: ok", err=True)


def _effective(settings: Settings) -> dict[str, Any]:
    document = dict(json.loads(settings.model_dump_json()))
    document["store"] = str(Store.parse(settings.store))  # without credentials
    return document


def _documents(found: list[Problem]) -> list[dict[str, str]]:
    return [{"where": problem.where, "what": problem.what} for problem in found]
