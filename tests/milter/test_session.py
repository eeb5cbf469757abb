"""What a session remembers of its own faults.  libmilter's context is stood in for: it cannot be had without libmilter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import Milter

from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Operation
from relaywarden_milter.libmilter import _body, _header
from relaywarden_milter.rules import Rules
from relaywarden_milter.session import Runtime, Session, reply_text


class Taking:
    """A settler that takes everything."""

    def __init__(self) -> None:
        self.at_work: Any = None
        self.operations: list[Operation] = []

    def submit(self, operations: Sequence[Operation]) -> bool:
        self.operations += operations
        return True


class Context:
    """What pymilter asks libmilter for."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.replies: list[tuple[str, ...]] = []

    def getpriv(self) -> Session | None:
        return self.session

    def setpriv(self, session: Session | None) -> None:
        self.session = session

    def getsymval(self, name: str) -> str | None:
        return {"{auth_authen}": "acme", "i": "4Q"}.get(name)

    def setreply(self, *reply: str) -> None:
        self.replies.append(reply)

    def addheader(self, *_step: object) -> None:
        pass


def open_session(address: object) -> tuple[Context, Session]:
    settings = Settings.model_validate({"plans": {"p": {}}, "tenants": {"acme": {"plan": "p"}}})
    session = Session(Runtime(Rules(settings), Taking()))  # type: ignore[arg-type]
    context = Context()
    session._setctx(context)
    session._actions, session._protocol = Milter.MODBODY | 0x1FF, 0
    session.connected = True
    session.connect("client.example", 2, address)
    return context, session


def send(context: Context, session: Session) -> int:
    session.envfrom_bytes(b"<a@acme.example>")
    session.envrcpt_bytes(b"<b@x.example>")
    for name, value in (("From", b"a@acme.example"), ("Date", b"x"), ("Message-ID", b"<1@x>")):
        _header(context, name, value)
    _body(context, b"hello\r\n")
    return session.eom()


def test_a_fault_at_connect_holds_for_every_message_of_the_connection() -> None:
    context, session = open_session(("nothing",))  # no port: our own code fails on it
    assert [send(context, session), send(context, session)] == [Milter.TEMPFAIL] * 2
    assert [reply[:2] for reply in context.replies] == [("451", "4.3.0")] * 2


def test_a_fault_in_one_message_ends_with_it() -> None:
    context, session = open_session(("192.0.2.1", 4000))
    session.envfrom_bytes(b"<a@acme.example>")
    _header(context, "From", None)  # type: ignore[arg-type]  # what no libmilter sends
    assert session.eom() == Milter.TEMPFAIL
    assert send(context, session) == Milter.CONTINUE


def test_the_slowest_message_is_known_while_it_is_worked_on() -> None:
    _, session = open_session(("192.0.2.1", 4000))
    runtime = session.runtime
    assert runtime.oldest_work() == 0.0
    runtime.begin_work(session)
    assert runtime.oldest_work() > 0.0
    runtime.end_work(session)
    assert runtime.oldest_work() == 0.0


def test_reply_texts_are_one_printable_line_with_percent_doubled() -> None:
    assert reply_text("100%\r\nü  x") == "100%% x"
    assert reply_text("") == "Refused"
