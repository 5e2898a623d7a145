"""Apps that know no asyncio, followed from it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from contextvars import ContextVar

import pytest

from coralmux.bridge.apps.threads import LoopThread, in_thread
from tests.support.waiting import eventually

WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def test_what_a_thread_makes_comes_in_order_and_in_the_callers_context() -> None:
    WHO.set("Ada")

    def work() -> Iterator[str]:
        yield WHO.get()
        yield threading.current_thread().name

    assert [item async for item in in_thread(work)] == ["Ada", "app"]


async def test_what_a_thread_raises_comes_after_what_it_made() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    items = in_thread(work)
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="no more"):
        await anext(items)


async def test_an_iterator_that_nobody_follows_is_closed_at_its_next_item() -> None:
    go, closed = threading.Event(), threading.Event()

    def work() -> Iterator[int]:
        try:
            yield 1
            go.wait(10)
            yield 2
            yield 3
        finally:
            closed.set()

    async with aclosing(in_thread(work)) as items:
        assert await anext(items) == 1
    assert not closed.is_set()
    go.set()
    await eventually(closed.is_set)


async def test_another_loop_does_work_and_gives_its_errors() -> None:
    thread = LoopThread()

    async def add(a: int, b: int) -> int:
        if a < 0:
            raise ValueError("negative")
        return a + b

    assert await thread.run(add(1, 2)) == 3
    with pytest.raises(ValueError, match="negative"):
        await thread.run(add(-1, 2))
    await thread.stop(5)


async def test_work_in_another_loop_is_cancelled_with_who_waits_for_it_and_at_the_end() -> None:
    thread = LoopThread()
    begun, ended = threading.Event(), []

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    for stops in (False, True):
        begun.clear()
        waiting = asyncio.create_task(thread.run(wait()))
        assert await asyncio.to_thread(begun.wait, 10)
        if stops:
            await thread.stop(10)
        else:
            waiting.cancel()
        await asyncio.wait([waiting], timeout=10)
        assert waiting.cancelled()
        await eventually(lambda expected=1 + stops: len(ended) == expected)
