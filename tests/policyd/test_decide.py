"""From request to verdict, without I/O."""

from __future__ import annotations

from typing import Any

import pytest

from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Charge, Decision, Done, Reconcile, Refusal, Refuse, Status
from relaywarden.ledger.records import Suppression
from relaywarden_policyd.decide import Judge, Question, answer
from relaywarden_policyd.protocol import Request, State
from relaywarden_policyd.verdict import Action, Cause, Verdict, format_wait
from relaywarden_policyd.wiring import Fault

ADMITTED = Decision(Status.ADMITTED)
RCPT = Request(State.RCPT, "i1", "acme", "a@acme.example", "bob@x.example", client_address="192.0.2.1", client_port="99")
DATA = RCPT._replace(state=State.DATA, recipient_count=2, queue_id="Q1")
EOM = DATA._replace(state=State.END_OF_MESSAGE, size=5000)


def judge(unknown: Any = "reject", **plan: Any) -> Judge:
    plan.setdefault("limits", [{"recipients": "500/hour"}, {"bytes": "1GiB/day"}])
    document = {"plans": {"p": plan}, "tenants": {"acme": {"plan": "p"}}, "unknown_login": unknown}
    return Judge(Settings.model_validate(document), fresh_ticket=lambda: "fresh")


def question(asked: Verdict | Question) -> Question:
    assert isinstance(asked, Question), asked
    return asked


def refused(
    used: int = 500, wait: int | None = 90_000, status: Status = Status.REFUSED, key: str = "recipients/1h"
) -> Decision:
    return Decision(status, Refusal(key, used, 500, wait))


def verdict(by: Judge, decision: Decision, request: Request = RCPT) -> Verdict:
    return answer(question(by.ask(request)), decision)


def test_rcpt_charges_a_recipient() -> None:
    operation = question(judge().ask(RCPT._replace(size=300))).operation
    assert operation == Charge(operation.account, "i1", "bob@x.example", 300, "", "192.0.2.1:99")
    assert operation.account.tenant == "acme"
    assert [balance.key for balance in operation.account.balances] == ["recipients/1h", "bytes/1d"]


def test_data_and_end_of_message_reconcile() -> None:
    for request in (DATA, EOM):
        operation = question(judge().ask(request)).operation
        assert operation == Reconcile(operation.account, "i1", 2, request.size, "Q1", "192.0.2.1:99")


def test_a_dry_run_is_dry_everywhere() -> None:
    for request in (RCPT, DATA, EOM):
        operation = question(judge().ask(request, dry=True)).operation
        assert isinstance(operation, Charge | Reconcile)
        assert operation.dry


@pytest.mark.parametrize("state", [state for state in State if state not in (State.RCPT, State.DATA, State.END_OF_MESSAGE)])
def test_nothing_is_decided_at_other_states(state: State) -> None:
    request = RCPT._replace(state=state)
    found = judge().ask(request)
    assert isinstance(found, Verdict)
    assert (found.reply, found.cause) == ("DUNNO", Cause.STATE)
    assert judge().wiring.look(request) is Fault.OTHER_STATE
    assert judge().wiring.look(Request(state)) is None  # names no client: a health check, not Postfix


@pytest.mark.parametrize(
    ("change", "fault"),
    [({}, None), ({"sasl_username": ""}, Fault.NO_LOGIN), ({"instance": ""}, Fault.NO_INSTANCE)],
)
def test_wiring_faults(change: dict[str, Any], fault: Fault | None) -> None:
    assert judge().wiring.look(RCPT._replace(**change)) is fault


def test_mail_without_a_login_is_no_fault_where_the_operator_expects_it() -> None:
    for context, fault in (("submission", Fault.NO_LOGIN), ("", Fault.NO_LOGIN), ("mx", None)):
        assert judge().wiring.look(RCPT._replace(sasl_username="", policy_context=context)) is fault


def test_data_without_a_count_decides_nothing() -> None:
    request = DATA._replace(recipient_count=0)
    assert judge().wiring.look(request) is Fault.NO_COUNT
    found = judge().ask(request)
    assert isinstance(found, Verdict)
    assert found.reply == "DUNNO"


def test_without_login_it_is_not_ours() -> None:
    found = judge().ask(RCPT._replace(sasl_username=""))
    assert isinstance(found, Verdict)
    assert (found.reply, found.cause) == ("DUNNO", Cause.UNAUTHENTICATED)


def test_without_instance_the_ticket_is_a_fresh_one() -> None:
    operation = question(judge().ask(RCPT._replace(instance=""))).operation
    assert isinstance(operation, Charge)
    assert operation.ticket == "fresh"


@pytest.mark.parametrize(("unknown", "head"), [("reject", "REJECT 5.7.1 "), ("ignore", "DUNNO")])
def test_unknown_logins(unknown: str, head: str) -> None:
    found = judge(unknown).ask(RCPT._replace(sasl_username="stranger"))
    assert isinstance(found, Verdict)
    assert found.reply.startswith(head)
    assert "stranger" not in found.reply


def test_unknown_login_with_a_plan_is_its_own_tenant() -> None:
    assert question(judge({"plan": "p"}).ask(RCPT._replace(sasl_username="new"))).operation.account.tenant == "new"


@pytest.mark.parametrize(
    ("on_exceed", "head"), [("defer", "DEFER_IF_PERMIT 4.7.1 "), ("reject", "REJECT 5.7.1 "), ("hold", "HOLD ")]
)
@pytest.mark.parametrize("request_", [RCPT, DATA, EOM])
def test_a_reached_limit(on_exceed: str, head: str, request_: Request) -> None:
    status = Status.HELD if on_exceed == "hold" else Status.REFUSED
    found = verdict(judge(on_exceed=on_exceed), refused(status=status), request_)
    assert found.reply == f"{head}Sending limit of 500 recipients in 1h reached, 500 used; try again in 90s"
    assert (found.limit, found.used, found.allowed, found.retry_after_ms) == ("recipients: 500/1h", 500, 500, 90_000)
    assert (found.cause, found.observed, found.admits) == (Cause.LIMIT, False, False)


def test_mail_to_be_held_is_charged_past_the_limit() -> None:
    held = question(judge(on_exceed="hold").ask(RCPT)).operation.account
    assert (held.hold, held.observe) == (True, False)
    assert not question(judge().ask(RCPT)).operation.account.hold


def test_observing_by_hand_goes_before_holding() -> None:
    assert verdict(judge(on_exceed="hold"), refused(status=Status.ADMITTED)).action is Action.DUNNO


def test_what_a_grant_carries_is_admitted_and_said() -> None:
    found = verdict(judge(), Decision(Status.ADMITTED, granted=True))
    assert (found.reply, found.cause) == ("DUNNO", Cause.GRANTED)
    assert found.fields()["granted"]


def test_what_no_wait_makes_room_for_is_rejected() -> None:
    found = verdict(judge(), Decision(Status.REFUSED, Refusal("bytes/1d", 0, 2**30, None)))
    assert found.reply == "REJECT 5.7.1 Over the sending limit of 1 GiB in 1d, which no wait can make room for"
    assert found.cause is Cause.NEVER


def test_a_balance_that_no_limit_names_any_more() -> None:
    found = verdict(judge(), refused(key="recipients/7d"))
    assert found.reply == "DEFER_IF_PERMIT 4.7.1 Sending limit reached; try again in 90s"


def test_observe_mode_lets_pass_and_tells() -> None:
    by = judge(mode="observe")
    assert question(by.ask(RCPT)).operation.account.observe
    found = verdict(by, refused(status=Status.ADMITTED))
    assert (found.reply, found.observed, found.limit) == ("DUNNO", True, "recipients: 500/1h")


def test_an_observed_limit_of_an_enforced_plan_lets_pass() -> None:
    limits = [{"recipients": "500/hour", "mode": "observe"}]
    for on_exceed in ("defer", "hold"):
        found = verdict(judge(limits=limits, on_exceed=on_exceed), refused(status=Status.ADMITTED))
        assert (found.reply, found.observed) == ("DUNNO", True)


def test_suspended_tells_the_client_nothing_of_the_reason() -> None:
    found = verdict(judge(), Decision(Status.SUSPENDED, reason="password stolen, ticket 4711"))
    assert found.reply.startswith("REJECT 5.7.1 ")
    assert "4711" not in found.reply
    assert found.reason == "password stolen, ticket 4711"


def test_a_suppressed_recipient_is_refused_with_why_and_until_when() -> None:
    day = 86_400_000
    entry = Suppression("bob@x.example", "bounced", 20_000 * day, 20_030 * day, "550 5.1.1 internal words of the provider")
    found = verdict(judge(), Decision(Status.SUPPRESSED, reason=entry.pack()))
    assert found.reply.startswith(
        "REJECT 5.7.1 This recipient is on your suppression list until 2024-11-03: it bounced on 2024-10-04"
    )
    assert "internal words" not in found.reply
    assert (found.cause, found.reason) == (Cause.SUPPRESSED, "bounced: 550 5.1.1 internal words of the provider")
    observed = verdict(judge(mode="observe"), Decision(Status.ADMITTED, reason=entry._replace(kind="complained").pack()))
    assert (observed.reply, observed.observed, observed.cause) == ("DUNNO", True, Cause.SUPPRESSED)


def test_admitted_and_repeated() -> None:
    assert verdict(judge(), ADMITTED).reply == "DUNNO"
    assert verdict(judge(), Decision(Status.ADMITTED, repeated=True)).repeated


def test_without_the_store_mail_passes_and_the_verdict_says_so() -> None:
    found = answer(question(judge().ask(RCPT)), ADMITTED, local=True)
    assert (found.reply, found.cause) == ("DUNNO", Cause.STORE)


def test_recipients_cap_at_rcpt_lets_the_client_send_the_rest_in_another_message() -> None:
    by = judge(recipients_per_message=3)
    assert isinstance(by.ask(RCPT, earlier=2), Question)
    asked = question(by.ask(RCPT, earlier=3))
    assert asked.operation == Refuse(asked.operation.account, "i1", RCPT.recipient)
    found = answer(asked, Done())
    assert found.reply == "452 4.5.3 Too many recipients in one message, at most 3 are allowed"


def test_recipients_cap_at_data_rejects_and_gives_back() -> None:
    asked = question(judge(recipients_per_message=1).ask(DATA))
    assert asked.operation == Refuse(asked.operation.account, "i1")
    found = answer(asked, Done())
    assert found.reply.startswith("REJECT 5.5.3 ")
    assert answer(asked, ADMITTED, local=True) == found  # a cap needs no store


@pytest.mark.parametrize("request_", [RCPT._replace(size=2**20), EOM._replace(size=2**20)])
def test_size_cap(request_: Request) -> None:
    asked = judge(bytes_per_message="512KiB").ask(request_, dry=True)
    assert isinstance(asked, Verdict)
    assert asked.reply == "REJECT 5.3.4 Message of 1 MiB is too large, at most 512 KiB are allowed"


def test_caps_in_observe_mode_charge_and_let_pass() -> None:
    asked = question(judge(recipients_per_message=1, mode="observe").ask(DATA))
    assert isinstance(asked.operation, Reconcile)
    found = answer(asked, ADMITTED)
    assert (found.reply, found.observed, found.cause) == ("DUNNO", True, Cause.RECIPIENTS)


@pytest.mark.parametrize(
    ("per", "keys"),
    [("login", ["recipients/1h@login=acme"]), ("client", ["recipients/1h@client=192.0.2.1"]),
     ("from_domain", ["recipients/1h@from_domain=acme.example"])],
)  # fmt: skip
def test_scopes(per: str, keys: list[str]) -> None:
    by = judge(limits=[{"recipients": "500/hour", "per": per}])
    first, second = question(by.ask(RCPT)).operation.account, question(by.ask(RCPT)).operation.account
    assert [balance.key for balance in first.balances] == keys
    assert first is second


def test_no_reply_ever_ends_the_restriction_list() -> None:
    for found in (verdict(judge(), ADMITTED), verdict(judge(mode="observe"), refused(status=Status.ADMITTED))):
        assert found.reply == "DUNNO"
    assert {action.value for action in Action} == {"DUNNO", "DEFER_IF_PERMIT", "REJECT", "HOLD"}


@pytest.mark.parametrize(
    ("ms", "text"),
    [(1, "1s"), (37_001, "38s"), (120_000, "2m"), (3_625_000, "61m"), (11_100_000, "3h 5m"), (187_200_000, "2d 4h")],
)
def test_waits(ms: int, text: str) -> None:
    assert format_wait(ms) == text
