"""maildomains - does a domain take mail: MX, or an address instead (RFC 5321 section 5.1).

Yahoo refuses mail whose envelope sender's domain does not resolve; a null MX (RFC 7505) says that a domain takes no mail, and
section 4.2 lets receivers refuse mail from it.  Bounces to a return-path domain and complaints to the feedback address are
lost, and with them what the monitor lives on.

Known limit: whether the mail hosts answer is not tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum

from relaywarden_monitor.dnswatch.findings import Finding, Level, clean
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.replies import Reply


class Use(Enum):
    """What a domain is for."""

    FROM = "replies"
    RETURN_PATH = "bounces"
    FEEDBACK = "complaints"


async def check(asker: Asker, subject: str, domain: str, use: Use) -> Finding:
    """One finding."""
    hosts = await asker.ask(domain, "MX")
    addresses: list[Reply] = []
    if not hosts.failed and not hosts.records:
        addresses = list(await asyncio.gather(asker.ask(domain, "A"), asker.ask(domain, "AAAA")))
    return judge(subject, domain, use, hosts, addresses)


def judge(subject: str, domain: str, use: Use, hosts: Reply, addresses: Sequence[Reply]) -> Finding:
    """`addresses` are asked where there is no MX.  Pure."""
    check = f"mail {domain}"
    shown = clean(", ".join(hosts.records))
    if hosts.failed:
        return Finding(subject, check, Level.UNKNOWN, f"MX of {domain}: {hosts.why}")
    if "" in hosts.records:
        text = f"{domain} has a null MX: it takes no {use.value}"
        if use is Use.FROM:
            return Finding(
                subject, check, Level.ADVICE, f"{text}, and receivers may refuse mail from it (RFC 7505 section 4.2)"
            )
        return Finding(subject, check, Level.FAULT, f"{text}; expected mail hosts of yours")
    if hosts.records:
        return Finding(subject, check, Level.OK, f"{domain} has mail hosts", shown)
    if any(reply.records for reply in addresses):
        text = f"{domain} has no MX; its own address takes {use.value} (RFC 5321 section 5.1)"
        return Finding(subject, check, Level.ADVICE if use is Use.FEEDBACK else Level.OK, text)
    silent = next((reply for reply in addresses if reply.failed), None)
    if silent is not None:
        return Finding(subject, check, Level.UNKNOWN, f"addresses of {domain}: {silent.why}")
    lost = "receivers refuse senders that do not resolve" if use is not Use.FEEDBACK else f"{use.value} are lost"
    return Finding(subject, check, Level.FAULT, f"{domain} has neither MX nor address: {lost}")
