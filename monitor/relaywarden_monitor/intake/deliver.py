"""deliver - what every way in hands a report to, and the header line that keeps its envelope recipient in a file."""

from __future__ import annotations

from collections.abc import Callable

# A message and its envelope recipient.  Raises StoreUnavailableError where the ledger is down: the sender must try again.  The
# same message twice counts once.
Deliver = Callable[[bytes, str], None]

FIELD = "X-Relaywarden-To"
_LONGEST_RECIPIENT = 512


def safe_recipient(recipient: str) -> str:
    """An envelope recipient as it may stand in a header line: printable ASCII, no blanks, bounded."""
    return "".join(c for c in recipient[:_LONGEST_RECIPIENT] if "!" <= c <= "~")


def marked(data: bytes, recipient: str) -> bytes:
    """The message with its envelope recipient in a line at the top, after the From_ line of mbox, which is dropped."""
    if data.startswith(b"From "):
        data = data.partition(b"\n")[2]
    return f"{FIELD}: {safe_recipient(recipient)}\n".encode() + data


def unmarked(data: bytes) -> tuple[bytes, str]:
    """The message without that line, and the envelope recipient; "" where the first line is another."""
    line, _, rest = data.partition(b"\n")
    name, colon, value = line[: len(FIELD) + 2 + _LONGEST_RECIPIENT].partition(b":")
    if colon and name.strip().lower() == FIELD.lower().encode():
        return rest, safe_recipient(value.strip().decode("ascii", "replace"))
    return data, ""
