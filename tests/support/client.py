"""A v1 client for tests, on the `websockets` library: strict about what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

# Patience for anything that should happen at once.
SOON = 10.0

_numbers = itertools.count(1)


class Client:
    """One phone or agent. Messages come as decoded envelopes, in order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(
        self, type: str, payload: dict[str, Any] | None = None, *, id: str | None = None
    ) -> str:
        """Send an envelope; its id."""
        id = id or f"m{next(_numbers)}"
        await self.send_raw(
            json.dumps({"v": 1, "type": type, "id": id, "ts": 0, "payload": payload or {}})
        )
        return id

    async def send_raw(self, data: str | bytes) -> None:
        await self.connection.send(data)

    async def receive_raw(self, within: float = SOON) -> str | bytes:
        async with asyncio.timeout(within):
            return await self.connection.recv()

    async def receive(self, within: float = SOON) -> dict[str, Any]:
        return json.loads(await self.receive_raw(within))

    async def expect(self, type: str, within: float = SOON) -> dict[str, Any]:
        """The next message, which must be of this type."""
        message = await self.receive(within)
        assert message["type"] == type, message
        return message

    async def expect_error(self, code: str, *, ref: str | None = None) -> dict[str, Any]:
        """The payload of the next message, a chat.error with this code and ref."""
        payload = (await self.expect("chat.error"))["payload"]
        assert payload["code"] == code, payload
        assert payload.get("ref") == ref, payload
        return payload

    async def barrier(self, within: float = SOON) -> list[dict[str, Any]]:
        """Everything that came until the relay answered a ping sent now."""
        id = await self.send("ping")
        before = []
        while (message := await self.receive(within))["type"] != "pong" or message["id"] != id:
            before.append(message)
        return before

    async def closed(self, within: float = SOON) -> int:
        """Wait for the end, dropping messages; the close code."""
        async with asyncio.timeout(within):
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await self.connection.recv()
        return self.connection.close_code or 1006

    async def close(self) -> None:
        await self.connection.close()


@contextlib.asynccontextmanager
async def connect(url: str, **options: Any) -> AsyncIterator[Client]:
    """A connection that has not authenticated."""
    defaults = {"compression": None, "max_size": 8 * 1024 * 1024, "ping_interval": None}
    connection = await websockets.connect(url, **{**defaults, **options})
    try:
        yield Client(connection)
    finally:
        # Closing a lost connection again can trip over asyncio's transport (Python 3.11).
        if connection.state is not State.CLOSED:
            await connection.close()


@contextlib.asynccontextmanager
async def log_in(url: str, token: str, role: str, **options: Any) -> AsyncIterator[Client]:
    """An authenticated connection; `client.greeting` is the payload of its auth.ok."""
    async with connect(url, **options) as client:
        await client.send("auth", {"token": token, "role": role})
        client.greeting = (await client.expect("auth.ok"))["payload"]  # type: ignore[attr-defined]
        yield client


@contextlib.asynccontextmanager
async def pair(url: str, token: str, **options: Any) -> AsyncIterator[tuple[Client, Client]]:
    """A phone and an agent that have met; the phone has read `status online`."""
    async with (
        log_in(url, token, "phone", **options) as phone,
        log_in(url, token, "agent", **options) as agent,
    ):
        assert (await phone.expect("status"))["payload"] == {"peer": "online"}
        yield phone, agent
