"""about - what a report with a token is about: whose message, which of its recipients, under which name it counts.  No I/O.

Whoever has a copy of a message has its token, and writes into his report what he likes.  So

- a recipient is believed only where the MTA's log says that the message went there (`Story`, or what is left of it, `Trace`);
- each of these recipients counts once, and all that is said of anybody else counts once together.  That one shares its name
  with the first recipient: a message of one recipient counts one, and none counts more often than it has recipients;
- a token counts as long as the hours' records are kept (`monitor.history`), and a story only where it is of the token's tenant
  and hour: short queue ids come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from relaywarden import providers
from relaywarden.feedback import Opened, Tokens
from relaywarden.story import Story, StoryEvent, Trace, short
from relaywarden.tenants import Directory, Tenant

_HOUR = timedelta(hours=1)
_FAR = 2 * 3600  # seconds between smtpd's first line of a message and its end: a slow client, two clocks


class About(NamedTuple):
    """The recipient whom a report is about."""

    recipient: str  # as the log wrote it, where it did; else as the report does
    known: bool  # the message certainly went there
    name: str  # for `once_name`
    last: StoryEvent | None  # what the log said last of him
    member: str  # that carried it; empty: nobody knows, or not for which provider
    provider: str  # which a stranger's report cannot choose; empty: nobody knows


class Owners:
    """Tenants by the tags in their tokens; used by one thread, or under the lock of whoever has it."""

    def __init__(self, directory: Directory, tokens: Tokens | None) -> None:
        self._directory, self._tokens = directory, tokens
        self._names: dict[bytes, str] = {}
        self.learn(tenant.name for tenant in directory)

    def learn(self, names: Iterable[str]) -> None:
        """More tenants: those that only the ledger knows (unknown_login)."""
        if self._tokens is not None:
            for name in names:
                self._names.setdefault(self._tokens.tag(name), name)

    def knows(self, tag: bytes) -> bool:
        """Whether somebody has this tag."""
        return tag in self._names

    def of(self, tag: bytes) -> Tenant | None:
        """Whose tag it is; None: of nobody who may still send."""
        name = self._names.get(tag)
        return self._directory.by_name(name) if name else None


def is_old(opened: Opened, now: float, history_ms: int) -> bool:
    """What the token's message counted is no longer kept, nor what was said of it before."""
    return (opened.hour + _HOUR).timestamp() + history_ms / 1000 < now


def is_of(opened: Opened, tenant: str, whose: str, at: object) -> bool:
    """Whether what is kept under the token's queue id is about the token's message.  `at`: when that was accepted."""
    if whose != tenant:
        return False
    hour = opened.hour.timestamp()
    return not isinstance(at, int | float) or not at or hour - _FAR <= at < hour + 3600 + _FAR


def about(recipient: str, told: Story, trace: Trace) -> About:
    """Whom of the message's recipients a report means that names this one, or names nobody (RFC 6590).

    A message of one recipient is about that one, also where the address is left out or differs.
    """
    names: Sequence[str] = list(told.last) or trace.to
    key, last = recipient.casefold() if told.last else short(recipient), told.last.get(recipient.casefold())
    count = told.facts.get("recipients") or trace.recipients
    count = count if isinstance(count, int) else 0
    first = next(iter(told.last.values()), None)
    if last is None and len(names) == 1 and count <= 1:
        last = first
    known, place = last is not None or key in names, names.index(key) if key in names else 0
    written = last.recipient if last is not None else recipient
    carried = (item.member for item in (last, *reversed(told.last.values())) if item is not None and item.member)
    member = next(carried, "") or str(told.milter.get("member", "")) or trace.member
    if known or first is None:
        where = provider_of(written, last) if known or _was_given(told, recipient) else ""
    else:
        where = provider_of(first.recipient, first)
    return About(written, known, written if 0 < place < (count or len(names)) else "", last, member if where else "", where)


def _was_given(told: Story, recipient: str) -> bool:
    """Whether the milter saw this recipient, where the log was not read yet."""
    digests = str(told.milter.get("to", ""))
    return short(recipient) in {digests[start : start + 16] for start in range(0, len(digests), 16)}


def once_name(outcome: str, queue_id: str, name: str) -> str:
    """The name under which one piece of news counts once; `name` is About's."""
    return f"report:{outcome}:{queue_id}:{short(name)}"


def provider_of(recipient: str, last: StoryEvent | None = None) -> str:
    """The provider whose host answered last, else that of a well-known consumer domain, else OTHER."""
    host = last.relay.partition("[")[0] if last is not None else ""
    return (host and providers.by_mx(host)) or providers.by_domain(recipient.rpartition("@")[2]) or providers.OTHER
