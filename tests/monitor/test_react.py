"""Which replies pause a member for a provider, for how long, which do not; and whose volume changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden import warmup
from relaywarden.config.monitor_settings import ReactSettings
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.culprits import Culprit, culprits
from relaywarden_monitor.events import Attempt, Outcome
from relaywarden_monitor.react import MOST_DOMAINS, Kind, Reaction, Reactions, StateError
from relaywarden_monitor.verdict import Blame, Scope, Severity, Verdict

NOW = 1_764_000_000.0
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """The real one with the built-in rules."""
    return Classifier.load()


def verdict(category: str = "ip-rate", scope: Scope = Scope.IP, blame: Blame = Blame.POOL, **more: Any) -> Verdict:
    values: dict[str, Any] = {"severity": Severity.MEDIUM, "wait": None, "provider": "google", "rule": "r", "temporary": True}
    return Verdict(category=category, scope=scope, blame=blame, **{**values, **more})


SLOW = verdict()
LISTED = verdict("ip-blocklisted", severity=Severity.HIGH)
ASKED = verdict(wait=1800)
TWICE = verdict(severity=Severity.HIGH)


def reactions(others: int = 1, **settings: Any) -> Reactions:
    return Reactions(ReactSettings.model_validate(settings), ["tx1", "tx2"], lambda _member, _provider: others)


def feed(
    book: Reactions,
    at: float,
    said: Verdict | None,
    count: int = 1,
    provider: str = "google",
    member: str = "tx1",
    tenant: str = "",
    **more: Any,
) -> list[Reaction]:
    """So many attempts, a second apart, from NOW + `at` on."""
    outcome = Outcome.DELIVERED if said is None else Outcome.DEFERRED
    values: dict[str, Any] = {"recipient": "bob@gmail.com", "reply": "421 4.7.28 slow down", **more}
    attempts = (Attempt(NOW + at + second, "4bXyz", outcome=outcome, **values) for second in range(count))
    found = (book.feed(attempt, said, provider, member, tenant) for attempt in attempts)
    return [reaction for reaction in found if reaction is not None]


def only(found: list[Reaction]) -> Reaction:
    (reaction,) = found
    return reaction


def test_the_third_reply_of_a_kind_pauses_the_member_for_the_provider() -> None:
    book = reactions()
    assert feed(book, 0, SLOW, 2) == []
    assert feed(book, 2, verdict("connections", Scope.RATE)) == []  # another kind
    reaction = only(feed(book, 3, SLOW))
    assert (reaction.kind, reaction.member, reaction.provider) == (Kind.PAUSE, "tx1", "google")
    assert (reaction.until, reaction.times, reaction.count) == (NOW + 3 + 600, 1, 3)
    assert reaction.reason == "3 replies in ten minutes ip-rate, such as: 421 4.7.28 slow down"
    assert reaction.text == f"tx1 paused for google for 10m: {reaction.reason}"


@pytest.mark.parametrize(("after", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_of_what_costs_reputation_fewer_replies_are_enough(after: int, needed: int) -> None:
    book = reactions(after=after)
    assert feed(book, 0, LISTED, needed - 1) == []
    assert only(feed(book, 10, LISTED)).count == needed


def test_replies_that_are_far_apart_do_not_add_up() -> None:
    book = reactions()
    assert [reaction for number in range(20) for reaction in feed(book, 301.0 * number, SLOW)] == []


def test_members_and_providers_do_not_add_up() -> None:
    book = reactions()
    for provider in ("google", "microsoft"):
        for member in ("tx1", "tx2"):
            assert feed(book, 0, SLOW, 2, provider, member) == []
    assert feed(book, 9, SLOW, 9, member="strange") == []
    assert feed(book, 9, SLOW, 9, member="") == []


def test_a_big_sender_may_be_refused_now_and_then() -> None:
    book = reactions()
    feed(book, 0, None, 100)
    assert feed(book, 100, SLOW, 24) == []  # 24 of 124: 19 %
    assert only(feed(book, 124, SLOW)).count == 25
    assert only(feed(reactions(), 100, SLOW, 3)).count == 3


def test_mail_that_was_in_the_queue_neither_prolongs_nor_doubles() -> None:
    book = reactions()
    first = only(feed(book, 0, TWICE, 2))
    assert feed(book, 2, TWICE, 598) == []
    again = only(feed(book, first.until - NOW, TWICE, 2))
    assert (again.times, again.seconds) == (2, 1200.0)


def test_after_a_short_pause_the_replies_of_before_do_not_count_again() -> None:
    book = reactions()
    hurry = verdict(wait=60)
    assert only(feed(book, 0, hurry, 3)).until == NOW + 62
    feed(book, 3, None, 58)  # nor what went through while it lasted
    assert feed(book, 62, hurry, 2) == []
    assert only(feed(book, 64, hurry)).count == 3


def test_pauses_double_up_to_the_longest_and_begin_again_after_a_day() -> None:
    book, at, seconds = reactions(longest="2h"), 0.0, []
    for _ in range(6):
        reaction = only(feed(book, at, TWICE, 2))
        seconds.append(reaction.seconds)
        at = reaction.until - NOW + 100
    assert seconds == [600, 1200, 2400, 4800, 7200, 7200]
    assert only(feed(book, at - 101 + DAY, TWICE, 2)).times == 7
    last = only(feed(book, at + 3 * DAY, TWICE, 2))
    assert (last.times, last.seconds) == (1, 600.0)


def test_the_rule_of_the_reply_says_how_long() -> None:
    book = reactions(others=0)  # and then even the last member waits
    reaction = only(feed(book, 0, ASKED, 3))
    assert (reaction.kind, reaction.seconds, reaction.stated) == (Kind.PAUSE, 1800.0, True)
    assert "paused for google for 30m, as the provider asks: 3 replies" in reaction.text
    assert only(feed(book, 1900, ASKED, 3)).seconds == 3600.0


def test_the_last_member_goes_on_where_no_wait_is_stated() -> None:
    book = reactions(others=0)
    reaction = only(feed(book, 0, SLOW, 3))
    assert reaction.kind is Kind.SPARED
    assert reaction.entry({}, int(NOW * 1000)) is None
    assert "not paused for google, as no other member could carry its mail" in reaction.text
    assert feed(book, 3, SLOW, 590) == []  # said once in a while
    assert only(feed(book, 700, SLOW, 3)).seconds == 600.0


def test_what_was_spared_does_not_count_as_a_pause() -> None:
    carriers = [0]
    book = Reactions(ReactSettings(), ["tx1"], lambda _member, _provider: carriers[0])
    assert only(feed(book, 0, SLOW, 3)).kind is Kind.SPARED
    carriers[0] = 1
    assert [only(feed(book, at, SLOW, 3)).times for at in (700, 1400)] == [1, 2]


@pytest.mark.parametrize(
    "said",
    [
        verdict(own=True),
        verdict(severity=Severity.LOW),
        verdict("recipient-flooded", Scope.RATE, Blame.CUSTOMER),
        verdict("no-mailbox", Scope.MAILBOX, Blame.RECIPIENT),
        verdict("greylisted", Scope.GREYLIST, Blame.RECIPIENT),
        verdict("spam-content", Scope.CONTENT, Blame.CUSTOMER, severity=Severity.HIGH),
        verdict("dmarc", Scope.AUTH, Blame.CUSTOMER, severity=Severity.HIGH),
        verdict("server-trouble", Scope.INFRA, Blame.RECIPIENT),
    ],
)
def test_what_is_not_the_address_s_fault_pauses_nobody(said: Verdict) -> None:
    assert feed(reactions(), 0, said, 50, tenant="acme") == []


def test_what_somebody_reported_later_pauses_nobody() -> None:
    assert feed(reactions(), 0, LISTED, 50, remote=True) == []


@pytest.mark.parametrize("scope", [Scope.INFRA, Scope.DOMAIN])
def test_what_no_pause_mends_is_told_once_a_day(scope: Scope) -> None:
    book = reactions()
    said = verdict("reverse-dns", scope)
    reaction = only(feed(book, 0, said, 50))
    assert (reaction.kind, reaction.member) == (Kind.NOTICE, "tx1")
    assert reaction.entry({}, int(NOW * 1000)) is None
    assert reaction.text == "tx1 at google: 1 reply reverse-dns, such as: 421 4.7.28 slow down"
    assert feed(book, DAY - 1, said) == []
    assert len(feed(book, DAY, said, 5)) == 1


def test_a_tenant_s_unmistakable_fault_is_told_once_a_day() -> None:
    book = reactions()
    said = verdict("phishing", Scope.CONTENT, Blame.CUSTOMER, severity=Severity.HIGH)
    assert feed(book, 0, said, 1, tenant="acme") == []
    assert feed(book, 0, said, 50) == []  # of nobody
    reaction = only(feed(book, 1, said, 50, tenant="acme", member=""))
    assert (reaction.kind, reaction.tenant, reaction.member) == (Kind.NOTICE, "acme", "")
    assert reaction.text.startswith("acme: 2 replies in ten minutes phishing")
    assert reaction.entry({}, int(NOW * 1000)) is None


@pytest.mark.parametrize("provider", ["other", "amazon"])
def test_one_host_among_many_cannot_pause_a_member(provider: str) -> None:
    book = reactions()
    for host in range(50):  # all in the networks of one who rents machines
        address = f"198.51.100.{host}" if host % 2 else f"2001:db8:1:{host}::1"
        assert feed(book, host, LISTED, 1, provider, relay_ip=address) == []
    assert len(feed(book, 60, LISTED, 1, provider, relay_ip="203.0.113.1")) == 1


def test_where_the_address_is_not_known_the_name_counts() -> None:
    book = reactions()
    assert feed(book, 0, LISTED, 5, "other", relay="mx.a.example") == []
    assert feed(book, 5, LISTED, 5, "other", recipient="x@b.example") == []
    assert len(feed(book, 10, LISTED, 1, "other", recipient="x@c.example")) == 1


@pytest.mark.parametrize("provider", ["google", "microsoft", "proofpoint"])
def test_one_customer_of_a_provider_does_not_speak_for_it(provider: str) -> None:
    """An administrator there writes what the reply to his own recipients says."""
    book = reactions()
    assert feed(book, 0, LISTED, 50, provider, recipient="x@shop.example") == []
    assert feed(book, 50, LISTED, 50, provider, recipient="y@SHOP.example") == []
    assert only(feed(book, 100, LISTED, 1, provider, recipient="x@bakery.example")).kind is Kind.PAUSE


def test_other_settings_change_nothing_that_was_counted() -> None:
    book = reactions(after=5)
    assert feed(book, 0, SLOW, 2) == []
    book.use(ReactSettings(after=3), ["tx1"])
    assert only(feed(book, 2, SLOW)).count == 3
    assert feed(book, 2, SLOW, 5, member="tx2") == []  # which is none of ours any more


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address", Kind.PAUSE),
        ("550-5.7.25 The IP address sending this message does not have a PTR record setup", Kind.NOTICE),
        ("550-5.1.1 The email account that you tried to reach does not exist", None),
        ("450 4.7.1 This account is suspended, ask your provider", None),
    ],
)
def test_what_the_classifier_makes_of_a_reply_is_understood(classifier: Classifier, reply: str, kind: Kind | None) -> None:
    found = feed(reactions(), 0, classifier.classify(reply, "gmail-smtp-in.l.google.com"), 5, reply=reply, tenant="acme")
    assert [reaction.kind for reaction in found] == ([] if kind is None else [kind])


def test_observe_says_what_would_be_done_and_off_says_nothing() -> None:
    reaction = only(feed(reactions(mode="observe"), 0, SLOW, 50))
    assert reaction.observed
    assert reaction.entry({}, int(NOW * 1000)) is None
    assert "tx1 would be paused for google for 10m, but react.mode is observe" in reaction.text
    assert feed(reactions(mode="off"), 0, LISTED, 50) == []


def test_the_entry_pauses_the_member_in_every_milter() -> None:
    reaction, now_ms = only(feed(reactions(), 0, SLOW, 3)), int(NOW + 2) * 1000
    old = warmup.stepped_back({}, "google", 2)
    entry = reaction.entry(old, now_ms)
    assert entry is not None
    assert warmup.back_of(entry, "google") == 2
    assert warmup.pause_of(entry, "microsoft", now_ms) is None
    pause = warmup.pause_of(entry, "google", now_ms)
    assert pause == warmup.Pause("google", now_ms + 600_000, reaction.reason, "monitor")
    assert warmup.pause_of(entry, "google", now_ms + 600_000) is None


@pytest.mark.parametrize("until", [None, int(NOW * 1000) + 7_200_000])
@pytest.mark.parametrize("provider", ["google", warmup.EVERY])
def test_a_person_s_longer_pause_stays(until: int | None, provider: str) -> None:
    reaction, now_ms = only(feed(reactions(), 0, SLOW, 3)), int(NOW * 1000)
    assert reaction.entry(warmup.paused({}, provider, until, "by hand", "root", now_ms), now_ms) is None
    shorter = warmup.paused({}, provider, now_ms + 1000, "by hand", "root", now_ms)
    assert reaction.entry(shorter, now_ms) is not None


def test_old_lines_pause_nobody_now_and_a_clock_ahead_not_for_long() -> None:
    reaction = only(feed(reactions(), 0, SLOW, 3))
    assert reaction.entry({}, int(reaction.until * 1000)) is None
    early = int((NOW - 30 * DAY) * 1000)
    entry = reaction.entry({}, early)
    assert entry is not None
    assert warmup.pause_of(entry, "google", early + 600_000) is None


def test_the_domains_of_a_provider_are_remembered_the_frequent_ones_first() -> None:
    book = reactions()
    for number in range(1000):
        feed(book, 0, None, recipient=f"x@strange{number}.example")
        feed(book, 0, None, 2, recipient="bob@gmail.com")
    assert feed(book, HOUR, TWICE, recipient=f"x@{'a' * 300}.example") == []
    reaction = only(feed(book, HOUR + 1, TWICE))
    assert reaction.domains[0] == "gmail.com"
    assert len(reaction.domains) == MOST_DOMAINS
    assert max(map(len, reaction.domains)) < 254


def test_after_a_restart_it_goes_on_doubling() -> None:
    book, restored = reactions(), reactions()
    feed(book, 0, TWICE, 2)
    feed(book, 0, verdict("helo", Scope.INFRA))
    feed(book, 0, verdict("virus", Scope.CONTENT, Blame.CUSTOMER, severity=Severity.HIGH), 5, tenant="acme")
    state = json.loads(json.dumps(book.state(), allow_nan=False))
    restored.restore(state)
    assert restored.state() == state
    assert feed(restored, 300, TWICE, 50) == []
    assert feed(restored, 300, verdict("helo", Scope.INFRA)) == []
    assert only(feed(restored, 700, TWICE, 2)).times == 2


@pytest.mark.parametrize(
    "state",
    [
        None,
        {"version": 2, "lanes": [], "tenants": []},
        {"version": 1, "lanes": [{}], "tenants": []},
        {
            "version": 1,
            "lanes": [{"member": "a", "provider": "b", "until": float("nan"), "times": 1, "told": {}}],
            "tenants": [],
        },
        {"version": 1, "lanes": [], "tenants": [{"tenant": "a", "told": 5}]},
    ],
)
def test_what_is_no_state_is_refused(state: Any) -> None:
    book = reactions()
    feed(book, 0, TWICE, 2)
    before = book.state()
    with pytest.raises(StateError, match="expected the state of reactions"):
        book.restore(state)
    assert book.state() == before


def said() -> st.SearchStrategy[Verdict | None]:
    built = st.builds(
        verdict,
        st.sampled_from(["ip-rate", "known-spammer", "helo"]),
        st.sampled_from(list(Scope)),
        st.sampled_from(list(Blame)),
        severity=st.sampled_from(list(Severity)),
        wait=st.none() | st.integers(-5, 10**9),
        own=st.booleans(),
    )
    return st.none() | built


def steps() -> st.SearchStrategy[list[tuple[float, Verdict | None, str, str]]]:
    one = st.tuples(st.floats(-4e5, 4e5), said(), st.sampled_from(["google", "other"]), st.text(max_size=300))
    return st.lists(one, max_size=60)


@given(steps(), st.sampled_from([0, 1]))
def test_whatever_comes_reactions_are_bounded_and_plain(
    attempts: list[tuple[float, Verdict | None, str, str]], others: int
) -> None:
    book = reactions(others, after=1)
    ends: dict[str, float] = {}
    for at, verdict_, provider, reply in attempts:
        for reaction in feed(book, at, verdict_, provider=provider, reply=reply, relay_ip=reply[:9], tenant="acme"):
            assert verdict_ is not None
            assert not verdict_.own
            assert reaction.reason.isascii()
            assert reaction.reason.isprintable()
            assert len(reaction.reason) <= 200
            assert 0 < reaction.seconds <= DAY
            if reaction.kind is not Kind.NOTICE:
                assert reaction.at >= ends.get(provider, reaction.at)  # never two pauses at once
                ends[provider] = reaction.until
                assert verdict_.scope in {Scope.IP, Scope.RATE}
            if reaction.kind is Kind.PAUSE:
                assert others or reaction.stated
    json.dumps(book.state(), allow_nan=False)


def test_whose_volume_changed() -> None:
    now = {"big": 10_300, "new": 400, "small": 19, "grown": 900, "same": 50, "odd": 30, "worse": 25, "less": 5}
    usual = {
        "big": 10_000.0,
        "grown": 300.0,
        "same": 49.0,
        "odd": float("inf"),
        "worse": float("nan"),
        "less": 500.0,
        "gone": 70.0,
    }
    found = culprits(now, usual, most=10)
    assert [culprit.tenant for culprit in found] == ["grown", "new", "odd", "worse"]
    assert found[0] == Culprit("grown", 900, 300.0, 3.0)
    assert str(found[1]) == "new (400 in the last hour, usually 0)"
    assert culprits(now, usual) == found[:3]
    assert culprits({}, usual) == []


def test_equal_culprits_stand_in_one_order() -> None:
    def orders() -> Iterator[list[str]]:
        for names in ("abc", "cab"):
            yield [culprit.tenant for culprit in culprits(dict.fromkeys(names, 50), {})]

    first, second = orders()
    assert first == second == ["a", "b", "c"]
