"""The store is refused, hung, slow, read-only, full or locked: every answer comes in time, a share of each limit is admitted
meanwhile, and afterwards the ledger has charged exactly what was let through."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
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
        "plans": {"small": {"limits": [{"recipients": f"{LIMIT}/hour"}, {"messages": "5000/day"}]}},
        "tenants": {"acme": {"plan": "small"}},
    }


def ask(peer: Peer, count: int) -> list[bytes]:
    """So many recipients, each in a message of its own; every answer must come in time."""
    answers = []
    for _ in range(count):
        begun = time.monotonic()
        answers.append(peer.ask(request(recipient=f"u{next(_recipients)}@x.example")))
        assert time.monotonic() - begun < IN_TIME
    return answers


def charged(sidecar: Sidecar) -> int:
    done = sidecar.cli("show", "acme", "--json")
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


@pytest.mark.parametrize(("on_down", "expected"), [("accept", DUNNO), ("defer", b"action=DEFER_IF_PERMIT 4.7.1 ")])
def test_the_operator_may_want_it_otherwise(work_folder: WorkFolder, on_down: str, expected: bytes) -> None:
    with running(work_folder, on_down=on_down) as (redis, _, peer):
        assert ask(peer, 1) == [DUNNO]
        redis.pause()
        assert all(answer.startswith(expected) for answer in ask(peer, 60))
        redis.resume()


def test_a_request_sent_again_is_answered_as_before_also_without_the_store(work_folder: WorkFolder) -> None:
    with running(work_folder) as (redis, sidecar, peer):
        assert ask(peer, 1) == [DUNNO]
        redis.pause()
        same = request(instance="1.2.3", recipient="same@x.example")
        assert [peer.ask(same) for _ in range(50)] == [DUNNO] * 50
        redis.resume()
        assert peer.ask(same) == DUNNO
        wait_for("it is charged once", lambda: charged(sidecar) == 2, log=sidecar.log)
