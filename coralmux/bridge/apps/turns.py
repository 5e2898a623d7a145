"""Questions that wait for each other, since an app takes only so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from coralmux import ToolStatus

# Seconds. Whoever waits says so again: neither the agent nor the phone takes that for silence.
AGAIN_SECONDS = 10.0


@asynccontextmanager
async def turn(
    lock: asyncio.Lock | asyncio.Semaphore,
) -> AsyncIterator[AsyncGenerator[ToolStatus, None]]:
    """Holds the lock from the end of what it gives, which is to be told meanwhile."""
    taking = asyncio.ensure_future(lock.acquire())
    try:
        yield _waiting(taking)
    finally:
        if not taking.done():
            taking.cancel()
        elif not taking.cancelled():
            lock.release()


async def _waiting(taking: asyncio.Future[Any]) -> AsyncGenerator[ToolStatus, None]:
    await asyncio.sleep(0)  # enough for a lock that nobody holds
    if taking.done():
        return
    while not taking.done():
        yield ToolStatus("waiting", "running")
        await asyncio.wait([taking], timeout=AGAIN_SECONDS)
    yield ToolStatus("waiting", "done")
