"""settings - the one table of settings: every key, its type, its default and its help.

pydantic is used here and nowhere else: the programs read the values, they never validate.  docs/settings.rst is checked
against this table by a test.
"""

from __future__ import annotations

import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from relaywarden.config.fields import (
    AddressField,
    AddressList,
    Amount,
    Domain,
    DomainPattern,
    EmailAddress,
    HeaderName,
    IPAddress,
    LimitField,
    Milliseconds,
    Name,
    SenderId,
    Signer,
    StoreURL,
    TextList,
    TransportName,
)
from relaywarden.config.monitor_settings import (
    DnsWatchSettings,
    HealthSettings,
    MonitorSettings,
    NotifySettings,
    PatternsSettings,
    ReactSettings,
    SuppressionSettings,
)
from relaywarden.config.table import Table
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


class OnForeignFrom(Enum):
    """What becomes of a message whose From is not in a domain of its tenant."""

    REJECT = "reject"
    RESIGN = "resign"
    TAG = "tag"


class OnBulk(Enum):
    """What becomes of mail that is sent like a newsletter."""

    ALLOW = "allow"
    DIVERT = "divert"
    REJECT = "reject"


class OnFault(Enum):
    """What the lint does about something that would break the signature or be refused later."""

    REPAIR = "repair"
    REFUSE = "refuse"
    IGNORE = "ignore"


class OnFull(Enum):
    """What becomes of mail when every member of a pool is warming up and has reached its cap."""

    DEFER = "defer"
    SEND = "send"


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
    workers: int = Field(
        4, ge=1, le=64, description="pre-forked worker processes on the one listening socket; about two a core"
    )
    drain_timeout: Milliseconds = Field(30_000, description="how long a stopping worker waits for messages in flight")
    max_message_size: Amount = Field(
        64 * 2**20, description="larger messages are refused with 5.3.4; keep Postfix' message_size_limit below it"
    )
    body_in_memory: Amount = Field(
        1024 * 1024, description="of a body that is needed again (scan, repair), what is over this waits in a temporary file"
    )
    worker_memory: Amount = Field(
        512 * 2**20, description="a worker that has grown beyond this is drained and replaced; 0: never"
    )
    stream_header: bool = Field(False, description="add X-Relaywarden-Stream: transactional, unsure or bulk, and the score")
    hang_timeout: Milliseconds = Field(
        180_000, description="a worker that gives no sign of life for so long, or works so long on one message, is replaced"
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
    compression: Literal["none", "zstd"] = Field(
        "none", description="zstd: send messages compressed; worth it where rspamd is on another host"
    )
    headers: list[Literal["score", "symbols"]] = Field(
        [], description="add X-Relaywarden-Score and X-Relaywarden-Symbols to the mail: score, symbols"
    )
    divert_score: float | None = Field(
        None, description="mail that scores this or more, and is not refused, goes to the quarantine pool; empty: never"
    )


class NextKeySettings(Table):
    """The key that will follow."""

    selector: Domain = Field(description="its s=")
    key: Path = Field(description="its private key file")


class DkimSettings(Table):
    """One DKIM key."""

    domain: Domain = Field(description="d=")
    selector: Domain = Field(description="s=")
    key: Path = Field(description="private key file: PEM (RSA of 2048 bits or more, or Ed25519)")
    identity: Signer = Field(
        "", description="i=, in the domain or below it: @mail.acme.example, or {tenant}@relay.example; empty: no i="
    )
    next: NextKeySettings | None = Field(
        None, description="the key that `keys switch` puts in its place once DNS has it; signs nothing before"
    )

    @model_validator(mode="after")
    def _identity_in_domain(self) -> DkimSettings:
        """RFC 6376 section 3.5: the domain of i= is d= or below it."""
        domain = self.identity.rpartition("@")[2]
        if self.identity and domain != self.domain and not domain.endswith("." + self.domain):
            raise ValueError(f"identity: expected an address in {self.domain} or below it, got {self.identity}")
        if self.next is not None and self.next.selector == self.selector:
            raise ValueError(f"next.selector: expected another selector than {self.selector}")
        return self


class SigningSettings(Table):
    """How DKIM signatures are made (RFC 6376)."""

    expire: Milliseconds | None = Field(
        None,
        description="x=: receivers may ignore the signature so long after t=, such as 14d (it must outlast the queue); empty: no x=",
    )
    timestamp: bool = Field(True, description="t=: say when the message was signed")
    oversign: Literal["safe", "from", "none"] = Field(
        "safe",
        description="fields that nobody may add later: safe (From, To, Cc, Subject, Reply-To, and singletons that are there), from, or none",
    )
    headers: list[HeaderName] = Field([], description="more header fields to sign, where they are there")


class LintSettings(Table):
    """What would break the signature on the way, or have receivers refuse the mail; looked for before signing."""

    line_length: int = Field(
        998, ge=78, le=998, description="longest line in octets (RFC 5322: 998); Postfix breaks longer ones"
    )
    long_lines: OnFault = Field(OnFault.REPAIR, description="lines over line_length: repair (fold headers, break body lines)")
    bare_line_ends: OnFault = Field(OnFault.REPAIR, description="CR or LF that stands alone: repair (make it CRLF)")
    eight_bit: OnFault = Field(
        OnFault.REPAIR,
        description="8-bit text that the client did not announce by BODY=8BITMIME: repair (declare it, or encode it as quoted-printable)",
    )
    missing_headers: OnFault = Field(OnFault.REPAIR, description="no Date or no Message-ID: repair (add it)")
    duplicate_headers: OnFault = Field(
        OnFault.REPAIR,
        description="Subject, Date, Message-ID, To and the like twice: repair (join addresses, keep the first of others)",
    )


class IdentitySettings(Table):
    """Whether the sender of a message belongs to its tenant."""

    foreign_from: OnForeignFrom = Field(
        OnForeignFrom.REJECT,
        description="From outside from_domains: reject (5.7.1), resign (only the operator signs), or tag (that, and X-Relaywarden-Identity says so)",
    )
    check_sender: bool = Field(False, description="Sender must be in from_domains too, or in the organizational domain of one")
    check_envelope: bool = Field(False, description="so must the envelope sender, unless it is empty")
    spoofed_name: Literal["ignore", "signal", "reject"] = Field(
        "signal",
        description="a display name that shows an address or domain of another tenant: ignore, signal (log, metric), reject",
    )


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
    identity: IdentitySettings = Field(IdentitySettings(), description="who may stand in From")
    bulk: OnBulk = Field(
        OnBulk.ALLOW, description="mail sent like a newsletter: allow, divert (to the pool called bulk) or reject (5.7.1)"
    )
    settings_id: str = Field("", description="rspamd Settings-ID of this plan's mail; default: scan.settings_id")
    health: HealthSettings = Field(HealthSettings(), description="when bad outcomes are too many")
    patterns: PatternsSettings = Field(PatternsSettings(), description="when what a tenant sends is not its normal")
    suppression: SuppressionSettings = Field(SuppressionSettings(), description="recipients not to be sent to again")

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
        [], description="SASL logins, exact or with * for any characters (*@acme.example); default: the tenant's name"
    )
    plan: Name = Field(description="the plan whose limits hold")
    mode: Mode | None = Field(None, description="overrides the plan's mode")
    from_domains: list[DomainPattern] = Field([], description="domains allowed in From, *.domain for subdomains; empty: any")
    dkim: list[DkimSettings] = Field([], description="keys that sign this tenant's mail; empty: no tenant signature")
    pool: TransportName | None = Field(None, description="the pool that carries this tenant's mail; default: the first pool")


class FeedbackSettings(Table):
    """Headers by which complaints find their way back: Feedback-ID (Gmail), CFBL-Address and CFBL-Feedback-ID (RFC 9477)."""

    sender_id: SenderId = Field(description="SenderId of Feedback-ID: 5 to 15 letters and digits, yours alone")
    address: EmailAddress = Field(
        "", description="where complaints are sent, such as fbl@relay.example; mail to fbl+TOKEN@ must arrive; empty: no CFBL"
    )
    bounces: EmailAddress = Field(
        "",
        description="envelope sender of all mail, such as bounce@relay.example, sent as bounce+TOKEN@: bounces then come to the monitor, not to the customer; empty: the client's own",
    )
    secret: Path = Field(description="file with at least 32 secret bytes (head -c 32 /dev/urandom); the same on every host")


class OperatorSettings(Table):
    """The relay's own identity."""

    dkim: list[DkimSettings] = Field([], description="second signature on every message, covers Feedback-ID")
    feedback: FeedbackSettings | None = Field(None, description="complaint headers of our own; copies from clients are deleted")


class ScheduleSettings(Table):
    """A ramp of caps for a new address, for each mailbox provider."""

    daily: list[Amount] = Field([], description="recipients a day: day 0, day 1, ...; after the last the address is warm")
    hourly: list[Amount] = Field([], description="recipients an hour; default: a twelfth of the day's")

    @model_validator(mode="after")
    def _something(self) -> ScheduleSettings:
        if not self.daily and not self.hourly:
            raise ValueError("expected a list of caps, daily or hourly")
        if self.daily and self.hourly and len(self.daily) != len(self.hourly):
            raise ValueError("daily, hourly: expected lists of the same length")
        return self


class WarmupSettings(Table):
    """A new source IP that must be warmed up."""

    start: datetime.date = Field(description="day 0")
    schedule: str = Field("default", description="name of the schedule: one of schedules, or built-in: default, sendgrid")
    providers: dict[Name, str] = Field(
        {}, description="schedule by mailbox provider (google, microsoft, yahoo, apple, ...), where another holds"
    )


class MemberSettings(Table):
    """One pool member: a Postfix transport or a PowerMTA virtual MTA."""

    ip: IPAddress = Field(description="its source address")
    helo: Domain | None = Field(None, description="the name it says HELO with; `relaywarden dns` compares")
    warmup: WarmupSettings | None = Field(None, description="new address: how it is warmed up")


class PoolSettings(Table):
    """A set of source addresses that carry one kind of mail."""

    members: dict[TransportName, MemberSettings] = Field(
        min_length=1, description="name of the transport or virtual MTA, with its ip"
    )
    when_full: OnFull = Field(
        OnFull.DEFER,
        description="every member warms up and has reached its cap: defer (4.7.1), or send (by the member with the largest cap)",
    )


class RampSettings(Table):
    """What the warm-up of every member has in common."""

    max_deferred: float = Field(
        0.25, gt=0, le=1, description="share of deferred attempts of the day that pauses a member for a provider"
    )
    max_bounced: float = Field(0.10, gt=0, le=1, description="share of bounced recipients of the day that steps it back")
    min_sample: int = Field(50, ge=1, description="attempts in a day before these shares count")
    pause: Milliseconds = Field(6 * 3_600_000, description="how long a paused member carries nothing for that provider")


class RouteSettings(Table):
    """How the chosen pool reaches the MTA."""

    header: HeaderName = Field("X-Virtual-MTA", description="header that names the pool or member; client copies are deleted")
    target: Literal["member", "pool"] = Field("member", description="write the member's name, or the pool's (PowerMTA rotates)")
    powermta: bool = Field(
        False,
        description="PowerMTA is behind: add X-Job (the tenant) and X-Envid (the queue id), which only PowerMTA removes again",
    )


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
    monitor: MonitorSettings = Field(MonitorSettings(), description="the monitor, which reads what became of the mail")
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
    schedules: dict[Name, ScheduleSettings] = Field({}, description="warm-up schedules of your own")
    ramp: RampSettings = Field(RampSettings(), description="when a member's warm-up is paused or stepped back")
    react: ReactSettings = Field(ReactSettings(), description="what the monitor does when an address is blamed")
    dns: DnsWatchSettings = Field(DnsWatchSettings(), description="blocklists and identity of the pools")
    notify: NotifySettings = Field(NotifySettings(), description="who is told")
    route: RouteSettings = Field(RouteSettings(), description="how the chosen pool reaches the MTA")
    signing: SigningSettings = Field(SigningSettings(), description="how DKIM signatures are made")
    lint: LintSettings = Field(LintSettings(), description="what is repaired or refused before signing")
    ledger: LedgerSettings = Field(LedgerSettings(), description="timeouts and memory of the ledger")
    metrics: MetricsSettings = Field(MetricsSettings(), description="Prometheus endpoint")
    log: LogSettings = Field(LogSettings(), description="logging")
