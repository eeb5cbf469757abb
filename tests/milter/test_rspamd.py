"""The talk with rspamd: a real one, and servers that are none."""

from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from relaywarden.config.settings import ScanSettings
from relaywarden.errors import ScanError
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.message import Message
from relaywarden_milter.rspamd import Scanner, request_headers
from relaywarden_milter.spool import Spool
from relaywarden_milter.upstreams import FAILURES_TO_OPEN
from testbed.ports import free_port
from testbed.process import wait_for
from testbed.rspamd import GTUBE, Rspamd
from testbed.standins import HttpStandIn

MESSAGE = b"From: a@acme.example\r\nTo: b@x.example\r\nSubject: hi\r\nMessage-ID: <1@acme.example>\r\n\r\nhello\r\n"


def scanner(*urls: str, timeout: str = "2s", tick_seconds: float = 5.0, **more: Any) -> Scanner:
    settings = ScanSettings.model_validate({"url": list(urls), "timeout": timeout, **more})
    return Scanner(settings, tick_seconds=tick_seconds)


def envelope(recipients: int = 1) -> Envelope:
    return Envelope(
        "192.0.2.9", 4000, "host.example", "helo.example", "relay.test", "acme", "a@acme.example",
        [f"recipient{number}@some.domain.example" for number in range(recipients)], "4Q",
    )  # fmt: skip


def large_message(size: int, in_memory: int = 2**20) -> Message:
    message = Message(2**30, in_memory=in_memory)
    message.add_header("From", b"a@acme.example")
    message.add_header("X-Testbed-Action", b"reject")
    for start in range(0, size, 64_800):
        text = os.urandom(31_500).hex().encode()  # zstd halves it at best
        lines = b"".join(text[at : at + 70] + b"\r\n" for at in range(0, len(text), 70))
        message.add_body(lines[: size - start])
    return message


def http(body: bytes, status: bytes = b"200 OK", *more: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"Connection: close", b"Content-Length: %d" % len(body), *more, b"", body]
    return b"\r\n".join(head)


OK = http(b'{"action": "no action"}')
BUSY = http(b'{"error": "x"}', b"503 Busy")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def assert_descriptors(count: int) -> None:
    wait_for(f"{count} open descriptors", lambda: descriptors() == count)  # the stand-in closes its end when it likes


def up(server: HttpStandIn) -> float | None:
    return REGISTRY.get_sample_value("relaywarden_milter_upstream_up", {"upstream": server.name})


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


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_gtube(rspamd: Rspamd, compression: str) -> None:
    scan = scanner(rspamd.url, compression=compression).scan(MESSAGE + GTUBE.encode(), envelope())
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
    settings = ScanSettings.model_validate({"url": "http://x", "settings_id": "out"})
    headers = request_headers(odd, settings)
    assert [value for name, value in headers if name == "Rcpt"] == [b"r1", b"r2"]
    assert {("Settings-ID", b"out"), ("User", b"xy")} < set(headers)
    assert "Helo" not in dict(headers)
    assert not any(set(b"\r\n\0") & set(value) for _, value in headers)
    assert ("Settings-ID", b"plan") in request_headers(odd, settings, "plan")


@given(st.builds(Envelope, *[st.text()] * 1, st.just(1), *[st.text(max_size=5000)] * 5, st.lists(st.text(max_size=400))))
def test_request_headers_fit_into_what_rspamd_reads(any_envelope: Envelope) -> None:
    any_envelope.recipients *= 40
    headers = request_headers(any_envelope, ScanSettings.model_validate({"url": "http://x"}))
    assert sum(len(name) + len(value) + 4 for name, value in headers) < 75 * 1024
    assert not any(set(b"\r\n\0") & set(value) for _, value in headers)


def test_a_message_to_very_many_recipients_is_scanned(rspamd: Rspamd) -> None:
    scan = scanner(rspamd.url).scan(b"X-Testbed-Action: reject\r\n" + MESSAGE, envelope(recipients=20_000))
    assert scan.action == "reject"  # rspamd's parser closes the connection at more than 80 KiB of headers


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", http(b"{}"), http(b"not json"), http(b'{"error": "x"}', b"503 Busy"),
     http(b'{"action": "reject"}', b"500 No"),
     b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"\xff" * 100_000],
)  # fmt: skip
def test_useless_answers_are_errors(answer: bytes) -> None:
    with HttpStandIn(answer) as server, pytest.raises(ScanError):
        scanner(server.url).scan(MESSAGE, envelope())


def test_an_answer_without_end_is_an_error() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (5 * 2**20)
    with HttpStandIn(endless) as server, pytest.raises(ScanError, match="larger"):
        scanner(server.url).scan(MESSAGE, envelope())


def test_a_dripping_server_does_not_outlast_the_deadline() -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000, http(b'{"action": "no action"' + b" " * 1000)):
        with HttpStandIn(answer, drip=0.05) as server:
            began = time.monotonic()
            with pytest.raises(ScanError):
                scanner(server.url, timeout="0.4s").scan(MESSAGE, envelope())
            assert time.monotonic() - began < 2.0


def test_a_silent_server_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(ScanError, match="Timeout"):
            scanner(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout="0.3s").scan(MESSAGE, envelope())
        assert time.monotonic() - began < 2.0


def test_the_second_url_answers_for_the_first(rspamd: Rspamd) -> None:
    assert scanner(f"http://127.0.0.1:{free_port()}", rspamd.url).scan(MESSAGE, envelope()).action == "no action"


@pytest.mark.parametrize("in_memory", [2**20, 1000])
@pytest.mark.parametrize("size", [0, 100, 65_000, 300_000])
def test_the_message_arrives_whole_and_not_in_chunks(size: int, in_memory: int) -> None:
    message = large_message(size, in_memory)
    raw = message.raw()
    with HttpStandIn(OK) as server, closing(message):
        assert scanner(server.url).scan(message, envelope(), settings_id="plan-a").action == "no action"
        assert scanner(server.url).scan(message, envelope(), headers=[("X", b"1")]).action == "no action"
        whole, edited = server.requests
    assert whole.body == raw
    assert f"\r\nContent-Length: {len(raw)}" in whole.head
    assert "\r\nSettings-ID: plan-a\r\n" in whole.head
    assert "Transfer-Encoding" not in whole.head
    assert edited.body == b"X: 1\r\n" + raw[raw.index(b"\r\n\r\n") + 2 :]


def test_a_body_that_was_rewritten_is_scanned_in_place_of_the_own() -> None:
    message, body = large_message(1000), Spool()
    body.write(b"repaired\r\n")
    with HttpStandIn(OK) as server:
        scanner(server.url).scan(message, envelope(), headers=[], body=body)
        assert server.requests[0].body == b"\r\nrepaired\r\n"


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_compression_sends_the_same_message(size: int) -> None:
    message = large_message(size, in_memory=1000)
    with HttpStandIn(OK) as server, closing(message):
        before = descriptors()
        assert scanner(server.url, compression="zstd").scan(message, envelope()).action == "no action"
        assert_descriptors(before)
        request = server.requests[0]
        assert "\r\nCompression: zstd\r\n" in request.head
        assert zstandard.get_frame_parameters(request.body).content_size == len(message.raw())
        assert zstandard.ZstdDecompressor().decompress(request.body) == message.raw()


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_rspamd_takes_a_compressed_message_whole(rspamd: Rspamd, size: int) -> None:
    with closing(large_message(size)) as message:
        scan = scanner(rspamd.url, timeout="20s", compression="zstd").scan(message, envelope())
        assert scan.action == "reject"
        assert f"uncompressed: {message.pieces().size}\n" in rspamd.log.read_text(errors="replace") + "\n"


def packed(body: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(body)


@pytest.mark.parametrize(
    ("body", "problem"),
    [(packed(b" " * 10**8), "larger"), (b"garbage", "zstd"), (packed(b"{}"), "no action"), (packed(OK * 9)[:-5], "JSON")],
)
def test_useless_compressed_answers_are_errors(body: bytes, problem: str) -> None:
    with HttpStandIn(http(body, b"200 OK", b"Compression: zstd")) as server, pytest.raises(ScanError, match=problem):
        scanner(server.url, compression="zstd").scan(MESSAGE, envelope())


def test_an_answer_before_the_message_is_read_counts() -> None:
    answer = http(b"{}", b"413 Too large")
    with (
        HttpStandIn(answer, reads=False) as server,
        closing(large_message(10_000_000)) as message,
        pytest.raises(ScanError, match="413"),  # and not "Connection reset"
    ):
        scanner(server.url).scan(message, envelope())


def test_a_server_that_does_not_read_does_not_outlast_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(large_message(30_000_000)) as message:
        began, ticks = time.monotonic(), list[float]()
        asked = scanner(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout="0.6s", tick_seconds=0.1)
        with pytest.raises(ScanError, match="Timeout"):
            asked.scan(message, envelope(), lambda: ticks.append(time.monotonic()))
        assert time.monotonic() - began < 3.0
        assert len(ticks) >= 3


def test_a_message_whose_body_is_lost_is_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with HttpStandIn(OK) as server:
        asked = scanner(server.url)
        for message in (Message(100), Message(10**6, keep_body=False), Message(10**6, in_memory=10)):
            with monkeypatch.context() as patched:
                patched.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
                message.add_body(bytes(200))
            with pytest.raises(ScanError, match="not scanned"):
                asked.scan(message, envelope())
        ended = large_message(100)
        ended.close()
        with pytest.raises(ScanError, match="closed"):
            asked.scan(ended, envelope())
        assert not server.requests
        assert up(server) == 1


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_broken_temporary_file_is_not_blamed_on_the_server(compression: str) -> None:
    with HttpStandIn(OK) as server, closing(large_message(300_000, in_memory=1000)) as message:
        file = message.body_pieces()._file
        assert file is not None
        os.ftruncate(file.fileno(), 100_000)
        asked, before = scanner(server.url, compression=compression), descriptors()
        for _ in range(5):
            with pytest.raises(ScanError, match=r"ends after|cannot be"):
                asked.scan(message, envelope())
        assert asked.upstreams[0].breaker.failures == 0
        assert_descriptors(before)


def test_the_session_is_told_while_the_scan_is_slow() -> None:
    told: list[int] = []
    with HttpStandIn(OK, delay=0.65) as server:
        scan = scanner(server.url, tick_seconds=0.1).scan(MESSAGE, envelope(), lambda: told.append(threading.get_ident()))
    assert scan.action == "no action"
    assert set(told) == {threading.get_ident()}
    assert 3 <= len(told) <= 6  # fewer than one in 0.1 s on a busy machine, never more


def test_the_session_is_told_also_when_the_server_is_never_silent() -> None:
    told: list[float] = []
    with HttpStandIn(OK, drip=0.005) as server:  # 86 octets
        scanner(server.url, tick_seconds=0.1).scan(MESSAGE, envelope(), lambda: told.append(time.monotonic()))
    assert len(told) >= 2


def test_a_hanging_server_leaves_time_for_the_next_and_is_then_skipped() -> None:
    with HttpStandIn(OK, delay=60) as hanging, HttpStandIn(OK) as alive:
        asked = scanner(hanging.url, alive.url, timeout="0.8s")
        for _ in range(FAILURES_TO_OPEN):
            began = time.monotonic()
            assert asked.scan(MESSAGE, envelope()).action == "no action"
            assert 0.3 < time.monotonic() - began < 0.8
        assert not asked.upstreams[0].breaker.ready(time.monotonic())
        opened = time.monotonic()
        for _ in range(20):
            assert asked.scan(MESSAGE, envelope()).action == "no action"
        assert time.monotonic() - opened < 0.4  # less than one wait for the first
        assert (up(hanging), up(alive)) == (0, 1)


@pytest.mark.parametrize("answer", [BUSY, http(b"x", b"404 Not found"), http(b"garbage"), b""])
def test_each_kind_of_failure_counts_and_is_logged_once(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with HttpStandIn(answer, reads=bool(answer)) as bad, HttpStandIn(OK) as alive, caplog.at_level(logging.INFO):
        asked = scanner(bad.url, alive.url)
        for _ in range(10):
            assert asked.scan(MESSAGE, envelope()).action == "no action"
        assert len(alive.requests) == 10
        assert (up(bad), up(alive)) == (0, 1)
        assert [record.getMessage() for record in caplog.records] == [
            "rspamd is down, it is skipped but for a probe now and then"
        ]
        asked.upstreams[0].breaker.next_probe = time.monotonic()  # one probe, that fails too
        asked.scan(MESSAGE, envelope())
        assert not asked.upstreams[0].breaker.ready(time.monotonic())
        assert len(caplog.records) == 1
        assert vars(caplog.records[0])["relaywarden_fields"]["upstream"] == bad.name
        assert vars(caplog.records[0])["relaywarden_fields"]["reason"]
        caplog.clear()
        bad.answer, bad.reads = OK, True
        asked.upstreams[0].breaker.next_probe = time.monotonic()  # the waiting time is over
        for _ in range(10):
            asked.scan(MESSAGE, envelope())
        assert len(alive.requests) == 11
        assert [record.getMessage() for record in caplog.records] == ["rspamd answers again"]
        assert up(bad) == 1


def test_one_server_that_is_down_is_not_waited_for() -> None:
    asked = scanner(f"http://127.0.0.1:{free_port()}")
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(ScanError, match=r"127\.0\.0\.1:\d+: Connection refused"):
            asked.scan(MESSAGE, envelope())
    with pytest.raises(ScanError, match="not asked at the moment"):
        asked.scan(MESSAGE, envelope())


def test_a_dead_second_server_takes_no_time_from_the_first() -> None:
    with HttpStandIn(OK, delay=0.5) as slow:
        asked = scanner(slow.url, f"http://127.0.0.1:{free_port()}", timeout="0.9s")
        for _ in range(FAILURES_TO_OPEN):
            asked.upstreams[1].failed(time.monotonic() - 60, "test")  # and ready for a probe
        assert asked.scan(MESSAGE, envelope()).action == "no action"


def test_scans_leave_no_descriptor_behind() -> None:
    with HttpStandIn(OK) as good, HttpStandIn(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{") as short:
        hanging = socket.create_server(("127.0.0.1", 0))
        with ExitStack() as left:
            left.callback(hanging.close)
            urls = [f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{hanging.getsockname()[1]}", short.url, good.url]
            before = descriptors()
            for _ in range(5):
                assert scanner(*urls, timeout="1s").scan(MESSAGE, envelope()).action == "no action"
            assert_descriptors(before)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """One PEM file of a key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    none = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return pem


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_https_is_verified_and_keeps_the_deadline(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpStandIn(OK, tls=tls) as server:
        with pytest.raises(ScanError, match=r"CERTIFICATE_VERIFY_FAILED|verify failed"):
            scanner(server.url).scan(MESSAGE, envelope())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with closing(large_message(3_000_000)) as message:
            before = descriptors()
            assert scanner(server.url).scan(message, envelope()).action == "no action"
            assert_descriptors(before)
            assert server.requests[-1].size == message.pieces().size
    with HttpStandIn(http(b'{"action": "no action"' + b" " * 1000), tls=tls, drip=0.05) as server:
        began, told = time.monotonic(), list[int]()
        with pytest.raises(ScanError, match="Timeout"):
            scanner(server.url, timeout="0.6s", tick_seconds=0.1).scan(MESSAGE, envelope(), lambda: told.append(1))
        assert time.monotonic() - began < 2.0
        assert len(told) >= 3


_MEMORY = """
import json, sys
from relaywarden.config.settings import ScanSettings
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.message import Message
from relaywarden_milter.rspamd import Scanner

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

settings = ScanSettings.model_validate(json.loads(sys.argv[1]))
scanner = Scanner(settings)
small = Message(2**30)
small.add_body(b"hello")
scanner.scan(small, Envelope())  # what is loaded at the first use does not count
before = peak()
message = Message(2**30)
with open("/dev/urandom", "rb") as random:
    for _ in range(800):
        message.add_body(random.read(65_536))
scanner.scan(message, Envelope())
print(json.dumps([peak() - before, message.pieces().size]))
"""


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_large_message_is_not_held_in_memory(compression: str) -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'milter'}"}
    with HttpStandIn(OK) as server:
        settings = json.dumps({"url": server.url, "timeout": "60s", "compression": compression})
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, settings], env=env, capture_output=True, check=False, timeout=120, text=True
        )
        assert done.returncode == 0, done.stderr
        growth, size = json.loads(done.stdout)
        assert size > 50 * 2**20
        assert server.requests[-1].size >= size
        assert growth < 12 * 2**20
