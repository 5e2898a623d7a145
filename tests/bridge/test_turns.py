"""Questions that wait for their turn."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

import pytest

from coralmux import ToolStatus
from coralmux.bridge.answering import Answering
from coralmux.bridge.apps import turns
from tests.bridge.apps import AppFiles
from tests.bridge.apps import apps as apps
from tests.bridge.asking import outcome, question, started

RUNNING, DONE = ToolStatus("waiting", "running"), ToolStatus("waiting", "done")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "AGAIN_SECONDS", 0.02)


async def test_who_finds_it_free_says_nothing_and_who_waits_says_so_again_and_again(
    often: None,
) -> None:
    for lock in (asyncio.Lock(), asyncio.Semaphore(1)):
        async with turns.turn(lock) as waiting:
            assert [said async for said in waiting] == []
            async with turns.turn(lock) as other, asyncio.timeout(10):
                assert [await anext(other) for _ in range(3)] == [RUNNING] * 3
        assert not lock.locked()


async def test_who_waits_holds_it_afterwards(often: None) -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    async with turns.turn(lock) as waiting, asyncio.timeout(10):
        assert await anext(waiting) == RUNNING
        lock.release()
        assert [said async for said in waiting][-1] == DONE
        assert lock.locked()
    assert not lock.locked()


async def test_who_gives_up_waiting_is_passed_over() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    async with turns.turn(lock) as waiting:
        assert await anext(waiting) == RUNNING
    assert lock.locked()
    lock.release()
    async with asyncio.timeout(10), turns.turn(lock) as waiting:
        assert [said async for said in waiting] == []


WAITS = """
    import asyncio
    from langchain_core.messages import AIMessage
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph

    begun, go = asyncio.Event(), asyncio.Event()
    async def tell(state):
        begun.set()
        await go.wait()
        return {"messages": [AIMessage("Here.")]}
    graph = StateGraph(MessagesState)
    graph.add_node("tell", tell)
    graph.add_edge(START, "tell")
    app = graph.compile(checkpointer=InMemorySaver())
"""


async def test_a_question_may_wait_longer_than_the_ai_may_be_silent(
    apps: AppFiles, tmp_path: Path, often: None
) -> None:
    name = apps.write(WAITS)
    settings = {"app": f"{name}:app", "directory": str(apps.directory)}
    async with started("langchain", tmp_path, **settings) as backend, asyncio.timeout(20):
        module = importlib.import_module(name)
        first = asyncio.create_task(outcome(backend, question("one")))
        await module.begun.wait()
        second = Answering(backend, question("two"), silence_seconds=0.4)
        told = []
        async for piece in second.pieces():
            told.append(piece)
            # By now it has waited for twice as long.
            if len(told) == 40:
                module.go.set()
        assert (await first).text == "Here."
    assert told[-2:] == [DONE, "Here."]
