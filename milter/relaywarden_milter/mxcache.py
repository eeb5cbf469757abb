"""mxcache - the mailbox provider of a recipient's domain, from memory; DNS is asked behind the back of the mail.

`provider` never blocks: a domain that is not known yet is None, and goes into a bounded queue for a few resolver threads.
Consumer domains that `relaywarden.providers` knows need no DNS.  The MX hosts of the lowest preference decide; of several
the first that the table knows.

    no MX (RFC 5321 section 5.1)      the domain is its own mail host
    null MX (RFC 7505), NXDOMAIN,     OTHER: such mail reaches nobody
    address literal, not a host name

An answer is kept for its TTL, but at least five minutes and at most a day; a negative one for five minutes.  An entry past
its time is still given out, once more queued meanwhile, so that a domain in use never becomes unknown again.

How it fails: DNS down or one domain's servers broken: the old entry holds on, a domain without one stays unknown, and it is
asked again half a minute later at the earliest.  Ten failures in a row are logged once.  A full queue drops the question; the
next message asks again.  Known limit: /etc/resolv.conf is read at the start only.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from relaywarden import providers
from relaywarden.logs import event

log = logging.getLogger(__name__)
CAPACITY = 50_000
SHORTEST, LONGEST, NEGATIVE = 300.0, 86_400.0, 300.0  # seconds
_RETRY = 30.0
_LOOKUP_SECONDS = 4.0
_WAITING = 2_000
_THREADS = 4  # one domain whose servers are silent must not hold up all others
_FAILURES = 10
_CLOSING = 0.5
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)+[a-z0-9_-]{1,63}")


class _Entry(NamedTuple):
    """What is known of a domain (None: nothing yet), and when it is to be asked again."""

    provider: str | None
    due: float


class MxCache:
    """One per process; safe to use from several threads."""

    def __init__(
        self,
        resolver: dns.resolver.Resolver | None = None,
        *,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resolver`: default as /etc/resolv.conf says; one look-up takes at most its `lifetime`; `clock` in seconds."""
        self._resolver = resolver or _system_resolver()
        self._capacity, self._clock = capacity, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._pending: set[str] = set()
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._failures = 0
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"mx-{n}", daemon=True) for n in range(_THREADS)]

    def start(self) -> None:
        """Start the resolver threads; after fork, with signals blocked."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let the threads end; a look-up in hand is hardly waited for, it has nothing to lose."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + _CLOSING
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def __len__(self) -> int:
        """How many domains are remembered."""
        return len(self._entries)

    def provider(self, domain: str) -> str | None:
        """The provider of a recipient's domain; None: not known yet, ask again later.  Never blocks, never raises."""
        name = host_name(domain)
        if name is None:
            return providers.OTHER
        if known := providers.by_domain(name):
            return known
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                self._entries.move_to_end(name)
            if entry is None or entry.due <= self._clock():
                self._ask(name)
        return entry.provider if entry is not None else None

    def _ask(self, name: str) -> None:
        if name not in self._pending and len(self._pending) < _WAITING:
            self._pending.add(name)
            self._queue.put(name)

    def _work(self) -> None:
        while (name := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                self._look_up(name)
            except Exception:  # a thread that ends would leave every later domain unknown
                log.exception("an MX look-up failed in a way that nobody expected")
            finally:
                with self._lock:
                    self._pending.discard(name)

    def _look_up(self, name: str) -> None:
        try:
            found, ttl = self._resolve(name)
        except (dns.exception.DNSException, OSError) as error:
            self._keep(name, None, _RETRY)
            self._failed(error)
            return
        self._keep(name, found, ttl)
        with self._lock:
            failures, self._failures = self._failures, 0
        if failures >= _FAILURES:
            event(log, logging.INFO, "DNS answers again")

    def _resolve(self, name: str) -> tuple[str, float]:
        """(provider, seconds to keep it); raises DNSException, OSError."""
        try:
            answer = self._resolver.resolve(name + ".", dns.rdatatype.MX, search=False)
        except dns.resolver.NXDOMAIN:
            return providers.OTHER, NEGATIVE
        except dns.resolver.NoAnswer:
            return providers.by_mx(name) or providers.OTHER, NEGATIVE
        records = sorted((record.preference, record.exchange.to_text(omit_final_dot=True).lower()) for record in answer)
        best = [host for preference, host in records if preference == records[0][0]]
        found = next(filter(None, map(providers.by_mx, best)), providers.OTHER)
        return found, min(LONGEST, max(SHORTEST, float(answer.rrset.ttl if answer.rrset is not None else 0)))

    def _keep(self, name: str, provider: str | None, seconds: float) -> None:
        with self._lock:
            old = self._entries.pop(name, None)
            if provider is None and old is not None:
                provider = old.provider
            self._entries[name] = _Entry(provider, self._clock() + seconds)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            failures = self._failures
        if failures == _FAILURES:
            event(log, logging.WARNING, "DNS does not answer; what is known of MX records holds on", error=error)


def host_name(domain: str) -> str | None:
    """The domain as DNS knows it (RFC 5890 A-labels, lower case); None for what is no host name, as an address literal."""
    name = domain.rstrip(".").lower()
    if not name.isascii() and len(name) <= 253:
        try:
            name = dns.name.from_text(name).to_text(omit_final_dot=True).lower()
        except (dns.exception.DNSException, UnicodeError):
            return None  # not text at all (octets that are not UTF-8), or nothing that IDNA allows
    return name if _HOST.fullmatch(name) and not name.rpartition(".")[2].isdecimal() else None


def _system_resolver() -> dns.resolver.Resolver:
    try:
        resolver = dns.resolver.Resolver()
    except (dns.resolver.NoResolverConfiguration, OSError) as error:
        event(log, logging.ERROR, "there is no DNS server; only well-known domains have a provider", error=error)
        resolver = dns.resolver.Resolver(configure=False)
    resolver.lifetime = _LOOKUP_SECONDS
    return resolver
