"""What a hostile relay gains by meddling with the records of version 2: nothing.

It can keep messages from arriving, and that is told to both ends: as the error of a
question that names it, or as an event. The handshake and files have files of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import coralmux
from coralmux.e2e.events import Gap, Lost
from coralmux.protocol import Role
from tests.client.pair import DELTAS, Pair, fails, hurry, said, talking, whole
from tests.support import interference as how
from tests.support.hostile_relay import Frame, Outputs
from tests.support.waiting import eventually

# Some hundred sessions are made here and broken, each with its timeouts.
pytestmark = pytest.mark.slow

PHONE, AGENT = Role.PHONE, Role.AGENT

# Every message of a question and its answer: first, somewhere, last.
PLACES = [
    pytest.param("chat.send", PHONE, 1, id="question"),
    pytest.param("chat.tool_status", AGENT, 1, id="tool"),
    pytest.param("chat.stream", AGENT, 1, id="first delta"),
    pytest.param("chat.stream", AGENT, 4, id="delta"),
    pytest.param("chat.stream", AGENT, DELTAS, id="last delta"),
    pytest.param("chat.done", AGENT, 1, id="end"),
]
place = pytest.mark.parametrize(("type", "sender", "nth"), PLACES)

# Deltas that come before each of these.
COMPLETE = {
    ("chat.send", 1): 0,
    ("chat.tool_status", 1): 0,
    ("chat.stream", 1): 0,
    ("chat.stream", 4): 3,
    ("chat.stream", DELTAS): DELTAS - 1,
    ("chat.done", 1): DELTAS,
}

QUESTION = "what do you see?"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def ended(both: Pair, notices: Role, failure: str) -> None:
    """One end sees that something is wrong, ends the session and tells the other."""
    await eventually(lambda: both.failures(notices) and both.failures(notices.peer))
    assert both.failures(notices)[0] == failure
    assert both.failures(notices.peer)[0] == "PEER_ENDED"


async def missed(both: Pair, misses: Role, frame: Frame) -> None:
    """One end sees that a record is missing, and the other learns which message it was."""
    n = frame.payload["n"]
    await both.reported(misses, Gap(n, n))
    await both.reported(misses.peer, Lost((frame.id,)))


class Edit(how.On):
    """Changes a frame's payload, member by member; None takes one out."""

    def __init__(self, *arguments: Any, to: dict[str, Any], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.to = to

    def strike(self, frame: Frame) -> Outputs:
        payload = frame.payload | self.to
        kept = {key: value for key, value in payload.items() if value is not None}
        return [frame.rewritten(payload=kept)]


Make = Callable[..., how.On]

CHANGES: dict[str, Make] = {
    "a bit of the ciphertext": lambda *a, **o: how.Flip(*a, **o),
    "a bit of the tag": lambda *a, **o: how.Flip(*a, byte=-1, bit=7, **o),
    "the last byte cut off": lambda *a, **o: how.Truncate(*a, **o),
    "the tag cut off": lambda *a, **o: how.Truncate(*a, by=16, **o),
    "all cut off": lambda *a, **o: how.Truncate(*a, by=10**6, **o),
    "another id": lambda *a, **o: how.Renumber(*a, **o),
    "no id": lambda *a, **o: how.Renumber(*a, to="", **o),
    "an error instead": lambda *a, **o: how.Relabel(*a, to="chat.error", **o),
    "an unknown type": lambda *a, **o: how.Relabel(*a, to="chat.unheard", **o),
    "a handshake": lambda *a, **o: how.Relabel(*a, to="key_exchange", **o),
    "the next number": lambda *a, **o: how.Recount(*a, **o),
    "a far number": lambda *a, **o: how.Recount(*a, by=2**52, **o),
}


@place
@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_record_ends_the_session_at_both_ends(
    type: str, sender: Role, nth: int, change: str
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = CHANGES[change](type, sender=sender, nth=nth)
        outcome = await both.ask(QUESTION)
        assert len(tamper.struck) == 1
        fails(outcome, coralmux.ConnectionLost)
        assert outcome.handed_out == "".join(said(QUESTION)[: COMPLETE[type, nth]])
        await ended(both, sender.peer, "TAMPERED")
        assert both.heard == ["hello there"] + [QUESTION] * (sender is AGENT)


@place
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_replayed_record_is_taken_once_and_ends_the_session(
    type: str, sender: Role, nth: int, after: int
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = how.Replay(type, sender=sender, nth=nth, after=after)
        outcome = await both.ask(QUESTION)
        if outcome.error is not None:
            fails(outcome, coralmux.ConnectionLost)
        else:
            # The whole answer was there before the replay.
            assert outcome.handed_out == whole(QUESTION)
        while not both.failures(sender.peer):
            # The replay follows messages that are still to come.
            await both.ask(f"one more, after {len(both.asked)}?")
        assert len(tamper.struck) == 1
        await ended(both, sender.peer, "REPLAYED")
        # A question that is replayed at once is given up before the handler hears of it.
        assert both.heard.count(QUESTION) <= 1


@place
async def test_a_record_from_before_is_refused_as_a_replay(
    type: str, sender: Role, nth: int
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = how.Recount(type, sender=sender, nth=nth, by=-1)
        fails(await both.ask(QUESTION), coralmux.ConnectionLost)
        assert len(tamper.struck) == 1
        await ended(both, sender.peer, "REPLAYED")


@place
@pytest.mark.parametrize("by", [1, 2])
async def test_records_out_of_order_are_told_as_a_gap_and_then_as_a_replay(
    type: str, sender: Role, nth: int, by: int
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = how.Reorder(type, sender=sender, nth=nth, by=by)
        first = await both.ask(QUESTION)
        if first.error is None:
            assert first.handed_out == whole(QUESTION)
        while not both.failures(sender.peer):
            await both.ask(f"one more, after {len(both.asked)}?")
        n = tamper.struck[0].payload["n"]
        await both.reported(sender.peer, Gap(n, n))
        await ended(both, sender.peer, "REPLAYED")
        assert QUESTION not in both.heard or sender is AGENT


LOSSES: dict[str, Make] = {
    "dropped": lambda *a, **o: how.Drop(*a, **o),
    "relabelled to what is the relay's own": lambda *a, **o: how.Relabel(*a, to="pong", **o),
    "not sealed": lambda *a, **o: Edit(*a, to={"enc": None}, **o),
    "without its version": lambda *a, **o: how.StripVersion(*a, **o),
    "of version 1": lambda *a, **o: Edit(*a, to={"v": 1, "nonce": "AAAAAAAAAAAAAAAA"}, **o),
    "of another session": lambda *a, **o: Edit(*a, to={"hs": "A" * 22}, **o),
}
NOT_SEALED = {"not sealed", "without its version", "of version 1"}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("type", "sender", "nth"), PLACES[1:-1])
async def test_what_is_missing_in_an_answer_is_told_and_filled_from_its_end(
    type: str, sender: Role, nth: int, loss: str
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = LOSSES[loss](type, sender=sender, nth=nth)
        outcome = await both.ask(QUESTION)
        assert outcome.error is None
        assert outcome.handed_out == whole(QUESTION)
        (struck,) = tamper.struck
        await missed(both, PHONE, struck)
        if loss in NOT_SEALED:
            assert both.ignored(PHONE) == ["a message that was not sealed"]


@pytest.mark.parametrize("loss", ["dropped", "relabelled to what is the relay's own"])
@pytest.mark.parametrize(("type", "sender", "nth"), [PLACES[0], PLACES[-1]])
async def test_what_is_missing_at_an_end_is_told_after_the_phone_ran_out_of_patience(
    type: str, sender: Role, nth: int, loss: str
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = LOSSES[loss](type, sender=sender, nth=nth)
        outcome = await both.ask(QUESTION, timeout=0.3)
        fails(outcome, coralmux.RequestTimeout)
        assert outcome.handed_out == ("" if type == "chat.send" else whole(QUESTION))
        (struck,) = tamper.struck
        await missed(both, sender.peer, struck)


@pytest.mark.parametrize("loss", sorted(NOT_SEALED))
async def test_a_question_that_arrives_unsealed_is_answered_with_an_error_that_names_it(
    loss: str,
) -> None:
    async with talking() as (relay, both):
        relay.tamper = LOSSES[loss]("chat.send", sender=PHONE)
        outcome = await both.ask(QUESTION)
        fails(outcome, coralmux.AgentError)
        assert isinstance(outcome.error, coralmux.AgentError)
        assert outcome.error.code == "E2E_REQUIRED"
        assert both.ignored(AGENT) == ["a message that was not sealed"]
        assert both.heard == ["hello there"]


async def test_the_end_of_an_answer_that_arrives_unsealed_is_told_to_both() -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = how.StripVersion("chat.done", sender=AGENT)
        fails(await both.ask(QUESTION, timeout=0.3), coralmux.RequestTimeout)
        assert both.ignored(PHONE)[0] == "a message that was not sealed"
        await both.reported(AGENT, Lost((tamper.struck[0].id,)))


async def test_no_record_passes_without_its_version_and_nobody_falls_back() -> None:
    async with talking() as (relay, both):
        relay.tamper = how.StripVersion()
        outcome = await both.ask(QUESTION, timeout=0.3)
        fails(outcome, coralmux.RequestTimeout)
        assert both.heard == ["hello there"]
        # Both ends drop what they get, and what they say of it gets no further either.
        assert set(both.ignored(PHONE)) == {"a chat.error that cannot be read"}
        assert set(both.ignored(AGENT)) == {"a message that was not sealed"}


async def test_a_record_of_an_unheard_session_is_not_taken_and_both_ends_begin_anew() -> None:
    async with talking() as (relay, both):
        relay.tamper = LOSSES["of another session"]("chat.send", sender=PHONE)
        fails(await both.ask(QUESTION), coralmux.ConnectionLost)
        assert both.ignored(AGENT) == ["a record of another session"]
        await eventually(lambda: both.failures(PHONE) == both.failures(AGENT) == ["SUPERSEDED"])
        assert both.heard == ["hello there"]


@place
@pytest.mark.parametrize("instead", [True, False], ids=["instead", "as well"])
@pytest.mark.parametrize("as_type", [None, "chat.done", "chat.send"])
async def test_an_end_does_not_take_its_own_words_for_the_others(
    type: str, sender: Role, nth: int, instead: bool, as_type: str | None
) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = how.AnswerForOther(
            type, sender=sender, nth=nth, instead=instead, as_type=as_type
        )
        outcome = await both.ask(QUESTION)
        if outcome.error is None:
            assert outcome.handed_out == whole(QUESTION)
        else:
            fails(outcome, coralmux.ConnectionLost)
        assert len(tamper.struck) == 1
        await eventually(lambda: both.failures(sender) and both.failures(sender.peer))
        assert both.failures(sender)[0] in ("TAMPERED", "REPLAYED")
        assert both.failures(sender.peer)[0] == "PEER_ENDED"
        assert both.heard.count(QUESTION) <= 1


@pytest.mark.parametrize("who", list(Role))
async def test_records_of_an_old_session_are_not_taken_in_a_new_one(who: Role) -> None:
    async with talking() as (relay, both):
        relay.tamper = tamper = how.ReplayOldSession("chat.stream", sender=AGENT, nth=3)
        assert (await both.ask("before that")).error is None
        relay.drop_connection(who)
        await eventually(lambda: both.failures(PHONE) and both.failures(AGENT))
        for events in both.events.values():
            events.clear()
        outcome = await both.ask(QUESTION)
        assert len(tamper.struck) == 1
        assert len(tamper.old) > DELTAS
        if outcome.error is not None:
            fails(outcome, coralmux.ConnectionLost)
        for role in Role:
            await eventually(lambda role=role: "a record of another session" in both.ignored(role))
        assert both.heard == ["hello there", "before that", QUESTION]
