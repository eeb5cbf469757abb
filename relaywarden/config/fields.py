"""fields - the value types of the table of settings: how the configuration's notation becomes checked values."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from relaywarden.addresses import Address
from relaywarden.ledger.store_url import Store
from relaywarden.limits import Limit, Meter, Scope, format_duration, parse_amount, parse_duration

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_TRANSPORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?)*")
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
_SENDER_ID = re.compile(r"[A-Za-z0-9]{5,15}")
_LIMIT_KEYS = {"per", "mode"}


def _matching(pattern: re.Pattern[str], expected: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"expected {expected}, got {value!r}")
        return value

    return BeforeValidator(check)


def _domain(value: Any) -> Any:
    text = value.lower().rstrip(".") if isinstance(value, str) else ""
    try:
        ascii_form = text.encode("idna").decode() if not text.isascii() else text
    except UnicodeError:
        ascii_form = ""
    if not _HOST.fullmatch(ascii_form.removeprefix("*.")):
        raise ValueError(f"expected a domain such as acme.example or *.acme.example, got {value!r}")
    return ascii_form


def _plain_domain(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("*"):
        raise ValueError(f"expected a domain without wildcard, got {value!r}")
    return _domain(value)


def _email(value: Any) -> Any:
    """`user@domain` with an unquoted local part, or nothing."""
    local, at, domain = value.rpartition("@") if isinstance(value, str) else ("", "", "")
    if value == "":
        return value
    if not at or not _LOCAL_PART.fullmatch(local):
        raise ValueError(f"expected an address such as fbl@relay.example, got {value!r}")
    return f"{local}@{_plain_domain(domain)}"


def _signer(value: Any) -> Any:
    """The i= of a signature: `@domain`, `user@domain` or `{tenant}@domain`."""
    if isinstance(value, str) and value.startswith("@"):
        return f"@{_plain_domain(value[1:])}"
    return _email(value)


def plain_ip(text: str) -> str:
    """The one spelling of an IP address; `::ffff:192.0.2.1` is 192.0.2.1 (RFC 4291 section 2.5.5.2); raises ValueError."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _ip(value: Any) -> Any:
    try:
        if isinstance(value, str):  # ip_address() takes a number for an address too
            return plain_ip(value)
    except ValueError:
        pass  # said below
    raise ValueError(f"expected an IP address, got {value!r}")


def format_size(amount: int) -> str:
    """An amount as the file may write it: `64MiB` where that is exact, else the number."""
    for suffix, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount and amount % unit == 0:
            return f"{amount // unit}{suffix}"
    return str(amount)


def _limit(value: Any) -> Any:
    """A limit is a mapping of ONE meter to its text, with `per` and `mode` beside it."""
    if isinstance(value, Limit):
        return value
    meters = [key for key in value if key not in _LIMIT_KEYS] if isinstance(value, dict) else []
    names = ", ".join(meter.value for meter in Meter)
    if len(meters) != 1 or meters[0] not in {meter.value for meter in Meter}:
        raise ValueError(f"expected one meter of {names} with its limit, such as 'recipients: 500/hour', got {value!r}")
    per, mode = value.get("per", "tenant"), value.get("mode", "enforce")
    if per not in {scope.value for scope in Scope}:
        raise ValueError(f"per: expected one of {', '.join(scope.value for scope in Scope)}, got {per!r}")
    if mode not in {"enforce", "observe"}:
        raise ValueError(f"mode: expected enforce or observe, got {mode!r}")
    return Limit.parse(Meter(meters[0]), value[meters[0]], Scope(per), mode == "observe")


def _addresses(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise ValueError("expected at least one address")
    return [_address(item) for item in (value if isinstance(value, list) else [value])]


def _address(value: Any) -> Any:
    return value if isinstance(value, Address) else Address.parse(str(value))


def _store(value: Any) -> Any:
    Store.parse(str(value))
    return value


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _milliseconds(value: Any) -> Any:
    return parse_duration(value)


def _plain(value: Any) -> str:
    return str(value)


def _limit_document(limit: Limit) -> dict[str, str]:
    meter, _, text = str(limit).partition(": ")
    document = {meter: text.removesuffix(f" per {limit.per.value}")}
    if limit.per is not Scope.TENANT:
        document["per"] = limit.per.value
    if limit.observe:
        document["mode"] = "observe"
    return document


Name = Annotated[str, _matching(_NAME, "a name of letters, digits and . _ @ + - (64 at most)")]
TransportName = Annotated[
    str, _matching(_TRANSPORT, "a name of letters, digits, _ and - (a Postfix transport or a PowerMTA virtual MTA)")
]
HeaderName = Annotated[str, _matching(_HEADER, "a header name of letters, digits and -")]
DomainPattern = Annotated[str, BeforeValidator(_domain)]
Domain = Annotated[str, BeforeValidator(_plain_domain)]
EmailAddress = Annotated[str, BeforeValidator(_email)]
SenderId = Annotated[str, _matching(_SENDER_ID, "5 to 15 letters and digits, such as relayexample")]
Signer = Annotated[str, BeforeValidator(_signer)]
IPAddress = Annotated[str, BeforeValidator(_ip)]
Milliseconds = Annotated[int, BeforeValidator(_milliseconds), PlainSerializer(format_duration, return_type=str)]
Amount = Annotated[int, BeforeValidator(parse_amount)]
LimitField = Annotated[Limit, BeforeValidator(_limit), PlainSerializer(_limit_document)]
AddressField = Annotated[Address, BeforeValidator(_address), PlainSerializer(_plain, return_type=str)]
AddressList = Annotated[list[AddressField], BeforeValidator(_addresses)]
StoreURL = Annotated[str, BeforeValidator(_store)]
TextList = Annotated[list[str], BeforeValidator(_one_or_many)]
