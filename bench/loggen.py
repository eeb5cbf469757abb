"""loggen - a made-up Postfix log that looks like a busy relay's, and what it ought to count to.

Wire format: syslog lines as rsyslog writes them on Debian 12 (`iso=True`) or traditional ones.  A message makes 8 to 10 lines:
connect, client=, message-id, from=, one to= a recipient, removed, disconnect, and noise of other daemons between them.  About
one message in 20 is deferred once and delivered a minute later, one recipient in 50 bounces (a notification goes to the
customer), in one session of 30 another recipient is refused.  Lines of many messages lie between each other, as in life.

    for line in lines(100_000, seed=1): ...        # the same arguments, the same lines
    truth(100_000, seed=1)["tenant07"].delivered   # "" has the notifications, which are no tenant's

Known limits: one host, IPv4, long queue ids.  Memory is flat: what waits is a minute's deferred mail.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

START = 1_795_507_200.0  # 2026-11-24 08:00:00 UTC
RATE = 250  # messages a second
TENANTS = 50
_RETRY = 60.0
_BASE52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_HOSTS = [(f"mx{n}.dest{n % 23}.example", f"198.51.100.{n}") for n in range(1, 200)]
_MEMBERS = ("tx1/", "tx2/", "bk1/", "")
_DEFER = (
    ("4.7.0", "421 4.7.0 [TS01] Messages from 192.0.2.11 temporarily deferred due to user complaints"),
    ("4.2.2", "452 4.2.2 The recipient's inbox is out of storage space"),
    ("4.7.1", "450-4.7.1 Greylisted, please try again 450 4.7.1 in 300 seconds"),
)
_BOUNCE = (
    ("5.1.1", "550 5.1.1 The email account that you tried to reach does not exist"),
    ("5.7.1", "554 5.7.1 Message refused because of its content"),
)
_NOISE = (
    "dovecot: imap-login: Login: user=<someone>, method=PLAIN, rip=203.0.113.5, lip=192.0.2.1, TLS, session=<abc>",
    "postfix/anvil[901]: statistics: max connection rate 12/60s for (submission:203.0.113.5) at Nov 24 08:00:00",
    "systemd[1]: Started Session 4711 of User root.",
    "postfix/tx1/smtp[1203]: Trusted TLS connection established to mx1.dest1.example[198.51.100.1]:25: TLSv1.3",
    "postfix/scache[77]: statistics: domain lookup hits=0 miss=4 success=0%",
)


@dataclass(slots=True)
class Truth:
    """What the log says of one tenant; recipients, but for `deferred`, which counts attempts, and `refused`, lines."""

    messages: int = 0
    delivered: int = 0
    deferred: int = 0
    bounced: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """One message before it is written down; `fates` are sent, deferred or bounced, one a recipient."""

    number: int
    at: float
    tenant: str
    pid: int
    fates: tuple[str, ...]
    refused: bool


def lines(messages: int, seed: int, *, iso: bool = True) -> Iterator[bytes]:
    """The log of so many messages, in the order of time."""
    waiting: list[tuple[float, int, str]] = []
    serial = 0
    for plan in _plans(messages, seed):
        while waiting and waiting[0][0] < plan.at:
            yield _written(heapq.heappop(waiting), iso)
        for at, text in _story(plan):
            serial += 1
            heapq.heappush(waiting, (at, serial, text))
    while waiting:
        yield _written(heapq.heappop(waiting), iso)


def truth(messages: int, seed: int) -> dict[str, Truth]:
    """What `lines` with the same arguments ought to count to, by login."""
    counted: dict[str, Truth] = {"": Truth()}
    for plan in _plans(messages, seed):
        found = counted.setdefault(plan.tenant, Truth())
        found.messages += 1
        found.refused += plan.refused
        found.deferred += plan.fates.count("deferred")
        found.bounced += plan.fates.count("bounced")
        found.delivered += len(plan.fates) - plan.fates.count("bounced")
        counted[""].delivered += "bounced" in plan.fates
    return counted


def _plans(messages: int, seed: int) -> Iterator[_Plan]:
    chance = random.Random(seed)
    for number in range(messages):
        count = chance.choices([1, 2, 4], [90, 7, 3])[0]
        deferred = "deferred" if chance.random() < 0.05 else "sent"
        fates = tuple("bounced" if chance.random() < 0.02 else deferred for _ in range(count))
        tenant = f"tenant{int(TENANTS * chance.random() ** 2):02}"
        # A process serves one session at a time: numbers come round after more messages than lie between each other.
        yield _Plan(number, START + number / RATE, tenant, 2000 + number % 1000, fates, chance.random() < 1 / 30)


def _story(plan: _Plan) -> Iterator[tuple[float, str]]:
    """The lines of one message, each with its time."""
    number, at, name, tenant = plan.number, plan.at, _queue_id(plan.number), plan.tenant
    client = f"client{number % 97}.{tenant}.example[203.0.113.{number % 250}]"
    server, sender = f"postfix/submission/smtpd[{plan.pid}]: ", f"bounce-{number}@{tenant}.example"
    yield at, f"{server}connect from {client}"
    yield at + 0.001, f"{server}{name}: client={client}, sasl_method=PLAIN, sasl_username={tenant}"
    yield at + 0.002, f"postfix/cleanup[{500 + number % 9}]: {name}: message-id=<{number}.order@{tenant}.example>"
    active = (
        f"postfix/qmgr[311]: {name}: from=<{sender}>, size={2000 + number % 30_000}, nrcpt={len(plan.fates)} (queue active)"
    )
    yield at + 0.004, active
    if plan.refused:
        text = "450 4.7.1 <late@dest1.example>: Recipient address rejected: limit reached, try again in 60 s"
        said = f"from=<{sender}> to=<late@dest1.example> proto=ESMTP helo=<app.{tenant}.example>"
        yield at + 0.006, f"{server}NOQUEUE: reject: RCPT from {client}: {text}; {said}"
    yield at + 0.008, f"{server}disconnect from {client} ehlo=1 auth=1 mail=1 rcpt={len(plan.fates)} data=1 quit=1 commands=6"
    for index, fate in enumerate(plan.fates):
        yield at + 0.3 + index / 100, _delivery(plan, index, fate)
    if number % 2:
        yield at + 0.01, _NOISE[number // 2 % len(_NOISE)]
    done = at + 0.5
    if "bounced" in plan.fates:
        yield from _notification(plan, name, sender, done)
    if "deferred" in plan.fates:
        done += _RETRY
        yield done, active
        for index, fate in enumerate(plan.fates):
            if fate == "deferred":
                yield done + 0.1, _delivery(plan, index, "sent")
    yield done + 0.2, f"postfix/qmgr[311]: {name}: removed"


def _notification(plan: _Plan, name: str, sender: str, at: float) -> Iterator[tuple[float, str]]:
    notice = _queue_id(plan.number + 50_000_000)
    yield at, f"postfix/cleanup[500]: {notice}: message-id=<{notice}@relay.example>"
    yield at + 0.001, f"postfix/bounce[88]: {name}: sender non-delivery notification: {notice}"
    yield at + 0.002, f"postfix/qmgr[311]: {notice}: from=<>, size=3911, nrcpt=1 (queue active)"
    fields = "relay=mx.example[192.0.2.200]:25, delay=0.1, delays=0/0/0.05/0.05, dsn=2.0.0"
    yield at + 0.1, f"postfix/smtp[1300]: {notice}: to=<{sender}>, {fields}, status=sent (250 2.0.0 Ok: queued as 4F0CB2)"
    yield at + 0.11, f"postfix/qmgr[311]: {notice}: removed"


def _delivery(plan: _Plan, index: int, fate: str) -> str:
    number = plan.number + index
    host, address = _HOSTS[number * 7 % len(_HOSTS)]
    status, said = "2.0.0", f"250 2.0.0 OK  {number} d2e1a72fcca58-7244 - gsmtp"
    if fate != "sent":
        status, reply = (_DEFER if fate == "deferred" else _BOUNCE)[number % 2]
        said = f"host {host}[{address}] said: {reply} (in reply to RCPT TO command)"
    return (
        f"postfix/{_MEMBERS[plan.number % 4]}smtp[{1200 + number % 40}]: {_queue_id(plan.number)}: "
        f"to=<customer{number}.{index}@dest{number % 23}.example>, relay={host}[{address}]:25, "
        f"delay=0.35, delays=0.02/0.01/0.12/0.2, dsn={status}, status={fate} ({said})"
    )


def _queue_id(number: int) -> str:
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 52)
        digits = _BASE52[digit] + digits
    return f"4jYldL{digits}zKC"


def _written(entry: tuple[float, int, str], iso: bool) -> bytes:
    at, _, text = entry
    second = int(at)
    if iso:
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{int((at - second) * 1e6):06}+00:00"
    else:
        stamp = time.strftime("%b %e %H:%M:%S", time.gmtime(second))
    return f"{stamp} relay {text}\n".encode()
