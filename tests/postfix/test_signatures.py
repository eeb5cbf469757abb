"""Signatures as receivers see them: generated mail through a real Postfix, verified by two programs that share no code.

Every shape that mail comes in: 8-bit and undeclared 8-bit, lines of any length, folded and odd headers, missing and doubled
headers, empty bodies, blank lines, attachments, nested multiparts, dots and stray line ends.  RELAYWARDEN_SIGNED sets how
many (1,000 in `make campaign`).  The tenant signs with RSA and Ed25519, the operator with RSA.
"""

from __future__ import annotations

import base64
import os
import random
import smtplib
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from relaywarden.config.settings import DkimSettings
from relaywarden.dkimkeys import create_key, load_key
from testbed.dkimverify import by_dkimpy, by_perl
from testbed.dns import DnsServer
from testbed.factories import PostfixFactory, SidecarFactory, WorkFolder
from testbed.postfix import Postfix
from testbed.postfixconf import WITHOUT_POLICYD
from testbed.sink import Received, Sink

pytestmark = pytest.mark.postfix
MESSAGES = int(os.environ.get("RELAYWARDEN_SIGNED", "80"))
EXPECTED = [("acme.example", "sg1", "pass"), ("acme.example", "sg2", "pass"), ("relay.example", "sg3", "pass")]
OURS = ("acme.example", "relay.example")
RSA_ONLY = [EXPECTED[0], EXPECTED[2]]  # Debian 12's Mail::DKIM knows no Ed25519


def key(folder: Path, dns: DnsServer, domain: str, selector: str, kind: str) -> dict[str, str]:
    path = folder / f"{selector}.pem"
    create_key(path, kind)
    entry = {"domain": domain, "selector": selector, "key": str(path)}
    dns.add({f"{selector}._domainkey.{domain}": {"TXT": load_key(DkimSettings.model_validate(entry)).dns_record()}})
    return entry


@pytest.fixture(scope="module")
def postfix(
    postfix_factory: PostfixFactory, sidecar_factory: SidecarFactory, work_folder: WorkFolder, dns: DnsServer
) -> Postfix:
    folder = work_folder("signatures")
    secret = folder / "feedback.secret"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    started = postfix_factory(users={"acme": "secret"}, settings=WITHOUT_POLICYD)
    config: dict[str, Any] = {
        "store": f"sqlite:///{folder}/ledger.db",
        "milter": {"listen": f"unix:{started.milter_socket}", "body_in_memory": "64KiB"},
        "plans": {"p": {}},
        "tenants": {
            "acme": {
                "plan": "p",
                "from_domains": ["acme.example"],
                "dkim": [
                    key(folder, dns, "acme.example", "sg1", "rsa"),
                    key(folder, dns, "acme.example", "sg2", "ed25519"),
                ],
            }
        },
        "operator": {
            "dkim": [key(folder, dns, "relay.example", "sg3", "rsa") | {"identity": "{tenant}@relay.example"}],
            "feedback": {"sender_id": "relaytest", "address": "fbl@relay.example", "secret": str(secret)},
        },
        "signing": {"expire": "30d"},
    }
    sidecar_factory(config, "milter")
    return started


class Mint:
    """Makes odd but possible mail; the same seed makes the same mail."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def message(self, number: int) -> tuple[bytes, bool]:
        """The octets, and whether the client announces BODY=8BITMIME."""
        rng = self.rng
        content_headers, body = rng.choice([self.plain, self.plain, self.eight_bit, self.encoded, self.multipart, self.odd])()
        headers = [b"From: " + rng.choice(AUTHORS), b"To: " + rng.choice(RECIPIENTS), b"X-Number: %d" % number]
        if rng.random() < 0.9:
            headers.append(b"Date: Tue, 24 Nov 2026 08:00:00 +0000")
        if rng.random() < 0.9:
            headers.append(b"Message-ID: <%d.test@acme.example>" % number)
        headers += [rng.choice(SUBJECTS) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        headers += rng.sample(EXTRAS, rng.randrange(6))
        headers += content_headers
        rng.shuffle(headers)
        return b"\r\n".join([*headers, b"", body]), rng.random() < 0.5

    def text(self, most: int = 40) -> bytes:
        return b"".join(self.rng.choice(LINES) for _ in range(self.rng.randrange(most)))

    def plain(self) -> tuple[list[bytes], bytes]:
        return [], self.text()

    def odd(self) -> tuple[list[bytes], bytes]:
        return [], self.rng.choice(
            [b"", b"\r\n", b"\r\n\r\n\r\n", b" \r\n\t\r\n", b".\r\n..\r\n.x\r\n", b"x" * 100_000, b"no end"]
        )

    def eight_bit(self) -> tuple[list[bytes], bytes]:
        text = b"Gr\xc3\xbc\xc3\x9fe aus M\xc3\xbcnchen, " * self.rng.randrange(1, 60) + b"\r\n" + self.text(5)
        declared = [b"MIME-Version: 1.0", b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: 8bit"]
        return self.rng.choice([[], declared, declared[:2], declared[:1]]), text

    def encoded(self) -> tuple[list[bytes], bytes]:
        kind = self.rng.choice([b"base64", b"quoted-printable"])
        octets = self.rng.randbytes(self.rng.randrange(5000))
        body = base64.encodebytes(octets).replace(b"\n", b"\r\n") if kind == b"base64" else b"a=3Db =\r\nsoft\r\n" * 20
        return [b"MIME-Version: 1.0", b"Content-Type: text/html", b"Content-Transfer-Encoding: " + kind], body

    def multipart(self) -> tuple[list[bytes], bytes]:
        octets = base64.encodebytes(self.rng.randbytes(self.rng.randrange(200_000))).replace(b"\n", b"\r\n")
        body = (
            b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            b"Hallo J\xc3\xb6rg\r\n" + self.text(10) + b"\r\n--b\r\nContent-Type: application/pdf\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + octets + b"\r\n--b--\r\n"
        )
        encoding = [b"Content-Transfer-Encoding: 8bit"] if self.rng.random() < 0.5 else []
        return [b"MIME-Version: 1.0", b'Content-Type: multipart/mixed;\r\n\tboundary="b"', *encoding], body


AUTHORS = [
    b"a@acme.example",
    b'"Acme, Inc." <a@acme.example>',
    b"=?utf-8?q?Caf=C3=A9?=\r\n <a@acme.example>",
    b"Acme (shop) <a@acme.example>",
]
RECIPIENTS = [b"b@b.test", b"B <b@b.test>,\r\n\tC <c@b.test>", b"=?utf-8?b?SsO2cmc=?= <b@b.test>", b"undisclosed-recipients:;"]
SUBJECTS = [
    b"Subject: plain", b"Subject:   blanks   between  ", b"Subject:\r\n folded at once",
    b"subject: lower\r\n\tfolded\r\n   twice",
    b"Subject: " + b"long words " * 120, b"Subject:", "Subject: Grüße".encode(), b"SUBJECT:\tTAB\t\tTAB",
]  # fmt: skip
EXTRAS = [
    b"Reply-To: r@acme.example", b"Cc: d@b.test", b"Cc: e@b.test", b"Sender: s@acme.example", b"X-Empty:",
    b"List-Id: <x.acme.example>",
    b"List-Unsubscribe: <https://acme.example/u?" + b"q" * 300 + b">", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    b"References: " + b" ".join(b"<%d@acme.example>" % n for n in range(60)), b"Feedback-ID: forged:by:the:client",
    b"X-Virtual-MTA: q1", b"In-Reply-To: <1@acme.example>", b"X-8bit: \xff\xfe raw", b"Comments: \x01\x02 control",
    b"Content-Language: en", b"MIME-Version: 1.0", b"DKIM-Signature: v=1; a=rsa-sha256; d=else.example; s=x; h=from; bh=x; b=x",
]  # fmt: skip
LINES = [
    b"A line of ordinary length, as most are.\r\n", b"\r\n", b" leading and trailing \t \r\n", b"tab\ttab  two blanks\r\n",
    b"y" * 997 + b"\r\n", b"z" * 998 + b"\r\n", b"long " * 500 + b"\r\n", b"w" * 3000 + b"\r\n", b".\r\n", b"..two dots\r\n",
    b"From here on\r\n", b"\x0cform feed\x0c\r\n", b"=20 equals = \r\n",
]  # fmt: skip


def send(postfix: Postfix, count: int) -> None:
    mint = Mint(20261124)
    client = smtplib.SMTP(postfix.host, postfix.submission_port, timeout=60)
    client.ehlo("client.test")
    client.login("acme", "secret")
    for number in range(count):
        message, announced = mint.message(number)
        assert client.mail("shop@acme.example", ["BODY=8BITMIME"] if announced else [])[0] == 250
        assert client.rcpt("b@b.test")[0] == 250
        code, text = client.data(message)
        assert code == 250, (number, text, message[:2000])
    client.quit()


def one_by_perl(received: list[Received], dns: DnsServer) -> list[list[tuple[str, str, str]]]:
    return [[one for one in found if one[0] in OURS] for found in by_perl([r.raw for r in received], dns)]


def test_every_message_verifies_after_postfix(postfix: Postfix, sink: Sink, dns: DnsServer) -> None:
    send(postfix, MESSAGES)
    received = sink.wait(MESSAGES, timeout=120)
    for one, perl in zip(received, one_by_perl(received, dns), strict=True):
        assert [found for found in perl if found[1] != "sg2"] == RSA_ONLY, one.raw[:3000]
        if b"\x0c" not in one.raw:  # dkimpy strips form feeds as if they were blanks
            assert sorted(found for found in by_dkimpy(one.raw, dns) if found[0] in OURS) == EXPECTED, one.raw[:3000]
        assert b"forged:by:the:client" not in one.raw
        assert max(map(len, one.raw.split(b"\r\n"))) <= 998


def test_repaired_mail_says_what_was_sent(postfix: Postfix, sink: Sink) -> None:
    sink.clear()
    text = "Grüße, " * 300
    message = f"From: a@acme.example\r\nTo: b@b.test\r\nSubject: hi\r\n\r\n{text}\r\nsecond\r\n".encode()
    client = smtplib.SMTP(postfix.host, postfix.submission_port, timeout=60)
    client.login("acme", "secret")
    client.sendmail("shop@acme.example", ["b@b.test"], message)
    client.quit()
    (received,) = sink.wait(1)
    parsed = message_from_bytes(received.raw, policy=policy.default)
    assert parsed["Content-Transfer-Encoding"] == "quoted-printable"
    assert parsed.get_content().splitlines() == [text, "second"]
    assert parsed["Date"]
    assert parsed["Message-ID"]
