"""honest - what happens to honest tenants: rushes, month ends, launches, outages, changes.  Part of the SIMULATION.

`plan` draws everything that a tenant will do.  Every sort has its own events (a rush of one-time passwords, invoices on the
first of the month), and all sorts share incidents that come once in a while: a template is rewritten, the office moves to
another network, the brand is renamed, the tenant's own application is down and then flushes its backlog, or it sends again and
again what limits refuse.

Known limits: events are independent of each other, and so may coincide.  They come from the networks and with the texts that
the tenant had on its first day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from simulation.bout import MINUTE, Bout, Plan
from simulation.draws import between, chosen
from simulation.flow import Flow, Template
from simulation.profile import Profile, network, template
from simulation.rhythm import DAY, HOUR, hour_of_week, is_first

# Incidents of any tenant: days between two of them, in the mean.
_REWRITTEN, _MOVED, _REBRANDED, _OUTAGE, _RETRIES = 60.0, 200.0, 700.0, 90.0, 150.0
_CLOUDY, _REDEPLOYED = 0.1, 10.0  # the share of tenants in a cloud without fixed addresses, and what _MOVED is for these
_LAUNCH = 20.0  # times a mean day
_LAUNCH_DAY = (1, 3, 8, 10, 8, 7, 6, 6, 5, 4, 3, 2)  # twelve parts
_LATE = 21  # days before which no launch or breach comes: an operator hears of a new tenant's plans


def plan(rng: Random, profile: Profile) -> Plan:
    """Everything that this tenant does, without misuse."""
    flows = list(_changes(rng, profile))
    events = _EVENTS.get(profile.sort)
    bouts = [*(events(rng, profile) if events else ()), *_incidents(rng, profile)]
    return Plan(profile, flows, sorted(bouts, key=lambda bout: bout.begin))


def grown(profile: Profile, at: float) -> float:
    """The size of a mean day by then."""
    return profile.size * float((1 + profile.weekly) ** ((at - profile.start) / DAY / 7))


def _changes(rng: Random, profile: Profile) -> Iterator[tuple[float, Flow]]:
    flow, moved = profile.flow, _REDEPLOYED if rng.random() < _CLOUDY else _MOVED
    yield profile.start, flow
    chances = {"rewritten": 1 / _REWRITTEN, "moved": 1 / moved, "rebranded": 1 / _REBRANDED}
    for at in _times(rng, profile, 1 / sum(chances.values())):
        what = chosen(rng, chances)
        if what == "rewritten":
            old = rng.choice(flow.templates)
            new = replace(template(rng, 0.05, 0.3), weight=old.weight)
            flow = replace(flow, templates=tuple(new if item is old else item for item in flow.templates))
        elif what == "moved":
            flow = replace(flow, networks=(network(rng),))
        else:
            brand = f"brand{rng.randrange(10_000)}.example"
            flow = replace(flow, from_domains=(brand,), helo=f"app.{brand}")
        yield at, flow


def _incidents(rng: Random, profile: Profile) -> Iterator[Bout]:
    for at in _times(rng, profile, _OUTAGE):
        down = between(rng, 0.5, 8) * HOUR
        missed = profile.size * sum(profile.hours[hour_of_week(at + n * 600)] for n in range(int(down / 600))) / 24 / 6
        yield Bout("outage", at, down, 0, profile.flow, ordinary=0.0)
        yield Bout("backlog", at + down, between(rng, 5, 40) * MINUTE, missed, profile.flow)
    for at in _times(rng, profile, _RETRIES):
        many = between(rng, 1, 10) * max(50.0, profile.size / 24)
        yield Bout("retries", at, between(rng, 0.5, 6) * HOUR, profile.size / 24, profile.flow, refused=many)


def _otp(rng: Random, profile: Profile) -> Iterator[Bout]:
    """An app's event: everybody logs in at once."""
    for at in _times(rng, profile, rng.uniform(4, 14)):
        many = profile.size / 24 * between(rng, 2, 15)
        yield Bout("rush", at, between(rng, 5, 20) * MINUTE, many, _only(profile.flow, 0), pattern=(2, 5, 3, 2, 1))


def _shop(rng: Random, profile: Profile) -> Iterator[Bout]:
    """Shipments: one batch at the end of a working day."""
    flow, hour = _only(profile.flow, 1), rng.randint(14, 18) - profile.zone
    for day in range(profile.days):
        at = profile.start + day * DAY + hour * HOUR + rng.uniform(0, 900)
        if hour_of_week(at + profile.zone * HOUR) < 120:
            yield Bout("shipments", at, between(rng, 5, 30) * MINUTE, 0.25 * grown(profile, at) * rng.uniform(0.7, 1.3), flow)


def _invoices(rng: Random, profile: Profile) -> Iterator[Bout]:
    """On the first of the month, ten to thirty times a mean day; every third tenant puts the month's news in the text."""
    flow, times, news = _only(profile.flow, 0), rng.uniform(10, 30), rng.random() < 0.3
    for day in range(profile.days):
        at = profile.start + day * DAY
        if is_first(at):
            if news:
                flow = _with(flow, template(rng, 0.05, 0.4), flow.fresh)
            begin = at + (6 - profile.zone) * HOUR + rng.uniform(0, HOUR)
            yield Bout("invoices", begin, between(rng, 1, 8) * HOUR, grown(profile, at) * times * rng.uniform(0.9, 1.1), flow)


def _launch(rng: Random, profile: Profile) -> Iterator[Bout]:
    """Twenty times a mean day, once, to people who never had mail from the tenant; often with a new text or on new machines."""
    if profile.days > _LATE:
        at = profile.start + rng.randrange(_LATE, profile.days) * DAY + 8 * HOUR
        flow = replace(profile.flow, fresh=0.95)
        if rng.random() < 0.5:
            flow = _with(flow, template(rng, 0.05, 0.3), 0.95)
        if rng.random() < 0.15:
            flow = replace(flow, networks=(network(rng),))
        yield Bout("launch", at, 12 * HOUR, _LAUNCH * grown(profile, at), flow, pattern=_LAUNCH_DAY)


def _alerts(rng: Random, profile: Profile) -> Iterator[Bout]:
    """Something breaks, and every sensor says so to the same few people."""
    for at in _times(rng, profile, rng.uniform(5, 20)):
        yield Bout(
            "storm", at, between(rng, 10, 60) * MINUTE, between(rng, 200, 5000), _only(profile.flow, 0), pattern=(3, 5, 4, 2, 1)
        )


def _statements(rng: Random, profile: Profile) -> Iterator[Bout]:
    """Once a week to all customers, on the same morning."""
    flow = _with(profile.flow, Template(rng.getrandbits(64), 1.0, rng.uniform(0.3, 0.5)), fresh=profile.flow.fresh)
    weekday, many = rng.randrange(5), profile.size * rng.uniform(5, 20)
    for day in range(profile.days):
        at = profile.start + day * DAY + (7 - profile.zone) * HOUR + rng.uniform(0, 600)
        if hour_of_week(at + profile.zone * HOUR) // 24 == weekday:
            yield Bout("statements", at, rng.uniform(0.5, 3) * HOUR, many * rng.uniform(0.95, 1.05), flow)


def _breach(rng: Random, profile: Profile) -> Iterator[Bout]:
    """Everybody whose data leaked is told, as the law asks; a grant covers it."""
    if profile.days > _LATE:
        at = profile.start + rng.randrange(_LATE, profile.days) * DAY + 10 * HOUR
        flow = _with(profile.flow, Template(rng.getrandbits(64), 1.0, rng.uniform(0.2, 0.6)), fresh=0.9)
        yield Bout("breach", at, 3 * HOUR, max(1000.0, 30 * profile.size), flow, granted=True)


_EVENTS: dict[str, Callable[[Random, Profile], Iterator[Bout]]] = {
    "otp": _otp, "shop": _shop, "invoices": _invoices, "launch": _launch, "alerts": _alerts, "statements": _statements,
    "breach": _breach,
}  # fmt: skip


def _times(rng: Random, profile: Profile, days: float) -> Iterator[float]:
    """Moments at random, so many days apart in the mean; by day, for most things happen then."""
    at = profile.start + rng.expovariate(1 / days) * DAY
    while at < profile.start + profile.days * DAY:
        hour = (rng.randint(7, 21) - profile.zone) % 24
        yield at // DAY * DAY + hour * HOUR + rng.uniform(0, HOUR)
        at = (at // DAY + 1) * DAY + rng.expovariate(1 / days) * DAY


def _only(flow: Flow, index: int) -> Flow:
    return replace(flow, templates=(flow.templates[min(index, len(flow.templates) - 1)],))


def _with(flow: Flow, item: Template, fresh: float) -> Flow:
    return replace(flow, templates=(item,), fresh=fresh)
