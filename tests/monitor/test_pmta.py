"""Command lines for PowerMTA, and what becomes of them: run against a real program, which writes down what it was told."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_monitor.pmta import PmtaError, plan, run, text
from relaywarden_monitor.react import Kind, Reaction
from testbed.process import wait_for

PAUSE = Reaction(
    Kind.PAUSE, "ip-rate", 3, "3 replies", 0.0, "tx1", "google", seconds=600.0, times=1, domains=("gmail.com", "acme.example")
)
COMMANDS = plan(PAUSE, "192.0.2.11").commands
MakeProgram = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> MakeProgram:
    """A program that adds its arguments to `told`, does what is asked and ends."""

    def make(body: str = "") -> str:
        path = tmp_path / "pmta"
        head = f"#!{sys.executable}\nimport json, os, sys, time\nos.chdir({str(tmp_path)!r})\n"
        path.write_text(f"{head}print(json.dumps(sys.argv[1:]), file=open('told', 'a'), flush=True)\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


def told(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]


def test_a_pause_disables_the_source_for_each_domain_and_can_be_taken_back() -> None:
    found = plan(PAUSE, "192.0.2.11")
    assert text(found.commands) == (
        "pmta disable source --reenable-after=600s 192.0.2.11 gmail.com/tx1\n"
        "pmta disable source --reenable-after=600s 192.0.2.11 acme.example/tx1"
    )
    assert text(found.undo, "/usr/sbin/pmta").splitlines()[0] == "/usr/sbin/pmta enable source 192.0.2.11 gmail.com/tx1"
    assert found.left_out == ()


def test_a_member_that_is_spared_is_slowed_down() -> None:
    found = plan(replace(PAUSE, kind=Kind.SPARED, domains=("gmail.com",)), "2001:DB8::1")
    assert found.commands == (("set", "queue", "--mode=backoff", "gmail.com/tx1"),)
    assert found.undo == (("set", "queue", "--mode=normal", "gmail.com/tx1"),)


@pytest.mark.parametrize(("seconds", "after"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.2, 2)])
def test_a_pause_is_never_shorter_nor_without_end(seconds: float, after: int) -> None:
    assert plan(replace(PAUSE, seconds=seconds), "192.0.2.11").commands[0][2] == f"--reenable-after={after}s"


def test_a_notice_and_what_is_only_observed_need_no_commands() -> None:
    assert plan(replace(PAUSE, kind=Kind.NOTICE), "192.0.2.11").commands == ()
    assert plan(replace(PAUSE, observed=True), "192.0.2.11").commands == ()


def test_all_queues_are_meant_only_where_all_providers_are() -> None:
    assert plan(replace(PAUSE, provider="*"), "192.0.2.11").commands[0][-1] == "*/tx1"
    assert plan(replace(PAUSE, domains=()), "192.0.2.11").commands == ()


HOSTILE = (
    "a;reboot", "$(reboot)", "`id`", "--xml", "-a.example", "a b", "a\nb", "a/b", "*", "*.example", "", ".", "a..b",
    "x" * 64 + ".example", "a." * 127 + "example", "é.example", "\u212a.example", "a\x00b", "a'b", "[192.0.2.1]",
)  # fmt: skip


def test_hostile_domains_are_left_out_and_named() -> None:
    found = plan(replace(PAUSE, domains=("Ok.Example.", *HOSTILE, "_spf.b.example")), "192.0.2.11")
    assert [command[-1] for command in found.commands] == ["ok.example/tx1", "_spf.b.example/tx1"]
    assert len(found.left_out) == len(HOSTILE)
    assert all(name.isascii() and name.isprintable() for name in found.left_out)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_domain_becomes_anything_but_one_argument(domains: list[str]) -> None:
    found = plan(replace(PAUSE, domains=tuple(domains)), "192.0.2.11")
    for line, command in zip(text(found.commands).splitlines(), found.commands, strict=True):
        assert line == " ".join(["pmta", *command])  # nothing in it had to be quoted
        assert shlex.split(line)[1:] == list(command)


def test_at_most_twenty_queues() -> None:
    many = replace(PAUSE, domains=tuple(f"d{number}.example" for number in range(50)))
    assert len(plan(many, "192.0.2.11").commands) == 20


@pytest.mark.parametrize(
    ("member", "ip"), [("tx1;id", "192.0.2.11"), ("--all", "192.0.2.11"), ("", "192.0.2.11"), ("tx1", "host")]
)
def test_a_member_or_address_that_cannot_be_one_is_refused(member: str, ip: str) -> None:
    with pytest.raises(PmtaError, match="expected"):
        plan(replace(PAUSE, member=member), ip)


def test_the_program_gets_the_arguments_as_they_are(program: MakeProgram, tmp_path: Path) -> None:
    odd = ("a b", "$(id)", "'", "*")
    results = run([*COMMANDS, odd], program("print('done\\x1b[2J', sys.stdin.read())"))
    assert told(tmp_path) == [list(command) for command in (*COMMANDS, odd)]
    assert [(result.status, result.output, result.problem) for result in results] == [(0, "done?[2J", "")] * 3


def test_a_command_that_is_refused_does_not_end_the_row(program: MakeProgram, tmp_path: Path) -> None:
    results = run(COMMANDS, program("sys.exit('no such source' if 'gmail' in sys.argv[-1] else 0)"))
    assert [result.succeeded for result in results] == [False, True]
    assert (results[0].problem, results[0].output) == ("exit status 1", "no such source")
    assert len(told(tmp_path)) == 2


def test_output_without_end_is_bounded(program: MakeProgram) -> None:
    (result,) = run(COMMANDS[:1], program("os.write(1, b'x' * 5_000_000)"))
    assert result.succeeded
    assert result.output == "x" * 2_000


def test_one_that_hangs_is_killed_with_its_children_and_the_others_are_not_tried(program: MakeProgram, tmp_path: Path) -> None:
    body = "child = os.fork()\nopen(f'pid{child}', 'w') if child else None\nprint('hm', flush=True)\ntime.sleep(600)"
    started = time.monotonic()
    first, second = run(COMMANDS, program(body), timeout=1.0)
    assert time.monotonic() - started < 20
    assert (first.status, first.problem) == (None, "no end within 1 seconds")
    assert first.output.startswith("hm")
    assert second.problem == "not run, as the one before did not end"
    assert len(told(tmp_path)) == 1
    (child,) = (path.name.removeprefix("pid") for path in tmp_path.glob("pid*"))
    wait_for("the child's end", lambda: _is_gone(child))


def test_what_stays_in_the_background_is_not_waited_for(program: MakeProgram) -> None:
    started = time.monotonic()
    (result,) = run(COMMANDS[:1], program("if os.fork() == 0: time.sleep(600)\nprint('ok')"), timeout=60.0)
    assert (result.status, result.output) == (0, "ok")
    assert time.monotonic() - started < 20


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "pmta")
    first, second = run(COMMANDS, missing)
    assert first.problem == f"{missing} cannot be started: No such file or directory"
    assert second.problem == "not run, as the one before did not end"


def _is_gone(pid: str) -> bool:
    """Whether a process has ended, be it that nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
