"""The channel-layer group of each token, through which processes reach its connections.

A process has one layer channel and puts it into the group of every token that
is connected to it, instead of one channel for each connection: the Redis layer
counts capacity over all channels of a process, and each reader costs it tasks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from channels.layers import get_channel_layer

log = structlog.get_logger("relay")

# Layers forget a membership a day after it was added.
_RENEW_SECONDS = 3600.0
# Between two attempts to read from a layer that fails.
_RETRY_SECONDS = 1.0


def group_name(token_id: int) -> str:
    return f"pairing.{token_id}"


class Groups:
    """This process's memberships. `on_revoked` is called with a token's id."""

    def __init__(self, on_revoked: Callable[[int], None]) -> None:
        self._on_revoked = on_revoked
        self._layer: Any = None
        self._channel = ""
        self._members: Counter[int] = Counter()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._layer = get_channel_layer()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._read_for_ever()),
            loop.create_task(self._renew_for_ever()),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def join(self, token_id: int) -> None:
        """Another connection of this token; `leave` takes it back."""
        # Counted before anything is awaited, or another's `leave` would end the membership.
        self._members[token_id] += 1
        try:
            await self._add(token_id)
        except BaseException:
            self._uncount(token_id)
            raise

    async def leave(self, token_id: int) -> None:
        if not self._uncount(token_id):
            await self._layer.group_discard(group_name(token_id), await self._own_channel())

    async def tell_revoked(self, token_id: int) -> None:
        """Tell every process that has a connection of this token, this one included."""
        event = {"type": "token.revoked", "token_id": token_id}
        await self._layer.group_send(group_name(token_id), event)

    def _uncount(self, token_id: int) -> int:
        """Take one back; how many are left."""
        self._members[token_id] -= 1
        left = self._members[token_id]
        if not left:
            del self._members[token_id]
        return left

    async def _add(self, token_id: int) -> None:
        await self._layer.group_add(group_name(token_id), await self._own_channel())

    async def _own_channel(self) -> str:
        if not self._channel:
            self._channel = await self._layer.new_channel("relay")
        return self._channel

    async def _read_for_ever(self) -> None:
        while True:
            try:
                event = await self._layer.receive(await self._own_channel())
                if event["type"] == "token.revoked":
                    self._on_revoked(event["token_id"])
                else:
                    log.warning("unknown layer event", type=event["type"])
            except Exception:
                log.exception("channel layer not read")
                await asyncio.sleep(_RETRY_SECONDS)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            for token_id in tuple(self._members):
                try:
                    await self._add(token_id)
                except Exception:
                    log.exception("group membership not renewed", token_id=token_id)
