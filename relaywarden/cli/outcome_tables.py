"""outcome_tables - what became of the mail, as tables for people; the documents are those of health.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relaywarden.cli import health
from relaywarden.cli.output import plain, spark
from relaywarden.outcomes import OUTCOMES

_SPANS = {"day": "last 24 h", "week": "last 7 d"}
_MOST_PROVIDERS = 5
_LEVELS = {"ok": "ok", "warn": "[yellow]warn[/]", "act": "[bold red]act[/]", "few": "too few"}


def print_outcomes(out: Console, told: Mapping[str, Any]) -> None:
    """A tenant's outcomes."""
    if not health.volume(told["week"]):
        out.print("no outcomes in the last 7 d")
    else:
        for table in (_counts(told), _rates(told), _providers(told)):
            out.print(table)
        for span, label in _SPANS.items():
            if reasons := told[span]["reasons"]:
                out.print(escape(f"reasons, {label}: {plain(_reasons(reasons))}"))
        for line in _trend(told["trend"]):
            out.print(line)
    out.print(f"suppressed recipients: {told['suppressed']}")


def member_table(documents: list[dict[str, Any]]) -> Table:
    """Of every pool member and provider what became of a day's mail."""
    titles = ("member", "provider", "delivered", "trend", "deferred", "bounced", "complained", "our address", "top reason")
    table = _table("last 24 h, by", *titles)
    for pool in documents:
        for member in pool["members"]:
            for row in member["providers"]:
                table.add_row("", *(escape(plain(cell)) for cell in _member_cells(member["member"], row)))
    return table


def _member_cells(member: str, row: Mapping[str, Any]) -> list[str]:
    counts, rates = row["outcomes"], row["rates"]
    return [
        member,
        row["provider"],
        str(counts["delivered"]),
        _change(row["trend"]),
        _with_share(rates["deferred"]),
        _with_share(rates["bounced"]),
        _with_share(rates["complaints"]),
        _with_share(rates["address"]),
        next(iter(row["reasons"]), "-"),
    ]


def _change(trend: Mapping[str, Any]) -> str:
    """Against the 24 hours before."""
    if trend["change"] is None:
        return "new" if trend["delivered"] else "-"
    return f"{trend['change']:+.0%}"


def _with_share(rate: Mapping[str, Any]) -> str:
    return f"{rate['part']} ({rate['share']:.2%})" if rate["part"] else "0"


def _counts(told: Mapping[str, Any]) -> Table:
    table = _table("", *OUTCOMES)
    for span, label in _SPANS.items():
        table.add_row(label, *(str(told[span][name]) for name in OUTCOMES))
    return table


def _rates(told: Mapping[str, Any]) -> Table:
    table = _table("share", "part", "of", "is", "surely", "warn", "act", "level")
    for name in told["day"]["rates"]:
        for span, label in _SPANS.items():
            rate = told[span]["rates"][name]
            shares = (f"{rate[key]:.2%}" for key in ("share", "lower", "warn", "act"))
            table.add_row(f"{name}, {label}", str(rate["part"]), str(rate["whole"]), *shares, _LEVELS[rate["level"]])
    return table


def _providers(told: Mapping[str, Any]) -> Table:
    table = _table("provider, last 7 d", *OUTCOMES)
    for name, counts in list(told["week"]["providers"].items())[:_MOST_PROVIDERS]:
        table.add_row(escape(plain(name)), *(str(counts[outcome]) for outcome in OUTCOMES))
    return table


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in list(reasons.items())[:5])


def _trend(hours: list[dict[str, Any]]) -> Iterator[str]:
    delivered, bad = [hour["delivered"] for hour in hours], [health.bad(hour) for hour in hours]
    for label, values in (("delivered", delivered), ("deferred, bounced, complained", bad)):
        yield f"{label:<29}  {spark(values)}  at most {max(values)} an hour"


def _table(*titles: str) -> Table:
    return Table(*titles, box=None, header_style="bold", pad_edge=False)
