"""record_scripts - how records travel to Redis and results come back (see scripts).  No I/O."""

from __future__ import annotations

from typing import Any

from relaywarden.ledger.operations import recipient_digest
from relaywarden.ledger.recording import listed
from relaywarden.ledger.records import (
    Claim,
    Claimed,
    History,
    Hours,
    Listed,
    Look,
    Looked,
    Note,
    Noted,
    Notes,
    Record,
    RecordResult,
    Suppress,
    Suppressed,
    Tallied,
    Tally,
)

RECORD_VERBS = ("tally", "history", "note", "notes", "claim", "suppress", "suppressed", "look")


def record_arguments(record: Record) -> tuple[str, tuple[Any, ...]]:
    """The verb and its ARGV."""
    match record:
        case Tally():
            return "tally", _tally(record)
        case History():
            return "history", (record.hours.start, record.hours.stop - 1)
        case Note(_, topic, fields, ttl_ms):
            written = [part for name, value in fields.items() if value is not None for part in (_text(name), _text(value))]
            removed = [_text(name) for name, value in fields.items() if value is None]
            return "note", (topic, ttl_ms, len(written) // 2, *written, *removed)
        case Notes(_, topic, names):
            return "notes", (topic, *map(_text, names))
        case Claim(_, names, tag, ttl_ms):
            return "claim", (tag, ttl_ms, *map(_text, names))
        case Suppress(_, entries):
            pairs = ((recipient_digest(name), _text(entry.pack()) if entry else b"") for name, entry in entries.items())
            return "suppress", tuple(part for pair in pairs for part in pair)
        case Suppressed():
            return "suppressed", ()
        case Look(_, queue_id):
            return "look", (_text(queue_id),)


def _tally(record: Tally) -> tuple[Any, ...]:
    source, tag = record.mark or ("", "")
    amounts = (part for entry in (*record.counts.items(), *record.details.items()) for part in entry)
    head = (record.at_ms, record.keep_ms, _text(source), _text(tag), _text(record.once), record.once_ms)
    return (*head, len(record.counts), *amounts)


def _text(text: str) -> bytes:
    """What came out of mail or logs may hold lone surrogates."""
    return text.encode("utf-8", "surrogateescape")


def record_result(record: Record, reply: Any) -> RecordResult:
    """What the script replied, as the record's result; raises ValueError and the like for what it never replies."""
    match record:
        case Tally():
            return Tallied(bool(reply))
        case History():
            return Hours(_hours(reply))
        case Note():
            return Noted()
        case Notes():
            texts = [part.decode("utf-8", "surrogateescape") for part in reply]
            return Noted(dict(zip(texts[::2], texts[1::2], strict=True)))
        case Claim():
            return Claimed(tuple(bool(part) for part in reply))
        case Suppress():
            return Listed()
        case Suppressed():
            return listed([part.decode("utf-8", "surrogateescape") for part in reply[1:]], int(reply[0]))
        case Look():
            return Looked(reply or None)


def _hours(reply: list[Any]) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    at = 0
    while at < len(reply):
        hour, count = int(reply[at]), int(reply[at + 1])
        end = at + 2 + 2 * count
        names, amounts = reply[at + 2 : end : 2], reply[at + 3 : end : 2]
        found[hour] = {name.decode(): int(amount) for name, amount in zip(names, amounts, strict=True)}
        at = end
    return found
