"""An answer that the phone wants no more ends at the agent too, and says so."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import coralmux
from tests.client.meeting import agent_for, meeting, new_link, serving
from tests.client.pair import cut
from tests.support.client import SOON
from tests.support.process import RelayProcess

Pieces = AsyncIterator[Any]


class Endless(coralmux.Agent):
    """Says "0 ", waits for ever, and notes how its handler ended."""

    def __init__(self) -> None:
        super().__init__(store=coralmux.MemoryStore())
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.ends: list[str] = []
        self.on_chat(self._reply)

    async def _reply(self, message: coralmux.ChatMessage) -> Pieces:
        if message.text == "quick":
            yield "there"
            return
        try:
            yield "0 "
            self.began.set()
            await asyncio.Event().wait()
        except BaseException as error:
            self.ends.append(type(error).__name__)
            raise
        finally:
            self.ended.set()


async def test_cancel_ends_the_answer_with_what_was_said(shared_relay: RelayProcess) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        answer = phone.ask("?")
        async for delta in answer:
            assert delta == "0 "
            await agent.began.wait()
            answer.cancel()
            answer.cancel()  # once more changes nothing
        assert answer.cancelled
        assert answer.text == "0 "
        assert agent.ends == ["CancelledError"]
        assert await phone.ask("quick") == "there"


async def test_break_and_aclose_cancel_the_handler(shared_relay: RelayProcess) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        async with phone.ask("?") as answer:
            async for _ in answer:
                await agent.began.wait()
                break
        await agent.ended.wait()
        assert answer.cancelled
        assert agent.ends == ["CancelledError"]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what nothing refers to any more is freed: no cycle is found."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_break_alone_cancels_the_handler(shared_relay: RelayProcess) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        async for _ in phone.ask("?"):
            break
        await agent.ended.wait()
        assert agent.ends == ["CancelledError"]


@pytest.mark.usefixtures("no_collector")
async def test_break_alone_lets_the_next_question_have_its_turn_in_version_1(
    shared_relay: RelayProcess,
) -> None:
    token = shared_relay.token()
    agent = coralmux.Agent(relay=shared_relay.url, token=token)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield f"{message.text} 1 "
        yield f"{message.text} 2"

    link = coralmux.PairingLink(shared_relay.url, token)
    async with serving(agent), coralmux.Phone(link) as phone, asyncio.timeout(SOON):
        async for delta in phone.ask("first"):
            assert delta == "first 1 "
            break
        assert await phone.ask("second") == "second 1 second 2"


async def test_an_answer_that_is_kept_goes_on_after_a_break(shared_relay: RelayProcess) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "one "
        yield "two"

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        answer = phone.ask("?")
        async for _ in answer:
            break
        assert await answer == "one two"
        assert not answer.cancelled


async def test_cancelling_the_task_that_asks_cancels_the_handler(
    shared_relay: RelayProcess,
) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        task = asyncio.create_task(phone.ask("?")._whole())
        await agent.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await agent.ended.wait()


async def test_a_time_out_cancels_the_handler(shared_relay: RelayProcess) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        await phone.ready()
        answer = phone.ask("?", timeout=0.2)
        with pytest.raises(coralmux.RequestTimeout) as caught:
            await answer
        assert caught.value.ids == (answer.id,)
        await agent.ended.wait()


@pytest.mark.parametrize("culprit", ["on_tool", "loop body"])
async def test_an_error_of_whoever_asks_cancels_the_handler(
    shared_relay: RelayProcess, culprit: str
) -> None:
    agent = Endless()
    ended = asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        try:
            yield coralmux.ToolStatus("search")
            yield "0"
            await asyncio.Event().wait()
        finally:
            ended.set()

    def fail(tool: coralmux.ToolStatus) -> None:
        if culprit == "on_tool":
            raise ZeroDivisionError

    async def fail_while_reading(answer: coralmux.Answer) -> None:
        async with answer:
            async for _ in answer:
                raise ZeroDivisionError

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        with pytest.raises(ZeroDivisionError):
            await fail_while_reading(phone.ask("?", on_tool=fail))
        await ended.wait()


async def test_a_question_cancelled_in_the_same_breath_ends_at_once(
    shared_relay: RelayProcess,
) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        await phone.ready()
        # The agent reads both at once, before it has begun with the question.
        with phone.exchange("both", "chat.done") as waiting:
            phone.channel.send("chat.send", {"text": "?"}, id="both")
            phone.channel.send("chat.cancel", {"ref": "both"})
            types = []
            while (message := await waiting.next(5)).type != "chat.done":
                types.append(message.type)
        assert message.payload["cancelled"] is True
        assert message.payload["full_text"] == "0 " * len(types)


async def test_an_answer_cancelled_before_it_was_asked_is_never_asked(
    shared_relay: RelayProcess,
) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    asked: list[str] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        asked.append(message.text)
        return "ok"

    async with coralmux.Phone(link) as phone, asyncio.timeout(SOON):
        answer = phone.ask("not this")
        task = asyncio.create_task(answer._whole())
        await asyncio.sleep(0)  # it waits for the agent now
        answer.cancel()
        assert await task == ""
        assert answer.cancelled
        async with serving(agent):
            assert await phone.ask("this") == "ok"
    assert asked == ["this"]


@pytest.mark.parametrize("moment", ["when it is ready", "in a later wait for the agent"])
async def test_an_answer_cancelled_just_before_it_is_sent_is_never_asked(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    agent = agent_for()
    asked: list[str] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        asked.append(message.text)
        return "ok"

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        await phone.ready()
        answer = phone.ask("not this")
        ready = phone.ready

        async def ready_and_cancelled(timeout: float | None = None) -> Any:
            peer = await ready(timeout)
            monkeypatch.setattr(phone, "ready", ready_later)
            if moment == "when it is ready":
                asyncio.get_running_loop().call_soon(answer.cancel)
            else:
                cut(phone.channel)
                while phone.channel.ready:
                    await asyncio.sleep(0)
            return peer

        async def ready_later(timeout: float | None = None) -> Any:
            answer.cancel()
            return await ready(timeout)

        monkeypatch.setattr(phone, "ready", ready_and_cancelled)
        assert await answer == ""
        assert answer.cancelled
        monkeypatch.undo()
        assert await phone.ask("this") == "ok"
    assert asked == ["this"]


async def test_only_the_answer_that_is_meant_is_cancelled(shared_relay: RelayProcess) -> None:
    agent = agent_for()
    both = asyncio.Barrier(3)
    release = asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield message.text
        await both.wait()
        await release.wait()
        yield "!"

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        one, two = phone.ask("one"), phone.ask("two")
        tasks = [asyncio.create_task(answer._whole()) for answer in (one, two)]
        await both.wait()
        one.cancel()
        assert await tasks[0] == "one"
        release.set()
        assert await tasks[1] == "two!"
        assert (one.cancelled, two.cancelled) == (True, False)


async def test_an_agent_that_cannot_cancel_is_not_asked_to_and_nothing_more_is_handed_out(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.client.channel.CAPS", ("files",))
    agent = agent_for()
    release = asyncio.Event()
    said: list[str] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "one "
        await release.wait()
        yield "two "
        said.append(message.text)

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        answer = phone.ask("?")
        deltas = []
        async for delta in answer:
            deltas.append(delta)
            answer.cancel()
            release.set()
        assert deltas == ["one "]
        assert answer.cancelled
        async for _ in phone.ask("left"):
            break
        assert await phone.ask("next") == "one two "
    assert said == ["?", "left", "next"]


async def test_cancelling_an_answer_that_is_over_is_answered_unknown(
    shared_relay: RelayProcess,
) -> None:
    async with meeting(shared_relay, Endless()) as phone, asyncio.timeout(SOON):
        answer = phone.ask("quick")
        await answer
        answer.cancel()
        assert not answer.cancelled
        with phone.exchange("late", "chat.done") as waiting:
            phone.channel.send("chat.cancel", {"ref": answer.id}, id="late")
            with pytest.raises(coralmux.AgentError) as caught:
                await waiting.next(5)
        assert caught.value.code == "UNKNOWN_REF"


async def test_a_handler_that_lets_a_strange_cancellation_out_fails_aloud(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()

    async def stumble() -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "x"
        await stumble()

    @agent.on("system.status")
    async def status(request: coralmux.Request) -> dict[str, Any]:
        await stumble()
        return {}

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="RuntimeError"):
            await phone.ask("?", timeout=5)
        with pytest.raises(coralmux.AgentError, match="RuntimeError"):
            await phone.system_status(timeout=5)


async def test_a_phone_that_leaves_cancels_the_handler(shared_relay: RelayProcess) -> None:
    agent = Endless()
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        task = asyncio.create_task(phone.ask("?")._whole())
        await agent.began.wait()
        await phone.close()
        with pytest.raises(coralmux.ConnectionLost):
            await task
        await agent.ended.wait()


async def test_cancelled_answers_are_followed_by_no_other_one_in_version_1(
    shared_relay: RelayProcess,
) -> None:
    token = shared_relay.token()
    agent = coralmux.Agent(relay=shared_relay.url, token=token)
    release = asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield f"{message.text} 1 "
        await release.wait()
        yield f"{message.text} 2"

    link = coralmux.PairingLink(shared_relay.url, token)
    async with serving(agent), coralmux.Phone(link) as phone, asyncio.timeout(SOON):
        async with phone.ask("first") as answer:
            async for delta in answer:
                assert delta == "first 1 "
                break
        second = asyncio.create_task(phone.ask("second")._whole())
        await asyncio.sleep(0)
        release.set()
        assert await second == "second 1 second 2"
