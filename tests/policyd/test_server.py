"""policyd as an operator runs it: real worker processes, real sockets, SQLite and a real Redis."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.factories import SidecarFactory, WorkFolder
from testbed.policypeer import DUNNO, Peer, request
from testbed.ports import HOST, free_port
from testbed.process import wait_for
from testbed.redis import RedisServer
from testbed.sidecar import Sidecar


def config(store: str, work: Path, **plan: Any) -> dict[str, Any]:
    plan.setdefault("limits", [{"recipients": "3/hour"}, {"recipients": "1000/day"}, {"messages": "1000/day"}])
    return {
        "store": store,
        "policyd": {"listen": [f"inet:{HOST}:{free_port()}", f"unix:{work}/policy"], "workers": 2},
        "plans": {"small": plan, "large": {"limits": [{"recipients": "1_000_000/hour"}]}},
        "tenants": {"acme": {"plan": "small"}, "big": {"plan": "large"}},
    }


@pytest.fixture(params=["sqlite", "redis"])
def policyd(
    request: pytest.FixtureRequest, work_folder: WorkFolder, redis_server: RedisServer, sidecar_factory: SidecarFactory
) -> Iterator[Sidecar]:
    work = work_folder("policyd")
    store = redis_server.url if request.param == "redis" else f"sqlite:///{work}/ledger.db"
    with Sidecar(work, config(store, work), "policyd") as sidecar:
        wait_for("both workers are ready", lambda: "worker ready" in sidecar.log.read_text(), log=sidecar.log)
        yield sidecar
    assert "Traceback" not in sidecar.log.read_text()


@pytest.fixture
def sqlite_policyd(work_folder: WorkFolder) -> Iterator[Sidecar]:
    work = work_folder("policyd")
    with Sidecar(work, config(f"sqlite:///{work}/ledger.db", work), "policyd") as sidecar:
        yield sidecar
    assert "Traceback" not in sidecar.log.read_text()


def tcp(sidecar: Sidecar) -> tuple[str, int]:
    return HOST, int(sidecar.config["policyd"]["listen"][0].rpartition(":")[2])


def unix(sidecar: Sidecar) -> str:
    return str(sidecar.config["policyd"]["listen"][1]).removeprefix("unix:")


def workers(sidecar: Sidecar) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()]


@contextmanager
def peer(address: str | tuple[str, int]) -> Iterator[Peer]:
    with closing(Peer(address)) as found:
        yield found


def test_limits_hold_over_workers_and_sockets(policyd: Sidecar) -> None:
    with peer(tcp(policyd)) as first, peer(unix(policyd)) as second:
        replies = [p.ask(request(recipient=f"u{i}@x.example")) for i, p in enumerate([first, second, first, second])]
        assert replies[:3] == [DUNNO] * 3
        text = b"Sending limit of 3 recipients in 1h reached, 3 used; try again in "
        assert replies[3].startswith(b"action=DEFER_IF_PERMIT 4.7.1 " + text)
        assert first.ask(request("big")) == DUNNO
        assert first.ask(request("stranger")).startswith(b"action=REJECT 5.7.1 ")
        assert first.ask(request("")) == DUNNO


def test_exactly_the_limit_is_admitted_under_concurrency(policyd: Sidecar) -> None:
    policyd.config["plans"]["small"]["limits"] = [{"recipients": "150/hour"}]
    policyd.write()
    os.kill(policyd.pid, signal.SIGHUP)
    wait_for("both reloaded", lambda: policyd.log.read_text().count("was read again") == 2, log=policyd.log)
    with ExitStack() as stack:
        peers = [stack.enter_context(peer(tcp(policyd))) for _ in range(10)]
        replies = []
        for _ in range(20):
            for smtpd in peers:
                smtpd.sock.sendall(request() * 2)  # the second is a resent one
            replies += [(smtpd.reply(), smtpd.reply()) for smtpd in peers]
    assert all(first == second for first, second in replies)
    assert sum(first == DUNNO for first, _ in replies) == 150


def test_a_resent_request_is_charged_once(policyd: Sidecar) -> None:
    same = request(instance="7b.1")
    for address in (tcp(policyd), unix(policyd), tcp(policyd), unix(policyd), tcp(policyd)):
        with peer(address) as smtpd:
            assert smtpd.ask(same) == DUNNO


def test_pipelined_requests_are_answered_in_order(policyd: Sidecar) -> None:
    with peer(tcp(policyd)) as smtpd:
        for batch in (50, 1000):
            sent = [request("big" if i % 3 else "stranger", f"u{i}@x.example") for i in range(batch)]
            smtpd.sock.sendall(b"".join(sent))
            got = [smtpd.reply() for _ in sent]
            assert [reply.startswith(b"action=REJECT") for reply in got] == [i % 3 == 0 for i in range(batch)]


def test_one_byte_at_a_time(policyd: Sidecar) -> None:
    with peer(tcp(policyd)) as smtpd:
        smtpd.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert smtpd.ask(request(), pieces=1) == DUNNO
        assert smtpd.ask(request() + request(), pieces=3) == DUNNO
        assert smtpd.reply() == DUNNO


@pytest.mark.parametrize(
    "garbage",
    [b"\n\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\n\n", b"\x16\x03\x01" + bytes(range(256)) + b"\n\n", b"request=junk\n\n",
     b"x=" + b"y" * 70_000, request(sender="a\0b"), request(size="many")],
)  # fmt: skip
def test_garbage_closes_without_a_reply(sqlite_policyd: Sidecar, garbage: bytes) -> None:
    with peer(tcp(sqlite_policyd)) as bad, peer(tcp(sqlite_policyd)) as good:
        assert good.ask(request("big")) == DUNNO
        assert bad.ask(request("big") + garbage) == DUNNO  # what came whole before it is still answered
        assert bad.reply() == b""
        assert good.ask(request("big")) == DUNNO
    assert sqlite_policyd.log.read_text().count("not a policy request") == 1


def test_a_large_request_passes_and_a_larger_one_does_not(sqlite_policyd: Sidecar) -> None:
    padding = {f"x{i}": "y" * 9000 for i in range(7)}
    with peer(tcp(sqlite_policyd)) as smtpd:
        assert smtpd.ask(request("big", **padding)) == DUNNO
        assert smtpd.ask(request("big", more="y" * 9000, **padding)) == b""


def test_half_a_request_and_a_closed_peer_leave_nothing_behind(sqlite_policyd: Sidecar) -> None:
    for _ in range(50):
        with peer(tcp(sqlite_policyd)) as smtpd:
            smtpd.sock.sendall(request()[:-1])
        with peer(tcp(sqlite_policyd)) as smtpd:
            smtpd.sock.sendall(request("big") * 10)  # and gone, without reading a reply
    pids = workers(sqlite_policyd)
    wait_for("only the listening sockets are left", lambda: all(_inet_sockets(pid) <= 1 for pid in pids))
    with peer(tcp(sqlite_policyd)) as smtpd:
        assert smtpd.ask(request("big")) == DUNNO
    assert workers(sqlite_policyd) == pids


def _inet_sockets(pid: int) -> int:
    """Sockets of the worker that /proc/net/tcp knows."""
    known = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    return sum(link.removeprefix("socket:[").rstrip("]") in known for link in _links(Path(f"/proc/{pid}/fd")))


def _links(folder: Path) -> Iterator[str]:
    for item in folder.iterdir():
        try:
            yield str(item.readlink())
        except FileNotFoundError:
            pass  # closed between the two looks


def test_a_peer_that_shuts_its_sending_side_gets_its_replies(sqlite_policyd: Sidecar) -> None:
    with peer(unix(sqlite_policyd)) as smtpd:
        smtpd.sock.sendall(request("big") * 3)
        smtpd.sock.shutdown(socket.SHUT_WR)
        assert [smtpd.reply() for _ in range(4)] == [DUNNO] * 3 + [b""]


def test_a_peer_that_reads_nothing_harms_nobody(sqlite_policyd: Sidecar) -> None:
    with peer(tcp(sqlite_policyd)) as deaf, peer(tcp(sqlite_policyd)) as good:
        deaf.sock.setblocking(False)
        sent = 0
        try:
            while sent < 200 * 2**20:
                sent += deaf.sock.send(request("stranger") * 1000)
        except BlockingIOError:
            pass  # it takes no more from us: that is the point
        assert sent < 200 * 2**20
        assert good.ask(request("big")) == DUNNO


def test_both_workers_share_the_connections(sqlite_policyd: Sidecar) -> None:
    wait_for("both workers are ready", lambda: sqlite_policyd.log.read_text().count("worker ready") == 2)
    with ExitStack() as stack:
        peers = [stack.enter_context(peer(tcp(sqlite_policyd))) for _ in range(20)]
        assert [smtpd.ask(request("big")) for smtpd in peers] == [DUNNO] * 20
        shares = [_inet_sockets(pid) - 1 for pid in workers(sqlite_policyd)]
        assert sum(shares) == 20
        assert min(shares) >= 5


def test_a_killed_worker_is_replaced_and_its_peers_are_served_again(policyd: Sidecar) -> None:
    same = request(instance="7b.2")
    with peer(tcp(policyd)) as smtpd:
        assert smtpd.ask(same) == DUNNO
        before = workers(policyd)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert smtpd.reply() == b""
    with peer(tcp(policyd)) as smtpd:
        assert smtpd.ask(same) == DUNNO  # resent, as Postfix does; charged once
        assert [smtpd.ask(request()) for _ in range(2)] == [DUNNO] * 2
        assert smtpd.ask(request()).startswith(b"action=DEFER_IF_PERMIT")
    wait_for("two new workers", lambda: len(workers(policyd)) == 2 and not set(workers(policyd)) & set(before))


def test_reload(sqlite_policyd: Sidecar) -> None:
    with peer(tcp(sqlite_policyd)) as smtpd:
        assert smtpd.ask(request("late")).startswith(b"action=REJECT")
        sqlite_policyd.config["tenants"]["late"] = {"plan": "large"}
        sqlite_policyd.write()
        os.kill(sqlite_policyd.pid, signal.SIGHUP)
        wait_for("the new tenant is known", lambda: smtpd.ask(request("late")) == DUNNO, log=sqlite_policyd.log)


def test_a_reload_with_errors_keeps_what_is_in_force(sqlite_policyd: Sidecar) -> None:
    with peer(tcp(sqlite_policyd)) as smtpd:
        sqlite_policyd.file.write_text("plans: {small: {limits: [recipients: lots]}}\nfrobnicate: 1\n")
        os.kill(sqlite_policyd.pid, signal.SIGHUP)
        wait_for("the errors are logged", lambda: sqlite_policyd.log.read_text().count("the old one stays in force") == 2)
        assert smtpd.ask(request("big")) == DUNNO
        assert smtpd.ask(request("stranger")).startswith(b"action=REJECT")
        os.kill(workers(sqlite_policyd)[0], signal.SIGKILL)
        wait_for("the replacement is up", lambda: sqlite_policyd.log.read_text().count("worker ready") == 3)
    with peer(tcp(sqlite_policyd)) as smtpd:  # a replacement cannot read the broken file either: it starts with the old one
        assert smtpd.ask(request("big")) == DUNNO


def test_it_stops_in_order_and_leaves_no_socket_file(policyd: Sidecar) -> None:
    with peer(tcp(policyd)) as smtpd:
        assert smtpd.ask(request("big")) == DUNNO
        path = Path(unix(policyd))
        assert path.is_socket()
        assert policyd.stop() == 0
        assert smtpd.reply() == b""
        assert not path.exists()


def test_it_starts_without_its_store_and_finds_it(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    obstacle = work / "folder"
    obstacle.write_text("a file where the ledger's folder should be")
    document = config(f"sqlite:///{obstacle}/ledger.db", work) | {"ledger": {"on_down": "accept"}}
    with Sidecar(work, document, "policyd") as sidecar, peer(tcp(sidecar)) as smtpd:
        assert [smtpd.ask(request()) for _ in range(10)] == [DUNNO] * 10
        obstacle.unlink()
        wait_for("limits hold", lambda: smtpd.ask(request()) != DUNNO, log=sidecar.log)
        assert "Traceback" not in sidecar.log.read_text()


def test_without_a_milter_an_aborted_transaction_is_given_back(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    document = config(f"sqlite:///{work}/ledger.db", work, limits=[{"recipients": "1000/hour"}])
    document["policyd"]["workers"] = 1

    def used() -> int:
        return int(json.loads(sidecar.cli("show", "acme", "--json").stdout)["used"][0]["used"])

    with Sidecar(work, document, "policyd") as sidecar:
        with peer(tcp(sidecar)) as smtpd:
            smtpd.ask(request(instance="a.1"))
            smtpd.ask(request(instance="a.2"))  # a.1 may have ended: this service was not seen to ask at the end
            assert used() == 2
            smtpd.ask(request(instance="a.2", state="END-OF-MESSAGE", recipient_count="1", size="9"))
            smtpd.ask(request(instance="a.3"))
            smtpd.ask(request(instance="a.4"))
            wait_for("a.3 is given back", lambda: used() == 3, log=sidecar.log)
        wait_for("a.4 is given back", lambda: used() == 2, log=sidecar.log)
        with peer(tcp(sidecar)) as smtpd:  # Postfix closed an idle connection, and the transaction goes on
            smtpd.ask(request(instance="a.4", state="END-OF-MESSAGE", recipient_count="3", size="9"))
            assert used() == 5


def test_recipients_cap_over_one_connection(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    limits = [{"recipients": "1000/hour"}]
    document = config(f"sqlite:///{work}/ledger.db", work, limits=limits, recipients_per_message=2, on_exceed="reject")
    with Sidecar(work, document, "policyd") as sidecar, peer(tcp(sidecar)) as smtpd:
        ask = [smtpd.ask(request(instance="7b.3", recipient=f"u{i}@x.example")) for i in range(4)]
        assert ask[:2] == [DUNNO] * 2
        assert all(reply.startswith(b"action=452 4.5.3 ") for reply in ask[2:])
        assert smtpd.ask(request(instance="7b.3", state="DATA", recipient_count="2")) == DUNNO
        assert smtpd.ask(request(instance="7b.4", recipient="u9@x.example")) == DUNNO


def test_wiring_faults_are_warned_of_once_and_counted(work_folder: WorkFolder) -> None:
    import urllib.request

    work = work_folder("policyd")
    port = free_port()
    document = config(f"sqlite:///{work}/ledger.db", work) | {"metrics": {"listen": f"inet:{HOST}:{port}"}}
    document["policyd"]["workers"] = 1

    def scraped() -> str:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as reply:
            return str(reply.read().decode())

    with Sidecar(work, document, "policyd") as sidecar, peer(tcp(sidecar)) as smtpd:
        for _ in range(5):
            assert smtpd.ask(request("")) == DUNNO
            assert smtpd.ask(request(state="MAIL")) == DUNNO
        assert smtpd.ask(request("big")) == DUNNO
        wanted = {
            'relaywarden_policyd_wiring_faults_total{fault="no_sasl_username"} 5.0',
            'relaywarden_policyd_decisions_total{cause="admitted",limit="",observed="false",state="RCPT",verdict="dunno"} 1.0',
            'relaywarden_policyd_decisions_total{cause="state",limit="",observed="false",state="MAIL",verdict="dunno"} 5.0',
        }
        wait_for("the metrics tell", lambda: wanted <= set(scraped().splitlines()), log=sidecar.log)
        found = dict(line.rsplit(" ", 1) for line in scraped().splitlines() if not line.startswith("#"))
        # The sidecar's own first request is in these as well.
        assert float(found["relaywarden_policyd_decision_seconds_count"]) >= 11
        assert float(found['relaywarden_policyd_decision_seconds_bucket{le="+Inf"}']) >= 11
        assert float(found["relaywarden_policyd_store_seconds_count"]) >= 1
        assert float(found["relaywarden_policyd_store_up"]) == 1
        assert float(found["relaywarden_policyd_open_tickets"]) == 1  # nothing ended before its eyes
        assert sidecar.log.read_text().count("wired wrongly") == 2
        shown = json.loads(sidecar.cli("show", "acme", "--json").stdout)
        assert set(shown["faults"]) == {"no_sasl_username", "unexpected_state"}
        assert "wiring of Postfix: no_sasl_username" in sidecar.cli("tenants").stdout
        assert "!policyd" not in sidecar.cli("tenants", "--json").stdout


def test_a_state_that_never_comes_is_a_fault(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    limits = [{"bytes": "1GiB/hour"}, {"recipients": "1000000/hour"}]
    document = config(f"sqlite:///{work}/ledger.db", work, limits=limits)
    with Sidecar(work, document, "policyd") as sidecar, peer(tcp(sidecar)) as smtpd:
        for _ in range(201):
            assert smtpd.ask(request()) == DUNNO
        wait_for("it is noted", lambda: "no_end" in sidecar.cli("show", "acme", "--json").stdout, log=sidecar.log)


def test_what_is_held_is_called_so_in_the_log(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    document = config(f"sqlite:///{work}/ledger.db", work, on_exceed="hold") | {"log": {"format": "json"}}
    with Sidecar(work, document, "policyd") as sidecar, peer(tcp(sidecar)) as smtpd:
        replies = [smtpd.ask(request()) for _ in range(4)]
        assert replies[:3] == [DUNNO] * 3
        assert replies[3].startswith(b"action=HOLD ")
        last = json.loads(sidecar.log.read_text().splitlines()[-1])
        assert (last["text"], last["verdict"], last["limit"]) == ("held", "hold", "recipients: 3/1h")


def test_each_refusal_is_one_structured_line(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    document = config(f"sqlite:///{work}/ledger.db", work) | {"log": {"format": "json"}}
    with Sidecar(work, document, "policyd") as sidecar, peer(tcp(sidecar)) as smtpd:
        for number in range(5):
            smtpd.ask(request(queue_id=f"Q{number}"))
        lines = [json.loads(line) for line in sidecar.log.read_text().splitlines()]
    refused = [line for line in lines if line["text"] == "refused"]
    assert [line["queue_id"] for line in refused] == ["Q3", "Q4"]
    assert {(line["tenant"], line["verdict"], line["limit"], line["used"], line["allowed"]) for line in refused} == {
        ("acme", "defer", "recipients: 3/1h", 3, 3)
    }
