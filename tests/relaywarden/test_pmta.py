"""`check --pmta` finds what would have PowerMTA and relaywarden disagree; the files of contrib agree."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.load import load
from relaywarden.config.pmta import Pmta, problems, read, remarks

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"
PMTA = (CONTRIB / "pmta/relaywarden.conf").read_text()
OURS = (CONTRIB / "postfix/relaywarden.yaml").read_text().replace("target: member", "target: member, powermta: true")
Change = tuple[str, str]
Found = tuple[list[str], list[str]]
Look = Callable[..., Found]
BY_POOL = ("target: member", "target: pool")
WITHOUT = ("powermta: true", "powermta: false")
NOTED = "route.powermta: false: X-Job and X-Envid are not sent, so PowerMTA's log does not name tenants"
SETTINGS = load(CONTRIB / "postfix/relaywarden.yaml")


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Problems and remarks of contrib's files after these changes; each must change something."""

    def changed(text: str, changes: list[Change]) -> str:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return text

    def call(*pmta: Change, ours: Change | None = None) -> Found:
        (tmp_path / "pmta.conf").write_text(changed(PMTA, list(pmta)))
        (tmp_path / "relaywarden.yaml").write_text(changed(OURS, [ours] if ours else []))
        settings, theirs = load(tmp_path / "relaywarden.yaml"), read(tmp_path / "pmta.conf")
        return tuple(  # type: ignore[return-value]
            [str(item).replace(f"{tmp_path}/", "") for item in found(settings, theirs)] for found in (problems, remarks)
        )

    return call


def line(text: str) -> int:
    """On which line of contrib's file this stands."""
    return PMTA[: PMTA.index(text)].count("\n") + 1


def parse(tmp_path: Path, text: str, others: dict[str, str] | None = None) -> Pmta:
    """Read a configuration that may include the others."""
    for name, content in {"config": text, **(others or {})}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return read(tmp_path / "config")


@pytest.mark.parametrize("ours", [None, BY_POOL])
def test_the_files_of_contrib_agree(look: Look, ours: Change | None) -> None:
    assert look(ours=ours) == ([], [])


def test_headers_that_are_not_sent_are_noted(look: Look) -> None:
    assert look(ours=WITHOUT) == ([], [NOTED])


def test_a_member_needs_a_virtual_mta(look: Look) -> None:
    assert look(("<virtual-mta tx2>", "<virtual-mta txx>")) == (
        ["pools.transactional.members.tx2: no <virtual-mta tx2> in pmta.conf"],
        [],
    )
    assert look(("<virtual-mta tx2>", "<virtual-mta TX2>"))[0] == [
        "pools.transactional.members.tx2: no <virtual-mta tx2> in pmta.conf; TX2 differs in case"
    ]


def test_a_member_that_is_a_pool_there_is_not_enough(look: Look) -> None:
    found, _ = look(("<virtual-mta q1>\n  smtp-source-host 192.0.2.31 q1.relay.example\n</virtual-mta>", ""),
                    ("<virtual-mta-pool quarantine>", "<virtual-mta-pool q1>"))  # fmt: skip
    assert found == ["pools.quarantine.members.q1: no <virtual-mta q1> in pmta.conf"]


def test_with_target_pool_a_pool_needs_a_pool_or_a_virtual_mta(look: Look) -> None:
    gone = ("<virtual-mta-pool bulk>\n  virtual-mta bk1\n</virtual-mta-pool>\n", "")
    assert look(gone, ours=BY_POOL) == (["pools.bulk: no <virtual-mta-pool bulk> in pmta.conf"], [])
    assert look(gone) == ([], [])
    single = ("<virtual-mta-pool bulk>\n  virtual-mta bk1\n</virtual-mta-pool>\n", "<virtual-mta bulk>\n</virtual-mta>\n")
    assert look(single, ours=BY_POOL) == ([], [])


def test_with_target_pool_members_are_powermtas_affair_but_must_exist(look: Look) -> None:
    found, noted = look(("<virtual-mta tx2>", "<virtual-mta Tx2>"), ours=BY_POOL)
    assert found == [
        f"pmta.conf:{line('  virtual-mta tx2')}: pool transactional: there is no <virtual-mta tx2>; Tx2 differs in case"
    ]
    assert noted == []


def test_a_name_for_a_virtual_mta_and_a_pool_is_a_problem(look: Look) -> None:
    found, _ = look(("<virtual-mta-pool bulk>", "<virtual-mta-pool bk1>"))
    where = f"pmta.conf:{line('<virtual-mta-pool bulk>')}"
    assert found == [
        f"{where}: bk1 is a pool here and a virtual MTA at pmta.conf:{line('<virtual-mta bk1>')}; the two share one name space"
    ]


@pytest.mark.parametrize("ours", [None, BY_POOL])
def test_a_member_that_sends_from_another_address_is_a_problem(look: Look, ours: Change | None) -> None:
    found, _ = look(("smtp-source-host 192.0.2.12", "smtp-source-host 192.0.2.99"), ours=ours)
    assert found == [
        f"pmta.conf:{line('<virtual-mta tx2>')}: virtual MTA tx2 sends from 192.0.2.99;"
        " pools.transactional.members.tx2.ip is 192.0.2.12"
    ]


def test_addresses_are_compared_as_addresses(look: Look) -> None:
    six = ("smtp-source-host 192.0.2.12 tx2.relay.example", 'SMTP-Source-Host "2001:DB8:0::12" tx2.relay.example')
    assert look(six, ours=("ip: 192.0.2.12", "ip: '2001:db8::12'")) == ([], [])
    mapped = ("smtp-source-host 192.0.2.12", "smtp-source-host ::ffff:192.0.2.12")
    assert look(mapped) == look(ours=("ip: 192.0.2.12", "ip: '::ffff:192.0.2.12'")) == ([], [])
    both = ("smtp-source-host 192.0.2.12", "smtp-source-host 2001:db8::12 tx2.relay.example\n  smtp-source-host 192.0.2.12")
    assert look(both) == ([], [])


def test_a_virtual_mta_without_address_is_noted(look: Look) -> None:
    assert look(("  smtp-source-host 192.0.2.12 tx2.relay.example\n", "")) == (
        [],
        [f"pmta.conf:{line('<virtual-mta tx2>')}: virtual MTA tx2 has no smtp-source-host: its address was not compared"],
    )


def test_an_address_in_a_nested_block_is_not_that_of_the_virtual_mta(look: Look) -> None:
    nested = (
        "smtp-source-host 192.0.2.12",
        "<domain *>\n    smtp-source-host 192.0.2.99\n  </domain>\n  smtp-source-host 192.0.2.12",
    )
    assert look(nested) == ([], [])


@pytest.mark.parametrize("ours", [None, BY_POOL])
def test_a_pool_with_other_members_is_noted(look: Look, ours: Change | None) -> None:
    where = f"pmta.conf:{line('<virtual-mta-pool transactional>')}"
    assert look(("  virtual-mta tx2\n", ""), ours=ours) == (
        [],
        [f"{where}: pool transactional has tx1 here, and tx1, tx2 in pools.transactional"],
    )


@pytest.mark.parametrize(
    "change",
    [
        ("process-x-virtual-mta yes", "process-x-virtual-mta no"),
        ("process-x-virtual-mta yes", "process-x-virtual-mta yes\n  process-x-virtual-mta no"),
        ("  process-x-virtual-mta yes\n", ""),
        ("  process-x-virtual-mta yes\n", "# process-x-virtual-mta yes\n"),
        ("  process-x-virtual-mta yes\n", "<domain *>\n  process-x-virtual-mta yes\n</domain>\n"),
        ("smtp-service yes", "smtp-service no"),
        ("<source 192.0.2.5>", "<source 0/0>"),
        ("<source 192.0.2.5>", "<other 192.0.2.5>\n</other>\n<source 0.0.0.0/0>"),
    ],
)
def test_a_source_must_process_the_tag(look: Look, change: Change) -> None:
    found, _ = look(change)
    ignored = (
        "no <source> but 0/0 has service and process-x-virtual-mta yes: X-Virtual-MTA would be ignored and left in the mail"
    )
    assert found == [f"pmta.conf: {ignored}"]


@pytest.mark.parametrize(
    "change",
    [
        ("process-x-virtual-mta yes", "Process-X-Virtual-MTA TRUE  # and a comment"),
        ("process-x-virtual-mta yes", 'process-x-virtual-mta "yes"#'),
        ("<source 192.0.2.5>", "<SOURCE {auth}>"),
        ("<source 0/0>", "<source 10.0.0.9>\n process-x-job yes\n</source>\n<source 0/0>"),
    ],
)
def test_the_same_said_otherwise_is_the_same(look: Look, change: Change) -> None:
    assert look(change) == ([], [])


@pytest.mark.parametrize("header", ["x-job", "x-envid"])
def test_with_powermta_behind_its_other_headers_must_be_processed_too(look: Look, header: str) -> None:
    change = (f"  process-{header} yes\n", "")
    found, _ = look(change)
    assert found == [
        f"pmta.conf:{line('<source 192.0.2.5>')}: source 192.0.2.5: expected process-{header} yes with route.powermta;"
        " else the headers are left in the mail"
    ]
    assert look(change, ours=WITHOUT) == ([], [NOTED])


def test_one_source_that_processes_everything_is_enough(look: Look) -> None:
    other = ("<source 0/0>", "<source 192.0.2.6>\n process-x-virtual-mta yes\n</source>\n<source 0/0>")
    assert look(other) == ([], [])


def test_the_route_header_must_be_powermtas(look: Look) -> None:
    found, _ = look(ours=("header: X-Virtual-MTA", "header: X-Pool"))
    assert found == ["route.header: expected X-Virtual-MTA, which is what PowerMTA reads; got X-Pool"]
    assert look(ours=("header: X-Virtual-MTA", "header: x-virtual-mta")) == ([], [])


@pytest.mark.parametrize("change", [("smtp-service no", "smtp-service yes"), ("  smtp-service no\n", "")])
def test_an_open_source_for_everybody_is_noted(look: Look, change: Change) -> None:
    where = f"pmta.conf:{line('<source 0/0>')}"
    said = "source 0/0: everybody gets service; expected smtp-service no"
    assert look(change) == ([], [f"{where}: {said}"])
    _, noted = look(change, ("<source 0/0>", "<source 0/0>\n  process-x-virtual-mta yes"))
    assert "may choose a virtual MTA" in noted[0]


def test_no_source_for_everybody_is_an_open_one(look: Look) -> None:
    _, noted = look(("<source 0/0>", "<source 10.0.0.0/8>"))
    assert noted == ["pmta.conf: no <source 0/0>: everybody gets service by default; expected one with smtp-service no"]


def test_a_header_that_is_kept_is_noted(look: Look) -> None:
    _, noted = look(("process-x-job yes", "process-x-job yes\n  retain-x-job yes"))
    assert noted == [
        f"pmta.conf:{line('<source 192.0.2.5>')}: source 192.0.2.5: retain-x-job leaves the header in the delivered mail"
    ]


def test_includes_count_as_if_they_stood_there(tmp_path: Path) -> None:
    pmta = parse(
        tmp_path,
        'include vmta.d/*.conf\r\nINCLUDE "pool.conf"  # relative\r\n<source 10.0.0.5>\r\n  include source\r\n</source>\r\n',
        {
            "vmta.d/a.conf": "\n<virtual-mta a>\n  include ../common\n</virtual-mta>",
            "vmta.d/b.conf": "<virtual-mta b>\n  include ../common\n</virtual-mta>",
            "common": "smtp-source-host 192.0.2.1 host.example",
            "pool.conf": f"<virtual-mta-pool p>\n  include {tmp_path}/members\n</virtual-mta-pool>\n",
            "members": "virtual-mta a\nvirtual-mta b",
            "source": "process-x-virtual-mta yes\n",
        },
    )
    assert (pmta.problems, pmta.remarks) == ([], [])
    assert {name: vmta.values("smtp-source-host") for name, vmta in pmta.vmtas.items()} == {
        "a": ["192.0.2.1"],
        "b": ["192.0.2.1"],
    }
    assert pmta.vmtas["a"].where == f"{tmp_path}/vmta.d/a.conf:2"
    assert pmta.pools["p"].directives["virtual-mta"] == [("a", f"{tmp_path}/members:1"), ("b", f"{tmp_path}/members:2")]
    assert pmta.sources["10.0.0.5"].says("process-x-virtual-mta", False)


def test_a_missing_include_is_a_problem_at_its_line_and_an_empty_pattern_a_remark(tmp_path: Path) -> None:
    pmta = parse(tmp_path, "\ninclude gone.conf\ninclude gone/*.conf\ninclude .\n")
    assert [str(problem) for problem in pmta.problems] == [
        f"{tmp_path}/config:2: cannot read {tmp_path}/gone.conf: no such file",
        f"{tmp_path}/config:4: cannot read {tmp_path}: not a regular file",
    ]
    assert [str(remark) for remark in pmta.remarks] == [f"{tmp_path}/config:3: no file matches gone/*.conf"]


def test_a_circle_of_includes_is_a_problem(tmp_path: Path) -> None:
    pmta = parse(
        tmp_path,
        "include a.conf\n",
        {"a.conf": "include b.conf\n<virtual-mta x>\n</virtual-mta>\n", "b.conf": "\ninclude ./a.conf\n"},
    )
    assert [str(problem) for problem in pmta.problems] == [f"{tmp_path}/b.conf:2: {tmp_path}/a.conf: includes itself"]
    assert list(pmta.vmtas) == ["x"]
    (tmp_path / "b.conf").unlink()
    (tmp_path / "b.conf").symlink_to("config")
    assert ["includes itself" in problem.what for problem in read(tmp_path / "config").problems] == [True]
    (tmp_path / "b.conf").unlink()
    (tmp_path / "b.conf").symlink_to("b.conf")
    assert len(read(tmp_path / "config").problems) == 1


def test_includes_that_multiply_end(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"f{number}").write_text(f"include f{number + 1}\n" * 3)
    assert any("too many includes" in problem.what for problem in parse(tmp_path, "include f0").problems)


def test_blocks_that_do_not_close_are_problems(tmp_path: Path) -> None:
    pmta = parse(tmp_path, "<virtual-mta a>\n<domain *>\n</virtual-mta>\n</source>\n<source 1.2.3.4\n<virtual-mta b>\n")
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in pmta.problems] == [
        f"config:2: <domain *> is not closed before </virtual-mta> at {tmp_path}/config:3",
        "config:4: </source> closes nothing",
        "config:5: expected > at the end of <source",
        "config:5: <source 1.2.3.4> is not closed",
        "config:6: <virtual-mta b> is not closed",
    ]


def test_comments_quotes_and_patterns_are_no_trouble(tmp_path: Path) -> None:
    text = (
        '# <virtual-mta no>\n<virtual-mta "two words"> # yes\n  host-name "a#b" # c\n  x a\\x23b\n</Virtual-MTA >\n'
        '<smtp-pattern-list l>\n  reply /say "5.7.1/ mode=backoff\n  reply /<b>\\x23/ bounce-queue\n</smtp-pattern-list>\n'
    )
    pmta = parse(tmp_path, text)
    assert pmta.problems == []
    assert list(pmta.vmtas) == ["two words"]
    assert pmta.vmtas["two words"].values("host-name", "x") == ["a#b", "a#b"]


@given(
    st.lists(
        st.sampled_from([*PMTA.split("\n"), "include config", "include *", "</", "<", '"', "<source", "\0", "include \0"])
        | st.text()
    )
)
def test_no_file_makes_it_fail(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="relaywarden-tests-") as folder:
        (Path(folder) / "config").write_text("\n".join(lines), encoding="utf-8", errors="replace")
        pmta = read(Path(folder) / "config")
        for item in (*problems(SETTINGS, pmta), *remarks(SETTINGS, pmta)):
            assert item.where


def call(config: Path, pmta: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relaywarden", "--config", str(config), "check", "--pmta", str(pmta), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that `check` alone finds nothing wrong with."""
    path = tmp_path / "relaywarden.yaml"
    path.write_text(f"store: sqlite:///{tmp_path}/ledger.db\n" + OURS[OURS.index("pools:") :])
    return path


def test_the_command_says_what_it_found(config: Path, tmp_path: Path) -> None:
    pmta = tmp_path / "pmta.conf"
    pmta.write_text(PMTA)
    good = call(config, pmta)
    assert (good.returncode, "Traceback" in good.stderr) == (0, False)
    pmta.write_text(PMTA.replace("192.0.2.11", "192.0.2.99").replace("smtp-service no", ""))
    bad = call(config, pmta)
    assert bad.returncode == 1
    where = f"{pmta}:{line('<virtual-mta tx1>')}"
    assert f"problem: {where}: virtual MTA tx1 sends from 192.0.2.99" in bad.stderr
    assert f"note: {pmta}:{line('<source 0/0>')}: source 0/0: everybody" in bad.stderr
    told: Any = json.loads(call(config, pmta, "--json").stdout)
    assert not told["ok"]
    assert [problem["where"] for problem in told["problems"]] == [where]
    assert any(remark["where"] == f"{pmta}:{line('<source 0/0>')}" for remark in told["remarks"])


def test_the_command_says_what_it_cannot_read(config: Path, tmp_path: Path) -> None:
    done = call(config, tmp_path / "none")
    assert done.returncode == 1
    assert f"{tmp_path}/none: cannot read" in done.stderr
    assert f"{config}: 1 problem\n" in done.stderr  # and nothing that follows from it
    assert "note: pmta" not in done.stderr
    assert f"note: {tmp_path}/none" not in done.stderr
    config.write_text("pools: 3")
    both = call(config, tmp_path / "none")
    assert both.returncode == 1
    assert "cannot read" in both.stderr
    assert "pools: expected a mapping" in both.stderr
