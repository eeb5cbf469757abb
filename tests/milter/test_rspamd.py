"""The talk with rspamd: a real one, and servers that are none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relaywarden.config.settings import ScanSettings
from relaywarden.errors import ScanError
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.rspamd import Scanner, request_headers
from testbed.ports import free_port
from testbed.rspamd import GTUBE, Rspamd

MESSAGE = b"From: a@acme.example\r\nTo: b@x.example\r\nSubject: hi\r\nMessage-ID: <1@acme.example>\r\n\r\nhello\r\n"


def scanner(*urls: str, timeout: str = "2s") -> Scanner:
    return Scanner(ScanSettings.model_validate({"url": list(urls), "timeout": timeout}))


def envelope() -> Envelope:
    return Envelope(
        "192.0.2.9", 4000, "host.example", "helo.example", "relay.test", "acme", "a@acme.example", ["b@x.example"], "4Q"
    )


@contextmanager
def server(answer: bytes, *, drip: float = 0.0) -> Iterator[str]:
    """Answers every connection with these octets, one each `drip` seconds; then closes."""
    listener = socket.create_server(("127.0.0.1", free_port()))
    stop = threading.Event()

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                got = b""
                while not got.endswith(b"hello\r\n") and (piece := peer.recv(65536)):
                    got += piece  # all of it: closing with octets unread would reset the connection
                for at in range(0, len(answer), 1 if drip else max(1, len(answer))):
                    try:
                        peer.sendall(answer[at : at + 1] if drip else answer)
                    except OSError:
                        break
                    if stop.wait(drip):
                        return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("no action", ""),
        ("add header", ""),
        ("soft reject", "testbed: soft reject"),
        ("reject", "testbed: reject"),
        ("discard", ""),
    ],
)
def test_real_verdicts(rspamd: Rspamd, action: str, text: str) -> None:
    scan = scanner(rspamd.url).scan(b"X-Testbed-Action: " + action.encode() + b"\r\n" + MESSAGE, envelope())
    assert scan.action == action
    assert text in scan.text


def test_gtube(rspamd: Rspamd) -> None:
    scan = scanner(rspamd.url).scan(MESSAGE + GTUBE.encode(), envelope())
    assert scan.action == "reject"
    assert "Gtube" in scan.text


def test_rspamd_sees_the_envelope(rspamd: Rspamd) -> None:
    odd = Envelope("2001:db8::1", 1, "h\r\nSettings: {}", "he lo\0", "relay.test", "jörg@acme.example", "jörg@acme.example",
                   ["b@x.example", "ü@x.example"], "4ODDQUEUE")  # fmt: skip
    assert scanner(rspamd.url).scan(MESSAGE, odd).action
    log = rspamd.log.read_text(errors="replace")
    assert "qid: <4ODDQUEUE>" in log
    assert "jörg@acme.example" in log


def test_request_headers_never_hold_line_ends() -> None:
    odd = Envelope("1.2.3.4", 1, "a\r\nb", "\n", "m", "x\ry", "s\0", ["r1\n", "r2", ""], "")
    headers = request_headers(odd, ScanSettings.model_validate({"url": "http://x", "settings_id": "out"}))
    assert headers.getlist("Rcpt") == ["r1", "r2"]
    assert headers["Settings-ID"] == "out"
    assert headers["User"] == "xy"
    assert "Helo" not in headers
    assert not any(set("\r\n\0") & set(value) for _, value in headers.iteritems())


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", http(b"{}"), http(b"not json"), http(b'{"error": "x"}', b"503 Busy"),
     http(b'{"action": "reject"}', b"500 No"),
     b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"\xff" * 100_000],
)  # fmt: skip
def test_useless_answers_are_errors(answer: bytes) -> None:
    with server(answer) as url, pytest.raises(ScanError):
        scanner(url).scan(MESSAGE, envelope())


def test_an_answer_without_end_is_an_error() -> None:
    with server(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (5 * 2**20)) as url, pytest.raises(ScanError, match="larger"):
        scanner(url).scan(MESSAGE, envelope())


def test_a_dripping_server_does_not_outlast_the_deadline() -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000, http(b'{"action": "no action"' + b" " * 1000)):
        with server(answer, drip=0.05) as url:
            began = time.monotonic()
            with pytest.raises(ScanError):
                scanner(url, timeout="0.4s").scan(MESSAGE, envelope())
            assert time.monotonic() - began < 2.0


def test_a_silent_server_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(ScanError, match="Timeout"):
            scanner(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout="0.3s").scan(MESSAGE, envelope())
        assert time.monotonic() - began < 2.0


def test_the_second_url_answers_for_the_first(rspamd: Rspamd) -> None:
    assert scanner(f"http://127.0.0.1:{free_port()}", rspamd.url).scan(MESSAGE, envelope()).action == "no action"


def test_the_breaker_spares_messages_and_closes_again(rspamd: Rspamd) -> None:
    port = free_port()
    asked = scanner(f"http://127.0.0.1:{port}")
    for _ in range(5):
        with pytest.raises(ScanError, match=r"127\.0\.0\.1"):
            asked.scan(MESSAGE, envelope())
    with pytest.raises(ScanError, match="not asked at the moment"):
        asked.scan(MESSAGE, envelope())
    breaker = asked._breaker
    breaker.closed_at = time.monotonic()  # the waiting time is over
    assert breaker.admits()
    assert not breaker.admits()  # one probe at a time
    breaker.succeeded()
    assert breaker.admits()
