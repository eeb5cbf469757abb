"""dmarc - DMARC records (RFC 9989, and RFC 7489 before it): their policy, and whether mail of ours can pass.  Pure.

    _dmarc.acme.example  TXT  "v=DMARC1; p=reject; sp=none; adkim=s; rua=mailto:dmarc@acme.example"

The record of the From domain counts, else that of its organizational domain (`relaywarden.domains`; RFC 9989 walks up the
tree instead, which differs for domains with psd= only).  Mail passes when a DKIM signature or SPF passes for a domain that is
aligned with the From domain: the same one, or by relaxed alignment of the same organization.

Gmail, Yahoo and Microsoft want a record of large senders, p=none at least, and DKIM and SPF both.
Known limits: whether a foreign rua= agrees to get reports (RFC 9990) is not asked; np= does not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relaywarden.domains import same_organization
from relaywarden_monitor.dnswatch.findings import Level

_LARGEST = 16 * 1024
_RECORD = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_POLICIES = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Policy:
    """One record; `faults`: what is wrong with it, the policy first."""

    p: str  # "": missing or wrong
    sp: str = ""
    strict_dkim: bool = False
    strict_spf: bool = False
    partial: bool = False  # t=y or pct below 100: not the whole policy holds
    reports: bool = False  # rua=
    faults: tuple[str, ...] = ()

    def applied(self, *, below: bool) -> str:
        """What receivers do with mail that fails; `below`: the record is of the organizational domain."""
        return (self.sp if below else "") or self.p or "none"


@dataclass(frozen=True, slots=True)
class Senders:
    """What vouches for mail with a From domain."""

    signers: Sequence[str]  # d= of the keys that sign it
    spf_domain: str  # of the envelope sender; "": not its own
    spf_passes: bool | None  # None: not known


def is_dmarc(text: str) -> bool:
    """Is this TXT record a DMARC record?  v= comes first, and its case matters (RFC 9989 section 4.7)."""
    return _RECORD.match(text) is not None


def parse(text: str) -> Policy:
    """A record that `is_dmarc`."""
    tags: dict[str, str] = {}
    faults: list[str] = []
    stray: list[str] = []
    for part in text[:_LARGEST].split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
        elif part.strip():
            stray.append(f"not a tag: {part.strip()[:40]}")
    if not tags.get("p"):
        faults.append("p= is missing")
    p, sp = _choice(tags, "p", _POLICIES, faults), _choice(tags, "sp", _POLICIES, faults)
    adkim, aspf = (_choice(tags, name, ("r", "s"), faults) for name in ("adkim", "aspf"))
    pct, rua = tags.get("pct", "100"), tags.get("rua", "")
    if not re.fullmatch("100|[1-9]?[0-9]", pct, re.ASCII):
        faults.append(f"pct={pct[:10]}, expected 0 to 100")
    if rua and not all(item.strip().lower().startswith("mailto:") for item in rua.split(",")):
        faults.append("rua= holds something else than mailto: addresses")
    partial = tags.get("t", "n") == "y" or pct != "100"
    return Policy(p, sp, adkim == "s", aspf == "s", partial, bool(rua), tuple(faults + stray))


def judge(domain: str, below: str, policy: Policy, senders: Senders) -> tuple[Level, str]:
    """Does the record do what it should, and can our mail pass?  `below`: the organizational domain, if the record is there."""
    action = policy.applied(below=bool(below))
    where = f"p={action}" + (f" (from {below})" if below else "")
    if not policy.p:
        return Level.FAULT, f"{policy.faults[0]}: expected p=none, p=quarantine or p=reject"
    dkim = any(_aligned(signer, domain, strict=policy.strict_dkim) for signer in senders.signers)
    spf_is_ours = bool(senders.spf_domain) and _aligned(senders.spf_domain, domain, strict=policy.strict_spf)
    if not dkim:
        signers = ", ".join(senders.signers) or "nobody"
        missing = f"no aligned DKIM signature ({signers} signs{', adkim=s' if policy.strict_dkim else ''})"
        if spf_is_ours and senders.spf_passes is None:
            return Level.UNKNOWN, f"{where}; {missing}, and SPF is not known"
        if spf_is_ours and senders.spf_passes:
            return Level.ADVICE, f"{where}; {missing}: only SPF vouches for this mail, and forwarding breaks it"
        level = Level.ADVICE if action == "none" else Level.FAULT
        return level, f"{where}; {missing} and no aligned SPF: this mail fails DMARC"
    remarks = list(policy.faults)
    if policy.partial:
        remarks.append("t=y or pct=: receivers do less than the policy says")
    if not policy.reports:
        remarks.append("no rua=: nobody sees the reports")
    return (Level.ADVICE if remarks else Level.OK), "; ".join([where, *remarks]) + ("" if remarks else "; DKIM is aligned")


def _aligned(identifier: str, domain: str, *, strict: bool) -> bool:
    return identifier == domain if strict else same_organization(identifier, domain)


def _choice(tags: dict[str, str], name: str, allowed: Iterable[str], faults: list[str]) -> str:
    value = tags.get(name, "").lower()
    if not value or value in allowed:
        return value
    faults.append(f"{name}={value[:20]} is not one of {', '.join(allowed)}")
    return ""
