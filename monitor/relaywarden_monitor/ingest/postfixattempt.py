"""postfixattempt - what a delivery agent of Postfix logs of one recipient, as an `Attempt`.  Pure.

Wire format (log_adhoc.c of Postfix; all but the first and the last three fields may be absent, newer versions add some):

    to=<ADDRESS>, orig_to=<ADDRESS>, relay=mx.example[192.0.2.1]:25, conn_use=2, delay=1.5, delays=0/0/1/0.5, dsn=5.1.1,
    status=bounced (host mx.example[192.0.2.1] said: 550 5.1.1 no such user (in reply to RCPT TO command))

`reply` is what the other side said.  Postfix wraps it, joining the lines of a multi-line reply by blanks:

    host NAME[IP] said: REPLY (in reply to COMMAND command)
    host NAME[IP] refused to talk to me: REPLY
    SASL authentication failed; server NAME[IP] said: REPLY

Postfix' own texts stay as they are: `connect to NAME[IP]:25: Connection refused`, `delivered to mailbox`.  So does `delivery
temporarily suspended: host NAME[IP] refused ...`: it repeats for a recipient that was not tried what was said to another.

How it fails: a line that does not fit raises ProtocolError.  Addresses and replies are hostile: an address may hold
`>, relay=` within quotes, a reply may look like fields; the expressions know quotes and read from the front.

Known limits: the recipient is as logged, in Postfix' external form, quotes included (info_log_addr_form).  With the internal
form, which has no quotes, a `>` in an address makes the line one that does not fit.  `status=sent` of local(8) may mean
`forwarded as` another message, and of discard(8) that nobody got it.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from relaywarden.errors import ProtocolError
from relaywarden_monitor.events import Attempt, Outcome
from relaywarden_monitor.ingest.postfixline import Line, shown

_OUTCOMES = {
    b"sent": Outcome.DELIVERED,
    b"deferred": Outcome.DEFERRED,
    b"SOFTBOUNCE": Outcome.DEFERRED,  # soft_bounce=yes: it would have bounced, and stays in the queue
    b"bounced": Outcome.BOUNCED,
    b"expired": Outcome.BOUNCED,
    b"force-expired": Outcome.BOUNCED,
}
_PROBES = frozenset({b"deliverable", b"undeliverable", b"undeliverable-but-not-cached"})
_FIELDS = (
    rb">, relay=([^\s,]{1,400}), (?:[a-z_]{1,20}=[^\s,]{0,400}, ){0,8}?dsn=([\d.]{1,12}), status=([A-Za-z-]{1,40})(?: \((.*))?"
)
_PLAIN = re.compile(rb"to=<([^\">]*)(?:>, orig_to=<[^\">]*)?" + _FIELDS, re.DOTALL)
_ADDRESS = rb"[^\">]*(?:\"[^\"\\]*(?:\\.[^\"\\]*)*\"[^\">]*)*"
_QUOTED = re.compile(rb"to=<(" + _ADDRESS + rb")(?:>, orig_to=<" + _ADDRESS + rb")?" + _FIELDS, re.DOTALL)
_RELAY = re.compile(rb"([^\[\s]*)(?:\[([^\]\s]*)\])?(?::\d{1,5})?")
_REMOTE = re.compile(
    rb"(?:host|SASL authentication failed; server) ([^\[\s]{1,255})(?:\[([^\]\s]{1,64})\])?(?::\d{1,5})? "
    rb"(?:said|refused to talk to me): (.*)",
    re.DOTALL,
)
_IN_REPLY = b" (in reply to "


def attempt(line: Line) -> Attempt | None:
    """The attempt of a line that begins with `to=<`; None for a probe of an address, which carries no mail.

    Raises ProtocolError where the line does not fit.
    """
    found = _PLAIN.match(line.text) or _QUOTED.match(line.text)
    if found is None:
        raise ProtocolError("expected to=<...>, relay=..., dsn=..., status=... (...)")
    recipient, relay_field, dsn, status, text = found.groups()
    outcome = _OUTCOMES.get(status)
    if outcome is None:
        if status in _PROBES:
            return None
        raise ProtocolError(f"expected status=sent, deferred, bounced or expired, got {shown(status)}")
    relay, relay_ip = _relay(relay_field)
    reply = b"" if text is None else text[:-1] if text.endswith(b")") else text
    if said := _REMOTE.match(reply):
        host, address, reply = said.groups()
        reply = reply.rpartition(_IN_REPLY)[0] or reply
        if not relay:
            relay, relay_ip = shown(host), _address(address)
    return Attempt(
        line.at,
        line.queue_id,
        shown(recipient),
        outcome,
        line.member,
        relay,
        relay_ip,
        dsn.decode(),
        shown(reply),
        given_up=status.endswith(b"expired"),
    )


def _relay(field: bytes) -> tuple[str, str]:
    """Name and address; both empty where there was none, the address also where it is a Unix socket."""
    if field == b"none":
        return "", ""
    found = _RELAY.match(field)
    if found is None:  # cannot be: every part may be empty
        return "", ""
    return shown(found[1]), _address(found[2])


@lru_cache(maxsize=1024)
def _address(text: bytes | None) -> str:
    """An IP address as logged; empty where it is none."""
    try:
        ipaddress.ip_address(text.decode() if text else "")
    except ValueError:
        return ""
    return shown(text or b"")
