"""PowerMTA's accounting as a source: rows to events, files in all states, counts that are known."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import acctgen
from bench_accounting import counts
from relaywarden_monitor.events import Accepted, Attempt, Complaint, Described, Event, Outcome
from relaywarden_monitor.ingest.accounting import AccountingFiles, Parser, RowChunk
from relaywarden_monitor.ingest.records import LONGEST, cut_rows, is_header

NOW = 1_795_507_200.0
COLUMNS = [
    "type", "timeLogged", "orig", "rcpt", "dsnAction", "dsnStatus", "dsnDiag", "dsnMta", "bounceCat", "dlvSourceIp", "vmta",
    "jobId", "envId", "rcvSmtpUser", "rcvSourceIp", "header_Message-Id", "feedbackType", "header_Feedback-ID",
    "header_CFBL-Feedback-ID", "header_X-HmXmrOriginalRecipient", "reportingMTA",
]  # fmt: skip


def row(**fields: str) -> bytes:
    """One row of all COLUMNS, and its end."""
    given = {"timeLogged": "2026-11-24 08:00:00+0000", **{name.replace("__", "-"): value for name, value in fields.items()}}
    assert given.keys() <= set(COLUMNS)
    return line([given.get(name, "") for name in COLUMNS])


def line(values: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerow(values)
    return out.getvalue().encode()


HEADER = line(COLUMNS)


def events(data: bytes, parser: Parser | None = None) -> list[Event]:
    records, end = cut_rows(data)
    assert end == len(data)
    return (parser or Parser()).parse(records, b"")[0]


def one(**fields: str) -> Any:
    found = events(HEADER + row(**fields))
    return found[0] if found else None


def test_a_delivery() -> None:
    assert one(
        type="d", rcpt="user@dest.example", dsnStatus="2.0.0 (success)", dsnDiag="smtp;250 2.0.0 Ok, queued", vmta="tx1",
        dsnMta="mx.dest.example (198.51.100.7)", dlvSourceIp="192.0.2.11", jobId="acme", envId="4Xb1cD2dfGz1QRs",
    ) == Attempt(
        NOW, "4Xb1cD2dfGz1QRs", "user@dest.example", Outcome.DELIVERED, "tx1", "mx.dest.example", "198.51.100.7", "2.0.0",
        "250 2.0.0 Ok, queued", "acme", "192.0.2.11",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "action", "outcome", "remote"),
    [
        ("b", "failed", Outcome.BOUNCED, False),
        ("t", "delayed", Outcome.DEFERRED, False),
        ("rb", "failed", Outcome.BOUNCED, True),
        ("rs", "delayed", Outcome.DEFERRED, True),
    ],
)
def test_attempts_that_failed(kind: str, action: str, outcome: Outcome, remote: bool) -> None:
    found = one(type=kind, rcpt="u@d.example", dsnAction=action, dsnStatus="5.1.1 (x)", dsnDiag='smtp;550 "no", sorry\nreally')
    assert (found.outcome, found.remote, found.status, found.reply) == (outcome, remote, "5.1.1", '550 "no", sorry\nreally')
    assert not found.given_up


def test_a_queue_in_trouble_concerns_no_recipient() -> None:
    found = one(type="tq", vmta="tx1", dsnStatus="4.4.1 (no answer)", dsnDiag="")
    assert (found.recipient, found.member, found.outcome, found.status) == ("", "tx1", Outcome.DEFERRED, "4.4.1")


def test_a_status_report_that_says_nothing_bad_is_nothing() -> None:
    assert one(type="rs", rcpt="u@d.example", dsnAction="relayed") is None


def test_received() -> None:
    found = one(type="r", orig="a@acme.example", envId="4Xb1cD2dfGz1QRs", header_Message__Id="<1@acme.example>")
    assert found == Described(NOW, "4Xb1cD2dfGz1QRs", "<1@acme.example>", "a@acme.example")
    found = one(type="r", orig="a@acme.example", envId="E1", rcvSmtpUser="acme", rcvSourceIp="192.0.2.1")
    assert found == Accepted(NOW, "E1", "acme", "192.0.2.1")


@pytest.mark.parametrize(
    ("fields", "token", "recipient", "provider"),
    [
        (
            {"rcpt": "u@d.example", "header_CFBL__Feedback__ID": "tok", "header_Feedback__ID": "other:x:y:z"},
            "tok",
            "u@d.example",
            "",
        ),
        ({"rcpt": "u@d.example", "header_Feedback__ID": "tok:label:tx:relay"}, "tok", "u@d.example", ""),
        (
            {"header_X__HmXmrOriginalRecipient": "<u@d.example>", "reportingMTA": "dns; x.yahoodns.net"},
            "",
            "u@d.example",
            "yahoo",
        ),
    ],
)
def test_complaints(fields: dict[str, str], token: str, recipient: str, provider: str) -> None:
    found = one(type="f", feedbackType="abuse", jobId="forged", envId="forged", **fields)
    assert found == Complaint(NOW, recipient, "abuse", token, provider=provider)


@pytest.mark.parametrize(
    ("status", "category", "code"),
    [("", "bad-mailbox", "5.1.1"), ("5.0.0 (undefined)", "quota-issues", "5.2.2"), ("5.4.4 (x)", "bad-mailbox", "5.4.4"),
     ("", "of-our-own", ""), ("x", "spam-related", "5.7.1"), ("5.1.1.1", "", "")],
)  # fmt: skip
def test_without_a_reply_the_category_may_tell(status: str, category: str, code: str) -> None:
    assert one(type="b", rcpt="u@d.example", dsnStatus=status, bounceCat=category).status == code


def test_expired_is_given_up() -> None:
    assert one(type="b", rcpt="u@d.example", dsnStatus="4.4.7 (delivery time expired)").given_up


@pytest.mark.parametrize(
    ("text", "at"),
    [("2026-11-24 08:00:00+0000", NOW), ("2026-11-24 10:00:00+0200", NOW), ("2026-11-24T08:00:00Z", NOW), ("1795507200", NOW),
     ("2026-11-24 04:30:00.5-03:30", NOW + 0.5), ("2026-11-24 08:00:00", NOW)],
)  # fmt: skip
def test_times(text: str, at: float) -> None:
    assert one(type="d", timeLogged=text).at == at


def test_columns_go_by_name_and_may_change_in_the_middle() -> None:
    other = b"rcpt,type,vmta,timeLogged\r\n"
    data = HEADER + row(type="d", rcpt="a@d.example") + other + b"b@d.example,d,tx2,1795507200\r\n" + HEADER + row(type="d")
    assert [(found.recipient, found.member) for found in events(data) if isinstance(found, Attempt)] == [
        ("a@d.example", ""), ("b@d.example", "tx2"), ("", ""),
    ]  # fmt: skip


def test_garbage_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    parser = Parser()
    data = b"no,header,yet\n" + HEADER + b"d,1\n" + b"\xff\xfe\x00\n" + b"\n"
    data += row(type="d", timeLogged="yesterday") + row(type="d", timeLogged="9999-99-99 99:99:99")
    data += row(type="d", timeLogged="type", rcpt="timeLogged") + row(type="zz") * 2 + row(type="d", rcpt="good@d.example")
    assert [found.recipient for found in events(data, parser) if isinstance(found, Attempt)] == ["good@d.example"]
    assert (parser.garbage, parser.unknown) == (6, 2)
    assert caplog.text.count("row not understood") == 1 and caplog.text.count("not known") == 1


def test_a_quote_that_nothing_closes_costs_little() -> None:
    good = row(type="d", rcpt="good@d.example")
    rows = 2 * LONGEST // len(good)
    parser = Parser()
    assert len(events(HEADER + b'd,"oops\r\n' + good * rows, parser)) == rows and parser.garbage == 1


def test_a_digest_is_that_of_the_row_not_of_its_header() -> None:
    fields = {"type": "b", "rcpt": "u@d.example", "dsnStatus": "5.1.1 (x)", "dsnDiag": "smtp;550 no", "vmta": "tx1"}
    shuffled = ["vmta", "userString", "rcpt", "dsnDiag", "timeLogged", "type", "dsnStatus"]
    values = {**fields, "timeLogged": "2026-11-24 08:00:00+0000", "userString": "node1"}
    data = HEADER + row(**fields) + line(shuffled) + line([values[name] for name in shuffled]) + HEADER + row(type="b")
    found, digests = Parser().parse(cut_rows(data)[0], b"")
    assert len(found) == 3 and digests[0] == digests[1] != digests[2] and {len(digest) for digest in digests} == {8}


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8), min_size=1, max_size=40)
)
def test_no_row_looks_like_a_header_or_makes_it_fall(fields: list[str]) -> None:
    data = line(fields)
    if not {"type", "timeLogged"} <= set(fields):
        assert not is_header(data.rstrip(b"\r\n"))
    records, _ = cut_rows(HEADER + data)
    Parser().parse(records, b"")


@given(st.binary(max_size=300), st.integers(0, 300))
def test_bytes_are_cut_in_the_same_places_however_many_are_there(data: bytes, first: int) -> None:
    records, end = cut_rows(data)
    part, begun = cut_rows(data[:first])
    rest, ended = cut_rows(data[begun:])
    assert part + rest == records and begun + ended == end


class Folder:
    """A folder of accounting files and a source that reads it, over restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: dict[str, Any] | None = None
        self.found: Counter[tuple[str, str]] = Counter()
        self.digests: list[bytes] = []
        self.restart()

    def restart(self) -> None:
        self.source = AccountingFiles("pmta", [f"{self.path}/acct*.csv*"])
        self.source.open(json.loads(json.dumps(self.position)))

    def read(self, most: int) -> RowChunk | None:
        if chunk := self.source.read(most):
            assert len(chunk.events) == len(chunk.digests)
            self.position = chunk.position
            self.found += counts(chunk.events)
            self.digests += chunk.digests
        return chunk


@given(st.lists(st.sampled_from(["write", "write", "read", "restart", "move", "pack", "half", "again"]), max_size=40))
def test_files_in_all_states_give_the_true_counts(steps: list[str]) -> None:
    made = list(acctgen.rows(400, 7))
    header, rows = made[0].split(b"\n", 1)[0] + b"\n", made[0].split(b"\n", 1)[1:] + made[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        live, moved, written = folder.path / "acct.csv", 0, 0
        for step in [*steps, "restart"]:
            if step in {"write", "half"}:
                with live.open("ab") as file:
                    file.write((b"" if file.tell() else header) + b"".join(rows[written : written + 9]))
                    written += 9
                    if step == "half":
                        file.write(rows[written][:40])
                        file.flush()
                        folder.read(100)
                        file.write(rows[written][40:])
                        written += 1
            elif step == "read":
                folder.read(7)
            elif step == "restart":
                folder.restart()
            elif step == "again" and (chunk := folder.source.read(5)):
                folder.restart()
                assert folder.source.read(1, chunk.position) == chunk
                folder.position, folder.found = chunk.position, folder.found + counts(chunk.events)
                folder.digests += chunk.digests
            elif step == "move" and live.exists():
                live.rename(folder.path / f"acct-2026-11-24-{moved:04d}.csv")
                moved += 1
            elif step == "pack":
                for path in folder.path.glob("acct-*.csv"):
                    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
                    path.unlink()
        while folder.read(50):
            pass
        assert folder.found == acctgen.truth(written, 7)
        assert len(folder.digests) == written and folder.source.lag() == 0


def test_a_header_alone_says_nothing_yet(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("acct-1.csv", "acct-2.csv"):
        (tmp_path / name).write_bytes(HEADER)
    assert folder.read(1) is None
    for name in ("acct-1.csv", "acct-2.csv"):
        with (tmp_path / name).open("ab") as file:
            file.write(row(type="d", rcpt="u@d.example", jobId=name))
    while folder.read(1):
        pass
    assert folder.found == {("acct-1.csv", "delivered"): 1, ("acct-2.csv", "delivered"): 1}
