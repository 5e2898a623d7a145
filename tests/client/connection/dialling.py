"""Connections with quick timers, their events one by one, and messages to send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

from websockets.asyncio.server import ServerConnection

from coralmux import protocol
from coralmux.client.connection import (
    Connected,
    Connecting,
    Connection,
    ConnectionEvent,
    Disconnected,
    Timers,
)
from coralmux.protocol.types import Role
from tests.client.servers import ScriptedRelay
from tests.support.client import SOON

# A tenth of the defaults, and pauses short enough to wait for.
FAST = Timers(
    open=1.0,
    auth=1.0,
    ping=0.2,
    ping_patience=0.4,
    close=0.3,
    first_pause=0.05,
    longest_pause=0.2,
    stable=1.0,
    restart_pause=0.05,
    later_pause=0.3,
    replaced_pause=0.4,
    longest_replaced_pause=1.6,
)
TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
MIB = 1024 * 1024

E = TypeVar("E", bound=ConnectionEvent)


class Events:
    """The events of a connection, one by one."""

    def __init__(self, iterator: AsyncGenerator[ConnectionEvent, None]) -> None:
        self._iterator = iterator

    async def next(self, within: float = SOON) -> ConnectionEvent:
        async with asyncio.timeout(within):
            return await anext(self._iterator)

    async def expect(self, kind: type[E], within: float = SOON) -> E:
        """The next event, which must be of this kind."""
        event = await self.next(within)
        assert isinstance(event, kind), event
        return event

    async def until(self, kind: type[E], within: float = SOON) -> E:
        """The next event of this kind; others are skipped."""
        async with asyncio.timeout(within):
            async for event in self._iterator:
                if isinstance(event, kind):
                    return event
        raise AssertionError(f"ended without {kind.__name__}")

    async def ended(self) -> None:
        async with asyncio.timeout(SOON):
            assert [event async for event in self._iterator] == []


@contextlib.asynccontextmanager
async def watching(connection: Connection) -> AsyncIterator[Events]:
    async with connection, contextlib.aclosing(connection.events()) as iterator:
        yield Events(iterator)


def connection_to(
    url: str, token: str = TOKEN, role: Role = Role.PHONE, **options: Any
) -> Connection:
    return Connection(url, token, role, **{"timers": FAST, "proxy": None, **options})


@contextlib.asynccontextmanager
async def connected(
    url: str, token: str = TOKEN, role: Role = Role.PHONE, **options: Any
) -> AsyncIterator[tuple[Connection, Events]]:
    """A connection that has logged in."""
    connection = connection_to(url, token, role, **options)
    async with watching(connection) as events:
        assert await events.expect(Connecting) == Connecting(1)
        await events.expect(Connected)
        yield connection, events


def envelope(type: str, payload: dict[str, Any] | None = None, *, id: str) -> bytes:
    return protocol.encode(type, payload, ts=0, id=id)


def deltas(count: int, size: int = 1) -> list[tuple[str, bytes]]:
    ids = [f"d{n}" for n in range(count)]
    return [(id, envelope("chat.stream", {"delta": "x" * size}, id=id)) for id in ids]


async def failure(connection: Connection) -> Disconnected:
    async with watching(connection) as events:
        await events.expect(Connecting)
        gone = await events.expect(Disconnected)
        assert gone.code == 1006
        assert await events.next() == Connecting(2)
        return gone


async def greet_and_wait(relay: ScriptedRelay, connection: ServerConnection) -> None:
    await relay.greet(connection)
    await connection.wait_closed()


class Longest:
    """As random.Random, but never short."""

    def uniform(self, low: float, high: float) -> float:
        return high
