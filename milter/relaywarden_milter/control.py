"""control - the headers that steer a relay, which no client may send.  Pure.

PowerMTA obeys X-Virtual-MTA, X-Job, X-Envid, X-DKIM-Options, X-DKIM-Key and X-Schedule in messages it takes; Postfix obeys
the route header through milter_header_checks.  A client that could send one would choose its own source address or queue.
Copies from clients are deleted from every message, authenticated or not, before anything else looks at it; they are never
signed, because they are gone (or ours, and removed again on the way out).
"""

from __future__ import annotations

from collections.abc import Callable

from relaywarden.config.settings import Settings

_POWERMTA = ("x-virtual-mta", "x-job", "x-envid", "x-dkim-options", "x-dkim-key", "x-schedule")
_OURS = "x-relaywarden-"
FEEDBACK = frozenset(["feedback-id", "cfbl-address", "cfbl-feedback-id"])  # ours in a tenant's mail (`stages.carriage`)
MOST_FORGED = 100  # Postfix searches its queue file for each header that is deleted, and breaks down over many thousand


def matcher(settings: Settings) -> Callable[[str], bool]:
    """Is a header of this name (in lower case) ours alone?"""
    names = {*_POWERMTA, settings.route.header.lower()}
    if settings.scan is not None:
        names.add(settings.scan.spam_header.lower())
    exact = frozenset(names)
    return lambda name: name in exact or name.startswith(_OURS)
