"""events - what every source tells the monitor, whatever it was written in.  Plain values.

A source makes events of its records; `attribute` makes operations of the ledger of them.  Times are seconds since 1970 (UTC).
What a source does not know is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of one attempt for one recipient."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"  # for good, or given up after too long in the queue


@dataclass(frozen=True, slots=True)
class Accepted:
    """The MTA took a message from a client: smtpd's line with client and login."""

    at: float
    queue_id: str
    login: str = ""
    client: str = ""  # name[address]


@dataclass(frozen=True, slots=True)
class Described:
    """More of a message, as the MTA comes to know it; empty or 0: this line does not say."""

    at: float
    queue_id: str
    message_id: str = ""
    sender: str | None = None  # "" is the empty sender of bounces, None: this line does not say
    size: int = 0
    recipients: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver to one recipient, and the last word of the receiving side."""

    at: float
    queue_id: str
    recipient: str
    outcome: Outcome
    member: str = ""  # the pool member that carried it: transport or virtual MTA
    relay: str = ""  # name of the receiving host
    relay_ip: str = ""
    status: str = ""  # enhanced status code, 5.1.1
    reply: str = ""  # what the receiving side said, without the MTA's own words around it
    tenant: str = ""  # where the source itself says whose it is (PowerMTA's jobId)
    source: str = ""  # source address of the attempt, where known
    remote: bool = False  # learned from a report that came later: an accepted message bounced after all
    given_up: bool = False  # bounced because it was too old, not because the last reply was final


@dataclass(frozen=True, slots=True)
class Refused:
    """The MTA, a policy server or a milter turned a client away; `queue_id` is empty before there is one."""

    at: float
    queue_id: str
    stage: str  # CONNECT, RCPT, DATA, END-OF-MESSAGE, ...
    reply: str
    login: str = ""
    client: str = ""
    by_milter: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The message left the queue: all of it was delivered or bounced, or it was removed by hand."""

    at: float
    queue_id: str


@dataclass(frozen=True, slots=True)
class Notified:
    """The MTA sent a notification about a message, as another message: from the empty sender, to the customer."""

    at: float
    queue_id: str
    notice_id: str  # queue id of the notification
    kind: str  # non-delivery, delay, delivery


@dataclass(frozen=True, slots=True)
class Complaint:
    """A recipient called a message spam; `token` is checked by whoever counts it."""

    at: float
    recipient: str
    kind: str  # abuse, fraud, not-spam, opt-out, ...
    token: str = ""
    queue_id: str = ""
    tenant: str = ""
    provider: str = ""  # who passed it on, where known
    member: str = ""


Event = Accepted | Described | Attempt | Refused | Gone | Notified | Complaint
