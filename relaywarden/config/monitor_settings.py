"""monitor_settings - the sections of the table of settings that the monitor reads: sources, thresholds, reactions, notices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from relaywarden.config.fields import AddressField, Amount, Domain, EmailAddress, Milliseconds, TextList
from relaywarden.config.table import Table

_DAY = 86_400_000


def _share(value: Any) -> Any:
    """`4%` or `0.04`: a share of 0 to 1."""
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 < number <= 1:
        raise ValueError(f"expected a share such as 4% or 0.04, got {value!r}")
    return number


Share = Annotated[float, BeforeValidator(_share)]


_PathList = Annotated[list[Path], BeforeValidator(lambda v: v if isinstance(v, list) else [v])]


class JournalSettings(Table):
    """The journal of systemd as a source of Postfix' log lines."""

    matches: TextList = Field(
        ["_SYSTEMD_UNIT=postfix@-.service", "_SYSTEMD_UNIT=postfix.service"],
        description="journalctl matches that select Postfix' lines; those of fields that begin with _ no other program can forge",
    )
    directory: Path | None = Field(None, description="journal directory, where it is not this host's own")


class MonitorSettings(Table):
    """The monitor; it runs where it has a source."""

    postfix_log: TextList = Field(
        [], description="Postfix' log files, such as /var/log/mail.log; rotated ones are found beside them"
    )
    journal: JournalSettings | None = Field(
        None, description="read Postfix' log from systemd's journal; {} for this host's own"
    )
    accounting: TextList = Field(
        [],
        description="PowerMTA's accounting files, as glob patterns: /var/log/pmta/relaywarden*.csv*; .gz, .xz, .bz2, .zst too",
    )
    spool: Path | None = Field(
        None, description="folder in which `relaywarden pmta-pipe` puts PowerMTA's records and `relaywarden report` the reports"
    )
    listen: Annotated[list[AddressField], BeforeValidator(lambda v: v if isinstance(v, list) else [v])] = Field(
        [],
        description="LMTP addresses for bounce messages and complaints: unix:/path or inet:host:port",
    )
    maildir: _PathList = Field(
        [], description="maildirs of bounce messages and complaints; what was read moves from new to cur"
    )
    handover: TextList = Field(
        [],
        description="hosts or addresses of our own next hop, such as PowerMTA: what Postfix delivers to them is not delivered yet",
    )
    host: str = Field("", description="name of this host among several that share a Redis; default: the machine's id")
    interval: Milliseconds = Field(1_000, description="how often sources are looked at and standings judged")
    remember: Milliseconds = Field(2 * _DAY, description="how long `explain` can tell a message's story")
    history: Milliseconds = Field(35 * _DAY, description="how long hourly counters are kept")
    max_report_size: Amount = Field(4 * 2**20, description="of a larger report only so many bytes are read")
    rules: _PathList = Field([], description="files of your own rules for reply texts, asked before the built-in ones")

    @property
    def sources(self) -> list[str]:
        """The settings by which the monitor learns anything; where there is none, it does not run."""
        names = ("postfix_log", "journal", "accounting", "spool", "listen", "maildir")
        return [name for name in names if getattr(self, name) not in (None, [])]


class Threshold(Table):
    """Two shares: at the first people are told, at the second the monitor acts."""

    warn: Share = Field(description="share from which people are told")
    act: Share = Field(description="share from which the monitor acts")

    @model_validator(mode="after")
    def _in_order(self) -> Threshold:
        if self.warn > self.act:
            raise ValueError(f"expected warn ({self.warn:.2%}) to be at most act ({self.act:.2%})")
        return self


class HealthSettings(Table):
    """When a tenant's bad outcomes are too many: shares of recipients, of which the lower Wilson bound counts."""

    bounces: Threshold = Field(
        Threshold(warn=0.04, act=0.08), description="hard bounces (no such mailbox) of what was delivered or bounced"
    )
    complaints: Threshold = Field(Threshold(warn=0.0008, act=0.003), description="complaints of what was delivered")
    blocks: Threshold = Field(
        Threshold(warn=0.02, act=0.05),
        description="attempts that the content, the domain or its authentication made fail, of all attempts",
    )
    invalid: Threshold = Field(
        Threshold(warn=0.05, act=0.10), description="recipients that do not exist, of the first ones of a burst"
    )
    window: Milliseconds = Field(_DAY, description="the last so much time is judged, in steps of an hour")
    min_sample: int = Field(200, ge=1, description="recipients before a share counts")
    burst: int = Field(200, ge=10, description="how many recipients of a burst `invalid` looks at")
    confidence: float = Field(1.645, ge=0, le=5, description="z of the Wilson bound; 1.645: 95 % sure, one-sided")
    action: Literal["divert", "suspend", "none"] = Field(
        "divert", description="what is done at act: divert (to the pool called quarantine), suspend, or none"
    )
    hold_for: Milliseconds = Field(
        3_600_000, description="how long it is done the first time; doubles each time it comes again"
    )


class PatternsSettings(Table):
    """What the monitor does about mail that is not as a tenant's own normal."""

    mode: Literal["enforce", "observe", "off"] = Field(
        "enforce", description="enforce; observe (say what would be done); off (normal is learned, nothing is said)"
    )
    start: Amount = Field(1_000, description="recipients that a new tenant may have on its first day without being noticed")
    growth: float = Field(
        1.4, ge=1, le=10, description="and so many times more each day, until it has a normal of its own (two weeks)"
    )
    slow: float = Field(0.25, gt=0, lt=1, description="what every limit is multiplied by while a tenant is slowed")


class SuppressionSettings(Table):
    """Recipients that a tenant may not send to again for a while."""

    bounced: Milliseconds | None = Field(30 * _DAY, description="how long after a hard bounce; empty: never suppressed")
    complained: Milliseconds | None = Field(365 * _DAY, description="how long after a complaint; empty: never suppressed")


class ReactSettings(Table):
    """What the monitor does by itself about replies that blame a source address."""

    mode: Literal["enforce", "observe", "off"] = Field(
        "enforce", description="enforce; observe (say what would be done); off (members are left alone)"
    )
    after: int = Field(
        3, ge=1, description="so many replies of one kind within ten minutes before a member is paused for a provider"
    )
    pause: Milliseconds = Field(
        600_000, description="pause where the reply's rule states no wait; doubles each time it comes again"
    )
    longest: Milliseconds = Field(_DAY, description="longest pause, however often it comes again")
    pmta: Literal["off", "offer", "run"] = Field(
        "off", description="PowerMTA: off, offer (log and notify the `pmta` command lines), or run them"
    )
    pmta_command: str = Field("/usr/sbin/pmta", description="the program that `run` calls; never through a shell")


class DnsWatchSettings(Table):
    """What DNS says of pools and domains, asked now and then."""

    every: Milliseconds | None = Field(3_600_000, description="how often; empty: only by `relaywarden dns`")
    blocklists: list[Domain] = Field([], description="DNS blocklists for addresses, such as zen.spamhaus.org")
    domain_blocklists: list[Domain] = Field([], description="DNS blocklists for domains, such as dbl.spamhaus.org")
    rate: int = Field(
        10,
        ge=1,
        le=1000,
        description="most queries a second; 10,000 tenants make about 50,000, so raise it against a resolver of your own",
    )
    nameservers: list[str] = Field(
        [], description="resolvers to ask: 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353; default: the system's"
    )
    return_path: list[Domain] = Field(
        [], description="domains of envelope senders that are yours, whose SPF must include the pools"
    )


class WebhookSettings(Table):
    """Notices as JSON over HTTP."""

    url: str = Field(pattern=r"^https?://", description="where notices are posted")
    secret: Path | None = Field(
        None, description="file with a secret; X-Relaywarden-Signature is then t=TIME,v1=HMAC-SHA256 of TIME.BODY"
    )
    timeout: Milliseconds = Field(10_000, description="for one post")


class NoticeMailSettings(Table):
    """Notices by mail."""

    to: Annotated[list[EmailAddress], BeforeValidator(lambda v: v if isinstance(v, list) else [v])] = Field(
        min_length=1, description="who is told"
    )
    sender: EmailAddress = Field(description="From and envelope sender")
    server: str = Field("127.0.0.1:25", description="SMTP server, host:port")


class NotifySettings(Table):
    """Who is told of first crossings and recoveries; the log always is."""

    webhooks: list[WebhookSettings] = Field([], description="JSON over HTTP")
    mail: NoticeMailSettings | None = Field(None, description="mail")
    batch: Milliseconds = Field(5_000, description="notices of so long go out together")
    keep: Milliseconds = Field(3 * _DAY, description="how long what cannot be told is tried again")
