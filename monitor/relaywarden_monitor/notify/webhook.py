"""webhook - notices as JSON over HTTP, signed.

    POST URL
    Content-Type: application/json
    User-Agent: relaywarden/VERSION
    X-Relaywarden-Batch: 16 hexadecimal digits, the same when the same notices are posted again
    X-Relaywarden-Signature: t=SECONDS,v1=HEX            if a secret is set

    {"version": 1, "host": "relay1.example", "notices": [...]}       each as in `notice`; any 2xx means: taken

HEX is HMAC-SHA256, keyed with the octets of the secret file (without line ends after the last other octet), over SECONDS (since
1970), a dot and the body's octets.  A receiver checks it before it parses anything:

    parts = dict(part.split("=", 1) for part in header.split(","))
    expected = hmac.new(secret, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    genuine = hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 300

and drops notices whose id it has seen: a post whose answer was lost comes again.

How it fails: NotToldError.  No answer, 408, 425, 429 and 5xx are tried again with growing waits, as late as Retry-After asks
(RFC 9110 section 10.2.3; an hour at most).  400, 413 and 422 may be due to the notices: fewer are sent at once.  Any other
answer, redirects among them, says that URL or secret are wrong or the receiver is: nothing is thrown away, as people can mend
that, but it is tried at the slowest pace.  Redirects are not followed, so the notices go nowhere else.

Logs name scheme, host and port only: path, query and credentials of a webhook's URL are often its secret.

Known limits: `timeout` holds for each step (connecting, sending, one piece of the answer), not for all together; a receiver
that trickles holds up its own channel.  No proxy: the environment is not asked.
"""

from __future__ import annotations

import hmac
import json
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from relaywarden import __version__, secretfile
from relaywarden.config.monitor_settings import WebhookSettings
from relaywarden.errors import KeyFileError
from relaywarden.logs import event
from relaywarden_monitor.notify.channel import NotToldError, batch_id
from relaywarden_monitor.notify.notice import Notice, NoticeError, one_line

log = logging.getLogger(__name__)
VERSION = 1
SMALLEST_SECRET = 16
_LARGEST_SECRET = 4096
_LARGEST_ANSWER = 64 * 1024  # read so that the connection can be used again; a larger one costs it
_LATER = {408, 425, 429}
_UNFIT = {400, 413, 422}
_LONGEST_REASON = 200

# At level info httpx logs the URL of every request, credentials and query included (encode/httpx issue 2760).
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Webhook:
    """One URL; used by one thread at a time."""

    def __init__(self, name: str, settings: WebhookSettings, host: str, clock: Callable[[], float] = time.time) -> None:
        """`host`: who tells.  Raises NoticeError for a URL that is none, KeyFileError for a secret that cannot be used."""
        self.name = name
        self._url, self._where = _checked(settings.url)
        self._host = host
        self._clock = clock
        self._timeout = settings.timeout / 1000
        self._secret = _secret(settings.secret) if settings.secret else None
        self._client = httpx.Client(
            timeout=self._timeout,
            verify=ssl.create_default_context(),  # of the system, where an operator adds his own authority
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": f"relaywarden/{__version__}", "Content-Type": "application/json"},
        )

    def tell(self, notices: Sequence[Notice]) -> None:
        """Post them all at once; raises NotToldError."""
        content = {"version": VERSION, "host": self._host, "notices": [notice.to_json() for notice in notices]}
        body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        headers = {"X-Relaywarden-Batch": batch_id(notices)}
        if self._secret is not None:
            headers["X-Relaywarden-Signature"] = signature(self._secret, int(self._clock()), body)
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                status, wish = answer.status_code, answer.headers.get("Retry-After", "")
                _read(answer, time.monotonic() + self._timeout)
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise NotToldError(f"{self._where}: {self._reason(error)}") from error
        if not 200 <= status < 300:
            raise _refused(self._where, status, wish, self._clock())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _reason(self, error: Exception) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, httpx.ConnectError):
            return one_line(f"cannot connect: {error}", _LONGEST_REASON)
        return f"the connection broke ({type(error).__name__})"  # whose text may hold what was sent


def signature(secret: bytes, at: int, body: bytes) -> str:
    """The value of X-Relaywarden-Signature; `at` in seconds since 1970."""
    return f"t={at},v1={hmac.new(secret, f'{at}.'.encode() + body, 'sha256').hexdigest()}"


def retry_after(text: str, now: float) -> float:
    """Seconds from `now` that a Retry-After asks for, as number or as date (RFC 9110 section 10.2.3); 0: none that is one."""
    text = text.strip()[:64]
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _refused(where: str, status: int, wish: str, now: float) -> NotToldError:
    if status in _LATER or status >= 500:
        return NotToldError(f"{where} answered {status}", after=retry_after(wish, now))
    if status in _UNFIT:
        return NotToldError(f"{where} answered {status}: it does not take these notices", unfit=True)
    hint = "redirects are not followed" if 300 <= status < 400 else "wrong URL or secret?"
    return NotToldError(f"{where} answered {status}: {hint}; expected 2xx, see notify.webhooks", lasting=True)


def _read(answer: httpx.Response, deadline: float) -> None:
    """Until its end, or enough of it; what it says does not matter."""
    size = 0
    for piece in answer.iter_raw():
        size += len(piece)
        if size > _LARGEST_ANSWER or time.monotonic() > deadline:
            return


def _checked(url: str) -> tuple[str, str]:
    """The URL, and what of it may be shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise NoticeError("expected an url such as https://host/path, got one that cannot be read") from error
    if not host or parts.scheme not in {"http", "https"}:
        raise NoticeError("expected an url such as https://host/path, got one without host")
    host = f"[{host}]" if ":" in host else host
    return url, one_line(f"{parts.scheme}://{host}{f':{port}' if port else ''}", _LONGEST_REASON)


def _secret(path: Path) -> bytes:
    data, warning = secretfile.read(path, "secret", _LARGEST_SECRET)
    if warning:
        event(log, logging.WARNING, "the secret of a webhook is not secret", problem=warning)
    data = data.rstrip(b"\r\n")  # an editor's, which no receiver would guess
    if len(data) < SMALLEST_SECRET:
        found = f"expected at least {SMALLEST_SECRET} bytes, got {len(data)}"
        raise KeyFileError(f"{path}: not a secret: {found}; make it by: openssl rand -hex 32")
    return data
