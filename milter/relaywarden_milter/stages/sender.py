"""sender - may this tenant send, and as whom: standing, From, Sender, envelope sender, display name.

How it fails: a From that cannot be read is refused where the tenant has from_domains; where any From passes, it is aligned with
no key.  Whatever becomes of a message, a tenant's keys never vouch for a domain that is not the tenant's.
"""

from __future__ import annotations

import time

from relaywarden.config.settings import OnForeignFrom
from relaywarden.errors import MessageError
from relaywarden.tenants import Tenant
from relaywarden_milter import identity, meters
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.work import Work


def standing(work: Work, tenant: Tenant) -> Refusal | None:
    """What operator and monitor said of the tenant."""
    said = work.rules.words.tenants.get(tenant.name)
    if not said:
        return None
    suspended = said.get("suspended")
    if isinstance(suspended, dict) and (suspended.get("until_ms") or float("inf")) > time.time() * 1000:
        return Refusal.reject("This account is suspended, ask your provider")
    until = said.get("until_ms")  # of a diversion by the monitor: it ends by itself
    if until and until <= time.time() * 1000:
        return None
    work.divert = bool(said.get("divert"))
    work.hold = str(said.get("hold") or "")
    work.record["standing"] = "held" if work.hold else "diverted" if work.divert else None
    return None


def sender(work: Work, tenant: Tenant) -> Refusal | None:
    """Who stands in From, and in Sender and envelope where the plan asks for that."""
    rule, patterns = tenant.identity, tenant.from_domains
    try:
        authors = identity.authors(work.edits.headers)
        domains = identity.domains_of(authors)
        sender = identity.sender_domain(work.edits.headers) if rule.check_sender and patterns else None
        returned_to = identity.envelope_domain(work.envelope.sender) if rule.check_envelope and patterns else None
    except MessageError as error:
        if not patterns and len(work.edits.values("from")) == 1:
            return None  # any From passes; one that cannot be read aligns with no key
        return work.binding(tenant, Refusal.reject(f"Message refused: {error}"))
    work.record["from"] = ",".join(domains)
    foreign = next((domain for domain in domains if not identity.belongs(domain, patterns)), None)
    # Whatever is done about it: our tenant's keys never vouch for a domain that is not the tenant's.
    work.domains = domains if foreign is None else ()
    refusal = _foreign(work, tenant, foreign) if foreign is not None else None
    if sender is not None and not identity.related(sender, patterns):
        refusal = refusal or _suspect(work, "sender", f"This login may not send mail with a Sender in {sender}")
    if returned_to is not None and not identity.related(returned_to, patterns):
        refusal = refusal or _suspect(work, "envelope", f"This login may not send mail from addresses in {returned_to}")
    return work.binding(tenant, refusal or _spoofed(work, tenant, [author.display_name for author in authors]))


def _foreign(work: Work, tenant: Tenant, domain: str) -> Refusal | None:
    text = f"This login may not send mail from {domain}; use a From address in a domain of your account"
    refusal = _suspect(work, "from", text)
    if tenant.identity.foreign_from is OnForeignFrom.REJECT or not work.rules.settings.operator.dkim:
        return refusal  # without the operator's key it would leave unsigned
    if tenant.identity.foreign_from is OnForeignFrom.TAG:
        work.edits.add("X-Relaywarden-Identity", f"foreign-from {domain}")
    return None


def _spoofed(work: Work, tenant: Tenant, names: list[str]) -> Refusal | None:
    if tenant.identity.spoofed_name == "ignore" or not any(names):
        return None
    shown = identity.spoofed(names, tenant.from_domains, work.rules.other_domains)
    if shown is None:
        return None
    work.record["spoofed_name"] = shown
    refusal = _suspect(work, "name", f"The name in From shows {shown}, which is not yours")
    return refusal if tenant.identity.spoofed_name == "reject" else None


def _suspect(work: Work, what: str, text: str) -> Refusal:
    meters.labelled(meters.IDENTITY, what).inc()
    work.record["identity"] = what
    return Refusal.reject(text)
