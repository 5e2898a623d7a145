"""What a hostile relay can do to version 1 (pairing by token alone), told honestly.

Tests named `test_v1_cannot_stop_…` assert what goes wrong; the others what does not, for
accident if not for malice: who holds the keys of both sides can do all of it unseen.

| The relay …                       | version 1                      | version 2               |
|-----------------------------------|--------------------------------|-------------------------|
| swaps public keys for its own     | reads and rewrites everything  | no session; both told   |
| reads, rewrites tools and results | always                         | cannot                  |
| replays a question                | answered twice                 | session ends; both told |
| replays an old session's question | answered, after one reconnect  | ignored; both told      |
| gives an old answer anew          | believed                       | session ends; both told |
| replays a delta                   | dropped by its number; untold  | session ends; both told |
| drops deltas                      | mended from the end; untold    | mended; both told       |
| reorders deltas                   | mended from the end; untold    | session ends; both told |
| damages deltas                    | mended from the end; both told | session ends; both told |
| drops a question or an end        | time-out; agent not told       | time-out; both told     |
| damages a question or an end      | error; both told               | session ends; both told |
| swaps the types of delta and end  | error; agent not told          | session ends; both told |
| hands a side its own message      | dropped, or a stray error      | session ends; both told |
| writes chat messages in the clear | not taken; error               | not taken; both told    |
| writes results in the clear       | believed                       | not taken; both told    |
| forges an error of the agent      | believed, in the forged words  | ignored; told           |
| forges a refusal of its own       | believed, in our words         | believed, in our words  |
| takes version 2 away              | (is version 1)                 | no session; both told   |
| damages or refuses step 1         | (no steps)                     | no session; tried again |
| replays step 1                    | (no steps)                     | ignored; told           |
| meddles with the parts of a file  | (pictures are in messages)     | whole, or an error      |
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

import coralmux
from coralmux.e2e.events import Ended, Lost
from coralmux.e2e.legacy import UNREADABLE, UNSEALED
from coralmux.protocol import Role, encode
from tests.client.pair import DELTAS, TOKEN, TOOL, Pair, fails, pair, whole
from tests.support import interference as how
from tests.support import middle
from tests.support.hostile_relay import Frame, HostileRelay, Outputs
from tests.support.waiting import eventually

PHONE, AGENT = Role.PHONE, Role.AGENT

QUESTION = "what do you see?"


@contextlib.asynccontextmanager
async def talking(tamper: Any = None) -> AsyncIterator[tuple[HostileRelay, Pair]]:
    """A pair by token alone; once the relay is honest again, they talk."""
    async with meeting(tamper) as (relay, both):
        yield relay, both
        relay.tamper = both.hold = None
        both.go.set()
        await both.works()


@contextlib.asynccontextmanager
async def meeting(tamper: Any) -> AsyncIterator[tuple[HostileRelay, Pair]]:
    """The same, and what becomes of them then is left to the test."""
    async with HostileRelay(token=TOKEN) as relay:
        relay.tamper = tamper
        async with pair(relay.url, secret=None) as both:
            yield relay, both


class Instead(how.On):
    """Another frame's bytes take this one's place."""

    def __init__(self, *arguments: Any, data: bytes, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.data = data

    def strike(self, frame: Frame) -> Outputs:
        return [self.data]


# In the middle.


async def test_v1_cannot_stop_a_relay_in_the_middle_from_reading_everything() -> None:
    tamper = middle.SwapPublicKeys()
    async with meeting(tamper) as (relay, both):
        await both.works(QUESTION)
        read = [(item.sender, item.type, json.loads(item.plaintext)) for item in tamper.read]
        assert read[0] == (PHONE, "chat.send", {"text": QUESTION})
        assert read[-1] == (AGENT, "chat.done", {"full_text": whole(QUESTION)})
        # All that our side can say is that it does not know who is there.
        assert both.phone.agent is not None
        assert not both.phone.agent.verified
        # Without the relay's keys between them they understand nothing until one reconnects.
        relay.tamper = None
        fails(await both.ask("and now?"), coralmux.AgentError)
        relay.drop_connection(PHONE)
        await eventually(lambda: both.of(PHONE, Ended))
        await both.works("and then?")


async def test_v1_cannot_stop_a_relay_in_the_middle_from_rewriting_everything() -> None:
    def rewrite(sender: Role, type: str, plaintext: bytes) -> bytes:
        return plaintext.replace(b"see", b"fear").replace(b"|", b"!")

    async with meeting(middle.SwapPublicKeys(rewrite)) as (_, both):
        outcome = await both.ask(QUESTION)
        assert outcome.error is None
        assert both.heard == ["what do you fear?"]
        assert outcome.text == whole("what do you fear?").replace("|", "!")


async def test_v1_cannot_stop_a_relay_that_answers_for_the_agent_from_reading_questions() -> None:
    tamper = middle.AnswerKeyExchange()
    async with meeting(tamper) as (_, both):
        outcome = await both.ask(QUESTION, timeout=0.5)
        assert json.loads(tamper.read[0].plaintext) == {"text": QUESTION}
        assert both.heard == []
        # Nobody answers: the relay has not even an agent to ask.
        assert outcome.error is not None
        assert outcome.error.ids == (outcome.id,)


async def test_v1_cannot_stop_a_relay_from_reading_what_is_not_sealed() -> None:
    async with talking() as (relay, both):
        await both.works(QUESTION)
        (tool,) = relay.sent(AGENT, "chat.tool_status")
        assert tool.payload == {"tool": TOOL, "status": "running"}
        await both.phone.agents()
        (listed,) = relay.sent(AGENT, "agent.list.result")
        assert listed.payload["agents"][0]["name"] == "Test agent"


async def test_v1_cannot_stop_a_relay_from_rewriting_what_is_not_sealed() -> None:
    class Forge(how.On):
        def strike(self, frame: Frame) -> Outputs:
            return [frame.rewritten(payload={"agents": [{"id": "evil", "name": "Trust me"}]})]

    async with talking(Forge("agent.list.result")) as (_, both):
        assert [agent.id for agent in await both.phone.agents()] == ["evil"]


# Replays.


@pytest.mark.parametrize("after", [0, 1])
async def test_v1_cannot_stop_a_question_from_being_answered_twice(after: int) -> None:
    tamper = how.Replay("chat.send", after=after)
    async with talking(tamper) as (relay, both):
        await both.works(QUESTION)
        if after:
            await both.works("and then?")
        await eventually(lambda: both.heard.count(QUESTION) == 2)
        # The rest of what nobody asked for.
        await eventually(lambda: len(relay.sent(AGENT, "chat.done")) == 2 + after)


async def test_v1_cannot_stop_a_question_of_the_session_before_from_being_answered() -> None:
    async with talking() as (relay, both):
        await both.works(QUESTION)
        (old,) = relay.sent(PHONE, "chat.send")
        relay.drop_connection(PHONE)
        await eventually(lambda: len(relay.sent(PHONE, "key_exchange")) > 2)
        await both.works("who is there?")
        relay.inject(AGENT, old.data)
        await eventually(lambda: both.heard.count(QUESTION) == 2)
        await eventually(lambda: len(relay.sent(AGENT, "chat.done")) == 3)


async def test_v1_takes_no_question_of_a_session_long_gone() -> None:
    async with talking() as (relay, both):
        await both.works(QUESTION)
        (old,) = relay.sent(PHONE, "chat.send")
        for n in range(2):
            relay.drop_connection(PHONE)
            await eventually(lambda n=n: len(relay.sent(PHONE, "key_exchange")) > 2 + n)
            await eventually(lambda: both.phone.channel.ready)
            await both.works(f"after {n}?")
        relay.inject(AGENT, old.data)
        await both.reported_why(AGENT, UNREADABLE)
        assert both.heard.count(QUESTION) == 1


async def test_v1_cannot_stop_an_old_answer_from_being_given_to_a_new_question() -> None:
    async with talking() as (relay, both):
        await both.works(QUESTION)
        (old,) = relay.sent(AGENT, "chat.done")
        relay.tamper = lambda frame: (
            [old.data]
            if frame.type == "chat.done"
            else []
            if frame.sender is AGENT
            else [frame.data]
        )
        outcome = await both.ask("is that all?")
        assert outcome.error is None
        assert outcome.text == whole(QUESTION)


@pytest.mark.parametrize("after", [0, 2])
async def test_v1_drops_a_delta_that_comes_twice(after: int) -> None:
    async with talking(how.Replay("chat.stream", nth=2, after=after)) as (_, both):
        await both.works(QUESTION)


# What does not arrive, or not as it was.


@pytest.mark.parametrize("kind", ["Drop", "Flip", "Truncate", "Reorder"])
@pytest.mark.parametrize("nth", [1, 3, DELTAS])
async def test_v1_mends_deltas_from_the_end_of_the_answer(kind: str, nth: int) -> None:
    tamper = getattr(how, kind)("chat.stream", nth=nth)
    async with talking(tamper) as (_, both):
        await both.works(QUESTION)
        assert len(tamper.struck) == 1
        if kind in ("Flip", "Truncate"):
            # Told, in the clear, by one end to the other.
            assert both.ignored(PHONE) == [UNREADABLE]
            await both.reported(AGENT, Lost((tamper.struck[0].id,)))


async def test_v1_cannot_stop_deltas_from_getting_lost_unseen() -> None:
    async with talking(how.Drop("chat.stream", nth=2)) as (_, both):
        await both.works(QUESTION)
        assert both.ignored(PHONE) == both.ignored(AGENT) == []
        assert both.of(AGENT, Lost) == []


@pytest.mark.parametrize("type", ["chat.send", "chat.done"])
@pytest.mark.slow
async def test_v1_cannot_stop_messages_from_getting_lost_without_the_agent_s_knowledge(
    type: str,
) -> None:
    async with talking(how.Drop(type)) as (_, both):
        outcome = await both.ask(QUESTION, timeout=0.3)
        fails(outcome, coralmux.RequestTimeout)
        assert both.ignored(AGENT) == []
        assert both.of(AGENT, Lost) == []


@pytest.mark.parametrize("kind", ["Flip", "Truncate"])
async def test_v1_tells_of_a_question_that_does_not_open(kind: str) -> None:
    async with talking(getattr(how, kind)("chat.send")) as (_, both):
        outcome = await both.ask(QUESTION)
        fails(outcome, coralmux.AgentError)
        assert "decrypted" in str(outcome.error)
        assert both.ignored(AGENT) == [UNREADABLE]
        assert both.heard == []


@pytest.mark.parametrize("kind", ["Flip", "Truncate"])
async def test_v1_tells_of_an_answer_whose_end_does_not_open(kind: str) -> None:
    tamper = getattr(how, kind)("chat.done")
    async with talking(tamper) as (_, both):
        outcome = await both.ask(QUESTION, timeout=60)
        fails(outcome, coralmux.InvalidAnswer)
        assert outcome.handed_out == whole(QUESTION)
        await both.reported(AGENT, Lost((tamper.struck[0].id,)))


@pytest.mark.parametrize("kind", ["question", "answer"])
async def test_v1_takes_no_chat_in_the_clear(kind: str) -> None:
    type, to = ("chat.send", AGENT) if kind == "question" else ("chat.done", PHONE)
    payload = {"text": "obey"} if kind == "question" else {"full_text": "believe"}
    clear = Instead(type, data=encode(type, payload, ts=0, id="forged"))
    async with talking(clear) as (_, both):
        outcome = await both.ask(QUESTION, timeout=60 if to is PHONE else 0.3)
        fails(outcome, coralmux.InvalidAnswer if to is PHONE else coralmux.AgentError)
        assert "believe" not in outcome.text
        assert "obey" not in both.heard
        assert UNSEALED in both.ignored(to)


# Types and directions, which a version 1 ciphertext does not name.


async def test_v1_takes_no_delta_for_the_end_and_no_end_for_a_delta() -> None:
    for tamper in (
        how.Relabel("chat.stream", nth=2, to="chat.done"),
        how.Relabel("chat.done", to="chat.stream"),
    ):
        async with HostileRelay(token=TOKEN) as relay:
            relay.tamper = tamper
            async with pair(relay.url, secret=None) as both:
                fails(await both.ask(QUESTION), coralmux.InvalidAnswer)


@pytest.mark.parametrize("as_type", [None, "chat.done", "chat.stream"])
async def test_v1_does_not_take_a_phone_s_question_for_its_answer(as_type: str | None) -> None:
    async with meeting(how.AnswerForOther("chat.send", as_type=as_type)) as (_, both):
        outcome = await both.ask(QUESTION, timeout=0.3)
        fails(outcome, coralmux.InvalidAnswer if as_type else coralmux.RequestTimeout)
        assert outcome.text == ""


@pytest.mark.parametrize("type", ["chat.stream", "chat.done"])
@pytest.mark.parametrize("as_type", [None, "chat.send"])
async def test_v1_does_not_take_an_agent_s_answer_for_a_question(
    type: str, as_type: str | None
) -> None:
    tamper = how.AnswerForOther(type, instead=False, as_type=as_type)
    # Not `talking`: an error that names nothing may be taken for the next question's.
    async with meeting(tamper) as (_, both):
        outcome = await both.ask(QUESTION)
        assert outcome.handed_out == whole(QUESTION)[: len(outcome.handed_out)]
        assert both.heard == [QUESTION]


# Errors.


async def test_v1_cannot_stop_errors_from_being_forged_in_the_agent_s_name() -> None:
    forged = how.ForgeError(
        "chat.send", code="BACKEND_ERROR", to=PHONE, message="Send your password to go on."
    )
    async with talking(forged) as (relay, both):
        both.hold = 0
        outcome = await both.ask(QUESTION)
        fails(outcome, coralmux.AgentError)
        assert str(outcome.error) == "Send your password to go on."
        both.go.set()
        await eventually(lambda: len(relay.sent(AGENT, "chat.done")) == 1)


@pytest.mark.parametrize("code", ["PEER_OFFLINE", "RATE_LIMITED", "DAILY_QUOTA_EXCEEDED"])
async def test_v1_cannot_stop_refusals_from_being_forged_but_says_them_in_its_own_words(
    code: str,
) -> None:
    forged = how.ForgeError("chat.send", code=code, to=PHONE, message="Send your password.")
    async with talking(forged) as (relay, both):
        both.hold = 0
        outcome = await both.ask(QUESTION)
        assert isinstance(outcome.error, coralmux.RelayRefused | coralmux.PeerOffline)
        assert outcome.error.ids == (outcome.id,)
        assert "password" not in str(outcome.error)
        both.go.set()
        # The agent was not told, and answers to nobody.
        await eventually(lambda: both.finished == [QUESTION])
        await eventually(lambda: len(relay.sent(AGENT, "chat.done")) == 1)


async def test_v1_keys_that_are_dropped_leave_both_without_a_session_and_the_caller_told() -> None:
    async with meeting(how.Drop("key_exchange", nth=None)) as (relay, both):
        outcome = await both.ask(QUESTION, timeout=0.3)
        assert isinstance(outcome.error, coralmux.PeerOffline | coralmux.NotConnected)
        assert relay.sent(PHONE, "chat.send") == []
