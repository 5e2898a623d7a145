"""What a bot can do with an Agent, and what its phone sees of it, through a real relay."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

import coralmux
from tests.client.meeting import (
    agent_for,
    meeting,
    new_link,
    phone_for,
    serving,
)
from tests.support.client import SOON
from tests.support.process import RelayProcess

Pieces = AsyncIterator[Any]


def image(size: int = 1000) -> coralmux.Attachment:
    return coralmux.Attachment.from_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(size - 8), name="a.png")


# The bot of the issue.


async def test_the_ten_line_bot_answers(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay).uri()

    agent = coralmux.Agent.from_link(link)

    @agent.on_chat
    async def reply(message):
        yield "token "
        yield "by "
        yield "token"

    async with serving(agent), coralmux.Phone.from_link(link) as phone:
        assert [delta async for delta in phone.ask("Hello")] == ["token ", "by ", "token"]
        assert phone.agent is not None
        assert phone.agent.verified


async def test_a_bot_by_token_alone_speaks_version_1(shared_relay: RelayProcess) -> None:
    token = shared_relay.token()
    agent = coralmux.Agent(relay=shared_relay.url, token=token)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield message.text.upper()

    link = coralmux.PairingLink(shared_relay.url, token)
    async with serving(agent), coralmux.Phone(link) as phone:
        assert await phone.ask("hello") == "HELLO"
        assert phone.agent is not None
        assert not phone.agent.verified


def test_relay_and_token_go_together() -> None:
    with pytest.raises(TypeError, match="together"):
        coralmux.Agent(relay="ws://localhost/ws")
    with pytest.raises(TypeError, match="together"):
        coralmux.Agent(token="oc_pair_x")


async def test_serving_without_a_handler_or_a_pairing_says_what_is_missing() -> None:
    agent = coralmux.Agent()
    with pytest.raises(RuntimeError, match="on_chat"):
        await agent.serve()
    agent.on_chat(lambda message: _nothing())
    with pytest.raises(RuntimeError, match="link"):
        await agent.serve()


async def _nothing() -> None:
    return None


async def test_a_coroutine_returns_the_whole_text_at_once(shared_relay: RelayProcess) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str | None:
        return f"to {message.text}" if message.text else None

    async with meeting(shared_relay, agent) as phone:
        assert await phone.ask("you") == "to you"
        assert await phone.ask("") == ""


async def test_what_the_phone_says_arrives(shared_relay: RelayProcess) -> None:
    agent = agent_for()
    got: list[coralmux.ChatMessage] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        got.append(message)
        message.usage["tokens"] = 3
        yield "ok"

    async with meeting(shared_relay, agent, name="Pocket") as phone:
        answer = phone.ask(
            "text",
            agent_id="second",
            model="large",
            options={"temperature": 0.5, "nested": {"a": [1]}},
            conversation=[coralmux.Turn("user", "before")],
        )
        assert await answer == "ok"
        assert answer.usage == {"tokens": 3}
        (message,) = got
        assert (message.id, message.text, message.agent_id) == (answer.id, "text", "second")
        assert message.model == "large"
        assert message.options == {"temperature": 0.5, "nested": {"a": [1]}}
        assert message.conversation == (coralmux.Turn("user", "before"),)
        assert message.phone.name == "Pocket"
        assert message.pairing.token == phone.channel.link.token
        await phone.ask("plain")
        assert got[1].usage == {"tokens": 3}
        assert (got[1].agent_id, got[1].model, got[1].options) == ("", "", {})


async def test_tool_status_comes_between_the_texts_in_order(shared_relay: RelayProcess) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "a"
        yield coralmux.ToolStatus("search")
        yield coralmux.ToolStatus("search", "done")
        yield "b"
        yield coralmux.ToolStatus("search", "error")

    async with meeting(shared_relay, agent) as phone:
        seen: list[Any] = []
        async for delta in phone.ask(
            "?", on_tool=lambda tool: seen.append((tool.tool, tool.status))
        ):
            seen.append(delta)
        assert seen == [
            "a", ("search", "running"), ("search", "done"), "b", ("search", "error"),
        ]  # fmt: skip


# What goes wrong in a handler.


async def test_a_backend_error_reaches_the_phone_behind_what_was_said(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "so far"
        raise coralmux.BackendError("The model is out of memory.")

    async with meeting(shared_relay, agent) as phone:
        answer = phone.ask("?")
        with pytest.raises(coralmux.AgentError, match=r"^The model is out of memory\.$") as caught:
            await answer
        assert caught.value.code == "BACKEND_ERROR"
        assert caught.value.ids == (answer.id,)
        assert answer.text == "so far"


async def test_other_exceptions_reach_the_phone_without_their_text(
    shared_relay: RelayProcess, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_for()

    async def first(message: coralmux.ChatMessage) -> Pieces:
        yield "x"
        raise KeyError("marker-of-a-text")

    async def second(message: coralmux.ChatMessage) -> str:
        raise KeyError("marker-of-a-text")

    def at_once(message: coralmux.ChatMessage) -> Pieces:
        raise KeyError("marker-of-a-text")

    async with meeting(shared_relay, agent) as phone:
        for handler in (first, second, at_once):
            agent.on_chat(handler)
            with pytest.raises(coralmux.AgentError, match="KeyError") as caught:
                await phone.ask("?")
            assert caught.value.code == "BACKEND_ERROR"
            assert "marker" not in str(caught.value)
    assert caplog.text.count("the chat handler failed") == 3


@pytest.mark.parametrize(
    "piece", [7, b"bytes", None, ["list"], {"delta": "x"}], ids=lambda p: type(p).__name__
)
async def test_a_piece_of_a_wrong_type_ends_the_answer_with_an_error(
    shared_relay: RelayProcess, piece: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "before"
        yield piece

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="TypeError"):
            await phone.ask("?")
    assert f"not {type(piece).__name__}" in caplog.text


@pytest.mark.parametrize("kind", ["plain function", "plain generator"])
async def test_a_handler_that_is_not_async_is_told_what_it_should_be(
    shared_relay: RelayProcess, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_for()

    def function(message: coralmux.ChatMessage) -> Any:
        return "text"

    def generator(message: coralmux.ChatMessage) -> Any:
        yield "text"

    agent.on_chat(function if kind == "plain function" else generator)
    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="TypeError"):
            await phone.ask("?")
    assert "a chat handler is an async generator function or a coroutine function" in caplog.text


async def test_a_tool_status_that_nobody_knows_is_the_handlers_error(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield coralmux.ToolStatus("search", "finished")  # type: ignore[arg-type]

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="ValueError"):
            await phone.ask("?")


@pytest.mark.parametrize(
    "fault",
    [
        coralmux.BackendError("x" * 6_000_000),
        coralmux.BackendError("half a \ud83d pair"),
        coralmux.BackendError(""),
    ],
    ids=["too long", "no UTF-8", "empty"],
)
async def test_whatever_an_error_says_the_phone_hears_of_it(
    shared_relay: RelayProcess, fault: Exception
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "x"
        raise fault

    @agent.on("agent.create")
    async def create(request: coralmux.Request) -> dict[str, Any]:
        raise fault

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError) as caught:
            await phone.ask("?", timeout=5)
        assert caught.value.code == "BACKEND_ERROR"
        assert str(caught.value)
        with pytest.raises(coralmux.AgentError):
            await phone.create_agent(timeout=5)


async def test_usage_that_is_no_json_is_an_error_and_not_silence(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "x"
        message.usage["object"] = object()

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="TypeError"):
            await phone.ask("?", timeout=5)


# Several at once.


async def test_ten_chats_run_side_by_side_and_keep_apart(shared_relay: RelayProcess) -> None:
    agent = agent_for()
    together = asyncio.Barrier(10)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        for n in range(20):
            await together.wait()
            yield f"{message.text}{n} "

    async with meeting(shared_relay, agent) as phone:
        texts = await asyncio.gather(*(phone.ask(f"chat{i}-") for i in range(10)))
    assert texts == ["".join(f"chat{i}-{n} " for n in range(20)) for i in range(10)]


@pytest.mark.parametrize("busy", ["busy ", "", coralmux.ToolStatus("busy")], ids=repr)
async def test_a_handler_that_never_waits_starves_nobody(
    shared_relay: RelayProcess, busy: Any
) -> None:
    agent = agent_for()
    began, ended = asyncio.Event(), asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        if message.text == "quick":
            yield "there"
            return
        began.set()
        try:
            while True:
                yield busy
        finally:
            ended.set()

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        task = asyncio.create_task(phone.ask("long")._whole())
        await began.wait()
        assert await phone.ask("quick") == "there"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ended.wait()


async def test_one_agent_serves_several_phones_by_several_pairings(
    shared_relay: RelayProcess,
) -> None:
    links = [new_link(shared_relay) for _ in range(3)]
    agent = agent_for(*links)
    together = asyncio.Barrier(3)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        await together.wait()
        yield f"{message.text} for {message.phone.name} by {links.index(message.pairing)}"

    async def ask(number: int) -> str:
        async with phone_for(links[number], name=f"Phone {number}") as phone:
            return await phone.ask(f"question {number}")

    async with serving(agent):
        texts = await asyncio.gather(*(ask(number) for number in range(3)))
    assert texts == [f"question {n} for Phone {n} by {n}" for n in range(3)]


async def test_more_chats_than_can_run_are_refused_with_words(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.client.serving.MAX_CHATS", 3)
    agent = agent_for()
    full = asyncio.Barrier(4)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        await full.wait()
        return "ok"

    async with meeting(shared_relay, agent) as phone, asyncio.TaskGroup() as group:
        tasks = [group.create_task(phone.ask("?")._whole()) for _ in range(3)]
        await phone.agents()  # behind the three questions
        with pytest.raises(coralmux.AgentError, match="3 answers are on their way") as caught:
            await phone.ask("one more")
        assert caught.value.code == "BACKEND_ERROR"
        await full.wait()
        assert [await task for task in tasks] == ["ok"] * 3
        full = asyncio.Barrier(1)
        assert await phone.ask("again") == "ok"
