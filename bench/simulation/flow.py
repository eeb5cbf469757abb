"""flow - what a stream of messages is made of, and slices full of it.  Part of the SIMULATION.

A Flow says which templates it has, whom it goes to, where it comes from, and what comes of it.  `fill` adds so many messages
of it to a slice of `patterns.traffic`, as the monitor's gatherer would have made it of them; `outcomes` adds what came of them,
which is later where delivery takes its time.

Known limits: templates, domains and outcomes are independent of each other.  Nobody is deferred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from relaywarden_monitor.patterns.traffic import Group, Slice
from simulation.draws import binomial, poisson, shares

_MOST_GROUPS = 32  # of a slice: `patterns.gather` keeps no more
_MOST_DOMAINS = 64  # so does it with these
_NOISE = 0.08  # standard deviation of the content score of one message around its template's
_SCORE_NOISE = 2.0  # of rspamd's
_MOST_ODD = 6  # fingerprints of a slice that never come again
_TABLE = 900  # recipients that `patterns.novelty` can tell apart, about


@dataclass(frozen=True, slots=True)
class Template:
    """A body fingerprint; `bulk` is its mean content score."""

    fingerprint: int
    weight: float
    bulk: float


@dataclass(frozen=True, slots=True)
class Flow:
    """What messages are like; shares are 0 to 1."""

    templates: tuple[Template, ...]
    fresh: float  # share of recipients that the tenant has not sent to in a month
    domains: tuple[tuple[str, float], ...]  # of recipients, with weights; the name "" stands for the long tail
    from_domains: tuple[str, ...]
    networks: tuple[str, ...]
    helo: str
    login: str
    odd: float = 0.02  # share of messages whose fingerprint never comes again
    invalid: float = 0.005
    blocked: float = 0.0005
    complained: float = 0.0001
    score: float = -1.0  # rspamd's mean
    each: float = 1.0  # recipients of a message
    tail: str = "d"  # what domains of the long tail are called
    tail_size: int = 3000  # how many there are; the first ones come most often
    at_once: int = 2  # networks and From domains in one slice


def remembered(fresh: float, population: float) -> float:
    """The share of recipients that look new: of many the small table of `patterns.novelty` has forgotten most.

    `population`: recipients that the tenant writes to again and again.
    """
    return 1 - (1 - fresh) * min(1.0, _TABLE / max(1.0, population))


def fill(piece: Slice, flow: Flow, recipients: int, rng: Random) -> int:
    """Add messages to so many recipients; returns their number."""
    messages = recipients if flow.each <= 1 else max(1, round(recipients / flow.each)) if recipients else 0
    if not messages:
        return 0
    piece.messages += messages
    piece.recipients += recipients
    piece.new_recipients += binomial(rng, recipients, flow.fresh)
    _templates(piece, flow, messages, recipients, rng)
    for (name, _), count in zip(flow.domains, shares(rng, recipients, [weight for _, weight in flow.domains]), strict=True):
        if not name:
            _tail(piece, flow, count, rng)
        elif count:
            piece.domains[name] += count
    piece.from_domains |= _some(flow.from_domains, flow.at_once, rng)
    piece.networks |= _some(flow.networks, flow.at_once, rng)
    piece.helos |= {flow.helo}
    piece.logins |= {flow.login}
    piece.score += messages * flow.score + rng.gauss(0, _SCORE_NOISE * math.sqrt(messages))
    piece.scored += messages
    return messages


def outcomes(piece: Slice, flow: Flow, recipients: int, rng: Random) -> None:
    """Add what came of mail to so many recipients."""
    invalid = binomial(rng, recipients, flow.invalid)
    blocked = binomial(rng, recipients - invalid, flow.blocked)
    piece.invalid += invalid
    piece.blocked += blocked
    piece.delivered += recipients - invalid - blocked
    piece.complained += poisson(rng, recipients * flow.complained)


def _templates(piece: Slice, flow: Flow, messages: int, recipients: int, rng: Random) -> None:
    odd = binomial(rng, messages, flow.odd)
    parts = shares(rng, messages - odd, [template.weight for template in flow.templates])
    found = [(template.fingerprint, template.bulk, count) for template, count in zip(flow.templates, parts, strict=True)]
    kinds = min(odd, _MOST_ODD)
    mean = sum(template.bulk for template in flow.templates) / len(flow.templates)
    found += [(rng.getrandbits(64), mean, odd // kinds) for _ in range(kinds)]
    for fingerprint, bulk, count in found:
        if not count:
            continue
        summed = min(float(count), max(0.0, count * bulk + rng.gauss(0, _NOISE * math.sqrt(count))))
        piece.bulk += summed
        if fingerprint not in piece.groups and len(piece.groups) >= _MOST_GROUPS:
            continue
        group = piece.groups.setdefault(fingerprint, Group())
        group.messages += count
        group.recipients += round(count * recipients / messages)
        group.bulk += summed


def _tail(piece: Slice, flow: Flow, count: int, rng: Random) -> None:
    """Domains of which there are many.  Those of a long slice stand for all that short ones would have named."""
    named = min(count, max(1, _MOST_DOMAINS - len(piece.domains)))
    for number in range(named):
        name = f"{flow.tail}{int(flow.tail_size ** rng.random())}.example"
        piece.domains[name] += (number + 1) * count // named - number * count // named


def _some(names: Sequence[str], most: int, rng: Random) -> frozenset[str]:
    return frozenset(names if len(names) <= most else rng.sample(names, most))
