"""`relaywarden replay` on real files: what it counts, what would have been done, and that nothing else is touched."""

from __future__ import annotations

import bz2
import calendar
import gzip
import json
import lzma
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import acctgen
import loggen
from relaywarden.config.load import load
from relaywarden.errors import RelaywardenError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.records import HOUR_MS, Tally
from relaywarden_monitor.replay.command import replay

MESSAGES = 1500
DAY = 86_400
BEGIN = loggen.START
CONFIG = """
store: sqlite:///{folder}/ledger.db
monitor: {{postfix_log: /var/log/mail.log}}
pools: {{t: {{members: {{tx1: {{ip: 192.0.2.1}}}}}}, quarantine: {{members: {{q1: {{ip: 192.0.2.9}}}}}}}}
plans:
  wide: {{}}
  seen: {{mode: observe, limits: [{{recipients: 100/hour}}]}}
  tight: {{limits: [{{recipients: 100/hour}}, {{recipients: 2_000/day}}, {{messages: 5/s burst 20}}]}}
unknown_login: {{plan: {plan}}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """The command, with a configuration in which every login is a tenant of its own."""

    def call(*arguments: str | Path, plan: str = "wide", status: int = 0) -> Result:
        config = tmp_path / "relaywarden.yaml"
        config.write_text(CONFIG.format(folder=tmp_path, plan=plan))
        result = CliRunner().invoke(replay, [str(one) for one in arguments], obj=config)
        if status == 0 and result.exception is not None:
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    return call


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def by_name(found: Any) -> dict[str, Any]:
    return {one["tenant"]: one for one in found["tenants"]}


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return list(loggen.lines(MESSAGES, 1))


def test_a_log_counts_to_its_truth(run: Callable[..., Result], tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"".join(lines))
    found = document(run("--log", path, "--json", "--all"))
    truth = {name: one for name, one in loggen.truth(MESSAGES, 1).items() if name}
    counted = {name: (one["messages"], one["recipients"]) for name, one in by_name(found).items()}
    assert counted == {name: (one.messages, one.delivered + one.bounced) for name, one in truth.items()}
    assert (found["messages"], found["records"]) == (MESSAGES, {"lines": len(lines)})
    assert sum(found["volume"]["recipients"]) == found["recipients"]


def test_rotated_and_compressed_files_in_any_order_are_one_log(
    run: Callable[..., Result], tmp_path: Path, lines: list[bytes]
) -> None:
    whole = tmp_path / "whole.log"
    whole.write_bytes(b"".join(lines))
    cuts = [0, 2500, 5500, 8501, len(lines)]
    names = ("mail.log.3.xz", "mail.log.2.bz2", "mail.log.1.gz", "mail.log")
    packers: tuple[Callable[[bytes], bytes], ...] = (lzma.compress, bz2.compress, gzip.compress, bytes)
    for name, pack, begin, end in zip(names, packers, cuts, cuts[1:], strict=False):
        (tmp_path / name).write_bytes(pack(b"".join(lines[begin:end])))
    mixed = list(chain.from_iterable(("--log", tmp_path / name) for name in (names[2], names[0], names[3], names[1])))
    expected = document(run("--log", whole, "--json", "--all", plan="tight"))
    assert document(run(*mixed, "--json", "--all", plan="tight")) == expected
    # What two patterns name is read once.
    assert document(run("--log", f"{tmp_path}/mail.log*", *mixed, "--json", "--all", plan="tight")) == expected


def test_logs_of_two_hosts_are_merged_by_time(run: Callable[..., Result], tmp_path: Path, lines: list[bytes]) -> None:
    """Every message is told by one host; the limits see them in the order of time all the same."""
    hosts: list[list[bytes]] = [[], []]
    for line in lines:
        hosts[b"A=tenant00" in line or b"4jYldL0000" not in line].append(line)
    for number, part in enumerate(hosts):
        (tmp_path / f"{number}.log").write_bytes(b"".join(part))
    (tmp_path / "whole").write_bytes(b"".join(lines))
    both = document(run("--log", tmp_path / "1.log", "--log", tmp_path / "0.log", "--json", "--all", plan="tight"))
    assert both == document(run("--log", tmp_path / "whole", "--json", "--all", plan="tight"))


def test_accounting_counts_final_rows(run: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "acct.csv.gz"
    path.write_bytes(gzip.compress(b"".join(acctgen.rows(4000, 3))))
    found = document(run("--accounting", path, "--json", "--all"))
    truth: Counter[str] = Counter()
    # A bounce by mail (rb) is of a recipient that was counted, or of a message that nobody knows.
    for _, kind, tenant, _ in acctgen._plan(4000, 3):
        truth[tenant] += kind in ("d", "b")
    assert {name: one["recipients"] for name, one in by_name(found).items()} == dict(truth)
    assert found["records"] == {"rows": 4001}
    assert any("Accounting alone" in note for note in found["notes"])


def test_only_the_asked_tenant_and_time(run: Callable[..., Result], tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"".join(lines))
    found = document(run("--log", path, "--json", "--all", "--tenant", "tenant03", "--since", "2026-11-24T08:00:04"))
    (one,) = found["tenants"]
    plans = [plan for plan in loggen._plans(MESSAGES, 1) if plan.tenant == "tenant03" and plan.at >= BEGIN + 4]
    assert (one["tenant"], one["messages"]) == ("tenant03", len(plans))
    assert found["recipients"] == sum(len(plan.fates) for plan in plans)


class Writer:
    """Writes the log of one login, message by message."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self._number = 0

    def send(
        self, at: float, recipient: str, *, login: str = "acme", client: str = "203.0.113.7", bounced: bool = False
    ) -> None:
        self._number += 1
        name, status, said = f"4B{self._number:08X}", "sent", "250 2.0.0 Ok"
        if bounced:
            status, said = (
                "bounced",
                "host mx.x.example[198.51.100.1] said: 550 5.1.1 no such user (in reply to RCPT TO command)",
            )
        fields = "relay=mx.x.example[198.51.100.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0"
        self.lines += [
            (at, f"smtpd[1]: {name}: client=c[{client}], sasl_method=PLAIN, sasl_username={login}"),
            (at + 0.1, f"qmgr[2]: {name}: from=<a@acme.example>, size=900, nrcpt=1 (queue active)"),
            (at + 0.4, f"smtp[3]: {name}: to=<{recipient}>, {fields}, status={status} ({said})"),
            (at + 0.5, f"qmgr[2]: {name}: removed"),
        ]

    def write(self, path: Path) -> Path:
        texts = [
            f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1e6):06}+00:00 relay postfix/{text}\n"
            for at, text in sorted(self.lines)
        ]
        path.write_text("".join(texts))
        return path


def quiet(days: int) -> Writer:
    """A small tenant: a message every ten minutes, to the same twenty people."""
    written = Writer()
    for number in range(days * 144):
        written.send(BEGIN + 600 * number, f"friend{number % 20}@x.example")
    return written


def test_a_stolen_password_steps_in_time(run: Callable[..., Result], tmp_path: Path) -> None:
    written, stolen = quiet(16), BEGIN + 16 * DAY + 3 * 3600
    for number in range(600):
        written.send(stolen + number / 4, f"victim{number}@far{number % 90}.example", client="192.0.2.66")
    path = written.write(tmp_path / "mail.log")
    (one,) = document(run("--log", path, "--json"))["tenants"]
    firm = [step for step in one["steps"] if step["after"] in ("slowed", "diverted", "held", "suspended")]
    assert firm, one["steps"]
    assert firm[0] in one["steps"][:2]  # before that there was at most the warning
    stepped = calendar.timegm(time.strptime(firm[0]["at"], "%Y-%m-%dT%H:%M:%SZ"))
    assert 0 <= stepped - stolen <= 90
    assert one["recipients_while"]
    assert {told["severity"] for told in one["notices"] if told["key"] == "tenant:acme:standing"} >= {"act"}
    assert f"{firm[0]['before']} -> {firm[0]['after']}" in run("--log", path).stdout
    (seen,) = document(run("--log", path, "--json", plan="seen"))["tenants"]
    assert [step["done"] for step in seen["steps"] if step["after"] == firm[0]["after"]] == [False]
    assert (seen["limits"][0]["action"], seen["limits"][0]["refused"]) == ("observe", 500)
    assert not any(told["key"].endswith(":standing") for told in seen["notices"])


def test_bounces_divert_and_recover(run: Callable[..., Result], tmp_path: Path) -> None:
    written = quiet(5)
    for number in range(300):
        written.send(BEGIN + 2 * DAY + number * 20, f"r{number}@x.example", bounced=number % 4 == 0)
    found = document(run("--log", written.write(tmp_path / "mail.log"), "--json"))
    (one,) = found["tenants"]
    (first, *_) = [step for step in one["steps"] if step["by"] == "health"]
    assert (first["after"], first["done"], first["at"][:10]) == ("diverted", True, "2026-11-26")
    told = [(notice["key"], notice["kind"]) for notice in one["notices"]]
    for key in ("tenant:acme:bounces", "tenant:acme:invalid", "tenant:acme:standing"):
        assert told.count((key, "crossed")) >= 1
        assert told.count((key, "recovered")) >= 1


def test_what_clients_wrote_does_nothing_to_a_terminal(run: Callable[..., Result], tmp_path: Path) -> None:
    written = Writer()
    for number in range(200):
        written.send(BEGIN + number, f"r{number}@x.example", login="\x1b[31m[red]evil\x07")
    shown = run("--log", written.write(tmp_path / "mail.log"), plan="tight").stdout
    assert "evil" in shown
    assert not set(shown) & {"\x1b", "\x07"}


def test_it_says_what_a_log_does_not_know(run: Callable[..., Result], tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"".join(lines[:2000]))
    shown = run("--log", path, plan="tight").stdout
    assert "A log knows no content" in shown
    assert "nothing to say of" in shown


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_of_one_tenant(run: Callable[..., Result], tmp_path: Path, ending: str) -> None:
    path = quiet(1).write(tmp_path / "mail.log")
    run("--log", path, "--tenant", "acme", "--plot", tmp_path / f"p.{ending}")
    data = (tmp_path / f"p.{ending}").read_bytes()
    assert data.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


def test_exit_codes(run: Callable[..., Result], tmp_path: Path) -> None:
    empty = tmp_path / "empty.log"
    empty.write_bytes(b"")
    assert "nothing to replay" in run("--log", empty, status=1).output
    assert "expected --log" in run(status=2).output
    assert "expected --log" in run("--log", empty, "--ledger", status=2).output
    assert "expected a date" in run("--log", empty, "--since", "yesterday", status=2).output
    for arguments in (("--log", tmp_path / "none.log"), ("--log", empty, "--plot", tmp_path / "p.gif")):
        with pytest.raises(RelaywardenError, match=r"none\.log: cannot be read|expected a file name"):
            run(*arguments)


@pytest.fixture
def filled(run: Callable[..., Result], tmp_path: Path) -> Iterator[Path]:
    """A ledger with thirty days of acme's hours, the last day much larger and dirty, as programs left it."""
    with pytest.raises(RelaywardenError):
        run("--log", "none")  # writes the configuration
    ledger = open_ledger(load(tmp_path / "relaywarden.yaml"))
    now = int(time.time() * 1000) // HOUR_MS
    for hour in range(now - 30 * 24, now):
        last_day = hour >= now - 24
        sent, invalid = (400, 100) if last_day else (50, 1)
        counts, details = {"delivered": sent - invalid, "bounced": invalid}, {"sent": sent, "sent_to": sent, "invalid": invalid}
        ledger.apply([Tally("acme", counts, details, at_ms=hour * HOUR_MS)])
        if hour % 2:
            ledger.apply([Tally("beta", {"delivered": 3}, {"sent": 2, "sent_to": 3}, at_ms=hour * HOUR_MS)])
    ledger.apply([Tally("!member:tx1/google", {"delivered": 9}, at_ms=now * HOUR_MS)])
    ledger.close()
    yield tmp_path / "ledger.db"


def test_the_ledgers_own_record(run: Callable[..., Result], filled: Path) -> None:
    before = filled.read_bytes()
    found = document(run("--ledger", "--json", "--all", plan="tight"))
    assert filled.read_bytes() == before
    tenants = by_name(found)
    assert {name: one["recipients"] for name, one in tenants.items()} == {"acme": 696 * 50 + 24 * 400, "beta": 360 * 3}
    assert (tenants["beta"]["messages"], tenants["beta"]["refused"], found["records"]) == (720, 0, {"hours": 1080})
    limits = {one["limit"]: one for one in tenants["acme"]["limits"]}
    # Of 50 an hour neither limit refuses one; of 400 the hour's lets 100 pass, until the day's 2,000 are used up.
    assert (limits["recipients: 100/1h"]["refused"], limits["recipients: 100/1h"]["peak_percent"]) == (24 * 300, 100)
    assert limits["recipients: 2000/1d"]["refused"] > 0
    assert "messages: 5/1s burst 20" in found["notes"][1]
    steps = tenants["acme"]["steps"]
    assert any((step["by"], step["after"]) == ("health", "diverted") for step in steps)
    assert any(told["key"] == "tenant:acme:bounces" for told in tenants["acme"]["notices"])


def test_the_record_of_a_span(run: Callable[..., Result], filled: Path) -> None:
    now = int(time.time()) // 3600 * 3600
    since, until = (time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now - hours * 3600)) for hours in (240, 120))
    (one,) = document(run("--ledger", "--json", "--all", "--tenant", "acme", "--since", since, "--until", until))["tenants"]
    assert (one["tenant"], one["recipients"]) == ("acme", 120 * 50)


def test_a_missing_ledger_is_an_error(run: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(RelaywardenError, match=r"ledger\.db"):
        run("--ledger")
    assert not (tmp_path / "ledger.db").exists()


def test_a_wrong_clock_stops_nothing(run: Callable[..., Result], tmp_path: Path) -> None:
    """A message from the far future and one of 1970 lie between honest ones; what comes after is still judged."""
    written = quiet(1)
    text = written.write(tmp_path / "whole").read_text().splitlines(keepends=True)
    odd = Writer()
    odd.send(BEGIN + 70 * 365 * DAY, "r@x.example", login="odd")
    odd.send(5.0, "r@x.example", login="odd")
    for number in range(300):
        odd.send(BEGIN + DAY + number, f"r{number}@x.example", bounced=number % 2 == 0)
    strange, bad = odd.write(tmp_path / "odd").read_text().splitlines(keepends=True), tmp_path / "bad.log"
    bad.write_text("".join([*text[:200], *strange[-4:], *text[200:400], *strange[:4], *text[400:], *strange[4:-4]]))
    found = by_name(document(run("--log", bad, "--json", "--all")))
    assert {name: one["messages"] for name, one in found.items()} == {"acme": 144 + 300, "odd": 2}
    assert any(step["by"] == "health" for step in found["acme"]["steps"])
