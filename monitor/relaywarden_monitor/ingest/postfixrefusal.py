"""postfixrefusal - what Postfix logs of a client that it turned away, as a `Refused`.  Pure.

Wire format (smtpd_check.c, smtpd.c, cleanup_message.c, cleanup_milter.c, postscreen_smtpd.c), after the queue id:

    reject: RCPT from name[192.0.2.9]: 450 4.7.1 <a@b.example>: ... ; from=<..> to=<..> proto=ESMTP helo=<..>
    discard: RCPT from name[192.0.2.9]: <a@b.example>: ... DISCARD action; from=...
    milter-reject: END-OF-MESSAGE from name[192.0.2.9]: 5.7.1 text; from=... helo=<..> sasl_username=<..>
    proxy-reject: END-OF-MESSAGE: 550 5.7.1 text; from=...
    reject: header Subject: ... from name[192.0.2.9]; from=<..> to=<..> proto=ESMTP helo=<..>: 5.7.1 text

The last one is header_checks' and body_checks'; the client hears it at the end of the message, so that is its stage.

How it fails: a line that begins like one of these and does not fit raises ProtocolError; other actions (hold, warn, filter,
redirect, prepend, reject_warning, milter-hold, ...) turn nobody away and are None.

Known limits: Postfix quotes nothing here.  A client that writes `; from=<` into an address cuts its own reply short.  The login
is read only where no HELO name can have forged it; Postfix 3.7 logs it where a milter or proxy refused, never with `reject`.
"""

from __future__ import annotations

import re

from relaywarden.errors import ProtocolError
from relaywarden_monitor.events import Refused
from relaywarden_monitor.ingest.postfixline import NOQUEUE, Line, shown

_REFUSALS = frozenset({b"reject", b"discard", b"milter-reject", b"milter-discard", b"proxy-reject"})
_CLIENT = rb"([^\[\]\s]{0,255}\[[^\]\s]{1,64}\])(?::\d{1,5})?"
_SERVER = re.compile(rb"([A-Z][A-Z-]{2,30})(?: from " + _CLIENT + rb")?: (.+)", re.DOTALL)
_CONTENT = re.compile(rb"(?:[a-z]+ )?(?:header|body|mime-error) ")
_CONTENT_CLIENT = re.compile(rb".* from " + _CLIENT, re.DOTALL)
_LOGIN = re.compile(rb" helo=<[^<>\s\"\\]*> sasl_username=<([^<>\s]{1,256})>$")
_ATTRIBUTES = (b"; from=<", b"; to=<", b"; proto=")
_END = "END-OF-MESSAGE"


def refused(line: Line, login: str = "", known_client: str = "") -> Refused | None:
    """The refusal of a line; None: its action turns nobody away.

    `login` is that of the session, as far as it is known, which belongs to `known_client`: it is used for no other.  Raises
    ProtocolError where the line does not fit.
    """
    action, found, rest = line.text.partition(b": ")
    if not found or action not in _REFUSALS:
        return None
    queue_id = "" if line.queue_id == NOQUEUE else line.queue_id
    by_milter = action.startswith(b"milter-")
    if line.service == "cleanup" and _CONTENT.match(rest):
        client, reply = _content(rest)
        return Refused(line.at, queue_id, _END, reply, "", client, by_milter)
    said = _SERVER.match(rest)
    if said is None:
        raise ProtocolError("expected STAGE from name[address]: text")
    stage, client_field, text = said.groups()
    client = shown(client_field or b"")
    logged = _logged_login(text)
    known = login if client in ("", known_client) else ""
    return Refused(line.at, queue_id, stage.decode(), _reply(text), logged or known, client, by_milter)


def _reply(text: bytes) -> str:
    for attribute in _ATTRIBUTES:
        head, found, _ = text.partition(attribute)
        if found:
            return shown(head)
    return shown(text.rstrip(b"; "))


def _logged_login(text: bytes) -> str:
    """A HELO name may hold anything, ` sasl_username=<` too; then there is a second ` helo=<`, or a quote in the first."""
    found = _LOGIN.search(text[-1024:])
    return shown(found[1]) if found and text.count(b" helo=<") == 1 else ""


def _content(rest: bytes) -> tuple[str, str]:
    """(client, reply) of what header_checks, body_checks or the MIME parser refused."""
    head, found, attributes = rest.rpartition(b"; from=<")
    if not found:
        return "", shown(rest)
    client = _CONTENT_CLIENT.fullmatch(head)
    _, _, tail = attributes.rpartition(b" helo=<")
    reply = tail.partition(b">: ")[2] or head.partition(b" from ")[0]
    return shown(client[1]) if client else "", shown(reply)
