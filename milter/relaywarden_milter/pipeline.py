"""pipeline - one whole message in, one outcome out.  The session only carries the outcome to Postfix.

    delete control headers -> tenant -> size -> stages (`stages`: standing ... signature) -> ledger operations

What may be asked on the way is rspamd, within its deadline and behind its breaker; keys, settings and allowances are in memory.

How it fails: towards the client by an outcome with a reply code, never by an exception that it should know of.  A message
whose key cannot be used is put off, a message that rspamd could not judge goes by `scan.on_error`.  A tenant in `observe`
mode is judged and logged, but its From, its form and its content never lead to a refusal; a key that is missing and a disk that
is full still put mail off, and a suspension holds.
"""

from __future__ import annotations

import ipaddress
import time
from functools import lru_cache
from typing import Any, Final

from relaywarden import story
from relaywarden.config.settings import Outcome as Ended
from relaywarden.ledger.operations import Account, Operation, Refund, Settle, recipient_digest
from relaywarden.ledger.records import Note
from relaywarden.tenants import Tenant
from relaywarden_milter import control, meters
from relaywarden_milter.edits import Edits
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.headers import field_name
from relaywarden_milter.message import Message
from relaywarden_milter.outcome import Outcome, Refusal
from relaywarden_milter.rules import Rules
from relaywarden_milter.scan import Fate
from relaywarden_milter.stages import STAGES
from relaywarden_milter.work import Tick, Work

# Of the log record of a message; `standing`, `observed` and the like say why it went where it went.
_TOLD: Final = (
    "pool", "member", "stream", "stream_reasons", "score", "symbols", "action", "standing", "observed", "identity", "from",
    "lint", "reply",
)  # fmt: skip


_MOST_NAMED: Final = 20  # recipients


def handle(rules: Rules, envelope: Envelope, message: Message, tick: Tick | None = None) -> Outcome:
    """Decide about one message; `tick` is called now and then while a scan is slow."""
    edits = Edits(message.headers)
    forged = sum(rules.is_control(field_name(name)) for name, _ in message.headers)
    tenant = rules.directory.by_login(envelope.login) if envelope.login is not None else None
    work = Work(rules, envelope, message, edits, tick, {"forged": forged or None})
    if forged:
        meters.FORGED.inc(forged)
        if forged > control.MOST_FORGED:
            return _turned_away(work, tenant, Refusal.reject("Message refused: too many control headers", "5.6.0", "554"))
        edits.delete(rules.is_control)
    if message.too_large:
        return _turned_away(work, tenant, Refusal.reject(f"Message too large: {message.too_large}", "5.3.4", "552"))
    if envelope.login is None:
        return Outcome("unauthenticated", steps=edits.steps, record=work.record)
    if tenant is not None:
        return _through_the_stages(work, tenant)
    if rules.settings.unknown_login == "ignore":
        return Outcome("ignored", steps=edits.steps, record=work.record)
    return _turned_away(work, None, Refusal.reject("This login may not send mail here, ask your provider"))


def refund(rules: Rules, envelope: Envelope, ended: Ended) -> Refund | None:
    """What the ledger must be told of a message that was aborted, or that we failed to handle; None: it stays charged."""
    if ended not in rules.settings.ledger.refund:
        return None
    # Also without recipients: Postfix may have refused, after policyd charged them, those that it never showed us.
    tenant = rules.directory.by_login(envelope.login) if envelope.login is not None else None
    return None if tenant is None else Refund(_account(tenant, envelope), envelope.queue_id, envelope.connection)


def _through_the_stages(work: Work, tenant: Tenant) -> Outcome:
    for stage in STAGES:
        refusal = stage(work, tenant)
        if refusal is not None:
            return _turned_away(work, tenant, refusal)
    result = "held" if work.hold else "diverted" if work.divert else "accepted"
    operations = [_settlement(work, tenant, "held" if work.hold else ""), *work.notes, *_story(work, tenant, result)]
    return Outcome(
        result, hold=work.hold, steps=work.edits.steps, sender=work.sender, body=work.body, operations=operations,
        record=work.record,
    )  # fmt: skip


def _turned_away(work: Work, tenant: Tenant | None, refusal: Refusal) -> Outcome:
    """Charged or given back as `ledger.refund` has it: by default rejected mail stays charged, so that it is not free."""
    if work.body is not None:
        work.body.close()
    final = refusal.fate is not Fate.TEMPFAIL
    ended, counter = (Ended.REJECTED, "rejected") if final else (Ended.DEFERRED, "")
    operations = list(work.notes)
    if tenant is not None and ended in work.rules.settings.ledger.refund:
        account, envelope = _account(tenant, work.envelope), work.envelope
        operations.insert(0, Refund(account, envelope.queue_id, envelope.connection, counter))
    elif tenant is not None:
        operations.insert(0, _settlement(work, tenant, counter))
    result = {Fate.REJECT: "rejected", Fate.TEMPFAIL: "deferred"}.get(refusal.fate, "discarded")
    work.record["reply"] = f"{refusal.code} {refusal.enhanced} {refusal.text}".strip()
    if tenant is not None:
        operations += _story(work, tenant, result)
    return Outcome(result, refusal.fate, refusal, operations=operations, record=work.record)


def _settlement(work: Work, tenant: Tenant, counter: str) -> Settle:
    envelope, size = work.envelope, work.message.size
    recipients = tuple(envelope.recipients)
    return Settle(_account(tenant, envelope), envelope.queue_id, envelope.connection, recipients, size, counter)


def _story(work: Work, tenant: Tenant, result: str) -> list[Operation]:
    """What `explain` will tell of the message; only where a monitor writes down the rest."""
    monitor, queue_id = work.rules.settings.monitor, work.envelope.queue_id
    if not monitor.sources or not queue_id:
        return []
    facts = {name: value for name in _TOLD if (value := work.record.get(name)) not in (None, "")}
    text = story.dump({"tenant": tenant.name, "result": result, "at": round(time.time(), 3), **facts, **_traits(work)})
    return [Note(story.book(queue_id), story.TOPIC, {story.MILTER: text}, monitor.remember)]


def _traits(work: Work) -> dict[str, Any]:
    """By what the monitor tells a tenant's usual mail from other mail (relaywarden_monitor.patterns.sent)."""
    envelope, judged = work.envelope, work.judged
    traits: dict[str, Any] = {
        "to": "".join(recipient_digest(recipient).hex() for recipient in envelope.recipients[:_MOST_NAMED]),
        "net": _network(envelope.address), "helo": envelope.helo,
    }  # fmt: skip
    if judged is not None:
        traits |= {"stream": judged.kind.value, "bulk": judged.score, "fp": f"{judged.fingerprint:016x}"}
    return traits


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The /24 or /48 of a client; empty where it has no address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((found, 24 if found.version == 4 else 48), strict=False))


def _account(tenant: Tenant, envelope: Envelope) -> Account:
    return tenant.account(login=envelope.login or "", sender=envelope.sender, client=envelope.address)
