"""outcome - what the pipeline decided about a message, for the session to carry out.  Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from relaywarden.ledger.operations import Operation
from relaywarden_milter.edits import Add, Change
from relaywarden_milter.scan import Fate
from relaywarden_milter.spool import Spool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is turned away: a reply for the client."""

    fate: Fate
    code: str
    enhanced: str
    text: str

    @classmethod
    def reject(cls, text: str, enhanced: str = "5.7.1", code: str = "550") -> Refusal:
        """For good."""
        return cls(Fate.REJECT, code, enhanced, text)

    @classmethod
    def put_off(cls, text: str, enhanced: str = "4.7.1") -> Refusal:
        """For now: the client tries again."""
        return cls(Fate.TEMPFAIL, "451", enhanced, text)


@dataclass(slots=True)
class Outcome:
    """What the session must do: changes (only for a message that is taken), a reply, and ledger operations."""

    result: str  # for the metric and the log
    fate: Fate = Fate.ACCEPT
    refusal: Refusal | None = None
    hold: str = ""  # reason for Postfix's hold queue
    steps: list[Change | Add] = field(default_factory=list)
    sender: str = ""  # takes the place of the envelope sender
    body: Spool | None = None  # takes the place of the body; whoever carries the outcome out closes it
    operations: list[Operation] = field(default_factory=list)  # the first settles the message's ticket
    record: dict[str, Any] = field(default_factory=dict)
