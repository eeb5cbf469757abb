"""misuse - what thieves and careless customers do with a login for transactional mail.  Part of the SIMULATION.

Each kind of KINDS puts its bouts upon an honest plan, from a day on that the caller chooses.  Slices are of five seconds while
a burst lasts, as the monitor makes them; bounces come ten seconds after their message.

Known limits: thieves do not adapt to being slowed; nobody changes his password.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from simulation.bout import MINUTE, Bout
from simulation.draws import between
from simulation.flow import Flow, Template
from simulation.honest import grown
from simulation.profile import Profile, network
from simulation.rhythm import DAY, HOUR

FINE = 5.0  # seconds of a slice, as `patterns.gather`
_LAG = 10.0  # seconds until a bounce is known
_MOST_BURST = 15_000  # recipients of a burst that are enough to see the end of the ladder
_SPAM_DOMAINS = (
    ("comcast.net", 10.0),
    ("hotmail.com", 20.0),
    ("aol.com", 15.0),
    ("orange.fr", 10.0),
    ("libero.it", 10.0),
    ("", 35.0),
)


@dataclass(frozen=True, slots=True)
class Misuse:
    """One kind, and what is expected of the engine."""

    make: Callable[[Random, Profile, float], Iterator[Bout]]  # from this midnight on
    seconds: float = 0.0  # in time is within so many seconds,
    messages: float = 0.0  # or so many messages, whichever is later
    share: float = 0.0  # that has to be in time; 0: reported alone
    fewest: float = 20.0  # recipients a day of the tenants that it happens to
    settled: bool = True  # happens to tenants that are known for three weeks


def _stolen(rng: Random, profile: Profile, at: float, *, own_network: bool = False) -> Iterator[Bout]:
    flow = _thief(rng, profile.flow, 1 if rng.random() < 0.5 else 6, invalid=rng.uniform(0.05, 0.2))
    if own_network:
        flow = replace(flow, networks=profile.flow.networks)
    rate, seconds = between(rng, 5, 50), between(rng, 5, 30) * MINUTE
    many = min(rate * seconds, _MOST_BURST)
    yield Bout("", at, many / rate, many, flow, step=FINE, lag=_LAG)


def _at_night(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    return _stolen(rng, profile, day + (3 - profile.zone) % 24 * HOUR + rng.uniform(-HOUR, HOUR))


def _by_day(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    return _stolen(rng, profile, _daytime(rng, profile, day))


def _own_network(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    """A virus on the customer's own machine."""
    return _stolen(rng, profile, _daytime(rng, profile, day), own_network=True)


def _drip(times: float) -> Callable[[Random, Profile, float], Iterator[Bout]]:
    def make(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
        flow = _thief(rng, profile.flow, 3, invalid=rng.uniform(0.03, 0.1))
        yield Bout("", day + rng.uniform(0, DAY), 2 * DAY, 2 * (times - 1) * grown(profile, day), flow, step=300.0, lag=_LAG)

    return make


def _newsletter(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    many, flow = _list(rng, profile, day)
    seconds = max(between(rng, 2, 60) * MINUTE, many / 50)
    sent = min(1.0, _MOST_BURST / many)
    yield Bout("", _daytime(rng, profile, day), seconds * sent, many * sent, flow, step=FINE, lag=_LAG)


def _pieces(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    many, flow = _list(rng, profile, day)
    begin, many = _daytime(rng, profile, day), min(many, _MOST_BURST)
    for number in range(10):
        yield Bout("", begin + number * 12 * MINUTE, 2 * MINUTE, many / 10, flow, step=FINE, lag=_LAG)


def _washing(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    """A bought list is sent to, to see which addresses bounce."""
    flow = replace(_customer(rng, profile.flow, rng.uniform(0.2, 0.6)), fresh=1.0, invalid=0.3)
    yield Bout(
        "", _daytime(rng, profile, day), between(rng, 10, 60) * MINUTE, between(rng, 500, 10_000), flow, step=FINE, lag=_LAG
    )


def _form(rng: Random, profile: Profile, day: float) -> Iterator[Bout]:
    """A form on the customer's web site sends what strangers type, to whom they say."""
    flow = _thief(rng, profile.flow, 3, invalid=rng.uniform(0.05, 0.15))
    flow = replace(flow, networks=profile.flow.networks, from_domains=profile.flow.from_domains, helo=profile.flow.helo)
    hours = rng.uniform(12, 30)
    yield Bout("", day + rng.uniform(0, DAY), hours * HOUR, rng.uniform(2, 6) * 60 * hours, flow, lag=_LAG)


KINDS: dict[str, Misuse] = {
    "stolen-night": Misuse(_at_night, seconds=60, messages=200, share=0.95),
    "stolen-day": Misuse(_by_day, seconds=60, messages=200, share=0.95),
    "stolen-own-network": Misuse(_own_network, seconds=60, messages=200),
    "stolen-unsettled": Misuse(_at_night, seconds=60, messages=200, settled=False),
    "newsletter": Misuse(_newsletter, messages=300, share=0.9),
    "newsletter-pieces": Misuse(_pieces, messages=300, share=0.9),
    "drip-3x": Misuse(_drip(3), seconds=DAY, share=0.95, fewest=100),
    "drip-2x": Misuse(_drip(2), seconds=DAY, fewest=100),
    "washing": Misuse(_washing, messages=200),
    "form": Misuse(_form, seconds=DAY),
}


def bouts(rng: Random, kind: str, profile: Profile, day: float) -> list[Bout]:
    """Misuse of this kind from this midnight on."""
    return [replace(bout, label=kind, misuse=True) for bout in KINDS[kind].make(rng, profile, day)]


def _daytime(rng: Random, profile: Profile, day: float) -> float:
    return day + (rng.uniform(9, 17) - profile.zone) % 24 * HOUR


def _list(rng: Random, profile: Profile, day: float) -> tuple[float, Flow]:
    many = min(200_000.0, max(500.0, grown(profile, day) * between(rng, 2, 50)))
    return many, _customer(rng, profile.flow, rng.uniform(0.7, 0.98))


def _thief(rng: Random, flow: Flow, templates: int, invalid: float) -> Flow:
    """Strangers, new texts, other networks, and every other time another From domain."""
    texts = tuple(Template(rng.getrandbits(64), 1.0, rng.uniform(0.1, 0.9)) for _ in range(templates))
    return replace(
        flow, templates=texts, tail="s", tail_size=20_000, odd=rng.choice((0.0, 0.1, 0.9)),
        fresh=rng.uniform(0.97, 1.0), domains=_SPAM_DOMAINS,
        from_domains=flow.from_domains if rng.random() < 0.5 else (f"login{rng.randrange(10_000)}.example",),
        networks=tuple(network(rng) for _ in range(rng.choice((1, 1, 3, 20)))), helo=f"host{rng.randrange(10_000)}",
        invalid=invalid, blocked=rng.uniform(0, 0.1), complained=0.0, score=rng.uniform(1, 10), each=1.0, at_once=4,
    )  # fmt: skip


def _customer(rng: Random, flow: Flow, bulk: float) -> Flow:
    """The tenant itself, with a list; three of ten use another program from another place."""
    new = rng.uniform(0.3, 0.9)
    flow = replace(
        flow, templates=(Template(rng.getrandbits(64), 1.0, bulk),), odd=0.0, fresh=max(flow.fresh, new),
        invalid=rng.uniform(0.02, 0.08), complained=0.0, score=rng.uniform(0, 5), each=1.0,
    )  # fmt: skip
    return replace(flow, networks=(network(rng),), helo="mailer") if rng.random() < 0.3 else flow
