"""examine_monitor - the part of `relaywarden check` about the monitor: its sources, what it would do, and whom it tells."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from relaywarden import secretfile
from relaywarden.config.monitor_settings import MonitorSettings
from relaywarden.config.settings import Settings
from relaywarden.errors import KeyFileError, Problem

_LARGEST_SECRET = 4096
QUARANTINE = "quarantine"


def problems(settings: Settings) -> Iterator[Problem]:
    """What would keep the monitor from its work."""
    monitor = settings.monitor
    if monitor.postfix_log and monitor.journal is not None:
        yield Problem("monitor.journal", "beside postfix_log each line would count twice where both have it; keep one of them")
    for index, path in enumerate(monitor.postfix_log):
        if Path(path).is_dir():
            yield Problem(f"monitor.postfix_log[{index}]", f"{path} is a folder; expected a log file")
        elif Path(path).exists() and not os.access(path, os.R_OK):
            where = f"monitor.postfix_log[{index}]"
            yield Problem(where, f"{path} cannot be read by this user; on Debian: adduser relaywarden adm")
    if monitor.spool is not None and not os.access(monitor.spool, os.W_OK | os.X_OK):
        yield Problem("monitor.spool", f"the folder {monitor.spool} does not exist, or this user may not write there")
    for index, rules in enumerate(monitor.rules):
        if not os.access(rules, os.R_OK):
            yield Problem(f"monitor.rules[{index}]", f"{rules} cannot be read")
    for index, webhook in enumerate(settings.notify.webhooks):
        if webhook.secret is not None:
            try:
                secretfile.read(webhook.secret, "secret", _LARGEST_SECRET)
            except KeyFileError as error:
                yield Problem(f"notify.webhooks[{index}].secret", str(error))
    mail = settings.notify.mail
    if mail is not None and (not mail.sender or not all(mail.to)):
        yield Problem("notify.mail", "expected addresses in to and sender, got an empty one")


def remarks(settings: Settings) -> Iterator[Problem]:
    """What may be meant, but should be known."""
    monitor = settings.monitor
    if not monitor.sources:
        return  # it does not run
    yield from _missing(monitor)
    if settings.react.pmta == "run" and not os.access(settings.react.pmta_command, os.X_OK):
        yield Problem("react.pmta_command", f"{settings.react.pmta_command} cannot be run here")
    if QUARANTINE not in settings.pools:
        for name, plan in settings.plans.items():
            if plan.health.action == "divert":
                yield Problem(
                    f"plans.{name}.health.action", f"divert needs a pool named {QUARANTINE}; without one it is only told"
                )
    feedback = settings.operator.feedback
    if feedback is None:
        yield Problem("operator.feedback", "not set: complaints and late bounces cannot be attributed")
    elif feedback.bounces and (domain := feedback.bounces.rpartition("@")[2].casefold()) not in settings.dns.return_path:
        yield Problem("dns.return_path", f"does not name {domain}, from which all mail is sent: nobody watches its SPF")


def _missing(monitor: MonitorSettings) -> Iterator[Problem]:
    """What is to be read, and is not there."""
    for index, path in enumerate(monitor.postfix_log):
        if not Path(path).exists():
            yield Problem(f"monitor.postfix_log[{index}]", f"{path} is not there (yet)")
    for index, pattern in enumerate(monitor.accounting):
        if not glob.glob(pattern):  # noqa: PTH207  # patterns are absolute
            yield Problem(f"monitor.accounting[{index}]", f"{pattern} matches no file (yet)")
    for index, folder in enumerate(monitor.maildir):
        if not (folder / "new").is_dir():
            yield Problem(f"monitor.maildir[{index}]", f"{folder} is no maildir (yet): there is no folder new in it")
