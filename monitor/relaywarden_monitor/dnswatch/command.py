"""command - `relaywarden dns`: what DNS says of the pools and of those who send through them.

Faults come first, then what could not be found out, then advice; of what is fine only the names.  Exit code 0: all is fine
(advice does not count); 1: there is a fault; 2: there is none, but not everything could be found out, or nothing could.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from relaywarden.cli.output import console, json_option, print_json
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden_monitor.dnswatch.examine import Scope, run
from relaywarden_monitor.dnswatch.findings import Finding, Level, worst

_ORDER = {Level.FAULT: 0, Level.UNKNOWN: 1, Level.ADVICE: 2, Level.OK: 3}
_COLOUR = {Level.FAULT: "red", Level.UNKNOWN: "yellow", Level.ADVICE: "cyan", Level.OK: "green"}


@click.command()
@click.option("--tenant", metavar="NAME", help="This tenant only.")
@click.option("--member", metavar="NAME", help="This pool member only.")
@json_option
@click.pass_obj
def dns(config: Path, tenant: str | None, member: str | None, as_json: bool) -> None:
    """Ask DNS about blocklists, reverse names, SPF, DKIM keys and DMARC; exit code 1 if something is wrong there."""
    settings = load(config)
    _known(settings, tenant, member)
    findings = run(settings, Scope(tenant, member))
    if as_json:
        print_json([finding.document() for finding in findings])
    else:
        _print(findings)
    raise SystemExit(exit_code(findings))


def exit_code(findings: Iterable[Finding]) -> int:
    """0, 1 or 2, as the module says."""
    return {Level.FAULT: 1, Level.UNKNOWN: 2}.get(worst(finding.level for finding in findings), 0)


def _known(settings: Settings, tenant: str | None, member: str | None) -> None:
    if tenant is not None and tenant not in settings.tenants:
        raise click.BadParameter(f"no tenant {tenant!r} in the configuration", param_hint="--tenant")
    members = [name for pool in settings.pools.values() for name in pool.members]
    if member is not None and member not in members:
        raise click.BadParameter(f"no member {member!r}; members are: {', '.join(members) or 'none'}", param_hint="--member")


def _print(findings: Sequence[Finding]) -> None:
    if not findings:
        console().print("nothing to ask DNS about: no pools, tenants or keys")
        return
    table = Table("subject", "level", "check", "what", box=None, header_style="bold", pad_edge=False)
    for subject, group in _grouped(findings):
        title = escape(subject)
        for finding in (one for one in group if one.level is not Level.OK):
            shown = f" [{finding.evidence}]" if finding.evidence else ""
            colour = _COLOUR[finding.level]
            table.add_row(title, f"[{colour}]{finding.level.value}[/]", escape(finding.check), escape(finding.text + shown))
            title = ""
        if fine := [one.check for one in group if one.level is Level.OK]:
            table.add_row(title, f"[{_COLOUR[Level.OK]}]ok[/]", "", escape(", ".join(fine)))
    console().print(table)
    console().print(_summary(findings))


def _grouped(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """By subject; those in trouble first, and of each the trouble first."""
    levels = {subject: worst(one.level for one in group) for subject, group in _by_subject(findings)}
    groups = [(subject, sorted(group, key=lambda one: _ORDER[one.level])) for subject, group in _by_subject(findings)]
    return sorted(groups, key=lambda item: _ORDER[levels[item[0]]])


def _by_subject(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    order = {subject: index for index, subject in enumerate(dict.fromkeys(one.subject for one in findings))}
    ordered = sorted(findings, key=lambda one: order[one.subject])
    return [(subject, list(group)) for subject, group in groupby(ordered, key=lambda one: one.subject)]


def _summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    names = {Level.FAULT: "faults", Level.UNKNOWN: "not known", Level.ADVICE: "advice", Level.OK: "ok"}
    return ", ".join(f"{names[level]}: {counts[level]}" for level in _ORDER)
