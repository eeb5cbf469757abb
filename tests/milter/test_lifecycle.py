"""Workers of the milter that grow, hang or are held up: they are replaced, and mail goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from relaywarden.config.settings import DkimSettings
from relaywarden.dkimkeys import load_key
from testbed.dkimverify import by_dkimpy
from testbed.dns import DnsServer
from testbed.factories import WorkFolder
from testbed.milterclient import Header, MilterClient, packet, strings, wire
from testbed.ports import HOST
from testbed.process import Process, wait_for
from testbed.sidecar import Sidecar

HEADERS: list[Header] = [(b"From", b"Acme <a@acme.example>"), (b"To", b"b@x.example"), (b"Subject", b"hi")]
BODY = b"hello\r\n"
# The milter as its command starts it, in a hurry: what it does every few seconds, it does all the time.
PROGRAM = """
import json, sys
from relaywarden import metrics
metrics.prepare()
from relaywarden import aside, workers
from relaywarden_milter import upkeep, worker

for name, value in json.loads(sys.argv.pop(1)).items():
    module = next(module for module in (aside, workers, upkeep, worker) if hasattr(module, name))
    setattr(module, name, value)
from relaywarden.cli.main import main

main()
"""
HURRY = {
    "LOOK_SECONDS": 0.05,
    "REPLACE_SECONDS": 3600.0,
    "MEMORY_SECONDS": 0.1,
    "LONG_JOB_SECONDS": 0.5,
    "BEAT_SECONDS": 0.05,
    "KEYS_SECONDS": 0.1,
    "SHORTEST_SILENCE": 2.0,
}


class Milter(Sidecar):
    """One milter, its periods shortened."""

    def __init__(self, work: Path, config: dict[str, Any], hurry: dict[str, float]) -> None:
        super().__init__(work, config, "milter")
        self.address = str(work / "milter")
        self._hurry = json.dumps(HURRY | hurry)

    def start(self) -> Milter:
        self.write()
        argv = [sys.executable, "-c", PROGRAM, self._hurry, "--config", str(self.file), "milter"]
        self._process = Process("relaywarden milter", argv, self.log, ready=self._accepts)
        self._process.start()
        return self

    def workers(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def until(self, what: str, probe: Callable[[], bool], timeout: float = 30.0) -> None:
        wait_for(what, probe, log=self.log, timeout=timeout)

    def serves(self, login: bytes | None = b"acme") -> bool:
        with MilterClient(self.address) as client:
            return client.message(HEADERS, BODY, login=login).kind == "c"


MilterFactory = Callable[..., Milter]


@pytest.fixture
def milter(work_folder: WorkFolder, keys: Any) -> Iterator[MilterFactory]:
    with ExitStack() as running:

        def make(
            hurry: dict[str, float] | None = None, scan: dict[str, Any] | None = None, selector: str = "rw1", **settings: Any
        ) -> Milter:
            work = work_folder("lifecycle")
            key = keys.setting("acme.example", selector)
            own = work / "key.pem"
            own.touch(mode=0o600)
            own.write_bytes(Path(key["key"]).read_bytes())
            config: dict[str, Any] = {
                "store": f"sqlite:///{work}/ledger.db",
                "log": {"level": "debug"},
                "milter": {"listen": f"unix:{work}/milter", "workers": 2, "drain_timeout": "20s", **settings},
                "plans": {"p": {"limits": [{"recipients": "1_000_000/hour"}]}},
                "tenants": {"acme": {"plan": "p", "from_domains": ["acme.example"], "dkim": [{**key, "key": str(own)}]}},
            }
            if scan is not None:
                config["scan"] = scan
            made = Milter(work, config, hurry or {})
            running.enter_context(made)
            return made

        yield make


@pytest.fixture
def silent_scanner() -> Iterator[str]:
    """A server that takes a connection and never says anything."""
    with socket.create_server((HOST, 0)) as server:
        yield f"http://{HOST}:{server.getsockname()[1]}"


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_growth_replaces_workers_and_every_message_is_answered(milter: MilterFactory, dns: DnsServer) -> None:
    running = milter({"REPLACE_SECONDS": 0.2}, worker_memory="1MB")
    descriptors, before = descriptors_of(running.pid), running.workers()
    enough = threading.Event()

    def flow(messages_a_session: int) -> list[str]:
        """Sessions of some messages each; the kinds of all answers."""
        kinds = []
        while not enough.is_set():
            with MilterClient(running.address) as client:
                for _ in range(messages_a_session):
                    reply = client.message(HEADERS, BODY)
                    kinds.append(reply.kind)
                    assert by_dkimpy(wire(reply.apply(HEADERS), BODY), dns)[0][2] == "pass"
        return kinds

    with ThreadPoolExecutor(4) as pool:
        flows = [pool.submit(flow, count) for count in (1, 1, 7, 40)]
        try:
            running.until("each was replaced some times", lambda: running.said("the new worker serves") >= 8, timeout=90)
        finally:
            enough.set()
        kinds = [kind for done in flows for kind in done.result()]
    assert set(kinds) == {"c"}
    assert len(kinds) > 100
    assert not set(before) & set(running.workers())
    assert running.said("setting=milter.worker_memory") >= 8
    assert running.said("in flight are dropped") == running.said("killed") == 0
    assert descriptors_of(running.pid) == descriptors
    running.until("no more than one too many", lambda: len(running.workers()) <= 3)


def test_a_bound_that_no_worker_can_keep_is_told_of_and_makes_no_storm(milter: MilterFactory) -> None:
    running = milter(worker_memory="1MB", workers=1)
    running.until("it is told of", lambda: running.said("too low a setting? program=milter") == 1)
    running.until("the old one is gone", lambda: len(running.workers()) == 1)
    (pid,) = running.workers()
    assert running.said("setting=milter.worker_memory") >= 2
    for _ in range(50):
        assert running.serves()
    assert running.workers() == [pid]
    assert running.said("starting another beside it") == 1


def test_workers_of_ordinary_size_stay(milter: MilterFactory) -> None:
    running = milter()
    before = running.workers()
    for _ in range(20):
        assert running.serves()
    assert running.workers() == before
    assert running.said("replaced") == 0


def test_a_session_goes_on_through_a_replacement(milter: MilterFactory) -> None:
    running = milter(worker_memory="1MB", workers=1)
    with MilterClient(running.address) as client:
        running.until("the old one drains", lambda: running.said("the new worker serves") == 1)
        began = time.monotonic()
        while time.monotonic() < began + 3:  # longer than an ordinary stop leaves to idle sessions
            assert client.message(HEADERS, BODY).kind == "c"
            assert running.serves()


def hang(running: Milter) -> MilterClient:
    """A message whose scan is never answered."""
    client = MilterClient(running.address)
    client.negotiate()
    client.begin()
    client.envelope(b"acme", b"a@acme.example", [b"b@x.example"], b"4HUNG")
    client.content(HEADERS, BODY)
    client.send_raw(packet(b"D", b"E" + strings(b"i", b"4HUNG")) + packet(b"E"))
    return client


def test_a_message_that_hangs_leads_to_another_worker_and_the_others_finish(milter: MilterFactory, silent_scanner: str) -> None:
    running = milter(workers=1, drain_timeout="4s", hang_timeout="1s", scan={"url": silent_scanner, "timeout": "100s"})
    (old,) = running.workers()
    with MilterClient(running.address) as other:
        other.envelope(None, b"a@acme.example", [b"b@x.example"], b"4OTHER")  # without login: not scanned
        hung = hang(running)
        running.until("it is noticed", lambda: running.said("the new worker serves") == 1)
        assert running.said("is worked on without end") == 1
        log = running.log.read_text()
        assert "setting=milter.hang_timeout" in log
        assert "reason=stuck" in log
        assert "in eom" in log  # the stacks
        assert "in scan" in log
        other.content(HEADERS, BODY)
        assert other.end().kind == "c"
        assert exists(old)
    for _ in range(5):
        assert running.serves(login=None)
    running.until("the old one is gone", lambda: not exists(old))
    with pytest.raises(ConnectionError):
        while hung.read()[0] == b"p":
            pass  # signs of progress, sent while it hung; a verdict would end this
    hung.close()
    assert running.said("messages in flight are dropped") == 1
    assert running.said("and is killed") == 0  # it ended by itself
    assert len(running.workers()) == 1


def test_stopping_while_a_worker_with_a_hung_message_leaves(milter: MilterFactory, silent_scanner: str) -> None:
    running = milter(workers=2, drain_timeout="3s", hang_timeout="1s", scan={"url": silent_scanner, "timeout": "100s"})
    hung = hang(running)
    running.until("it leaves", lambda: running.said("the new worker serves") == 1)
    children = running.workers()
    assert len(children) == 3
    os.kill(running.pid, signal.SIGTERM)
    running.until("it ends", lambda: not running.alive())
    assert not any(map(exists, children))
    assert running.stop() == 0
    assert not Path(running.address).exists()
    hung.close()


def test_stopping_does_not_wait_for_the_open_sessions_of_a_leaving_worker(milter: MilterFactory) -> None:
    running = milter(worker_memory="1MB", workers=1, drain_timeout="60s")
    with MilterClient(running.address) as client:
        assert client.message(HEADERS, BODY).kind == "c"
        running.until("it leaves", lambda: running.said("the new worker serves") == 1)
        os.kill(running.pid, signal.SIGTERM)
        began = time.monotonic()
        running.until("it ends", lambda: not running.alive())
        assert time.monotonic() - began < 15
        assert running.stop() == 0


def test_a_stopped_worker_is_killed_and_its_sibling_serves(milter: MilterFactory) -> None:
    running = milter(hang_timeout="1s")
    running.until("both serve", lambda: running.said("worker ready") == 2)
    hung, sibling = running.workers()
    os.kill(hung, signal.SIGSTOP)
    running.until("it is killed", lambda: not exists(hung))
    running.until("another one is there", lambda: running.said("worker ready") == 3)
    assert running.said("gives no sign of life") == 1
    assert sibling in running.workers()
    for _ in range(5):
        assert running.serves()


def test_a_reload_that_hangs_holds_up_nothing(milter: MilterFactory) -> None:
    running = milter(workers=1, hang_timeout="1s")
    before = running.workers()
    text = running.file.read_text()
    running.file.unlink()
    os.mkfifo(running.file)  # reading it hangs, as on a file system that is gone
    os.kill(running.pid, signal.SIGHUP)
    running.until("it is told of", lambda: running.said("a job does not end") == 1)
    began = time.monotonic()
    while time.monotonic() < began + 3:  # longer than a worker may be silent
        assert running.serves()
    assert running.workers() == before
    assert running.said("info: reloaded") == 0
    with os.fdopen(os.open(running.file, os.O_WRONLY | os.O_NONBLOCK), "w") as file:  # the file system is back
        file.write(text)
        running.file.unlink()  # the master has it open; the worker reads it after the master
        running.file.write_text(text)
    running.until("it is done at last", lambda: running.said("info: reloaded") == 1)
    assert running.workers() == before


def test_stopping_while_a_reload_hangs(milter: MilterFactory) -> None:
    running = milter(workers=2)
    running.file.unlink()
    os.mkfifo(running.file)
    os.kill(running.pid, signal.SIGHUP)
    running.until("it hangs", lambda: running.said("a job does not end") == 1)
    assert running.stop() == 0
    assert running.said("and is killed") == 0


def test_changed_key_files_are_read_again(milter: MilterFactory, keys: Any, dns: DnsServer) -> None:
    running = milter(workers=1, selector="changed")

    def signs_as_published() -> bool:
        with MilterClient(running.address) as client:
            return by_dkimpy(wire(client.message(HEADERS, BODY).apply(HEADERS), BODY), dns)[0][2] == "pass"

    assert signs_as_published()
    other = keys.setting("other.example", "changed", "rsa2")
    record = load_key(DkimSettings.model_validate(other)).dns_record()
    dns.replace({"changed._domainkey.acme.example": {"TXT": record}})
    assert not signs_as_published()
    fresh = running.work / "fresh.pem"
    fresh.touch(mode=0o600)
    fresh.write_bytes(Path(other["key"]).read_bytes())
    fresh.rename(running.work / "key.pem")
    running.until("the new key signs", signs_as_published)


def test_a_key_file_that_hangs_holds_up_nothing(milter: MilterFactory) -> None:
    running = milter(hang_timeout="1s")
    before = running.workers()
    (running.work / "key.pem").unlink()
    os.mkfifo(running.work / "key.pem")
    began = time.monotonic()
    while time.monotonic() < began + 3:
        assert running.serves()
    assert running.workers() == before
    assert running.stop() == 0
