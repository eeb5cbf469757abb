"""`relaywarden suppress`, run as an operator runs it; and the file that is imported and exported."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.cli.suppression_file import check_address, read, write
from relaywarden.config.load import load
from relaywarden.errors import RelaywardenError, SpecError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Account, Charge, Decision, Ledger, Status
from relaywarden.ledger.records import DAY_MS, Listed, Suppress, Suppressed, Suppression
from testbed.redis import RedisServer

NOW_MS = 1_795_507_200_000  # 2026-11-24 08:00 UTC
KEEP = {"bounced": DAY_MS, "complained": 2 * DAY_MS, "manual": 3 * DAY_MS}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, f"sqlite:///{tmp_path}/ledger.db")


def write_config(folder: Path, store: str) -> Path:
    path = folder / "relaywarden.yaml"
    path.write_text(f"store: {store}\nplans: {{p: {{suppression: {{bounced: 7d}}}}}}\ntenants: {{acme: {{plan: p}}}}\n")
    return path


def call(config: Path, *arguments: str, status: int = 0, given: bytes = b"") -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "relaywarden", "--config", str(config), "suppress", *arguments],
        check=False,
        capture_output=True,
        input=given,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.decode(), done.stderr.decode()


@contextmanager
def ledger(config: Path) -> Iterator[Ledger]:
    opened = open_ledger(load(config))
    yield opened
    opened.close()


def listed(config: Path) -> tuple[Suppression, ...]:
    with ledger(config) as opened:
        (found,) = cast("list[Listed]", opened.apply([Suppressed("acme")]))
    return found.entries


def charge(config: Path, recipient: str) -> Status:
    with ledger(config) as opened:
        (found,) = cast("list[Decision]", opened.apply([Charge(Account.of("acme", []), f"t-{time.time_ns()}", recipient)]))
    return found.status


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_what_is_added_is_refused_until_it_is_removed(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if store == "redis":
        server = request.getfixturevalue("redis_server")
        assert isinstance(server, RedisServer)
        url = server.url
    config = write_config(tmp_path, url)
    said, _ = call(config, "add", "acme", "Gone@Example.NET", "b@x", "--for", "30d", "--reason", "asked\nfor it")
    assert "acme: Gone@example.net is suppressed until 20" in said
    first, second = sorted(listed(config))
    assert (first.address, second.address, first.kind) == ("Gone@example.net", "b@x", "manual")
    assert (first.until_ms - first.since_ms, first.reason) == (30 * DAY_MS, "asked for it")
    assert charge(config, "gone@example.net") is Status.SUPPRESSED
    document = json.loads(call(config, "list", "acme", "--json")[0])
    assert [entry["address"] for entry in document] == ["Gone@example.net", "b@x"]
    assert {"address", "kind", "since", "until", "reason"} == set(document[0])
    said, wrong = call(config, "remove", "acme", "GONE@example.net", "nobody@x", status=1)
    assert said == "acme: GONE@example.net is off the list\n"
    assert wrong == "relaywarden: nobody@x is not on the list of acme\n"
    assert charge(config, "gone@example.net") is Status.ADMITTED
    call(config, "remove", "acme", "b@x")
    assert call(config, "list", "acme")[0] == "nobody is suppressed\n"


def test_what_cannot_be_done(config: Path, tmp_path: Path) -> None:
    assert "no tenant or login 'shpo'" in call(config, "list", "shpo", status=1)[1]
    assert "expected an address" in call(config, "add", "acme", "no.address", status=2)[1]
    assert "cannot read" in call(config, "import", "acme", str(tmp_path / "absent"), status=2)[1]
    assert "cannot write" in call(config, "export", "acme", "--output", str(tmp_path / "no" / "file"), status=2)[1]
    wrong = call(config, "import", "acme", "-", status=2, given=b"address,colour\na@x,red\n")[1]
    assert "-: line 1: expected a header of address, kind, since, until, reason" in wrong
    assert listed(config) == ()


def test_control_characters_reach_no_terminal(config: Path) -> None:
    entry = Suppression("a\x1b[2Jb@x", "bounced", NOW_MS, NOW_MS + 3650 * DAY_MS, "550 \x9b2J \u202e[bold]gone")
    with ledger(config) as opened:
        opened.apply([Suppress("acme", {entry.address: entry})])
    said, _ = call(config, "list", "acme")
    assert said.rstrip("\n").isprintable()
    assert "\\x9b2J \\u202e[bold]gone" in said


def test_export_reads_back_to_the_same(config: Path, tmp_path: Path) -> None:
    entries = [
        Suppression("a@x", "bounced", NOW_MS + 1, NOW_MS + 3650 * DAY_MS + 7, '550 5.1.1 "no", such user'),
        Suppression('"quoted, local"@x.example', "complained", NOW_MS, NOW_MS + 3650 * DAY_MS, ""),
        Suppression("grün@bücher.example", "manual", NOW_MS, NOW_MS + 3650 * DAY_MS, "ärgerlich"),
    ]
    with ledger(config) as opened:
        opened.apply([Suppress("acme", {entry.address: entry for entry in entries})])
    exported, _ = call(config, "export", "acme")
    file = tmp_path / "list.csv"
    assert call(config, "export", "acme", "--output", str(file))[0] == f"{file}: 3 addresses\n"
    assert file.read_text(encoding="utf-8") == exported
    with ledger(config) as opened:
        opened.apply([Suppress("acme", {entry.address: None for entry in entries})])
    assert call(config, "import", "acme", str(file))[0] == "acme: 3 addresses imported\n"
    assert listed(config) == tuple(sorted(entries))


def test_bad_lines_are_all_told_and_nothing_is_imported(config: Path) -> None:
    given = b"a@x\nbad\n\n@y\nb@x\n" + b"c\xff@x\n" + b"d" * 9000 + b"\ne@x\n"
    said, wrong = call(config, "import", "acme", "-", given=given, status=2)
    assert said == ""
    lines = [line.split(":")[2] for line in wrong.splitlines()[:-1]]
    assert lines == ["2", "4", "6", "7"]
    assert "bad lines: 4; nothing was imported" in wrong
    assert listed(config) == ()
    told = json.loads(call(config, "import", "acme", "-", "--skip-bad", "--json", given=given)[0])
    assert (told["imported"], [bad["line"] for bad in told["bad"]]) == (3, [2, 4, 6, 7])
    assert [entry.address for entry in listed(config)] == ["a@x", "b@x", "e@x"]


def test_a_hundred_thousand_lines(config: Path) -> None:
    given = b"address,kind\n" + b"".join(b"user%d@example.net,bounced\n" % number for number in range(100_000))
    begun = time.monotonic()
    assert call(config, "import", "acme", "-", given=given)[0] == "acme: 100000 addresses imported\n"
    assert time.monotonic() - begun < 30  # 3 s on two cores
    entries = listed(config)
    assert len(entries) == 100_000
    assert abs(entries[0].until_ms - entries[0].since_ms - 7 * DAY_MS) < 1000


def test_a_csv_file_with_times_and_defaults() -> None:
    text = """\ufeffKind,Address,until,since,reason
bounced,a@X,,2026-11-01,"one, two"
,b@x,2026-12-24T09:00:00+01:00,,
complained,c@x,2026-11-24T07:59:59Z,,expired
bounced,A@x,,,again
"""
    found = read(io.BytesIO(text.encode()), KEEP, NOW_MS)
    assert (found.bad, found.expired) == ([], 1)
    first, second = found.entries.values()
    assert first == Suppression("A@x", "bounced", NOW_MS, NOW_MS + DAY_MS, "again")  # the last counts
    assert (second.kind, second.until_ms, second.since_ms) == ("manual", NOW_MS + 30 * DAY_MS, NOW_MS)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a@x,eaten,", "kind: expected one of bounced"),
        ("a@x,,soon", "until: expected a time"),
        ("a@x,,1066-10-14", "until: expected a time from 1970"),
        ("a@x,,9999-12-31T23:59:59-23:00", "until: expected a time from 1970"),
        ("a@x,,,,,", "expected at most 3 fields"),
        ('"a@x,,', "unexpected end"),
        ('"a"b@x,,', "expected after"),
        ("a@x\0,,", "NUL|expected an address"),
    ],
)
def test_a_bad_line_says_what_was_expected(line: str, why: str) -> None:
    found = read(io.BytesIO(f"address,kind,until\n{line}\n".encode()), KEEP, NOW_MS)
    ((number, told),) = found.bad
    assert number == 2
    assert any(part in told for part in why.split("|")), told


def test_a_header_that_is_not_understood() -> None:
    for text in (b"address,colour\na@x,red\n", b"address,kind,address\n"):
        with pytest.raises(RelaywardenError, match="line 1: expected a header of address, kind"):
            read(io.BytesIO(text), KEEP, NOW_MS)


def test_addresses() -> None:
    for good in ("a@x", '"a b@c"@x', "a+b=c@[192.0.2.1]", "a..b@x.example.", "l" * 64 + "@x"):
        assert check_address(good) == good
    assert check_address("A.B@EXAMPLE.Net") == "A.B@example.net"
    bad = ["", "a", "@x", "a@", "a b@x", "a@b@c", "a@x..y", "<a@x>", "a\n@x", "a@x\x1b", "a\udc80@x", "l" * 65 + "@x"]
    for text in [*bad, "a@" + "x" * 256, "l" * 60 + "@" + "x" * 200]:
        with pytest.raises(SpecError, match="expected a"):
            check_address(text)


@given(st.lists(st.tuples(st.sampled_from(["bounced", "complained", "manual"]), st.integers(1, 10**13), st.text(max_size=40))))
def test_property_any_list_reads_back(rows: list[tuple[str, int, str]]) -> None:
    entries = []
    for number, (kind, until, reason) in enumerate(rows):
        entry = Suppression(f"u{number}@x", kind, 1 + until // 2, NOW_MS + until, reason)
        entries.append(Suppression.unpack(entry.pack()))  # as the ledger has it
    text = "".join(write(entries)).encode("utf-8", "backslashreplace")
    found = read(io.BytesIO(text), KEEP, NOW_MS)
    assert (found.bad, list(found.entries.values())) == ([], entries)


@given(st.binary(max_size=400))
def test_property_any_file_is_read_or_told(data: bytes) -> None:
    try:
        found: Any = read(io.BytesIO(data), KEEP, NOW_MS)
    except RelaywardenError:
        return
    assert len(found.entries) + len(found.bad) + found.expired <= data.count(b"\n") + 1
