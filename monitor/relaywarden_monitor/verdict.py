"""verdict - what a reply means, in the project's words.  Plain values.

scope      what the reply is about: the source address, the sender's domain, the content, its authentication, the
           recipient's mailbox (`mailbox`: not there or closed, `full`), the rate, a policy of the recipient, greylisting, or
           the machinery in between (DNS, TLS, a server in trouble)
blame      who can do something about it: the pool (the operator and his addresses), the customer, or the recipient's side
severity   low: nothing to do; medium: slows mail down or loses one recipient; high: costs reputation, or is lost reputation
wait       seconds until the next attempt makes sense, as the provider's own rule says; None: no rule states one
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Scope(Enum):
    """What a reply is about."""

    IP = "ip"
    DOMAIN = "domain"
    CONTENT = "content"
    AUTH = "auth"
    MAILBOX = "mailbox"
    FULL = "full"
    RATE = "rate"
    POLICY = "policy"
    GREYLIST = "greylist"
    INFRA = "infra"


class Blame(Enum):
    """Who can do something about it."""

    POOL = "pool"
    CUSTOMER = "customer"
    RECIPIENT = "recipient"


class Severity(Enum):
    """How bad it is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule that matched says of a reply."""

    category: str  # finer than scope: ip-reputation, domain-blocklisted, invalid-mailbox, ...
    scope: Scope
    blame: Blame
    severity: Severity
    wait: int | None  # seconds
    provider: str  # of relaywarden.providers, or "other"
    rule: str  # the name of the rule that matched; "status-code" where only the code spoke, "nothing" where nothing did
    temporary: bool  # the reply is a 4xx (or 4.x.x)
    own: bool = False  # the text is our own (policyd's, the milter's): it must cause no reaction
