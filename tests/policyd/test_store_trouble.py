"""The store is refused, hung, slow, read-only, full or locked: every answer comes in time, a share of each limit is admitted
meanwhile, and afterwards the ledger has charged exactly what was let through."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions as redis_errors
from redis.exceptions import BusyLoadingError

from testbed.factories import WorkFolder
from testbed.policypeer import DUNNO, Peer, request
from testbed.ports import HOST, free_port
from testbed.process import wait_for
from testbed.redis import RedisServer
from testbed.sidecar import Sidecar

LIMIT, SHARE = 100, 0.2
IN_TIME = 0.3  # the promise is 50 ms; the machine may be busy with other tests
_recipients = itertools.count()


def config(store: str, **ledger: Any) -> dict[str, Any]:
    return {
        "store": store,
        "policyd": {"listen": f"inet:{HOST}:{free_port()}", "workers": 1},
        "ledger": {"local_share": SHARE, **ledger},
        "metrics": {"listen": f"inet:{HOST}:{free_port()}"},
        "plans": {
            "small": {"limits": [{"recipients": f"{LIMIT}/hour"}, {"messages": "5000/day"}]},
            "large": {"limits": [{"recipients": "1000000/hour"}]},
        },
        "tenants": {"acme": {"plan": "small"}, "big": {"plan": "large"}},
    }


def ask(peer: Peer, count: int) -> list[bytes]:
    """So many recipients, each in a message of its own; every answer must come in time."""
    answers = []
    for _ in range(count):
        begun = time.monotonic()
        answers.append(peer.ask(request(recipient=f"u{next(_recipients)}@x.example")))
        assert time.monotonic() - begun < IN_TIME
    return answers


def charged(sidecar: Sidecar, tenant: str = "acme") -> int:
    done = sidecar.cli("show", tenant, "--json")
    return int(json.loads(done.stdout)["used"][0]["used"]) if done.returncode == 0 else -1


@contextmanager
def running(
    work_folder: WorkFolder, options: dict[str, str] | None = None, **ledger: Any
) -> Iterator[tuple[RedisServer, Sidecar, Peer]]:
    """policyd on a Redis of its own, and a peer of it."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(work_folder("redis"), options))
        sidecar = stack.enter_context(Sidecar(work_folder("policyd"), config(redis.url, **ledger), "policyd"))
        yield redis, sidecar, stack.enter_context(closing(Peer.of(sidecar)))


def go_through(sidecar: Sidecar, peer: Peer, trouble: Callable[[], None], heal: Callable[[], None]) -> None:
    """Five in good times, sixty in bad ones, then the account is settled."""
    assert ask(peer, 5) == [DUNNO] * 5
    trouble()
    answers = ask(peer, 60)
    admitted = answers.count(DUNNO)
    assert 0 < admitted <= LIMIT * SHARE + 1  # one may have reached the store just before it failed
    refused = {answer for answer in answers if answer != DUNNO}
    assert refused == {
        b"action=DEFER_IF_PERMIT 4.7.1 Sending limits cannot be checked at the moment, try again in a minute\n\n"
    }
    heal()
    wait_for("all is charged", lambda: charged(sidecar) == 5 + admitted, log=sidecar.log)
    assert ask(peer, 1) == [DUNNO]
    wait_for("the store decides again", lambda: charged(sidecar) == 6 + admitted, log=sidecar.log)
    text = sidecar.log.read_text()
    assert text.count("the store does not answer, deciding without it") == 1
    assert text.count("the store answers again") == 1
    assert "Traceback" not in text


TROUBLES: dict[str, tuple[Callable[[RedisServer], object], Callable[[RedisServer], object]]] = {
    "hung": (lambda redis: redis.pause(), lambda redis: redis.resume()),
    "slow": (
        lambda redis: redis.client().client_pause(3000),
        lambda redis: redis.client().ping(),
    ),
    "read-only": (
        lambda redis: redis.client().replicaof(HOST, 1),
        lambda redis: redis.client().replicaof("NO", "ONE"),
    ),
    "out of memory": (
        lambda redis: redis.client().config_set("maxmemory", "1"),
        lambda redis: redis.client().config_set("maxmemory", "0"),
    ),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_redis_in_trouble(work_folder: WorkFolder, kind: str) -> None:
    trouble, heal = TROUBLES[kind]
    with running(work_folder) as (redis, sidecar, peer):
        go_through(sidecar, peer, lambda: void(trouble(redis)), lambda: void(heal(redis)))


def void(_: object) -> None:
    """Some of these return what nobody wants."""


def test_redis_refused(work_folder: WorkFolder) -> None:
    """It keeps its data over the restart, as an operator's does."""
    with running(work_folder, {"appendonly": "yes", "appendfsync": "always"}) as (redis, sidecar, peer):
        go_through(sidecar, peer, redis.stop, lambda: void(redis.start()))


def test_redis_loading(work_folder: WorkFolder) -> None:
    """After a restart a Redis with much data answers LOADING for a while."""
    options = {"loading-process-events-interval-bytes": "1024", "key-load-delay": "200"}
    with running(work_folder, options) as (redis, sidecar, peer):
        with redis.client() as client:
            pipe = client.pipeline(transaction=False)
            for number in range(10_000):
                pipe.set(f"filler{number}", "x" * 200)
            pipe.execute()

        def reload() -> None:
            with redis.client() as client:
                client.save()
            redis.stop()
            redis.start(wait=False)
            wait_for("it to say LOADING", lambda: loading(redis))

        go_through(sidecar, peer, reload, lambda: wait_for("it to be loaded", lambda: not loading(redis)))


def loading(redis: RedisServer) -> bool:
    try:
        with redis.client() as client:
            client.get("filler1")
    except BusyLoadingError:
        return True
    except redis_errors.ConnectionError:
        return False
    return False


def test_what_was_charged_survives_the_death_of_every_process(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    with Sidecar(work, config(f"sqlite:///{work}/ledger.db"), "policyd") as sidecar:
        with closing(Peer.of(sidecar)) as peer:
            assert ask(peer, 20) == [DUNNO] * 20
        for pid in Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        os.kill(sidecar.pid, signal.SIGKILL)
        assert charged(sidecar) == 20


def test_sqlite_locked(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    with ExitStack() as stack:
        sidecar = stack.enter_context(Sidecar(work, config(f"sqlite:///{work}/ledger.db"), "policyd"))
        peer = stack.enter_context(closing(Peer.of(sidecar)))
        other = stack.enter_context(closing(sqlite3.connect(work / "ledger.db", isolation_level=None)))
        go_through(sidecar, peer, lambda: void(other.execute("BEGIN IMMEDIATE")), lambda: void(other.execute("ROLLBACK")))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_sqlite_on_a_full_disk(work_folder: WorkFolder) -> None:
    disk = work_folder("disk")
    filler = disk / "filler"

    def fill() -> None:
        try:
            with filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        except OSError:
            pass  # that is what we want

    with ExitStack() as stack:
        stack.enter_context(small_disk(disk))
        document = config(f"sqlite:///{disk}/ledger.db")
        sidecar = stack.enter_context(Sidecar(work_folder("policyd"), document, "policyd"))
        go_through(sidecar, stack.enter_context(closing(Peer.of(sidecar))), fill, filler.unlink)


def test_sqlite_unreadable(work_folder: WorkFolder) -> None:
    """The file is no database when policyd starts; an operator then moves it away."""
    work = work_folder("policyd")
    file = work / "ledger.db"
    file.write_bytes(b"what a crashed disk left of it" * 1000)
    document = config(f"sqlite:///{file}")
    with Sidecar(work, document, "policyd") as sidecar, closing(Peer.of(sidecar)) as peer:
        admitted = ask(peer, 60).count(DUNNO)
        assert admitted == LIMIT * SHARE
        file.unlink()
        wait_for("all is charged", lambda: charged(sidecar) == admitted, log=sidecar.log)
        assert ask(peer, 1) == [DUNNO]
        wait_for("the store decides again", lambda: charged(sidecar) == admitted + 1, log=sidecar.log)
        text = sidecar.log.read_text()
        assert text.count("the store does not answer, deciding without it") == 1
        assert "file is not a database" in text
        assert text.count("the store answers again") == 1


def test_sqlite_locked_at_the_start(work_folder: WorkFolder) -> None:
    """Opening waits for the lock too; the worker's requests do not."""
    work = work_folder("policyd")
    with ExitStack() as stack:
        other = stack.enter_context(closing(sqlite3.connect(work / "ledger.db", isolation_level=None)))
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("CREATE TABLE mine (a)")
        sidecar = stack.enter_context(Sidecar(work, config(f"sqlite:///{work}/ledger.db"), "policyd"))
        peer = stack.enter_context(closing(Peer.of(sidecar)))
        assert ask(peer, 60).count(DUNNO) == LIMIT * SHARE
        other.close()
        wait_for("all is charged", lambda: charged(sidecar) == LIMIT * SHARE, log=sidecar.log)


def some(count: int) -> bytes:
    return b"".join(request("big", recipient=f"u{next(_recipients)}@x.example") for _ in range(count))


def test_a_store_that_hangs_again_while_the_journal_is_charged(work_folder: WorkFolder) -> None:
    """Those who come then wait behind a batch of the journal, and not for long either."""
    with running(work_folder, on_down="accept") as (redis, sidecar, peer):
        admitted = 0
        for turn in range(1, 5):
            up = sidecar.log.read_text().count("the store answers again")
            redis.pause()
            for _ in range(60):
                peer.sock.sendall(some(50))
                assert {peer.reply() for _ in range(50)} == {DUNNO}
                admitted += 50
            redis.resume()
            while sidecar.log.read_text().count("the store answers again") < up + 1:
                pass  # the next line must come before the journal is charged
            redis.pause()
            for _ in range(3):
                begun = time.monotonic()
                assert peer.ask(some(1)) == DUNNO
                assert time.monotonic() - begun < IN_TIME
                admitted += 1
            redis.resume()
            down = sidecar.log.read_text().count("the store does not answer, deciding")
            wait_for("it to be whole", lambda wanted=admitted: charged(sidecar, "big") == wanted, log=sidecar.log)  # type: ignore[misc]
            assert turn <= down <= 2 * turn, "each direction once, not once a request"


def test_a_long_journal_is_charged_while_requests_go_on(work_folder: WorkFolder) -> None:
    """At no time is there none of them under way, so the journal must be charged in between."""
    enough = threading.Event()

    def load(peers: list[Peer]) -> int:
        sent = 0
        while not enough.is_set():
            for other in peers:
                other.sock.sendall(some(32))
                sent += 32
            for other in peers:
                assert {other.reply() for _ in range(32)} == {DUNNO}
        return sent

    with running(work_folder, on_down="accept") as (redis, sidecar, peer), ExitStack() as stack:
        redis.pause()
        for _ in range(400):
            peer.sock.sendall(some(50))
            assert {peer.reply() for _ in range(50)} == {DUNNO}
        pool = stack.enter_context(ThreadPoolExecutor(2))
        stack.callback(enough.set)
        loads = [pool.submit(load, [stack.enter_context(closing(Peer.of(sidecar))) for _ in range(4)]) for _ in range(2)]
        redis.resume()
        wait_for("the journal to be charged", lambda: unreconciled(sidecar) == 0, log=sidecar.log)
        enough.set()
        sent = 20_000 + sum(running.result(timeout=20) for running in loads)
        wait_for("all is charged", lambda: charged(sidecar, "big") == sent, log=sidecar.log)


def unreconciled(sidecar: Sidecar) -> float:
    address = sidecar.config["metrics"]["listen"].removeprefix("inet:")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        found = re.search(r"^relaywarden_policyd_unreconciled (\S+)$", reply.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize(("on_down", "expected"), [("accept", DUNNO), ("defer", b"action=DEFER_IF_PERMIT 4.7.1 ")])
def test_the_operator_may_want_it_otherwise(work_folder: WorkFolder, on_down: str, expected: bytes) -> None:
    with running(work_folder, on_down=on_down) as (redis, _, peer):
        assert ask(peer, 1) == [DUNNO]
        redis.pause()
        assert all(answer.startswith(expected) for answer in ask(peer, 60))
        redis.resume()


def test_who_was_suspended_stays_so_without_the_store(work_folder: WorkFolder) -> None:
    """As this worker last saw it, even where the operator prefers to accept."""
    with running(work_folder, on_down="accept") as (redis, sidecar, peer):
        assert sidecar.cli("suspend", "acme", "--reason", "stolen password").returncode == 0
        assert ask(peer, 1)[0].startswith(b"action=REJECT 5.7.1 ")
        redis.pause()
        assert all(answer.startswith(b"action=DEFER_IF_PERMIT 4.7.1 ") for answer in ask(peer, 20))
        assert peer.ask(some(1)) == DUNNO
        redis.resume()
        wait_for("the store to be asked", lambda: ask(peer, 1)[0].startswith(b"action=REJECT "), log=sidecar.log)
        assert sidecar.cli("resume", "acme").returncode == 0
        assert ask(peer, 1) == [DUNNO]


def test_a_request_sent_again_is_answered_as_before_also_without_the_store(work_folder: WorkFolder) -> None:
    with running(work_folder) as (redis, sidecar, peer):
        assert ask(peer, 1) == [DUNNO]
        redis.pause()
        same = request(instance="1.2.3", recipient="same@x.example")
        assert [peer.ask(same) for _ in range(50)] == [DUNNO] * 50
        redis.resume()
        assert peer.ask(same) == DUNNO
        wait_for("it is charged once", lambda: charged(sidecar) == 2, log=sidecar.log)
