"""messages - the whole story of one message: what policyd and the milter said of it, what became of it, how it ended.

The document is the contract of `explain QUEUE-ID --json`:

    queue_id, tenant
    tickets   what policyd charged, one object for each tenant that has a message of this queue id
    milter    what the milter decided, as it wrote it
    facts     login, client, message_id, sender, size, recipients, accepted_at, gone_at, as far as they are known
    events    [{at, kind, recipient, member, relay, status, reply, category}, ...] in order; `more`: how many were not kept,
              between the first story.FIRST_EVENTS and the others
    summary   recipients, delivered, deferred, bounced, handed_over, unknown, complained; reasons {category: recipients};
              text, the end in words

For a recipient its last event counts: bounced after delivered is bounced.  Times are UTC.

How it fails: a saved ticket that cannot be read is left out, and `ticket_fault` says so.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from relaywarden.cli.output import iso_time, plain
from relaywarden.ledger.ticket import Phase, Ticket
from relaywarden.limits import MAX_AMOUNT, format_bytes
from relaywarden.story import FIRST_EVENTS, Story

PHASES = {
    Phase.OPEN: "open: charged by policyd, not yet settled by the milter",
    Phase.REFUSED: "refused by policyd at DATA or END-OF-MESSAGE; given back",
    Phase.SETTLED: "settled: what it was charged stays charged",
    Phase.REFUNDED: "refunded: aborted or turned away",
}
_ENDS = {"delivered": "delivered", "deferred": "deferred", "bounced": "bounced", "handed-over": "handed_over"}
_NO_COMPLAINT = frozenset({"not-spam", "auth-failure", "opt-out"})  # reports that are not against the message
_KINDS = {
    "delivered": "delivered to", "deferred": "deferred for", "bounced": "bounced for", "handed-over": "handed over for",
    "complained": "complaint of",
}  # fmt: skip
_MILTER = ("pool", "member", "provider", "stream", "score", "symbols", "reply")
_LATEST = 253_402_300_800  # the year 10000, which datetime does not know


def document(queue_id: str, tickets: Sequence[tuple[str, Ticket]], told: Story, silence: str) -> dict[str, Any]:
    """The contract.  `silence`: why the monitor may know nothing."""
    facts = dict(told.facts)
    saved, fault = _saved(facts.pop("ticket", None))
    if not tickets and saved is not None:
        tickets = [(told.tenant, saved)]
    for name in ("accepted_at", "gone_at"):
        if name in facts:
            facts[name] = _when(facts[name])
    found = {
        "queue_id": queue_id,
        "tenant": told.tenant or (tickets[0][0] if tickets else ""),
        "tickets": [ticket_document(tenant, ticket) for tenant, ticket in tickets],
        "milter": told.milter,
        "facts": facts,
        "events": [{**event._asdict(), "at": _when(event.at)} for event in told.events],
        "more": told.more,
        "summary": _summary(tickets, told, silence),
    }
    return {**found, "ticket_fault": fault} if fault and not tickets else found


def ticket_document(tenant: str, ticket: Ticket) -> dict[str, Any]:
    """What policyd charged."""
    refusal = ticket.refusal
    return {
        "tenant": tenant,
        "phase": ticket.phase.name.lower(),
        "charged_at": iso_time(ticket.message_ms),
        "recipients": len(ticket.charged),
        "refused_recipients": len(ticket.recipients) - len(ticket.charged),
        "bytes": ticket.size,
        "held": ticket.held,
        "granted": any(ms % 1 for _, ms in ticket.recipients),
        "refusal": None if refusal is None else {"limit": refusal.key, "used": refusal.used, "allowed": refusal.allowed},
    }


def lines(item: dict[str, Any]) -> Iterator[str]:
    """The story as a person reads it: in the order of time, the end last."""
    yield plain(f"message {item['queue_id']} of tenant {item['tenant'] or 'unknown'}")
    steps = list(_steps(item))
    for at, _, text in sorted(steps, key=lambda step: step[:2]):
        yield f"  {at or ' ' * 20}  {plain(text, 1200)}"
    if item.get("ticket_fault"):
        yield f"  {plain(item['ticket_fault'])}"
    yield f"  end: {plain(item['summary']['text'])}"


def _steps(item: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    """(time, rank, text): logs count in seconds, so the rank orders what happened in one of them."""
    facts, milter = item["facts"], item["milter"]
    begun = ""
    for ticket in item["tickets"]:
        begun = max(begun, ticket["charged_at"])
        yield ticket["charged_at"], 0, f"policyd: {_ticket(ticket)}"
    begun = max(begun, facts.get("accepted_at") or "")
    if not item["tickets"]:
        yield begun, 0, "policyd: no ticket of it; not asked, or the ticket expired before the monitor saw the message"
    if text := _accepted(facts):
        yield facts.get("accepted_at") or begun, 1, text
    if milter:
        yield _when(milter.get("at")) or begun, 2, f"milter: {_milter(milter)}"
    for number, event in enumerate(item["events"]):
        if number == FIRST_EVENTS and item["more"]:
            yield event["at"], 3, f"... {item['more']} more, which were not kept"
        yield event["at"], 3, _event(event)
    if facts.get("gone_at"):
        yield facts["gone_at"], 4, "left the queue"


def _ticket(ticket: dict[str, Any]) -> str:
    parts = [PHASES[Phase[ticket["phase"].upper()]]]
    if ticket["charged_at"]:
        parts.append(f"{_people(ticket['recipients'])}, {format_bytes(ticket['bytes'])} charged")
    if ticket["refused_recipients"]:
        parts.append(f"{_people(ticket['refused_recipients'])} refused")
    if ticket["granted"]:
        parts.append("beyond the limits, charged to a grant")
    if ticket["held"]:
        parts.append("beyond a limit, to be held")
    if ticket["refusal"]:
        parts.append("refused: {limit}: {used} of {allowed} used".format(**ticket["refusal"]))
    return "; ".join(parts)


def _accepted(facts: dict[str, Any]) -> str:
    names = {"client": "from client", "login": "login", "message_id": "message-id", "sender": "sender"}
    parts = [f"{text} {facts[name]}" for name, text in names.items() if facts.get(name)]
    if count := _amount(facts.get("recipients")):
        parts.append(_people(count))
    if size := _amount(facts.get("size")):
        parts.append(format_bytes(size))
    return f"accepted {', '.join(parts)}" if parts else ""


def _milter(milter: dict[str, Any]) -> str:
    shown = [str(milter.get("result") or "no result")]
    for name in (*_MILTER, *sorted(milter.keys() - {*_MILTER, "result", "tenant", "at"})):
        value = milter.get(name)
        if value not in (None, "", [], {}):
            shown.append(f"{name} {' '.join(map(str, value)) if isinstance(value, list | dict) else value}")
    return ", ".join(shown)


def _event(event: dict[str, Any]) -> str:
    kind = event["kind"]
    text = f"{_KINDS.get(kind, f'{kind} for')} {event['recipient']}" if event["recipient"] else kind
    text += f" by {event['member']}" if event["member"] else ""
    text += f" via {event['relay']}" if event["relay"] else ""
    codes = ", ".join(filter(None, (event["status"], event["category"])))
    text += f" ({codes})" if codes else ""
    return f"{text}: {event['reply']}" if event["reply"] else text


def _summary(tickets: Sequence[tuple[str, Ticket]], told: Story, silence: str) -> dict[str, Any]:
    last = told.last
    complained = {
        event.recipient.casefold() or number
        for number, event in enumerate(told.events)
        if event.kind == "complained" and event.category not in _NO_COMPLAINT
    }
    known = Counter(_ENDS[event.kind] for event in last.values())
    charged = max((len(ticket.charged) for _, ticket in tickets), default=0)
    whole = max(len(last), _amount(told.facts.get("recipients")) or charged)
    reasons = Counter(event.category for event in last.values() if event.category and event.kind in ("deferred", "bounced"))
    counts = {"recipients": whole, **{name: known[name] for name in _ENDS.values()}, "unknown": whole - len(last)}
    text = _end(counts, last.values(), len(complained)) if last else _no_end(tickets, told, silence)
    return {**counts, "complained": len(complained), "reasons": dict(reasons.most_common()), "text": text}


def _end(counts: dict[str, int], last: Any, complained: int) -> str:
    parts = [f"delivered to {counts['delivered']} of {_people(counts['recipients'])}"]
    for kind, text in (("bounced", "bounced"), ("deferred", "deferred so far")):
        if counts[kind]:
            why = Counter(event.category or "no reason known" for event in last if event.kind == kind)
            parts.append(f"{counts[kind]} {text}: {', '.join(why)}")
    if counts["handed_over"]:
        parts.append(f"{counts['handed_over']} handed over to the next hop, which has not reported yet")
    if counts["unknown"]:
        parts.append(f"{counts['unknown']} without an outcome yet")
    if complained:
        parts.append(f"{complained} complained")
    return ", ".join(parts)


def _no_end(tickets: Sequence[tuple[str, Ticket]], told: Story, silence: str) -> str:
    refused = next((event for event in reversed(told.events) if event.kind == "refused"), None)
    if refused is not None:
        return f"not taken: refused at {refused.category or 'an unknown stage'}: {refused.reply}"
    if tickets and all(ticket.phase in (Phase.REFUSED, Phase.REFUNDED) for _, ticket in tickets):
        return "not taken"
    if told.facts or told.events:
        return "no outcome is known yet"
    return f"the monitor knows nothing of it: {silence}"


def _saved(text: Any) -> tuple[Ticket | None, str]:
    """The ticket that the monitor saved ("none": policyd had none), or what is wrong with it."""
    if not isinstance(text, str) or text == "none":
        return None, ""
    try:
        return Ticket.unpack(base64.b64decode(text, validate=True)), ""
    except (ValueError, struct.error) as error:
        return None, f"the ticket that the monitor saved cannot be read: {error}"


def _amount(value: Any) -> int:
    """A number of things; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_AMOUNT else 0


def _when(value: Any) -> str:
    """Seconds since 1970 as a time; empty for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not 0 < value < _LATEST:
        return ""
    return iso_time(value * 1000)


def _people(count: int) -> str:
    return f"{count} recipient{'' if count == 1 else 's'}"
