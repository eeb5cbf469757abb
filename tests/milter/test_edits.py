"""Planned header changes: what the plan says the message becomes is what Postfix makes of its steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import Settings
from relaywarden_milter.control import matcher
from relaywarden_milter.edits import Add, Change, Edits, clean
from relaywarden_milter.headers import Header
from testbed.milterclient import Reply

NAMES = st.sampled_from(["From", "X-Job", "x-job", "X-Virtual-MTA", "X-Virtual-mta", "X-Relaywarden-A", "Subject", "To"])
HEADERS = st.lists(st.tuples(NAMES, st.sampled_from([b"1", b"2", b"3"])), max_size=12)


def carried_out(headers: list[Header], edits: Edits) -> list[tuple[bytes, bytes]]:
    reply = Reply("c")
    for step in edits.steps:
        if isinstance(step, Change):
            reply.changes.append(("m", step.index, step.name, step.value or ""))
        else:
            reply.changes.append(("h", 0, step.name, step.value))
    return reply.apply([(name.encode(), value) for name, value in headers])


@given(HEADERS, st.lists(st.tuples(NAMES, st.integers(-3, 4)), max_size=4))
def test_the_plan_is_what_is_carried_out(headers: list[Header], removals: list[tuple[str, int]]) -> None:
    edits = Edits(headers)
    edits.delete(matcher(Settings()))
    for name, index in removals:
        edits.delete_one(name, index)
    edits.replace("Subject", "new")
    edits.add("X-Virtual-MTA", "tx1")
    assert [(name.lower().encode(), value) for name, value in edits.headers] == [
        (name.lower(), value) for name, value in carried_out(headers, edits)
    ]
    assert sum(name.lower().startswith(("x-virtual-mta", "x-job", "x-relaywarden")) for name, _ in edits.headers) == 1


def test_deletions_run_from_the_last_to_the_first() -> None:
    edits = Edits([("X-Job", b"a"), ("From", b"f"), ("x-job", b"b"), ("X-JOB ", b"c")])
    assert edits.delete(matcher(Settings())) == 3
    assert edits.steps == [Change("x-job", 3, None), Change("x-job", 2, None), Change("x-job", 1, None)]
    assert edits.headers == [("From", b"f")]


def test_control_headers_follow_the_configuration() -> None:
    ours = matcher(Settings.model_validate({"route": {"header": "X-Pool"}, "scan": {"url": "http://127.0.0.1:1"}}))
    assert all(ours(name) for name in ("x-pool", "x-spam", "x-virtual-mta", "x-envid", "x-dkim-key", "x-relaywarden-x"))
    assert not any(ours(name) for name in ("from", "x-pool-2", "received", "x-relayward"))


def test_headers_with_impossible_names_are_left_out() -> None:
    edits = Edits([])
    for name in ("", "a b", "a:b", "ü", "a\n", "x" * 300):
        edits.add(name, "1")
    assert edits.steps == []


@given(st.text(max_size=200))
def test_clean_values_are_one_ascii_header(value: str) -> None:
    cleaned = clean(value)
    assert cleaned.isascii()
    assert "\0" not in cleaned
    assert "\r" not in cleaned
    assert all(line.startswith(" ") for line in cleaned.split("\n")[1:])


def test_clean_keeps_what_is_fine() -> None:
    assert clean("a b;\r\n\tc") == "a b;\n c"
    assert clean("Grüße") == "=?utf-8?b?R3LDvMOfZQ==?="
    edits = Edits([])
    edits.replace("Subject", "x\r\nX-Injected: 1")
    assert edits.steps == [Add("Subject", "x\n X-Injected: 1")]
