"""sources - from `monitor:` in the configuration to what is read: logs, journal, accounting, mail.

A source's name is what the ledger keeps its position under: it holds the host's name, since several hosts may share a ledger,
and what the configuration says of it, so that another order of the file changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from relaywarden.config.monitor_settings import MonitorSettings
from relaywarden_monitor.ingest.accounting import AccountingFiles
from relaywarden_monitor.ingest.journal import JournalSource
from relaywarden_monitor.ingest.postfixfile import PostfixFile
from relaywarden_monitor.ingest.source import Source
from relaywarden_monitor.intake.lmtp import LmtpIntake
from relaywarden_monitor.intake.maildir import MaildirIntake

Deliver = Callable[[bytes, str], None]
PIPE_FILES, REPORTS = "pmta-*.csv", "reports"  # in the spool


class Intake(Protocol):
    """A way by which reports come in."""

    def start(self) -> None:
        """Begin; raises RelaywardenError where it cannot."""
        ...

    def turn(self) -> bool:
        """Do what has no thread of its own; whether there was something."""
        ...

    def stop(self) -> None:
        """Finish what is in hand."""
        ...


def sources(settings: MonitorSettings) -> list[Source]:
    """Everything that is read by position."""
    host = socket.gethostname()
    found: list[Source] = [PostfixFile(f"{host}:{path}", path) for path in settings.postfix_log]
    if settings.journal is not None:
        found.append(JournalSource(f"{host}:journal", settings.journal))
    if settings.accounting:
        found.append(AccountingFiles(f"{host}:accounting", settings.accounting))
    if settings.spool is not None:
        found.append(AccountingFiles(f"{host}:pipe", [str(settings.spool / PIPE_FILES)]))
    return found


def intakes(settings: MonitorSettings, deliver: Deliver) -> list[Intake]:
    """Everything that brings reports."""
    found: list[Intake] = [LmtpIntake(settings.listen, settings.max_report_size, deliver)] if settings.listen else []
    folders = [*settings.maildir, *([settings.spool / REPORTS] if settings.spool is not None else [])]
    found += [MaildirIntake(folder, settings.max_report_size, deliver) for folder in folders]
    return found
