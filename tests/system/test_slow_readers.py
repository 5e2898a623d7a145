"""Slow, stuck and silent clients: what is bounded, who waits, who hears what.

The fast relay's timers: hold 0.8 s, stall 3 s, ping 3 s, silence 6 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from coralmux.protocol.limits import HIGH_WATER_BYTES
from tests.support.client import Client, log_in, pair
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import CLOSE, PING, RawClient, narrow_options, raw_connect
from tests.support.stuck import FRAME_BYTES, send_until_held, stream_ids_until_closed

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def stuck_pair(relay: RelayProcess, token: str):  # type: ignore[no-untyped-def]
    """A phone that reads only when its test does, and an agent that always reads."""
    async with (
        log_in(relay.url, token, "phone", **narrow_options(relay.url)) as phone,
        log_in(relay.url, token, "agent", max_queue=None) as agent,
    ):
        yield phone, agent


async def raw_log_in(client: RawClient, token: str, role: str) -> None:
    await client.send(json.dumps({"type": "auth", "payload": {"token": token, "role": role}}))
    assert json.loads(await client.read_text())["type"] == "auth.ok"


# 6. Backpressure


async def test_a_reader_that_pauses_for_a_while_loses_nothing(relay: RelayProcess) -> None:
    async with stuck_pair(relay, relay.token()) as (phone, agent):
        ids = await send_until_held(relay, agent)
        await agent.send("chat.done", {"full_text": "whole"})
        assert (await phone.expect("status"))["payload"] == {"peer": "online"}
        assert [(await phone.expect("chat.stream"))["id"] for _ in ids] == ids
        await phone.expect("chat.done")
        assert await agent.barrier() == []


@pytest.mark.slow
async def test_the_sender_is_slowed_and_then_told_peer_offline_by_name(
    relay: RelayProcess,
) -> None:
    async with stuck_pair(relay, relay.token()) as (phone, agent):
        ids = await send_until_held(relay, agent)
        held_at = time.monotonic()
        # Far more than the relay reads ahead.
        for _ in range(60):
            ids.append(await agent.send("chat.stream", {"delta": "x" * FRAME_BYTES, "seq": 1}))
        first = await agent.expect("chat.error")
        assert first["payload"]["code"] == "PEER_OFFLINE"
        assert time.monotonic() - held_at >= 0.7
        # Control frames are answered meanwhile.
        async with asyncio.timeout(2):
            await (await agent.connection.ping())
        delivered, answers = await asyncio.gather(_read_all(phone, ids[-1]), agent.barrier())
        errors = [first["payload"], *(m["payload"] for m in answers)]
        assert {error["code"] for error in errors} == {"PEER_OFFLINE"}
        refused = [error["ref"] for error in errors]
        assert sorted(delivered + refused) == sorted(ids)
        assert delivered == [id for id in ids if id not in refused]


async def _read_all(client: Client, last: str) -> list[str]:
    """The ids of stream frames up to the last, or until nothing has come for a while."""
    ids: list[str] = []
    with contextlib.suppress(TimeoutError):
        while not ids or ids[-1] != last:
            message = await client.receive(within=3)
            if message["type"] == "chat.stream":
                ids.append(message["id"])
    return ids


@pytest.mark.slow
async def test_a_reader_that_takes_nothing_is_closed_with_4008() -> None:
    with relay_process(env={"CORALMUX_CLOSE_TIMEOUT_SECONDS": "8"}) as relay:
        async with stuck_pair(relay, relay.token()) as (phone, agent):
            ids = await send_until_held(relay, agent)
            started = time.monotonic()
            # The agent hears of each that was not written, and then that its peer is gone.
            refused = []
            while (message := await agent.receive())["type"] == "chat.error":
                assert message["payload"]["code"] == "PEER_OFFLINE"
                refused.append(message["payload"]["ref"])
            assert message["payload"] == {"peer": "offline"}
            assert time.monotonic() - started >= 2.5
            refused += [m["payload"]["ref"] for m in await agent.barrier()]
            written = await stream_ids_until_closed(phone)
            assert phone.connection.close_code == 4008
            assert written + refused == ids


@pytest.mark.slow
async def test_a_reader_that_takes_a_little_now_and_then_is_not_stuck(
    relay: RelayProcess,
) -> None:
    async with stuck_pair(relay, relay.token()) as (phone, agent):
        ids = await send_until_held(relay, agent)
        await phone.expect("status")
        # Twice as long as the 3 s of standing still that are allowed.
        for id in ids[:14]:
            assert (await phone.expect("chat.stream"))["id"] == id
            await asyncio.sleep(0.5)
        for id in ids[14:]:
            assert (await phone.expect("chat.stream"))["id"] == id
        assert await agent.barrier() == []


@pytest.mark.slow
async def test_memory_stays_below_the_high_water_mark_and_one_message_for_each_connection() -> None:
    pairs, size = 4, 2 * MIB
    with relay_process(env={"CORALMUX_STALL_TIMEOUT_SECONDS": "60"}) as relay:
        async with contextlib.AsyncExitStack() as stack:
            agents = []
            for _ in range(pairs):
                _, agent = await stack.enter_async_context(stuck_pair(relay, relay.token()))
                agents.append(agent)
            before = relay.memory_bytes
            text = "x" * size

            async def pour(agent: Client) -> None:
                for _ in range(25):
                    await agent.send("chat.stream", {"delta": text, "seq": 1})

            most = before
            pouring = asyncio.gather(*map(pour, agents))
            while not pouring.done():
                most = max(most, relay.memory_bytes)
                await asyncio.sleep(0.01)
            await pouring
            # For each pair: the reader's output, the sender's input, and the message that is
            # being read; 200 MB were sent. The allocator keeps some for itself.
            bound = pairs * (2 * (HIGH_WATER_BYTES + size) + size)
            assert most - before < bound + 16 * MIB


async def test_a_stuck_pair_does_not_slow_another(relay: RelayProcess) -> None:
    async with (
        stuck_pair(relay, relay.token()) as (_, agent),
        pair(relay.url, relay.token(phone_messages_per_minute=0)) as (alice, bob),
    ):
        await send_until_held(relay, agent)
        started = time.monotonic()
        for _ in range(200):
            id = await alice.send("chat.send", {"text": "?"})
            assert (await bob.expect("chat.send"))["id"] == id
        assert time.monotonic() - started < 3


@pytest.mark.slow
async def test_who_does_not_read_its_own_answers_is_not_read_from(relay: RelayProcess) -> None:
    before = relay.memory_bytes
    async with raw_connect(relay.url, narrow=True) as phone:
        await raw_log_in(phone, relay.token(), "phone")
        # Each is answered PEER_OFFLINE with its id, and nobody reads that.
        ask = json.dumps({"type": "file.chunk", "id": "i" * 128})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4):
                for _ in range(100):
                    await phone.send(*[ask] * 1000)
        assert relay.memory_bytes - before < 16 * MIB


# What delivered means


async def test_without_a_peer_each_message_is_answered_peer_offline_by_name(
    relay: RelayProcess,
) -> None:
    async with log_in(relay.url, relay.token(), "agent") as agent:
        ids = [await agent.send("chat.stream", {"delta": "x", "seq": n}) for n in range(10)]
        errors = [m["payload"] for m in await agent.barrier()]
        assert {error["code"] for error in errors} == {"PEER_OFFLINE"}
        assert [error["ref"] for error in errors] == ids


async def test_what_was_not_written_when_the_peer_vanished_is_answered_peer_offline(
    relay: RelayProcess,
) -> None:
    async with stuck_pair(relay, relay.token()) as (phone, agent):
        ids = await send_until_held(relay, agent)
        phone.connection.transport.abort()
        answers = []
        while not answers or answers[-1]["type"] != "status":
            answers.append(await agent.receive())
        assert answers.pop()["payload"] == {"peer": "offline"}
        answers += await agent.barrier()
        assert {m["payload"]["code"] for m in answers} == {"PEER_OFFLINE"}
        refused = [m["payload"]["ref"] for m in answers]
        # The last ones in their order: what came before them was written.
        assert refused == ids[-len(refused) :]
        assert len(refused) >= MIB // FRAME_BYTES


# Alive


@pytest.mark.slow
async def test_a_client_that_is_silent_is_pinged_and_then_closed_with_4008(
    relay: RelayProcess,
) -> None:
    async with raw_connect(relay.url) as client:
        started = time.monotonic()
        await raw_log_in(client, relay.token(), "phone")
        opcode, _ = await client.read_frame()
        assert opcode is PING
        assert 2.5 <= time.monotonic() - started <= 5
        while (frame := await client.read_frame())[0] is PING:
            pass
        assert frame[0] is CLOSE
        assert int.from_bytes(frame[1][:2], "big") == 4008
        assert 5.5 <= time.monotonic() - started <= 8


@pytest.mark.slow
async def test_any_byte_is_a_sign_of_life(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as client:
        await raw_log_in(client, relay.token(), "phone")
        reading = asyncio.create_task(client.close_code(within=30))
        # The header of a frame and then its payload, a byte at a time: never a whole frame.
        for byte in b"\x81\xfe\x10\x00\0\0\0\0" + b"x" * 12:
            await client.send_bytes(bytes((byte,)))
            await asyncio.sleep(0.45)
        assert not reading.done()
        reading.cancel()


@pytest.mark.slow
async def test_answering_pings_is_enough_to_stay(relay: RelayProcess) -> None:
    async with log_in(relay.url, relay.token(), "phone") as phone:
        with pytest.raises(TimeoutError):
            await phone.receive(within=8)
        assert await phone.barrier() == []


@pytest.mark.slow
async def test_the_clock_of_silence_stands_while_the_relay_holds_the_sender_back() -> None:
    timers = {
        "CORALMUX_HOLD_SECONDS": "6",
        "CORALMUX_STALL_TIMEOUT_SECONDS": "60",
        "CORALMUX_PING_INTERVAL_SECONDS": "1",
        "CORALMUX_SILENCE_TIMEOUT_SECONDS": "2",
    }
    with relay_process(env=timers) as relay:
        token = relay.token()
        async with (
            log_in(relay.url, token, "phone", **narrow_options(relay.url)),
            raw_connect(relay.url) as agent,
        ):
            await raw_log_in(agent, token, "agent")
            # More than anybody buffers; then not a byte more, no answer to pings either.
            big = json.dumps({"type": "chat.stream", "id": "i", "payload": {"x": "x" * MIB}})
            sending = asyncio.create_task(agent.send(*[big] * 12))
            started = time.monotonic()
            error = json.loads(await agent.read_text(within=20))["payload"]
            assert (error["code"], error["ref"]) == ("PEER_OFFLINE", "i")
            assert time.monotonic() - started >= 5
            await sending
