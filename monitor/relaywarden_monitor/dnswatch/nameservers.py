"""nameservers - puts one question to one name server, and reads the answer (dnspython; UDP, then TCP if it was cut).

Wire format of `dns.nameservers`: `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`; empty: as the system
says in /etc/resolv.conf.

How it fails: SpecError for settings that name no server; whatever a server does is a Reply.  A question waits SECONDS.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from relaywarden.errors import SpecError
from relaywarden_monitor.dnswatch.replies import NOWHERE, Reply, Status

SECONDS = 3.0  # for one question
_PORT = 53
_PAYLOAD = 1232  # octets of a UDP answer: DNS flag day 2020
_SERVER = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")


def resolvers(nameservers: Sequence[str]) -> list[dns.asyncresolver.Resolver]:
    """One resolver for each name server of `dns.nameservers`, else for each of the system's; raises SpecError."""
    if nameservers:
        return [_resolver(*_server(text)) for text in nameservers]
    try:
        system = dns.asyncresolver.Resolver()
    except (dns.resolver.NoResolverConfiguration, OSError) as error:
        raise SpecError(f"dns.nameservers: the system has no name server either (/etc/resolv.conf: {error})") from error
    return [_resolver(str(address), system.port) for address in system.nameservers]


def _server(text: str) -> tuple[str, int]:
    """Address and port."""
    found = _SERVER.fullmatch(text.strip())
    bracketed, plain, port = found.group("bracketed", "plain", "port") if found is not None else ("", text.strip(), None)
    try:
        server, number = str(ipaddress.ip_address(bracketed or plain)), int(port or _PORT)
    except ValueError:
        server, number = "", 0
    if not 0 < number < 2**16:
        expected = "an address such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353"
        raise SpecError(f"dns.nameservers: expected {expected}, got {text!r}")
    return server, number


def _resolver(address: str, port: int) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address], port
    resolver.timeout = resolver.lifetime = SECONDS  # so that it puts each question once
    resolver.use_edns(0, 0, _PAYLOAD)
    return resolver


async def resolve(resolver: dns.asyncresolver.Resolver, name: dns.name.Name, kind: str) -> Reply:
    """What this server says; never raises."""
    try:
        answer = await resolver.resolve(name, kind, search=False)
    except dns.resolver.NXDOMAIN:
        return NOWHERE
    except dns.resolver.NoAnswer:
        return Reply(Status.EMPTY)
    except dns.resolver.NoNameservers as error:
        return Reply(Status.FAILED, why=_reason(error))
    except dns.exception.Timeout:
        return Reply(Status.FAILED, why=f"no answer within {SECONDS:g} s", silent=True)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        return Reply(Status.FAILED, why=type(error).__name__)
    return Reply(Status.FOUND, _records(answer, kind))


def _reason(error: dns.resolver.NoNameservers) -> str:
    """SERVFAIL and REFUSED come as words, garbage as an exception."""
    found = [item[3] for item in error.kwargs.get("errors", [])]
    last = found[-1] if found else "no usable answer"
    return type(last).__name__ if isinstance(last, Exception) else str(last)[:60]


def _records(answer: Any, kind: str) -> tuple[str, ...]:
    read = _READERS[kind]
    if kind == "MX":
        return tuple(map(read, sorted(answer, key=lambda record: (record.preference, record.exchange))))
    return tuple(map(read, answer))


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


_READERS: dict[str, Callable[[Any], str]] = {
    "A": lambda record: str(record.address),
    "AAAA": lambda record: str(record.address),
    "MX": lambda record: _host(record.exchange),
    "PTR": lambda record: _host(record.target),
    "NS": lambda record: _host(record.target),
    "TXT": lambda record: b"".join(record.strings).decode("latin-1"),
}
