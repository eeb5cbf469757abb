"""chart - a replay as a plot (PNG or SVG): recipients by the hour or day, with the steps marked.

For one tenant its normal is drawn too.  Matplotlib is loaded only here: `pip install relaywarden[plot]`.

How it fails: RelaywardenError for a name of another ending, where matplotlib is missing, and where the file cannot be written.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from relaywarden.cli.output import plain
from relaywarden.errors import RelaywardenError
from relaywarden_monitor.replay.tally import Stepped, Tally

FORMATS = (".png", ".svg")
_SECONDS = {"hour": 3600, "day": 86_400}
_COLOURS = {"watched": "#ccbb44", "slowed": "#ee7733", "diverted": "#aa3377", "held": "#cc3311", "suspended": "#000000"}
_MOST_MARKS = 400


def check(path: Path) -> None:
    """Whether the plot could be drawn, before anything is read; raises RelaywardenError."""
    if path.suffix.lower() not in FORMATS:
        raise RelaywardenError(f"{path}: expected a file name that ends in {' or '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401, PLC0415  # a large library, and for this alone
    except ImportError as error:
        raise RelaywardenError("plots need matplotlib: pip install 'relaywarden[plot]'") from error


def plot(tally: Tally, path: Path, tenant: str = "") -> None:
    """Draw everything, or one tenant; raises RelaywardenError."""
    from matplotlib.dates import date2num  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    one = tally.tenants.get(tenant)
    unit, begin, values = tally.series(one.volume if one is not None else tally.volume)
    size = _SECONDS[unit]
    times = date2num([_moment((begin + index) * size) for index in range(len(values))])  # type: ignore[no-untyped-call]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes: Any = figure.subplots()
    axes.bar(times, values, width=0.9 * size / 86_400, align="edge", label="sent", color="#4477aa")
    if one is not None and tally.normal:
        axes.step(times, _normal(tally, begin, len(values), size), where="post", label="normal", color="#cc6677")
    steps = one.steps if one is not None else [step for found in tally.tenants.values() for step in found.steps]
    _mark(axes, date2num, [step for step in steps if step.after in _COLOURS and step.after != step.before])
    axes.set_title(f"{plain(tenant) or 'all tenants'}: recipients by the {unit}, UTC", parse_math=False)
    axes.xaxis_date()
    axes.set_ylim(bottom=0)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise RelaywardenError(f"{path}: cannot be written: {error.strerror}") from error


def _mark(axes: Any, number: Any, steps: list[Stepped]) -> None:
    told: set[str] = set()
    for step in steps[:_MOST_MARKS]:
        label = None if step.after in told else step.after
        told.add(step.after)
        axes.axvline(number(_moment(step.at)), color=_COLOURS[step.after], linewidth=1, label=label)


def _normal(tally: Tally, begin: int, count: int, size: int) -> list[float]:
    hours = size // 3600
    found = [0.0] * count
    for hour, expected in tally.normal.items():
        if 0 <= (index := hour // hours - begin) < count:
            found[index] += expected
    return found


def _moment(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
