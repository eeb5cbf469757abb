"""scripts - how operations travel to Redis and results come back.  No I/O.

Every operation is one EVALSHA of its verb's script (lua/VERB.lua behind lua/books.lua and the files that go with it) with the
tenant's base "rw:{tenant}" as its first key: the braces are Redis Cluster's hash tag, so all keys of a tenant share a slot.
The second key, the hash of balances, is there for Redis Cluster: while a slot moves from node to node, a command with several
keys, of which the first never exists, is answered TRYAGAIN (or ASK) by both, so that no script ever runs on half of a
tenant's keys.  The scripts' own heads say what stands in ARGV and in the reply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, unquote

from relaywarden.errors import LedgerError
from relaywarden.ledger.counters import Counters
from relaywarden.ledger.operations import (
    Abandon,
    Account,
    Charge,
    Decision,
    Done,
    Operation,
    Read,
    Reconcile,
    Refund,
    Refuse,
    Reset,
    Result,
    Score,
    Settle,
    Settlement,
    Snapshot,
    Status,
    Steer,
    Take,
    Taken,
    Used,
    recipient_digest,
    tenant_of,
)
from relaywarden.ledger.record_scripts import RECORD_VERBS, record_arguments, record_result
from relaywarden.ledger.scores import Tableau, bucket_of, names_of, thousandths
from relaywarden.ledger.ticket import ANONYMOUS, read_refusal

VERBS = ("charge", "reconcile", "refuse", "abandon", "settle", "refund", "read", "steer", "reset", "take", "score")
_BASE = "local base = KEYS[1]\n"
_TALLY_SHARES = ("books", "counters")
_SHARED = ("books", "counters", "window", "unique", "state", "balances", "ticket", "accounting")
_STATUS = (Status.ADMITTED, Status.REFUSED, Status.SUSPENDED, Status.HELD, Status.SUPPRESSED)
_PREFIX, _SUFFIX = "rw:{", "}"
_FLAG = (b"0", b"1")
_LATE = b"3"


@dataclass(frozen=True, slots=True)
class Script:
    """One verb's source and its SHA-1, by which Redis knows it once it is loaded."""

    source: str
    sha: str


@cache
def scripts() -> Mapping[str, Script]:
    """All verbs."""
    folder = files("relaywarden.ledger.lua")
    books = "".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in _SHARED)
    few = "".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in _TALLY_SHARES)
    ahead = {"charge": folder.joinpath("charge_fast.lua").read_text(encoding="utf-8")}
    found = {}
    for verb in (*VERBS, *RECORD_VERBS):
        shared = books if verb in VERBS else few if verb == "tally" else _BASE  # functions that nobody calls cost time, too
        source = ahead.get(verb, "") + shared + folder.joinpath(f"{verb}.lua").read_text(encoding="utf-8")
        found[verb] = Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
    return found


@lru_cache(maxsize=65536)
def base_key(tenant: str) -> str:
    """The tenant's base key; what could end the hash tag is escaped."""
    return f"{_PREFIX}{quote(tenant, safe='@._+-~=/:', errors='surrogatepass')}{_SUFFIX}"


def tenant_of_key(key: str) -> str:
    """The tenant whose key this is."""
    return unquote(key[len(_PREFIX) : key.rindex(_SUFFIX)], errors="surrogatepass")


def command(operation: Operation, ticket_ttl_ms: int) -> tuple[Any, ...]:
    """The EVALSHA command of an operation."""
    verb, arguments = _arguments(operation, ticket_ttl_ms)
    base = base_key(tenant_of(operation))
    return ("EVALSHA", scripts()[verb].sha, 2, base, f"{base}:b", *arguments)


def _arguments(operation: Operation, ttl: int) -> tuple[str, tuple[Any, ...]]:
    match operation:
        case Charge(account, ticket, recipient, size, queue_id, connection, dry, late):
            wire, how = _account(account)
            how = _LATE if late else how
            digest = recipient_digest(recipient)
            return "charge", (wire, how, _raw(ticket), digest, size, _raw(queue_id), connection, _FLAG[dry], ttl, late)
        case Reconcile(account, ticket, recipients, size, queue_id, connection, dry, late):
            wire, how = _account(account)
            how = _LATE if late else how
            return "reconcile", (wire, how, _raw(ticket), recipients, size, _raw(queue_id), connection, _FLAG[dry], ttl, late)
        case Refuse(account, ticket, recipient):
            digest = recipient_digest(recipient) if recipient else ANONYMOUS
            return "refuse", (*_account(account), _raw(ticket), digest, ttl)
        case Abandon(account, ticket):
            return "abandon", (*_account(account), _raw(ticket))
        case Settle(account, queue_id, connection, named, size, counter):
            digests = map(recipient_digest, named)
            return "settle", (*_account(account), queue_id, connection, size, counter, len(named), *digests)
        case Refund(account, queue_id, connection, counter):
            return "refund", (*_account(account), queue_id, connection, counter)
        case Read(account):
            return "read", (account.wire,)
        case Steer(_, change, by):
            return "steer", (json.dumps(dict(change)), _raw(by))
        case Reset():
            return "reset", ()
        case Take(account, amount):
            return "take", (account.wire, amount)
        case Score(_, score, symbols):
            return "score", (bucket_of(score), thousandths(score), *names_of(symbols))
        case _:
            return record_arguments(operation)


def _account(account: Account) -> tuple[bytes, bytes]:
    return account.wire, b"1" if account.observe else b"2" if account.hold else b"0"


def _raw(text: str) -> bytes:
    """Attributes of a policy request may hold any octet; they were decoded with surrogateescape."""
    return text.encode("utf-8", "surrogateescape")


def result(operation: Operation, reply: Any) -> Result:
    """What a script replied, as the operation's result; raises LedgerError for what no script of ours replies."""
    try:
        match operation:
            case Charge() | Reconcile():
                code, repeated, refusal, reason, granted = reply
                refused = read_refusal(refusal.decode()) if refusal else None
                return Decision(_STATUS[code], refused, bool(repeated), bool(granted), reason.decode("utf-8", "replace"))
            case Settle() | Refund():
                return Settlement(bool(reply[0]), int(reply[1]), int(reply[2]))
            case Read():
                return _snapshot(reply)
            case Take():
                return Taken(int(reply[0]), int(reply[1]))
            case Steer() | Reset() | Refuse() | Abandon() | Score():
                return Done(json.loads(reply))
            case _:
                return record_result(operation, reply)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise LedgerError(f"Redis replied what no script of relaywarden replies: {reply!r:.200}") from error


def _snapshot(reply: list[Any]) -> Snapshot:
    now_ms = int(reply[0])
    hour, today = Counters(reply[2] or None, now_ms).snapshot()
    rows = [reply[at : at + 4] for at in range(5, len(reply), 4)]
    refused_ms, _, refusal = (reply[3] or b"0").decode().partition("\t")
    last = read_refusal(refusal) if refusal else None
    used = tuple(Used(key.decode(), int(used), int(allowed), int(reset)) for key, used, allowed, reset in rows)
    state = json.loads(reply[1]) if reply[1] else {}
    scores = Tableau(reply[4] or None, now_ms).scores()
    return Snapshot(used, hour, today, state, now_ms, int(refused_ms), last, scores)
