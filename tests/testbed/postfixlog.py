"""What a Postfix log says, as values: one `Event` per line, findable by queue id.

The lines are `Nov 24 08:00:00 host postfix/tx1/smtp[123]: 4XyZ: to=<..>, relay=.., dsn=2.0.0, status=sent (250 ok)`.
A line that does not look like this is left out.  Known limits: `name=<value>` pairs are read without unquoting, and the
text in the brackets at the end stays in `text` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(?P<at>\w{3} [ \d]\d [\d:]{8}) \S+ (?P<program>[^\[\s]+)\[(?P<pid>\d+)\]: (?P<rest>.*)$")
_QUEUE_ID = re.compile(r"^(?P<id>NOQUEUE|(?=[A-Za-z]*[0-9])[0-9A-Za-z]{6,}): ")
_FIELD = re.compile(r"(?:^|, |\s)([a-z_]+)=(<[^>]*>|[^,\s]*)")


@dataclass(frozen=True)
class Event:
    """One line: `program` is e.g. "postfix/tx1/smtp", `fields` its name=value pairs (to, relay, dsn, status …)."""

    at: str
    program: str
    queue_id: str
    text: str
    fields: dict[str, str]

    @property
    def service(self) -> str:
        """The name without the daemon: "tx1" of postfix/tx1/smtp, "smtpd" of postfix/smtpd."""
        parts = self.program.split("/")
        return parts[1] if len(parts) > 1 else self.program


def parse_line(line: str) -> Event | None:
    match = _LINE.match(line)
    if match is None:
        return None
    text, queue_id = match["rest"], ""
    found = _QUEUE_ID.match(text)
    if found is not None:
        queue_id, text = found["id"], text[found.end() :]
    fields = {name: value.strip("<>") for name, value in _FIELD.findall(text)}
    return Event(match["at"], match["program"], queue_id, text, fields)


def read_log(path: Path, queue_id: str | None = None) -> list[Event]:
    """All events of a log (of one message); none if the file is not there yet."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    events = [event for event in map(parse_line, lines) if event is not None]
    return [event for event in events if queue_id is None or event.queue_id == queue_id]


def by_queue_id(events: list[Event]) -> dict[str, list[Event]]:
    """The events of each message; lines that belong to none are left out."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.queue_id and event.queue_id != "NOQUEUE":
            found.setdefault(event.queue_id, []).append(event)
    return found
