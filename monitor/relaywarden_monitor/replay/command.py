"""command - `relaywarden replay`: run the configuration against history, and report what would have been done.

Nothing is written but the plot, and nobody is notified.  The bar on standard error shows bytes (of --ledger: tenants) and is
there on a terminal only.  Exit code 0; 1: nothing was found to replay; 2: an error.

How it fails: a file that cannot be read, a configuration or ledger that is not usable: one text that names it.
"""

from __future__ import annotations

import datetime
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relaywarden.cli.output import console, json_option, print_json
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.errors import RelaywardenError
from relaywarden.tenants import Directory
from relaywarden_monitor.events import Event
from relaywarden_monitor.replay import chart, files
from relaywarden_monitor.replay.hours import HourlyReplay, judges, open_records
from relaywarden_monitor.replay.stream import Stream
from relaywarden_monitor.replay.table import show
from relaywarden_monitor.replay.tally import Tally

_GARBAGE = 100_000  # as in the monitor: what is made here is no part of cycles
_PATTERN = "files or patterns such as '/var/log/mail.log*', compressed or not; may be given more than once"
NOT_REFUSED = (
    "What was refused at the time is not in the history.  What limits would have refused still counts for patterns and health, "
    "and is charged to no limit; who was refused would have tried again, which nobody can replay."
)
LOG_NOTE = (
    "A log knows no content: scores, wording, templates, From domains and HELO names are missing, so signals about them are "
    "silent.  Suppression lists, grants and overrides of the ledger are left out."
)
ROWS_NOTE = (
    "Accounting alone does not say when mail came in, nor its size: a recipient counts when it was delivered or bounced, "
    "and limits of bytes are not judged."
)
HOURS_NOTE = "Of the ledger's hours only limits of messages and recipients of a whole tenant in an hour or longer can be judged"


class Past(click.ParamType[float]):
    """A moment: `2026-12-01` or `2026-12-01T08:00`, UTC unless it names an offset; in seconds since 1970."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        if isinstance(value, float):
            return value
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"expected a date such as 2026-12-01 or a time such as 2026-12-01T08:00, got {value!r}", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


@click.command()
@click.option("--log", "logs", multiple=True, metavar="FILE", help=f"Postfix' log: {_PATTERN}.")
@click.option("--accounting", multiple=True, metavar="FILE", help=f"PowerMTA's accounting: {_PATTERN}.")
@click.option("--ledger", is_flag=True, help="The ledger's own hourly record.")
@click.option("--tenant", "tenants", multiple=True, metavar="NAME", help="This tenant only; may be given more than once.")
@click.option("--since", type=Past(), default=0.0, help="Leave out what happened before.")
@click.option("--until", type=Past(), default=float("inf"), help="Leave out what happened from then on.")
@click.option("--all", "every", is_flag=True, help="Report tenants of whom there is nothing to say, too.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw a chart: .png or .svg.")
@json_option
@click.pass_obj
def replay(
    config: Path, logs: tuple[str, ...], accounting: tuple[str, ...], ledger: bool, tenants: tuple[str, ...], since: float,
    until: float, every: bool, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run the configuration against history: what would have been limited, stepped and notified, for each tenant."""
    if ledger == bool(logs or accounting):
        raise click.UsageError("expected --log or --accounting with files, or --ledger alone")
    if plot is not None:
        chart.check(plot)
    settings = load(config)
    names = _names(settings, tenants)
    normal_of = names[0] if plot is not None and len(names) == 1 else ""
    gc.set_threshold(_GARBAGE)
    tally = Tally()
    if ledger:
        _of_ledger(settings, tally, names, (since, until), normal_of)
    else:
        _of_files(settings, tally, (logs, accounting), names, (since, until), normal_of)
    if not tally.tenants:
        click.echo("relaywarden: nothing to replay: no message of a tenant was found there", err=True)
        raise SystemExit(1)
    if plot is not None:
        chart.plot(tally, plot, names[0] if len(names) == 1 else "")
    if as_json:
        print_json(tally.document(every))
    else:
        show(tally, console(), every)


def _names(settings: Settings, wanted: Iterable[str]) -> list[str]:
    """The tenants of these names or logins; raises click.BadParameter."""
    directory, found = Directory(settings), []
    for name in wanted:
        tenant = directory.by_name(name)
        if tenant is None:
            raise click.BadParameter(f"no tenant {name!r} in the configuration", param_hint="--tenant")
        found.append(tenant.name)
    return list(dict.fromkeys(found))


def _of_files(
    settings: Settings, tally: Tally, patterns: tuple[Sequence[str], Sequence[str]], names: Sequence[str],
    span: tuple[float, float], normal_of: str,
) -> None:  # fmt: skip
    logs, accounting = patterns
    try:
        found = files.find(logs, accounting)
        stream = Stream(settings, tally, only=names, by_rows=not logs, normal_of=normal_of)
        with _progress(sum(one.size for one in found), bytes_=True) as advance:
            for events in files.merged(found, tally.records, advance):
                stream.feed(_within(events, *span))
        stream.close()
    except OSError as error:
        raise RelaywardenError(f"{error.filename or 'a file'}: cannot be read: {error.strerror or error}") from error
    tally.notes += [NOT_REFUSED, LOG_NOTE, *([] if logs else [ROWS_NOTE])]


def _of_ledger(settings: Settings, tally: Tally, names: Sequence[str], span: tuple[float, float], normal_of: str) -> None:
    records = open_records(settings)
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    hours = range(int(max(0.0, span[0]) // 3600), int(min(now, span[1] - 1e-3) // 3600) + 1)
    running = HourlyReplay(settings, tally, normal_of)
    try:
        wanted = list(names) or records.tenants()
        with _progress(len(wanted), bytes_=False) as advance:
            for name in wanted:
                if found := records.hours(name, hours):
                    running.tenant(name, found)
                advance(1)
    finally:
        records.close()
    plans = {one.plan for one in tally.tenants.values()}
    silent = sorted({str(limit) for plan in plans for limit in settings.plans[plan].limits if not judges(limit)})
    tally.notes += [NOT_REFUSED, HOURS_NOTE + (f"; not judged: {', '.join(silent)}." if silent else ".")]


def _within(events: Sequence[Event], since: float, until: float) -> Sequence[Event]:
    if not events or (since <= events[0].at and events[-1].at < until):
        return events
    return [event for event in events if since <= event.at < until]


@contextmanager
def _progress(total: int, *, bytes_: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("replay"), BarColumn(), DownloadColumn() if bytes_ else MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda amount: progress.advance(task, amount)
