"""The monitor as a process: whatever kills it, the log that grows and rotates meanwhile is counted, each line once."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import smtplib
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import loggen
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.feedback import Tokens
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours
from relaywarden.outcomes import total
from relaywarden_monitor.attribute import Attributor, Counted
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.steps import Stepper
from testbed.classifying import classifier
from testbed.factories import WorkFolder
from testbed.process import wait_for
from testbed.redis import RedisServer
from testbed.sidecar import Sidecar, command

MESSAGES, SEED = 3_000, 7
OUTCOMES = ("delivered", "deferred", "bounced")
Start = Callable[..., Sidecar]


def config(work: Path, store: str = "", **monitor: Any) -> dict[str, Any]:
    names = [f"tenant{number:02}" for number in range(loggen.TENANTS)]
    return {
        "store": store or f"sqlite:///{work}/ledger.db",
        "ledger": {"timeout": "1s"},
        "plans": {"p": {"health": {"action": "none"}}},
        "tenants": {name: {"plan": "p"} for name in names},
        "pools": {"t": {"members": {name: {"ip": f"192.0.2.{n}"} for n, name in enumerate(("tx1", "tx2", "bk1"), 11)}}},
        "monitor": {"postfix_log": str(work / "mail.log"), "interval": "20ms", **monitor},
        "dns": {"every": None},
    }


@pytest.fixture(autouse=True)
def lately(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is an hour old: counters are kept for `monitor.history` only."""
    monkeypatch.setattr(loggen, "START", float(int(time.time()) - 3600))


@pytest.fixture
def work(work_folder: WorkFolder) -> Path:
    return work_folder("monitor")


@pytest.fixture
def start(work: Path) -> Iterator[Start]:
    """Starts a monitor; all are stopped in the end."""
    running: list[Sidecar] = []

    def make(document: dict[str, Any]) -> Sidecar:
        running.append(Sidecar(work, document, "monitor").start())
        return running[-1]

    yield make
    for sidecar in running:
        sidecar.stop()


class Counts:
    """What the ledger has of the tenants of the log."""

    def __init__(self, settings: Settings) -> None:
        self.ledger = open_ledger(settings)
        since = int(loggen.START * 1000)
        truth = loggen.truth(MESSAGES, SEED)
        self.truth = {name: {kind: getattr(found, kind) for kind in OUTCOMES} for name, found in truth.items() if name}
        self._asked = [History(name, since, since + 2 * HOUR_MS) for name in self.truth]

    def found(self) -> dict[str, dict[str, int]]:
        records = self.ledger.apply(self._asked)
        amounts = [total(record.hours.values()) for record in records if isinstance(record, Hours)]
        return {name: {kind: found[kind] for kind in OUTCOMES} for name, found in zip(self.truth, amounts, strict=True)}

    def any(self) -> bool:
        return any(amount for kinds in self.found().values() for amount in kinds.values())

    def close(self) -> None:
        self.ledger.close()


def lines() -> list[bytes]:
    return list(loggen.lines(MESSAGES, SEED))


class Log:
    """A log that grows line by line and is rotated as logrotate does it: renamed, numbered, and compressed the second time."""

    def __init__(self, path: Path) -> None:
        self.path, self._rest, self.rotations = path, lines(), 0
        self.path.touch()

    def grow(self, most: int, path: Path | None = None) -> int:
        """Write so many lines, the last ones perhaps in two pieces; how many are left."""
        some, self._rest = self._rest[:most], self._rest[most:]
        text = b"".join(some)
        cut = random.randrange(len(text) + 1)
        for piece in (text[:cut], text[cut:]):
            with (path or self.path).open("ab") as file:
                file.write(piece)
        return len(self._rest)

    def rotate(self) -> None:
        """The writer notices a little later."""
        for one in sorted(self.path.parent.glob("mail.log.[0-9]*"), key=lambda one: -int(one.name.split(".")[2])):
            number, *packed = one.name.split(".")[2:]
            target = self.path.with_name(".".join(["mail.log", str(int(number) + 1), "gz"]))
            if packed:
                one.rename(target)
            else:
                compress(one, target)
                one.unlink()
        renamed = self.path.with_name("mail.log.1")
        self.path.rename(renamed)
        self.grow(random.randrange(50), renamed)
        self.path.touch()
        self.rotations += 1


def compress(source: Path, target: Path) -> None:
    with gzip.open(target, "wb") as file:
        file.write(source.read_bytes())
    shutil.copystat(source, target)


def test_killed_at_any_moment_while_the_log_grows_and_rotates(work: Path) -> None:
    random.seed(int(os.environ.get("RELAYWARDEN_SEED", "1")))
    log, sidecar, kills = Log(work / "mail.log"), Sidecar(work, config(work), "monitor"), 0
    sidecar.write()
    counts = Counts(load(sidecar.file))
    left = log.grow(2_000)

    def lived_until(moment: float) -> bool:
        nonlocal left
        if left:
            left = log.grow(random.randrange(1, 20))
            if random.random() < 0.02:
                log.rotate()
        return time.monotonic() > moment

    with sidecar:
        wait_for("the first lines are counted", counts.any, log=sidecar.log)
        while left or kills < 10:
            wait_for("a moment", partial(lived_until, time.monotonic() + random.uniform(0.0, 0.15)), every=0.001)
            os.kill(sidecar.pid, signal.SIGKILL)
            assert sidecar.stop() == -signal.SIGKILL
            kills += 1
            left = log.grow(random.randrange(1_500, 2_500))  # so that the next kill meets it at work
            if kills % 2:
                log.rotate()
            sidecar.log.unlink()
            sidecar.start()
        wait_for("the counters are the truth", lambda: counts.found() == counts.truth, log=sidecar.log)
        assert (kills >= 10, log.rotations >= 3, "Traceback" in sidecar.log.read_text()) == (True, True, False)
        assert sidecar.stop() == 0
    assert counts.found() == counts.truth
    assert " stopped" in sidecar.log.read_text()
    counts.close()


def test_the_same_lines_under_other_names_add_nothing(work: Path, start: Start) -> None:
    path, packed = work / "mail.log", work / "mail.log.2.gz"
    log = Log(path)
    log.grow(20_000)
    first = start(config(work))
    counts = Counts(load(first.file))
    held = wait_until_quiet(counts)
    shutil.copy(path, work / "mail.log.1")
    compress(path, packed)
    os.utime(packed)  # as if it were new
    first.stop()
    first.log.unlink()
    second = start(config(work))
    assert wait_until_quiet(counts) == held
    log.grow(10**6)
    wait_for("what is new is counted, and nothing else", lambda: counts.found() == counts.truth, log=second.log)
    counts.close()


def wait_until_quiet(counts: Counts) -> dict[str, dict[str, int]]:
    """What was counted when all there is was read."""
    seen: list[Any] = []

    def same() -> bool:
        seen.append(counts.found())
        return counts.any() and len(seen) > 15 and all(one == seen[-1] for one in seen[-15:])  # 0.3 s: many turns

    wait_for("the monitor comes to rest", same)
    return dict(seen[-1])


def test_a_store_that_dies_costs_nothing(work: Path, work_folder: WorkFolder, start: Start) -> None:
    secret = work / "feedback.secret"
    secret.write_bytes(bytes(range(40)))
    secret.chmod(0o600)
    log, lmtp = Log(work / "mail.log"), work / "reports"
    with RedisServer(work_folder("redis"), {"appendonly": "yes", "appendfsync": "always"}) as redis:
        document = config(work, redis.url, listen=f"unix:{lmtp}")
        document["operator"] = {"feedback": {"sender_id": "relaytest", "secret": str(secret)}}
        log.grow(9_000)
        sidecar = start(document)
        counts = Counts(load(sidecar.file))
        wait_for("the first lines are counted", counts.any)
        redis.kill()
        log.grow(9_000)
        wait_for("it is told", lambda: "the store does not answer" in sidecar.log.read_text())
        token = Tokens.from_file(secret).make("tenant00", "4bQ1HBDY6Xz1", time.time())
        assert complain(lmtp, token) == 451  # whoever brings a report keeps it
        log.rotate()
        redis.start()
        assert complain(lmtp, token) == complain(lmtp, token) == 250
        log.grow(10**6)
        wait_for("the counters are the truth", lambda: counts.found() == counts.truth, log=sidecar.log, timeout=30)
        now_ms = int(time.time() * 1000)
        (record,) = counts.ledger.apply([History("tenant00", now_ms - HOUR_MS, now_ms)])
        assert isinstance(record, Hours)
        assert total(record.hours.values())["complained"] == 1
        redis.kill()
        assert sidecar.stop() == 0, "it stops also while the store is down"
        counts.close()


def complain(lmtp: Path, token: str) -> int:
    """Bring a complaint by LMTP, until the monitor answers for the store; its code."""
    text = (
        "From: fbl@provider.example\r\nTo: fbl@relay.example\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x\r\n"
        "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: T/1\r\nVersion: 1\r\n"
        f"Original-Rcpt-To: r@x.example\r\nCFBL-Feedback-ID: {token}\r\n--x--\r\n"
    )
    with smtplib.LMTP(str(lmtp)) as client:
        client.ehlo()
        client.mail("mailer@provider.example")
        client.rcpt("fbl@relay.example")
        return client.data(text)[0]


def test_a_broken_file_keeps_the_settings_that_were(work: Path, start: Start) -> None:
    log, document = Log(work / "mail.log"), config(work)
    log.grow(2_000)
    gone = document["tenants"].pop("tenant00")
    document["unknown_login"] = "reject"
    sidecar = start(document)
    counts = Counts(load(sidecar.file))
    wait_for("the first lines are counted", counts.any)
    sidecar.file.write_text("tenants: {tenant01: {plan: nowhere}}\n")
    os.kill(sidecar.pid, signal.SIGHUP)
    wait_for("the fault is told", lambda: "reload failed, the old settings stay in force" in sidecar.log.read_text())
    assert "nowhere" in sidecar.log.read_text()
    log.grow(8_000)
    before = wait_until_quiet(counts)
    assert before["tenant01"]["delivered"] > counts.truth["tenant01"]["delivered"] // 4
    assert before["tenant00"] == dict.fromkeys(OUTCOMES, 0)
    sidecar.config["tenants"] = {**document["tenants"], "tenant00": gone}
    sidecar.write()
    os.kill(sidecar.pid, signal.SIGHUP)
    wait_for("the new file holds", lambda: " reloaded " in sidecar.log.read_text())
    log.grow(10**6)
    wait_for("the new tenant counts", lambda: counts.found()["tenant00"]["delivered"] > 0)
    assert sidecar.stop() == 0
    counts.close()


def test_a_second_monitor_does_not_start(work: Path, start: Start) -> None:
    Log(work / "mail.log")
    sidecar = start(config(work))
    done = subprocess.run([*command(), "--config", str(sidecar.file), "monitor"], check=False, capture_output=True, text=True)
    assert (done.returncode, "another monitor reads" in done.stderr) == (2, True)
    assert sidecar.alive()


class Faulty(Attributor):
    """Has an error of ours, once, after half of its work."""

    failed = False

    def attribute(self, events: Any, docket: Docket) -> Counted:
        found = super().attribute(events, docket)
        if not self.failed and found.hours:
            self.failed = True
            raise ZeroDivisionError
        return found


def test_after_an_error_of_ours_the_same_lines_are_tried_again(work: Path) -> None:
    Log(work / "mail.log").grow(10**6)
    values = Settings.model_validate(config(work))
    counts, attributor = Counts(values), Faulty(values, classifier())
    stepper = Stepper(PostfixFile(work / "mail.log"), counts.ledger, Docket(), lambda _: True, sift=False,
                      remember_ms=HOUR_MS, history_ms=values.monitor.history)  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        while stepper.step(attributor, 10_000)[1] is not None:
            pass
    while stepper.step(attributor, 10_000)[1] is not None:
        pass
    assert counts.found() == counts.truth
    counts.close()
