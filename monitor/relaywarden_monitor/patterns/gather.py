"""gather - messages and outcomes into slices of some seconds for each tenant, as the signals look at them.  No I/O, no clock.

A slice is closed when an event of its tenant comes more than SPAN seconds after its beginning, and all open ones are given
out when they are asked for, so that nothing waits longer than the asker's interval.  What happened long ago (a log that is
caught up with) makes slices of its own time.

Known limits: of a message with many recipients only the first ones are told apart (as many as the milter names).  Outcomes
belong to the slice that is open when they come, not to that of their message.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from relaywarden.content.fingerprint import Families
from relaywarden_monitor.attribute import Judged
from relaywarden_monitor.events import Outcome
from relaywarden_monitor.patterns.novelty import Novelty
from relaywarden_monitor.patterns.sent import Sent
from relaywarden_monitor.patterns.traffic import Group, Slice
from relaywarden_monitor.verdict import Blame, Scope

SPAN = 5.0  # seconds
_MOST_GROUPS = 32
_MOST_DOMAINS = 64
_MOST_TEMPLATES = 50_000  # of all tenants together
_MOST_NAMES = 16  # of From domains, networks, HELO names, logins
_MOST_TENANTS = 100_000  # whose recipients are remembered
_CUSTOMERS = frozenset({Scope.DOMAIN, Scope.CONTENT, Scope.AUTH})


@dataclass(slots=True)
class _Open:
    """A slice that is being filled."""

    piece: Slice
    digests: dict[int, set[str]] = field(default_factory=dict)  # of each group
    names: dict[str, set[str]] = field(default_factory=dict)


class Gatherer:
    """One per monitor; used by one thread."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._ready: list[Slice] = []
        self._families = Families(_MOST_TEMPLATES)
        self._novelty: OrderedDict[str, Novelty] = OrderedDict()

    def sent(self, item: Sent) -> None:
        """A message was accepted."""
        filled = self._slice(item.tenant, item.at)
        piece, count = filled.piece, max(1, item.recipients)
        piece.messages += 1
        piece.recipients += count
        piece.bulk += item.bulk
        if item.score is not None:
            piece.score += item.score
            piece.scored += 1
        novelty = self.novelty(item.tenant)
        fresh = sum(map(novelty.is_new, item.digests))
        piece.new_recipients += round(fresh * count / len(item.digests)) if item.digests else 0
        template = self._families.key(item.fingerprint)
        if template and (template in piece.groups or len(piece.groups) < _MOST_GROUPS):
            group = piece.groups.setdefault(template, Group())
            group.messages += 1
            group.bulk += item.bulk
            known = filled.digests.setdefault(template, set())
            before = len(known)
            known.update(item.digests)
            group.recipients += len(known) - before + max(0, count - len(item.digests))
        for kind, name in (("from", item.from_domain), ("net", item.network), ("helo", item.helo), ("login", item.login)):
            names = filled.names.setdefault(kind, set())
            if name and len(names) < _MOST_NAMES:
                names.add(name)

    def outcome(self, judged: Judged) -> None:
        """Something became of one recipient."""
        attempt, verdict = judged.attempt, judged.verdict
        if not judged.tenant or not attempt.recipient or attempt.outcome is Outcome.DEFERRED:
            return
        piece = self._slice(judged.tenant, attempt.at).piece
        domain = attempt.recipient.rpartition("@")[2].casefold()
        if domain in piece.domains or len(piece.domains) < _MOST_DOMAINS:
            piece.domains[domain] += 1
        else:
            piece.domains_other += 1
        if verdict is None:
            piece.delivered += 1
        elif not verdict.own:
            piece.invalid += verdict.scope is Scope.MAILBOX
            piece.blocked += verdict.scope in _CUSTOMERS and verdict.blame is Blame.CUSTOMER

    def complained(self, tenant: str, at: float) -> None:
        """A complaint was counted."""
        self._slice(tenant, at).piece.complained += 1

    def slices(self) -> list[Slice]:
        """Everything since the last call, in the order of time for each tenant."""
        for filled in self._open.values():
            self._ready.append(_closed(filled))
        self._open.clear()
        ready, self._ready = self._ready, []
        return ready

    def novelty(self, tenant: str) -> Novelty:
        """The table of a tenant's recipients."""
        table = self._novelty.get(tenant)
        if table is None:
            table = self._novelty[tenant] = Novelty()
            if len(self._novelty) > _MOST_TENANTS:
                self._novelty.popitem(last=False)
        else:
            self._novelty.move_to_end(tenant)
        return table

    def restore(self, tenant: str, packed: str, templates: Iterable[int] = ()) -> None:
        """Know again whom the tenant has sent to, and under which fingerprints its templates are known."""
        self._novelty[tenant] = Novelty.unpack(packed)
        for template in templates:
            self._families.key(template)

    def _slice(self, tenant: str, at: float) -> _Open:
        filled = self._open.get(tenant)
        if filled is not None and not filled.piece.begin - SPAN <= at <= filled.piece.begin + SPAN:
            self._ready.append(_closed(filled))
            filled = None
        if filled is None:
            filled = self._open[tenant] = _Open(Slice(tenant, at, at))
        filled.piece.begin, filled.piece.end = min(filled.piece.begin, at), max(filled.piece.end, at)
        return filled


def _closed(filled: _Open) -> Slice:
    piece, names = filled.piece, filled.names
    piece.from_domains = frozenset(names.get("from", ()))
    piece.networks = frozenset(names.get("net", ()))
    piece.helos = frozenset(names.get("helo", ()))
    piece.logins = frozenset(names.get("login", ()))
    return piece
