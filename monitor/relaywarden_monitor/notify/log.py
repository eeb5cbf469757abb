"""log - the channel that is always there: one line a notice, `notice kind=crossed severity=act ...`, the evidence as fields.

A crossing is a warning, everything else information.  It does not fail: a log that cannot be written is the log's concern.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from relaywarden.logs import event
from relaywarden_monitor.notify import meters
from relaywarden_monitor.notify.notice import Kind, Notice

log = logging.getLogger(__name__)


class LogChannel:
    """Notices as structured log lines; safe to use from several threads."""

    name = "log"

    def tell(self, notices: Sequence[Notice]) -> None:
        """One line each."""
        for notice in notices:
            level = logging.WARNING if notice.kind is Kind.CROSSED else logging.INFO
            # Names of evidence are harmless, but may be those of our own fields.
            evidence: dict[str, Any] = {f"evidence.{name}": value for name, value in notice.evidence.items()}
            event(log, level, "notice", kind=notice.kind.value, severity=notice.severity.value, subject=notice.subject,
                  what=notice.what, undo=notice.undo, key=notice.key, id=notice.id, **evidence)  # fmt: skip
        meters.NOTICES.labels(self.name, "told").inc(len(notices))

    def close(self) -> None:
        """There is nothing to give back."""
