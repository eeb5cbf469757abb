"""hosts - the names of a pool member: its reverse name, whether that leads back, and the name it says HELO with.

Large receivers refuse addresses without a reverse name (PTR) or whose name does not lead back to them (Gmail 4.7.23 and
5.7.25).  RFC 5321 section 4.1.4 wants a HELO name that resolves; that it equals the reverse name is asked by none and
scored by many.

Known limit: of more than ten reverse names the first ten are looked at.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping

from relaywarden_monitor.dnswatch.findings import Finding, Level, clean
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.replies import Reply

_MOST_NAMES = 10


async def check(asker: Asker, subject: str, address: str, helo: str | None) -> list[Finding]:
    """The findings of one member."""
    parsed = ipaddress.ip_address(address)
    kind = "A" if parsed.version == 4 else "AAAA"
    names = await asker.ask(parsed.reverse_pointer, "PTR")
    wanted = dict.fromkeys([*names.records[:_MOST_NAMES], *([helo] if helo else [])])
    replies = await asyncio.gather(*(asker.ask(name, kind) for name in wanted))
    forward = dict(zip(wanted, replies, strict=True))
    findings = [judge_reverse(subject, address, names, forward)]
    if helo:
        findings.append(judge_helo(subject, address, helo, names, forward[helo]))
    return findings


def judge_reverse(subject: str, address: str, names: Reply, forward: Mapping[str, Reply]) -> Finding:
    """The reverse name: there, exactly one, and leading back.  Pure."""
    check = "reverse name"
    if names.failed:
        return Finding(subject, check, Level.UNKNOWN, f"PTR of {address}: {names.why}")
    if not names.records:
        return Finding(subject, check, Level.FAULT, f"{address} has no reverse name (PTR); receivers refuse such addresses")
    looked = names.records[:_MOST_NAMES]
    back = [name for name in looked if address in _addresses(forward[name])]
    shown = clean(", ".join(looked))
    if back:
        if len(names.records) == 1:
            return Finding(subject, check, Level.OK, f"{shown} leads back to {address}")
        text = f"{address} has {len(names.records)} reverse names, expected one; {len(back)} of {len(looked)} lead back"
        return Finding(subject, check, Level.ADVICE, text, shown)
    if any(forward[name].failed for name in looked):
        return Finding(subject, check, Level.UNKNOWN, f"whether {shown} leads back to {address} is not known: no answer", shown)
    found = "; ".join(f"{name}: {forward[name]}" for name in looked)
    return Finding(subject, check, Level.FAULT, f"the reverse name does not lead back to {address}", clean(found))


def judge_helo(subject: str, address: str, helo: str, names: Reply, forward: Reply) -> Finding:
    """The HELO name: it resolves to the address, and is the reverse name.  Pure."""
    check = "helo"
    if forward.failed:
        return Finding(subject, check, Level.UNKNOWN, f"{helo}: {forward.why}")
    if address not in _addresses(forward):
        return Finding(subject, check, Level.FAULT, f"{helo} does not resolve to {address}", clean(str(forward)))
    if names.failed:
        return Finding(subject, check, Level.UNKNOWN, f"{helo} resolves to {address}; its reverse name: {names.why}")
    if helo not in names.records:
        text = f"{helo} resolves to {address}, but is not its reverse name; some receivers score that"
        return Finding(subject, check, Level.ADVICE, text, clean(str(names)))
    return Finding(subject, check, Level.OK, f"{helo} is the reverse name and resolves to {address}")


def _addresses(reply: Reply) -> set[str]:
    """In the spelling of the settings."""
    return {str(ipaddress.ip_address(text)) for text in reply.records}
