"""chance - how improbable a count or a share is, in powers of ten.  Pure.

Both functions return -log10 P(X >= what was seen): 0.3 for what happens every other time, 6 for what happens once in a million
times.  They take the signed root of the deviance for a normal deviate, with a correction for whole numbers; this costs two
logarithms, never underflows, and against the exact sums is off by less than a third of a power of ten up to 1e-12.

Known limit: counts of a few, where the mean is far below one, come out up to half a power too probable or too improbable.
"""

from __future__ import annotations

import math

_LOG10 = math.log(10)
_ROOT2 = math.sqrt(2)
_FAR = 20.0  # deviates beyond which erfc nears its smallest numbers
_LEAST_MEAN = 1e-4
_POISSON = 1e-6  # dispersions below this are none


def of_count(count: float, mean: float, dispersion: float) -> float:
    """Of at least `count` events where `mean` are expected with variance mean + dispersion * mean^2 (negative binomial)."""
    seen, mean = count - 0.5, max(mean, _LEAST_MEAN)
    if seen <= 0:
        return 0.0
    if dispersion < _POISSON:
        deviance = seen * math.log(seen / mean) - seen + mean
    else:
        size = 1 / dispersion
        deviance = seen * math.log(seen / mean) - (seen + size) * math.log((seen + size) / (mean + size))
    root = math.sqrt(max(0.0, 2 * deviance))
    return of_deviate(root if seen >= mean else -root)


def of_share(part: float, whole: float, usual: float) -> float:
    """Of at least `part` of `whole`, where each is one with probability `usual` (binomial)."""
    seen = min(part, whole) - 0.5
    if seen <= 0:
        return 0.0
    rest = whole - seen
    usual = min(max(usual, 1e-6), 1 - 1e-6)
    deviance = seen * math.log(seen / (whole * usual)) + rest * math.log(rest / (whole * (1 - usual)))
    root = math.sqrt(max(0.0, 2 * deviance))
    return of_deviate(root if seen >= whole * usual else -root)


def of_deviate(deviate: float) -> float:
    """Of a standard normal deviate at least this large."""
    if deviate > _FAR:
        return (deviate * deviate / 2 + math.log(deviate * math.sqrt(2 * math.pi))) / _LOG10
    return -math.log10(0.5 * math.erfc(deviate / _ROOT2))
