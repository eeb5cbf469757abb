"""mail - notices as plain text for people: one mail a batch, over SMTP, to a server that needs no login.

The mail is no tenant's: it must not go to a port where policyd and milter charge it to somebody.  Auto-Submitted (RFC 3834
section 5) keeps other programs from answering it.  Its Message-ID is the same when the same notices are sent again.

STARTTLS is used where it is offered.  The certificate must be good for the server's name, except on the loopback interface,
where Postfix has a self-signed one.

How it fails: NotToldError; 4xx replies and broken connections are tried again with growing waits, 5xx ones at the slowest
pace, as people can mend what they complain of.  A 5xx to the message itself may be due to the notices: fewer go at once.
Where some of several recipients are refused, the others are told, and a log line names who was not.

Known limits: who can change packets between here and the server can hide STARTTLS.  TIMEOUT holds for each step.
"""

from __future__ import annotations

import ipaddress
import logging
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage
from email.utils import formatdate

from relaywarden.addresses import Address
from relaywarden.config.monitor_settings import NoticeMailSettings
from relaywarden.errors import SpecError
from relaywarden.logs import event
from relaywarden_monitor.notify.channel import NotToldError, batch_id
from relaywarden_monitor.notify.notice import Kind, Notice, NoticeError, Severity, one_line

log = logging.getLogger(__name__)
TIMEOUT = 30.0  # seconds
_PORT = 25
_LONGEST_SUBJECT = 160
_LONGEST_REASON = 300


class Mail:
    """One server and its recipients; used by one thread at a time."""

    def __init__(self, name: str, settings: NoticeMailSettings, host: str, clock: Callable[[], float] = time.time) -> None:
        """`host`: who tells.  Raises NoticeError for settings that cannot work."""
        if not settings.sender or not all(settings.to):
            raise NoticeError("expected sender and to to be addresses such as relay@relay.example, got an empty one")
        self.name = name
        self._server, self._port = _endpoint(settings.server)
        self._settings, self._host, self._clock = settings, host, clock

    def tell(self, notices: Sequence[Notice]) -> None:
        """Send one mail about all of them; raises NotToldError."""
        message = compose(notices, self._settings, self._host, self._clock())
        where = f"{self._server}:{self._port}"
        try:
            refused = self._send(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, reply = min(error.recipients.values())  # where one may be accepted later, it is worth trying
            raise _refused(where, code, reply) from error
        except smtplib.SMTPResponseException as error:
            raise _refused(where, error.smtp_code, error.smtp_error, isinstance(error, smtplib.SMTPDataError)) from error
        except ssl.SSLCertVerificationError as error:
            text = f"{where}: its certificate is not good for {self._server}: {error.verify_message}; see notify.mail.server"
            raise NotToldError(one_line(text, _LONGEST_REASON), lasting=True) from error
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
            raise NotToldError(one_line(f"{where}: {reason}", _LONGEST_REASON)) from error
        for recipient, (code, reply) in refused.items():
            event(log, logging.WARNING, "a recipient of notices is refused, the others are told", recipient=recipient,
                  reply=f"{code} {_text(reply)}")  # fmt: skip

    def close(self) -> None:
        """No connection outlives a mail."""

    def _send(self, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
        """Who was refused, if anybody was not."""
        server = smtplib.SMTP(self._server, self._port, timeout=TIMEOUT)
        try:
            server.ehlo_or_helo_if_needed()
            if server.has_extn("starttls"):
                server.starttls(context=_tls(self._server))
                server.ehlo_or_helo_if_needed()
            refused = server.send_message(message, self._settings.sender, self._settings.to)
            _quit(server)
        finally:
            server.close()
        return refused


def compose(notices: Sequence[Notice], settings: NoticeMailSettings, host: str, now: float) -> EmailMessage:
    """The mail about these notices; `now` in seconds since 1970."""
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Subject"] = one_line(_subject(notices, host), _LONGEST_SUBJECT)
    message["Date"] = formatdate(now)
    message["Message-ID"] = f"<{batch_id(notices)}.notice@{settings.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    # Quoted-printable is for servers without 8BITMIME, and for lines longer than SMTP's 998 octets.
    message.set_content("\n".join(_lines(notices, host)) + "\n", cte="quoted-printable")
    return message


def _subject(notices: Sequence[Notice], host: str) -> str:
    # What somebody must see first; the order in the text stays that of events.
    first = max(notices, key=lambda notice: (notice.kind is Kind.CROSSED, list(Severity).index(notice.severity)))
    more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
    return f"[relaywarden {host}] {_headline(first)}{more}: {first.what}"


def _headline(notice: Notice) -> str:
    return f"{notice.subject} {notice.kind.value} {notice.severity.value}"


def _lines(notices: Sequence[Notice], host: str) -> Iterator[str]:
    yield f"relaywarden on {one_line(host, 253)}:"
    for notice in notices:
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", _moment(notice.at))
        yield from ("", _headline(notice), f"    {notice.what}", f"    when: {moment}")
        for name, value in notice.evidence.items():
            yield f"    {name}: {value:g}" if isinstance(value, float) else f"    {name}: {value}"
        if notice.undo:
            yield f"    to see more or undo it: {notice.undo}"
        yield f"    notice {notice.id}"


def _moment(at: float) -> time.struct_time:
    try:
        return time.gmtime(at)
    except (ValueError, OverflowError, OSError):
        return time.gmtime(0)  # a year that no calendar has


def _refused(where: str, code: int, text: bytes | str, unfit: bool = False) -> NotToldError:
    final = 500 <= code < 600
    reason = one_line(f"{where} answered {code} {_text(text)}", _LONGEST_REASON)
    return NotToldError(f"{reason}; see notify.mail" if final else reason, lasting=final and not unfit, unfit=final and unfit)


def _text(reply: bytes | str) -> str:
    text = reply.decode("utf-8", "backslashreplace") if isinstance(reply, bytes) else reply
    return one_line(" ".join(text.split()), _LONGEST_REASON)


def _quit(server: smtplib.SMTP) -> None:
    """Part in peace.  The server has the mail: whatever it says to this must not send it once more."""
    try:
        server.docmd("QUIT")
    except (smtplib.SMTPException, OSError) as error:
        event(log, logging.DEBUG, "the mail server left without a word", error=type(error).__name__)


def _tls(server: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if _is_loopback(server):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return server == "localhost"


def _endpoint(server: str) -> tuple[str, int]:
    """`host:port`, `[::1]:port`, or a host alone."""
    bare = server.startswith("[") and server.endswith("]")
    text = f"{server}:{_PORT}" if bare or ":" not in server else server
    try:
        address = Address.parse(f"inet:{text}")
    except SpecError as error:
        raise NoticeError(f"notify.mail.server: expected host:port, got {server!r}") from error
    return address.host, address.port
