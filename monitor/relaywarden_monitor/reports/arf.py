"""arf - a feedback report as RFC 5965 and RFC 6591 have it, field for field.  Pure.

Wire format: multipart/report; report-type=feedback-report, with a part of type message/feedback-report.  Its fields look like
header fields; some may come several times.  After it the message complained of, as message/rfc822 or text/rfc822-headers.

How it fails: `find` gives None for a message without such a part, `parse` keeps what is well-formed and leaves the rest at its
default.  Values are as they came, with folds as `\\n`: whoever shows them must clean them.

Known limits: redacted addresses (RFC 6590) cannot be told from real ones by form; `address.is_redacted` knows common marks.
Microsoft's JMRP reports are not ARF; `complaint` knows them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

from relaywarden_monitor.reports.mime import LONGEST_FIELD, MOST_FIELDS, Part, split_head

_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_MOST_LIST = 100


@dataclass(frozen=True, slots=True)
class ArfReport:
    """The fields of a feedback report; the registry is iana.org/assignments/marf-parameters."""

    feedback_type: str = "abuse"  # lower case; RFC 5965 section 7.3
    user_agent: str = ""
    version: int = 0
    arrival_date: int | None = None  # seconds since 1970; Received-Date of drafts counts too
    authentication_results: tuple[str, ...] = ()
    incidents: int = 1
    original_envelope_id: str = ""
    original_mail_from: str = ""
    original_rcpt_to: tuple[str, ...] = ()
    removal_recipient: tuple[str, ...] = ()  # not registered, but sent
    reported_domain: tuple[str, ...] = ()
    reported_uri: tuple[str, ...] = ()
    reporting_mta: str = ""  # without its type
    source_ip: str = ""
    source_port: int = 0  # RFC 6692
    auth_failure: str = ""  # RFC 6591 section 3.1: adsp, bodyhash, revoked, signature, spf; dmarc (RFC 7489)
    delivery_result: str = ""
    dkim_adsp_dns: str = ""
    dkim_canonicalized_body: str = ""
    dkim_canonicalized_header: str = ""
    dkim_domain: str = ""
    dkim_identity: str = ""
    dkim_selector: str = ""
    dkim_selector_dns: str = ""
    spf_dns: str = ""
    identity_alignment: str = ""  # RFC 7489 section 7.3.1
    cfbl_feedback_id: str = ""  # RFC 9477 section 3.5
    headers: str = ""  # of the message complained of, where only these were sent


def find(message: Part) -> ArfReport | None:
    """The feedback report in this message; None if it is none."""
    parts = list(message.walk())
    for part in parts:
        if part.type in {"message/feedback-report", "text/feedback-report"}:
            headers = next((other.text() for other in parts if other.type == "text/rfc822-headers"), "")
            return parse(part.text(), headers)
    return None


def parse(text: str, headers: str = "") -> ArfReport:
    """The report from the text of its message/feedback-report part; never raises."""
    fields: dict[str, list[str]] = {}
    for name, value in split_head(text.lstrip("\n").encode("utf-8", "surrogatepass"))[0][:MOST_FIELDS]:
        values = fields.setdefault(name.lower(), [])
        if len(values) < _MOST_LIST:
            values.append(value)

    def one(name: str) -> str:
        return fields.get(name, [""])[0][:LONGEST_FIELD]

    def many(name: str) -> tuple[str, ...]:
        return tuple(fields.get(name, ()))

    return ArfReport(
        feedback_type=one("feedback-type").lower() or "abuse",
        user_agent=one("user-agent"),
        version=_number(one("version"), 0),
        arrival_date=when(one("arrival-date") or one("received-date")),
        authentication_results=many("authentication-results"),
        incidents=_number(one("incidents"), 1),
        original_envelope_id=one("original-envelope-id"),
        original_mail_from=one("original-mail-from"),
        original_rcpt_to=many("original-rcpt-to"),
        removal_recipient=many("removal-recipient"),
        reported_domain=many("reported-domain"),
        reported_uri=many("reported-uri"),
        reporting_mta=one("reporting-mta").rpartition(";")[2].strip(),
        source_ip=ip(one("source-ip")),
        source_port=_number(one("source-port"), 0),
        auth_failure=one("auth-failure").lower(),
        delivery_result=one("delivery-result").lower(),
        dkim_adsp_dns=one("dkim-adsp-dns"),
        dkim_canonicalized_body=one("dkim-canonicalized-body"),
        dkim_canonicalized_header=one("dkim-canonicalized-header"),
        dkim_domain=one("dkim-domain"),
        dkim_identity=one("dkim-identity"),
        dkim_selector=one("dkim-selector"),
        dkim_selector_dns=one("dkim-selector-dns"),
        spf_dns=one("spf-dns"),
        identity_alignment=one("identity-alignment").lower(),
        cfbl_feedback_id=one("cfbl-feedback-id"),
        headers=headers,
    )


def when(value: str) -> int | None:
    """Seconds since 1970 of a date as in mail; None for what is none."""
    try:
        parsed = parsedate_tz(value[:100])
        return int(mktime_tz(parsed)) if parsed else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None  # the parser of the standard library checks form, not range


def ip(value: str) -> str:
    """The first address in `192.0.2.1 (name)`, `[192.0.2.1]`, `IPv6:2001:db8::1`; "" if there is none."""
    for text in _ADDRESS.findall(value.replace("IPv6:", "")[:200]):
        try:
            return str(ipaddress.ip_address(text.strip(".")))
        except ValueError:
            continue  # a word of hexadecimal digits
    return ""


def _number(text: str, default: int) -> int:
    found = re.match(r"\d{1,9}", text)
    return int(found.group()) if found else default
