"""identity - mail from a network, under a From domain, a HELO name or a login that the tenant never used.  Pure.

A new name weighs as much as days with a new one are rare for this tenant, and more where network and From domain are both new.
By itself it is an office that moved, or a brand.
"""

from __future__ import annotations

from collections.abc import Iterator

from relaywarden_monitor.patterns.evidence import Evidence, Kind
from relaywarden_monitor.patterns.record import SORTS
from relaywarden_monitor.patterns.signals.look import Look

_MANY = 4  # new ones at once: a botnet, or a cloud
_MANY_MORE = 0.5
_WORDS = {"network": "client network", "from": "From domain", "helo": "HELO name", "login": "login"}
_TOLD = 3
_TOGETHER = 2  # of SORTS: network and From domain
_LEAST = 0.3


def identity(look: Look) -> Iterator[Evidence]:
    """One evidence for each sort of name of which there is a new one."""
    signals = look.settings.signals
    both = all(names.fresh(look.record.hour) for names in look.record.names[:_TOGETHER])
    for sort, names in zip(SORTS, look.record.names, strict=True):
        if not names.any_told() or not (fresh := names.fresh(look.record.hour)):
            continue
        most = {"network": signals.network_most, "from": signals.from_most}.get(sort, signals.other_name_most)
        weight = min(most, names.surprise()) + (_MANY_MORE if both or len(fresh) >= _MANY else 0.0)
        if weight < _LEAST:
            continue
        listed = ", ".join(fresh[:_TOLD]) + (f" and {len(fresh) - _TOLD} more" if len(fresh) > _TOLD else "")
        yield Evidence(sort, Kind.IDENTITY, weight, f"new {_WORDS[sort]}: {listed}", {"new": len(fresh), "chance": names.rate})
