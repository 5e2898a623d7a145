"""What holds for every test of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """No task outlives a test: they all ended before it did, or within a moment."""
    before = asyncio.all_tasks()
    yield
    mine = lambda: [t for t in asyncio.all_tasks() - before if "coralmux" in t.get_name()]  # noqa: E731
    assert mine() == []
