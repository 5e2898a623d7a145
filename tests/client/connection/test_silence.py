"""Silence ends a connection; slowness, quiet and a busy reader do not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection

from coralmux.client.connection import Connecting, Disconnected, Received
from tests.client.connection.dialling import (
    FAST,
    MIB,
    connected,
    connection_to,
    deltas,
    envelope,
    watching,
)
from tests.client.servers import ScriptedRelay, listening, say, scripted
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def test_a_relay_that_never_answers_auth_is_given_up() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await connection.wait_closed()

    timers = dataclasses.replace(FAST, auth=0.2)
    async with (
        scripted(script) as relay,
        watching(connection_to(relay.url, timers=timers)) as events,
    ):
        await events.expect(Connecting)
        gone = await events.expect(Disconnected)
        assert gone.code == 1006
        assert "did not answer the token" in gone.cause
        await events.expect(Connecting)


async def test_a_silent_connection_is_given_up() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()  # no pong
        await connection.wait_closed()

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        began = time.monotonic()
        gone = await events.expect(Disconnected)
        assert time.monotonic() - began >= FAST.ping + FAST.ping_patience
        assert gone.code == 1006
        assert "not even the answer to a ping" in gone.cause


async def test_silence_after_answered_pings_is_noticed_too() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        closed = asyncio.create_task(connection.wait_closed())
        await asyncio.wait([closed], timeout=3 * FAST.ping)
        connection.transport.pause_reading()
        await closed

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        began = time.monotonic()
        assert "a ping" in (await events.expect(Disconnected, within=5)).cause
        assert time.monotonic() - began > 3 * FAST.ping + FAST.ping_patience


async def test_anything_that_comes_counts_as_life() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()  # no pong
        for n in range(12):
            await asyncio.sleep(FAST.ping_patience / 3)
            await say(connection, "chat.stream", {"delta": "x"}, id=str(n))

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        for n in range(12):
            assert (await events.expect(Received)).envelope.id == str(n)


async def test_a_quiet_relay_that_answers_pings_is_kept() -> None:
    over = asyncio.Event()

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await asyncio.wait([asyncio.create_task(over.wait())], timeout=1.5)
        await say(connection, "chat.done", {"full_text": ""}, id="still here")

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        assert (await events.expect(Received)).envelope.id == "still here"


async def test_a_reader_that_is_busy_for_long_does_not_lose_its_connection() -> None:
    count = 200

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        for id, data in deltas(count, size=64 * 1024):
            await connection.send(data, text=True)
            sent.append(id)
        await connection.wait_closed()

    sent: list[str] = []
    async with scripted(script) as relay, connected(relay.url) as (_, events):
        busy_until = time.monotonic() + 3 * (FAST.ping + FAST.ping_patience)
        await eventually(lambda: time.monotonic() > busy_until)
        # TCP holds the relay back; nothing piles up here.
        assert len(sent) < count
        got = [(await events.expect(Received)).envelope.id for _ in range(count)]
        assert got == [f"d{n}" for n in range(count)]


async def test_a_ping_that_waits_behind_megabytes_is_no_silence() -> None:
    """A slow line takes a message longer than the ping's patience; it moves, so it lives."""

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        data = await connection.recv()
        await say(connection, "chat.done", {"size": len(data)}, id="taken")
        await connection.wait_closed()

    async with (
        scripted(script, max_size=None) as relay,
        slow_line(relay.port) as port,
        connected(f"ws://127.0.0.1:{port}/ws") as (phone, events),
    ):
        began = time.monotonic()
        phone.post(envelope("file.chunk", {"data": "x" * 5 * MIB}, id="big"), id="big")
        assert (await events.expect(Received)).envelope.id == "taken"
        assert time.monotonic() - began > 2 * (FAST.ping + FAST.ping_patience)


@contextlib.asynccontextmanager
async def slow_line(to: int, *, bytes_each: int = 64 * 1024) -> AsyncIterator[int]:
    """A TCP line that takes about 2 MiB a second, with little room in between; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to)

        async def up() -> None:
            while data := await reader.read(bytes_each):
                back.write(data)
                await back.drain()
                await asyncio.sleep(len(data) / (2 * MIB))

        async def down() -> None:
            while data := await there.read(bytes_each):
                writer.write(data)

        try:
            await asyncio.gather(up(), down())
        finally:
            back.transport.abort()

    async with listening(handle, receive_buffer=bytes_each) as port:
        yield port
