"""signatures - is the public half of each configured DKIM key in DNS, and the same as in the file?

What a record must hold is judged by `relaywarden.dkimdns`.  Only the resolver is asked here; `relaywarden keys` asks every
authoritative server too.  A key that signs must be there; of one that stands ready (`next`), or that was replaced and may
still be needed by mail on its way, there is advice.

How it fails: a key file that cannot be read is UNKNOWN here, since this program may run as another user; `relaywarden check`
calls it a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from relaywarden.config.settings import DkimSettings
from relaywarden.dkimdns import judge as judge_records
from relaywarden.dkimkeys import SigningKey, following, load_key
from relaywarden.errors import KeyFileError
from relaywarden_monitor.dnswatch.findings import Finding, Level, clean
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.replies import Reply

Selectors = Mapping[str, Mapping[str, Any]]  # `relaywarden.steering.Words.selectors`


class Role(Enum):
    """What a key does at the moment."""

    SIGNS = "signs"
    NEXT = "stands ready"
    REPLACED = "was replaced"


def roles(entries: Iterable[DkimSettings], selectors: Selectors) -> Iterator[tuple[DkimSettings, Role]]:
    """Every key, with the ones that follow; `selectors` as `keys switch` wrote them."""
    for entry in entries:
        heir = following(entry)
        word = selectors.get(f"{entry.domain}/{entry.selector}") or {}
        switched = heir is not None and word.get("to") == heir.selector
        yield entry, Role.REPLACED if switched else Role.SIGNS
        if heir is not None:
            yield heir, Role.SIGNS if switched else Role.NEXT


def signing(keys: Sequence[DkimSettings], domain: str) -> list[DkimSettings]:
    """Those that the milter takes: of the longest d= that is the From domain or a parent of it."""
    fitting = [key for key in keys if domain == key.domain or domain.endswith("." + key.domain)]
    longest = max((len(key.domain) for key in fitting), default=0)
    return [key for key in fitting if len(key.domain) == longest]


async def check(asker: Asker, subject: str, entry: DkimSettings, role: Role) -> Finding:
    """One finding."""
    name = f"dkim {entry.domain}/{entry.selector}"
    try:
        key = load_key(entry)
    except KeyFileError as error:
        return Finding(subject, name, Level.UNKNOWN, f"cannot be compared: {error}")
    reply = await asker.ask(f"{entry.selector}._domainkey.{entry.domain}", "TXT")
    return judge(subject, name, key, role, reply)


def judge(subject: str, name: str, key: SigningKey, role: Role, reply: Reply) -> Finding:
    """Pure."""
    if reply.failed:
        return Finding(subject, name, Level.UNKNOWN, f"TXT of {key.selector}._domainkey.{key.domain}: {reply.why}")
    fine, text = judge_records(key, [record.encode("latin-1") for record in reply.records])
    shown = clean("; ".join(reply.records))
    if fine:
        if text != "published":
            return Finding(subject, name, Level.ADVICE, clean(text), shown)
        return Finding(subject, name, Level.OK, f"published; the key {role.value}")
    if role is Role.SIGNS:
        return Finding(subject, name, Level.FAULT, f"what it signs does not verify: {clean(text)}", shown)
    needed = "publish it before `keys switch`" if role is Role.NEXT else "mail that it signed may still be on its way"
    return Finding(subject, name, Level.ADVICE, f"the key {role.value}: {clean(text)}; {needed}", shown)
