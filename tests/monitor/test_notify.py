"""Notices without I/O: what they may hold, when something is news, and which ones wait."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relaywarden_monitor.notify.alerts import AlertBook, Level, Reading
from relaywarden_monitor.notify.channel import Backoff, NotToldError
from relaywarden_monitor.notify.notice import Kind, Notice, NoticeError, Severity
from relaywarden_monitor.notify.outbox import Outbox, Waiting

CALM = 600.0
values = st.text() | st.integers() | st.floats() | st.booleans()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def notice(name: str, severity: Severity = Severity.WARN) -> Notice:
    return Notice.make(name, Kind.CROSSED, severity, subject="acme", what="too much", at=1000.0)


def reading(level: Level, key: str = "tenant/acme/bounces") -> Reading:
    return Reading(key, level, "acme", "hard bounces", {"bounced": 93}, "relaywarden explain acme")


@given(st.text(), st.text(), st.dictionaries(st.text(), values, max_size=40), st.floats(0, 4e9))
@example("", "", {"nan": math.nan, "endless": -math.inf, "huge": 10**5000}, 0.0)
def test_whatever_a_notice_is_made_of_it_is_printable_bounded_and_json(
    subject: str, what: str, evidence: dict[str, Any], at: float
) -> None:
    made = Notice.make("key", Kind.CROSSED, Severity.ACT, subject=subject, what=what * 50, at=at, evidence=evidence)
    texts = [made.subject, made.what, made.undo, *made.evidence, *map(str, made.evidence.values())]
    assert all(text.isprintable() for text in texts)
    assert max(map(len, texts)) <= 500
    assert len(made.evidence) <= 24
    text = json.dumps(made.to_json(), allow_nan=False)
    assert Notice.from_json(json.loads(text)) == made


@given(json_values, st.sampled_from(["version", "id", "kind", "evidence", "at", "what", ""]))
def test_what_is_no_notice_is_refused(junk: Any, field: str) -> None:
    document = {**notice("a").to_json(), field: junk} if field else junk
    try:
        read = Notice.from_json(document)
    except NoticeError:
        return
    assert json.dumps(read.to_json(), allow_nan=False)
    assert math.isfinite(read.at)


def test_the_id_is_that_of_key_kind_severity_and_episode() -> None:
    def make(key: str, kind: Kind, severity: Severity, episode: str, what: str = "") -> str:
        return Notice.make(key, kind, severity, subject="", what=what, at=1.0, episode=episode).id

    first = make("a", Kind.CROSSED, Severity.WARN, "1")
    assert first == make("a", Kind.CROSSED, Severity.WARN, "1", "other words")
    others = {
        make("b", Kind.CROSSED, Severity.WARN, "1"),
        make("a", Kind.RECOVERED, Severity.WARN, "1"),
        make("a", Kind.CROSSED, Severity.ACT, "1"),
        make("a", Kind.CROSSED, Severity.WARN, "2"),
    }
    assert len(others | {first}) == 5


pauses = st.sampled_from([0.0, 1.0, CALM / 2, CALM, -5.0])  # a clock may be set back


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(Level), pauses, st.booleans())))
def test_crossings_and_recoveries_take_turns(steps: list[tuple[str, Level, float, bool]]) -> None:
    book, now, told, ids = AlertBook(CALM), 1000.0, {"a": Level.NONE, "b": Level.NONE}, set()
    last_bad = dict.fromkeys(told, 0.0)
    for key, level, pause, restart in steps:
        now += pause
        if restart:
            state, book = json.loads(json.dumps(book.state())), AlertBook(CALM)
            book.restore(state)
        last_bad[key] = now if level is not Level.NONE else min(now, last_bad[key])
        news = book.look(reading(level, key), now)
        if news is None:
            assert level.height <= told[key].height  # a first crossing is never kept back
        elif news.kind is Kind.CROSSED:
            assert level.height > told[key].height
            assert news.severity.value == level.value
            told[key] = level
        else:
            assert level is Level.NONE
            assert news.severity.value == told[key].value != "none"
            assert now - last_bad[key] >= CALM
            told[key] = Level.NONE
        if news is not None:
            assert news.id not in ids
            ids.add(news.id)
        assert book.alerting == {key: level for key, level in told.items() if level is not Level.NONE}


def test_an_episode_from_the_first_crossing_to_the_recovery() -> None:
    book = AlertBook(CALM)
    steps = [
        (0, Level.WARN, "crossed warn"),
        (10, Level.WARN, None),
        (20, Level.ACT, "crossed act"),
        (30, Level.WARN, None),
        (40, Level.ACT, None),  # it never was well
        (50, Level.NONE, None),
        (60, Level.WARN, None),  # it flaps
        (70, Level.NONE, None),
        (70 + CALM - 1, Level.NONE, None),
        (70 + CALM, Level.NONE, "recovered act"),
        (80 + CALM, Level.NONE, None),
        (90 + CALM, Level.ACT, "crossed act"),
    ]
    for at, level, expected in steps:
        news = book.look(reading(level), at)
        assert (f"{news.kind.value} {news.severity.value}" if news else None) == expected
    assert news
    assert news.evidence == {"times": 2, "bounced": 93}
    assert news.undo == "relaywarden explain acme"


def test_a_clock_that_is_set_back_neither_delays_a_recovery_for_long_nor_repeats_an_id() -> None:
    book = AlertBook(CALM)
    first = book.look(reading(Level.WARN), 50_000.0)
    assert book.look(reading(Level.NONE), 50_001.0) is None
    assert book.look(reading(Level.NONE), 1000.0) is None  # half a day back
    assert book.look(reading(Level.NONE), 1000.0 + CALM)
    second = book.look(reading(Level.WARN), 50_000.0)
    assert first
    assert second
    assert first.id != second.id


def test_a_recovery_says_how_long_it_lasted() -> None:
    book = AlertBook(CALM)
    book.look(reading(Level.WARN), 100.0)
    book.look(reading(Level.NONE), 160.0)
    news = book.look(reading(Level.NONE), 160.0 + CALM)
    assert news
    assert news.evidence == {"lasted_seconds": 60, "bounced": 93}


def test_with_too_many_keys_those_that_recovered_go_first() -> None:
    book = AlertBook(CALM, capacity=2)
    for level, at in ((Level.WARN, 0.0), (Level.NONE, 1.0), (Level.NONE, 1.0 + CALM)):
        book.look(reading(level, "well"), at)
    for key in ("a", "b"):
        book.look(reading(Level.WARN, key), 2.0)
    assert book.forgotten == 0
    assert book.look(reading(Level.WARN, "c"), 3.0)
    assert book.forgotten == 1
    assert list(book.alerting) == ["b", "c"]


@given(json_values)
def test_a_state_that_is_none_changes_nothing(junk: Any) -> None:
    book = AlertBook(CALM)
    book.look(reading(Level.WARN), 1.0)
    before = book.state()
    for state in (junk, {"version": 1, "alerts": [junk]}, {**before, "version": junk if junk != 1 else 2}):
        if state != {"version": 1, "alerts": []}:
            with pytest.raises(NoticeError):
                book.restore(state)
    assert book.state() == before


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(Severity)), max_size=60), st.integers(1, 8))
def test_of_too_many_notices_the_least_severe_and_oldest_go(given_: list[tuple[int, Severity]], capacity: int) -> None:
    outbox = Outbox(capacity)
    model: list[Waiting] = []
    for number, severity in given_:
        waiting = Waiting(notice(str(number), severity), 0.0, 0.0)
        dropped = outbox.add(waiting)
        assert (dropped is None) == (waiting.notice.id in [other.notice.id for other in model])
        if dropped is None:
            continue
        model.append(waiting)
        expected = []
        if len(model) > capacity:
            # min() takes the first, which is the oldest
            expected = [min(model, key=lambda other: list(Severity).index(other.notice.severity))]
            model.remove(expected[0])
        assert dropped == expected
        assert outbox.first(100) == model


def test_expiry_and_order() -> None:
    outbox = Outbox()
    waiting = [Waiting(notice(str(number)), float(number), 0.0) for number in range(4)]
    for each in waiting:
        assert outbox.add(each) == []
    outbox.put_behind(waiting[1:2])
    assert outbox.first(2) == [waiting[0], waiting[2]]
    assert outbox.expire(2.0) == [waiting[0], waiting[1]]
    assert outbox.remove(waiting) == waiting[2:]
    assert len(outbox) == 0


def test_what_the_store_keeps_of_a_notice_is_read_back() -> None:
    waiting = Waiting(notice("a"), 12.5, 3.0)
    assert Waiting.from_text(waiting.to_text(), 3.0) == waiting
    for text in ("", "[]", "{}", '{"since": 1}', "[" * 100_000):
        with pytest.raises(NoticeError):
            Waiting.from_text(text, 3.0)


@given(st.integers(1, 40), st.sampled_from([0.0, 7.0, 1e9]), st.booleans())
def test_waits_grow_are_bounded_and_obey_the_receiver(failures: int, after: float, lasting: bool) -> None:
    delay = Backoff(1.0, 900.0).delay(failures, NotToldError("down", after=after, lasting=lasting))
    assert max(1.0, min(after, 3600.0)) <= delay <= 3600.0
    if lasting or failures > 11:
        assert delay >= 900.0 * 0.8
    elif after == 0:
        assert delay <= 2.0 ** (failures - 1) * 1.2
