"""table - the report of a replay for people: a table of tenants, then what there is to say of each.

Texts come from logs and from mail: all of them go through `plain` and `escape`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relaywarden.cli.output import plain, spark
from relaywarden_monitor.replay.tally import Tally, TenantTally, day_of

_WIDEST = 60  # characters of a sparkline
_SHOWN = 12  # steps and notices of one tenant; --json has more


def show(tally: Tally, console: Console, every: bool) -> None:
    """Print the report."""
    found = tally.ordered(every)
    records = ", ".join(f"{amount:,} {unit}" for unit, amount in tally.records.items())
    tenants, messages, recipients = tally.totals
    period = f"{day_of(tally.first)} to {day_of(tally.last)} UTC"
    console.print(f"{period}: {records}; {_several(tenants, 'tenant')}, {messages:,} messages, {recipients:,} recipients")
    unit, _, values = tally.series(tally.volume)
    console.print(f"recipients by the {unit}  {line(values)}")
    if found:
        console.print(_overview(tally, found, unit))
    for one in found:
        for text in _lines(one):
            console.print(escape(plain(text)))
    for told in tally.members:
        console.print(escape(plain(f"{day_of(told.at)}  {told.severity}: {told.what}")))
    if not every and (silent := len(tally.tenants) - len(found)):
        console.print(f"nothing to say of {_several(silent, 'more tenant')}; --all lists all")
    for note in tally.notes:
        console.print(f"note: {escape(plain(note, 1000))}")


def line(values: Sequence[int]) -> str:
    """A sparkline; of a long period some values are summed up."""
    size = -(-len(values) // _WIDEST)
    return spark([sum(values[start : start + size]) for start in range(0, len(values), size)] if size > 1 else values)


def _overview(tally: Tally, found: Sequence[TenantTally], unit: str) -> Table:
    titles = "tenant", "plan", "mode", "messages", "recipients", "refused", "highest use", "steps", "notices", f"by the {unit}"
    table = Table(*titles, box=None, header_style="bold", pad_edge=False)
    for one in found:
        cells = (
            one.tenant, one.plan, one.mode, f"{one.messages:,}", f"{one.recipients:,}", f"{one.refused:,}", _highest(one),
            _count(one, "steps"), _count(one, "notices"), line(tally.series(one.volume)[2]),
        )  # fmt: skip
        table.add_row(*(escape(plain(cell)) for cell in cells))
    return table


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _count(one: TenantTally, what: str) -> str:
    return str(len(getattr(one, what)) + one.more[what])


def _highest(one: TenantTally) -> str:
    peaks = [(use.peak, use.limit) for use in one.uses.values() if use.peak is not None]
    return "{:.0f} % of {}".format(*max(peaks)) if peaks else "-"


def _lines(one: TenantTally) -> Iterator[str]:
    done = {"refuse": "refused", "hold": "held", "observe": "would be refused, but is only observed"}
    for use in (use for use in one.uses.values() if use.refused):
        span = f"{day_of(use.first)} to {day_of(use.last)}"
        yield f"{one.tenant}: {use.refused:,} recipients {done[use.action]} by {use.limit}, {span}"
    for step in one.steps[:_SHOWN]:
        until = f" until {day_of(step.until)}" if step.until else ""
        said = "" if step.done else " (only said)"
        yield f"{day_of(step.at)}  {one.tenant}: {step.before} -> {step.after}{until} by {step.by}{said}: {_why(step.text)}"
    for told in one.notices[:_SHOWN]:
        yield f"{day_of(told.at)}  told ({told.kind}, {told.severity}): {told.what}"
    for step_name, recipients in one.under.items():
        yield f"{one.tenant}: {recipients:,} recipients came while it would have been {step_name}"
    left = {what: max(0, len(getattr(one, what)) - _SHOWN) + one.more[what] for what in ("steps", "notices")}
    if any(left.values()):
        yield f"{one.tenant}: {left['steps']} more steps and {left['notices']} more notices; --json has the first of them"


def _why(text: str) -> str:
    """The reasons in a step's text, which begins with what was said already."""
    _, colon, rest = text.partition(": ")
    steps, colon_again, why = rest.partition(": ")
    return why if colon and colon_again and "->" in steps else text
