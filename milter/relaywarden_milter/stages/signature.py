"""signature - the DKIM signatures of tenant and operator, over the message as it will be; always the last stage.

How it fails: a key that is missing puts the message off; it never leaves unsigned because of that.
"""

from __future__ import annotations

import time

from relaywarden.errors import KeyFileError
from relaywarden.tenants import Tenant
from relaywarden_milter import meters
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.sign import Signer
from relaywarden_milter.work import Work


def signature(work: Work, tenant: Tenant) -> Refusal | None:
    """Sign with the operator's keys and with those of the tenant that fit the From domain."""
    try:
        own = work.rules.keyring.for_tenant(tenant, work.domains)
        operator = work.rules.keyring.operator()
    except KeyFileError as error:
        meters.KEY_FAILURES.inc()
        work.record["key_error"] = error
        return Refusal.put_off("This message cannot be signed at the moment, try again later", "4.7.5")
    if not own and not operator:
        return None
    digest = work.body_digest or work.message.body.digest()
    signer, now = Signer(work.edits.headers, digest, work.rules.style), int(time.time())
    for key in [*operator, *own]:  # each goes in above the last: the tenant's ends on top
        work.edits.insert_signature("DKIM-Signature", signer.sign(key, now, tenant.name))
    work.record["signed"] = ",".join(f"{key.domain}/{key.selector}" for key in [*own, *operator])
    meters.labelled(meters.SIGNATURES, "tenant").inc(len(own))
    meters.labelled(meters.SIGNATURES, "operator").inc(len(operator))
    return None
