"""examine - one run over everything: members first, then the operator, the return path, the tenants.

    findings = run(settings)                                        blocking
    findings = await examine(settings, settings.dns, resolvers([]))

A run over 10,000 tenants asks some 50,000 questions: at 10 a second that is an hour and a half, so progress goes to the log
twice a minute, and who cannot wait raises dns.rate against a resolver of his own.

How it fails: SpecError where dns.nameservers cannot be used; DNS itself never makes it fail, what it does not tell is a
finding of level UNKNOWN.  Known limit: from_domains with a wildcard are looked up on domain blocklists only, as nobody can
tell which names below send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import dns.asyncresolver

from relaywarden import steering
from relaywarden.config.monitor_settings import DnsWatchSettings
from relaywarden.config.settings import DkimSettings, Settings
from relaywarden.errors import LedgerError
from relaywarden.ledger.connect import open_ledger
from relaywarden.logs import event
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.dnswatch import blocklists, hosts, maildomains, senders, signatures
from relaywarden_monitor.dnswatch.dmarc import Senders
from relaywarden_monitor.dnswatch.findings import Finding
from relaywarden_monitor.dnswatch.listings import Listings
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.maildomains import Use
from relaywarden_monitor.dnswatch.nameservers import resolvers
from relaywarden_monitor.dnswatch.senders import Carrier

log = logging.getLogger(__name__)
_AT_ONCE = 16  # jobs; the Asker bounds their questions
_TELL_EVERY = 30.0  # seconds
_ASIDE = ("bulk", "quarantine")  # pools that carry any tenant's mail (relaywarden_milter.route)
_Job = Callable[[], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at: everything, or one tenant, one member, or both."""

    tenant: str | None = None
    member: str | None = None

    @property
    def whole(self) -> bool:
        """Everything."""
        return self.tenant is None and self.member is None


_EVERYTHING = Scope()


def run(settings: Settings, scope: Scope = _EVERYTHING) -> list[Finding]:
    """All findings, for callers without an event loop; raises SpecError."""
    selectors = _selectors(settings)
    asked = resolvers(settings.dns.nameservers)
    return asyncio.run(examine(settings, settings.dns, asked, scope=scope, selectors=selectors))


async def examine(
    settings: Settings,
    watch: DnsWatchSettings,
    asked: Sequence[dns.asyncresolver.Resolver],
    *,
    scope: Scope = _EVERYTHING,
    selectors: signatures.Selectors | None = None,
) -> list[Finding]:
    """All findings, in the order in which they were looked for.

    `asked`: as `nameservers.resolvers` makes them; `selectors`: the words of `keys switch` (`steering.read(ledger).selectors`).
    """
    asker = Asker(asked, watch.rate)
    plan = _Plan(settings, watch, asker, selectors or {}, scope)
    findings = await plan.test_lists()
    for found in await _all(list(plan.jobs()), asker):
        findings += found
    return findings


class _Plan:
    """What there is to look at, as jobs."""

    def __init__(
        self, settings: Settings, watch: DnsWatchSettings, asker: Asker, selectors: signatures.Selectors, scope: Scope
    ) -> None:
        self._settings, self._watch, self._asker = settings, watch, asker
        self._selectors, self._scope = selectors, scope
        self._listings = Listings(asker, watch.blocklists, watch.domain_blocklists)
        self._pools = {
            name: [Carrier(member, values.ip, values.helo or "unknown") for member, values in pool.members.items()]
            for name, pool in settings.pools.items()
        }

    async def test_lists(self) -> list[Finding]:
        """Which blocklists can be used for what will be asked."""
        kinds = [blocklists.kind_of(carrier.ip) for carrier in self._members()]
        if self._scope.whole or self._scope.tenant is not None:
            kinds.append(blocklists.Kind.DOMAIN)
        return await self._listings.test(dict.fromkeys(kinds))

    def jobs(self) -> Iterator[_Job]:
        """In order of importance."""
        for carrier in self._members():
            yield partial(self._member, carrier)
        if self._scope.whole:
            yield self._operator
            for domain in dict.fromkeys(self._watch.return_path):
                yield partial(self._return_path, domain)
        for tenant in Directory(self._settings):
            if self._scope.whole or tenant.name == self._scope.tenant:
                yield partial(self._tenant, tenant)

    def _members(self) -> list[Carrier]:
        every = [carrier for carriers in self._pools.values() for carrier in carriers]
        return [carrier for carrier in every if self._scope.whole or carrier.name == self._scope.member]

    async def _member(self, carrier: Carrier) -> list[Finding]:
        subject = f"member {carrier.name}"
        helo = next(p.members[carrier.name].helo for p in self._settings.pools.values() if carrier.name in p.members)
        return [
            *await self._listings.address(subject, carrier.ip),
            *await hosts.check(self._asker, subject, carrier.ip, helo),
        ]

    async def _operator(self) -> list[Finding]:
        settings = self._settings.operator
        findings = await self._keys("operator", settings.dkim)
        domains = [key.domain for key in settings.dkim]
        if settings.feedback is not None and settings.feedback.address:
            domain = settings.feedback.address.rpartition("@")[2]
            domains.append(domain)
            findings.append(await maildomains.check(self._asker, "operator", domain, Use.FEEDBACK))
        for domain in dict.fromkeys(domains):
            findings += await self._listings.domain("operator", domain)
        return findings

    async def _return_path(self, domain: str) -> list[Finding]:
        subject = "return path"
        findings = [await maildomains.check(self._asker, subject, domain, Use.RETURN_PATH)]
        if every := [carrier for carriers in self._pools.values() for carrier in carriers]:
            found = await senders.outcomes(self._asker, domain, every)
            findings.append(await senders.check_spf(self._asker, subject, domain, found, required=True))
        return findings + await self._listings.domain(subject, domain)

    async def _tenant(self, tenant: Tenant) -> list[Finding]:
        subject = f"tenant {tenant.name}"
        findings = await self._keys(subject, tenant.dkim)
        for domain in dict.fromkeys(domain for domain in tenant.from_domains if not domain.startswith("*")):
            findings += await self._from_domain(subject, tenant, domain)
        listed = [*(domain.removeprefix("*.") for domain in tenant.from_domains), *(key.domain for key in tenant.dkim)]
        for domain in dict.fromkeys(listed):
            findings += await self._listings.domain(subject, domain)
        return findings

    async def _from_domain(self, subject: str, tenant: Tenant, domain: str) -> list[Finding]:
        findings = [await maildomains.check(self._asker, subject, domain, Use.FROM)]
        return_path = self._watch.return_path
        carriers = self._carriers(tenant)
        if carriers:
            found = await senders.outcomes(self._asker, domain, carriers)
            findings.append(await senders.check_spf(self._asker, subject, domain, found, required=not return_path))
        ours = senders.own_spf(domain, return_path)
        passing = senders.passes(await senders.outcomes(self._asker, ours, carriers)) if ours else None
        signers = [key.domain for key in (*signatures.signing(tenant.dkim, domain), *self._settings.operator.dkim)]
        vouching = Senders(list(dict.fromkeys(signers)), ours, passing)
        return [*findings, await senders.check_dmarc(self._asker, subject, domain, vouching)]

    def _carriers(self, tenant: Tenant) -> list[Carrier]:
        pools = dict.fromkeys(pool for pool in (tenant.pool, *_ASIDE) if pool in self._pools)
        return [carrier for pool in pools for carrier in self._pools[pool or ""]]

    async def _keys(self, subject: str, entries: Iterable[DkimSettings]) -> list[Finding]:
        every = signatures.roles(entries, self._selectors)
        return list(await asyncio.gather(*(signatures.check(self._asker, subject, entry, role) for entry, role in every)))


async def _all(jobs: Sequence[_Job], asker: Asker) -> list[list[Finding]]:
    """The results of all jobs, a few of which run at a time, in the order of the jobs."""
    results: list[list[Finding]] = [[] for _ in jobs]
    waiting = iter(enumerate(jobs))
    done, told = 0, time.monotonic()

    async def work() -> None:
        nonlocal done, told
        for index, job in waiting:
            results[index] = await job()
            done += 1
            if (now := time.monotonic()) >= told + _TELL_EVERY:
                told = now
                event(log, logging.INFO, "DNS is being asked", done=done, of=len(jobs), questions=asker.sent)

    tasks = [asyncio.create_task(work()) for _ in range(min(_AT_ONCE, len(jobs)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return results


def _selectors(settings: Settings) -> signatures.Selectors:
    """Which keys have been switched; without a ledger, as the configuration says."""
    try:
        ledger = open_ledger(settings)
        try:
            return steering.read(ledger).selectors
        finally:
            ledger.close()
    except LedgerError as error:
        event(log, logging.WARNING, "the ledger does not tell which DKIM keys were switched; as configured", error=error)
        return {}
