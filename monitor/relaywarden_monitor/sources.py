"""sources - from `monitor:` in the configuration to what is read: logs, journal, accounting, mail.

A source's name is what the ledger keeps its position under: it holds the host's name, since several hosts may share a ledger,
and what the configuration says of it, so that another order of the file changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from relaywarden.config.monitor_settings import MonitorSettings
from relaywarden_monitor.ingest.accounting import AccountingFiles
from relaywarden_monitor.ingest.journal import JournalSource
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.ingest.source import Source
from relaywarden_monitor.intake.lmtp import Limits, LmtpIntake
from relaywarden_monitor.intake.maildir import Maildir

Deliver = Callable[[bytes, str], None]
PIPE_FILES, REPORTS = "pmta-*.csv*", "reports"  # in the spool


def sources(settings: MonitorSettings) -> list[Source]:
    """Everything that is read by position."""
    found: list[Source] = [PostfixFile(Path(path)) for path in settings.postfix_log]
    if settings.journal is not None:
        found.append(JournalSource(settings.journal.matches, settings.journal.directory))
    if settings.accounting:
        found.append(AccountingFiles("files", settings.accounting))
    if settings.spool is not None:
        found.append(AccountingFiles("pipe", [str(settings.spool / PIPE_FILES)]))
    for source in found:
        source.name = f"{socket.gethostname()}:{source.name}"
    return found


def listeners(settings: MonitorSettings, deliver: Deliver) -> list[LmtpIntake]:
    """What takes reports by LMTP."""
    limits = Limits(most_bytes=settings.max_report_size)
    return [LmtpIntake(settings.listen, limits, deliver)] if settings.listen else []


def maildirs(settings: MonitorSettings, deliver: Deliver) -> list[Maildir]:
    """Folders in which reports arrive."""
    folders = [*settings.maildir, *([settings.spool / REPORTS] if settings.spool is not None else [])]
    return [Maildir(folder, settings.max_report_size, deliver) for folder in folders]
