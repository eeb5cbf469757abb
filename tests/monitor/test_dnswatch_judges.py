"""The judges of dnswatch, without DNS: what answers mean, and what is said of them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_monitor.dnswatch import blocklists, dmarc, hosts, maildomains, senders
from relaywarden_monitor.dnswatch.blocklists import Kind, Standing
from relaywarden_monitor.dnswatch.dmarc import Senders
from relaywarden_monitor.dnswatch.findings import Finding, Level, clean, problems, unsure
from relaywarden_monitor.dnswatch.maildomains import Use
from relaywarden_monitor.dnswatch.replies import Reply, Status
from relaywarden_monitor.dnswatch.senders import Carrier
from relaywarden_monitor.dnswatch.spf import Outcome, Result

IP = "192.0.2.11"
NOWHERE, EMPTY, SILENT = Reply(Status.NXDOMAIN), Reply(Status.EMPTY), Reply(Status.FAILED, why="SERVFAIL")


def found(*records: str) -> Reply:
    return Reply(Status.FOUND, records)


@pytest.mark.parametrize(
    ("zone", "records", "standing", "text"),
    [
        ("zen.spamhaus.org", [], Standing.CLEAN, "not listed"),
        ("zen.spamhaus.org", ["127.0.0.2"], Standing.LISTED, "SBL (127.0.0.2)"),
        ("zen.spamhaus.org", ["127.0.0.3"], Standing.LISTED, "CSS"),
        ("zen.spamhaus.org", ["127.0.0.4"], Standing.LISTED, "XBL"),
        ("zen.spamhaus.org", ["127.0.0.9", "127.0.0.2"], Standing.LISTED, "SBL (127.0.0.2); SBL DROP (127.0.0.9)"),
        ("zen.spamhaus.org", ["127.0.0.11"], Standing.LISTED, "PBL"),
        ("zen.spamhaus.org", ["127.255.255.252"], Standing.REFUSED, "mistyped"),
        ("zen.spamhaus.org", ["127.255.255.254"], Standing.REFUSED, "public resolver"),
        ("zen.spamhaus.org", ["127.255.255.255"], Standing.REFUSED, "too many"),
        ("zen.spamhaus.org", ["127.0.0.2", "127.255.255.254"], Standing.REFUSED, "public resolver"),
        ("secretkey.zen.dq.spamhaus.net", ["127.0.0.10"], Standing.LISTED, "PBL"),
        ("dbl.spamhaus.org", ["127.0.1.2"], Standing.LISTED, "spam domain"),
        ("dbl.spamhaus.org", ["127.0.1.106"], Standing.LISTED, "abused for botnet control"),
        ("dbl.spamhaus.org", ["127.0.1.255"], Standing.REFUSED, "dns.domain_blocklists"),
        ("bl.spamcop.net", ["127.0.0.2"], Standing.LISTED, "sends spam"),
        ("b.barracudacentral.org", ["127.0.0.2"], Standing.LISTED, "sends spam"),
        ("secretkey.combined.mail.abusix.zone", ["127.0.0.11"], Standing.LISTED, "generic reverse name"),
        ("multi.surbl.org", ["127.0.0.72"], Standing.LISTED, "phishing, abuse (127.0.0.72)"),
        ("multi.surbl.org", ["127.0.0.1"], Standing.REFUSED, "refuses"),
        ("multi.surbl.org", ["127.0.0.65"], Standing.REFUSED, "refuses"),
        ("multi.uribl.com", ["127.0.0.14"], Standing.LISTED, "black, grey, red"),
        ("multi.uribl.com", ["127.0.0.1"], Standing.REFUSED, "refuses"),
        ("rep.mailspike.net", ["127.0.0.18"], Standing.CLEAN, "not listed"),  # a good reputation
        ("hostkarma.junkemailfilter.com", ["127.0.0.1"], Standing.CLEAN, "not listed"),
        ("hostkarma.junkemailfilter.com", ["127.0.0.2"], Standing.LISTED, "black"),
        ("some.example", ["127.0.0.77"], Standing.LISTED, "listed (127.0.0.77)"),
        ("some.example", ["127.0.0.1"], Standing.REFUSED, "refuses"),
        ("some.example", ["127.255.7.7"], Standing.REFUSED, "refuses"),
        ("some.example", ["203.0.113.80"], Standing.BROKEN, "no answer of a blocklist"),
        ("some.example", ["127.0.0.2", "203.0.113.80"], Standing.BROKEN, "no answer of a blocklist"),
    ],
)
def test_answers_of_blocklists(zone: str, records: list[str], standing: Standing, text: str) -> None:
    verdict = blocklists.judge(zone, records)
    assert verdict.standing is standing
    assert text in verdict.text


@given(
    st.sampled_from(["zen.spamhaus.org", "multi.surbl.org", "multi.uribl.com", "b.barracudacentral.org", "some.example"]),
    st.lists(st.ip_addresses(v=4).map(str) | st.from_regex(r"127\.0\.[0-2]\.[1-9][0-9]?", fullmatch=True), max_size=12),
)
def test_a_listing_needs_a_code_that_can_be_one(zone: str, records: list[str]) -> None:
    verdict = blocklists.judge(zone, records)
    looked = [ipaddress.IPv4Address(text) for text in records[:8]]
    if verdict.standing is Standing.LISTED:
        assert all(code.packed[0] == 127 and code.packed[1] != 255 for code in looked)
        assert ipaddress.IPv4Address("127.0.0.1") not in looked
        assert "surbl" not in zone or all(code.packed[3] % 2 == 0 for code in looked)
    elif not records:
        assert verdict.standing is Standing.CLEAN


def test_names_that_are_asked() -> None:
    assert blocklists.address_name(IP, "zen.example") == "11.2.0.192.zen.example"
    six = blocklists.address_name("2001:db8::1", "zen.example")
    assert six == "1.0.0.0." + "0.0.0.0." * 5 + "8.b.d.0.1.0.0.2.zen.example"
    assert blocklists.domain_name("mail.acme.example", "dbl.spamhaus.org") == "mail.acme.example.dbl.spamhaus.org"
    assert blocklists.domain_name("mail.acme.example", "multi.surbl.org") == "acme.example.multi.surbl.org"
    good, bad = blocklists.test_names("zen.example", Kind.IPV6)
    assert good[0].startswith("2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.")
    assert bad.startswith("1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.")
    assert blocklists.test_names("dbl.spamhaus.org", Kind.DOMAIN)[0] == [
        "dbltest.com.dbl.spamhaus.org",
        "test.dbl.spamhaus.org",
    ]


def test_a_customers_key_is_never_shown() -> None:
    assert blocklists.label("secret.zen.dq.spamhaus.net") == "zen.dq.spamhaus.net"
    assert blocklists.label("secret.combined.mail.abusix.zone") == "combined.mail.abusix.zone"
    assert blocklists.label("secret.mail.abusix.zone") == "mail.abusix.zone"
    assert blocklists.label("zen.spamhaus.org") == "zen.spamhaus.org"


@pytest.mark.parametrize(
    ("names", "forward", "level", "text"),
    [
        (found("mx.r.example"), {"mx.r.example": found(IP)}, Level.OK, "leads back"),
        (NOWHERE, {}, Level.FAULT, "no reverse name"),
        (SILENT, {}, Level.UNKNOWN, "SERVFAIL"),
        (found("mx.r.example"), {"mx.r.example": found("198.51.100.1")}, Level.FAULT, "does not lead back"),
        (found("mx.r.example"), {"mx.r.example": NOWHERE}, Level.FAULT, "does not lead back"),
        (found("mx.r.example"), {"mx.r.example": SILENT}, Level.UNKNOWN, "not known"),
        (found("a.example", "b.example"), {"a.example": NOWHERE, "b.example": found(IP)}, Level.ADVICE, "2 reverse names"),
    ],
)
def test_reverse_names(names: Reply, forward: dict[str, Reply], level: Level, text: str) -> None:
    finding = hosts.judge_reverse("member tx1", IP, names, forward)
    assert (finding.level, text in finding.text) == (level, True), finding


def test_helo_names() -> None:
    def level(names: Reply, forward: Reply) -> Level:
        return hosts.judge_helo("member tx1", IP, "mx.r.example", names, forward).level

    assert level(found("mx.r.example"), found("198.51.100.1", IP)) is Level.OK
    assert level(found("other.example"), found(IP)) is Level.ADVICE
    assert level(found("mx.r.example"), found("198.51.100.1")) is Level.FAULT
    assert level(found("mx.r.example"), NOWHERE) is Level.FAULT
    assert level(found("mx.r.example"), SILENT) is Level.UNKNOWN
    assert level(SILENT, found(IP)) is Level.UNKNOWN


@pytest.mark.parametrize(
    ("use", "mx", "addresses", "level"),
    [
        (Use.FROM, found("mx.example"), [], Level.OK),
        (Use.FROM, SILENT, [], Level.UNKNOWN),
        (Use.FROM, found(""), [], Level.ADVICE),
        (Use.RETURN_PATH, found(""), [], Level.FAULT),
        (Use.FEEDBACK, found(""), [], Level.FAULT),
        (Use.FROM, EMPTY, [found(IP), EMPTY], Level.OK),
        (Use.FEEDBACK, EMPTY, [EMPTY, found("2001:db8::1")], Level.ADVICE),
        (Use.FROM, EMPTY, [EMPTY, SILENT], Level.UNKNOWN),
        (Use.FROM, NOWHERE, [NOWHERE, NOWHERE], Level.FAULT),
        (Use.RETURN_PATH, NOWHERE, [NOWHERE, NOWHERE], Level.FAULT),
        (Use.FEEDBACK, EMPTY, [EMPTY, EMPTY], Level.FAULT),
    ],
)
def test_mail_domains(use: Use, mx: Reply, addresses: list[Reply], level: Level) -> None:
    assert maildomains.judge("x", "acme.example", use, mx, addresses).level is level


OWN = Senders(["acme.example"], "acme.example", True)


@pytest.mark.parametrize(
    ("record", "vouching", "level", "text"),
    [
        ("v=DMARC1; p=reject; rua=mailto:d@acme.example", OWN, Level.OK, "p=reject; DKIM is aligned"),
        ("v=DMARC1;p=none;rua=mailto:d@acme.example;", OWN, Level.OK, "p=none"),
        ("v=DMARC1; p=reject", OWN, Level.ADVICE, "no rua="),
        ("v=DMARC1; p=reject; rua=mailto:d@x.example; pct=50", OWN, Level.ADVICE, "pct="),
        ("v=DMARC1; p=reject; rua=mailto:d@x.example; t=y", OWN, Level.ADVICE, "t=y"),
        ("v=DMARC1; p=reject; rua=https://x.example/", OWN, Level.ADVICE, "rua="),
        ("v=DMARC1; p=reject; rua=mailto:d@x.example; adkim=strict", OWN, Level.ADVICE, "adkim=strict"),
        ("v=DMARC1; rua=mailto:d@x.example", OWN, Level.FAULT, "p= is missing"),
        ("v=DMARC1; p=no", OWN, Level.FAULT, "p=no is not one of"),
        ("v=DMARC1; p=reject", Senders(["relay.example"], "", None), Level.FAULT, "relay.example signs"),
        ("v=DMARC1; p=quarantine", Senders([], "acme.example", False), Level.FAULT, "nobody signs"),
        ("v=DMARC1; p=none", Senders([], "", None), Level.ADVICE, "fails DMARC"),
        ("v=DMARC1; p=reject", Senders([], "acme.example", True), Level.ADVICE, "only SPF"),
        ("v=DMARC1; p=reject", Senders([], "acme.example", None), Level.UNKNOWN, "SPF is not known"),
        ("v=DMARC1; p=reject", Senders(["mail.acme.example"], "", None), Level.ADVICE, "no rua="),  # relaxed
        ("v=DMARC1; p=reject; adkim=s", Senders(["mail.acme.example"], "", None), Level.FAULT, "adkim=s"),
        ("v=DMARC1; p=reject; aspf=s", Senders([], "b.acme.example", True), Level.FAULT, "no aligned SPF"),
    ],
)
def test_dmarc(record: str, vouching: Senders, level: Level, text: str) -> None:
    assert dmarc.is_dmarc(record)
    judged = dmarc.judge("acme.example", "", dmarc.parse(record), vouching)
    assert (judged[0], text in judged[1]) == (level, True), judged


def test_dmarc_of_the_organization() -> None:
    def level(own: Reply, above: Reply | None) -> tuple[Level, str]:
        return senders.judge_dmarc("m.acme.example", "acme.example", own, above, Senders([], "", None))

    assert level(NOWHERE, found("v=DMARC1; p=reject; sp=none"))[0] is Level.ADVICE
    assert level(NOWHERE, found("v=DMARC1; p=none; sp=reject"))[0] is Level.FAULT
    assert "from acme.example" in level(NOWHERE, found("v=DMARC1; p=none"))[1]
    assert level(found("v=DMARC1; p=none; sp=reject"), None)[0] is Level.ADVICE  # its own record: sp= is for those below
    assert level(SILENT, None)[0] is Level.UNKNOWN
    assert level(NOWHERE, SILENT)[0] is Level.UNKNOWN
    assert "no DMARC record" in level(found("v=spf1 -all"), NOWHERE)[1]
    assert "2 DMARC records" in level(found("v=DMARC1; p=none", "v=DMARC1; p=none"), None)[1]


@pytest.mark.parametrize("record", ["", "v=DMARC2; p=none", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC10; p=none"])
def test_what_is_no_dmarc_record(record: str) -> None:
    assert not dmarc.is_dmarc(record)


@given(
    st.text(max_size=120)
    | st.lists(st.sampled_from(["p=", "sp", "=", ";", " ", "none", "reject", "pct=", "٣", "rua"])).map("".join)
)
def test_any_dmarc_record_is_read(text: str) -> None:
    policy = dmarc.parse(f"v=DMARC1; {text}")
    assert policy.applied(below=True) in {"none", "quarantine", "reject"}
    assert policy.p or policy.faults


def outcomes(*results: Result, notes: frozenset[str] = frozenset()) -> dict[Carrier, Outcome]:
    return {
        Carrier(f"tx{number}", f"192.0.2.{number}"): Outcome(result, "-all", "acme.example", notes=notes)
        for number, result in enumerate(results)
    }


def test_spf_of_all_addresses() -> None:
    def level(found: dict[Carrier, Outcome], *, required: bool = True) -> Level:
        return senders.judge_spf(found, required=required)[0]

    passing, failing, silent = Result.PASS, Result.FAIL, Result.TEMPERROR
    assert level(outcomes(passing, passing)) is Level.OK
    assert level(outcomes(passing, failing)) is Level.FAULT
    assert level(outcomes(passing, failing), required=False) is Level.ADVICE
    assert level(outcomes(passing, silent)) is Level.UNKNOWN
    assert level(outcomes(failing, silent)) is Level.FAULT
    assert level(outcomes(Result.NONE)) is level(outcomes(Result.PERMERROR)) is Level.FAULT
    assert level(outcomes(passing, notes=frozenset({"all"}))) is Level.ADVICE
    assert level(outcomes(passing, notes=frozenset({"ptr"}))) is Level.ADVICE
    assert (
        "tx0 (192.0.2.0), tx1 (192.0.2.1), tx2 (192.0.2.2) and 2 more: fail"
        in senders.judge_spf(outcomes(*[failing] * 5), required=True)[1]
    )
    assert senders.passes(outcomes(passing, passing)) is True
    assert senders.passes(outcomes(passing, failing)) is False
    assert senders.passes(outcomes(passing, silent)) is senders.passes(outcomes(silent)) is senders.passes({}) is None


def test_the_runner_can_tell_what_is_new_and_what_is_over() -> None:
    fault, gone = Finding("a", "spf", Level.FAULT, "x"), Finding("b", "spf", Level.FAULT, "x")
    before = problems([fault, gone, Finding("c", "spf", Level.ADVICE, "x")])
    later = [Finding("a", "spf", Level.UNKNOWN, "?"), Finding("b", "spf", Level.OK, "x"), Finding("d", "mx", Level.FAULT, "x")]
    assert before.keys() == {("a", "spf"), ("b", "spf")}
    assert problems(later).keys() - before.keys() == {("d", "mx")}
    assert before.keys() - problems(later).keys() - unsure(later) == {("b", "spf")}


@given(st.text(max_size=500))
def test_what_dns_said_is_harmless(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert shown.isascii()
    assert len(shown) <= 203
