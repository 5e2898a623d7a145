"""The main job through a started relay: meet, talk, arrive whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random

import pytest

from tests.support.client import Client, log_in, pair
from tests.support.process import RelayProcess, relay_process

MIB = 1024 * 1024


async def test_phone_and_agent_meet_and_talk(relay: RelayProcess) -> None:
    token = relay.token()
    assert relay.http("GET", f"/api/v1/pair/{token}") == (200, {"phone": False, "agent": False})
    async with log_in(relay.url, token, "phone") as phone:
        assert phone.greeting["paired"] is False
        async with log_in(relay.url, token, "agent") as agent:
            assert agent.greeting["paired"] is True
            assert (await phone.expect("status"))["payload"] == {"peer": "online"}
            assert relay.http("GET", f"/api/v1/pair/{token}") == (
                200,
                {"phone": True, "agent": True},
            )
            question = '{"type" : "chat.send","id":"q","extra":[1],"payload":{"text":"Grüße 👋"}}'
            await phone.send_raw(question)
            assert await agent.receive_raw() == question
            await agent.send("chat.done", {"full_text": "hi"})
            assert (await phone.expect("chat.done"))["payload"] == {"full_text": "hi"}
        assert (await phone.expect("status"))["payload"] == {"peer": "offline"}


async def test_auth_ok_tells_quotas_and_limits(relay: RelayProcess) -> None:
    async with log_in(relay.url, relay.token(), "agent") as agent:
        greeting = agent.greeting
        assert greeting["daily_quota_bytes"] == 500 * MIB
        assert greeting["monthly_quota_bytes"] == 10 * 1024 * MIB
        assert greeting["daily_used_bytes"] == greeting["monthly_used_bytes"] == 0
        assert greeting["limits"] == {
            "max_message_bytes": 5 * MIB,
            "messages_per_minute": 120,
            "stream_frames_per_second": 1000,
        }
        assert greeting["server"]["protocol"] == 2


async def test_frames_pipelined_behind_auth_are_handled_in_order(relay: RelayProcess) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "phone") as phone:
        import websockets

        async with websockets.connect(relay.url, compression=None) as raw:
            agent = Client(raw)
            await agent.send("auth", {"token": token, "role": "agent"})
            for n in range(200):
                await agent.send("chat.stream", {"delta": "x", "seq": n})
            await agent.send("chat.done", {"full_text": "x" * (MIB * 2)})
            assert (await phone.expect("status"))["payload"] == {"peer": "online"}
            for n in range(200):
                assert (await phone.expect("chat.stream"))["payload"]["seq"] == n
            await phone.expect("chat.done")
            await agent.expect("auth.ok")


async def test_a_binary_frame_of_json_is_forwarded_as_text(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        await phone.send_raw(b'{"type":"agent.list","id":"b"}')
        assert await agent.receive_raw() == '{"type":"agent.list","id":"b"}'


async def test_unknown_types_in_known_namespaces_pass_both_ways(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        await phone.send("chat.cancel", {"ref": "x"})
        assert (await agent.receive())["type"] == "chat.cancel"
        await agent.send("memory.future", {})
        assert (await phone.receive())["type"] == "memory.future"
        id = await agent.send("weather.now", {})
        await agent.expect_error("INVALID_MESSAGE", ref=id)


async def test_a_reply_of_2000_deltas_arrives_whole_under_default_limits(
    relay: RelayProcess,
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):

        async def stream() -> None:
            for n in range(1, 2001):
                await agent.send("chat.stream", {"delta": f"token {n} ", "seq": n})
            await agent.send("chat.done", {"full_text": "…"})

        sending = asyncio.create_task(stream())
        for n in range(1, 2001):
            assert (await phone.expect("chat.stream"))["payload"]["seq"] == n
        await phone.expect("chat.done")
        await sending


@pytest.mark.slow
async def test_ten_pairs_exchange_ten_thousand_messages_of_mixed_sizes() -> None:
    """About 1 GB in all: each once, in order, byte for byte."""
    lifted = {
        "CORALMUX_PHONE_MESSAGES_PER_MINUTE": "0",
        "CORALMUX_AGENT_MESSAGES_PER_MINUTE": "0",
    }
    with relay_process(env=lifted, fast=False) as relay:
        totals = await asyncio.gather(*(_exchange(relay, seed) for seed in range(10)))
        assert sum(count for count, _ in totals) == 10_000
        assert sum(size for _, size in totals) > 900 * MIB


async def _exchange(relay: RelayProcess, seed: int) -> tuple[int, int]:
    chance = random.Random(seed)
    sizes = [_size(chance) for _ in range(1000)]
    async with pair(relay.url, relay.token()) as (phone, agent):
        halves = (phone, agent, sizes[:500]), (agent, phone, sizes[500:])
        await asyncio.gather(*(_send_and_check(*half, chance) for half in halves))
    return len(sizes), sum(sizes)


def _size(chance: random.Random) -> int:
    """Payload text from 1 byte to what fills the 5 MiB, small ones far more often."""
    return chance.choices(
        [1, chance.randint(2, 2000), chance.randint(2000, 200_000), 5 * MIB - 100],
        [100, 650, 235, 15],
    )[0]


async def _send_and_check(
    sender: Client, receiver: Client, sizes: list[int], chance: random.Random
) -> None:
    sent: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    async def send() -> None:
        for n, size in enumerate(sizes):
            text = chance.choice("abcß") * size
            while len(text.encode()) > 5 * MIB - 100:
                text = text[: len(text) // 2]
            frame = json.dumps(
                {"type": "file.data", "id": str(n), "payload": {"t": text}}, ensure_ascii=False
            )
            sent.put_nowait((n, hashlib.sha256(frame.encode()).digest()))
            await sender.send_raw(frame)

    sending = asyncio.create_task(send())
    for expected in range(len(sizes)):
        frame = await receiver.receive_raw(within=60)
        n, digest = await sent.get()
        assert n == expected
        assert hashlib.sha256(str(frame).encode()).digest() == digest
    await sending
