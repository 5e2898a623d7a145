"""What a hostile relay gains by messages of its own making, against version 2: little.

What only the other end may say is not believed in the clear. A refusal is the relay's
to say; it is believed, since a relay may refuse, and never shown in the relay's words.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import coralmux
from coralmux.e2e.events import Ended, Hint, Lost
from coralmux.protocol import Role, encode
from tests.client.pair import fails, hurry, talking, whole
from tests.support import interference as how
from tests.support.hostile_relay import Frame
from tests.support.interference import Outputs
from tests.support.waiting import eventually

PHONE, AGENT = Role.PHONE, Role.AGENT

QUESTION = "what do you see?"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.mark.parametrize("sender", list(Role))
@pytest.mark.parametrize("code", ["BACKEND_ERROR", "E2E_FAILED", "E2E_GAP", "E2E_REQUIRED", "X"])
async def test_an_error_that_only_the_other_end_may_say_is_not_believed_in_the_clear(
    code: str, sender: Role
) -> None:
    type = "chat.send" if sender is PHONE else "chat.stream"
    for to in Role:
        async with talking() as (relay, both):
            relay.tamper = how.ForgeError(type, sender=sender, code=code, to=to, nth=1)
            outcome = await both.ask(QUESTION)
            assert outcome.error is None
            assert outcome.handed_out == whole(QUESTION)
            assert both.ignored(to) == ["an error that was not sealed"]
            assert both.of(PHONE, Ended) == both.of(AGENT, Ended) == []


REFUSALS = {
    "PEER_OFFLINE": coralmux.PeerOffline,
    "RATE_LIMITED": coralmux.RelayRefused,
    "DAILY_QUOTA_EXCEEDED": coralmux.RelayRefused,
    "MESSAGE_TOO_LARGE": coralmux.RelayRefused,
    "INVALID_MESSAGE": coralmux.RelayRefused,
    "UNAUTHORIZED": coralmux.RelayRefused,
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_forged_refusal_ends_the_question_at_both_ends_in_our_own_words(
    code: str,
) -> None:
    async with talking() as (relay, both):
        both.hold = 2
        relay.tamper = how.ForgeError(
            "chat.send", sender=PHONE, code=code, to=PHONE, message="send me your link"
        )
        outcome = await both.ask(QUESTION)
        fails(outcome, REFUSALS[code])
        assert "link" not in str(outcome.error)
        assert both.hints(PHONE) == [code]
        # The agent got the question, and hears that nobody waits for its answer.
        await eventually(lambda: len(relay.sent(AGENT, "chat.done")) == 2)
        assert both.finished == ["hello there"]
        assert both.dropped == both.heard[1:]
        assert both.of(PHONE, Ended) == both.of(AGENT, Ended) == []


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_forged_refusal_of_a_delta_is_told_to_both_ends(code: str) -> None:
    async with talking() as (relay, both):
        both.hold = 4
        relay.tamper = tamper = how.ForgeError(
            "chat.stream", sender=AGENT, nth=2, code=code, to=AGENT, message="stop it"
        )

        async def release() -> None:
            await eventually(lambda: both.of(AGENT, Hint))
            both.go.set()

        outcome, _ = await asyncio.gather(both.ask(QUESTION), release())
        fails(outcome, coralmux.AgentError)
        assert "cut off" in str(outcome.error)
        assert "stop it" not in str(outcome.error)
        assert both.hints(AGENT) == [code]
        assert len(tamper.struck) == 1


@pytest.mark.slow
async def test_a_rate_limited_delta_is_filled_in_from_the_answers_end() -> None:
    class Refuse(how.ForgeError):
        def strike(self, frame: Frame) -> Outputs:
            return super().strike(frame)[1:]

    async with talking() as (relay, both):
        relay.tamper = Refuse(
            "chat.stream",
            sender=AGENT,
            nth=3,
            code="RATE_LIMITED",
            to=AGENT,
            more={"retry_after_ms": 20},
        )
        outcome = await both.ask(QUESTION)
        assert outcome.error is None
        assert outcome.handed_out == whole(QUESTION)
        assert both.hints(AGENT) == ["RATE_LIMITED"]
        assert both.of(AGENT, Lost) == []


@pytest.mark.parametrize("to", list(Role))
async def test_a_forged_refusal_of_nothing_is_only_a_hint(to: Role) -> None:
    async with talking() as (relay, both):
        relay.tamper = how.ForgeError(
            "chat.stream", sender=AGENT, nth=2, code="RATE_LIMITED", to=to, ref="nothing"
        )
        outcome = await both.ask(QUESTION)
        assert outcome.error is None
        assert both.hints(to) == ["RATE_LIMITED"]


@pytest.mark.parametrize("payload", [b"[]", b'"x"', b"{", b"\xff", b"[" * 5000, b"null"])
@pytest.mark.parametrize("to", list(Role))
async def test_made_up_messages_do_nothing(to: Role, payload: bytes) -> None:
    async with talking() as (relay, both):
        for type in ("chat.send", "chat.done", "chat.error", "key_exchange", "status", "file.ack"):
            head = encode(type, {}, ts=0, id="made-up").removesuffix(b"{}}")
            relay.inject(to, head + payload + b"}")
        outcome = await both.ask(QUESTION)
        assert outcome.error is None
        assert both.of(PHONE, Ended) == both.of(AGENT, Ended) == []


async def test_clear_messages_in_the_others_name_are_told_to_both_and_not_taken() -> None:
    async with talking() as (relay, both):
        relay.inject(AGENT, encode("chat.send", {"text": "obey"}, ts=0, id="forged-1"))
        relay.inject(PHONE, encode("group.message", {"room_id": "x"}, ts=0, id="forged-2"))
        await both.reported(AGENT, Lost(("forged-2",)))
        assert both.ignored(AGENT) == both.ignored(PHONE) == ["a message that was not sealed"]
        assert both.heard == ["hello there"]


@pytest.mark.parametrize("first", ["the question", "its copy"])
async def test_a_question_with_a_copy_in_the_clear_is_not_called_untaken_and_is_cancelled(
    first: str,
) -> None:
    def with_copy(frame: Frame) -> list[bytes]:
        if frame.type != "chat.send":
            return [frame.data]
        both_ways = [frame.data, encode("chat.send", {"text": "x"}, ts=0, id=frame.id)]
        return both_ways if first == "the question" else both_ways[::-1]

    async with talking() as (relay, both):
        both.hold = 2
        relay.tamper = with_copy
        outcome = await both.ask(QUESTION)
        fails(outcome, coralmux.AgentError)
        assert isinstance(outcome.error, coralmux.AgentError)
        assert outcome.error.code == "E2E_REQUIRED"
        assert "not known" in str(outcome.error)
        assert "cancelled" in str(outcome.error)
        assert "not taken" not in str(outcome.error)
        # It was taken, and hears that nobody waits for its answer.
        await eventually(lambda: both.dropped == [QUESTION])
        assert len(relay.sent(PHONE, "chat.cancel")) == 1


async def test_a_request_with_a_copy_in_the_clear_is_not_called_untaken() -> None:
    def with_copy(frame: Frame) -> list[bytes]:
        if frame.type != "agent.list":
            return [frame.data]
        return [encode("agent.list", {}, ts=0, id=frame.id), frame.data]

    async with talking() as (relay, both):

        @both.agent.on("agent.list")
        async def agents(request: coralmux.Request) -> dict[str, Any]:
            await both.go.wait()
            return {"agents": []}

        relay.tamper = with_copy
        with pytest.raises(coralmux.AgentError, match="is not known; look before") as caught:
            await both.phone.agents(timeout=5)
        assert caught.value.code == "E2E_REQUIRED"
        assert len(caught.value.ids) == 1


@pytest.mark.parametrize("peer", ["online", "offline"])
@pytest.mark.parametrize("to", list(Role))
async def test_a_lie_about_who_is_there_ends_in_a_new_session(to: Role, peer: str) -> None:
    async with talking() as (relay, both):
        relay.inject(to, encode("status", {"peer": peer}, ts=0))
        relay.inject(to, encode("status", {"peer": "online"}, ts=0))
        if to is PHONE:
            await eventually(lambda: both.failures(AGENT) == ["SUPERSEDED"])
        elif peer == "offline":
            # The phone finds out when it says something.
            fails(await both.ask(QUESTION), coralmux.ConnectionLost)
            assert both.failures(AGENT) == ["CONNECTION_ENDED"]
