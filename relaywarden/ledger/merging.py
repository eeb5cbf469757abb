"""merging - how a change goes into a tenant's dynamic state.  Pure: the specification that lua/steer.lua repeats.

The keys in BY_ENTRY are changed entry by entry, all others as a whole; None removes.  What a change touches may have been
said by somebody else since its author last looked; a person's word must outlast the monitor's.  So a change that names its
author, `by`, leaves alone what somebody else said and still holds:

    what counts        a mapping with a `by` that is not the author's, whose `until_ms` is missing, null or still to come
    whole keys         are one word together (`standing`, `slow`, `suspended`): where somebody else's holds in one of them,
                       none of them is changed.  Else a tenant that a person slows could be suspended beside that word.
    entries            each by itself
    pauses of members  the map `paused` of an entry of `members`, provider by provider; other parts of the entry are changed
                       where the change has them, and stay else

Without `by` the change is made whatever stands there: it is a person's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BY_ENTRY = ("limits", "grants", "faults", "tenants", "selectors", "members")  # lua/steer.lua has them too
_MEMBERS, _PAUSED = "members", "paused"


def merge(state: Mapping[str, Any], change: Mapping[str, Any], by: str = "", now_ms: int = 0) -> dict[str, Any]:
    """`state` with `change` in it, as `by` may change it at `now_ms` (of the store's clock)."""
    merged = dict(state)
    taken = by and any(_is_taken(state.get(key), by, now_ms) for key in change if key not in BY_ENTRY)
    for key, value in change.items():
        if key not in BY_ENTRY:
            if not taken:
                merged[key] = value
        elif by and (value is None or isinstance(value, Mapping)):
            merged[key] = _entries(key, _mapping(state.get(key)), value, by, now_ms)
        elif isinstance(value, Mapping):
            merged[key] = _changed(_mapping(state.get(key)), value) or None
        else:
            merged[key] = value
    return {key: value for key, value in merged.items() if value is not None}


def _entries(
    key: str, present: Mapping[str, Any], change: Mapping[str, Any] | None, by: str, now_ms: int
) -> dict[str, Any] | None:
    """The entries of one key; a change that is None removes all that it may."""
    free = {}
    for name, entry in (dict.fromkeys(present) if change is None else change).items():
        if _is_taken(present.get(name), by, now_ms):
            continue
        merges = key == _MEMBERS and (entry is None or isinstance(entry, Mapping))
        free[name] = _member(_mapping(present.get(name)), entry, by, now_ms) if merges else entry
    return _changed(present, free) or None


def _member(present: Mapping[str, Any], change: Mapping[str, Any] | None, by: str, now_ms: int) -> dict[str, Any] | None:
    parts = dict(dict.fromkeys([*present, _PAUSED]) if change is None else change)
    if _PAUSED in parts:
        pauses = _mapping(present.get(_PAUSED))
        wanted = dict.fromkeys(pauses) if parts[_PAUSED] is None else _mapping(parts[_PAUSED])
        free = {name: pause for name, pause in wanted.items() if not _is_taken(pauses.get(name), by, now_ms)}
        parts[_PAUSED] = _changed(pauses, free) or None
    return _changed(present, parts) or None


def _is_taken(found: Any, by: str, now_ms: int) -> bool:
    """Somebody else said this, and it holds."""
    if not isinstance(found, Mapping) or found.get("by") in (None, by):
        return False
    until = found.get("until_ms")
    return isinstance(until, bool) or not isinstance(until, int | float) or until > now_ms


def _changed(present: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in {**present, **change}.items() if entry is not None or name not in change}


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
