"""wiring - is Postfix asking what the configuration needs?  Faults of main.cf that show only at run time.

    no_sasl_username     a request without a login where all mail should have one: policy_context is `submission`, as in
                         contrib/, or not set
    no_instance          the peer is not Postfix
    no_recipient_count   DATA or END-OF-MESSAGE without recipients
    unexpected_state     wired to a restriction list in which nothing is decided
    no_rcpt              unique_recipients is limited, but policyd is never asked at RCPT
    no_end               bytes are limited and no milter is configured, but policyd is never asked at END-OF-MESSAGE

Each is counted always, warned of once a worker, and noted in the ledger, where `relaywarden show` finds it.

Known limit: what never comes is concluded from `ENOUGH` requests that came, so a worker with little mail says it late.
"""

from __future__ import annotations

from enum import Enum

from relaywarden.config.settings import Settings
from relaywarden.limits import Meter
from relaywarden_policyd.protocol import Request, State

ENOUGH = 200
NOTES = "!policyd"  # the ledger's name for what is no tenant's; no login or tenant is called so


class Fault(Enum):
    """Something in main.cf is not as it should be."""

    NO_LOGIN = "no_sasl_username"
    NO_INSTANCE = "no_instance"
    NO_COUNT = "no_recipient_count"
    OTHER_STATE = "unexpected_state"
    NO_RCPT = "no_rcpt"
    NO_END = "no_end"


_AUTHENTICATED = ("", "submission")  # whoever asks for other mail as well gives that service another policy_context
_DECIDED = frozenset({State.RCPT, State.DATA, State.END_OF_MESSAGE})


class Wiring:
    """What one worker has seen of Postfix' questions."""

    def __init__(self, settings: Settings) -> None:
        plans = settings.plans.values()
        meters = {limit.meter for plan in plans for limit in plan.limits}
        self._needs_rcpt = Meter.UNIQUE_RECIPIENTS in meters
        by_size = Meter.BYTES in meters or any(plan.bytes_per_message is not None for plan in plans)
        self._needs_end = by_size and settings.milter.listen is None
        self._seen = dict.fromkeys(_DECIDED, 0)

    def look(self, request: Request) -> Fault | None:
        """What this request shows to be wrong, if anything."""
        if request.state not in _DECIDED:
            return Fault.OTHER_STATE if request.client_address else None  # a health check names no client
        if not request.sasl_username:
            return Fault.NO_LOGIN if request.policy_context in _AUTHENTICATED else None
        if not request.instance:
            return Fault.NO_INSTANCE
        seen = self._seen
        seen[request.state] += 1
        if request.state is not State.RCPT and request.recipient_count == 0:
            return Fault.NO_COUNT
        if self._needs_end and not seen[State.END_OF_MESSAGE] and seen[request.state] >= ENOUGH:
            return Fault.NO_END
        if self._needs_rcpt and not seen[State.RCPT] and seen[request.state] >= ENOUGH:
            return Fault.NO_RCPT
        return None
