"""acctgen - rows of PowerMTA's accounting, made up but like real ones, whose true counts are known.

A header of 31 columns, then mixed types: of a hundred rows about 85 are deliveries, 6 are transient, 4 bounces, the rest remote
bounces, receptions, queues in trouble and complaints.  The same seed gives the same rows.
"""

from __future__ import annotations

import calendar
import csv
import io
import random
import time
from collections import Counter
from collections.abc import Iterator

TENANTS = 20
BEGIN = calendar.timegm((2026, 11, 24, 8, 0, 0))
COLUMNS = (
    "type", "timeLogged", "timeQueued", "totalSecondsQueued", "orig", "rcpt", "orcpt", "dsnAction", "dsnStatus", "dsnDiag",
    "dsnMta", "bounceCat", "srcType", "srcMta", "dlvType", "dlvSourceIp", "dlvDestinationIp", "dlvEsmtpAvailable", "dlvSize",
    "vmta", "jobId", "envId", "queue", "vmtaPool", "header_Message-Id", "header_CFBL-Feedback-ID", "userString",
    "dlvTlsProtocol", "dlvTlsCipher", "feedbackType", "reportingMTA",
)  # fmt: skip
_KINDS = ["d"] * 85 + ["t"] * 6 + ["b"] * 4 + ["rb", "r", "r", "tq", "f"]
_BOUNCES = (
    ("5.1.1 (bad destination mailbox address)", "smtp;550 5.1.1 <{rcpt}>: no such user, sorry", "bad-mailbox"),
    ("5.2.2 (mailbox full)", 'smtp;552 5.2.2 "over quota", try later', "quota-issues"),
    (
        "5.7.1 (delivery not authorized)",
        "smtp;554 5.7.1 rejected for policy reasons\nsee https://dest.example/why",
        "policy-related",
    ),
)
_OUTCOMES = {"d": "delivered", "t": "deferred", "b": "bounced", "rb": "bounced", "f": "complained"}


def rows(count: int, seed: int) -> Iterator[bytes]:
    """The header and `count` rows, with their ends."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, kind, tenant, random_bits in _plan(count, seed):
        found = _row(number, kind, tenant, random_bits)
        writer.writerow([found.get(name, "") for name in COLUMNS])
        yield out.getvalue().encode()
        out.seek(0)
        out.truncate()


def truth(count: int, seed: int) -> Counter[tuple[str, str]]:
    """What these rows say of (tenant, outcome); of complaints the token names the tenant."""
    return Counter((tenant, _OUTCOMES[kind]) for _, kind, tenant, _ in _plan(count, seed) if kind in _OUTCOMES)


def _plan(count: int, seed: int) -> Iterator[tuple[int, str, str, int]]:
    chance = random.Random(seed)
    for number in range(count):
        yield number, chance.choice(_KINDS), f"tenant{chance.randrange(TENANTS)}", chance.getrandbits(16)


def _row(number: int, kind: str, tenant: str, bits: int) -> dict[str, str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S+0000", time.gmtime(BEGIN + number // 50))
    row = {"type": kind, "timeLogged": at, "vmta": f"tx{bits % 4}"}
    if kind == "tq":
        return row | {"queue": f"dest{bits % 50}.example/tx{bits % 4}", "dsnStatus": "4.4.1 (no answer from host)"}
    rcpt = f"user{number}@dest{bits % 50}.example"
    row |= {"orig": f"news@{tenant}.example", "rcpt": rcpt}
    if kind == "f":
        return row | {"feedbackType": "abuse", "header_CFBL-Feedback-ID": tenant, "reportingMTA": "dns;fbl.dest.example"}
    row |= {
        "timeQueued": at, "jobId": tenant, "envId": f"4Xb1cD{number:09d}", "header_Message-Id": f"<{number}@{tenant}.example>",
    }  # fmt: skip
    if kind == "r":
        return row
    row |= {
        "totalSecondsQueued": "1", "srcType": "smtp", "srcMta": "relay.example (10.0.0.5)", "dlvSize": "4211",
        "dlvType": "smtp", "dlvSourceIp": f"192.0.2.{11 + bits % 4}", "dlvDestinationIp": "198.51.100.7",
        "vmtaPool": "transactional",
        "dlvEsmtpAvailable": "8BITMIME,DSN,PIPELINING,SIZE,STARTTLS", "queue": f"dest{bits % 50}.example/tx{bits % 4}",
        "dsnMta": f"mx{bits % 3}.dest{bits % 50}.example (198.51.100.7)", "dlvTlsProtocol": "TLSv1.3",
    }  # fmt: skip
    if kind == "d":
        said = f"smtp;250 2.0.0 Ok: queued as {bits:X}"
        return row | {"dsnAction": "relayed", "dsnStatus": "2.0.0 (success)", "dsnDiag": said}
    if kind == "t":
        said = "smtp;421 4.7.0 too many connections"
        return row | {"dsnAction": "delayed", "dsnStatus": "4.7.0 (other)", "dsnDiag": said, "bounceCat": "policy-related"}
    status, said, category = _BOUNCES[bits % len(_BOUNCES)]
    said = said.format(rcpt=rcpt)
    return row | {"dsnAction": "failed", "dsnStatus": status, "dsnDiag": said, "bounceCat": category}
