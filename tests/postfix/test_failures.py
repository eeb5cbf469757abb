"""DESIGN's failure matrix for the milter, with real Postfix in front and the real component killed, stopped or slow.

A client like a tenant's: it keeps its connection, and sends a message again until it is taken.  Whatever fails meanwhile, each
message must arrive once, signed, and tagged for its pool (the sink sees the member's address).
"""

from __future__ import annotations

import datetime
import os
import re
import signal
import smtplib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relaywarden.config.settings import DkimSettings
from relaywarden.dkimkeys import create_key, load_key
from testbed.dkimverify import by_dkimpy
from testbed.dns import DnsServer
from testbed.factories import PostfixFactory, SidecarFactory, WorkFolder
from testbed.ports import free_port
from testbed.postfix import Postfix
from testbed.postfixconf import WITHOUT_POLICYD
from testbed.process import freeze, wait_for
from testbed.redis import RedisServer
from testbed.rspamd import Rspamd
from testbed.sidecar import Sidecar
from testbed.sink import Sink
from testbed.standins import HttpStandIn

pytestmark = pytest.mark.postfix
# Short waits, so that a milter that hangs is noticed within the test.
WIRE = "{ unix:relaywarden/milter, connect_timeout=3s, command_timeout=4s, content_timeout=5s, default_action=tempfail }"


def message(number: int) -> bytes:
    return (
        f"From: shop@acme.example\r\nTo: b@b.test\r\nSubject: order {number}\r\nX-Number: {number}\r\n"
        f"Date: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <{number}@acme.example>\r\n\r\nThank you.\r\n"
    ).encode()


@dataclass
class Mailer:
    """A tenant's program; `replies` are the final replies by number, `taken` the numbers that Postfix accepted."""

    postfix: Postfix
    replies: list[tuple[int, int, str]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    _client: smtplib.SMTP | None = None

    def attempt(self, number: int) -> tuple[int, str]:
        """One try; (0, text) where the connection broke."""
        try:
            if self._client is None:
                self._client = smtplib.SMTP(self.postfix.host, self.postfix.submission_port, timeout=60)
                self._client.login("acme", "secret")
            code, text = self._transaction(self._client, number)
        except (OSError, smtplib.SMTPException) as error:
            code, text = getattr(error, "smtp_code", 0), str(error)
        if not 200 <= code < 300:
            self.hang_up()
        self.replies.append((number, code, text))
        if 200 <= code < 300:
            self.taken.append(number)
        return code, text

    def deliver(self, number: int, timeout: float = 40.0) -> None:
        """Until it is taken."""
        wait_for(
            f"message {number} is not taken: {self.replies[-3:]}",
            lambda: self.attempt(number)[0] == 250,
            timeout=timeout,
            every=0.1,
        )

    def hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @staticmethod
    def _transaction(client: smtplib.SMTP, number: int) -> tuple[int, str]:
        code, text = client.mail("shop@acme.example")
        if code == 250:
            code, text = client.rcpt("b@b.test")
        if code == 250:
            code, text = client.data(message(number))
        return code, text.decode()


@dataclass
class World:
    """Postfix, the milter, what it stands on, and the world behind it."""

    postfix: Postfix
    sidecar: Sidecar
    sink: Sink
    dns: DnsServer
    folder: Path
    selector: str
    mailer: Mailer

    @property
    def log(self) -> str:
        return self.sidecar.log.read_text()

    def all_is_well(self) -> None:
        """Every message that was taken arrived, once, signed, from the tenant's pool; and no other one did."""
        self.postfix.wait_empty(timeout=60)
        arrived = Counter(int(one.message["X-Number"]) for one in self.sink.messages)
        assert arrived == Counter(self.mailer.taken)
        assert max(arrived.values(), default=1) == 1
        for one in self.sink.messages:
            assert by_dkimpy(one.raw, self.dns) == [("acme.example", self.selector, "pass")]
            assert one.peer == "127.0.0.11"


Build = Callable[..., World]


@pytest.fixture
def build(
    request: pytest.FixtureRequest, postfix_factory: PostfixFactory, sidecar_factory: SidecarFactory, work_folder: WorkFolder,
    sink: Sink, dns: DnsServer,
) -> Iterator[Build]:  # fmt: skip
    """Makes a world; each has a key and a Postfix of its own."""
    mailers: list[Mailer] = []

    def make(**change: Any) -> World:
        sink.clear()
        folder = work_folder("failures")
        selector = f"f{abs(hash(request.node.name)) % 10**8}"
        create_key(folder / "key.pem", "rsa")
        entry = {"domain": "acme.example", "selector": selector, "key": str(folder / "key.pem")}
        dns.add({f"{selector}._domainkey.acme.example": {"TXT": load_key(DkimSettings.model_validate(entry)).dns_record()}})
        postfix = postfix_factory(users={"acme": "secret"}, settings={"relaywarden_milter": WIRE, **WITHOUT_POLICYD})
        config = {
            "store": f"sqlite:///{folder}/ledger.db",
            "milter": {"listen": f"unix:{postfix.milter_socket}", "workers": 2},
            "plans": {"p": {"limits": [{"messages": "100000/hour"}]}},
            "tenants": {"acme": {"plan": "p", "from_domains": ["acme.example"], "dkim": [entry], "pool": "transactional"}},
            "pools": {
                "transactional": {"members": {"tx1": {"ip": "127.0.0.11"}}},
                "quarantine": {"members": {"q1": {"ip": "127.0.0.31"}}},
            },
        }
        prefix = change.pop("prefix", ())
        sidecar = sidecar_factory({**config, **change}, "milter", prefix=prefix)
        mailers.append(Mailer(postfix))
        return World(postfix, sidecar, sink, dns, folder, selector, mailers[-1])

    yield make
    for mailer in mailers:
        mailer.hang_up()


@contextmanager
def traffic(world: World, first: int) -> Iterator[None]:
    """Mail without pause while something else happens."""
    stop = threading.Event()
    mailer = Mailer(world.postfix)
    failures: list[BaseException] = []

    def run() -> None:
        number = first
        try:
            while not stop.is_set():
                mailer.deliver(number)
                number += 1
        except BaseException as error:  # noqa: BLE001  # told to the test below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for("no mail flows", lambda: len(mailer.taken) > 3 or bool(failures))
        yield
        seen = len(mailer.taken)
        wait_for("mail does not flow again", lambda: len(mailer.taken) > seen + 3 or bool(failures), timeout=60)
    finally:
        stop.set()
        thread.join()
        mailer.hang_up()
        world.mailer.taken += mailer.taken
        world.mailer.replies += mailer.replies
    assert not failures, failures


def workers(sidecar: Sidecar) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()]


def counted(world: World) -> int:
    """Messages that the ledger knows of today."""
    done = world.sidecar.cli("show", "acme", "--json")
    found = re.search(r'"today": \{\s*"messages": (\d+)', done.stdout)
    return int(found[1]) if found else -1


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_store(build: Build, redis_server: RedisServer, way: str) -> None:
    """Signed and tagged all the same; settled when the store is back."""
    world = build(store=redis_server.url, ledger={"timeout": "300ms"})
    world.mailer.deliver(1)
    if way == "killed":
        redis_server.kill()
    else:
        redis_server.pause()
    try:
        for number in range(2, 8):
            assert world.mailer.attempt(number)[0] == 250
        assert "settled=later" in world.log
    finally:
        if way == "killed":
            redis_server.start()
        else:
            redis_server.resume()
    world.all_is_well()
    # A Redis that was killed has lost the first message with everything else; it was started empty.
    wait_for("settlement", lambda: counted(world) == (6 if way == "killed" else 7), timeout=30)


@pytest.mark.parametrize("fault", ["refused", "slow", "broken", "garbage"])
@pytest.mark.parametrize("on_error", ["accept", "tempfail", "divert"])
def test_rspamd(build: Build, rspamd: Rspamd, fault: str, on_error: str) -> None:
    """By `on_error`; and a dead scanner is not asked for every message."""
    answers = {"broken": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "garbage": b"\x00\xffnonsense\r\n\r\n"}
    with HttpStandIn(answers.get(fault, b""), delay=30.0 if fault == "slow" else 0.0) as server:
        url = f"http://127.0.0.1:{free_port()}" if fault == "refused" else server.url
        world = build(scan={"url": url, "timeout": "300ms", "on_error": on_error})
        codes = [world.mailer.attempt(number)[0] for number in range(8)]
        if on_error == "tempfail":
            assert codes == [451] * 8
        else:
            assert codes == [250] * 8
            received = world.sink.wait(8)
            assert {one.peer for one in received} == {"127.0.0.31" if on_error == "divert" else "127.0.0.11"}
            assert all(by_dkimpy(one.raw, world.dns)[0][2] == "pass" for one in received)
        assert "is not asked at the moment" in world.log  # the breaker
        # The scanner is there again: a reload of a working URL, as the port of the stand-in cannot be taken over.
        world.sidecar.config["scan"]["url"] = rspamd.url
        world.sidecar.config["scan"]["timeout"] = "5s"
        world.sidecar.write()
        os.kill(world.sidecar.pid, signal.SIGHUP)
        wait_for("the reload", lambda: world.log.count("reloaded") >= 2)
    world.mailer.hang_up()
    world.sink.clear()
    world.mailer.taken.clear()
    world.mailer.deliver(100)
    world.all_is_well()


def test_rspamd_stops_and_comes_back(build: Build, work_folder: WorkFolder, dns: DnsServer) -> None:
    """The real one, stopped in the middle: the breaker opens, and closes again by itself."""
    with Rspamd(work_folder("rspamd"), dns=(dns.host, dns.port)) as server:
        world = build(scan={"url": server.url, "timeout": "1s", "on_error": "accept"})
        with traffic(world, 1):
            wait_for("a scan", lambda: 'action="no action"' in world.log)
            os.kill(server.pid, signal.SIGSTOP)
            for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGSTOP)
            wait_for("the breaker", lambda: "is not asked at the moment" in world.log, timeout=30)
            for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGCONT)
            os.kill(server.pid, signal.SIGCONT)
            at = len(world.log)
            wait_for("scans again", lambda: 'action="no action"' in world.log[at:], timeout=30)
        world.all_is_well()


def test_key_missing(build: Build) -> None:
    """Put off, never unsigned; signed once the key is there."""
    world = build()
    key = world.folder / "key.pem"
    world.mailer.deliver(1)
    key.rename(world.folder / "away.pem")
    assert world.sidecar.cli("check").returncode == 1
    wait_for("the workers to miss it", lambda: world.log.count("the DKIM key of before stays in use") == 2)
    world.mailer.deliver(2)
    os.kill(world.sidecar.pid, signal.SIGHUP)
    wait_for("the refused reload", lambda: "reload failed" in world.log)
    world.mailer.deliver(3)
    before = world.log.count("a DKIM key cannot be used")
    for pid in workers(world.sidecar):
        os.kill(pid, signal.SIGKILL)  # new workers find no key
    wait_for("new workers", lambda: world.log.count("a DKIM key cannot be used") >= before + 2)
    world.mailer.hang_up()
    code, text = world.mailer.attempt(4)
    assert (code, "cannot be signed" in text) == (451, True)
    (world.folder / "away.pem").rename(key)
    world.mailer.deliver(4)
    world.all_is_well()


def test_reload_with_errors(build: Build) -> None:
    """The old settings stay in force, the error is logged with its place; a good file is taken afterwards."""
    world = build()
    with traffic(world, 1):
        world.sidecar.file.write_text("plans: {p: {limits: [{messages: lots}]}}\ntenants: {acme: {plan: q}}\n")
        os.kill(world.sidecar.pid, signal.SIGHUP)
        wait_for("the error", lambda: "reload failed" in world.log)
        assert "relaywarden.yaml:1" in world.log
        world.sidecar.config["log"] = {"level": "info"}
        world.sidecar.write()
        os.kill(world.sidecar.pid, signal.SIGHUP)
        wait_for("the reload", lambda: world.log.count("reloaded") >= 2)
    world.all_is_well()
    assert {code for _, code, _ in world.mailer.replies} == {250}  # nobody noticed


def kill_one(world: World) -> None:
    """Kill a worker, and wait until there are two again and mail goes on."""
    # The kernel's list of children may leave one out while another is being reaped, so it is read until it is whole.
    wait_for("two workers", lambda: len(workers(world.sidecar)) == 2)
    seen, first = len(world.sink.messages), workers(world.sidecar)[0]
    os.kill(first, signal.SIGKILL)
    wait_for("a new worker", lambda: len(workers(world.sidecar)) == 2 and first not in workers(world.sidecar))
    wait_for("mail goes on", lambda: len(world.sink.messages) > seen + 5, timeout=60)


def test_worker_killed(build: Build) -> None:
    """Another is started; Postfix puts off what was in its hands, and the client sends it again."""
    world = build()
    with traffic(world, 1), traffic(world, 10_000):
        for _ in range(4):
            kill_one(world)
    assert world.log.count("worker ended, starting another") == 4  # those that were killed, and no other
    world.all_is_well()
    assert {code for _, code, _ in world.mailer.replies} <= {0, 250, 421, 451, 454}


def test_milter_hangs(build: Build) -> None:
    """All of it stopped: Postfix's own timeouts, 451, and no message lost or unsigned."""
    world = build()
    world.mailer.deliver(1)
    stopped = [world.sidecar.pid, *workers(world.sidecar)]
    for pid in stopped:
        freeze(pid)
    try:
        assert world.mailer.attempt(2)[0] in (421, 451, 454)
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    world.mailer.deliver(2)
    world.all_is_well()


def test_milter_down_and_back(build: Build, sidecar_factory: SidecarFactory) -> None:
    """The gap between two runs is covered by Postfix's default_action."""
    world = build()
    with traffic(world, 1):
        world.sidecar.stop()
        seen = len(world.mailer.replies)
        assert world.mailer.attempt(20_000)[0] in (421, 451, 454)  # at AUTH it is 454
        assert len(world.mailer.replies) == seen + 1
        world.sidecar.start()
    world.mailer.deliver(20_000)
    world.all_is_well()


def test_restart_under_load_drains(build: Build) -> None:
    """SIGTERM while mail flows: what is in hand is finished, the rest is put off."""
    world = build()
    with traffic(world, 1), traffic(world, 10_000), traffic(world, 20_000):
        for _ in range(2):
            assert world.sidecar.stop() == 0
            assert "messages in flight are dropped" not in world.log
            world.sidecar.start()
    world.all_is_well()


def test_dns_down(build: Build, work_folder: WorkFolder) -> None:
    """Nothing on the hot path asks DNS: with a resolver that is nowhere, mail flows."""
    nowhere = work_folder("dns-down") / "resolv.conf"
    nowhere.write_text("nameserver 127.0.0.253\noptions timeout:1 attempts:1\n")
    prefix = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(nowhere)]
    schedule = {"start": str(datetime.date.today()), "schedule": "default"}
    pool = {"members": {"tx1": {"ip": "127.0.0.11"}, "tx2": {"ip": "127.0.0.12", "warmup": schedule}}}
    world = build(pools={"transactional": pool}, prefix=prefix)
    for number in range(6):
        world.mailer.deliver(number)
    assert {code for _, code, _ in world.mailer.replies} == {250}
    world.postfix.wait_empty()
    assert {one.peer for one in world.sink.messages} == {"127.0.0.11"}  # b.test's provider is not known: a warm member
