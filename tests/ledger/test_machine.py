"""The contract as a state machine: any sequence of operations and clock steps, both stores, against the oracle."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from relaywarden.ledger.operations import (
    Account,
    Charge,
    Decision,
    Read,
    Reconcile,
    Refund,
    Reset,
    Settle,
    Snapshot,
    Status,
    Steer,
    Take,
    Taken,
)
from relaywarden.limits import Limit, Meter
from testbed.ledgerstore import Store, StoreMaker
from testbed.oracle import Grant, Oracle, OracleTicket

LIMITS = {
    "second": [Limit.parse(Meter.MESSAGES, "5/10s"), Limit.parse(Meter.RECIPIENTS, "12/10s")],
    "mixed": [
        Limit.parse(Meter.MESSAGES, "3/s"),
        Limit.parse(Meter.RECIPIENTS, "20/m"),
        Limit.parse(Meter.RECIPIENTS, "30/h"),
        Limit.parse(Meter.BYTES, "4000/m"),
    ],
    "month": [Limit.parse(Meter.RECIPIENTS, "25/30d"), Limit.parse(Meter.BYTES, "9000/d")],
}
TICKETS = st.sampled_from(["t1", "t2", "t3", "t4"])
RECIPIENTS = st.sampled_from(["a@x", "b@x", "c@x", "d@x", "e@x"])
SIZES = st.sampled_from([0, 100, 900, 3000])


class LedgerMachine(RuleBasedStateMachine):
    """One tenant, four transactions at a time, resent and reordered at will."""

    new_store: StoreMaker

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = type(self).new_store()
        self.oracle = Oracle()
        self.generation = self.serial = 0

    @initialize(plan=st.sampled_from(sorted(LIMITS)))
    def start(self, plan: str) -> None:
        self.account = Account.of("acme", LIMITS[plan])

    @property
    def now(self) -> int:
        now = self.store.clock.now_ms
        self.oracle.see(now)
        return now

    def name(self, ticket: str) -> str:
        return f"{ticket}.{self.generation}"

    def ticket(self, name: str) -> OracleTicket:
        return self.oracle.tickets.setdefault(self.name(name), OracleTicket())

    def unnamed(self, count: int) -> list[str]:
        """Names for recipients that only a number told of."""
        self.serial += count
        return [f"#{self.serial - i}" for i in range(count)]

    def drawn(self, decision: Decision) -> set[Meter]:
        """The meters that were charged to a grant by the last operation."""
        if not decision.granted:
            return set()
        state = cast("Snapshot", self.store.do(Read(self.account))).state["grants"]
        return {meter for meter, grant in self.oracle.grants.items() if state[meter.value]["used"] > grant.used}

    def judge(self, decision: Decision, cost: dict[Meter, int]) -> set[Meter]:
        """The promises: never more than N, no refusal without cause, no grant drawn on without need; what grants carry."""
        wanted = [b for b in self.account.balances if cost.get(b.limit.meter, 0) > 0]
        granted = self.drawn(decision)
        if decision.status is Status.ADMITTED:
            for balance in wanted:
                if balance.limit.meter not in granted:
                    assert self.oracle.certain(balance, self.now) + cost[balance.limit.meter] <= balance.limit.amount
            for meter in granted:
                assert self.oracle.grants[meter].room(cost[meter], self.now)
                mine = [b for b in wanted if b.limit.meter is meter]
                assert any(self.oracle.possible(b, self.now) + cost[meter] > b.limit.amount for b in mine)
            return granted
        assert decision.refusal is not None
        named = next(b for b in wanted if b.key == decision.refusal.key)
        meter = named.limit.meter
        assert self.oracle.possible(named, self.now) + cost[meter] > named.limit.amount
        assert decision.refusal.allowed == named.limit.amount
        assert meter not in self.oracle.grants or not self.oracle.grants[meter].room(cost[meter], self.now)
        return set()

    def book(self, ticket: OracleTicket, cost: dict[Meter, int], names: list[str], granted: Collection[Meter] = ()) -> None:
        if cost.get(Meter.MESSAGES):
            ticket.message = self.oracle.add(Meter.MESSAGES, 1, self.now, Meter.MESSAGES in granted)
        for name in names:
            ticket.recipients[name] = self.oracle.add(Meter.RECIPIENTS, 1, self.now, Meter.RECIPIENTS in granted)
        if cost.get(Meter.BYTES):
            ticket.sizes.append(self.oracle.add(Meter.BYTES, cost[Meter.BYTES], self.now, Meter.BYTES in granted))

    def give_all_back(self, ticket: OracleTicket) -> None:
        for event in [*ticket.recipients.values(), *ticket.sizes, *([ticket.message] if ticket.message else [])]:
            self.oracle.drop(event)
        ticket.recipients, ticket.sizes, ticket.message = {}, [], None

    @rule(name=TICKETS, recipient=RECIPIENTS, size=SIZES)
    def charge(self, name: str, recipient: str, size: int) -> None:
        ticket = self.ticket(name)
        op = Charge(self.account, self.name(name), recipient, size, f"Q{self.name(name)}", f"127.0.0.1:{self.name(name)}")
        decision = cast("Decision", self.store.do(op))
        if ticket.phase in ("settled", "refunded") or recipient in ticket.recipients:
            assert decision == Decision(Status.ADMITTED, repeated=True)
            return
        if ticket.phase == "refused" or recipient in ticket.refused:
            assert decision.status is Status.REFUSED
            assert decision.repeated
            return
        cost = {
            Meter.MESSAGES: 0 if ticket.message else 1,
            Meter.RECIPIENTS: 1,
            Meter.BYTES: max(0, size - ticket.size),
        }
        granted = self.judge(decision, cost)
        if decision.status is Status.ADMITTED:
            self.book(ticket, cost, [recipient], granted)
        else:
            ticket.refused.add(recipient)

    @rule(name=TICKETS, recipients=st.integers(1, 7), size=SIZES)
    def reconcile(self, name: str, recipients: int, size: int) -> None:
        ticket = self.ticket(name)
        op = Reconcile(self.account, self.name(name), recipients, size, f"Q{self.name(name)}")
        decision = cast("Decision", self.store.do(op))
        if ticket.phase in ("settled", "refunded"):
            assert decision == Decision(Status.ADMITTED, repeated=True)
            return
        if ticket.phase == "refused":
            assert decision.status is Status.REFUSED
            assert decision.repeated
            return
        cost = {
            Meter.MESSAGES: 0 if ticket.message else 1,
            Meter.RECIPIENTS: max(0, recipients - len(ticket.recipients)),
            Meter.BYTES: max(0, size - ticket.size),
        }
        granted = self.judge(decision, cost)
        if decision.status is Status.REFUSED:
            self.give_all_back(ticket)
            ticket.phase = "refused"
            return
        self.surplus(ticket, recipients, size)
        self.book(ticket, cost, self.unnamed(cost[Meter.RECIPIENTS]), granted)

    def surplus(self, ticket: OracleTicket, recipients: int, size: int) -> None:
        for name in list(ticket.recipients)[: max(0, len(ticket.recipients) - recipients)]:
            self.oracle.drop(ticket.recipients.pop(name))
        if size and size < ticket.size:
            excess = ticket.size - size
            for event in reversed(ticket.sizes):  # the store gives back at the time of the last charge
                part = min(excess, event.amount)
                if part:
                    self.oracle.drop(event, part)
                excess -= part
            ticket.sizes = [event for event in ticket.sizes if event.amount]

    @rule(name=TICKETS)
    def refund(self, name: str) -> None:
        ticket = self.ticket(name)
        self.store.do(Refund(self.account, f"Q{self.name(name)}", f"127.0.0.1:{self.name(name)}"))
        if ticket.phase == "open" and ticket.message:
            self.give_all_back(ticket)
            ticket.phase = "refunded"

    @rule(name=TICKETS, recipients=st.lists(RECIPIENTS, min_size=1, max_size=5, unique=True), size=st.sampled_from([100, 900]))
    def settle(self, name: str, recipients: list[str], size: int) -> None:
        ticket = self.ticket(name)
        if ticket.phase != "open" or ticket.message is None:
            return  # a message that policyd never saw: a scenario of its own in test_contract
        self.store.do(Settle(self.account, f"Q{self.name(name)}", "", tuple(recipients), size))
        extra = max(0, len(recipients) - len(ticket.recipients))
        more = max(0, size - ticket.size)
        self.surplus(ticket, len(recipients), size)
        self.book(ticket, {Meter.BYTES: more}, self.unnamed(extra))
        ticket.phase = "settled"

    @rule(amount=st.integers(0, 8))
    def take(self, amount: int) -> None:
        """As many as every window admits, and not one less; grants do not matter."""
        taken = cast("Taken", self.store.do(Take(self.account, amount)))
        assert 0 <= taken.amount <= amount
        assert (taken.retry_after_ms == 0) == (taken.amount == amount)
        mine = [b for b in self.account.balances if b.limit.meter is Meter.MESSAGES]
        for balance in mine:
            if taken.amount:
                assert self.oracle.certain(balance, self.now) + taken.amount <= balance.limit.amount
        if taken.amount < amount:
            assert any(self.oracle.possible(b, self.now) + taken.amount + 1 > b.limit.amount for b in mine)
        if taken.amount:
            self.oracle.add(Meter.MESSAGES, taken.amount, self.now)

    @rule()
    def next_generation(self) -> None:
        """New transactions under new instances."""
        self.generation += 1

    @rule(ms=st.one_of(st.integers(0, 50), st.integers(50, 20_000), st.sampled_from([60_000, 250_000])))
    def pass_time(self, ms: int) -> None:
        self.store.clock.now_ms = self.now + ms
        if ms > 20_000:
            self.generation += 1  # a closed ticket is remembered for five minutes only

    @rule(ms=st.integers(1, 400))
    def step_back(self, ms: int) -> None:
        """By less than the shortest window in all: then the store gathers everything now, see test_contract."""
        if self.oracle.latest_ms - (self.now - ms) < 900:
            self.store.clock.now_ms = self.now - ms

    @rule(
        meter=st.sampled_from([Meter.MESSAGES, Meter.RECIPIENTS, Meter.BYTES]),
        amount=st.integers(1, 2000),
        ms=st.integers(1, 90_000),
    )
    def grant(self, meter: Meter, amount: int, ms: int) -> None:
        """One a meter, so that it is plain to which a charge goes."""
        until = self.now + ms
        entry = {"meter": meter.value, "amount": amount, "used": 0, "until_ms": until}
        self.store.do(Steer("acme", {"grants": {meter.value: entry}}))
        self.oracle.grants[meter] = Grant(amount, until)

    @rule()
    def reset(self) -> None:
        self.store.do(Reset("acme"))
        self.oracle.events.clear()
        self.oracle.ghosts.clear()
        self.generation += 1

    @invariant()
    def balances_agree(self) -> None:
        if not hasattr(self, "account"):
            return
        snapshot = cast("Snapshot", self.store.do(Read(self.account)))
        for balance, used in zip(self.account.balances, snapshot.balances, strict=True):
            certain, possible = self.oracle.certain(balance, self.now), self.oracle.possible(balance, self.now)
            assert certain <= used.used <= possible, (balance.key, used.used)
        told = {name: entry["used"] for name, entry in snapshot.state.get("grants", {}).items()}
        assert told == {meter.value: grant.used for meter, grant in self.oracle.grants.items()}


def test_any_sequence_keeps_the_promises(new_store: StoreMaker) -> None:
    machine = type("Machine", (LedgerMachine,), {"new_store": staticmethod(new_store)})
    run_state_machine_as_test(
        machine,
        settings=settings(stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )
