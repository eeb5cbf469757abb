"""A tenant's mail program: SMTP AUTH and one message at a time, with the reply of every stage as a value.

Nothing a server answers is an exception here: `send` goes on as far as a real client would and its `Transaction` holds
each reply (code 0 and the error's text if the connection broke).  Only a server that cannot be reached, or that refuses
the greeting, raises.

    with Client(host, port, login="acme", password="...") as client:
        sent = client.send("news@acme.example", ["a@b.example"], b"Subject: hi\\r\\n\\r\\nhi\\r\\n")
        assert sent.accepted and sent.queue_id

On the testbed's XCLIENT port a client gives `xclient={"LOGIN": "acme", "ADDR": "192.0.2.1"}` instead of a password.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

_QUEUED = re.compile(r"queued as (\S+)")


@dataclass(frozen=True)
class Reply:
    """One SMTP reply: 250 and "2.1.5 Ok"; several lines are joined with newlines."""

    code: int
    text: str

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 400

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass
class Transaction:
    """The replies of one message; a stage that was not reached is None."""

    mail: Reply | None = None
    rcpt: dict[str, Reply] = field(default_factory=dict)
    data: Reply | None = None
    end: Reply | None = None

    @property
    def accepted(self) -> bool:
        return self.end is not None and self.end.ok

    @property
    def queue_id(self) -> str:
        found = _QUEUED.search(self.end.text) if self.end else None
        return found[1] if found else ""

    @property
    def last(self) -> Reply:
        """The reply that decided: the final one, or the refusal that ended it earlier."""
        stages = [self.mail, *self.rcpt.values(), self.data, self.end]
        return [reply for reply in stages if reply is not None][-1]


def plain_message(sender: str, recipients: Sequence[str], subject: str, body: str = "Hello.", extra: str = "") -> bytes:
    """A small message; `extra` are more header lines, each ending in a newline."""
    text = f"From: {sender}\nTo: {', '.join(recipients)}\nSubject: {subject}\n{extra}\n{body}\n"
    return text.replace("\n", "\r\n").encode()


class Client:
    """A connection; `auth` is the reply to AUTH (None if no login was given)."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        login: str | None = None,
        password: str = "",
        xclient: Mapping[str, str] | None = None,
        helo: str = "client.test",
        timeout: float = 60.0,
    ) -> None:
        self.auth: Reply | None = None
        self.smtp = smtplib.SMTP(host, port, local_hostname=helo, timeout=timeout)
        self.smtp.ehlo()
        if xclient:
            self._command("XCLIENT " + " ".join(f"{name}={value}" for name, value in xclient.items()))
            self.smtp.ehlo()
        if login is not None:
            self.auth = self._login(login, password)

    def send(self, sender: str, recipients: Sequence[str], message: bytes, *, size: bool = True) -> Transaction:
        """One message.  DATA is only sent when a recipient was accepted; after a refusal the state is reset."""
        sent = Transaction()
        announced = f" SIZE={len(message)}" if size and self.smtp.has_extn("size") else ""
        sent.mail = self._command(f"MAIL FROM:<{sender}>{announced}")
        if sent.mail.ok:
            for recipient in recipients:
                sent.rcpt[recipient] = self._command(f"RCPT TO:<{recipient}>")
        if any(reply.ok for reply in sent.rcpt.values()):
            sent.data = self._command("DATA")
            if sent.data.code == 354:
                sent.end = self._body(message)
        if not sent.accepted and sent.last.code not in (0, 421, 521):
            self._command("RSET")
        return sent

    def _body(self, message: bytes) -> Reply:
        lines = re.sub(rb"\r?\n", b"\r\n", message)
        stuffed = re.sub(rb"(?m)^\.", b"..", lines)
        if not stuffed.endswith(b"\r\n"):
            stuffed += b"\r\n"
        try:
            self.smtp.send(stuffed + b".\r\n")
            return _reply(self.smtp.getreply())
        except (OSError, smtplib.SMTPException) as error:
            return Reply(0, str(error))

    def _login(self, login: str, password: str) -> Reply:
        try:
            return _reply(self.smtp.login(login, password, initial_response_ok=True))
        except smtplib.SMTPResponseException as error:
            return _reply((error.smtp_code, error.smtp_error))
        except (OSError, smtplib.SMTPException) as error:
            return Reply(0, str(error))

    def _command(self, line: str) -> Reply:
        try:
            return _reply(self.smtp.docmd(line))
        except (OSError, smtplib.SMTPException) as error:
            return Reply(0, str(error))

    def close(self) -> None:
        try:
            self.smtp.quit()
        except (OSError, smtplib.SMTPException):
            self.smtp.close()  # it is gone already

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _reply(answer: tuple[int, bytes | str]) -> Reply:
    code, text = answer
    return Reply(code, text.decode(errors="replace") if isinstance(text, bytes) else text)
