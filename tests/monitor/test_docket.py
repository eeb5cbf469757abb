"""What is kept of a message with more news than a story holds: its beginning, its end, and how it ended for each recipient."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from relaywarden import story
from relaywarden.cli import messages
from relaywarden.config.settings import Settings
from relaywarden.story import BOUNCED, DEFERRED, DELIVERED, HANDED_OVER, Story, StoryEvent
from relaywarden_monitor.attribute import Attributor
from relaywarden_monitor.docket import Docket, Message
from relaywarden_monitor.events import Accepted, Attempt, Outcome
from testbed.classifying import classifier

AT = 1_795_507_200.0
LATER = "450 4.2.0 try again later"


def attributor() -> Attributor:
    values = {
        "store": "sqlite:////nowhere.db", "plans": {"p": {}}, "tenants": {"acme": {"plan": "p"}},
        "pools": {"t": {"members": {"tx1": {"ip": "192.0.2.1"}}}}, "monitor": {"postfix_log": "/var/log/mail.log"},
    }  # fmt: skip
    return Attributor(Settings.model_validate(values), classifier())


def attempt(number: int, outcome: Outcome, at: float, reply: str = LATER, *, remote: bool = False) -> Attempt:
    return Attempt(at, "4Q", f"r{number}@x.example", outcome, "tx1", "mx.x.example", "", "", reply, remote=remote)


def mailing() -> list[Accepted | Attempt]:
    """Fifty recipients, deferred twice; 49 of them delivered to at the third time."""
    late = [attempt(number, Outcome.DEFERRED, AT + turn + number) for turn in (100, 200) for number in range(50)]
    return [Accepted(AT, "4Q", "acme"), *late, *(attempt(number, Outcome.DELIVERED, AT + 300 + number) for number in range(49))]


def reread(docket: Docket) -> Docket:
    """What the ledger gives back of the message."""
    found = story.read("4Q", {story.LOG: docket.find("4Q").dump()})
    assert found is not None
    made = Docket()
    made.recall(found)
    return made


def test_only_who_was_not_delivered_to_expires() -> None:
    docket = Docket()
    attributor().attribute(mailing(), docket)
    expired = Attempt(AT + 999, "4Q", "", Outcome.BOUNCED, given_up=True)
    for known in (reread(docket), docket):
        counted = attributor().attribute([expired], known)
        assert [books["acme"]["bounced"] for books in counted.hours.values()] == [1]
        assert known.find("4Q").last["r49@x.example"].kind == BOUNCED


def test_a_late_bounce_finds_a_recipient_beyond_the_events_that_are_kept() -> None:
    docket = Docket()
    attributor().attribute([Accepted(AT, "4Q", "acme")], docket)
    attributor().attribute([attempt(number, Outcome.DELIVERED, AT + number) for number in range(300)], docket)
    late = attempt(70, Outcome.BOUNCED, AT + 999, "550 5.1.1 no such user", remote=True)
    counted = attributor().attribute([late, late], reread(docket))
    assert [(once.book, once.outcome) for once in counted.once] == [("acme", "bounced"), ("!member:tx1/other", "bounced")]


def test_explain_shows_how_it_began_and_how_it_ended() -> None:
    docket = Docket()
    attributor().attribute(mailing(), docket)
    told = story.read("4Q", {story.LOG: docket.find("4Q").dump()})
    assert told is not None
    item = messages.document("4Q", [], told, "")
    lines = list(messages.lines(item))
    assert len(item["events"]) == story.MOST_EVENTS
    assert item["more"] == 49
    assert (item["summary"]["delivered"], item["summary"]["deferred"], item["summary"]["recipients"]) == (49, 1, 50)
    gap = next(number for number, line in enumerate(lines) if line.endswith("... 49 more, which were not kept"))
    assert "deferred for r49@x.example" in lines[gap - 1]
    assert "delivered to r48@x.example" in lines[-2]


def test_what_is_read_again_after_a_crash_changes_nothing() -> None:
    docket = Docket()
    attributor().attribute(mailing(), docket)
    again = reread(docket)
    attributor().attribute(mailing()[1:], again)
    assert (again.find("4Q").last, again.find("4Q").more) == (reread(docket).find("4Q").last, 49)


def test_a_handover_is_not_the_end_where_accounting_was_read_first() -> None:
    last: dict[str, StoryEvent] = {}
    for kind, at in ((DELIVERED, 12.0), (HANDED_OVER, 12.7), (DEFERRED, 3.0)):
        story.settle(last, StoryEvent(at, kind, "A@x.example"))
    assert last["a@x.example"].kind == DELIVERED
    for kind, at in ((BOUNCED, 11.0), (DELIVERED, 99.0)):
        story.settle(last, StoryEvent(at, kind, "a@x.example"))
    assert last["a@x.example"].kind == BOUNCED


EVENTS = st.builds(
    StoryEvent, st.floats(0, 9), st.sampled_from([DELIVERED, DEFERRED, BOUNCED, "complained"]),
    st.integers(0, 1500).map(lambda number: f"r{number}@x"),
)  # fmt: skip


@example([StoryEvent(0.0, kind, "r0@x") for kind in (DEFERRED, DELIVERED, DEFERRED)], 0)
@given(st.lists(EVENTS, max_size=400), st.integers(0, 1500))
def test_property_a_message_stays_small_and_keeps_its_last_words(events: list[StoryEvent], many: int) -> None:
    message = Message("4Q", {"tenant": "acme"})
    for event in [*(StoryEvent(0.0, DEFERRED, f"r{number}@x") for number in range(many)), *events]:
        message.add(event)
        message.block(event.recipient)
    read = story.read("4Q", {story.LOG: message.dump()})
    assert isinstance(read, Story)
    assert len(read.events) <= story.MOST_EVENTS
    assert max(len(read.last), len(read.blocked)) <= story.MOST_RECIPIENTS
    assert {name: item.kind for name, item in read.last.items()} == {name: item.kind for name, item in message.last.items()}
    assert len(story.trace(message.fresh_trace()).to) <= story.MOST_TRACED
    assert message.fresh_trace() == "", "once is enough"
