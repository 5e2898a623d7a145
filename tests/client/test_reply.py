"""How a reply travels: joined when it is fast, whole when parts are lost, ended in any case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import coralmux
from tests.client.meeting import agent_for, meeting
from tests.support.client import SOON
from tests.support.process import RelayProcess, relay_process

Pieces = AsyncIterator[Any]


def says(*pieces: Any) -> coralmux.Agent:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        for piece in pieces:
            yield piece

    return agent


async def test_a_reply_of_50_000_tokens_stays_inside_the_limits(shared_relay: RelayProcess) -> None:
    tokens = [f"t{n} " for n in range(50_000)]
    async with meeting(shared_relay, says(*tokens)) as phone:
        deltas = [delta async for delta in phone.ask("?", timeout=SOON)]
    assert "".join(deltas) == "".join(tokens)
    assert len(deltas) < 12_000  # the relay takes a burst of 5,000, then 1,000 a second


async def test_a_slow_reply_is_not_joined(shared_relay: RelayProcess) -> None:
    agent = agent_for()
    step = asyncio.Semaphore(0)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        for n in range(5):
            yield f"{n}"
            await step.acquire()

    async with meeting(shared_relay, agent) as phone:
        deltas = []
        async for delta in phone.ask("?", timeout=SOON):
            # The next one is not said before this one is here, so none is held back.
            deltas.append(delta)
            step.release()
    assert deltas == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((), ""),
        (("",), ""),
        (("a", "", "b"), "ab"),
        (("\ud83d", "\ude00"), "😀"),
        (("end \ud83d",), "end \ufffd"),
        (("x" * 100_000, "é" * 50_000), "x" * 100_000 + "é" * 50_000),
        (("\x00\x1b\n\r\u2028",), "\x00\x1b\n\r\u2028"),
    ],
    ids=["nothing", "empty", "empty between", "halves", "half", "long", "control"],
)
async def test_whatever_is_said_arrives_as_it_was_said(
    shared_relay: RelayProcess, pieces: tuple[str, ...], text: str
) -> None:
    async with meeting(shared_relay, says(*pieces)) as phone:
        answer = phone.ask("?", timeout=SOON)
        assert "".join([delta async for delta in answer]) == text
        assert answer.text == text


async def test_a_reply_too_long_for_its_end_is_not_silent(shared_relay: RelayProcess) -> None:
    async with meeting(shared_relay, says(*["x" * 10_000] * 500)) as phone:
        answer = phone.ask("?", timeout=SOON)
        with pytest.raises(coralmux.AgentError, match="relay takes"):
            await answer
        assert answer.text == "x" * 5_000_000


@pytest.mark.slow
async def test_a_quota_that_ends_before_the_last_word_is_told() -> None:
    agent = agent_for()
    used_up = asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "x" * 2000
        await used_up.wait()

    with relay_process(env={"CORALMUX_DAILY_QUOTA_BYTES": "30000"}) as relay:
        async with meeting(relay, agent) as phone, asyncio.timeout(SOON):
            answer = phone.ask("?")
            deltas = aiter(answer)
            assert await anext(deltas) == "x" * 2000
            refused = None
            while refused is None:
                try:
                    phone.channel.send("group.send", {"text": "y" * 2000}, id="filler")
                    await phone.agents()
                except coralmux.RelayRefused as error:
                    refused = error
            assert refused.code == "DAILY_QUOTA_EXCEEDED"
            used_up.set()
            with pytest.raises(coralmux.AgentError, match=r"cut off\..*bandwidth") as caught:
                await anext(deltas)
            assert caught.value.ids == (answer.id,)


@pytest.mark.slow
async def test_a_result_that_the_quota_stops_is_told() -> None:
    agent = says("x")

    @agent.on("chat.history")
    async def history(request: coralmux.Request) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "x" * 40_000}]}

    with relay_process(env={"CORALMUX_DAILY_QUOTA_BYTES": "30000"}) as relay:
        async with meeting(relay, agent) as phone, asyncio.timeout(SOON):
            await phone.history()  # the last one that passes: used < quota
            with pytest.raises((coralmux.AgentError, coralmux.RelayRefused), match="bandwidth"):
                await phone.history()


@pytest.mark.slow
async def test_agents_of_a_relay_with_a_low_limit_join_more() -> None:
    tokens = [f"t{n} " for n in range(5000)]
    env = {"CORALMUX_STREAM_FRAMES_PER_SECOND": "20"}
    with relay_process(env=env) as relay:
        async with meeting(relay, says(*tokens)) as phone:
            deltas = [delta async for delta in phone.ask("?", timeout=SOON)]
    assert "".join(deltas) == "".join(tokens)
    assert len(deltas) < 200
