"""Notices over TLS: whose certificate is trusted."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relaywarden.config.monitor_settings import NoticeMailSettings, WebhookSettings
from relaywarden_monitor.notify import mail
from relaywarden_monitor.notify.channel import NotToldError
from relaywarden_monitor.notify.notice import Kind, Notice, Severity
from relaywarden_monitor.notify.webhook import Webhook
from testbed.ports import HOST, free_port

NOTICE = Notice.make("a", Kind.INFORMATION, Severity.INFO, subject="acme", what="a test", at=1000.0)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for HOST and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now, hour = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - hour, now + hour)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "tls.pem"
    file.write_bytes(private + signed.public_bytes(pem))
    return file


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Not on standard error."""


class _Server(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust it goes away."""


def test_a_webhook_needs_a_certificate_of_an_authority_that_the_system_trusts(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _Server((HOST, 0), _Handler) as server:
        server.socket = server_side(certificate).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        settings = WebhookSettings(url=f"https://{HOST}:{server.server_port}/")
        strict = Webhook("webhook-1", settings, "relay1")
        with pytest.raises(NotToldError, match="certificate verify failed"):
            strict.tell([NOTICE])
        strict.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = Webhook("webhook-1", settings, "relay1")
        trusting.tell([NOTICE])
        trusting.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("loopback", [True, False])
def test_mail_goes_by_starttls_with_a_good_certificate_but_on_loopback(
    certificate: Path, loopback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encrypted: list[bool] = []

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: ARG002, N802  # aiosmtpd's
            encrypted.append(session.ssl is not None)
            return "250 2.0.0 Ok"

    port = free_port()
    if not loopback:  # the only interface of a test
        monkeypatch.setattr(mail, "_is_loopback", lambda _: False)
    document = {"to": "a@relay.example", "sender": "b@relay.example", "server": f"{HOST}:{port}"}
    controller = Controller(Handler(), hostname=HOST, port=port, tls_context=server_side(certificate))
    controller.start()
    try:
        channel = mail.Mail("mail", NoticeMailSettings.model_validate(document), "relay1")
        if loopback:
            channel.tell([NOTICE])
        else:
            with pytest.raises(NotToldError, match=r"certificate is not good for 127\.0\.0\.1.*notify\.mail\.server") as raised:
                channel.tell([NOTICE])
            assert raised.value.lasting
    finally:
        controller.stop()
    assert encrypted == ([True] if loopback else [])


def test_what_the_loopback_interface_is() -> None:
    servers = ("127.0.0.2", "::1", "localhost", "192.0.2.1", "localhost.example", "127.0.0.1.example")
    assert [mail._is_loopback(server) for server in servers] == [True, True, True, False, False, False]
