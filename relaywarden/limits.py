"""limits - what may be sent: meters, limits, and the notation in which the configuration writes them.

    500/hour          at most 500 in ANY window of one hour (rolling)
    40/10s  2GiB/day  a window is a unit or a duration; bytes take binary (KiB) and decimal (kB) suffixes
    10/s burst 50     a rate: on average 10 a second, at most 50 at once (token bucket)

A limit is a value: it parses from its text and prints back to it.  Parse errors say what was expected.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from relaywarden.errors import SpecError


class Meter(enum.Enum):
    """What is counted.  `bytes` counts a message's size once, not once a recipient."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and members are equal only to themselves

    MESSAGES = "messages"
    RECIPIENTS = "recipients"
    BYTES = "bytes"
    UNIQUE_RECIPIENTS = "unique_recipients"


class Scope(enum.Enum):
    """Whom one balance of a limit belongs to: the whole tenant, or each login, From domain or client address of it."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and members are equal only to themselves

    TENANT = "tenant"
    LOGIN = "login"
    FROM_DOMAIN = "from_domain"
    CLIENT = "client"


_UNITS_MS = {
    "ms": 1,
    "s": 1_000, "sec": 1_000, "second": 1_000,
    "m": 60_000, "min": 60_000, "minute": 60_000,
    "h": 3_600_000, "hr": 3_600_000, "hour": 3_600_000,
    "d": 86_400_000, "day": 86_400_000,
    "w": 604_800_000, "week": 604_800_000,
}  # fmt: skip
_SUFFIXES = {
    "": 1,
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "k": 10**3,
}  # fmt: skip
_AMOUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)?\s*([A-Za-z]+)")
MAX_AMOUNT = 2**53 - 1  # Lua and SQLite REAL both count in doubles: exact up to here
MAX_WINDOW_MS = 400 * 86_400_000


def parse_amount(text: str | int) -> int:
    """`1_000` or `2GiB` as a whole number; raises SpecError."""
    matched = _AMOUNT.fullmatch(str(text).strip())
    factor = _SUFFIXES.get(matched[2].lower()) if matched else None
    if matched is None or factor is None or isinstance(text, bool):
        raise SpecError(f"expected an amount such as 500, 1_000 or 2GiB, got {text!r}")
    amount = float(matched[1].replace("_", "")) * factor if "." in matched[1] else int(matched[1].replace("_", "")) * factor
    if amount != int(amount) or amount > MAX_AMOUNT:
        raise SpecError(f"expected a whole amount of at most {MAX_AMOUNT}, got {text!r}")
    return int(amount)


def parse_duration(text: str | float) -> int:
    """`10s`, `15m`, `hour`, `30d` or a plain number of seconds, in milliseconds; raises SpecError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = f"{text}s"
    matched = _DURATION.fullmatch(str(text).strip())
    name = matched[2].lower() if matched else ""
    unit = _UNITS_MS.get(name) or (_UNITS_MS.get(name.removesuffix("s")) if len(name) > 3 else None)
    if matched is None or unit is None:
        raise SpecError(f"expected a duration such as 10s, 15m, hour or 30d, got {text!r}")
    duration = round(float(matched[1] or 1) * unit)
    if not 1 <= duration <= MAX_WINDOW_MS:
        raise SpecError(f"expected a duration above 0 and of at most {MAX_WINDOW_MS // 86_400_000} days, got {text!r}")
    return duration


def format_duration(ms: int) -> str:
    """The shortest notation that `parse_duration` reads back to the same value: `90m`, `1d`."""
    for suffix, unit in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms % unit == 0:
            return f"{ms // unit}{suffix}"
    return f"{ms}ms"


def format_bytes(amount: float) -> str:
    """`1536` as `1.5 KiB`, for people."""
    for suffix in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.4g} {suffix}"
        amount /= 1024
    return f"{amount:.4g} TiB"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of `meter` in any window of `window_ms`; with `burst`, a rate of amount/window instead."""

    meter: Meter
    amount: int
    window_ms: int
    burst: int | None = None
    per: Scope = Scope.TENANT
    observe: bool = False  # decide, count and log, but never refuse on this limit

    @classmethod
    def parse(cls, meter: Meter, text: str | int, per: Scope = Scope.TENANT, observe: bool = False) -> Limit:
        """From `AMOUNT/WINDOW` or `AMOUNT/WINDOW burst N`; raises SpecError."""
        head, *tail = re.split(r"\s+burst\s+", str(text).strip())
        amount, slash, window = head.partition("/")
        if not slash or len(tail) > 1:
            raise SpecError(f"expected AMOUNT/WINDOW or AMOUNT/WINDOW burst N, such as 500/hour or 10/s burst 50, got {text!r}")
        burst = parse_amount(tail[0]) if tail else None
        limit = cls(meter, parse_amount(amount), parse_duration(window.strip()), burst, per, observe)
        if burst is not None and (burst < 1 or limit.amount < 1):
            raise SpecError(f"expected a rate and a burst of at least 1, got {text!r}")
        if burst is not None and meter is Meter.UNIQUE_RECIPIENTS:
            raise SpecError("a rate (burst) of unique_recipients has no meaning; expected AMOUNT/WINDOW")
        return limit

    @property
    def window(self) -> str:
        """The window as text: `1h`."""
        return format_duration(self.window_ms)

    @property
    def balance_id(self) -> str:
        """Names the balance that this limit spends.  The amount is not part of it: changing it keeps what was used."""
        rate = f"~{self.amount}b{self.burst}" if self.burst is not None else ""
        scope = f"@{self.per.value}" if self.per is not Scope.TENANT else ""
        return f"{self.meter.value}/{self.window}{rate}{scope}"

    def __str__(self) -> str:
        burst = f" burst {self.burst}" if self.burst is not None else ""
        scope = f" per {self.per.value}" if self.per is not Scope.TENANT else ""
        return f"{self.meter.value}: {self.amount}/{self.window}{burst}{scope}"
