"""settings - the one table of settings: every key, its type, its default and its help.

pydantic is used here and nowhere else: the programs read the values, they never validate.  docs/settings.rst is checked
against this table by a test.
"""

from __future__ import annotations

import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from relaywarden.config.fields import (
    AddressField,
    AddressList,
    Amount,
    Domain,
    DomainPattern,
    HeaderName,
    IPAddress,
    LimitField,
    Milliseconds,
    Name,
    StoreURL,
    TextList,
    TransportName,
)
from relaywarden.limits import Limit


class Mode(Enum):
    """Whether verdicts bind: `enforce`, or `observe` (decide, log and count, but never refuse)."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class OnExceed(Enum):
    """What Postfix is told when a limit is reached."""

    DEFER = "defer"
    REJECT = "reject"
    HOLD = "hold"


class OnScanError(Enum):
    """What becomes of a message that rspamd could not judge."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"
    DIVERT = "divert"


class OnDown(Enum):
    """How policyd decides while the store does not answer."""

    LOCAL = "local"
    ACCEPT = "accept"
    DEFER = "defer"


class Outcome(Enum):
    """How a message that was not taken ended."""

    REJECTED = "rejected"
    DEFERRED = "deferred"
    ABORTED = "aborted"


class Table(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)


class PolicydSettings(Table):
    """The policy daemon."""

    listen: AddressList = Field(
        [],
        validate_default=False,
        description="addresses Postfix asks: unix:/path or inet:host:port, one or a list; empty: policyd does not run",
    )
    workers: int = Field(2, ge=1, le=64, description="worker processes sharing the addresses")
    patience: Milliseconds = Field(
        40, description="longest that a verdict waits for the store; then it is decided as ledger.on_down says"
    )


class MilterSettings(Table):
    """The milter."""

    listen: AddressField | None = Field(
        None, description="the address Postfix' smtpd_milters names; empty: the milter does not run"
    )
    workers: int = Field(2, ge=1, le=64, description="pre-forked worker processes on the one listening socket")
    drain_timeout: Milliseconds = Field(30_000, description="how long a stopping worker waits for messages in flight")
    max_message_size: Amount = Field(
        64 * 2**20, description="larger messages are refused with 5.3.4; keep Postfix' message_size_limit below it"
    )


class ScanSettings(Table):
    """Content scan by rspamd's HTTP interface."""

    url: TextList = Field(description="rspamd's normal worker, http://host:11333; one or a list (tried in order)")
    timeout: Milliseconds = Field(5_000, description="for one scan, connecting included")
    on_error: OnScanError = Field(
        OnScanError.ACCEPT,
        description="refused, slow, 5xx or unreadable answer: accept, tempfail, or divert to the quarantine pool",
    )
    settings_id: str = Field("", description="rspamd Settings-ID sent with each scan")
    mta_tag: str = Field("relaywarden", description="rspamd MTA-Tag sent with each scan")
    custom_action: Literal["tempfail", "accept", "quarantine"] = Field(
        "tempfail", description="what an action unknown to relaywarden means"
    )
    greylist: Literal["accept", "tempfail"] = Field("accept", description="what rspamd's greylist means for authenticated mail")
    spam_header: HeaderName = Field("X-Spam", description="header added when rspamd says 'add header'")


class DkimSettings(Table):
    """One DKIM key."""

    domain: Domain = Field(description="d=")
    selector: Domain = Field(description="s=")
    key: Path = Field(description="private key file: PEM (RSA of 2048 bits or more, or Ed25519)")


class PlanSettings(Table):
    """A named set of limits."""

    mode: Mode = Field(Mode.ENFORCE, description="observe: decide, log and count, but never refuse")
    limits: list[LimitField] = Field(
        [],
        description="each a meter with AMOUNT/WINDOW [burst N]; with per: login|from_domain|client and mode: observe by choice",
    )
    recipients_per_message: int | None = Field(None, ge=1, description="more recipients in one message are refused")
    bytes_per_message: Amount | None = Field(None, description="larger messages are refused")
    on_exceed: OnExceed = Field(OnExceed.DEFER, description="defer (4.7.1), reject (5.7.1) or hold")

    @field_validator("limits")
    @classmethod
    def _one_balance_each(cls, limits: list[Limit]) -> list[Limit]:
        seen: set[str] = set()
        for limit in limits:
            if limit.balance_id in seen:
                raise ValueError(f"a second limit of {limit.meter.value} over {limit.window}; expected one a meter and window")
            seen.add(limit.balance_id)
        return limits


class UnknownLoginPlan(Table):
    """Every unknown login is a tenant of its own, under this plan."""

    plan: Name = Field(description="the plan of every login that no tenant names")


class TenantSettings(Table):
    """One customer."""

    logins: Annotated[list[str], BeforeValidator(lambda v: v if isinstance(v, list) else [v])] = Field(
        [], description="SASL logins, exact or *@domain; default: the tenant's name"
    )
    plan: Name = Field(description="the plan whose limits hold")
    mode: Mode | None = Field(None, description="overrides the plan's mode")
    from_domains: list[DomainPattern] = Field([], description="domains allowed in From, *.domain for subdomains; empty: any")
    dkim: list[DkimSettings] = Field([], description="keys that sign this tenant's mail; empty: no tenant signature")
    pool: TransportName | None = Field(None, description="the pool that carries this tenant's mail; default: the first pool")


class OperatorSettings(Table):
    """The relay's own identity."""

    dkim: list[DkimSettings] = Field([], description="second signature on every message, covers Feedback-ID")


class WarmupSettings(Table):
    """A new source IP that must be warmed up."""

    start: datetime.date = Field(description="day 0")
    schedule: str = Field("default", description="name of the schedule of daily caps")


class MemberSettings(Table):
    """One pool member: a Postfix transport or a PowerMTA virtual MTA."""

    ip: IPAddress = Field(description="its source address")
    warmup: WarmupSettings | None = Field(None, description="new address: how it is warmed up")


class PoolSettings(Table):
    """A set of source addresses that carry one kind of mail."""

    members: dict[TransportName, MemberSettings] = Field(
        min_length=1, description="name of the transport or virtual MTA, with its ip"
    )


class RouteSettings(Table):
    """How the chosen pool reaches the MTA."""

    header: HeaderName = Field("X-Virtual-MTA", description="header that names the pool or member; client copies are deleted")
    target: Literal["member", "pool"] = Field("member", description="write the member's name, or the pool's (PowerMTA rotates)")


class LedgerSettings(Table):
    """How long the ledger remembers, how long it may take."""

    timeout: Milliseconds = Field(1_000, description="longest wait for the store, for one batch")
    ticket_ttl: Milliseconds = Field(3_600_000, description="a message transaction is remembered this long")
    on_down: OnDown = Field(
        OnDown.LOCAL,
        description="while the store does not answer, policyd decides: local (a share of each limit, from memory), accept, or defer",
    )
    local_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="with on_down local: the share of each limit that all policyd workers of this host together may admit meanwhile",
    )
    refund: list[Outcome] = Field(
        [Outcome.DEFERRED, Outcome.ABORTED],
        description="what the milter gives back: rejected (by content or identity), deferred (our own 4xx), aborted (the client gave up)",
    )


class MetricsSettings(Table):
    """Prometheus."""

    listen: AddressField | None = Field(None, description="inet address of the metrics endpoint of all workers; empty: none")


class LogSettings(Table):
    """Logging, to standard error (or the service manager's journal)."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is written")
    format: Literal["text", "json"] = Field("text", description="text: key=value lines; json: one object a line")


def _unknown_login(value: Any) -> Any:
    if isinstance(value, str) and value not in {"reject", "ignore"}:
        raise ValueError(f"expected reject, ignore or {{plan: NAME}}, got {value!r}")
    return value


class Settings(Table):
    """The whole file."""

    store: StoreURL = Field(
        "sqlite:////var/lib/relaywarden/ledger.db",
        description="the ledger: sqlite:////path, redis://host:port/db, redis+sentinel://host:port,host:port/service, redis+cluster://host:port,host:port",
    )
    policyd: PolicydSettings = Field(PolicydSettings(), description="the policy daemon")
    milter: MilterSettings = Field(MilterSettings(), description="the milter")
    scan: ScanSettings | None = Field(None, description="content scan by rspamd; absent: nothing is scanned")
    plans: dict[Name, PlanSettings] = Field({}, description="named sets of limits")
    unknown_login: Annotated[UnknownLoginPlan | Literal["reject", "ignore"], BeforeValidator(_unknown_login)] = Field(
        "reject", description="a login that no tenant names: {plan: NAME}, reject (5.7.1) or ignore (no limits)"
    )
    tenants: dict[Name, TenantSettings] = Field({}, description="customers; tenants.d/*.yaml beside the file is merged in")
    operator: OperatorSettings = Field(OperatorSettings(), description="the relay's own identity")
    pools: dict[TransportName, PoolSettings] = Field(
        {}, description="source addresses by kind of mail; absent: nothing is tagged"
    )
    route: RouteSettings = Field(RouteSettings(), description="how the chosen pool reaches the MTA")
    ledger: LedgerSettings = Field(LedgerSettings(), description="timeouts and memory of the ledger")
    metrics: MetricsSettings = Field(MetricsSettings(), description="Prometheus endpoint")
    log: LogSettings = Field(LogSettings(), description="logging")
