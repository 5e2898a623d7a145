"""The limit on a message's size: to the byte, over fragments, and how the sender hears of it."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.client import Client, connect, log_in, pair
from tests.support.process import RelayProcess
from tests.support.raw import CONTINUATION, TEXT, RawClient, frame, header, raw_connect

MIB = 1024 * 1024
LIMIT = 5_242_880


def message(size: int, id: str = "big") -> str:
    """A message of exactly so many bytes."""
    empty = f'{{"type":"chat.send","id":"{id}","payload":{{"text":""}}}}'
    return empty.replace('""', '"' + "x" * (size - len(empty)) + '"')


def in_fragments(raw: str, size: int = 400_000) -> list[str]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


async def log_in_raw(client: RawClient, token: str) -> None:
    await client.send(json.dumps({"type": "auth", "payload": {"token": token, "role": "phone"}}))
    assert json.loads(await client.read_text())["type"] == "auth.ok"


async def assert_refused(sender: Client, receiver: Client, ref: str | None) -> None:
    await sender.expect_error("MESSAGE_TOO_LARGE", ref=ref)
    assert await sender.closed() == 1009
    assert (await receiver.expect("status"))["payload"] == {"peer": "offline"}
    assert await receiver.barrier() == []


@pytest.mark.parametrize("shape", ["whole", "fragments", "binary"])
async def test_exactly_5_mib_pass(relay: RelayProcess, shape: str) -> None:
    raw = message(LIMIT)
    assert len(raw) == LIMIT
    async with pair(relay.url, relay.token()) as (phone, agent):
        if shape == "whole":
            await phone.send_raw(raw)
        elif shape == "binary":
            await phone.send_raw(raw.encode())
        else:
            await phone.connection.send(in_fragments(raw))
        assert await agent.receive_raw() == raw


@pytest.mark.parametrize("role", ["phone", "agent"])
async def test_one_byte_more_is_refused_by_name_and_closed_with_1009(
    relay: RelayProcess, role: str
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        sender, receiver = (phone, agent) if role == "phone" else (agent, phone)
        await sender.send_raw(message(LIMIT + 1))
        await assert_refused(sender, receiver, ref="big")


async def test_the_limit_counts_over_all_fragments(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        await phone.connection.send(in_fragments(message(LIMIT + 1)))
        await assert_refused(phone, agent, ref="big")


async def test_many_messages_of_fragments_each_have_the_whole_limit(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        raw = message(3 * MIB)
        for _ in range(3):
            await phone.connection.send(in_fragments(raw))
            assert await agent.receive_raw() == raw


async def test_ref_is_left_out_where_the_id_stands_behind_the_payload(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        text = "x" * LIMIT
        await phone.send_raw(
            json.dumps({"type": "chat.send", "payload": {"t": text}, "id": "late"})
        )
        await assert_refused(phone, agent, ref=None)


async def test_a_client_that_still_writes_16_mib_sees_the_close_code(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as phone:
        await log_in_raw(phone, relay.token())
        start = message(200).encode()
        await phone.send_bytes(header(TEXT, 16 * MIB) + start)
        # All of it is written before anything is read, as simple clients do.
        async with asyncio.timeout(10):
            await phone.send_bytes(b"x" * (16 * MIB - len(start)))
        error = json.loads(await phone.read_text())["payload"]
        assert (error["code"], error["ref"]) == ("MESSAGE_TOO_LARGE", "big")
        assert await phone.close_code() == 1009


async def test_a_frame_of_1_gib_is_refused_at_its_header_and_not_buffered(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "agent") as agent, raw_connect(relay.url) as phone:
        await log_in_raw(phone, token)
        await agent.expect("status")
        before = relay.memory_bytes
        await phone.send_bytes(header(TEXT, 1024 * MIB) + message(200, "huge").encode())
        error = json.loads(await phone.read_text())["payload"]
        assert (error["code"], error["ref"]) == ("MESSAGE_TOO_LARGE", "huge")
        assert await phone.close_code() == 1009
        assert relay.memory_bytes - before < 8 * MIB
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}


async def test_a_huge_header_of_which_nothing_follows_is_refused_too(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as phone:
        await log_in_raw(phone, relay.token())
        await phone.send_bytes(header(TEXT, 1024 * MIB))
        assert json.loads(await phone.read_text())["payload"]["code"] == "MESSAGE_TOO_LARGE"
        assert await phone.close_code() == 1009


async def test_a_fragment_that_would_go_over_is_refused_at_its_header(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as phone:
        await log_in_raw(phone, relay.token())
        start = message(4 * MIB, "parts").encode()[: 3 * MIB]
        await phone.send_bytes(frame(TEXT, start, fin=False) + header(CONTINUATION, 3 * MIB))
        error = json.loads(await phone.read_text())["payload"]
        assert (error["code"], error["ref"]) == ("MESSAGE_TOO_LARGE", "parts")
        assert await phone.close_code() == 1009


async def test_who_writes_on_and_on_is_cut_off(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as phone:
        await log_in_raw(phone, relay.token())
        await phone.send_bytes(header(TEXT, 1024 * MIB))
        with pytest.raises(ConnectionError):
            await write_for_ever(phone)


async def write_for_ever(client: RawClient) -> None:
    block = b"x" * MIB
    async with asyncio.timeout(20):
        while True:
            await client.send_bytes(block)


async def test_the_first_message_has_a_limit_of_64_kib(relay: RelayProcess) -> None:
    auth = {"type": "auth", "id": "first", "payload": {"token": relay.token(), "role": "phone"}}
    async with connect(relay.url) as client:
        raw = json.dumps(auth)
        await client.send_raw(raw + " " * (64 * 1024 - len(raw)))
        await client.expect("auth.ok")
    async with connect(relay.url) as client:
        await client.send_raw(raw + " " * (64 * 1024 + 1 - len(raw)))
        await client.expect_error("MESSAGE_TOO_LARGE", ref="first")
        assert await client.closed() == 1009


async def test_a_token_can_have_a_lower_limit(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token(max_message_bytes=1000)) as (phone, agent):
        assert phone.greeting["limits"]["max_message_bytes"] == 1000
        await phone.send_raw(message(1000))
        assert await agent.receive_raw() == message(1000)
        await phone.send_raw(message(1001))
        await assert_refused(phone, agent, ref="big")


async def test_a_lower_limit_holds_for_what_is_pipelined_behind_auth(relay: RelayProcess) -> None:
    token = relay.token(max_message_bytes=1000)
    async with log_in(relay.url, token, "agent") as agent, raw_connect(relay.url) as phone:
        await phone.send(
            json.dumps({"type": "auth", "payload": {"token": token, "role": "phone"}}),
            message(1000),
            message(1001),
        )
        await agent.expect("status")
        assert await agent.receive_raw() == message(1000)
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
        assert json.loads(await phone.read_text())["type"] == "auth.ok"
        assert json.loads(await phone.read_text())["payload"]["code"] == "MESSAGE_TOO_LARGE"
        assert await phone.close_code() == 1009
