"""content - what rspamd says of the message, and what follows from it; the talking is done by `rspamd`, the reading by `scan`.

How it fails: by `scan.on_error`, counted and logged.
"""

from __future__ import annotations

import logging

from relaywarden.config.settings import OnScanError, ScanSettings
from relaywarden.errors import ScanError
from relaywarden.ledger.operations import Score
from relaywarden.logs import event
from relaywarden.tenants import Tenant
from relaywarden_milter import meters
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.scan import Fate, Meaning, Scan, meaning
from relaywarden_milter.work import Work

log = logging.getLogger(__name__)
_SYMBOLS_LOGGED, _SYMBOLS_KEPT = 5, 20


def content(work: Work, tenant: Tenant) -> Refusal | None:
    """Have the message scanned, and do what the verdict means under the configuration."""
    scanner, settings = work.rules.scanner, work.rules.settings.scan
    if scanner is None or settings is None:
        return None
    try:
        scan = scanner.scan(
            work.message, work.envelope, work.tick,
            headers=work.edits.headers, body=work.body, settings_id=tenant.settings_id,
        )  # fmt: skip
    except ScanError as error:
        return _failed(work, error, settings.on_error)
    found = meaning(scan, settings)
    _note(work, tenant, scan, known=found.known)
    refusal = work.binding(tenant, _refusal(found))
    if refusal is not None:
        return refusal
    if found.fate is Fate.HOLD and work.binds(tenant, "hold"):
        work.hold = found.text
    _mark(work, scan, found, settings)
    if settings.divert_score is not None and scan.score >= settings.divert_score and work.binds(tenant, "divert"):
        work.divert = True
    return None


def _mark(work: Work, scan: Scan, found: Meaning, settings: ScanSettings) -> None:
    """The headers that rspamd and the configuration ask for."""
    for name, index in scan.remove:
        if not work.rules.is_control(name.lower()):
            work.edits.delete_one(name, index)
    for name, value in scan.add:
        if not work.rules.is_control(name.lower()):
            work.edits.add(name, value)
    if found.spam_header:
        work.edits.add(settings.spam_header, "Yes")
    if found.subject:
        work.edits.replace("Subject", found.subject)
    if "score" in settings.headers:
        work.edits.add("X-Relaywarden-Score", f"{scan.score:.2f} / {scan.required:.2f}")
    if "symbols" in settings.headers:
        work.edits.add("X-Relaywarden-Symbols", ", ".join(_worst(scan)) or "none")


def _note(work: Work, tenant: Tenant, scan: Scan, *, known: bool) -> None:
    """To log, metrics and ledger."""
    worst = _worst(scan)
    work.record |= {"action": scan.action, "score": scan.score, "required": scan.required}
    work.record["symbols"] = ",".join(worst[:_SYMBOLS_LOGGED])
    meters.labelled(meters.SCANS, scan.action if known else "custom").inc()
    meters.SCORE.observe(scan.score)
    work.notes.append(Score(tenant.name, scan.score, tuple(worst)))
    settings = work.rules.settings.scan
    if not known and settings is not None and scan.action not in work.rules.unheard:
        work.rules.unheard.add(scan.action)
        event(log, logging.WARNING, "rspamd gave an action of its own, see scan.custom_action",
              action=scan.action, treated_as=settings.custom_action)  # fmt: skip


def _refusal(found: Meaning) -> Refusal | None:
    if found.fate is Fate.REJECT:
        return Refusal.reject(found.text, code="554")
    if found.fate is Fate.TEMPFAIL:
        return Refusal.put_off(found.text)
    return Refusal(Fate.DISCARD, "", "", "") if found.fate is Fate.DISCARD else None


def _failed(work: Work, error: ScanError, on_error: OnScanError) -> Refusal | None:
    """rspamd gave no verdict: it is logged, counted (SCANS error or skipped), and the message goes by scan.on_error."""
    work.record["scan_error"] = str(error)
    if on_error is OnScanError.TEMPFAIL:
        return Refusal.put_off("Content scan is unavailable, try again later")
    work.divert = work.divert or on_error is OnScanError.DIVERT
    return None


def _worst(scan: Scan) -> list[str]:
    """The symbols that speak against the message, the worst first."""
    ordered = sorted(scan.symbols, key=lambda symbol: -symbol[1])
    return [name for name, score in ordered if score > 0][:_SYMBOLS_KEPT]
