"""Providers of domains, by a real DNS server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.providers import NAMES
from relaywarden_milter.mxcache import LONGEST, SHORTEST, MxCache, host_name
from testbed.dns import DnsServer, Records
from testbed.factories import WorkFolder
from testbed.process import wait_for

RECORDS: Records = {
    "workspace.example": {"MX": ["1 aspmx.l.google.com.", "5 alt1.aspmx.l.google.com."]},
    "office.example": {"MX": "0 office-example.mail.protection.outlook.com."},
    "filtered.example": {"MX": ["10 mxa-00123.gslb.pphosted.com.", "20 aspmx.l.google.com."]},
    "mixed.example": {"MX": ["10 backup.mixed.example.", "10 smtp.mixed.icloud.com."]},
    "own.example": {"MX": ["10 mx.own.example.", "20 aspmx.l.google.com."]},
    "null.example": {"MX": "0 ."},
    "address.example": {"A": "192.0.2.1"},
    "host.free.fr": {"A": "192.0.2.1"},
    "xn--bcher-kva.example": {"MX": "10 mx02.mail.icloud.com."},
}


@pytest.fixture(scope="module")
def mail_dns(dns: DnsServer) -> DnsServer:
    dns.add(RECORDS)
    return dns


@contextmanager
def running(cache: MxCache) -> Iterator[MxCache]:
    cache.start()
    yield cache
    cache.close()


def learned(cache: MxCache, domain: str) -> str:
    """What the cache says once it has asked."""
    wait_for(f"the provider of {domain!r} is not known", lambda: cache.provider(domain) is not None)
    found = cache.provider(domain)
    assert found is not None
    return found


def asked(server: DnsServer, domain: str) -> int:
    return server.log.read_text().count(f" {domain}. MX ")


def test_mx_records_make_the_provider(mail_dns: DnsServer) -> None:
    with running(MxCache(mail_dns.resolver())) as cache:
        assert cache.provider("workspace.example") is None  # at once, and not yet known
        assert learned(cache, "workspace.example") == "google"
        assert learned(cache, "WORKSPACE.Example.") == "google"
        assert learned(cache, "office.example") == "microsoft"
        assert learned(cache, "filtered.example") == "proofpoint"  # the lowest preference is where mail goes
        assert learned(cache, "mixed.example") == "apple"
        assert learned(cache, "own.example") == "other"
        assert learned(cache, "bücher.example") == learned(cache, "xn--bcher-kva.example") == "apple"


def test_domains_without_mx(mail_dns: DnsServer) -> None:
    with running(MxCache(mail_dns.resolver())) as cache:
        assert learned(cache, "null.example") == "other"
        assert learned(cache, "address.example") == "other"
        assert learned(cache, "host.free.fr") == "free"  # it is its own mail host
        assert learned(cache, "nowhere.example") == "other"


@pytest.mark.parametrize(
    "domain",
    ["", "localhost", "[192.0.2.1]", "192.0.2.1", "[IPv6:2001:db8::1]", "a..example", "a" * 64 + ".example",
     "a." * 130 + "example", "a b.example", "\udcff.example", "ü" * 100 + ".example", "*.example", "a\\046b.example"],
)  # fmt: skip
def test_what_is_no_host_name_is_other_without_a_question(domain: str) -> None:
    assert host_name(domain) is None
    assert MxCache().provider(domain) == "other"


@given(st.text(max_size=300))
def test_any_domain_has_an_answer_at_once(domain: str) -> None:
    cache = MxCache()
    for text in (domain, f"{domain}.example"):
        found = cache.provider(text)
        assert found is None or found in NAMES


def test_well_known_domains_need_no_dns() -> None:
    cache = MxCache()  # not started
    assert [cache.provider(name) for name in ("gmail.com", "Hotmail.fr", "yahoo.de")] == ["google", "microsoft", "yahoo"]


def test_an_answer_is_kept_and_asked_again_behind_the_back(mail_dns: DnsServer) -> None:
    mail_dns.add({"moving.example": {"MX": "10 aspmx.l.google.com."}})
    now = [0.0]
    with running(MxCache(mail_dns.resolver(), clock=lambda: now[0])) as cache:
        assert learned(cache, "moving.example") == "google"
        for _ in range(20):
            assert cache.provider("moving.example") == "google"
        assert asked(mail_dns, "moving.example") == 1  # its TTL is one minute; it is kept for five
        mail_dns.add({"moving.example": {"MX": "1 mx02.mail.icloud.com."}})
        now[0] = SHORTEST + 1
        assert cache.provider("moving.example") == "google"  # the old answer, while the new one is fetched
        wait_for("the change is not seen", lambda: cache.provider("moving.example") == "apple")
    assert LONGEST == 86_400


def test_without_dns_old_answers_hold_on(work_folder: WorkFolder, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    with DnsServer(work_folder("dns"), {"a.example": {"MX": "10 aspmx.l.google.com."}}) as server:
        resolver = server.resolver()
        resolver.lifetime = 0.3
        with running(MxCache(resolver, clock=lambda: now[0])) as cache:
            assert learned(cache, "a.example") == "google"
            server.stop()
            now[0] = 10 * LONGEST
            unknown = [f"n{number}.example" for number in range(30)]
            began = time.monotonic()
            assert [cache.provider(name) for name in unknown] == [None] * 30
            assert cache.provider("a.example") == "google"
            assert time.monotonic() - began < 0.5
            wait_for("nothing failed", said(caplog, "DNS does not answer"), timeout=60)
            wait_for("not all were tried", lambda: len(cache) == 31, timeout=120)
            assert cache.provider("a.example") == "google"
            server.start()
            now[0] += 60
            assert learned(cache, "n0.example") == "other"
            assert cache.provider("a.example") == "google"
            wait_for("nobody says that it is over", said(caplog, "DNS answers again"))
    assert sum("DNS does not answer" in record.getMessage() for record in caplog.records) == 1


def said(caplog: pytest.LogCaptureFixture, text: str) -> Callable[[], bool]:
    caplog.set_level("INFO")
    return lambda: any(text in record.getMessage() for record in caplog.records)


def test_memory_and_queue_are_bounded(mail_dns: DnsServer) -> None:
    with running(MxCache(mail_dns.resolver(), capacity=5)) as cache:
        for number in range(20):
            assert learned(cache, f"d{number}.example") == "other"
        assert len(cache) == 5
        assert cache.provider("d19.example") == "other"
        assert cache.provider("d0.example") is None  # forgotten
    idle = MxCache(mail_dns.resolver())
    for number in range(5_000):
        assert idle.provider(f"d{number}.example") is None
    assert idle._queue.qsize() == len(idle._pending) == 2_000
