"""Phones, a relay and the bridge's process, with a gateway behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import coralmux
from tests.bridge.bridges import bridge
from tests.bridge.doubles.openclaw_gateway import TOKEN, OpenclawGateway, message
from tests.support.process import RelayProcess

pytestmark = pytest.mark.slow


async def whole(answer: coralmux.Answer) -> str:
    return await answer


async def followed(answer: coralmux.Answer, seen: asyncio.Queue[str]) -> str:
    async for delta in answer:
        seen.put_nowait(delta)
    return await answer


def config(gateway: OpenclawGateway) -> str:
    return f'''backend = "openclaw"
[openclaw]
base_url = "{gateway.url}"
token = "${{OPENCLAW_GATEWAY_TOKEN}}"
'''


async def test_a_phone_asks_cancels_and_looks_around(relay: RelayProcess, tmp_path: Path) -> None:
    gateway = OpenclawGateway(device_token="of-the-device")

    async def agents(params: dict[str, Any]) -> dict[str, Any]:
        return {"defaultId": "main", "agents": [{"id": "main", "identity": {"name": "Claw"}}]}

    async def history(params: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "Hello"}, message("Hello there")]}

    gateway.answers |= {"agents.list": agents, "chat.history": history}
    async with (
        gateway.serving(),
        bridge(relay, tmp_path, config(gateway), OPENCLAW_GATEWAY_TOKEN=TOKEN) as there,
        there.phone() as phone,
    ):
        answer = asyncio.create_task(whole(phone.ask("Hello")))
        asked = await gateway.next_question()
        await asked.tool("start", name="web_fetch", toolCallId="1")
        await asked.chat("delta", deltaText="Hello")
        await asked.chat("delta", deltaText=" there")
        await asked.whole("Hello there")
        assert await answer == "Hello there"

        (agent,) = await phone.agents()
        assert (agent.id, agent.name) == ("main", "Claw")
        assert [entry.content for entry in await phone.history()] == ["Hello", "Hello there"]
        with pytest.raises(coralmux.AgentError, match="not supported by this backend"):
            await phone.groups()

        endless = phone.ask("Go on for ever")
        seen: asyncio.Queue[str] = asyncio.Queue()
        going = asyncio.create_task(followed(endless, seen))
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="And")
        assert await seen.get() == "And"
        endless.cancel()
        assert (await gateway.aborted.get())["runId"] == asked.run
        assert await going == "And"
        assert TOKEN not in there.output()


async def test_a_gateway_that_goes_and_comes_back_costs_one_answer(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        OpenclawGateway().serving() as gateway,
        bridge(relay, tmp_path, config(gateway), OPENCLAW_GATEWAY_TOKEN=TOKEN) as there,
        there.phone() as phone,
    ):
        seen: asyncio.Queue[str] = asyncio.Queue()
        going = asyncio.create_task(followed(phone.ask("Hello"), seen))
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="So far")
        assert await seen.get() == "So far"
        await gateway.drop()
        with pytest.raises(coralmux.AgentError, match="closed the connection") as caught:
            await going
        assert caught.value.code == "BACKEND_ERROR"
        again = asyncio.create_task(whole(phone.ask("Hello again")))
        await (await gateway.next_question()).whole("Here")
        assert await again == "Here"


async def test_a_phone_is_told_what_to_type_where_the_bridge_is_not_approved(
    relay: RelayProcess, tmp_path: Path
) -> None:
    gateway = OpenclawGateway()
    gateway.refusal = {
        "code": "NOT_PAIRED",
        "message": "pairing required",
        "details": {"code": "PAIRING_REQUIRED", "requestId": "1f2e-3d"},
    }
    line = "openclaw devices approve 1f2e-3d"
    async with (
        gateway.serving(),
        bridge(relay, tmp_path, config(gateway), OPENCLAW_GATEWAY_TOKEN=TOKEN) as there,
        there.phone() as phone,
    ):
        with pytest.raises(coralmux.AgentError, match=line):
            await phone.ask("Hello")
        assert line in " ".join(there.output().split())


async def test_three_phones_and_twenty_questions_are_kept_apart(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        OpenclawGateway().serving() as gateway,
        bridge(relay, tmp_path, config(gateway), 3, OPENCLAW_GATEWAY_TOKEN=TOKEN) as there,
        there.phone(0) as first,
        there.phone(1) as second,
        there.phone(2) as third,
    ):
        phones = (first, second, third)
        answers = [
            asyncio.create_task(whole(phones[n % 3].ask(str(n), agent_id=f"agent{n}")))
            for n in range(20)
        ]
        asked = [await gateway.next_question() for _ in answers]
        for word in ("This", " is"):
            for each in asked:
                await each.chat("delta", deltaText=f"{word} {each.params['message']}")
        for each in reversed(asked):
            await each.chat("final")
        for n, answer in enumerate(answers):
            assert await answer == f"This {n} is {n}"
