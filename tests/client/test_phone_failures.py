"""What a Phone says when it gets no answer."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

import coralmux
from coralmux.client import connection as wire
from tests.client.meeting import (
    Events,
    agent_for,
    meeting,
    new_link,
    phone_for,
    plain_agent,
    serving,
)
from tests.support.client import SOON
from tests.support.process import RelayProcess, relay_process

# Nobody there.


async def test_a_question_waits_for_an_agent_that_is_still_away(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = plain_agent()
    agent.add(link)
    async with phone_for(link) as phone:
        task = asyncio.create_task(phone.ask("early")._whole())
        with pytest.raises(coralmux.PeerOffline, match="Start it"):
            await phone.ready(0.1)
        async with serving(agent), asyncio.timeout(SOON):
            assert await task == "early"


@pytest.mark.parametrize("what", ["ask", "agents", "ready"])
async def test_an_agent_that_does_not_come_is_offline_after_the_timeout(
    shared_relay: RelayProcess, what: str
) -> None:
    async with phone_for(new_link(shared_relay)) as phone:
        with pytest.raises(coralmux.PeerOffline, match="Start it, and ask again"):
            await getattr(phone, what)(*["?"] * (what == "ask"), timeout=0.3)


async def test_a_relay_that_is_not_there_is_named_as_the_cause() -> None:
    link = coralmux.PairingLink.new("ws://127.0.0.1:9/ws", "oc_pair_" + "1" * 32)
    async with phone_for(link) as phone:
        answer = phone.ask("?", timeout=0.3)
        with pytest.raises(coralmux.NotConnected, match="whether the relay runs") as caught:
            await answer
        assert caught.value.ids == (answer.id,)


async def test_a_phone_outside_async_with_says_how_to_use_it(shared_relay: RelayProcess) -> None:
    phone = phone_for(new_link(shared_relay))
    for attempt in (phone.ask("?"), phone.agents(), phone.ready()):
        assert inspect.isawaitable(attempt)
        with pytest.raises(coralmux.NotConnected, match="async with"):
            await attempt
    await phone.close()


async def test_closing_tells_whoever_waits(shared_relay: RelayProcess) -> None:
    events = Events()
    phone = phone_for(new_link(shared_relay), on_event=events)
    async with phone, asyncio.timeout(SOON):
        waiting = [asyncio.create_task(phone.ask("?")._whole()) for _ in range(2)]
        waiting.append(asyncio.create_task(phone.agents()))  # type: ignore[arg-type]
        await events.wait_for(wire.Connected)
        await phone.close()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, coralmux.NotConnected)
            assert "closed" in str(result)
    with pytest.raises(coralmux.NotConnected):
        await phone.ask("again")


# What the relay refuses.


@pytest.mark.slow
async def test_a_message_over_the_limit_passes_later_under_its_id() -> None:
    env = {"CORALMUX_PHONE_MESSAGES_PER_MINUTE": "60"}
    agent = plain_agent()
    with relay_process(env=env) as relay:
        async with meeting(relay, agent) as phone, asyncio.timeout(SOON):
            refused = None
            for n in range(70):
                answer = phone.ask(str(n))
                try:
                    assert await answer == str(n)
                except coralmux.RelayRefused as error:
                    refused = error
                    break
            assert refused is not None
            assert (refused.code, refused.ids) == ("RATE_LIMITED", (answer.id,))
            assert refused.retry_after_ms is not None
            assert 0 < refused.retry_after_ms <= 1000
            await asyncio.sleep(refused.retry_after_ms / 1000)
            assert await phone.ask("later", id=answer.id) == "later"


async def test_the_default_limit_names_the_time_to_wait(shared_relay: RelayProcess) -> None:
    async with meeting(shared_relay, plain_agent()) as phone:
        results = await asyncio.gather(
            *(phone.ask(str(n)) for n in range(31)), return_exceptions=True
        )
        (refused,) = [result for result in results if isinstance(result, Exception)]
        assert isinstance(refused, coralmux.RelayRefused)
        assert refused.code == "RATE_LIMITED"
        assert refused.retry_after_ms is not None
        assert 0 < refused.retry_after_ms <= 2100
        assert "Send it again in" in str(refused)


@pytest.mark.slow
async def test_a_used_up_quota_is_told_on_both_sides_of_a_reply() -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Any:
        for _ in range(100):
            yield "x" * 2000

    with relay_process(env={"CORALMUX_DAILY_QUOTA_BYTES": "100000"}) as relay:
        async with meeting(relay, agent) as phone:
            answer = phone.ask("?", timeout=SOON)
            with pytest.raises((coralmux.AgentError, coralmux.RelayRefused), match="bandwidth"):
                await answer
            assert 0 < len(answer.text) < 200_000
            again = phone.ask("?", timeout=SOON)
            with pytest.raises(coralmux.RelayRefused, match="day's bandwidth") as caught:
                await again
            assert caught.value.code == "DAILY_QUOTA_EXCEEDED"
            assert caught.value.ids == (again.id,)
            assert caught.value.retry_after_ms is not None


async def test_a_question_that_is_too_large_is_not_sent(shared_relay: RelayProcess) -> None:
    async with meeting(shared_relay, plain_agent()) as phone:
        answer = phone.ask("x" * 5_000_000)
        with pytest.raises(coralmux.MessageTooLarge, match="Send less") as caught:
            await answer
        assert caught.value.ids == (answer.id,)
        assert await phone.ask("less") == "less"
