"""Counting has consequences, and people hear of each once: over restarts, store failures and reloads, to a real webhook."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from relaywarden import steering, warmup
from relaywarden.config.settings import Settings
from relaywarden.errors import RelaywardenError, StoreUnavailableError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import Note, Noted, Notes, Tally
from relaywarden_monitor import oversight
from relaywarden_monitor.attribute import Attributor, Counted
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.events import Accepted, Attempt, Event, Outcome
from relaywarden_monitor.oversight import ALERTS, Oversight
from relaywarden_monitor.steps import BOOK
from testbed.classifying import classifier
from testbed.dns import DnsServer
from testbed.ports import HOST, free_port
from testbed.process import wait_for

SECRET = b"0123456789abcdef-of-the-hook"
NO_MAILBOX = "550 5.1.1 <r@x.example>: Recipient address rejected: User unknown"
COMPLAINTS = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints"
YAHOO = "mta5.am0.yahoodns.net"


class Hook(ThreadingHTTPServer):
    """Takes notices whose signature is right, and answers 401 to others."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.notices: list[dict[str, Any]] = []
        self.refused = 0
        super().__init__((HOST, port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/hook?key=secret"

    @property
    def told(self) -> list[str]:
        return [f"{notice['key']} {notice['kind']} {notice['severity']}" for notice in self.notices]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:  # http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = dict(part.split("=", 1) for part in self.headers["X-Relaywarden-Signature"].split(","))
        expected = hmac.new(SECRET, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        genuine = hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 300
        if genuine:
            self.server.notices += json.loads(body)["notices"]
        self.server.refused += not genuine
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass  # the test's own output is enough


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes in life: being calm before a recovery is told, and looking again."""
    monkeypatch.setattr(oversight, "CALM_SECONDS", 0.1)
    monkeypatch.setattr(oversight, "_AGAIN_SECONDS", 0.02)


Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    secret = tmp_path / "hook.secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)

    def make(url: str = "", **more: Any) -> Settings:
        hooks = [{"url": url, "secret": str(secret), "timeout": "2s"}] if url else []
        return Settings.model_validate({
            "store": f"sqlite:///{tmp_path}/ledger.db",
            "ledger": {"timeout": "100ms"},
            "plans": {"p": {}},
            "tenants": {name: {"plan": "p"} for name in ("acme", "beta")},
            "unknown_login": {"plan": "p"},
            "pools": {
                "t": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}},
                "quarantine": {"members": {"q1": {"ip": "192.0.2.31"}}},
            },
            "dns": {"every": None},
            "notify": {"webhooks": hooks, "batch": "20ms"},
            **more,
        })  # fmt: skip

    return make


@pytest.fixture
def ledger(configure: Configure) -> Iterator[Ledger]:
    opened = open_ledger(configure())
    yield opened
    opened.close()


@contextmanager
def running(settings: Settings, ledger: Ledger, host: str = "") -> Iterator[Oversight]:
    """From a start to an orderly end."""
    made = Oversight(settings, ledger, host)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def count(ledger: Ledger, watch: Oversight, *, bad: int = 0, good: int = 0, tenant: str = "acme") -> None:
    """Something was counted, and is looked at."""
    ledger.apply([Tally(tenant, {"delivered": good, "bounced": bad}, {"invalid": bad})])
    watch.touch(tenant)
    watch.turn()


def attempts(reply: str, number: int, *, tenant: str = "acme", relay: str = "mx.x.example", at: float | None = None) -> Counted:
    """So many messages, and the same answer to each."""
    events: list[Event] = []
    outcome = {"4": Outcome.DEFERRED, "5": Outcome.BOUNCED}.get(reply[:1], Outcome.DELIVERED)
    when = time.time() if at is None else at
    for one in range(number):
        events.append(Accepted(when, f"4bQ{one}", tenant))
        events.append(Attempt(when, f"4bQ{one}", f"r{one}@yahoo.com", outcome, "tx1", relay, "198.51.100.1", "", reply))
    settings = Settings.model_validate({
        "plans": {"p": {}}, "tenants": {"acme": {"plan": "p"}, "beta": {"plan": "p"}}, "unknown_login": {"plan": "p"},
        "pools": {"t": {"members": {"tx1": {"ip": "192.0.2.1"}}}},
    })  # fmt: skip
    return Attributor(settings, classifier()).attribute(events, Docket())


def recovered(watch: Oversight, hook: Hook, key: str) -> None:
    def told() -> bool:
        watch.turn()
        return any(one.startswith(f"{key} recovered") for one in hook.told)

    wait_for(f"{key} does not recover", told)


def alerts(ledger: Ledger, host: str) -> str:
    """What a host has written of its alerts."""
    (found,) = ledger.apply([Notes(BOOK, ALERTS, (host,))])
    assert isinstance(found, Noted)
    return found.fields.get(host, "")


def paused(ledger: Ledger) -> dict[str, int]:
    """Members that rest for Yahoo, and how often in a row: by the reason that is given."""
    words = steering.read(ledger)
    found = {name: warmup.pause_of(entry, "yahoo", words.now_ms) for name, entry in words.members.items()}
    return {name: (one.until_ms or 0) - words.now_ms for name, one in found.items() if one}


def test_a_webhook_hears_the_first_crossing_and_the_recovery(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    with running(configure(hook.url), ledger) as watch:
        count(ledger, watch, bad=60, good=900)
        wait_for("the crossing", lambda: len(hook.notices) == 1)
        for _ in range(5):
            count(ledger, watch, bad=1, good=10)
        count(ledger, watch, good=5000)
        recovered(watch, hook, "tenant:acme:bounces")
        for _ in range(5):
            count(ledger, watch, good=10)
    assert hook.told == ["tenant:acme:bounces crossed warn", "tenant:acme:bounces recovered warn"]
    crossed = hook.notices[0]
    assert (crossed["subject"], crossed["evidence"]["part"], crossed["evidence"]["whole"]) == ("acme", 60, 960)
    assert crossed["what"].startswith("hard bounces: 60 of 960 (6.25%) in 1d")
    assert hook.refused == 0
    assert crossed["id"] != hook.notices[1]["id"]


def test_a_restart_tells_nobody_twice_and_misses_no_recovery(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    settings = configure(hook.url)
    burst = attempts(NO_MAILBOX, 60, tenant="beta")
    with running(settings, ledger) as watch:
        watch.heard(burst)
        count(ledger, watch, bad=60, good=900)
    expected = ["tenant:acme:bounces crossed warn", "tenant:beta:invalid crossed act", "tenant:beta:standing crossed act"]
    assert sorted(hook.told) == expected
    with running(settings, ledger) as watch:
        watch.heard(burst)  # before the first turn: the monitor reads before it looks
        count(ledger, watch, bad=6, good=90)
        assert not watch.turn()
    assert sorted(hook.told) == expected
    with running(settings, ledger) as watch:
        count(ledger, watch, good=5000)
        recovered(watch, hook, "tenant:acme:bounces")
        recovered(watch, hook, "tenant:beta:invalid")
    assert len(hook.told) == 5


def test_a_pause_is_known_over_a_restart(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    settings = configure(hook.url, react={"pause": "300ms"})
    with running(settings, ledger) as watch:
        watch.heard(attempts(COMPLAINTS, 2, relay=YAHOO))
        watch.turn()
        assert list(paused(ledger)) == ["tx1"]
    with running(settings, ledger) as watch:
        recovered(watch, hook, "member:tx1:yahoo")
    with running(settings, ledger) as watch:
        watch.heard(attempts(COMPLAINTS, 2, relay=YAHOO))  # again before the first turn: it is the second time
        watch.turn()
        assert 300 < paused(ledger)["tx1"] <= 600
    assert hook.told == [
        "member:tx1:yahoo crossed act", "member:tx1:yahoo recovered act", "member:tx1:yahoo crossed act",
    ]  # fmt: skip
    assert hook.notices[2]["what"].endswith("(2 times in a row)")


def test_what_nobody_could_be_told_waits_in_the_ledger(configure: Configure, ledger: Ledger) -> None:
    port = free_port()
    settings = configure(f"http://{HOST}:{port}/hook")
    with running(settings, ledger) as watch:
        count(ledger, watch, bad=60, good=900)
    hook = Hook(port)
    try:
        with running(settings, ledger):
            wait_for("the notice of before", lambda: hook.told == ["tenant:acme:bounces crossed warn"])
        with running(settings, ledger) as watch:
            count(ledger, watch, bad=6, good=90)
        assert len(hook.told) == 1
    finally:
        hook.close()


def test_of_two_hosts_one_tells_the_crossing_and_its_end(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    settings = configure(hook.url)
    with running(settings, ledger, "mx1") as first, running(settings, ledger, "mx2") as second:
        count(ledger, first, bad=60, good=900)
        count(ledger, second)
    with running(settings, ledger, "mx2") as second, running(settings, ledger, "mx1") as first:
        count(ledger, second, good=5000)
        for host, watch in (("mx2", second), ("mx1", first)):
            wait_for("its end", lambda host=host, watch=watch: watch.turn() or '"told": "none"' in alerts(ledger, host))  # type: ignore[misc]
    assert hook.told == ["tenant:acme:bounces crossed warn", "tenant:acme:bounces recovered warn"]


def test_a_host_leaves_alone_what_is_anothers(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    settings, nowhere = configure(hook.url), configure(f"http://{HOST}:{free_port()}/hook")
    with running(nowhere, ledger, "mx1") as watch:
        count(ledger, watch, bad=60, good=900)
    with running(settings, ledger, "mx2") as watch:
        count(ledger, watch, good=5000)
        for _ in range(3):
            watch.turn()
    assert hook.told == [], "neither what waits to be sent nor what is over"
    with running(settings, ledger, "mx1") as watch:
        recovered(watch, hook, "tenant:acme:bounces")
    assert hook.told == ["tenant:acme:bounces crossed warn", "tenant:acme:bounces recovered warn"]


def test_a_reload_forgets_nothing(configure: Configure, ledger: Ledger) -> None:
    with running(configure(), ledger) as watch:
        watch.heard(attempts(COMPLAINTS, 1, relay=YAHOO))
        watch.turn()
        watch.reload(configure(react={"pause": "5m"}))
        watch.heard(attempts(COMPLAINTS, 1, relay=YAHOO))
        watch.turn()
        assert 200_000 < paused(ledger)["tx1"] <= 300_000


def test_a_dirty_burst_is_stopped_before_it_is_a_day_old(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    with running(configure(hook.url), ledger) as watch:
        watch.heard(attempts(NO_MAILBOX, 30))
        watch.turn()
        assert steering.read(ledger).tenants["acme"]["divert"].startswith("invalid recipients: 20 of 20 (100.00%)")
        wait_for("both are told", lambda: len(hook.notices) == 2)
    assert sorted(hook.told) == ["tenant:acme:invalid crossed act", "tenant:acme:standing crossed act"]


def test_an_old_log_has_no_consequences(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    with running(configure(hook.url), ledger) as watch:
        watch.heard(attempts(NO_MAILBOX, 100, at=time.time() - 2 * 86_400))
        watch.heard(attempts(COMPLAINTS, 100, relay=YAHOO, at=time.time() - 2 * 86_400))
        watch.turn()
        words = steering.read(ledger)
    assert (words.tenants, words.members, hook.told) == ({}, {}, [])


def test_while_the_store_is_locked_nothing_is_forgotten(
    configure: Configure, ledger: Ledger, hook: Hook, tmp_path: Path
) -> None:
    with running(configure(hook.url), ledger) as watch:
        watch.turn()
        ledger.apply([Tally("acme", {"delivered": 900, "bounced": 200}, {"invalid": 200})])
        watch.touch("acme")
        watch.heard(attempts(COMPLAINTS, 2, tenant="beta", relay=YAHOO))
        watch.heard(attempts(NO_MAILBOX, 60, tenant="beta"))
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                watch.turn()
        other.execute("ROLLBACK")
        other.close()
        while watch.turn():
            pass
        words = steering.read(ledger)
    assert (set(words.tenants), list(paused(ledger))) == ({"acme", "beta"}, ["tx1"])
    assert sorted(hook.told) == [
        "member:tx1:yahoo crossed act", "tenant:acme:bounces crossed act", "tenant:acme:standing crossed act",
        "tenant:beta:invalid crossed act", "tenant:beta:standing crossed act",
    ]  # fmt: skip


def test_more_tenants_than_one_turn_takes(configure: Configure, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversight, "_AGAIN_SECONDS", 3600.0)
    names = [f"t{number}" for number in range(450)]
    with running(configure(), ledger) as watch:
        ledger.apply([Tally(name, {"delivered": 900, "bounced": 200}, {"invalid": 200}) for name in names])
        for name in names:
            watch.touch(name)
        assert [watch.turn() for _ in range(4)] == [True, True, False, False]
        assert set(steering.read(ledger).tenants) == set(names)


def test_a_login_with_a_colon_recovers_too(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    with running(configure(hook.url), ledger) as watch:
        count(ledger, watch, bad=60, good=900, tenant="sip:acme")
        ledger.apply([Tally("sip:acme", {"delivered": 5000})])  # which nobody tells of
        recovered(watch, hook, "tenant:sip:acme:bounces")


def test_what_alerted_of_a_tenant_that_is_gone_is_over(configure: Configure, ledger: Ledger, hook: Hook) -> None:
    with running(configure(hook.url), ledger) as watch:
        count(ledger, watch, bad=60, good=900)
        watch.reload(configure(hook.url, tenants={"beta": {"plan": "p"}}, unknown_login="reject"))
        recovered(watch, hook, "tenant:acme:bounces")
    assert hook.notices[-1]["what"] == "acme is no tenant any more"


def test_a_reload_with_a_fault_keeps_what_was(configure: Configure, ledger: Ledger, hook: Hook, tmp_path: Path) -> None:
    with running(configure(hook.url), ledger) as watch:
        wrong = {"webhooks": [{"url": hook.url, "secret": str(tmp_path / "nowhere")}]}
        with pytest.raises(RelaywardenError, match="nowhere"):
            watch.reload(configure(notify=wrong, plans={"p": {"health": {"action": "none"}}}))
        count(ledger, watch, bad=200, good=900)
        wait_for("it goes on as before", lambda: len(hook.told) == 2)
    assert "acme" in steering.read(ledger).tenants


def test_a_state_that_cannot_be_read_is_begun_anew(
    configure: Configure, ledger: Ledger, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.apply([Note(BOOK, ALERTS, {socket.gethostname(): '{"version": 99}'})])
    with running(configure(hook.url), ledger) as watch:
        count(ledger, watch, bad=60, good=900)
    assert ("may be told again" in caplog.text, len(hook.told)) == (True, 1)


def test_dns_is_asked_and_its_faults_are_told_once(configure: Configure, ledger: Ledger, hook: Hook, dns: DnsServer) -> None:
    asked = {"every": "50ms", "rate": 1000, "nameservers": [f"{dns.host}:{dns.port}"]}
    with running(configure(hook.url, dns=asked), ledger) as watch:

        def told(kind: str) -> bool:
            watch.turn()
            return f"dns:member tx1:reverse name {kind} warn" in hook.told

        wait_for("the missing PTR", lambda: told("crossed"))
        dns.add({"1.2.0.192.in-addr.arpa": {"PTR": "out1.relay.example."}, "out1.relay.example": {"A": "192.0.2.1"}})
        wait_for("the PTR", lambda: told("recovered"))
    assert sum("member tx1:reverse name" in one for one in hook.told) == 2
