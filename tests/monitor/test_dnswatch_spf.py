"""The SPF evaluator against a table of records: RFC 7208 section by section, and properties of any record at all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_monitor.dnswatch import spf
from relaywarden_monitor.dnswatch.replies import Question, Reply, Status
from relaywarden_monitor.dnswatch.spf import MOST_LOOKUPS, Outcome, Result
from relaywarden_monitor.dnswatch.spf_syntax import SpfError, expand, parse

Zone = Mapping[str, Mapping[str, Sequence[str]]]
FOUR, SIX = "192.0.2.11", "2001:db8::11"
HOSTS: Zone = {
    "a.example": {"A": ["192.0.2.11"], "AAAA": ["2001:db8::11"]},
    "near.example": {"A": ["192.0.2.200"], "AAAA": ["2001:db8::ffff"]},
    "far.example": {"A": ["198.51.100.1"]},
    "mail.example": {"MX": ["far.example", "a.example"]},
    "null.example": {"MX": [""]},
    "crowd.example": {"MX": [f"h{number}.example" for number in range(11)]},
    "pass.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"]},
    "fail.example": {"TXT": ["v=spf1 -all"]},
    "soft.example": {"TXT": ["v=spf1 ~all"]},
    "neutral.example": {"TXT": ["v=spf1 ?all"]},
    "broken.example": {"TXT": ["v=spf1 ip4:nonsense -all"]},
    "loop.example": {"TXT": ["v=spf1 include:loop.example -all"]},
    "turn.example": {"TXT": ["v=spf1 redirect=turn.example"]},
    "silent.example": {"TXT": ["!"]},
    "11.2.0.192.in-addr.arpa": {"PTR": ["lying.example", "host.sender.example"]},
    "lying.example": {"A": ["198.51.100.1"]},
    "host.sender.example": {"A": ["192.0.2.11"]},
    "192.0.2.11.l.example": {"A": ["127.0.0.2"]},
    "11.2.0.192.in-addr.postmaster.sender.example": {"A": ["127.0.0.2"]},
    "1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.example": {"A": ["127.0.0.2"]},
    "helo.name.h.example": {"A": ["127.0.0.2"]},
    "host.sender.example.p.example": {"A": ["127.0.0.2"]},
}


def answer(zone: Zone, question: Question) -> Reply:
    """`!` as a record: no answer."""
    records = zone.get(question.name)
    if records is None:
        return Reply(Status.NXDOMAIN)
    found = records.get(question.kind, [])
    if "!" in found:
        return Reply(Status.FAILED, why="SERVFAIL")
    return Reply(Status.FOUND, tuple(found)) if found else Reply(Status.EMPTY)


def check(
    record: str | list[str], address: str = FOUR, zone: Zone | None = None, asked: list[Question] | None = None
) -> Outcome:
    """What a record of sender.example makes of an address."""
    records = [record] if isinstance(record, str) else record
    known = {**HOSTS, **(zone or {}), "sender.example": {"TXT": records, "A": ["192.0.2.11"], "MX": ["a.example"]}}
    steps = spf.check(ipaddress.ip_address(address), "postmaster@sender.example", "helo.name")
    try:
        question = next(steps)
        while True:
            if asked is not None:
                asked.append(question)
            question = steps.send(answer(known, question))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1", "neutral"),
        ("v=spf1 -all", "fail"),
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1 +all", "pass"),
        ("V=SpF1 ALL", "pass"),
        ("v=spf1  ip4:192.0.2.11   -all ", "pass"),
        ("v=spf1 ip4:192.0.2.0/28 -all", "pass"),
        ("v=spf1 ip4:192.0.2.0/29 -all", "fail"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "pass"),
        ("v=spf1 ip6:2001:db8::/32 -all", "fail"),  # not this address
        ("v=spf1 -ip4:192.0.2.11 +all", "fail"),  # the first that matches decides
        ("v=spf1 a -all", "pass"),
        ("v=spf1 a:far.example -all", "fail"),
        ("v=spf1 a:near.example/24 -all", "pass"),
        ("v=spf1 a:near.example/25 -all", "fail"),
        ("v=spf1 a:near.example//24 -all", "fail"),  # the prefix is for IPv6
        ("v=spf1 a:far.example/0 -all", "pass"),
        ("v=spf1 mx -all", "pass"),
        ("v=spf1 mx:mail.example -all", "pass"),
        ("v=spf1 mx:null.example -all", "fail"),
        ("v=spf1 mx:a.example ?all", "neutral"),  # no MX, and its address does not count
        ("v=spf1 include:pass.example -all", "pass"),
        ("v=spf1 include:fail.example ?all", "neutral"),  # a fail inside is no match
        ("v=spf1 -include:pass.example +all", "fail"),
        ("v=spf1 include:soft.example include:neutral.example -all", "fail"),
        ("v=spf1 redirect=pass.example", "pass"),
        ("v=spf1 redirect=fail.example", "fail"),
        ("v=spf1 ?all redirect=fail.example", "neutral"),
        ("v=spf1 exists:%{i}.l.example -all", "pass"),
        ("v=spf1 exists:%{ir}.%{v}.%{l}.%{o} -all", "pass"),
        ("v=spf1 exists:%{ir}.%{v}.%{l1r-}.%{d2} -all", "pass"),
        ("v=spf1 exists:%{h}.h.example -all", "pass"),
        ("v=spf1 exists:%{p}.p.example -all", "pass"),
        ("v=spf1 exists:nowhere.example -all", "fail"),
        ("v=spf1 ptr -all", "pass"),
        ("v=spf1 ptr:lying.example -all", "fail"),
        ("v=spf1 ptr:ender.example -all", "fail"),  # whole labels
        ("v=spf1 exp=why.example unknown=%{d} a -all", "pass"),
        (["v=spf1 -all", "v=spf10 +all", "google-site-verification=x"], "fail"),
        ("v=spf2 +all", "none"),
        ("v=spf1+all", "none"),
        (" v=spf1 +all", "none"),
        (["v=spf1 +all", "v=spf1 -all"], "permerror"),
        ("v=spf1 include:nowhere.example +all", "permerror"),
        ("v=spf1 redirect=nowhere.example", "permerror"),
        ("v=spf1 include:broken.example +all", "permerror"),
        ("v=spf1 include:loop.example", "permerror"),
        ("v=spf1 redirect=turn.example", "permerror"),
        ("v=spf1 mx:crowd.example", "permerror"),
        ("v=spf1 a:n1.example a:n2.example -all", "fail"),
        ("v=spf1 a:n1.example a:n2.example exists:n3.example -all", "permerror"),  # three look-ups in vain
        ("v=spf1 include:silent.example +all", "temperror"),
        ("v=spf1 include:%{d} -all", "permerror"),
        ("v=spf1 ip4:192.0.2.11 include:silent.example", "pass"),  # decided before
    ],
)  # fmt: skip
def test_results(record: str | list[str], result: str) -> None:
    outcome = check(record)
    assert outcome.result is Result(result), outcome


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip6:2001:db8::/120 -all", "pass"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "fail"),
        ("v=spf1 a:a.example -all", "pass"),
        ("v=spf1 a:near.example//112 -all", "pass"),
        ("v=spf1 a:near.example/0//128 -all", "fail"),
        ("v=spf1 mx:mail.example -all", "pass"),
        ("v=spf1 exists:%{ir}.%{v}.example -all", "pass"),
        ("v=spf1 ptr ptr -all", "fail"),
        ("v=spf1 ptr ptr ptr -all", "permerror"),  # this address has no name
    ],
)
def test_ipv6(record: str, result: str) -> None:
    assert check(record, SIX).result is Result(result)


@pytest.mark.parametrize(
    "term",
    ["ip4", "ip4:", "ip4:192.0.2.1/33", "ip4:192.0.2.1/", "ip4:192.0.2.1/032", "ip4:192.0.2", "ip4:2001:db8::1",
     "ip6:192.0.2.1", "ip6:fe80::1%eth0", "ip6:::1/129", "a:", "a:example", "a:192.0.2.1", "a:a.example:25",
     "a:a.example/33", "a:a.example/01",
     "a/", "mx//129", "all:a.example", "all/8", "include", "include:", "include:a.example/24", "exists", "ptr/8", "ptr:",
     "redirect=", "exp=", "redirect=a.example redirect=a.example", "exp=a.example exp=a.example", "-redirect=a.example",
     "exists:%{x}.example", "exists:%{d0}.example", "exists:%{d.example", "exists:%d.example", "exists:%{c}.example",
     "exists:%{d}example", "foo", "foo:bar", "a=%", "moo=%{q}", "++a", "a:ü.example", "\x00"],
)  # fmt: skip
def test_one_error_anywhere_makes_a_permerror(term: str) -> None:
    assert check("v=spf1 +all").result is Result.PASS
    outcome = check(f"v=spf1 +all {term}")
    assert outcome.result is Result.PERMERROR, outcome


def test_lookups_are_counted_over_all_records() -> None:
    for count, result in ((MOST_LOOKUPS, Result.FAIL), (MOST_LOOKUPS + 1, Result.PERMERROR)):
        assert check("v=spf1 " + "a:far.example " * count + "-all").result is result
        half = "a:far.example " * (count - 5 - 1)
        nested = {"in.example": {"TXT": [f"v=spf1 {half}"]}}
        assert check("v=spf1 include:in.example " + "a:far.example " * 5 + "-all", zone=nested).result is result
    assert check("v=spf1 " + "ip4:198.51.100.1 " * 50 + "-all").lookups == 0


def test_an_outcome_names_the_term_and_whose_it_is() -> None:
    outcome = check("v=spf1 include:pass.example ~all", "198.51.100.7")
    assert (outcome.term, outcome.domain, str(outcome)) == ("~all", "sender.example", "softfail (~all of sender.example)")
    redirected = check("v=spf1 redirect=fail.example")
    assert str(redirected) == "fail (-all of fail.example)"
    assert "ip4:nonsense (of broken.example)" in check("v=spf1 include:broken.example").why
    assert str(check("v=spf1")) == "neutral (nothing matches)"


def test_ptr_and_an_open_door_are_noted() -> None:
    assert check("v=spf1 ptr -all").notes == {"ptr"}
    assert check("v=spf1 ptr:x.example +all").notes == {"ptr", "all"}
    assert check("v=spf1 a -all").notes == frozenset()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # RFC 7208 section 7.4
        ("%{s}", "strong-bad@email.example.com"), ("%{o}", "email.example.com"), ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"), ("%{d2}", "example.com"), ("%{d1}", "com"), ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"), ("%{l}", "strong-bad"), ("%{l-}", "strong.bad"), ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"), ("%{l1r-}", "strong"),
        ("%{S}", "strong-bad%40email.example.com"), ("a%%b%_c%-d", "a%b c%20d"),
    ],
)  # fmt: skip
def test_macros(text: str, name: str) -> None:
    values = {"s": "strong-bad@email.example.com", "l": "strong-bad", "o": "email.example.com", "d": "email.example.com"}
    assert expand(text, values) == name


def test_a_long_name_is_cut_from_the_left() -> None:
    assert expand("%{d}.end.example", {"d": "x." * 150 + "y"}).endswith(".y.end.example")
    assert len(expand("%{d}.end.example", {"d": "x." * 150 + "y"})) <= 253
    assert check("v=spf1 exists:" + "%{s}." * 40 + "x.example ?all").result is Result.NEUTRAL


def test_a_hostile_record_costs_nothing() -> None:
    assert check("v=spf1 " + "ip4:192.0.2.1 " * 2000).result is Result.PERMERROR  # too large to look at
    for text in ("a:" + "%{d}" * 4000 + "%", "a" * 16_000, "a:" + "/1" * 8_000, "%{" * 8_000, "a." * 8_000 + "=%"):
        assert check(f"v=spf1 {text}").result is Result.PERMERROR


_WORDS = ["a", "mx", "ptr", "all", "include", "exists", "ip4", "ip6", "redirect", "exp", "+", "-", "~", "?", ":", "=", "/",
          "//", "24", "0", "%{", "}", "i", "ir", "d2", "%", " ", " ", ".", "a.example", "pass.example", "loop.example",
          "turn.example", "silent.example", "192.0.2.11", "2001:db8::", "ü", "\x1b"]  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS), max_size=40).map("".join) | st.text(max_size=60), st.sampled_from([FOUR, SIX]))
def test_any_record_has_a_result_within_the_limits(body: str, address: str) -> None:
    asked: list[Question] = []
    outcome = check(f"v=spf1 {body}", address, asked=asked)
    assert (outcome.result is Result.PERMERROR) >= (outcome.lookups > MOST_LOOKUPS)
    assert len(asked) <= 2 + MOST_LOOKUPS * 25  # each term: one question and its hosts; the names of a macro
    assert outcome.result is not Result.NONE


_TERMS = st.sampled_from(
    ["ip4:192.0.2.11", "ip4:198.51.100.0/24", "a:a.example", "a:far.example", "mx:mail.example", "include:pass.example",
     "include:fail.example", "exists:%{i}.l.example", "all"],
)  # fmt: skip
_MATCHING = {"ip4:192.0.2.11", "a:a.example", "mx:mail.example", "include:pass.example", "exists:%{i}.l.example", "all"}
_RESULTS = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


@given(st.lists(st.tuples(st.sampled_from(list(_RESULTS)), _TERMS), max_size=8))
def test_the_first_term_that_matches_decides(terms: list[tuple[str, str]]) -> None:
    outcome = check(" ".join(["v=spf1", *(qualifier + term for qualifier, term in terms)]))
    expected = next((_RESULTS[qualifier] for qualifier, term in terms if term in _MATCHING), "neutral")
    assert outcome.result is Result(expected)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_networks_are_compared_as_ipaddress_does(one: int, other: int, prefix: int) -> None:
    address, network = ipaddress.IPv4Address(one), f"{ipaddress.IPv4Address(other)}/{prefix}"
    inside = address in ipaddress.ip_network(network, strict=False)
    assert check(f"v=spf1 ip4:{network} -all", str(address)).result is (Result.PASS if inside else Result.FAIL)
    hosts = {"h.example": {"A": [str(ipaddress.IPv4Address(other))]}}
    assert check(f"v=spf1 a:h.example/{prefix} -all", str(address), hosts).result is (Result.PASS if inside else Result.FAIL)


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_the_parser_reads_or_says_why_not(text: str) -> None:
    try:
        record = parse(f"v=spf1 {text}")
    except SpfError as error:
        assert str(error)
    else:
        assert all(re.fullmatch(r"[!-~]+", mechanism.text) for mechanism in record.mechanisms)
