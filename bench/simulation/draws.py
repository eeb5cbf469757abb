"""draws - random counts by the standard library alone.  Part of the SIMULATION.

numpy would draw a year at once, but a slice is built of Python objects, which costs more than its dozen draws.  So nothing is
won by it, and nothing more needs to be installed.

Known limits: means above 30 are drawn from a normal distribution rounded to whole numbers; fewer than one in 10^7 of these
would be below zero, and is zero.  Binomial counts of rare events are drawn as Poisson counts: their variance is up to a tenth
too large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

_LARGE = 30.0
_FEW = 16
_RARE = 0.1


def poisson(rng: Random, mean: float) -> int:
    """A count of independent events."""
    if mean <= 0:
        return 0
    if mean > _LARGE:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    least, product, count = math.exp(-mean), rng.random(), 0
    while product > least:
        product *= rng.random()
        count += 1
    return count


def wobble(rng: Random, dispersion: float) -> float:
    """A factor around 1 with this variance (gamma); with `poisson` of it a count is negative binomial."""
    return rng.gammavariate(1 / dispersion, dispersion) if dispersion > 0 else 1.0


def binomial(rng: Random, number: int, chance: float) -> int:
    """How many of `number` happen."""
    if number <= 0 or chance <= 0:
        return 0
    if chance >= 1:
        return number
    if chance > 0.5:
        return number - binomial(rng, number, 1 - chance)
    mean = number * chance
    if number <= _FEW or (mean <= _LARGE and chance > _RARE):
        return sum(rng.random() < chance for _ in range(number))
    if mean <= _LARGE:
        return min(number, poisson(rng, mean))
    return min(number, max(0, round(rng.gauss(mean, math.sqrt(mean * (1 - chance))))))


def shares(rng: Random, number: int, weights: Sequence[float]) -> list[int]:
    """`number` dealt out by weight; the parts sum up to it."""
    left, rest, parts = number, sum(weights), []
    for weight in weights[:-1]:
        part = binomial(rng, left, weight / rest) if left and rest > 0 else 0
        parts.append(part)
        left -= part
        rest -= weight
    parts.append(left)
    return parts


def between(rng: Random, low: float, high: float) -> float:
    """Log-uniform: as many of 20 to 200 as of 2,000 to 20,000."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def chosen(rng: Random, chances: dict[str, float]) -> str:
    """One of the names, by weight."""
    return rng.choices(list(chances), list(chances.values()))[0]
