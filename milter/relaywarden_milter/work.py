"""work - one message on its way through the stages: what is known of it, and what has been decided so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from relaywarden.config.settings import Mode
from relaywarden.ledger.operations import Operation
from relaywarden.tenants import Tenant
from relaywarden_milter.edits import Edits
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.message import Message
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.rules import Rules
from relaywarden_milter.spool import Spool
from relaywarden_milter.stream import Kind, Stream

Tick = Callable[[], None]


@dataclass(slots=True)
class Work:
    """Given, and filled in stage by stage."""

    rules: Rules
    envelope: Envelope
    message: Message
    edits: Edits
    tick: Tick | None = None  # called now and then while a scan is slow
    record: dict[str, Any] = field(default_factory=dict)  # for the log
    domains: tuple[str, ...] = ()  # of From, as far as the tenant's keys may vouch for them
    divert: bool = False  # to the quarantine pool
    hold: str = ""  # reason for Postfix's hold queue
    stream: Kind = Kind.TRANSACTIONAL
    judged: Stream | None = None
    sender: str = ""  # envelope sender in the place of the client's; empty: the client's own
    body: Spool | None = None  # repaired
    body_digest: bytes = b""
    notes: list[Operation] = field(default_factory=list)  # for the ledger, beside the message's settlement

    def binds(self, tenant: Tenant, what: str) -> bool:
        """Whether policy may hold or divert a message; under `observe` it is only written down."""
        if tenant.mode is Mode.OBSERVE:
            self.record["observed"] = what
            return False
        return True

    def binding(self, tenant: Tenant, refusal: Refusal | None) -> Refusal | None:
        """A refusal by policy; under `observe` it is only written down."""
        if refusal is not None and tenant.mode is Mode.OBSERVE:
            self.record["observed"] = f"{refusal.code} {refusal.enhanced} {refusal.text}"
            return None
        return refusal
