"""listings - asks blocklists about addresses and domains, once it is known that they answer in earnest.

Each zone's test entries are asked once a run (`blocklists.test_names`).  A zone that fails them is reported as its own
finding, and whoever should have been looked up in it is UNKNOWN: neither listed nor clean.  The reason (TXT) is asked for
listings only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from relaywarden_monitor.dnswatch import blocklists
from relaywarden_monitor.dnswatch.blocklists import Kind, Standing
from relaywarden_monitor.dnswatch.findings import Finding, Level, clean
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.replies import Reply


@dataclass(frozen=True, slots=True)
class _Use:
    """Whether a zone can be used for one kind of entries; `text`: what is wrong."""

    level: Level
    text: str


class Listings:
    """The blocklists of one run."""

    def __init__(self, asker: Asker, addresses: Iterable[str], domains: Iterable[str]) -> None:
        """`addresses`, `domains`: the zones that list them."""
        self._asker = asker
        self._address_zones, self._domain_zones = list(dict.fromkeys(addresses)), list(dict.fromkeys(domains))
        self._uses: dict[tuple[str, Kind], _Use] = {}

    async def test(self, kinds: Iterable[Kind]) -> list[Finding]:
        """Find out which zones can be used for these kinds of entries; to be called before anything is looked up."""
        wanted = [(zone, kind) for kind in kinds for zone in self._zones(kind)]
        found = await asyncio.gather(*(self._test(zone, kind) for zone, kind in wanted))
        self._uses = dict(zip(wanted, found, strict=True))
        return [
            Finding(f"blocklist {blocklists.label(zone)}", f"test entries for {kind.value}", use.level, use.text)
            for (zone, kind), use in self._uses.items()
        ]

    async def address(self, subject: str, address: str) -> list[Finding]:
        """Is it listed?  One finding for each zone."""
        kind = blocklists.kind_of(address)
        names = [(zone, blocklists.address_name(address, zone)) for zone in self._zones(kind)]
        return await asyncio.gather(*(self._look_up(subject, address, zone, name, kind) for zone, name in names))

    async def domain(self, subject: str, domain: str) -> list[Finding]:
        """Is it listed?  One finding for each zone."""
        names = [(zone, blocklists.domain_name(domain, zone)) for zone in self._zones(Kind.DOMAIN)]
        return await asyncio.gather(*(self._look_up(subject, domain, zone, name, Kind.DOMAIN) for zone, name in names))

    def _zones(self, kind: Kind) -> list[str]:
        return self._domain_zones if kind is Kind.DOMAIN else self._address_zones

    async def _test(self, zone: str, kind: Kind) -> _Use:
        listed, unlisted = blocklists.test_names(zone, kind)
        *good, bad = await asyncio.gather(*(self._asker.ask(name, "A") for name in (*listed, unlisted)))
        return _judge_test(zone, kind, good, bad)

    async def _look_up(self, subject: str, what: str, zone: str, name: str, kind: Kind) -> Finding:
        label = blocklists.label(zone)
        check = f"blocklist {label}" + (f" {what}" if kind is Kind.DOMAIN else "")
        use = self._uses[zone, kind]
        if use.level is not Level.OK:
            return Finding(subject, check, Level.UNKNOWN, f"not asked: {label} {use.text}")
        reply = await self._asker.ask(name, "A")
        if reply.failed:
            return Finding(subject, check, Level.UNKNOWN, f"{label} does not answer ({reply.why})")
        verdict = blocklists.judge(zone, reply.records)
        if verdict.standing is Standing.CLEAN:
            return Finding(subject, check, Level.OK, f"{what} is not listed")
        if verdict.standing is not Standing.LISTED:
            return Finding(subject, check, Level.UNKNOWN, f"{label} gives no answer: {verdict.text}")
        reason = await self._asker.ask(name, "TXT")
        return Finding(subject, check, Level.FAULT, f"{what} is listed: {verdict.text}", clean("; ".join(reason.records)))


def _judge_test(zone: str, kind: Kind, good: list[Reply], bad: Reply) -> _Use:
    """What the test entries say: `good` must be listed, one of them; `bad` must not."""
    verdicts = [blocklists.judge(zone, reply.records) for reply in good]
    wrong = next((v for v in verdicts if v.standing in {Standing.REFUSED, Standing.BROKEN}), None)
    if wrong is not None:
        return _Use(Level.UNKNOWN, f"cannot be used: {wrong.text}")
    if blocklists.judge(zone, bad.records).standing is not Standing.CLEAN:
        return _Use(Level.UNKNOWN, "cannot be used: it lists its counter-test, so probably everything (RFC 5782 section 5)")
    if any(verdict.standing is Standing.LISTED for verdict in verdicts):
        return _Use(Level.OK, "works")
    silent = next((reply for reply in (*good, bad) if reply.failed), None)
    if silent is not None:
        return _Use(Level.UNKNOWN, f"does not answer ({silent.why})")
    return _Use(Level.UNKNOWN, f"has no test entry for {kind.value} (RFC 5782 section 5): closed, or not a list of these")
