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


def group_name(token_id: int) -> str:
    return f"pairing.{token_id}"


class Groups:
    """This process's memberships. `on_revoked` is called with a token's id."""

    def __init__(self, on_revoked: Callable[[int], None]) -> None:
        self._on_revoked = on_revoked
        self._layer: Any = None
        self._channel = ""
        self._members: Counter[int] = Counter()
        self._reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._layer = get_channel_layer()
        self._reader = asyncio.get_running_loop().create_task(self._read_for_ever())

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def join(self, token_id: int) -> None:
        """Another connection of this token; `leave` takes it back."""
        self._members[token_id] += 1
        if self._members[token_id] == 1:
            await self._layer.group_add(group_name(token_id), await self._own_channel())

    async def leave(self, token_id: int) -> None:
        self._members[token_id] -= 1
        if not self._members[token_id]:
            del self._members[token_id]
            await self._layer.group_discard(group_name(token_id), await self._own_channel())

    async def tell_revoked(self, token_id: int) -> None:
        """Tell every process that has a connection of this token, this one included."""
        event = {"type": "token.revoked", "token_id": token_id}
        await self._layer.group_send(group_name(token_id), event)

    async def _own_channel(self) -> str:
        if not self._channel:
            self._channel = await self._layer.new_channel("relay")
        return self._channel

    async def _read_for_ever(self) -> None:
        channel = await self._own_channel()
        while True:
            event = await self._layer.receive(channel)
            if event["type"] == "token.revoked":
                self._on_revoked(event["token_id"])
            else:
                log.warning("unknown layer event", type=event["type"])
