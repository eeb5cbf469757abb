"""operations - what a program may ask of the ledger, and what it gets back.

The ledger takes batches: `apply([operation, ...])` carries out all of them in one round trip to the store and returns one
result for each, in order.  Operations of one tenant take effect in the order given.

    Charge     RCPT: one recipient (and, first, the message) against every balance, all or nothing
    Reconcile  DATA, END-OF-MESSAGE: bring the ticket to the true number of recipients and the true size
    Refuse     policyd refused by a rule that the ledger does not know (a cap on one message): count that
    Abandon    the client gave a transaction up, as policyd sees it where no milter is wired
    Settle     the milter's last word: charged as it really was; a message that no policy request announced is counted here
    Refund     give back what the ticket was charged: it was aborted, or turned away by an outcome of `ledger.refund`
    Read       counters, balances, scores and dynamic state of a tenant
    Steer      an operator's change of the dynamic state (suspension, overrides)
    Reset      forget what a tenant's balances have used
    Take       as many messages as fit, without a ticket: leases for the warm-up of addresses
    Score      what rspamd said of one message
    records    outcomes, notes and suppressed recipients, see `records`

Take and Score are not deduplicated: sent again after a lost answer, they count twice.  Tenants whose names begin with "!" are
relaywarden's own (no login can have such a name): "!member:tx1/google" is what tx1 carried to google.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.records import Record, RecordResult, books_of, check_amount
from relaywarden.ledger.scores import Scores
from relaywarden.limits import Limit, Meter, Scope

METERS = tuple(Meter)


@dataclass(frozen=True)
class Balance:
    """One limit of one account, and the key under which the ledger keeps what was used of it."""

    limit: Limit
    key: str


@dataclass(frozen=True)
class Account:
    """Who is charged: a tenant, and the balances that its limits name for this login, domain and client."""

    tenant: str
    balances: tuple[Balance, ...]
    observe: bool = False  # charge and say what would have been refused, but admit
    hold: bool = False  # charge what the limits refuse, and say that it is to be held

    @classmethod
    def of(
        cls,
        tenant: str,
        limits: Sequence[Limit],
        observe: bool = False,
        hold: bool = False,
        *,
        login: str = "",
        from_domain: str = "",
        client: str = "",
    ) -> Account:
        """The account of `tenant` for these scope values; a limit `per` a value that is not known is left out."""
        scope = {Scope.LOGIN: login, Scope.FROM_DOMAIN: from_domain, Scope.CLIENT: client}
        balances = []
        for limit in limits:
            if limit.per is Scope.TENANT:
                balances.append(Balance(limit, limit.balance_id))
            elif value := scope[limit.per]:
                balances.append(Balance(limit, f"{limit.balance_id}={_short(value.casefold())}"))
        return cls(tenant, tuple(balances), observe, hold)

    @cached_property
    def wire(self) -> bytes:
        """The balances as the Redis scripts read them: [[key, meter, amount, window ms, burst, observe], ...]."""
        rows = [
            [b.key, METERS.index(b.limit.meter), b.limit.amount, b.limit.window_ms, b.limit.burst or 0, int(b.limit.observe)]
            for b in self.balances
        ]
        return json.dumps(rows, separators=(",", ":")).encode()


def _short(value: str) -> str:
    """A scope value as part of a key: readable while short, a digest where it is long."""
    return value if len(value) <= 80 else blake2b(value.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def recipient_digest(recipient: str) -> bytes:
    """Eight bytes that stand for a recipient in tickets and in the unique-recipient sketch."""
    return blake2b(recipient.casefold().encode(errors="surrogateescape"), digest_size=8).digest()


class Charge(NamedTuple):
    """One recipient of the transaction `ticket`; `size` is the client's SIZE claim in bytes, 0 if it made none."""

    account: Account
    ticket: str
    recipient: str
    size: int = 0
    queue_id: str = ""
    connection: str = ""  # "address:port" of the SMTP client
    dry: bool = False  # decide and spend nothing
    late_ms: int = 0  # so long ago it was admitted without the store: charge it, whatever limits, mode and refusals say


class Reconcile(NamedTuple):
    """The transaction as Postfix counts it at DATA (`size` may still be a claim) or END-OF-MESSAGE (`size` is true)."""

    account: Account
    ticket: str
    recipients: int
    size: int
    queue_id: str = ""
    connection: str = ""
    dry: bool = False
    late_ms: int = 0


@dataclass(frozen=True, slots=True)
class Refuse:
    """policyd refused by a rule of its own (a cap): count it once; without `recipient` the whole message, given back."""

    account: Account
    ticket: str
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The transaction ended without its message: give it back; should it go on after all, it is charged again."""

    account: Account
    ticket: str


@dataclass(frozen=True, slots=True)
class Settle:
    """The message is done with and stays charged; `counter` names what else it counts as (`held`, `rejected`), or is empty."""

    account: Account
    queue_id: str
    connection: str
    recipients: tuple[str, ...]
    size: int
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Refund:
    """The message was not taken and is given back; `counter` names what it counts as (`rejected`, `refused`), or is empty."""

    account: Account
    queue_id: str
    connection: str
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Everything the ledger knows of an account; spends nothing."""

    account: Account


@dataclass(frozen=True, slots=True)
class Steer:
    """Merge `change` into the tenant's dynamic state; None removes a key, the keys in BY_ENTRY (merging.py) change by entry.

    suspended  {reason, by, until_ms}               refuse everything
    slow       {factor, until_ms, reason, by}       every limit times a factor
    mode       "observe" or "enforce"               instead of the plan's
    limits     {balance key: amount}                instead of the plan's amounts
    grants     {id: {meter, amount, used, until_ms, reason, by}}   what may be sent beyond the limits

    `by`: where it is given, what somebody else said and still holds is left as it is, as `merging` says; the result's state
    tells what stands then.
    """

    tenant: str
    change: Mapping[str, Any]
    by: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget what every balance of the tenant has used; counters, scores and state stay."""

    tenant: str


@dataclass(frozen=True, slots=True)
class Take:
    """Charge as many messages as fit, up to `amount`, to all message balances of the account; there is no ticket of them.

    Overrides hold.  Suspension, grants and modes (observe, hold) do not: every limit is kept.  ValueError below 0.
    """

    account: Account
    amount: int

    def __post_init__(self) -> None:
        check_amount("Take", self.amount)


@dataclass(frozen=True, slots=True)
class Score:
    """What rspamd said of one message, counted today; not a number: ValueError.

    Of `symbols` the first 20 different names count, each cut to 64 characters: give what matters first.
    """

    tenant: str
    score: float
    symbols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if math.isnan(self.score):
            raise ValueError("expected a score, got nan")


Operation = Charge | Reconcile | Refuse | Abandon | Settle | Refund | Read | Steer | Reset | Take | Score | Record
_BY_NAME = (Steer, Reset, Score)  # they name their tenant, all others but records an account


def tenant_of(operation: Operation) -> str:
    """Whose books an operation is about."""
    if isinstance(operation, Record):
        return books_of(operation)
    return operation.tenant if isinstance(operation, _BY_NAME) else operation.account.tenant


class Status(Enum):
    """The ledger's answer to a charge."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and members are equal only to themselves

    ADMITTED = "admitted"
    HELD = "held"  # charged past a limit, and to be held
    REFUSED = "refused"
    SUSPENDED = "suspended"
    SUPPRESSED = "suppressed"  # the recipient is on the tenant's suppression list


@dataclass(frozen=True, slots=True)
class Refusal:
    """The balance that does not admit a request.  `retry_after_ms` is None where waiting never helps."""

    key: str
    used: int
    allowed: int
    retry_after_ms: int | None


class Decision(NamedTuple):
    """Result of Charge and Reconcile.  `refusal` beside ADMITTED: what an observed limit would have refused."""

    status: Status
    refusal: Refusal | None = None
    repeated: bool = False  # the same request was answered before; nothing was charged now
    granted: bool = False  # beyond a limit, and charged to a grant instead of the windows
    reason: str = ""  # why the tenant is suspended; or the packed Suppression of the recipient, also beside ADMITTED (observe)


@dataclass(frozen=True, slots=True)
class Settlement:
    """Result of Settle and Refund: whether a ticket was found, and the recipients and bytes that stay charged."""

    found: bool
    recipients: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What one balance has used; `reset_after_ms`: until all of it has expired if nothing more is sent."""

    key: str
    used: int
    allowed: int
    reset_after_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Result of Read."""

    balances: tuple[Used, ...]
    hour: Mapping[str, int]
    today: Mapping[str, int]
    state: Mapping[str, Any] = field(default_factory=dict)
    now_ms: int = 0
    refused_ms: int = 0  # when the tenant was last refused; 0: never
    last_refusal: Refusal | None = None
    scores: Scores | None = None  # None: no message was scored today


@dataclass(frozen=True, slots=True)
class Done:
    """Result of Steer, Reset, Refuse and Abandon (with the state as it is now), and of Score (without)."""

    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """Result of Take: messages charged; if fewer than asked for, when one more may fit (0: all was taken, -1: never)."""

    amount: int
    retry_after_ms: int = 0


Result = Decision | Settlement | Snapshot | Done | Taken | RecordResult


class PartlyUnavailableError(StoreUnavailableError):
    """Some operations of a batch were carried out and some were not, as when one node of a Redis Cluster is down.

    `results` holds one entry for each operation, in order: its result, or the StoreUnavailableError that it met.  A caller
    that does not care may treat it as StoreUnavailableError: sending the batch again charges no ticket twice.
    """

    def __init__(self, text: str, results: Sequence[Result | StoreUnavailableError]) -> None:
        super().__init__(text)
        self.results = results


class Ledger(Protocol):
    """The one interface to the store, for programs that may block (milter, command line)."""

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One result for each operation, in order; raises StoreUnavailableError, or PartlyUnavailableError of its kind."""
        ...

    def tenants(self) -> list[str]:
        """Names of all tenants that the ledger holds anything of; raises StoreUnavailableError."""
        ...

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        """(tenant, ticket) of the message with this queue id; searched through, for people; raises StoreUnavailableError."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


class AsyncLedger(Protocol):
    """The same interface for policyd's event loop."""

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One result for each operation, in order; raises StoreUnavailableError, or PartlyUnavailableError of its kind."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
