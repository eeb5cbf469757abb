"""sources - from `monitor:` in the configuration to what is read: logs, journal, accounting, mail.

A source's name is what the ledger keeps its position under: what the configuration says of it, so that another order of the
file changes nothing; and, where several hosts may share the ledger (Redis), whose it is: `monitor.host`, else the machine's
id, since a host that comes back under another name must not read everything again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from relaywarden.config.monitor_settings import MonitorSettings
from relaywarden.config.settings import Settings
from relaywarden.ledger.store_url import Store
from relaywarden_monitor.ingest.accounting import AccountingFiles
from relaywarden_monitor.ingest.journal import JournalSource
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.ingest.source import Source
from relaywarden_monitor.intake.lmtp import Limits, LmtpIntake
from relaywarden_monitor.intake.maildir import Maildir

Deliver = Callable[[bytes, str], None]
PIPE_FILES, REPORTS = "pmta-*.csv*", "reports"  # in the spool


def sources(whole: Settings) -> list[Source]:
    """Everything that is read by position."""
    settings = whole.monitor
    found: list[Source] = [PostfixFile(Path(path)) for path in settings.postfix_log]
    if settings.journal is not None:
        found.append(JournalSource(settings.journal.matches, settings.journal.directory))
    if settings.accounting:
        found.append(AccountingFiles("files", settings.accounting))
    if settings.spool is not None:
        found.append(AccountingFiles("pipe", [str(settings.spool / PIPE_FILES)]))
    host = "" if Store.parse(whole.store).scheme == "sqlite" else f"{host_of(settings)}:"
    for source in found:
        source.name = f"{host}{source.name}"
    return found


def host_of(settings: MonitorSettings) -> str:
    """The name under which this host reads: the configured one, the machine's id, or its name."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""  # a system without one; the host's name has to do
    return settings.host or machine or socket.gethostname()


def listeners(settings: MonitorSettings, deliver: Deliver) -> list[LmtpIntake]:
    """What takes reports by LMTP."""
    limits = Limits(most_bytes=settings.max_report_size)
    return [LmtpIntake(settings.listen, limits, deliver)] if settings.listen else []


def maildirs(settings: MonitorSettings, deliver: Deliver) -> list[Maildir]:
    """Folders in which reports arrive."""
    folders = [*settings.maildir, *([settings.spool / REPORTS] if settings.spool is not None else [])]
    return [Maildir(folder, settings.max_report_size, deliver) for folder in folders]
