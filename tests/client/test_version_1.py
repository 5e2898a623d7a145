"""An Agent and a Phone of ours that pair by token alone, and so speak version 1."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

import coralmux
from coralmux.protocol import Role, encode
from tests.client.meeting import TIMERS, serving
from tests.client.pair import TOKEN, fails, pair, whole
from tests.support.client import SOON, log_in
from tests.support.field import FieldConnector
from tests.support.field_peer import Keys
from tests.support.hostile_relay import Frame, HostileRelay, Outputs
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

Pieces = AsyncIterator[Any]


def image(size: int) -> coralmux.Attachment:
    return coralmux.Attachment.from_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(size - 8), name="a.png")


def pairing(relay: RelayProcess) -> tuple[coralmux.Agent, coralmux.Phone]:
    """Both without a secret; the agent sends back the pictures that it gets."""
    token = relay.token()
    agent = coralmux.Agent(relay=relay.url, token=token, timers=TIMERS)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield coralmux.ToolStatus("look")
        yield message.text
        for attachment in message.attachments:
            yield attachment
        if message.text == "large":
            yield image(6_000_000)

    return agent, coralmux.Phone(coralmux.PairingLink(relay.url, token), timers=TIMERS)


async def test_pictures_travel_inside_the_messages_both_ways(shared_relay: RelayProcess) -> None:
    agent, phone = pairing(shared_relay)
    picture = image(1_000_000)
    async with serving(agent), phone:
        answer = phone.ask("look", images=[picture])
        assert await answer == "look"
        (back,) = answer.attachments
    assert isinstance(back, coralmux.Attachment)
    assert back.sha256 == picture.sha256


async def test_a_picture_that_does_not_fit_is_an_error_in_words_both_ways(
    shared_relay: RelayProcess,
) -> None:
    agent, phone = pairing(shared_relay)
    async with serving(agent), phone, asyncio.timeout(SOON):
        answer = phone.ask("?", images=[image(5_000_000)])
        with pytest.raises(coralmux.AttachmentError, match="version 1"):
            await answer
        with pytest.raises(coralmux.AgentError, match="version 1"):
            await phone.ask("large")
        assert await phone.ask("again") == "again"


async def test_questions_are_answered_one_after_the_other(shared_relay: RelayProcess) -> None:
    agent, phone = pairing(shared_relay)
    async with serving(agent), phone, asyncio.timeout(SOON):
        texts = await asyncio.gather(*(phone.ask(f"q{n}") for n in range(5)))
        assert texts == [f"q{n}" for n in range(5)]


async def test_an_answer_that_breaks_the_protocol_keeps_its_end_to_itself(
    shared_relay: RelayProcess,
) -> None:
    token = shared_relay.token()
    replied = asyncio.Event()

    async def reply(payload: dict[str, Any]) -> Pieces:
        if payload["text"] == "first":
            await connector._send_sealed("chat.stream", {"delta": 1})
            await replied.wait()
        yield payload["text"]

    connector = FieldConnector(shared_relay.url, token, reply=reply)
    phone = coralmux.Phone(coralmux.PairingLink(shared_relay.url, token), timers=TIMERS)
    async with connector, phone, asyncio.timeout(SOON):
        with pytest.raises(coralmux.InvalidAnswer):
            await phone.ask("first")
        second = asyncio.create_task(phone.ask("second")._whole())
        await asyncio.sleep(0)
        replied.set()
        assert await second == "second"


async def test_what_is_no_status_of_a_tool_is_passed_over(shared_relay: RelayProcess) -> None:
    token = shared_relay.token()
    tools: list[coralmux.ToolStatus] = []
    phone = coralmux.Phone(coralmux.PairingLink(shared_relay.url, token), timers=TIMERS)
    nameless: Any = [None, "search"]
    connector = FieldConnector(shared_relay.url, token, reply=["Found."], tools=nameless)
    async with connector, phone, asyncio.timeout(SOON):
        assert await phone.ask("where?", on_tool=tools.append) == "Found."
    assert {status.tool for status in tools} == {"search"}


async def test_what_the_agent_does_not_offer_is_told(shared_relay: RelayProcess) -> None:
    agent, phone = pairing(shared_relay)
    async with serving(agent), phone, asyncio.timeout(SOON):
        with pytest.raises(coralmux.AgentError, match=r"does not offer chat\.history"):
            await phone.history()
        assert [profile.name for profile in await phone.agents()] == ["Agent"]


async def test_a_version_1_question_whose_key_never_comes_is_refused(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.client.serving.KEY_SECONDS", 0.2)
    token = shared_relay.token()
    agent = coralmux.Agent(relay=shared_relay.url, token=token)
    agent.on_chat(lambda message: asyncio.sleep(0, message.text))
    keys = Keys()
    async with serving(agent):
        async with log_in(shared_relay.url, token, "phone") as phone:
            while (message := await phone.receive())["type"] != "key_exchange":
                pass
            keys.agree(message["payload"]["pubkey"])
            await phone.send("key_exchange", {"pubkey": keys.public})
            await phone.send("chat.send", keys.seal(b'{"text":"first"}'))
            while (message := await phone.receive())["type"] != "chat.done":
                pass
        async with log_in(shared_relay.url, token, "phone") as phone:
            # Sealed with the key of before; the one that the agent waits for stays away.
            await phone.send("chat.send", keys.seal(b'{"text":"?"}'))
            while (message := await phone.receive())["type"] != "chat.error":
                pass
    assert message["payload"]["code"] == "BACKEND_ERROR"
    assert "ask again" in message["payload"]["message"]


REFUSALS = {
    "PEER_OFFLINE": coralmux.PeerOffline,
    "RATE_LIMITED": coralmux.RelayRefused,
    "DAILY_QUOTA_EXCEEDED": coralmux.RelayRefused,
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_that_names_no_message_ends_the_question_that_waits(code: str) -> None:
    def refuse(frame: Frame) -> Outputs:
        if frame.type not in ("chat.send", "agent.list"):
            return [frame.data]
        error = {"code": code, "message": "words of the relay"}
        return [(Role.PHONE, encode("chat.error", error, ts=0))]

    async with HostileRelay(token=TOKEN, v1=True) as relay, pair(relay.url, secret=None) as both:
        await both.works("hello")
        relay.tamper = refuse
        async with asyncio.timeout(SOON):
            outcome = await both.ask("refused?", timeout=60)
            fails(outcome, REFUSALS[code])
            assert outcome.error is not None
            assert "words" not in str(outcome.error)
            with pytest.raises(REFUSALS[code]):
                await both.phone.agents(timeout=60)
        relay.tamper = None
        await both.works()


async def test_a_refusal_that_names_no_message_ends_no_answer_that_has_begun() -> None:
    async with HostileRelay(token=TOKEN, v1=True) as relay, pair(relay.url, secret=None) as both:
        await both.works("hello")
        both.hold = 2
        asking = asyncio.create_task(both.ask("what do you see?", timeout=SOON))
        await eventually(lambda: len(both.asked) == 2 and both.asked[-1].deltas)
        error = {"code": "RATE_LIMITED", "message": ""}
        relay.inject(Role.PHONE, encode("chat.error", error, ts=0))
        await eventually(lambda: both.hints(Role.PHONE) == ["RATE_LIMITED"])
        both.go.set()
        assert (await asking).handed_out == whole("what do you see?")


async def test_a_request_behind_a_long_answer_keeps_to_its_time() -> None:
    async with HostileRelay(token=TOKEN, v1=True) as relay, pair(relay.url, secret=None) as both:
        await both.works("hello")
        both.hold = 2
        asking = asyncio.create_task(both.ask("long", timeout=SOON))
        await eventually(lambda: len(both.asked) == 2 and both.asked[-1].deltas)
        async with asyncio.timeout(SOON):
            with pytest.raises(coralmux.RequestTimeout, match=r"within 0\.2 s.*not sent") as caught:
                await both.phone.agents(timeout=0.2)
        assert len(caught.value.ids) == 1
        assert relay.sent(Role.PHONE, "agent.list") == []
        both.go.set()
        assert (await asking).handed_out == whole("long")
        assert len(await both.phone.agents(timeout=SOON)) == 1


async def test_a_request_that_waits_for_the_agent_first_has_only_the_rest_of_its_time() -> None:
    class Slow(coralmux.Phone):
        async def ready(self, timeout: float | None = 0) -> Any:
            await asyncio.sleep(0.4)
            return await super().ready(timeout)

    async with HostileRelay(token=TOKEN, v1=True) as relay, pair(relay.url, secret=None) as both:
        await both.works("hello")
        both.phone.__class__ = Slow
        relay.tamper = lambda frame: [] if frame.type == "agent.list" else [frame.data]
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(coralmux.RequestTimeout, match=r"within 0\.6 s"):
            await both.phone.agents(timeout=0.6)
        assert loop.time() - began < 0.9


async def test_an_answer_that_nobody_hears_and_that_does_not_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coralmux.client.phone.SILENCE_SECONDS", 0.3)
    done = asyncio.Event()

    async def talk(message: coralmux.ChatMessage) -> Pieces:
        yield f"{message.text} "
        while message.text == "first" and not done.is_set():
            yield "and "
            await asyncio.sleep(0.05)
        yield "end"

    async with (
        HostileRelay(token=TOKEN, v1=True) as relay,
        pair(relay.url, secret=None, on_chat=talk) as both,
        asyncio.timeout(SOON),
    ):
        async with both.phone.ask("first") as answer:
            async for _ in answer:
                break
        with pytest.raises(coralmux.RequestTimeout, match="question before"):
            await both.phone.ask("second")
        assert len(relay.sent(Role.PHONE, "chat.send")) == 1
        done.set()
        assert await both.phone.ask("third") == "third end"


async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_ones(
    shared_relay: RelayProcess,
) -> None:
    agent, phone = pairing(shared_relay)
    go = asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        if message.text == "slow":
            await go.wait()
        return "to " + message.text

    async with asyncio.timeout(SOON), serving(agent), phone:
        with pytest.raises(coralmux.RequestTimeout):
            await phone.ask("slow", timeout=0.5)
        asking = asyncio.create_task(phone.ask("next")._whole())
        await asyncio.sleep(0.1)
        go.set()
        assert await asking == "to next"


async def test_an_error_that_comes_too_late_is_not_taken_for_the_next_questions(
    shared_relay: RelayProcess,
) -> None:
    agent, phone = pairing(shared_relay)
    go = asyncio.Event()

    @agent.on("system.status")
    async def status(request: coralmux.Request) -> dict[str, Any]:
        await go.wait()
        raise coralmux.BackendError("no status")

    async with asyncio.timeout(SOON), serving(agent), phone:
        with pytest.raises(coralmux.RequestTimeout):
            await phone.system_status(timeout=0.5)
        asking = asyncio.create_task(phone.ask("next")._whole())
        await asyncio.sleep(0.1)
        go.set()
        assert await asking == "next"
