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
_FEEDBACK = ("feedback-id", "cfbl-address", "cfbl-feedback-id")


def matcher(settings: Settings) -> Callable[[str], bool]:
    """Is a header of this name (in lower case) ours alone?"""
    names = {*_POWERMTA, settings.route.header.lower()}
    if settings.scan is not None:
        names.add(settings.scan.spam_header.lower())
    if settings.operator.feedback is not None:
        names.update(_FEEDBACK)  # else a client could have its complaints counted as another's
    exact = frozenset(names)
    return lambda name: name in exact or name.startswith(_OURS)
