"""What `check` finds out about an OpenAI-compatible server, and the agents on top of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coralmux.bridge import AgentSpec, Finding
from tests.bridge.asking import findings, outcome, question, started
from tests.bridge.doubles.chat_server import ChatServer, chat_server, delta, refuses, says
from tests.bridge.doubles.http_exchange import Exchange
from tests.support.client import SOON
from tests.support.process import free_port


async def checked(server: ChatServer, directory: Path, **settings: Any) -> list[Finding]:
    async with started("openai", directory, base_url=server.base_url, **settings) as backend:
        return await findings(backend)


async def test_a_server_that_works_is_said_to(tmp_path: Path) -> None:
    async with chat_server() as server:
        found = await checked(server, tmp_path, model="small")
        assert [finding.good for finding in found] == [True, True]
        assert "The model small answers" in found[1].text
        assert server.asked[0]["max_tokens"] == 16


async def test_a_server_that_does_not_run_is_found_out(tmp_path: Path) -> None:
    port = free_port()
    async with started("openai", tmp_path, base_url=f"http://127.0.0.1:{port}") as backend:
        (found,) = await findings(backend)
    assert not found.good
    assert (found.text, found.remedy) == (
        f"Nobody listens at 127.0.0.1:{port}, where the AI server should be.",
        "Start it, or correct base_url.",
    )


async def test_an_unknown_model_is_answered_with_those_that_are_like_it(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.models = ["llama3.2:1b", "mistral", "llama3.2"]
        server.answer = refuses(404, {"error": {"message": 'model "lama3.2" not found'}})
        found = await checked(server, tmp_path, model="lama3.2")
        assert [finding.good for finding in found] == [True, False]
        assert "does not know the model 'lama3.2'" in found[1].text
        assert "such as llama3.2, llama3.2:1b" in found[1].remedy


async def test_a_model_that_the_server_lists_by_another_name_is_tried(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.models = ["llama3.2:latest"]
        found = await checked(server, tmp_path, model="llama3.2")
    assert [finding.good for finding in found] == [True, True]
    assert "The model llama3.2 answers" in found[1].text


async def test_a_listed_model_that_is_refused_is_not_named_as_its_own_remedy(
    tmp_path: Path,
) -> None:
    async with chat_server() as server:
        server.answer = refuses(404, {"error": {"message": "model 'small' not found"}})
        found = await checked(server, tmp_path, model="small")
    assert "does not know the model 'small'" in found[1].text
    assert found[1].remedy == "Choose another one, or have it loaded there."


@pytest.mark.parametrize(
    "said",
    [
        "Could not finish the message because max_tokens or model output limit was reached.",
        "max_completion_tokens is too small: it has to leave room for thoughts.",
    ],
)
async def test_a_model_that_wants_more_than_a_few_tokens_is_tried_without_a_limit(
    tmp_path: Path, said: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        limited = {"max_tokens", "max_completion_tokens"} & set(exchange.json)
        await (refuses(400, {"error": {"message": said}}) if limited else endless)(exchange)

    # Nobody waits for all that it says then.
    async def endless(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(delta("Hello"))
        await exchange.gone()

    async with chat_server() as server:
        server.answer = answer
        async with asyncio.timeout(SOON):
            found = await checked(server, tmp_path, model="small")
    assert "The model small answers" in found[1].text


async def test_a_limit_of_the_operator_s_own_is_not_left_out_of_questions(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.answer = refuses(400, {"error": {"message": "max_tokens: at least 16"}})
        async with started(
            "openai", tmp_path, base_url=server.base_url, model="small", max_tokens=9
        ) as backend:
            assert "at least 16" in (await outcome(backend, question())).error
        assert {asked["max_tokens"] for asked in server.asked} == {9}


async def test_a_wrong_key_is_found_out(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.answer = refuses(401, {"error": "No such key"})
        found = await checked(server, tmp_path, api_key="wrong")
    assert (found[-1].good, found[-1].remedy) == (False, "Check api_key.")


async def test_a_server_that_lists_no_models_is_tried_all_the_same(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.models = None
        found = await checked(server, tmp_path, model="small")
        assert found[-1].text.startswith("The model small answers")
        found = await checked(server, tmp_path)
        assert "does not tell which" in found[-1].text


# Agents


async def test_an_agent_answers_in_its_own_way(tmp_path: Path) -> None:
    async with (
        chat_server() as server,
        started(
            "openai", tmp_path, base_url=server.base_url, model="small", temperature=0.5
        ) as backend,
    ):
        spec = AgentSpec(name="Pirate", model="large", system_prompt="Arr.", temperature=1)
        made = await backend.create_agent(spec)
        assert [agent.id for agent in await backend.agents()] == ["default", "pirate"]
        server.answer = says("Arr")
        await outcome(backend, question(agent_id=made.id))
        await outcome(backend, question(agent_id=made.id, model="huge"))
        await outcome(backend, question(agent_id="default"))
        assert [asked["model"] for asked in server.asked] == ["large", "huge", "small"]
        assert [asked["temperature"] for asked in server.asked] == [1, 1, 0.5]
        assert server.asked[0]["messages"][0] == {"role": "system", "content": "Arr."}
        plain = await backend.create_agent(AgentSpec(name="Plain"))
        await outcome(backend, question(agent_id=plain.id))
        assert (server.asked.pop()["temperature"], plain.id) == (0.5, "plain")
        await backend.update_agent(AgentSpec(id=made.id, temperature=0))
        await outcome(backend, question(agent_id=made.id))
        assert server.asked[3]["temperature"] == 0
        await backend.delete_agent(made.id)
        assert "no agent 'pirate'" in (await outcome(backend, question(agent_id="pirate"))).error
        assert len(server.asked) == 4
