"""normal - a tenant's normal against now: as part of `show --json`, as sparklines, and as a plot (PNG or SVG).

The document (`patterns` of `show --json`):

    known_days, settled   for how long the tenant is known, and whether it has a normal of its own yet
    hours                 list of the last 24 hours (UTC): {hour, sent, normal}, in recipients
    evidence, history     what speaks against the tenant now, and the last changes of its standing

Plots are drawn by matplotlib, which is not needed for anything else: `pip install relaywarden[plot]`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from relaywarden import patterns
from relaywarden.cli.accounts import Office
from relaywarden.cli.output import iso_time, plain, spark
from relaywarden.errors import RelaywardenError
from relaywarden.ledger.records import HOUR_MS, History, Hours, Noted, Notes
from relaywarden.outcomes import SENT_TO
from relaywarden.tenants import Tenant

_DAY, _WEEK = 24, 7 * 24
_FORMATS = (".png", ".svg")


def document(opened: Office, tenant: Tenant, now_ms: int) -> dict[str, Any]:
    """What the monitor knows of the tenant; empty if it knows nothing."""
    sent, view = _read(opened, tenant, now_ms, _DAY)
    if not view and not any(sent):
        return {}
    normal = patterns.normal(view, now_ms, _DAY)
    last = now_ms // HOUR_MS
    return {
        "known_days": view.get("days", 0),
        "settled": bool(view.get("settled")),
        "hours": [
            {
                "hour": iso_time((last - _DAY + 1 + index) * HOUR_MS),
                "sent": amount,
                "normal": round(normal[index], 1) if normal else None,
            }
            for index, amount in enumerate(sent)
        ],
        "evidence": view.get("evidence", []),
        "history": view.get("history", []),
    }


def lines(item: dict[str, Any]) -> Iterator[str]:
    """The document for people."""
    if not item:
        return
    sent = [hour["sent"] for hour in item["hours"]]
    normal = [round(hour["normal"] or 0) for hour in item["hours"]]
    top = max([*sent, *normal, 1])
    # Both lines to one measure: the highest of either is the full block.
    yield f"sent    {spark([*sent, top])[:-1]}  {sum(sent)} recipients in 24 h, {sent[-1]} this hour"
    if any(normal):
        known = "" if item["settled"] else f" (still learned: {item['known_days']:.0f} days)"
        yield f"normal  {spark([*normal, top])[:-1]}  {sum(normal)} recipients in 24 h, {normal[-1]} an hour as this{known}"
    else:
        yield f"normal  not known yet ({item['known_days']:.0f} days)"
    for evidence in item["evidence"]:
        yield f"signal: {plain(str(evidence.get('text', '')))}"
    for change in item["history"][-3:]:
        yield f"before: {plain(str(change))}"


def plot(opened: Office, tenant: Tenant, now_ms: int, path: Path) -> None:
    """Draw the last week against normal; raises RelaywardenError where that cannot be done."""
    if path.suffix.lower() not in _FORMATS:
        raise RelaywardenError(f"{path}: expected a file name that ends in {' or '.join(_FORMATS)}")
    try:
        # A large library, and for this alone.
        from matplotlib.dates import date2num  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise RelaywardenError("plots need matplotlib: pip install 'relaywarden[plot]'") from error
    sent, view = _read(opened, tenant, now_ms, _WEEK)
    normal = patterns.normal(view, now_ms, _WEEK)
    times = date2num(_times(now_ms, _WEEK))  # type: ignore[no-untyped-call]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar(times, sent, width=1 / 26, label="sent", color="#4477aa")
    if normal:
        axes.step(times, normal, where="mid", label="normal", color="#cc6677")
    axes.set_title(f"{plain(tenant.name)}: recipients an hour, UTC")
    axes.xaxis_date()
    axes.set_ylim(bottom=0)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise RelaywardenError(f"{path}: cannot be written: {error.strerror}") from error


def _times(now_ms: int, hours: int) -> list[datetime.datetime]:
    last = now_ms // HOUR_MS
    numbers = range(last - hours + 1, last + 1)
    return [datetime.datetime.fromtimestamp(number * 3600, datetime.timezone.utc) for number in numbers]


def _read(opened: Office, tenant: Tenant, now_ms: int, hours: int) -> tuple[Sequence[int], dict[str, Any]]:
    since = now_ms - (hours - 1) * HOUR_MS
    found, notes = opened.ledger.apply(
        [History(tenant.name, since, now_ms), Notes(patterns.book(tenant.name), patterns.TOPIC, (patterns.VIEW,))]
    )
    records = found.hours if isinstance(found, Hours) else {}
    last = now_ms // HOUR_MS
    sent = [records.get(hour, {}).get(SENT_TO, 0) for hour in range(last - hours + 1, last + 1)]
    return sent, patterns.read_view(notes.fields.get(patterns.VIEW) if isinstance(notes, Noted) else None)
