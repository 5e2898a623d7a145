"""The autogpt backend at an agent that serves the Agent Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, ToolStatus, Turn
from coralmux.bridge import Backend
from tests.bridge.asking import findings, outcome, question, started
from tests.bridge.doubles.agent_protocol import (
    AgentProtocol,
    Artifact,
    Task,
    agent_protocol,
    step,
    steps,
)
from tests.bridge.doubles.chat_server import chat_server, refuses
from tests.bridge.doubles.http_exchange import http_server
from tests.support.process import free_port
from tests.support.waiting import eventually

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


@pytest.fixture
async def agent() -> AsyncIterator[AgentProtocol]:
    async with agent_protocol() as agent:
        yield agent


@pytest.fixture
async def backend(agent: AgentProtocol, tmp_path: Path) -> AsyncIterator[Backend]:
    async with started("autogpt", tmp_path, base_url=agent.root, max_steps=4) as backend:
        yield backend


async def test_steps_are_done_until_the_last_one(agent: AgentProtocol, backend: Backend) -> None:
    agent.act = steps(
        step("Looking.\n", name="web_search"), step(None), step("It is blue.", is_last=True)
    )
    found = await outcome(backend, question("Which colour?"))
    assert (found.deltas, found.error) == (["Looking.", "\n\nIt is blue."], "")
    assert found.tools == [
        ("step 1", "running"),
        ("step 1", "done"),
        ("web_search", "done"),
        ("step 2", "running"),
        ("step 2", "done"),
        ("step 3", "running"),
        ("step 3", "done"),
    ]
    assert agent.tasks[0].input == "Which colour?"


async def test_the_conversation_is_told_in_the_task(agent: AgentProtocol, backend: Backend) -> None:
    history = (Turn("user", "x" * 9000), Turn("assistant", "y" * 7000), Turn("user", "I am Ada."))
    await outcome(backend, question("Who am I?", history=history))
    told = agent.tasks[0].input
    assert told.endswith("user: I am Ada.\n\nWhat is asked now:\n\nWho am I?")
    assert "assistant: yyy" in told
    assert len(told) < 8200


async def test_a_step_that_goes_on_in_the_background_is_waited_for(
    agent: AgentProtocol, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.bridge.backends.autogpt._LOOK_SECONDS", 0.01)
    agent.act = steps(step(None, status="running"))
    waiting = asyncio.create_task(outcome(backend, question()))
    await eventually(lambda: any(e.path.endswith("steps/step-1") for e in agent.exchanges))
    agent.tasks[0].steps[0] |= step("At last.", is_last=True)
    assert (await waiting).text == "At last."


async def test_an_agent_that_never_ends_is_stopped(agent: AgentProtocol, backend: Backend) -> None:
    agent.act = steps(*[step("On and on.")] * 9)
    found = await outcome(backend, question())
    assert len(agent.tasks[0].steps) == 4
    assert found.text.endswith("On and on.\n\n[Ended after 4 steps, which is the most that are "
                               "set for one answer. Ask to go on.]")  # fmt: skip


async def test_an_agent_that_asks_gets_its_answer_from_the_user(
    agent: AgentProtocol, backend: Backend
) -> None:
    asks = {"use_tool": {"name": "ask_user", "arguments": {}}}
    agent.act = steps(step("Which town?", additional_output=asks), step("Never."))
    found = await outcome(backend, question())
    assert (found.text, found.error, len(agent.tasks[0].steps)) == ("Which town?", "", 1)


async def test_files_come_and_go(agent: AgentProtocol, backend: Backend) -> None:
    async def paint(task: Task, number: int) -> dict[str, Any]:
        task.artifacts += [
            Artifact("map.png", PNG),
            Artifact("fake.png", b"no picture"),
            Artifact("huge.bin", bytes(5_000_001)),
            Artifact("../../notes.txt", b"Hello"),
        ]
        return step("Painted.", is_last=True)

    agent.act = paint
    for agent.pages in (True, False):
        sent = Attachment("photo of me.png", "image/png", PNG + b"mine")
        found = await outcome(backend, question("Paint", attachments=(sent,)))
        task = agent.tasks[-1]
        assert task.input == "Paint\n\nFiles in the workspace: photo of me.png"
        assert (task.artifacts[0].file_name, task.artifacts[0].data) == (sent.name, sent.data)
        assert [(a.name, a.mime_type) for a in found.attachments] == [
            ("map.png", "image/png"),
            ("fake.png", "application/octet-stream"),
            ("notes.txt", "text/plain"),
        ]
        assert found.text == "Painted.\n\n[The file huge.bin has more than 5 MB, and stays.]"


async def test_a_file_that_cannot_be_had_spoils_no_answer(
    agent: AgentProtocol, backend: Backend
) -> None:
    async def act(task: Task, number: int) -> dict[str, Any]:
        task.artifacts.append(Artifact("map.png", PNG))
        return step("Painted.", is_last=True)

    agent.act = act
    real = agent._of_task

    async def of_task(exchange: Any, task: Task, method: str, what: str, id: str) -> None:
        if (what, bool(id)) == ("artifacts", True):
            await exchange.respond(404)
        else:
            await real(exchange, task, method, what, id)

    agent._of_task = of_task  # type: ignore[method-assign]
    found = await outcome(backend, question())
    assert found.text == "Painted.\n\n[The file map.png could not be fetched.]"
    assert found.error == ""


@pytest.mark.parametrize("page_size", ["page_size", "pageSize"])
async def test_more_files_than_a_page_has_come_too(
    agent: AgentProtocol, backend: Backend, page_size: str
) -> None:
    async def act(task: Task, number: int) -> dict[str, Any]:
        task.artifacts += [Artifact(f"{number}.txt", b"Hello") for number in range(22)]
        return step("Written.", is_last=True)

    agent.act, agent.page_size = act, page_size
    found = await outcome(backend, question())
    assert len(found.attachments) == 20
    assert found.text == "Written.\n\n[2 more files stay at the agent.]"


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/ap/v1", ""),
        ("/ap/v1", "/ap/v1"),
        ("/ap/v1", "/ap/v1/agent/tasks/"),
        ("/api", "/api"),
        ("/me/ap/v1", "/me"),
    ],
)
async def test_the_api_is_found_wherever_it_is(tmp_path: Path, prefix: str, path: str) -> None:
    async with (
        agent_protocol(prefix) as agent,
        started("autogpt", tmp_path, base_url=agent.root + path, api_key="key-1") as backend,
    ):
        assert (await outcome(backend, question())).text == "Done."
        assert [finding.good for finding in await findings(backend)] == [True]
        assert agent.exchanges[-1].headers["authorization"] == "Bearer key-1"


# What goes wrong


async def test_a_step_that_fails_ends_the_answer_behind_what_was_said(
    agent: AgentProtocol, backend: Backend
) -> None:
    agent.act = steps(step("Half.", status="created"))
    found = await outcome(backend, question())
    assert found.text == "Half."
    assert found.tools[-1] == ("step 2", "error")
    assert "failed (HTTP 500). It says: “Internal Server Error” Try again" in found.error
    agent.act = steps(step("Whole.", is_last=True))
    assert (await outcome(backend, question())).text == "Whole."


async def test_an_agent_that_names_no_last_step_ends_with_its_steps(
    agent: AgentProtocol, backend: Backend
) -> None:
    agent.act = steps(step("One."), step("Two."))
    found = await outcome(backend, question())
    assert (found.text, found.error) == ("One.\n\nTwo.", "")


async def test_leaving_an_answer_ends_its_steps(agent: AgentProtocol, backend: Backend) -> None:
    reached = asyncio.Event()

    async def act(task: Task, number: int) -> dict[str, Any]:
        if number == 2:
            reached.set()
            await agent.exchanges[-1].gone()
        return step(f"{number}")

    agent.act = act
    asking = asyncio.create_task(outcome(backend, question()))
    await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(agent.exchanges) == 3


async def test_an_agent_that_does_not_run_is_told(tmp_path: Path) -> None:
    port = free_port()
    async with started("autogpt", tmp_path, base_url=f"http://127.0.0.1:{port}") as backend:
        assert f"Nobody listens at 127.0.0.1:{port}" in (await outcome(backend, question())).error
        (found,) = await findings(backend)
        assert (found.good, found.remedy) == (False, "Start it, or correct base_url.")


async def test_a_server_of_another_kind_is_told(tmp_path: Path) -> None:
    async with (
        chat_server() as server,
        started("autogpt", tmp_path, base_url=server.base_url) as backend,
    ):
        error = (await outcome(backend, question())).error
        assert "There is nothing at /v1/ap/v1/agent/tasks" in error
        assert error.endswith("Check base_url.")
        assert [finding.good for finding in await findings(backend)] == [False]


@pytest.mark.parametrize(
    "body", [b"<html>", {"id": 1}, [1], {"task_id": ""}, {"task_id": 5}, b"\xff"]
)
async def test_what_is_no_agent_protocol_is_told(tmp_path: Path, body: Any) -> None:
    async with (
        http_server(refuses(200, body)) as root,
        started("autogpt", tmp_path, base_url=root) as backend,
    ):
        found = await outcome(backend, question())
    assert "does not speak the Agent Protocol" in found.error
    assert [piece for piece in found.pieces if not isinstance(piece, ToolStatus)] == []
