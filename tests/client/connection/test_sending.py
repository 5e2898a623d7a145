"""Posting and draining: water marks, and which messages an end leaves unsent."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest
from websockets.asyncio.server import ServerConnection

from coralmux.client.connection import Connected, Connecting, Disconnected, Received
from coralmux.client.errors import NotConnected
from coralmux.protocol.limits import HIGH_WATER_BYTES, LOW_WATER_BYTES
from tests.client.connection.dialling import (
    FAST,
    MIB,
    connected,
    connection_to,
    deltas,
    envelope,
    watching,
)
from tests.client.servers import ScriptedRelay, say, scripted
from tests.support.client import SOON
from tests.support.waiting import eventually


async def test_what_was_not_written_when_the_connection_broke_is_named() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        first = json.loads(await connection.recv())
        assert first["id"] == "first"
        connection.transport.pause_reading()
        await cut.wait()
        connection.transport.abort()

    cut = asyncio.Event()
    timers = dataclasses.replace(FAST, ping=30.0)
    async with scripted(script) as relay, connected(relay.url, timers=timers) as (phone, events):
        phone.post(envelope("chat.send", id="first"), id="first")
        # More than the kernel's buffers take.
        sent = deltas(64, size=MIB)
        for id, data in sent:
            phone.post(data, id=id)
        draining = asyncio.create_task(phone.drain())
        assert await asyncio.wait([draining], timeout=0.3) == (set(), {draining})
        cut.set()
        gone = await events.expect(Disconnected)
        ids = [id for id, _ in sent]
        assert 0 < len(gone.unsent) <= 64
        assert list(gone.unsent) == ids[-len(gone.unsent) :]
        with pytest.raises(NotConnected, match="Send it again"):
            await draining
        with pytest.raises(NotConnected):
            phone.post(b"{}", id="late")
        with pytest.raises(NotConnected):
            await phone.drain()


async def test_nothing_is_named_unsent_that_the_relay_got() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        for _ in range(3):
            await connection.recv()
        await connection.close(1012)

    async with scripted(script) as relay, connected(relay.url) as (phone, events):
        for id, data in deltas(3):
            phone.post(data, id=id)
        assert (await events.expect(Disconnected)).unsent == ()


async def test_posting_before_and_between_connections_is_refused() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.close()

    async with scripted(script) as relay:
        connection = connection_to(relay.url)
        with pytest.raises(NotConnected):
            connection.post(b"{}", id="x")
        async with watching(connection) as events:
            await events.expect(Connecting)
            assert not connection.connected
            with pytest.raises(NotConnected):
                connection.post(b"{}", id="x")
            await events.expect(Connected)
            assert connection.connected
            await events.expect(Disconnected)
            assert not connection.connected


async def test_drain_waits_from_the_high_to_the_low_water_mark() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()
        await go_on.wait()
        connection.transport.resume_reading()
        while True:
            got.append(await connection.recv())

    go_on = asyncio.Event()
    got: list[str | bytes] = []
    timers = dataclasses.replace(FAST, ping=30.0)
    async with (
        scripted(script, max_size=None) as relay,
        connected(relay.url, timers=timers) as (phone, _),
    ):
        small = envelope("chat.stream", id="small")
        phone.post(small, id="small")
        async with asyncio.timeout(SOON):
            await phone.drain()
        sent = deltas(32, size=HIGH_WATER_BYTES)
        for id, data in sent:
            phone.post(data, id=id)
        draining = asyncio.create_task(phone.drain())
        assert await asyncio.wait([draining], timeout=0.2) == (set(), {draining})
        go_on.set()
        async with asyncio.timeout(SOON):
            await draining
        queued = sum(len(data) for id, data in sent if id in phone._live.unsent())  # type: ignore[union-attr]
        assert queued <= LOW_WATER_BYTES
        await eventually(lambda: len(got) == 33)


async def test_the_reader_does_not_wait_for_the_writer() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()
        await posted.wait()
        await say(connection, "chat.done", {"full_text": ""}, id="through")
        await connection.wait_closed()

    posted = asyncio.Event()
    timers = dataclasses.replace(FAST, ping=30.0)
    async with scripted(script) as relay, connected(relay.url, timers=timers) as (phone, events):
        for id, data in deltas(32, size=MIB):
            phone.post(data, id=id)
        posted.set()
        assert (await events.expect(Received)).envelope.id == "through"
