"""The database is locked for everybody: what goes on, what waits, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import websockets

from tests.support.client import connect, log_in, pair
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import narrow_options
from tests.support.stuck import send_until_held
from tests.support.waiting import eventually

# Each test starts a relay of its own, or several.
pytestmark = pytest.mark.slow

# SQLite's lock bytes in the -shm file of a database in WAL mode, readers' and writers'.
_LOCKS_AT, _LOCKS = 120, 8


@contextlib.asynccontextmanager
async def locked(relay: RelayProcess) -> AsyncIterator[None]:
    """Keep every other process from reading and writing the relay's database."""
    with (relay.state_dir / "coralmux.sqlite3-shm").open("r+b") as file:

        def lock() -> bool:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKS, _LOCKS_AT)
            except OSError:
                return False
            return True

        await eventually(lock)
        yield


def usage(relay: RelayProcess) -> int:
    rows = json.loads(relay.manage("usage", "--json").stdout)
    return sum(row["bytes_from_phone"] + row["bytes_from_agent"] for row in rows)


async def test_running_pairs_go_on_logins_get_1013_and_what_was_counted_is_written_later() -> None:
    with relay_process() as relay:
        token = relay.token(phone_messages_per_minute=0)
        async with pair(relay.url, token) as (phone, agent):
            async with locked(relay):
                sent = 0
                late = asyncio.create_task(_log_in(relay, token))
                unknown = asyncio.create_task(_log_in(relay, "oc_pair_unknown"))
                # A message costs no query: thousands pass while there is no database.
                while not (late.done() and unknown.done()) or sent < 2000:
                    await phone.send_raw('{"type":"chat.send"}')
                    assert await agent.receive_raw(within=2) == '{"type":"chat.send"}'
                    sent += 1
                # Neither let in unchecked, nor told that the token is bad.
                assert await late == ([], 1013)
                assert await unknown == ([], 1013)
                assert relay.http("GET", "/health")[0] == 200
            await eventually(lambda: usage(relay) == sent * 20, within=30)
            async with log_in(relay.url, token, "agent"):
                assert (await phone.expect("status"))["payload"] == {"peer": "online"}


async def _log_in(relay: RelayProcess, token: str) -> tuple[list[dict[str, object]], int]:
    """What a login gets: messages and close code."""
    async with connect(relay.url) as client:
        await client.send("auth", {"token": token, "role": "agent"})
        heard: list[dict[str, object]] = []
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                heard.append(await client.receive(within=60))
        return heard, client.connection.close_code or 1006


@contextlib.contextmanager
def writing(relay: RelayProcess) -> Iterator[None]:
    """Hold SQLite's write lock, as a backup does; reading goes on."""
    database = sqlite3.connect(relay.state_dir / "coralmux.sqlite3", isolation_level=None)
    try:
        database.execute("PRAGMA busy_timeout = 10000")
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    finally:
        database.close()


async def test_sigterm_ends_within_10_seconds_although_nothing_can_be_written() -> None:
    with relay_process(fast=False) as relay:
        async with pair(relay.url, relay.token()) as (phone, agent):
            with writing(relay):
                await phone.send("chat.send")
                await agent.receive()
                # The worst moment: a flush has begun to wait for the lock.
                await asyncio.sleep(1.5)
                started = time.monotonic()
                status = await asyncio.to_thread(relay.terminate, timeout=60)
                assert status == 0
                assert time.monotonic() - started <= 10, relay.output
        assert "usage not written" in relay.output


async def test_sigterm_waits_for_a_stuck_reader_and_the_database_at_the_same_time() -> None:
    with relay_process(fast=False) as relay:
        token = relay.token()
        async with (
            log_in(relay.url, token, "phone", **narrow_options(relay.url)) as phone,
            log_in(relay.url, token, "agent", max_queue=None) as agent,
        ):
            await send_until_held(relay, agent)
            with writing(relay):
                await phone.send("chat.send")
                await agent.receive()
                await asyncio.sleep(1.5)
                started = time.monotonic()
                assert await asyncio.to_thread(relay.terminate, timeout=60) == 0
                took = time.monotonic() - started
        # The reader is waited for.
        assert 6 <= took <= 10, relay.output
        assert "usage not written" in relay.output


async def test_a_flush_that_fails_while_the_relay_ends_is_written_after_all() -> None:
    with relay_process(env={"CORALMUX_FLUSH_INTERVAL_SECONDS": "0.5"}) as relay:
        async with pair(relay.url, relay.token()) as (phone, agent):
            with writing(relay):
                await phone.send_raw('{"type":"chat.send"}')
                await agent.receive()
                await asyncio.sleep(1)
                terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
                # Five seconds the flush under way waits; then it has failed.
                await eventually(lambda: "usage not written" in relay.output)
            assert await terminated == 0
        assert usage(relay) == 20


async def test_http_says_503_while_the_database_is_away() -> None:
    with relay_process() as relay:
        token = relay.token()
        async with log_in(relay.url, token, "phone"), locked(relay):
            answers = await asyncio.gather(
                *(
                    asyncio.to_thread(relay.http, method, path, admin=True)
                    for method, path in (
                        ("POST", "/api/v1/pair"),
                        ("GET", f"/api/v1/pair/{token}"),
                        ("GET", "/ready"),
                    )
                )
            )
            for status, body in answers:
                assert status == 503
                assert body["error"]["code"] == "UNAVAILABLE"
        assert relay.http("GET", "/ready")[0] == 200
