"""pools - the pools, their members, and how far each has warmed up; and an operator's word on that.

The document is the contract of `pools --json`: a list of pools, each with its members; of each member its ip, state (warm,
warming, paused), the pause of the whole member, the warm-up (start, schedule, day 0 to days - 1), and for every provider that
the ledger or the steering knows: caps, what was used in 24 hours and in the hour, the next step, the counters of today (UTC),
its pause, and what became of the mail of the last 24 hours (`outcomes`, `rates`, `reasons`, `trend`, see health.py).  A day
below 0 lies before the start; caps of null: the schedule is over.

A word takes effect on every host within a second or two.  Known limit: what two people change on one member in the same
instant, the later one wins.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
from rich.markup import escape
from rich.table import Table

from relaywarden import providers, steering, warmup
from relaywarden.cli import health
from relaywarden.cli.accounts import Office, office
from relaywarden.cli.arguments import Duration, one_line, user
from relaywarden.cli.outcome_tables import member_table
from relaywarden.cli.output import console, iso_time, json_option, plain, print_json
from relaywarden.config.monitor_settings import HealthSettings
from relaywarden.ledger.operations import Account, Read, Snapshot
from relaywarden.ledger.records import HOUR_MS, History, Hours
from relaywarden.warmup import EVERY, Caps, Entry, Warming

_TWO_DAYS = 2 * health.DAY * HOUR_MS
_CONFIDENCE = HealthSettings().confidence  # plans have their own, members do not
_PROVIDER = click.option("--provider", help="This mailbox provider only, such as google; default: all of them.")


@dataclass(frozen=True, slots=True)
class _View:
    """All that is known of pools at one moment."""

    opened: Office
    plan: dict[str, Warming]
    words: steering.Words
    known: dict[str, set[str]]  # member -> providers that the ledger has books for

    @classmethod
    def of(cls, opened: Office) -> _View:
        known: dict[str, set[str]] = {}
        for member, provider in filter(None, map(warmup.parse_books, opened.ledger.tenants())):
            known.setdefault(member, set()).add(provider)
        return cls(opened, warmup.plan(opened.settings), steering.read(opened.ledger), known)

    @property
    def today(self) -> datetime.date:
        return warmup.date_of(self.words.now_ms)

    def entry(self, member: str) -> Entry:
        return self.words.members.get(member, {})

    def providers(self, member: str) -> list[str]:
        """Those with books, then those only an operator or the configuration has named."""
        known = self.known.get(member, set())
        entry, warming = self.entry(member), self.plan.get(member)
        named = {name for part in ("back", "paused") for name in entry.get(part) or {}} - {EVERY}
        return sorted(known) + sorted((named | set(warming.own if warming else ())) - known)

    def caps(self, member: str, provider: str) -> Caps | None:
        warming = self.plan.get(member)
        return warming.caps(provider, self.today, self.entry(member)) if warming else None

    def read(self, pairs: Iterable[tuple[str, str]]) -> list[Snapshot]:
        """The books of several (member, provider), in one batch."""
        accounts: list[Account] = [warmup.account(*pair, self.caps(*pair) or warmup.NOTHING) for pair in pairs]
        return cast("list[Snapshot]", self.opened.ledger.apply([Read(account) for account in accounts])) if accounts else []

    def outcomes(self, member: str, listed: list[str]) -> list[dict[str, Any]]:
        """What became of what a member carried to these providers."""
        now_ms = self.words.now_ms
        books = [warmup.books(member, provider) for provider in listed]
        found = self.opened.ledger.apply([History(book, now_ms - _TWO_DAYS, now_ms) for book in books]) if books else []
        return [health.member(hours.hours, now_ms, _CONFIDENCE) for hours in cast("list[Hours]", found)]


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def pools(ctx: click.Context, as_json: bool) -> None:
    """List the pools and their members with the state of warm-up; or pause and resume a member, step it back and forward."""
    if ctx.invoked_subcommand is not None:
        return
    with office(ctx.obj) as opened:
        view = _View.of(opened)
        documents = [
            {"pool": name, "members": [_document(view, member, values.ip) for member, values in pool.members.items()]}
            for name, pool in opened.settings.pools.items()
        ]
    if as_json:
        print_json(documents)
        return
    _print(documents)


@pools.command()
@click.argument("member")
@_PROVIDER
@click.option("--for", "duration", type=Duration(), help="How long, such as 6h; default: until `pools resume`.")
@click.option("--reason", default="", help="For the record: shown by `pools`.")
@json_option
@click.pass_obj
def pause(config: Path, member: str, provider: str | None, duration: int | None, reason: str, as_json: bool) -> None:
    """Send nothing by MEMBER, warm or not, until told otherwise; what it has taken already is in the MTA's hands."""
    with office(config) as opened:
        view = _checked(opened, member, provider)
        now_ms = view.words.now_ms
        until = None if duration is None else now_ms + duration
        entry = warmup.paused(view.entry(member), provider or EVERY, until, one_line(reason), user(), now_ms)
        _say(opened, member, entry, "paused" + (f" until {iso_time(until)}" if until else ""), provider, as_json)


@pools.command()
@click.argument("member")
@_PROVIDER
@json_option
@click.pass_obj
def resume(config: Path, member: str, provider: str | None, as_json: bool) -> None:
    """End pauses of MEMBER, an operator's or its own; today's counters are not held against it again."""
    with office(config) as opened:
        view = _checked(opened, member, provider)
        if not _is_paused(view, member, provider):
            _tell(view, member, "was not paused", provider, as_json)
            return
        entry = warmup.resumed(view.entry(member), provider)
        affected = [name for name in view.providers(member) if provider in (None, name)]
        snapshots = view.read((member, name) for name in affected)
        for name, snapshot in zip(affected, snapshots, strict=True):
            entry = warmup.judged(entry, name, snapshot.today, view.today)
        still = warmup.pause_of(entry, provider or EVERY, view.words.now_ms)
        done = f"still paused, as a whole{_because(still.reason)}" if still else "resumed"
        _say(opened, member, entry, done, provider, as_json)


@pools.command()
@click.argument("member")
@_PROVIDER
@click.option("--days", type=click.IntRange(1, 365), default=1, show_default=True, help="How many days of the schedule.")
@json_option
@click.pass_obj
def back(config: Path, member: str, provider: str | None, days: int, as_json: bool) -> None:
    """Step MEMBER back in its warm-up schedule, at most to day 0 of today; from that day on it goes forward again."""
    with office(config) as opened:
        view = _checked(opened, member, provider)
        entry, done = _moved(view, member, provider, days)
        _say(opened, member, entry, done, provider, as_json)


@pools.command()
@click.argument("member")
@_PROVIDER
@click.option("--days", type=click.IntRange(1, 365), default=1, show_default=True, help="How many days of the schedule.")
@json_option
@click.pass_obj
def forward(config: Path, member: str, provider: str | None, days: int, as_json: bool) -> None:
    """Take back steps of `pools back`, or of the counters: MEMBER goes forward, at most to the calendar's day."""
    with office(config) as opened:
        view = _checked(opened, member, provider)
        entry, done = _moved(view, member, provider, -days)
        _say(opened, member, entry, done, provider, as_json)


def _moved(view: _View, member: str, provider: str | None, days: int) -> tuple[Entry, str]:
    """The entry so many days back (negative: forward), and what that came to."""
    if member not in view.plan:
        _fail(f"member {member!r} has no warm-up; with one are: {', '.join(view.plan) or 'none'}")
    warming, name, old = view.plan[member], provider or EVERY, view.entry(member)
    elapsed = (view.today - warming.start).days
    entry = warmup.moved(old, name, days, elapsed)
    if elapsed < 0:
        return entry, f"its warm-up has not begun: day 0 is {warming.start}"
    day = elapsed - warmup.back_of(entry, name)
    change = day - warmup.day_of(warming.start, view.today, warmup.back_of(old, name))
    if change:
        still = warmup.caps(warming.schedule(name), day) is None
        where = (
            "and still warm: its schedule ended longer ago"
            if still and change < 0
            else f"now {'warm' if still else f'day {day}'}"
        )
        return entry, f"{'back' if change < 0 else 'forward'} by {abs(change)} day{'s'[: abs(change) > 1]}, {where}"
    if days > 0:
        return entry, "on day 0 already"
    rest = [found for found in entry.get("back", {}) if (found == EVERY) != (name == EVERY)]
    if rest and name == EVERY:
        return entry, f"not back as a whole, but to {', '.join(sorted(rest))} (see --provider)"
    return entry, "back only as a whole: leave --provider out" if EVERY in rest else f"on the calendar's day already, day {day}"


def _is_paused(view: _View, member: str, provider: str | None) -> bool:
    """Does a pause hold that `resume` could end, or has to speak of?"""
    entry, now_ms = view.entry(member), view.words.now_ms
    names = [EVERY, *view.providers(member)] if provider is None else [provider]
    return any(warmup.pause_of(entry, name, now_ms) for name in names)


def _checked(opened: Office, member: str, provider: str | None) -> _View:
    """The view, when the names are right; else the command ends with exit code 1 and the list."""
    members = [name for pool in opened.settings.pools.values() for name in pool.members]
    if member not in members:
        _fail(f"no pool member {member!r}; members are: {', '.join(members) or 'none configured'}")
    view = _View.of(opened)
    if provider is not None and provider not in providers.NAMES.union(view.providers(member)):
        _fail(f"no mailbox provider {provider!r}; providers are: {', '.join(sorted(providers.NAMES))}")
    return view


def _fail(text: str) -> None:
    click.echo(f"relaywarden: {text}", err=True)
    raise SystemExit(1)


def _say(opened: Office, member: str, entry: Entry, done: str, provider: str | None, as_json: bool) -> None:
    opened.ledger.apply([steering.say("members", {member: entry or None})])
    _tell(_View.of(opened), member, done, provider, as_json)


def _tell(view: _View, member: str, done: str, provider: str | None, as_json: bool) -> None:
    """What was done, or as JSON what is so now."""
    if as_json:
        ip = next(pool.members[member].ip for pool in view.opened.settings.pools.values() if member in pool.members)
        print_json(_document(view, member, ip))
    else:
        click.echo(f"{member}{f' to {provider}' if provider else ''}: {done}")


def _document(view: _View, member: str, ip: str) -> dict[str, Any]:
    entry, warming, now_ms = view.entry(member), view.plan.get(member), view.words.now_ms
    listed = view.providers(member)
    snapshots = view.read((member, provider) for provider in listed)
    whole = warmup.pause_of(entry, EVERY, now_ms)
    is_warm = warming is None or warming.over(view.today, entry)
    return {
        "member": member,
        "ip": ip,
        "state": "paused" if whole else "warm" if is_warm else "warming",
        "paused": _pause(whole),
        "warmup": None if warming is None else {"start": warming.start, **_progress(view, warming, EVERY)},
        "providers": [
            {
                "provider": provider,
                **(_progress(view, warming, provider) if warming else {}),
                "daily_used": snapshot.balances[0].used,
                "hourly_used": snapshot.balances[1].used,
                "today": {name: snapshot.today.get(name, 0) for name in warmup.JUDGED},
                "paused": _pause(warmup.pause_of(entry, provider, now_ms)),
                **outcomes,
            }
            for provider, snapshot, outcomes in zip(listed, snapshots, view.outcomes(member, listed), strict=True)
        ],
    }


def _progress(view: _View, warming: Warming, provider: str) -> dict[str, Any]:
    entry = view.entry(warming.member)
    caps = view.caps(warming.member, provider)
    step = warmup.next_step(warming, provider, view.today, entry)
    return {
        "day": warmup.day_of(warming.start, view.today, warmup.back_of(entry, provider)),
        "days": len(warming.schedule(provider)),
        "back": warmup.back_of(entry, provider),
        **_caps(caps),
        "next": None if step is None else {"date": step[0], **_caps(step[1])},
    }


def _caps(caps: Caps | None) -> dict[str, int | None]:
    return {"daily_cap": caps.daily if caps else None, "hourly_cap": caps.hourly if caps else None}


def _pause(found: warmup.Pause | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"whole": found.provider == EVERY, "reason": found.reason, "by": found.by, "until": iso_time(found.until_ms or 0)}


def _print(documents: list[dict[str, Any]]) -> None:
    if not documents:
        console().print("no pools")
        return
    titles = "pool", "member", "ip", "state", "provider", "day", "24 h", "hour", "next"
    table = Table(*titles, box=None, header_style="bold", pad_edge=False)
    pauses = []
    for pool in documents:
        for member in pool["members"]:
            head = [pool["pool"], member["member"], member["ip"], member["state"]]
            if member["paused"]:
                pauses.append(_pause_line(member["member"], member["paused"]))
            for row in member["providers"] or [{"provider": "-", **(member["warmup"] or {})}]:
                table.add_row(*(escape(plain(cell)) for cell in (*head, *_cells(row))))
                if row.get("paused") and not row["paused"]["whole"]:
                    pauses.append(_pause_line(f"{member['member']} to {row['provider']}", row["paused"]))
    console().print(table)
    if (outcomes := member_table(documents)).row_count:
        console().print(outcomes)
    for line in pauses:
        console().print(escape(plain(line)))


def _cells(row: dict[str, Any]) -> list[str]:
    step = row.get("next")
    if row.get("daily_cap") is None:
        return [row["provider"], "-", str(row.get("daily_used", "-")), str(row.get("hourly_used", "-")), "-"]
    used = [f"{row.get(f'{span}_used', 0)}/{row[f'{span}_cap']}" for span in ("daily", "hourly")]
    ahead = "-" if step is None else f"{step['date']} {'warm' if step['daily_cap'] is None else step['daily_cap']}"
    return [row["provider"], f"{row['day']} of {row['days']}", *used, ahead]


def _pause_line(who: str, pause: dict[str, Any]) -> str:
    until = f" until {pause['until']}" if pause["until"] else ""
    return f"{who}: paused{until} by {pause['by'] or 'unknown'}{_because(pause['reason'])}"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
