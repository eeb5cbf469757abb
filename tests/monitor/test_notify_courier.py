"""The courier where the fault is ours: an error in a channel, a store that hangs.  The rest is in test_notify_webhook."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from relaywarden_monitor.notify.channel import Backoff
from relaywarden_monitor.notify.courier import Courier
from relaywarden_monitor.notify.notice import Kind, Notice, Severity
from relaywarden_monitor.notify.store import MemoryStore
from testbed.process import wait_for

NOTICE = Notice.make("a", Kind.CROSSED, Severity.ACT, subject="acme", what="too much", at=1000.0)


class Memo:
    """A channel that keeps what it is told, after failing some times in a way that nobody expects."""

    name = "memo"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.told: list[str] = []

    def tell(self, notices: Sequence[Notice]) -> None:
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError
        self.told += [notice.id for notice in notices]

    def close(self) -> None:
        """There is nothing to give back."""


class HangingStore(MemoryStore):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def put(self, key: str, document: str) -> None:
        self.go_on.wait(20)
        super().put(key, document)


def test_an_error_of_our_own_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    channel = Memo(failures=2)
    courier = Courier(channel, MemoryStore(), batch=0.0, keep=60.0, backoff=Backoff(0.01, 0.05))
    courier.start()
    courier.submit(NOTICE)
    wait_for("told in the end", lambda: channel.told == [NOTICE.id])
    courier.ask_to_stop(1.0)
    assert courier.join(2.0) == 0
    assert caplog.text.count("ZeroDivisionError") >= 2


def test_a_store_that_hangs_does_not_hold_up_who_submits() -> None:
    channel, store = Memo(), HangingStore()
    courier = Courier(channel, store, batch=0.0, keep=60.0)
    courier.start()
    started = time.monotonic()
    for number in range(100):
        courier.submit(Notice.make(str(number), Kind.CROSSED, Severity.ACT, subject="acme", what="too much", at=1000.0))
    assert time.monotonic() - started < 1.0
    assert channel.told == []  # stored first
    store.go_on.set()
    courier.ask_to_stop(5.0)
    assert courier.join(5.0) == 0
    assert len(channel.told) == 100
    assert store.all() == []


def test_a_stop_does_not_wait_for_what_hangs() -> None:
    store = HangingStore()
    courier = Courier(Memo(), store, batch=0.0, keep=60.0)
    courier.start()
    courier.submit(NOTICE)
    started = time.monotonic()
    courier.ask_to_stop(0.1)
    assert courier.join(0.1) == 1
    assert time.monotonic() - started < 2.0
    store.go_on.set()
