"""carriage - who carries the message: its stream, the pool and member, and the headers that are ours alone.

How it fails: with no member that may carry it, or no pool where it should go, the message is put off; it never takes the usual
way instead of the one it was diverted to.
"""

from __future__ import annotations

import time

from relaywarden import feedback
from relaywarden.config.settings import OnBulk
from relaywarden.tenants import Tenant
from relaywarden_milter import control, meters, stream
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.route import BULK, QUARANTINE, FullError
from relaywarden_milter.stream import Kind
from relaywarden_milter.work import Work

# Neutral: pauses and caps of our addresses are our affair; the log field `full` says which it was.
_FULL = "This relay cannot take more mail of this kind at the moment, try again later"
_NO_ROUTE = "No route for this message at the moment, try again later"


def carriage(work: Work, tenant: Tenant) -> Refusal | None:
    """The stream, and with it the pool and its member."""
    judged = stream.judge(work.edits.headers, work.message.sample, len(work.envelope.recipients))
    work.stream = judged.kind
    work.judged = judged
    meters.labelled(meters.STREAMS, judged.kind.value).inc()
    if judged.kind is not Kind.TRANSACTIONAL:
        work.record |= {"stream": judged.kind.value, "bulk": judged.score, "stream_reasons": "; ".join(judged.reasons)}
    if work.rules.settings.milter.stream_header:
        work.edits.add("X-Relaywarden-Stream", f"{judged.kind.value} {judged.score:.2f}")
    bulk = judged.kind is Kind.BULK
    if bulk and tenant.bulk is OnBulk.REJECT:
        text = "This account is for transactional mail only; this looks like a mailing"
        if (refusal := work.binding(tenant, Refusal.reject(text))) is not None:
            return refusal
    aside = bulk and tenant.bulk is OnBulk.DIVERT and not work.divert and work.binds(tenant, "divert to bulk")
    router = work.rules.router
    pool = QUARANTINE if work.divert else BULK if aside else tenant.pool or ""
    if not router.has(pool):
        # A tenant without a pool is not tagged; mail that was to take another way must not take the usual one.
        return None if pool == tenant.pool or not pool else Refusal.put_off(_NO_ROUTE)
    try:
        route = router.route(pool, work.envelope.recipients, work.rules.admission)
    except FullError as error:
        work.record["full"] = error
        return Refusal.put_off(_FULL)
    if route is not None:
        work.edits.add(route.header, route.value)
        work.record |= {"pool": route.pool, "member": route.member}
    return None


def labels(work: Work, tenant: Tenant) -> Refusal | None:
    """Headers of our own: for PowerMTA, and for complaints to find their way back."""
    settings = work.rules.settings
    if settings.route.powermta:
        work.edits.add("X-Job", _printable(tenant.name))
        work.edits.add("X-Envid", work.envelope.queue_id)
    given, tokens = settings.operator.feedback, work.rules.tokens
    if given is not None and tokens is not None:
        work.edits.delete(control.FEEDBACK.__contains__)  # a client's would have its complaints counted as another's
        kind = (Kind.TRANSACTIONAL if work.stream is Kind.UNSURE else work.stream).value
        now = time.time()
        for name, value in feedback.headers(given, tokens, tenant.name, kind, work.envelope.queue_id, now):
            work.edits.add(name, value)
        if work.envelope.sender:  # the empty sender asks for no bounce
            work.sender = feedback.return_path(given, tokens, tenant.name, work.envelope.queue_id, now)
    return None


def _printable(name: str) -> str:
    """PowerMTA takes an X-Job without blanks and unprintable octets only."""
    return "".join(char if char.isascii() and char.isprintable() and char != " " else "_" for char in name)
