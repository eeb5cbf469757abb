"""stages - what happens to one message, in this order; each stage adds to the message's `Work` or returns a refusal.

    standing -> sender -> form -> content -> carriage -> labels -> signature

Everything that changes a header or the body comes before the signature, or it would not verify.
"""

from __future__ import annotations

from collections.abc import Callable

from relaywarden.tenants import Tenant
from relaywarden_milter.outcome import Refusal
from relaywarden_milter.stages.carriage import carriage, labels
from relaywarden_milter.stages.content import content
from relaywarden_milter.stages.form import form
from relaywarden_milter.stages.sender import sender, standing
from relaywarden_milter.stages.signature import signature
from relaywarden_milter.work import Work

STAGES: tuple[Callable[[Work, Tenant], Refusal | None], ...] = (standing, sender, form, content, carriage, labels, signature)
