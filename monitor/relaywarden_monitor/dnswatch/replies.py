"""replies - questions to DNS and what came back.  Plain values.

A decision that must ask on its way is a generator (`Steps`): it yields a Question and is sent the Reply, so it does no I/O
itself; `lookup.Asker.follow` answers it, and so can a table in a test.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeVar

_Result = TypeVar("_Result")


class Question(NamedTuple):
    """A name and the type of its records."""

    name: str
    kind: str


class Status(Enum):
    """How a question ended."""

    FOUND = "found"
    EMPTY = "no such records"  # the name exists
    NXDOMAIN = "no such name"
    FAILED = "no answer"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one question.

    Records are text: addresses; host names in lower case without the last dot, those of MX by preference (RFC 7505's null MX
    is ""); TXT with its strings joined, each octet one character (latin-1).
    """

    status: Status
    records: tuple[str, ...] = ()
    why: str = ""  # of FAILED
    silent: bool = False  # FAILED, because nothing came

    @property
    def failed(self) -> bool:
        """Nobody knows."""
        return self.status is Status.FAILED

    def __str__(self) -> str:
        return ", ".join(self.records) if self.records else self.why or self.status.value


Steps = Generator[Question, Reply, _Result]
NOWHERE = Reply(Status.NXDOMAIN)
