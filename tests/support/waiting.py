"""Waiting for conditions that no event tells of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.support.client import SOON


async def eventually(condition: Callable[[], object], within: float = SOON) -> None:
    """Return once the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.02)
