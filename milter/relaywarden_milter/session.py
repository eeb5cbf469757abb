"""session - pymilter's callbacks: one object a connection of Postfix, thin, over `pipeline`.

Steps that never need an answer are negotiated away (no reply for all but MAIL and the end of message), so a message costs
two round trips.  An exception in such a step would leave Postfix waiting for 300 s (milter-traps, 1): every callback is
guarded, the error is kept, logged and answered at the end of the message by 451 4.3.0.  What pymilter itself cannot decode
before it calls us (a HELO that is not UTF-8) is passed over by the exception policy that `worker` sets.

Aborted messages: Postfix sends an event that needs no answer only together with the next one that does, and Debian's
libmilter drops what it has not read when Postfix closes the connection.  MAIL is answered, so that an abort before it is
seen before policyd is asked about the new message (else it would refund that one); and `close` counts as an abort.

State: the connection's values live from `connect` to `close`, the message's from MAIL to the end of message or abort, which
exclude each other.  Consecutive callbacks may run on different threads (14), never at the same time.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import Milter

from relaywarden.config.settings import Outcome as Ended
from relaywarden.ledger.operations import Operation, tenant_of
from relaywarden.logs import event
from relaywarden_milter import meters
from relaywarden_milter.edits import Change
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.message import Message
from relaywarden_milter.outcome import Outcome
from relaywarden_milter.pipeline import handle, refund
from relaywarden_milter.rules import Rules
from relaywarden_milter.scan import Fate
from relaywarden_milter.settler import Settler

log = logging.getLogger(__name__)

ACTIONS = Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY | Milter.QUARANTINE | Milter.CHGFROM
_NEEDED_STEPS = Milter.P_NOHDRS | Milter.P_NOBODY | Milter.P_NOMAIL | Milter.P_NORCPT | Milter.P_NOCONNECT
_MOST_RECIPIENTS = 50_000
_LONGEST_REPLY = 450
_NO_MESSAGE = Message(0)  # between two messages; of no size, so that it takes nothing
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class Runtime:
    """What the sessions of a process share: the rules in force, the ledger's queue, and how busy they are."""

    def __init__(self, rules: Rules, settler: Settler) -> None:
        self.rules = rules  # replaced as a whole by a reload; a message keeps those it began with
        self.settler = settler
        self.sessions = 0
        self.messages = 0
        self.changed = threading.Condition()
        self.has_sessions: Callable[[int], None] | None = None  # told of each change of their number
        self._at_work: dict[int, float] = {}  # session -> since when it works on the end of a message
        settler.at_work = self._at_work.__len__

    def count(self, sessions: int = 0, messages: int = 0) -> None:
        """Note what began or ended; a draining worker waits for both to be 0."""
        with self.changed:
            self.sessions += sessions
            self.messages += messages
            if sessions < 0 or messages < 0:
                self.changed.notify_all()
        if sessions:
            meters.SESSIONS.inc(sessions)
            if self.has_sessions is not None:
                self.has_sessions(self.sessions)

    def begin_work(self, session: object) -> None:
        """A session works on a whole message from now on."""
        self._at_work[id(session)] = time.monotonic()

    def end_work(self, session: object) -> None:
        """It has an answer."""
        self._at_work.pop(id(session), None)

    def oldest_work(self) -> float:
        """For how many seconds the slowest message is being worked on; 0: none is."""
        began = min(list(self._at_work.values()), default=None)
        return 0.0 if began is None else time.monotonic() - began


def guarded(method: _Callback) -> _Callback:
    """Keep every exception, SystemExit included (milter-traps, 2), for the end of the message."""

    @functools.wraps(method)
    def call(self: Session, *args: Any) -> int:
        try:
            return int(method(self, *args))
        except BaseException as error:  # noqa: BLE001  # nothing may reach libmilter; `eom` answers for it
            return self.note_fault(method.__name__, error)

    return call  # type: ignore[return-value]


class Session(Milter.Base):
    """One connection of Postfix: an SMTP session with any number of messages."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.rules = runtime.rules
        self.client = Envelope()
        self.envelope = Envelope()
        self.message = _NO_MESSAGE
        self.fault = self.lasting_fault = ""
        self.connected = self.active = False
        self.header_answer = self.body_answer = int(Milter.CONTINUE)  # what libmilter wants to hear after one of them

    def negotiate(self, opts: list[int]) -> int:
        """Refuse an MTA that would hide parts of the message or not take our changes: mail would pass unsigned."""
        answer = super().negotiate(opts)
        if answer != Milter.CONTINUE or self._protocol & _NEEDED_STEPS or self._actions & ACTIONS != ACTIONS:
            event(log, logging.ERROR, "the MTA does not offer what is needed; milter_protocol must be 6 in Postfix",
                  steps=hex(self._protocol), actions=hex(self._actions))  # fmt: skip
            return int(Milter.REJECT)
        self.header_answer = _answer(self._protocol, Milter.P_NR_HDR)
        self.body_answer = _answer(self._protocol, Milter.P_NR_BODY)
        self.connected = True
        self.runtime.count(sessions=1)
        return int(Milter.CONTINUE)

    @Milter.noreply
    @guarded
    def connect(self, hostname: str, family: int, hostaddr: Any) -> int:
        del family
        address, port = hostaddr[:2] if isinstance(hostaddr, tuple) else ("", 0)
        self.client = Envelope(address=address, port=port, hostname=hostname, mta_name=self.macro("j"))
        return int(Milter.CONTINUE)

    @Milter.noreply
    @guarded
    def hello(self, hostname: str) -> int:
        self.client.helo = hostname
        return int(Milter.CONTINUE)

    @guarded  # answered: see "Aborted messages" above
    def envfrom(self, sender: str, *parameters: str) -> int:
        self.end_message()
        self.runtime.count(messages=1)
        self.active = True
        self.rules = self.runtime.rules
        login = self.macro("{auth_authen}")
        client = self.client
        self.envelope = Envelope(client.address, client.port, client.hostname, client.helo, client.mta_name,
                                 login or None, _bare(sender), eight_bit=_announces_8bit(parameters))  # fmt: skip
        keep, settings = self.rules.keeps_body(self.envelope.login), self.rules.settings
        self.message = Message(settings.milter.max_message_size, keep_body=keep, in_memory=settings.milter.body_in_memory,
                               line_length=settings.lint.line_length)  # fmt: skip
        return int(Milter.CONTINUE)

    @Milter.noreply
    @guarded
    def envrcpt(self, recipient: str, *_parameters: str) -> int:
        if len(self.envelope.recipients) >= _MOST_RECIPIENTS:
            raise ValueError(f"more than {_MOST_RECIPIENTS} recipients")
        self.envelope.recipients.append(_bare(recipient))
        return int(Milter.CONTINUE)

    def header_bytes(self, name: str, value: bytes) -> int:
        """Without pymilter's decoding; `header` must still be ours, or no headers are negotiated (milter-traps, 6b)."""
        return int(self.header(name, value))

    @Milter.noreply
    @guarded
    def header(self, name: str, value: bytes) -> int:
        self.message.add_header(name, value)
        return int(Milter.CONTINUE)

    @Milter.noreply
    @guarded
    def body(self, chunk: bytes) -> int:
        self.message.add_body(chunk)
        return int(Milter.CONTINUE)

    def eom(self) -> int:
        started = time.monotonic()
        self.runtime.begin_work(self)
        try:
            answer = self._finish(started)
        except BaseException as error:  # noqa: BLE001  # see `guarded`
            self.note_fault("eom", error)
            answer = self._answer_fault()
        finally:
            self.runtime.end_work(self)
        try:
            self.end_message()
        except BaseException as error:  # noqa: BLE001
            self.note_fault("eom", error)
        return answer

    @guarded
    def abort(self) -> int:
        self._give_up()
        return int(Milter.CONTINUE)

    @guarded
    def close(self) -> int:
        self._give_up()
        if self.connected:
            self.connected = False
            self.runtime.count(sessions=-1)
        return int(Milter.CONTINUE)

    def macro(self, name: str) -> str:
        """A macro's value; octets that are not UTF-8 become U+FFFD, which no login or queue id contains."""
        try:
            return self.getsymval(name) or ""
        except UnicodeDecodeError as error:
            return error.object.decode("utf-8", "replace")

    def note_fault(self, callback: str, error: BaseException) -> int:
        """Keep an error of our own for the end of the message."""
        self.fault = self.fault or callback
        if callback in {"connect", "hello"}:
            self.lasting_fault = callback  # what they should have noted is missing for every message of the connection
        meters.labelled(meters.FAULTS, callback).inc()
        log.error("error in milter callback %s", callback, exc_info=error)
        return int(Milter.CONTINUE)

    def end_message(self) -> None:
        """Forget the message, and a fault that belonged to it."""
        self.fault = self.lasting_fault
        if self.active:
            self.active = False
            self.message.close()
            self.message, self.envelope = _NO_MESSAGE, Envelope()
            self.runtime.count(messages=-1)

    def _give_up(self) -> None:
        """End a message that Postfix will not finish; its ticket is found by the connection, a queue id may be an old one."""
        if self.active:
            self._give_back(Ended.ABORTED)
            meters.labelled(meters.MESSAGES, "aborted").inc()
        self.end_message()

    def _finish(self, started: float) -> int:
        envelope = self._with_queue_id()
        if self.fault or not self.active:
            return self._answer_fault()
        outcome = handle(self.rules, envelope, self.message, self._still_at_work)
        try:
            if outcome.fate is Fate.ACCEPT:
                self._carry_out(outcome)
        finally:
            if outcome.body is not None:
                outcome.body.close()
        settled = self.runtime.settler.submit(outcome.operations)
        seconds = time.monotonic() - started
        meters.labelled(meters.MESSAGES, outcome.result).inc()
        meters.SECONDS.observe(seconds)
        try:
            self._log(outcome, seconds, settled=settled)
        except Exception as error:  # noqa: BLE001  # the message is settled: a line that cannot be written changes nothing
            self.note_fault("log", error)
        return self._answer(outcome)

    def _still_at_work(self) -> None:
        """Postfix waits content_timeout for an answer; this makes it begin to wait anew (SMFIR_PROGRESS)."""
        try:
            self.progress()
        except Exception as error:  # noqa: BLE001  # Postfix is gone; the answer will meet the same, and say so
            event(log, logging.DEBUG, "the MTA was not told of progress", queue=self.envelope.queue_id, error=error)

    def _with_queue_id(self) -> Envelope:
        """Postfix knows the queue id only after the first accepted recipient (milter-traps, 12)."""
        self.envelope.queue_id = self.macro("i")
        return self.envelope

    def _carry_out(self, outcome: Outcome) -> None:
        for step in outcome.steps:
            if isinstance(step, Change):
                self.chgheader(step.name, step.index, step.value)
            else:
                self.addheader(step.name, step.value, step.position)
        if outcome.sender:
            self.chgfrom(f"<{outcome.sender}>")
        for piece in outcome.body or ():
            self.replacebody(piece)  # Postfix appends what comes after the first
        if outcome.hold:
            self.quarantine(outcome.hold)

    def _give_back(self, ended: Ended) -> None:
        operation = refund(self.rules, self.envelope, ended)
        if operation is not None:
            self.runtime.settler.submit([operation])

    def _answer(self, outcome: Outcome) -> int:
        refusal = outcome.refusal
        if refusal is None:
            return int(Milter.CONTINUE)
        if refusal.fate is Fate.DISCARD:
            return int(Milter.DISCARD)
        self.setreply(refusal.code, refusal.enhanced, reply_text(refusal.text))
        return int(Milter.REJECT if refusal.fate is Fate.REJECT else Milter.TEMPFAIL)

    def _answer_fault(self) -> int:
        """An error of ours: the client tries again later, what policyd charged is given back."""
        meters.labelled(meters.MESSAGES, "fault").inc()
        event(log, logging.ERROR, "message put off because of an error", queue=self.envelope.queue_id, callback=self.fault)
        try:
            self._give_back(Ended.DEFERRED)
            self.setreply("451", "4.3.0", "Internal error of the mail filter, try again later")
        except BaseException as error:  # noqa: BLE001  # TEMPFAIL says the same, without our words
            self.note_fault("eom", error)
        return int(Milter.TEMPFAIL)

    def _log(self, outcome: Outcome, seconds: float, *, settled: bool) -> None:
        envelope = self.envelope
        event(log, logging.INFO, outcome.result, queue=envelope.queue_id, login=envelope.login,
              tenant=_tenant(outcome.operations),
              client=envelope.connection, recipients=len(envelope.recipients), size=self.message.size,
              **outcome.record, settled=None if settled else "later", ms=seconds * 1000)  # fmt: skip


def reply_text(text: str) -> str:
    """One line of printable ASCII with `%` doubled (milter-traps, 10)."""
    clean = "".join(char if char.isascii() and char.isprintable() else " " for char in text)
    return " ".join(clean.split())[:_LONGEST_REPLY].replace("%", "%%") or "Refused"


def _tenant(operations: list[Operation]) -> str | None:
    return tenant_of(operations[0]) if operations else None


def _announces_8bit(parameters: tuple[str, ...]) -> bool:
    return any(parameter.upper() == "BODY=8BITMIME" for parameter in parameters)


def _answer(protocol: int, no_reply: int) -> int:
    return int(Milter.NOREPLY if protocol & no_reply else Milter.CONTINUE)


def _bare(address: str) -> str:
    """The address without its angle brackets, as policyd sees it."""
    return address[1:-1] if address.startswith("<") and address.endswith(">") else address
