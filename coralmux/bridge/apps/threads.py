"""Apps that know no asyncio: followed from it, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """What `work` iterates over, as it comes; raises what it raises.

    A thread cannot be cancelled: when this generator is closed the iterator is closed at
    its next item. It does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[tuple[bool, T | BaseException | None]] = asyncio.Queue()
    left = threading.Event()

    def tell(more: bool, item: T | BaseException | None) -> None:
        if not left.is_set() and not loop.is_closed():
            loop.call_soon_threadsafe(came.put_nowait, (more, item))

    def run() -> None:
        try:
            items = work()
            for item in items:
                if left.is_set():
                    if close := getattr(items, "close", None):
                        close()
                    return
                tell(True, item)
        except BaseException as error:
            tell(False, error)
        else:
            tell(False, None)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="app", daemon=True).start()
    try:
        while True:
            more, item = await came.get()
            if more:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        left.set()


class LoopThread:
    """An event loop in a thread of its own, for apps that block theirs now and then."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="app loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises, in that loop. Cancelling this cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, function: Callable[[], Any]) -> None:
        """Call it in that loop, when that comes to it."""
        self._loop.call_soon_threadsafe(function)

    async def stop(self, seconds: float) -> None:
        """Cancel what runs; wait so long for it. What blocks longer is left behind."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, seconds)
