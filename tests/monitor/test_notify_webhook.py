"""Notices over HTTP to a real server that answers well, badly, late or not at all."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from relaywarden.config.monitor_settings import NotifySettings, WebhookSettings
from relaywarden.errors import KeyFileError, RelaywardenError, StoreUnavailableError
from relaywarden_monitor.notify import notifier
from relaywarden_monitor.notify.channel import Backoff, NotToldError
from relaywarden_monitor.notify.courier import Courier
from relaywarden_monitor.notify.notice import Kind, Notice, NoticeError, Severity
from relaywarden_monitor.notify.notifier import Notifier
from relaywarden_monitor.notify.store import MemoryStore
from relaywarden_monitor.notify.webhook import Webhook, retry_after
from testbed.ports import HOST, free_port
from testbed.process import wait_for

SECRET = b"0123456789abcdef-of-the-hook"
FAST = Backoff(shortest=0.01, longest=0.05)


@dataclass(frozen=True)
class Post:
    """One request, and from which port it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    port: int

    @property
    def ids(self) -> list[str]:
        return [notice["id"] for notice in json.loads(self.body)["notices"]]


Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"thanks")
BUSY: Answer = (503, {}, b"")
GONE: Answer = (404, {}, b"")


def always(answer: Answer) -> Callable[[Post], Answer]:
    return lambda _: answer


class Receiver(ThreadingHTTPServer):
    """Answers each post by the next of `answers`, then as `answer` says; None: the connection is closed without an answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.answers: deque[Answer | None] = deque()
        self.answer: Callable[[Post], Answer | None] = always(OK)
        super().__init__((HOST, 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def where(self) -> str:
        return f"{HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.where}/hook"

    @property
    def told(self) -> list[str]:
        return [notice_id for post in self.posts for notice_id in post.ids]

    def wait(self, posts: int) -> list[Post]:
        wait_for(f"the receiver did not get {posts} posts", lambda: len(self.posts) >= posts)
        return self.posts

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:  # http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        post = Post(self.path, dict(self.headers), body, self.client_address[1])
        self.server.posts.append(post)
        answer = self.server.answers.popleft() if self.server.answers else self.server.answer(post)
        if answer is None:
            self.close_connection = True
            return
        status, headers, text = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: Any) -> None:
        """Not on standard error."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def hook(receiver: Receiver) -> Iterator[Webhook]:
    channel = Webhook("webhook-1", WebhookSettings(url=receiver.url, timeout="500ms"), "relay1")
    yield channel
    channel.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def notify() -> Iterator[Callable[..., Notifier]]:
    """Makes and starts a Notifier: `notify([url, ...], store, batch="1s")`."""
    running: list[Notifier] = []

    def make(urls: list[str], store: MemoryStore | None = None, *, backoff: Backoff = FAST, **more: Any) -> Notifier:
        made = Notifier(settings(urls, **more), store or MemoryStore(), host="relay1", backoff=backoff, capacity=50)
        made.start()
        running.append(made)
        return made

    yield make
    for each in running:
        each.stop(0.2)


def settings(urls: list[str], **more: Any) -> NotifySettings:
    hooks = [{"url": url, "timeout": "5s"} for url in urls]
    return NotifySettings.model_validate({"webhooks": hooks, "batch": "1ms", **more})


def notice(name: str, severity: Severity = Severity.WARN, what: str = "too much") -> Notice:
    return Notice.make(name, Kind.CROSSED, severity, subject="acme", what=what, at=1000.0, evidence={"share": 0.5})


def counted(channel: str, result: str) -> float:
    return REGISTRY.get_sample_value("relaywarden_monitor_notices_total", {"channel": channel, "result": result}) or 0.0


def logged(caplog: pytest.LogCaptureFixture, text: str) -> list[dict[str, Any]]:
    return [record.__dict__["relaywarden_fields"] for record in caplog.records if text in record.getMessage()]


# One post.


def test_a_post_is_signed_as_its_receiver_checks_it(receiver: Receiver, secret: Path) -> None:
    channel = Webhook("webhook-1", WebhookSettings(url=receiver.url, secret=secret), "relay1")
    channel.tell([notice("a"), notice("b")])
    channel.tell([notice("a"), notice("b")])
    channel.close()
    post, again = receiver.posts
    parts = dict(part.split("=", 1) for part in post.headers["X-Relaywarden-Signature"].split(","))

    def genuine(key: bytes, body: bytes) -> bool:
        expected = hmac.new(key, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 300

    assert genuine(SECRET, post.body)
    assert not genuine(b"another", post.body)
    assert not genuine(SECRET, post.body.replace(b"acme", b"ecma"))
    assert post.headers["Content-Type"] == "application/json"
    assert post.headers["User-Agent"].startswith("relaywarden/")
    assert post.headers["X-Relaywarden-Batch"] == again.headers["X-Relaywarden-Batch"]
    document = json.loads(post.body)
    assert (document["version"], document["host"]) == (1, "relay1")
    assert [Notice.from_json(each) for each in document["notices"]] == [notice("a"), notice("b")]


@pytest.mark.parametrize(
    ("answer", "after", "lasting", "unfit"),
    [
        ((500, {}, b""), 0, False, False),
        ((503, {"Retry-After": "7"}, b""), 7, False, False),
        ((429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b""), 0, False, False),
        ((408, {}, b""), 0, False, False),
        ((404, {"Retry-After": "7"}, b""), 0, True, False),
        ((401, {}, b""), 0, True, False),
        ((410, {}, b""), 0, True, False),
        ((400, {}, b""), 0, False, True),
        ((413, {}, b""), 0, False, True),
        ((302, {"Location": "http://127.0.0.1:1/elsewhere"}, b""), 0, True, False),
        (None, 0, False, False),
    ],
)
def test_what_an_answer_means(
    receiver: Receiver, hook: Webhook, answer: Answer | None, after: float, lasting: bool, unfit: bool
) -> None:
    receiver.answers.append(answer)
    with pytest.raises(NotToldError) as raised:
        hook.tell([notice("a")])
    assert (raised.value.after, raised.value.lasting, raised.value.unfit) == (after, lasting, unfit)
    assert str(raised.value).startswith(f"http://{receiver.where}")
    assert len(receiver.posts) == 1


def test_a_receiver_that_is_silent_or_not_there(receiver: Receiver) -> None:
    go_on = threading.Event()
    receiver.answer = lambda _: OK if go_on.wait(10) else None
    channel = Webhook("webhook-1", WebhookSettings(url=receiver.url, timeout="100ms"), "relay1")
    with pytest.raises(NotToldError, match=r"no answer within 0\.1 s"):
        channel.tell([notice("a")])
    channel.close()
    go_on.set()
    channel = Webhook("webhook-1", WebhookSettings(url=f"http://{HOST}:{free_port()}"), "relay1")
    with pytest.raises(NotToldError, match=r"cannot connect.*refused"):
        channel.tell([notice("a")])
    channel.close()


def test_the_connection_is_kept_unless_the_answer_is_too_long(receiver: Receiver, hook: Webhook) -> None:
    receiver.answers.extend([OK, (503, {}, b"x"), (200, {}, b"x" * 10_000_000), OK])
    for number in range(4):
        try:
            hook.tell([notice(str(number))])
        except NotToldError as error:
            assert "503" in str(error)  # the second one, and the connection is kept
    ports = [post.port for post in receiver.posts]
    assert ports[0] == ports[1] == ports[2] != ports[3]


def test_no_log_line_and_no_error_has_the_secret_parts_of_a_url(
    receiver: Receiver, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = receiver.url.replace("//", "//hidden-user:hidden-password@") + "/hidden-path?token=hidden-query"
    receiver.answers.extend([(404, {}, b""), (302, {"Location": url}, b""), None, OK])
    channel = Webhook("webhook-1", WebhookSettings(url=url, secret=secret), "relay1")
    texts = []
    for _ in range(3):
        with pytest.raises(NotToldError) as raised:
            channel.tell([notice("a")])
        texts.append(str(raised.value))
    channel.tell([notice("a")])
    channel.close()
    assert receiver.posts[3].headers["Authorization"].startswith("Basic ")
    assert receiver.posts[3].path == "/hook/hidden-path?token=hidden-query"
    texts += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert not [text for text in texts if "hidden" in text or SECRET.decode() in text]


@pytest.mark.parametrize("url", ["https://:8080/x", "http://[::1", "http://h:port", "http://h:99999", "http://h\n/x"])
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(NoticeError, match=r"notify\.webhooks\[0\]\.url: expected an url such as") as raised:
        Notifier(settings([url]), MemoryStore())
    assert url not in str(raised.value)


def test_a_secret_that_is_none_is_refused(secret: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret.write_bytes(b"short\n")
    with pytest.raises(KeyFileError, match="expected at least 16 bytes, got 5"):
        Webhook("webhook-1", WebhookSettings(url="http://h", secret=secret), "relay1")
    secret.write_bytes(SECRET)
    secret.chmod(0o644)
    Webhook("webhook-1", WebhookSettings(url="http://h", secret=secret), "relay1").close()
    assert "chmod o-rwx" in logged(caplog, "is not secret")[0]["problem"]


@given(st.text() | st.from_regex(r"[0-9]{1,80}") | st.datetimes().map(lambda at: f"{at:%a, %d %b %Y %H:%M:%S} GMT"))
def test_any_retry_after_is_a_number_of_seconds(text: str) -> None:
    seconds = retry_after(text, time.time())
    assert seconds >= 0
    assert math.isfinite(seconds)


# The queue and the thread.


def test_what_cannot_be_told_is_tried_until_it_is(
    receiver: Receiver, notify: Callable[..., Notifier], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told, store = counted("webhook-1", "told"), MemoryStore()
    receiver.answers.extend([(500, {}, b""), (404, {}, b""), None, OK])
    notify([receiver.url], store).submit(notice("a"))
    wait_for("told", lambda: counted("webhook-1", "told") == told + 1)
    assert [post.ids for post in receiver.posts] == [[notice("a").id]] * 4
    assert len({post.headers["X-Relaywarden-Batch"] for post in receiver.posts}) == 1
    wait_for("the store is empty", lambda: not store.all())
    reasons = [str(fields["reason"]) for fields in logged(caplog, "trying again")]
    assert [reason.partition(f"{receiver.where} ")[2][:12] for reason in reasons] == ["answered 500", "answered 404", ""]
    assert logged(caplog, "told again") == [{"channel": "webhook-1", "waiting": 0}]
    assert [fields["subject"] for fields in logged(caplog, "notice") if "kind" in fields] == ["acme"]


def test_notices_of_a_while_go_out_together_each_once(receiver: Receiver, notify: Callable[..., Notifier]) -> None:
    sending = notify([receiver.url], batch="300ms")
    for name in ("a", "b", "a", "c", "b"):
        sending.submit(notice(name))
    (post,) = receiver.wait(1)
    assert post.ids == [notice(name).id for name in ("a", "b", "c")]


def test_a_slow_receiver_holds_up_nobody(receiver: Receiver, other: Receiver, notify: Callable[..., Notifier]) -> None:
    go_on = threading.Event()
    receiver.answer = lambda _: OK if go_on.wait(20) else None
    sending = notify([receiver.url, other.url])
    started = time.monotonic()
    for number in range(50):
        sending.submit(notice(str(number)))
    assert time.monotonic() - started < 1.0
    wait_for("the other one is told", lambda: len(other.told) == 50)
    assert len(receiver.posts) <= 1
    go_on.set()
    wait_for("the slow one is told", lambda: len(receiver.told) == 50)


def test_a_restart_goes_on_with_what_waits(receiver: Receiver, notify: Callable[..., Notifier]) -> None:
    receiver.answer = always(BUSY)
    store = MemoryStore()
    sending = notify([receiver.url], store, backoff=Backoff(60.0, 60.0))
    sending.submit(notice("a"))
    receiver.wait(1)
    sending.submit(notice("b"))
    assert sending.stop(2.0) == 2
    receiver.answer = always(OK)
    store.put("webhook-1/damaged", "{")
    store.put("webhook-1/0123456789abcdef", store.all()[0][1])  # by another's key
    store.put("webhook-7/0123456789abcdef", "{}")  # of a channel that is gone
    notify([receiver.url], store)
    receiver.wait(2)
    assert receiver.posts[1].ids == [notice("a").id, notice("b").id]
    wait_for("the store is empty", lambda: not store.all())


def test_a_stop_tells_what_waits(receiver: Receiver, notify: Callable[..., Notifier]) -> None:
    store = MemoryStore()
    sending = notify([receiver.url], store, batch="1h")
    sending.submit(notice("a"))
    assert sending.stop(5.0) == 0
    assert receiver.told == [notice("a").id]
    assert store.all() == []


def test_what_waited_for_too_long_is_given_up(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answer = always(GONE)
    failed, store, now = counted("old", "failed"), MemoryStore(), [1000.0]
    channel = Webhook("old", WebhookSettings(url=receiver.url), "relay1")
    courier = Courier(channel, store, batch=0.0, keep=60.0, backoff=FAST, clock=lambda: now[0])
    courier.start()
    courier.submit(notice("a"))
    receiver.wait(3)
    now[0] += 61.0
    wait_for("given up", lambda: counted("old", "failed") == failed + 1)
    wait_for("the store is empty", lambda: not store.all())
    (fields,) = logged(caplog, "given up")
    assert (fields["count"], fields["notices"]) == (1, notice("a").id)
    assert "answered 404" in str(fields["reason"])
    courier.ask_to_stop(1.0)
    assert courier.join(2.0) == 0


def test_one_notice_that_is_refused_does_not_hold_up_the_others(receiver: Receiver, notify: Callable[..., Notifier]) -> None:
    failed = counted("webhook-1", "failed")
    receiver.answer = lambda post: (422, {}, b"") if b"poison" in post.body else OK
    sending = notify([receiver.url], batch="100ms")
    names = [str(number) for number in range(10)]
    for name in names:
        sending.submit(notice(name, what="poison" if name == "4" else "too much"))
    wait_for("the refused one is given up", lambda: counted("webhook-1", "failed") == failed + 1)
    wait_for("the others are told", lambda: accepted(receiver) == {notice(name).id for name in names if name != "4"})


def accepted(receiver: Receiver) -> set[str]:
    return {notice_id for post in receiver.posts if b"poison" not in post.body for notice_id in post.ids}


def test_a_full_queue_keeps_what_matters(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    dropped = counted("webhook-1", "dropped")
    receiver.answer = always(BUSY)
    store = MemoryStore()
    sending = Notifier(settings([receiver.url]), store, capacity=3, backoff=Backoff(60.0, 60.0))
    sending.start()
    sending.submit(notice("first"))
    receiver.wait(1)
    for name, severity in (("i", Severity.INFO), ("a", Severity.ACT), ("w", Severity.WARN), ("b", Severity.ACT)):
        sending.submit(notice(name, severity))
    assert sending.stop(2.0) == 3
    assert counted("webhook-1", "dropped") == dropped + 2
    assert len(logged(caplog, "too many notices wait")) == 1
    left = {key.partition("/")[2] for key, _ in store.all()}
    assert left == {notice("a", Severity.ACT).id, notice("w").id, notice("b", Severity.ACT).id}


def test_a_reload_corrects_a_url_and_keeps_what_waits(
    receiver: Receiver, other: Receiver, notify: Callable[..., Notifier]
) -> None:
    receiver.answer = always(GONE)
    store = MemoryStore()
    sending = notify([receiver.url], store, backoff=Backoff(60.0, 60.0))
    sending.submit(notice("a"))
    receiver.wait(1)
    with pytest.raises(RelaywardenError):
        sending.reload(settings(["http://["]))
    sending.reload(settings([other.url, receiver.url]))
    other.wait(1)
    assert other.told == [notice("a").id]
    sending.submit(notice("b"))
    receiver.wait(2)  # it is webhook-2 now
    sending.reload(settings([other.url]))
    wait_for("what waited for webhook-2 is gone", lambda: not store.all())
    sending.submit(notice("c"))
    wait_for("told", lambda: len(other.told) == 3)
    assert len(receiver.posts) == 2


class WeakStore(MemoryStore):
    """Does not answer while it is down."""

    down = True

    def put(self, key: str, document: str) -> None:
        self._check()
        super().put(key, document)

    def all(self) -> list[tuple[str, str]]:
        self._check()
        return super().all()

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("the store is down")


def test_with_the_store_down_notices_are_told_all_the_same(
    receiver: Receiver, notify: Callable[..., Notifier], caplog: pytest.LogCaptureFixture
) -> None:
    store = WeakStore()
    sending = notify([receiver.url], store, backoff=Backoff(60.0, 60.0))
    sending.submit(notice("a"))
    receiver.wait(1)
    receiver.answer = always(BUSY)
    sending.submit(notice("b"))
    receiver.wait(2)
    assert len(logged(caplog, "are not stored")) == 1
    store.down = False
    assert sending.stop(2.0) == 1
    assert [key for key, _ in store.all()] == [f"webhook-1/{notice('b').id}"]


def test_a_test_tells_by_every_channel_and_says_which_fails(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mail = {"to": "ops@relay.example", "sender": "rw@relay.example", "server": f"{HOST}:{free_port()}"}
    results = dict(notifier.test(settings([receiver.url, "http://[", receiver.url], mail=mail), "relay1"))
    assert list(results) == ["log", "webhook-1", "webhook-2", "webhook-3", "mail"]
    assert results["log"] is results["webhook-1"] is results["webhook-3"] is None
    assert "notify.webhooks[1].url: expected" in str(results["webhook-2"])
    assert "Connection refused" in str(results["mail"])
    assert len(receiver.posts) == 2
    assert logged(caplog, "notice")[0]["kind"] == "information"
