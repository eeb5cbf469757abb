"""profile - honest tenants: of which sort, how large, and what their ordinary mail is like.  Part of the SIMULATION.

The sorts and their frequencies are assumptions, as are all figures here: what a relay of transactional mail plausibly carries.
No real relay's figures are public.  A tenant is drawn from its seed and number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from simulation.draws import between, chosen
from simulation.flow import Flow, Template, remembered
from simulation.rhythm import shape

SMALLEST, LARGEST = 20.0, 200_000.0  # recipients a day
_CONSUMERS = (("gmail.com", 40.0), ("outlook.com", 9.0), ("hotmail.com", 8.0), ("yahoo.com", 8.0), ("icloud.com", 6.0),
              ("gmx.de", 5.0), ("web.de", 4.0), ("", 20.0))  # fmt: skip
_BUSINESSES = (("gmail.com", 12.0), ("outlook.com", 6.0), ("", 82.0))


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of tenant; pairs are the bounds of a uniform draw."""

    weight: float  # how many there are
    shape: str  # of rhythm.SHAPES
    fresh: tuple[float, float]  # share of new recipients
    templates: tuple[int, int]
    people: bool = True  # recipients are consumers, not businesses
    bulk: tuple[float, float] = (0.05, 0.3)  # content score of its templates
    faithful: tuple[float, float] = (3.0, 60.0)  # days of mail that make its population of recipients (log-uniform)
    size: tuple[float, float] = (SMALLEST, LARGEST)


SORTS: dict[str, Sort] = {
    "receipts": Sort(18, "office", (0.2, 0.5), (2, 6)),
    "shop": Sort(14, "evening", (0.4, 0.7), (3, 8)),
    "otp": Sort(12, "awake", (0.08, 0.3), (1, 3), bulk=(0.03, 0.15)),
    "invoices": Sort(10, "office", (0.03, 0.15), (2, 5), people=False),
    "growth": Sort(6, "awake", (0.3, 0.6), (3, 8), size=(SMALLEST, 20_000)),
    "launch": Sort(5, "awake", (0.3, 0.6), (2, 6), size=(SMALLEST, 20_000)),
    "small": Sort(10, "office", (0.2, 0.5), (1, 4), size=(2, SMALLEST)),
    "alerts": Sort(6, "even", (0.0, 0.02), (1, 4), people=False, faithful=(0.05, 0.3), size=(SMALLEST, 2_000)),
    "seasonal": Sort(5, "awake", (0.3, 0.6), (2, 6)),
    "statements": Sort(5, "office", (0.02, 0.1), (2, 5), bulk=(0.15, 0.4)),
    "onboarding": Sort(3, "awake", (0.3, 0.6), (2, 6), size=(100, 50_000)),
    "platform": Sort(3, "awake", (0.3, 0.7), (1, 2), size=(500, LARGEST)),
    "roaming": Sort(2, "office", (0.1, 0.4), (2, 5), people=False, size=(SMALLEST, 2_000)),
    "breach": Sort(1, "awake", (0.1, 0.4), (2, 6), size=(500, 50_000)),
}
_DOUBTFUL = 0.1  # of templates read half like marketing
_FORGOTTEN = 0.05  # of tenants with texts that no fingerprint recognises
_LAPTOPS, _CUSTOMERS = 60, 40


@dataclass(frozen=True, slots=True)
class Profile:
    """One tenant; the dispersions are variances of factors around 1."""

    name: str
    sort: str
    size: float  # recipients on a mean day
    start: float  # of the simulation, a midnight; seconds since 1970
    days: int
    zone: int  # hours ahead of UTC
    hours: list[float]  # factors by hour of the week
    flow: Flow
    population: float  # recipients written to again and again
    weekly: float  # growth
    peak: float | None  # of the year, for seasonal ones
    of_day: float
    of_hour: float
    of_minute: float


def draw(rng: Random, name: str, start: float, days: int, *, sort: str | None = None, exact: bool = False) -> Profile:
    """A tenant; `exact`: recipients are known as new or not, without the limits of `patterns.novelty`."""
    sort = sort or chosen(rng, {name: sort.weight for name, sort in SORTS.items()})
    kind = SORTS[sort]
    size, zone = between(rng, *kind.size), rng.choice((-8, -5, 0, 1, 1, 2, 8))
    population = max(5.0, size * between(rng, *kind.faithful))
    flow = _flow(rng, name, sort, population, exact=exact)
    return Profile(
        name, sort, size, start, days, zone, shape(kind.shape, zone), flow, population,
        weekly={"growth": 0.05}.get(sort, rng.uniform(-0.005, 0.01)),
        peak=rng.random() if sort == "seasonal" else None,
        of_day=rng.uniform(0.01, 0.06), of_hour=rng.uniform(0.03, 0.25), of_minute=rng.uniform(0.1, 1.0),
    )  # fmt: skip


def is_shop(profile: Profile) -> bool:
    """Whether its year is that of shops."""
    return profile.sort in ("shop", "platform")


def template(rng: Random, low: float, high: float, weight: float = 1.0) -> Template:
    """A new template."""
    bulk = rng.uniform(0.42, 0.55) if rng.random() < _DOUBTFUL else rng.uniform(low, high)
    return Template(rng.getrandbits(64), weight, bulk)


def network(rng: Random) -> str:
    """A client network, of those that nobody routes (RFC 1918)."""
    return f"10.{rng.randrange(256)}.{rng.randrange(256)}.0/24"


def _flow(rng: Random, name: str, sort: str, population: float, *, exact: bool) -> Flow:
    kind = SORTS[sort]
    fresh = rng.uniform(*kind.fresh)
    many = rng.randint(*kind.templates)
    templates = tuple(template(rng, *kind.bulk, weight=between(rng, 1, 10)) for _ in range(many))
    networks = [network(rng) for _ in range(_LAPTOPS if sort == "roaming" else rng.choice((1, 1, 2, 3)))]
    senders = [f"{name}.example"] if sort != "platform" else [f"shop{n}.{name}.example" for n in range(_CUSTOMERS)]
    return Flow(
        templates, fresh if exact else remembered(fresh, population), _CONSUMERS if kind.people else _BUSINESSES,
        tuple(senders), tuple(networks), helo=f"app.{name}.example", login=name,
        odd=0.3 if rng.random() < _FORGOTTEN else rng.uniform(0.0, 0.03),
        invalid=between(rng, 0.001, 0.02), blocked=0.0005, complained=between(rng, 0.00002, 0.0003), score=rng.uniform(-3, 1),
        tail="d" if kind.people else f"{name}-", tail_size=3000 if kind.people else max(20, round(population)),
        each=1.0 if sort != "alerts" else rng.uniform(1, 5),
    )  # fmt: skip
