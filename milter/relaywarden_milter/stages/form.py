"""form - what would break the signature later, or have receivers refuse the mail: mended or refused (`lint`, `repair`).

How it fails: a body that cannot be kept or written again (disk full) puts the message off.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from relaywarden.logs import event
from relaywarden.tenants import Tenant
from relaywarden_milter import lint, meters, rebody, repair
from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.spool import Spool
from relaywarden_milter.work import Work

log = logging.getLogger(__name__)
_NO_SPACE = "No space for this message at the moment, try again later"


def form(work: Work, tenant: Tenant) -> Refusal | None:
    """Lint headers and body, and mend what may be mended."""
    settings = work.rules.settings
    findings = lint.examine(work.edits.headers, work.message.lint, work.envelope.eight_bit, settings.lint)
    if not findings:
        return None
    domain = work.domains[0] if work.domains else work.envelope.mta_name or "localhost.invalid"
    queue_id = work.envelope.queue_id
    mended = repair.mend(work.edits, work.message.lint, findings, time.time(), domain, queue_id, settings.lint)
    for finding in findings:
        meters.labelled(meters.LINT, finding.kind).inc()
    work.record["lint"] = ",".join(dict.fromkeys(finding.kind for finding in findings))
    work.record["repaired"] = ",".join(mended.done)
    if mended.refused is not None:
        return work.binding(tenant, Refusal.reject(f"Message refused: {mended.refused.text}", "5.6.0", "554"))
    if mended.body is None:
        return None
    if work.message.body_lost:
        return Refusal.put_off(_NO_SPACE, "4.3.1")  # also under `observe`: the headers speak of the repaired body
    return _rewrite(work, rebody.body(work.message.body_pieces(), mended.body))


def _rewrite(work: Work, pieces: Iterable[bytes]) -> Refusal | None:
    """The repaired body, hashed on the way."""
    hashing, spool = BodyHash(), Spool(work.rules.settings.milter.body_in_memory)
    try:
        for piece in pieces:
            hashing.update(piece)
            spool.write(piece)
    except OSError as error:
        spool.close()
        event(log, logging.ERROR, "no space to repair a message, it is put off", queue=work.envelope.queue_id, error=error)
        return Refusal.put_off(_NO_SPACE, "4.3.1")
    work.body, work.body_digest = spool, hashing.digest()
    return None
