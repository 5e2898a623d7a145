"""Each timer at its default, all at once: the others run at a tenth."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time

import pytest

from tests.support.client import connect, log_in, pair
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import CLOSE, PING, narrow_options, raw_connect
from tests.support.stuck import FRAME_BYTES, stream_ids_until_closed

# What a busy machine may add to any of them.
SLACK = 3.0


@pytest.mark.slow
async def test_each_timer_has_its_default() -> None:
    with relay_process(fast=False) as relay:
        await asyncio.gather(
            auth_is_due_in_10_seconds(relay),
            pings_come_every_30_seconds_and_silence_ends_after_60(relay),
            a_stuck_reader_is_closed_after_30_seconds(relay),
            a_sender_is_held_for_at_most_10_seconds(relay),
            who_answers_pings_stays(relay),
        )


async def auth_is_due_in_10_seconds(relay: RelayProcess) -> None:
    started = time.monotonic()
    async with connect(relay.url) as client:
        assert await client.closed(within=30) == 4004
    assert 9.9 <= time.monotonic() - started <= 10 + SLACK


async def pings_come_every_30_seconds_and_silence_ends_after_60(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as client:
        await client.send(
            json.dumps({"type": "auth", "payload": {"token": relay.token(), "role": "phone"}})
        )
        assert json.loads(await client.read_text())["type"] == "auth.ok"
        started = time.monotonic()
        opcode, _ = await client.read_frame(within=60)
        assert opcode is PING
        assert 29.5 <= time.monotonic() - started <= 30 + SLACK
        while (frame := await client.read_frame(within=60))[0] is PING:
            pass
        assert frame[0] is CLOSE
        assert int.from_bytes(frame[1][:2], "big") == 4008
        assert 59.5 <= time.monotonic() - started <= 60 + SLACK


async def a_stuck_reader_is_closed_after_30_seconds(relay: RelayProcess) -> None:
    token = relay.token()
    async with (
        log_in(relay.url, token, "phone", **narrow_options(relay.url)) as phone,
        log_in(relay.url, token, "agent", max_queue=None) as agent,
    ):
        started = time.monotonic()
        # More than is buffered for the reader, and less than is read ahead beyond it, so
        # that nothing is refused before the reader is given up.
        delta = {"delta": "x" * FRAME_BYTES}
        ids = [await agent.send("chat.stream", delta) for _ in range(36)]
        filled = time.monotonic()
        first = await agent.receive(within=60)
        assert started + 29.5 <= time.monotonic() <= filled + 30 + SLACK
        assert first["payload"]["code"] == "PEER_OFFLINE"
        written = await stream_ids_until_closed(phone)
        assert phone.connection.close_code == 4008
        assert written == ids[: len(written)]
        assert first["payload"]["ref"] == ids[len(written)]


async def a_sender_is_held_for_at_most_10_seconds(relay: RelayProcess) -> None:
    token = relay.token()
    async with (
        log_in(relay.url, token, "phone", **narrow_options(relay.url)),
        log_in(relay.url, token, "agent", max_queue=None) as agent,
    ):
        started = time.monotonic()
        # A mebibyte for the reader, one that is read ahead, and more.
        sending = asyncio.create_task(_pour(agent.connection.send, 4 * 1024 * 1024))
        first = await agent.receive(within=30)
        assert first["payload"]["code"] == "PEER_OFFLINE"
        assert 5 <= time.monotonic() - started <= 10
        await sending
        # The whole of what was sent is read by now, so that pings are answered again.
        async with asyncio.timeout(5):
            await (await agent.connection.ping())
            await agent.barrier()


async def _pour(send, size: int) -> None:  # type: ignore[no-untyped-def]
    raw = json.dumps({"type": "chat.stream", "id": "p", "payload": {"delta": "x" * FRAME_BYTES}})
    for _ in range(size // FRAME_BYTES):
        await send(raw)


async def who_answers_pings_stays(relay: RelayProcess) -> None:
    async with log_in(relay.url, relay.token(), "phone") as phone:
        with pytest.raises(TimeoutError):
            await phone.receive(within=65)
        assert await phone.barrier() == []


@pytest.mark.slow
async def test_requests_closing_and_writing_have_their_defaults() -> None:
    with relay_process(fast=False) as relay:
        await asyncio.gather(
            half_a_request_is_cut_after_20_seconds(relay),
            a_close_frame_is_to_be_answered_in_2_seconds(relay),
            usage_is_written_every_second(relay),
        )


async def half_a_request_is_cut_after_20_seconds(relay: RelayProcess) -> None:
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    try:
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(40):
                await reader.read()
        assert 19.5 <= time.monotonic() - started <= 20 + SLACK
    finally:
        writer.transport.abort()


async def a_close_frame_is_to_be_answered_in_2_seconds(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as client:
        await client.send('{"type":"ping"}')
        while (await client.read_frame())[0] is not CLOSE:
            pass
        told = time.monotonic()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.read_frame(within=20)
        assert 1.5 <= time.monotonic() - told <= 2 + SLACK


async def usage_is_written_every_second(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        await agent.send("chat.done")
        await phone.expect("chat.done")
        sent = time.monotonic()
        with contextlib.closing(sqlite3.connect(relay.state_dir / "coralmux.sqlite3")) as database:
            query = "SELECT COALESCE(SUM(messages_from_agent), 0) FROM pairing_dailyusage"
            while database.execute(query).fetchone() != (1,):
                assert time.monotonic() - sent <= 1 + SLACK
                await asyncio.sleep(0.05)
