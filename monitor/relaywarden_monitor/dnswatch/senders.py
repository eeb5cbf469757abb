"""senders - SPF and DMARC of the domains that tenants send from, and of the return path.

SPF is asked for the envelope sender, which is the tenant's own domain unless `dns.return_path` names domains of ours.  With a
return path of ours, the tenant's SPF decides nothing, and what is missing there is advice; the return path's SPF must pass
for every pool.  Without, it must pass for every address that carries the tenant's mail: its pool, and the pools called bulk
and quarantine.

Known limit: SPF macros of the local part are tried with `postmaster`, those of a HELO name that is not configured with
`unknown`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relaywarden.domains import organizational, same_organization
from relaywarden_monitor.dnswatch import dmarc, spf
from relaywarden_monitor.dnswatch.findings import Finding, Level, clean
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.replies import Reply
from relaywarden_monitor.dnswatch.spf import Outcome, Result
from relaywarden_monitor.dnswatch.spf_syntax import is_spf

_SHOWN = 3  # members in one text
_LONGEST = 400  # characters of a text that quotes a record


@dataclass(frozen=True, slots=True)
class Carrier:
    """A pool member, as SPF sees it."""

    name: str
    ip: str
    helo: str = "unknown"


async def outcomes(asker: Asker, domain: str, carriers: Sequence[Carrier]) -> dict[Carrier, Outcome]:
    """What receivers find for mail from `domain` by each of these; after the first no new questions, mostly."""
    return {
        carrier: await asker.follow(spf.check(ipaddress.ip_address(carrier.ip), f"postmaster@{domain}", carrier.helo))
        for carrier in carriers
    }


async def check_spf(asker: Asker, subject: str, domain: str, found: Mapping[Carrier, Outcome], *, required: bool) -> Finding:
    """One finding about all addresses; `required`: the SPF of this domain decides about our mail."""
    reply = await asker.ask(domain, "TXT")
    record = clean("; ".join(filter(is_spf, reply.records)))
    level, text = judge_spf(found, required=required)
    return Finding(subject, f"spf {domain}", level, text, record)


def judge_spf(found: Mapping[Carrier, Outcome], *, required: bool) -> tuple[Level, str]:
    """Does SPF pass for all of these?  Pure."""
    bad: dict[str, list[str]] = {}
    for carrier, outcome in found.items():
        if outcome.result not in {Result.PASS, Result.TEMPERROR}:
            bad.setdefault(str(outcome), []).append(f"{carrier.name} ({carrier.ip})")
    if bad:
        told = "; ".join(f"{_some(who)}: {clean(why)}" for why, who in list(bad.items())[:_SHOWN])
        if required:
            return Level.FAULT, f"does not pass for {told}"
        return Level.ADVICE, f"does not pass for {told}; the return path is yours, so DMARC rests on DKIM"
    silent = next((outcome for outcome in found.values() if outcome.result is Result.TEMPERROR), None)
    if silent is not None:
        return Level.UNKNOWN, f"cannot be told: {clean(silent.why)}"
    notes = frozenset().union(*(outcome.notes for outcome in found.values()))
    if "all" in notes:
        return Level.ADVICE, "passes for every address of the Internet (+all), so everybody can send as this domain"
    if "ptr" in notes:
        return Level.ADVICE, "passes, but uses ptr, which RFC 7208 section 5.5 calls obsolete and some receivers ignore"
    return Level.OK, f"passes for {len(found)} address{'es' if len(found) != 1 else ''}"


def own_spf(domain: str, return_path: Sequence[str]) -> str:
    """The domain whose SPF can vouch for mail From this domain; "": none can, the return path is foreign."""
    if not return_path:
        return domain
    return next((ours for ours in return_path if same_organization(ours, domain)), "")


def passes(found: Mapping[Carrier, Outcome]) -> bool | None:
    """SPF passes for all; None: not known."""
    results = {outcome.result for outcome in found.values()}
    if results <= {Result.PASS, Result.TEMPERROR} and results != {Result.PASS}:
        return None
    return results == {Result.PASS}


async def check_dmarc(asker: Asker, subject: str, domain: str, vouching: dmarc.Senders) -> Finding:
    """One finding."""
    own = await asker.ask(f"_dmarc.{domain}", "TXT")
    parent = organizational(domain) or domain
    above = None
    if not own.failed and parent != domain and not _policies(own):
        above = await asker.ask(f"_dmarc.{parent}", "TXT")
    level, text = judge_dmarc(domain, parent, own, above, vouching)
    return Finding(subject, f"dmarc {domain}", level, clean(text, _LONGEST), clean("; ".join(_policies(above or own))))


def judge_dmarc(domain: str, parent: str, own: Reply, above: Reply | None, vouching: dmarc.Senders) -> tuple[Level, str]:
    """`above`: the organizational domain's reply, where the domain itself has no record.  Pure."""
    decisive = own if above is None else above
    if decisive.failed:
        return Level.UNKNOWN, f"_dmarc.{domain if above is None else parent}: {decisive.why}"
    records = _policies(decisive)
    if not records:
        return Level.FAULT, "no DMARC record; large receivers want one, p=none at least"
    if len(records) > 1:
        return Level.FAULT, f"{len(records)} DMARC records: receivers ignore all of them, expected one"
    return dmarc.judge(domain, parent if above is not None else "", dmarc.parse(records[0]), vouching)


def _policies(reply: Reply) -> list[str]:
    return [record for record in reply.records if dmarc.is_dmarc(record)]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
