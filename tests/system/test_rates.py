"""Rate classes: what passes, what is slowed, what is refused, and that errors tell the truth."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.support.client import Client, log_in, pair
from tests.support.process import RelayProcess

STALLS = 'coralmux_buffer_stalls_total{cause="allowance"}'
KIB = 1024


async def flood(client: Client, type: str, count: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Send so many at once; the ids sent and the errors that came back."""
    ids = [await client.send(type) for _ in range(count)]
    answers = await client.barrier()
    return ids, [answer["payload"] for answer in answers if answer["type"] == "chat.error"]


def check_refusals(ids: list[str], errors: list[dict[str, Any]], burst: int) -> None:
    """The burst passed, and what came after it was refused, each by name."""
    refused = [error["ref"] for error in errors]
    assert {error["code"] for error in errors} == {"RATE_LIMITED"}
    assert len(set(refused)) == len(refused)
    assert set(refused) <= set(ids[burst:])
    # Whatever passed beyond the burst was refilled meanwhile; the first refusal is next to it.
    assert refused[0] in ids[burst : burst + 3]
    assert all(error["retry_after_ms"] > 0 for error in errors)


async def stream(agent: Client, count: int, size: int = 1) -> list[str]:
    return [await agent.send("chat.stream", {"delta": "x" * size, "seq": n}) for n in range(count)]


# 1. Replies arrive whole


async def test_a_reply_of_500_deltas_arrives_without_gaps_and_with_its_done(
    relay: RelayProcess,
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        sending = asyncio.create_task(stream(agent, 500))
        for n in range(500):
            assert (await phone.expect("chat.stream"))["payload"]["seq"] == n
        await sending
        await agent.send("chat.done", {"full_text": "x" * 500})
        await phone.expect("chat.done")
        assert await agent.barrier() == []


async def test_five_thousand_stream_frames_pass_at_once(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        before = relay.metric(STALLS)
        sending = asyncio.create_task(stream(agent, 5000))
        for n in range(5000):
            assert (await phone.expect("chat.stream"))["payload"]["seq"] == n
        await sending
        assert relay.metric(STALLS) == before


@pytest.mark.slow
async def test_beyond_the_burst_a_stream_is_slowed_to_1000_a_second_and_loses_nothing(
    relay: RelayProcess,
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        started = time.monotonic()
        sending = asyncio.create_task(stream(agent, 7500))
        for n in range(7500):
            assert (await phone.expect("chat.stream"))["payload"]["seq"] == n
        assert time.monotonic() - started >= 2.5
        await sending
        assert await agent.barrier() == []


@pytest.mark.parametrize("name", ["chat.tool_status", "chat.error", "file.chunk", "file.ack"])
async def test_what_belongs_to_a_stream_does_not_count_as_a_message(
    relay: RelayProcess, name: str
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        senders = [(agent, phone)]
        if name.startswith("file."):
            senders.append((phone, agent))
        for sender, receiver in senders:
            ids, errors = await flood(sender, name, 150)
            assert errors == []
            assert [(await receiver.expect(name))["id"] for _ in ids] == ids


# Messages


@pytest.mark.parametrize(
    ("role", "burst", "names"),
    [
        ("phone", 30, ["chat.send", "agent.list", "chat.error", "file.begin", "group.new"]),
        ("agent", 120, ["agent.list.result", "file.end", "memory.new"]),
    ],
)
async def test_a_minutes_worth_of_messages_passes_at_once_and_the_next_is_refused_at_once(
    relay: RelayProcess, role: str, burst: int, names: list[str]
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        sender, receiver = (phone, agent) if role == "phone" else (agent, phone)
        started = time.monotonic()
        ids = [await sender.send(names[n % len(names)]) for n in range(burst + 10)]
        errors = [answer["payload"] for answer in await sender.barrier()]
        refilled = (time.monotonic() - started) * burst / 60
        assert 10 - 1 - refilled <= len(errors) <= 10
        check_refusals(ids, errors, burst)
        refused = {error["ref"] for error in errors}
        passed = [id for id in ids if id not in refused]
        assert [(await receiver.receive())["id"] for _ in passed] == passed
        assert await receiver.barrier() == []


@pytest.mark.parametrize(
    ("role", "name"),
    [("phone", "chat.send"), ("agent", "agent.list.result"), ("phone", "key_exchange")],
)
@pytest.mark.slow
async def test_retry_after_ms_is_true(relay: RelayProcess, role: str, name: str) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        sender, receiver = (phone, agent) if role == "phone" else (agent, phone)
        _, errors = await flood(sender, name, 125)
        last = errors[-1]
        before = [m["id"] for m in await receiver.barrier()]
        assert last["ref"] not in before
        await asyncio.sleep(last["retry_after_ms"] / 1000)
        await sender.send(name, id=last["ref"])
        assert await sender.barrier() == []
        assert (await receiver.expect(name))["id"] == last["ref"]


async def test_key_exchanges_have_30_a_minute_of_their_own(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token(phone_messages_per_minute=6), max_queue=None) as (
        phone,
        agent,
    ):
        ids, errors = await flood(phone, "key_exchange", 35)
        check_refusals(ids, errors, 30)
        ids, errors = await flood(phone, "chat.send", 6)
        assert errors == []
        await agent.barrier()
        # And the other way round: no message left, but the agent's key exchanges pass.
        assert (await flood(phone, "chat.send", 1))[1][0]["code"] == "RATE_LIMITED"
        assert (await flood(agent, "key_exchange", 30))[1] == []


async def test_the_allowance_of_one_role_is_not_the_others(relay: RelayProcess) -> None:
    token = relay.token(phone_messages_per_minute=6)
    async with pair(relay.url, token, max_queue=None) as (phone, agent):
        assert len((await flood(phone, "chat.send", 7))[1]) == 1
        assert (await flood(agent, "agent.list.result", 120))[1] == []


# Pings and broken frames


@pytest.mark.slow
async def test_beyond_60_a_minute_pings_are_slowed_and_all_answered(relay: RelayProcess) -> None:
    async with log_in(relay.url, relay.token(), "phone") as phone:
        started = time.monotonic()
        ids = [await phone.send("ping") for _ in range(62)]
        assert [(await phone.expect("pong"))["id"] for _ in ids] == ids
        assert time.monotonic() - started >= 1.95


@pytest.mark.slow
async def test_beyond_30_a_minute_invalid_messages_are_slowed_and_all_answered(
    relay: RelayProcess,
) -> None:
    async with log_in(relay.url, relay.token(), "phone") as phone:
        started = time.monotonic()
        for _ in range(31):
            await phone.send_raw("{broken")
        for _ in range(31):
            await phone.expect_error("INVALID_MESSAGE")
        assert time.monotonic() - started >= 1.95


async def test_invalid_messages_do_not_cost_the_right_ones_their_allowance(
    relay: RelayProcess,
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        for _ in range(30):
            await phone.send_raw("[]")
            await phone.expect_error("INVALID_MESSAGE")
        assert (await flood(phone, "chat.send", 30))[1] == []
        assert len(await agent.barrier()) == 30


# The slowed sender


async def test_a_slowed_sender_still_gets_its_websocket_pongs(relay: RelayProcess) -> None:
    token = relay.token(stream_frames_per_second=1)
    async with pair(relay.url, token) as (phone, agent):
        # Five pass at once; the rest takes 25 s, which the pong does not wait for.
        await stream(agent, 30)
        async with asyncio.timeout(5):
            await (await agent.connection.ping())
        assert len(await phone.barrier()) < 30


@pytest.mark.slow
async def test_up_to_1_mib_is_read_ahead_and_nothing_of_it_is_refused(relay: RelayProcess) -> None:
    token = relay.token(stream_frames_per_second=1)
    async with pair(relay.url, token) as (phone, agent):
        # Far longer than the hold of 0.8 s, but the relay has read it all.
        ids = await stream(agent, 8, 300 * KIB)
        assert [(await phone.expect("chat.stream"))["id"] for _ in ids] == ids
        assert await agent.barrier() == []


@pytest.mark.slow
async def test_beyond_1_mib_reading_pauses_and_then_each_message_passes_or_is_refused_by_name(
    relay: RelayProcess,
) -> None:
    token = relay.token(stream_frames_per_second=1)
    async with pair(relay.url, token, max_queue=None) as (phone, agent):
        started = time.monotonic()
        ids = await stream(agent, 25, 300 * KIB)
        first = await agent.expect_error("RATE_LIMITED", ref=ids[5 + 0])
        assert time.monotonic() - started >= 0.8
        errors = [first, *(answer["payload"] for answer in await agent.barrier(within=60))]
        delivered = [message["id"] for message in await phone.barrier()]
        refused = [error["ref"] for error in errors]
        assert {error["code"] for error in errors} == {"RATE_LIMITED"}
        assert sorted(delivered + refused) == sorted(ids)
        assert delivered == [id for id in ids if id not in refused]
        assert delivered[:5] == ids[:5]
        last = errors[-1]
        await asyncio.sleep(last["retry_after_ms"] / 1000)
        await agent.send("chat.stream", {"delta": "", "seq": 0}, id=last["ref"])
        assert (await phone.expect("chat.stream"))["id"] == last["ref"]
        assert await agent.barrier() == []


# 3. Connecting again fills no bucket


@pytest.mark.parametrize("how", ["reconnect", "replace"])
async def test_connecting_again_does_not_reset_the_rate_limit(
    relay: RelayProcess, how: str
) -> None:
    token = relay.token(phone_messages_per_minute=6)
    async with pair(relay.url, token) as (phone, agent):
        assert (await flood(phone, "chat.send", 6))[1] == []
        if how == "reconnect":
            await phone.close()
            assert (await agent.barrier())[-1]["payload"] == {"peer": "offline"}
        async with log_in(relay.url, token, "phone") as again:
            ids, errors = await flood(again, "chat.send", 1)
            assert [error["ref"] for error in errors] == ids
            assert errors[0]["code"] == "RATE_LIMITED"


@pytest.mark.parametrize(
    ("frame", "burst", "seconds"),
    [('{"type":"ping"}', 60, 1.0), ("{broken", 30, 2.0)],
)
@pytest.mark.slow
async def test_connecting_again_does_not_reset_what_slows(
    relay: RelayProcess, frame: str, burst: int, seconds: float
) -> None:
    token = relay.token()
    started = time.monotonic()
    async with log_in(relay.url, token, "phone") as phone:
        for _ in range(burst):
            await phone.send_raw(frame)
        for _ in range(burst):
            await phone.receive()
    async with log_in(relay.url, token, "phone") as phone:
        await phone.send_raw(frame)
        await phone.receive()
    assert time.monotonic() - started >= seconds - 0.05


async def test_another_tokens_allowance_is_its_own(relay: RelayProcess) -> None:
    async with (
        pair(relay.url, relay.token(phone_messages_per_minute=6)) as (busy, _),
        pair(relay.url, relay.token(phone_messages_per_minute=6)) as (calm, other),
    ):
        assert len((await flood(busy, "chat.send", 10))[1]) == 4
        assert (await flood(calm, "chat.send", 6))[1] == []
        assert len(await other.barrier()) == 6
