"""Phones, the bridge's process, and OpenAI-compatible servers: a real model, and a nasty one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import coralmux
from tests.bridge.bridges import bridge
from tests.bridge.doubles.chat_server import (
    chat_server,
    delta,
    event,
    refuses,
    says,
    streams,
)
from tests.bridge.doubles.http_exchange import Exchange
from tests.support.client import SOON
from tests.support.process import RelayProcess, free_port

pytestmark = pytest.mark.slow

KEY = "sk-0123456789abcdef"


def config(base_url: str, more: str = "", top: str = "") -> str:
    return f'backend = "openai"\n{top}\n[openai]\nbase_url = "{base_url}"\n{more}\n'


async def test_a_real_model_streams_its_answer_and_knows_what_was_said(
    relay: RelayProcess, model_server: str, tmp_path: Path
) -> None:
    settings = config(model_server, "max_tokens = 6\ntemperature = 0\n")
    async with bridge(relay, tmp_path, settings) as there, there.phone() as phone:
        first = phone.ask("Say hello")
        deltas = [text async for text in first]
        assert len(deltas) >= 3
        second = phone.ask("And once more")
        await second
        assert second.usage["completion_tokens"] <= 6
        # What was said before is a part of the second question.
        assert second.usage["prompt_tokens"] > first.usage["prompt_tokens"] + len(deltas)
        made = await phone.create_agent(name="Poet", system_prompt="Rhyme. " * 20)
        assert made.agent is not None
        assert [agent.id for agent in await phone.agents()] == ["default", "poet"]
        poem = phone.ask("Say hello", agent_id="poet")
        await poem
        assert poem.usage["prompt_tokens"] >= first.usage["prompt_tokens"] + 40
        refused = await phone.delete_agent("default")
        assert (refused.ok, refused.error) == (
            False,
            "This agent is the one in the bridge's config, and is changed there.",
        )
        assert (await phone.delete_agent("poet")).ok
        with pytest.raises(coralmux.AgentError, match="no agent 'poet'"):
            await phone.ask("Say hello", agent_id="poet")


async def failed(phone: coralmux.Phone, **more: Any) -> tuple[str, str]:
    """What comes of a question that fails: the text so far, and the sentence."""
    answer = phone.ask("Say hello", **more)
    with pytest.raises(coralmux.AgentError) as raised:
        await answer
    assert raised.value.code == "BACKEND_ERROR"
    assert KEY not in str(raised.value)
    return answer.text, str(raised.value)


async def hangs(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.send(delta("Half"))
    await exchange.gone()


async def cut(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.send(delta("Half"))
    exchange.cut()


async def never_answers(exchange: Exchange) -> None:
    await exchange.gone()


FAULTS = [
    (hangs, "Half", "has said nothing for"),
    (never_answers, "", "has said nothing for"),
    (cut, "Half", "before the end of its answer. Ask again."),
    (streams(delta("Half"), b"data: \xff\xfe garbage\n\n"), "Half", "nobody can read"),
    (streams(delta("Half"), event({"error": f"Key {KEY}"})), "Half", "broke off"),
    (refuses(429, b"", Retry_After="20"), "", "Try again in 20 s."),
    (refuses(500, {"error": {"message": "Out of memory"}}), "", "“Out of memory”"),
    (refuses(401, {"error": {"message": f"Wrong key: {KEY}"}}), "", "Check api_key"),
    (refuses(200, b"<html>Hello", content_type="text/html"), "", "no OpenAI-compatible"),
    (streams(delta("x" * 2_000_000)), "x" * 1_000_000, "grew longer than 1,000,000 char"),
]


async def test_faults_of_the_server_leave_the_bridge_alive(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with chat_server() as server:
        settings = config(server.base_url, f'api_key = "{KEY}"', "silence_seconds = 1")
        async with bridge(relay, tmp_path, settings) as there, there.phone() as phone:
            for answer, text, sentence in FAULTS:
                server.answer = answer
                so_far, told = await failed(phone)
                assert (so_far, sentence in told) == (text, True), told
                server.answer = says("Hello", " there")
                assert await phone.ask("Say hello") == "Hello there"
            # The faults are no part of what is said before, but what was said is.
            said = server.asked[-1]["messages"]
            assert {"role": "assistant", "content": "Half"} in said
            output = there.output()
            for why in (
                "The AI server takes no more questions just now (limit reached)",
                "The AI server failed (HTTP 500)",
                "The AI server does not take the API key",
            ):
                assert f"Phone 0: failed ({why}) after " in output
            for words in (KEY, "Out of memory", "Half"):
                assert words not in output


async def test_a_server_that_is_down_is_used_as_soon_as_it_is_up(
    relay: RelayProcess, tmp_path: Path
) -> None:
    port = free_port()
    settings = config(f"http://127.0.0.1:{port}/v1")
    async with bridge(relay, tmp_path, settings) as there, there.phone() as phone:
        assert "Nobody listens" in (await failed(phone))[1]
        async with chat_server(port):
            assert await phone.ask("Say hello") == "Hello there"


async def test_a_user_who_cancels_ends_the_answer_at_the_server(
    relay: RelayProcess, tmp_path: Path
) -> None:
    left = asyncio.Event()

    async def babbles(exchange: Exchange) -> None:
        await hangs(exchange)
        left.set()

    async with chat_server() as server, bridge(relay, tmp_path, config(server.base_url)) as there:
        server.answer = babbles
        async with there.phone() as phone:
            async with phone.ask("Talk") as answer:
                assert await anext(aiter(answer)) == "Half"
            async with asyncio.timeout(SOON):
                await left.wait()


async def test_chats_at_once_keep_their_answers_apart(relay: RelayProcess, tmp_path: Path) -> None:
    everybody = asyncio.Barrier(12)

    async def echoes(exchange: Exchange) -> None:
        asked = exchange.json["messages"][-1]["content"]
        async with asyncio.timeout(SOON):
            await everybody.wait()
        await says(*(f"{asked}-{part} " for part in range(5)))(exchange)

    async with chat_server() as server, bridge(relay, tmp_path, config(server.base_url)) as there:
        server.answer = echoes
        async with there.phone() as phone:
            # An agent of its own for each, so that nothing was said before.
            for number in range(12):
                await phone.create_agent(name=f"a{number}")
            asked = [phone.ask(f"q{number}", agent_id=f"a{number}") for number in range(12)]
            found = await asyncio.gather(*(answer._whole() for answer in asked))
    assert found == ["".join(f"q{n}-{part} " for part in range(5)) for n in range(12)]
