"""The end of a connection, asked for at every stage: nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from coralmux.client.connection import (
    Connected,
    Connecting,
    Connection,
    ConnectionEvent,
    Disconnected,
)
from tests.client.connection.dialling import (
    FAST,
    MIB,
    Events,
    Longest,
    connected,
    connection_to,
    deltas,
    greet_and_wait,
    watching,
)
from tests.client.servers import ScriptedRelay, certificate, listening, scripted
from tests.support.client import SOON
from tests.support.process import free_port
from tests.support.waiting import eventually


async def blackhole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def never_answer_auth(relay: ScriptedRelay, connection: ServerConnection) -> None:
    await connection.wait_closed()


async def greet_and_never_read(relay: ScriptedRelay, connection: ServerConnection) -> None:
    await relay.greet(connection)
    connection.transport.pause_reading()
    await connection.wait_closed()


@contextlib.asynccontextmanager
async def stage(name: str) -> AsyncIterator[tuple[str, type[ConnectionEvent]]]:
    """A relay that brings a client to a stage and keeps it there; its URL, and the last
    event before that."""
    async with contextlib.AsyncExitStack() as stack:
        if name == "dialling":
            port = await stack.enter_async_context(listening(blackhole))
            yield f"ws://127.0.0.1:{port}/ws", Connecting
        elif name == "pausing":
            yield f"ws://127.0.0.1:{free_port()}/ws", Disconnected
        else:
            script, event = {
                "logging in": (never_answer_auth, Connecting),
                "reading": (greet_and_wait, Connected),
                "writing": (greet_and_never_read, Connected),
            }[name]
            relay = await stack.enter_async_context(scripted(script))
            yield relay.url, event


STAGES = ["dialling", "logging in", "reading", "writing", "pausing"]
# Nothing runs out by itself while these tests look.
PATIENT = dataclasses.replace(
    FAST, open=60.0, auth=60.0, ping=60.0, first_pause=60.0, longest_pause=60.0
)


async def reach(
    name: str, url: str, last: type[ConnectionEvent]
) -> tuple[Connection, asyncio.Task[None]]:
    """A connection that is at this stage, and the task that iterates its events."""
    connection = connection_to(url, timers=PATIENT, random=Longest())
    reached = asyncio.Event()

    async def iterate() -> None:
        async for event in connection.events():
            if isinstance(event, last):
                reached.set()
                if name == "writing":
                    for id, data in deltas(32, size=MIB):
                        connection.post(data, id=id)

    task = asyncio.create_task(iterate())
    async with asyncio.timeout(SOON):
        await reached.wait()
    # Well into the stage, not at its door.
    await asyncio.wait([task], timeout=0.1)
    return connection, task


def library_tasks() -> set[str]:
    return {t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("coralmux")}


@pytest.mark.parametrize("name", STAGES)
async def test_cancelling_whoever_iterates_ends_everything(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with stage(name) as (url, last):
        connection, task = await reach(name, url, last)
        task.cancel()
        began = time.monotonic()
        await asyncio.wait([task], timeout=SOON)
        assert task.cancelled()
        assert time.monotonic() - began < 1
        assert not connection.connected
        assert library_tasks() == set()
    assert "Traceback" not in caplog.text
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("name", STAGES)
async def test_closing_from_another_task_ends_the_iteration(name: str) -> None:
    async with stage(name) as (url, last):
        connection, task = await reach(name, url, last)
        async with asyncio.timeout(2):
            await connection.close()
            await task
        assert not connection.connected
        assert library_tasks() == set()
        await connection.close()


@pytest.mark.parametrize("name", STAGES)
async def test_a_close_that_is_cancelled_still_ends_everything(name: str) -> None:
    async with stage(name) as (url, last):
        connection, task = await reach(name, url, last)
        closing = asyncio.create_task(connection.close())
        await asyncio.wait([closing], timeout=0.05)
        closing.cancel()
        await asyncio.wait([closing, task], timeout=SOON)
        assert task.done()
        assert not task.cancelled()
        assert task.exception() is None
        assert library_tasks() == set()


async def test_a_login_that_is_cancelled_or_given_up_leaves_no_socket() -> None:
    async with scripted(never_answer_auth) as relay:
        _, task = await reach("logging in", relay.url, Connecting)
        await eventually(lambda: len(relay.connections) == 1)
        task.cancel()
        async with asyncio.timeout(1):
            await relay.connections[0].wait_closed()
        await asyncio.wait([task])
        timers = dataclasses.replace(PATIENT, auth=0.1)
        async with watching(connection_to(relay.url, timers=timers, random=Longest())) as events:
            await events.until(Disconnected)
            async with asyncio.timeout(1):
                await relay.connections[1].wait_closed()


async def test_cancelling_somebody_who_works_on_an_event_ends_everything() -> None:
    async with scripted(greet_and_wait) as relay:
        connection = connection_to(relay.url)
        working = asyncio.Event()

        async def work() -> None:
            async with connection:
                async for event in connection.events():
                    if isinstance(event, Connected):
                        working.set()
                        await asyncio.Event().wait()

        task = asyncio.create_task(work())
        async with asyncio.timeout(SOON):
            await working.wait()
        task.cancel()
        await asyncio.wait([task], timeout=SOON)
        assert task.cancelled()
        assert library_tasks() == set()
        await eventually(lambda: relay.connections[0].close_code == 1000)


async def test_every_moment_of_a_connections_beginning_can_be_cancelled(
    tmp_path: Path,
) -> None:
    """TLS, the handshake, the login: cancelled after each number of turns of the loop."""
    file, context = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(file))
    asyncio.get_running_loop().set_debug(True)
    async with scripted(greet_and_wait, ssl_context=context, host="localhost") as relay:
        finished = False
        turns = 0
        while not finished:
            connection = connection_to(relay.url, ssl=trusting)
            there = asyncio.Event()

            async def iterate(connection: Connection, there: asyncio.Event) -> None:
                async for event in connection.events():
                    if isinstance(event, Connected):
                        there.set()

            task = asyncio.create_task(iterate(connection, there))
            for _ in range(turns):
                # Let the sockets move as well.
                await asyncio.sleep(0.0005)
            finished = there.is_set()
            task.cancel()
            await asyncio.wait([task], timeout=SOON)
            assert task.cancelled()
            assert library_tasks() == set()
            turns += 1


async def test_a_closed_connection_stays_closed() -> None:
    connection = connection_to("ws://127.0.0.1:1/ws")
    await connection.close()
    async with contextlib.aclosing(connection.events()) as events:
        await Events(events).ended()


async def test_only_one_may_iterate_at_a_time() -> None:
    async with scripted(greet_and_wait) as relay, connected(relay.url) as (connection, _):
        with pytest.raises(RuntimeError, match="already"):
            await anext(connection.events())
        assert connection.connected


async def test_leaving_the_iteration_hangs_up_and_another_one_dials_again() -> None:
    async with scripted(greet_and_wait) as relay:
        connection = connection_to(relay.url)
        for _ in range(2):
            async with contextlib.aclosing(connection.events()) as events:
                async for event in events:
                    if isinstance(event, Connected):
                        break
            assert not connection.connected
            assert library_tasks() == set()
        await eventually(lambda: [c.close_code for c in relay.connections] == [1000, 1000])
