"""The contract's order: who hears what, and when, from connecting to leaving."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from coralmux.protocol.types import FORWARDED, Role
from tests.support.client import connect, log_in, pair
from tests.support.process import RelayProcess
from tests.support.raw import raw_connect


def auth(token: str, role: str) -> str:
    return json.dumps({"type": "auth", "id": "a", "payload": {"token": token, "role": role}})


async def test_auth_ok_is_the_first_frame_back_even_while_the_peer_streams(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "agent", max_queue=None) as agent:

        async def stream() -> None:
            while True:
                await agent.send("chat.stream", {"delta": "x", "seq": 1})
                await asyncio.sleep(0.002)

        streaming = asyncio.create_task(stream())
        for _ in range(4):
            async with connect(relay.url) as phone:
                await phone.send_raw(auth(token, "phone"))
                assert (await phone.receive())["type"] == "auth.ok"
                await phone.expect("chat.stream")
        streaming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await streaming


async def test_the_newcomer_gets_no_status_and_reads_paired_instead(relay: RelayProcess) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "phone") as phone:
        assert phone.greeting["paired"] is False
        assert await phone.barrier() == []
        async with log_in(relay.url, token, "agent") as agent:
            assert agent.greeting["paired"] is True
            assert await agent.barrier() == []


async def test_status_online_comes_exactly_once_for_each_new_connection(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "phone") as phone:
        for _ in range(3):
            async with log_in(relay.url, token, "agent"):
                assert [m["payload"] for m in await phone.barrier()] == [{"peer": "online"}]
            assert (await phone.expect("status"))["payload"] == {"peer": "offline"}
            assert await phone.barrier() == []


@pytest.mark.parametrize("role", ["phone", "agent"])
async def test_a_replacement_is_one_online_with_no_offline_between(
    relay: RelayProcess, role: str
) -> None:
    token = relay.token()
    stays, comes_again = ("agent", "phone") if role == "phone" else ("phone", "agent")
    async with log_in(relay.url, token, stays) as witness, contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(log_in(relay.url, token, comes_again))
        assert [m["payload"] for m in await witness.barrier()] == [{"peer": "online"}]
        new = await stack.enter_async_context(log_in(relay.url, token, comes_again))
        assert new.greeting["paired"] is True
        assert await old.closed() == 4002
        assert [m["payload"] for m in await witness.barrier()] == [{"peer": "online"}]


async def test_status_online_comes_before_any_frame_of_that_connection(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "phone") as phone, contextlib.AsyncExitStack() as stack:
        for n in range(5):
            agent = await stack.enter_async_context(raw_connect(relay.url))
            marker = f'{{"type":"chat.stream","id":"first-{n}"}}'
            # In one segment, and each time in place of the one before.
            await agent.send(auth(token, "agent"), marker, marker)
            assert (await phone.expect("status"))["payload"] == {"peer": "online"}
            assert await phone.receive_raw() == marker
            assert await phone.receive_raw() == marker
        assert await phone.barrier() == []


async def test_frames_pipelined_behind_auth_are_answered_in_order(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as phone:
        await phone.send(
            auth(relay.token(), "phone"),
            '{"type":"ping","id":"1"}',
            '{"type":"nonsense","id":"2"}',
            '{"type":"chat.send","id":"3"}',
            '{"type":"ping","id":"4"}',
        )
        answers = [json.loads(await phone.read_text()) for _ in range(5)]
        assert [a["type"] for a in answers] == [
            "auth.ok",
            "pong",
            "chat.error",
            "chat.error",
            "pong",
        ]
        assert answers[1]["id"] == "1"
        assert answers[2]["payload"]["code"] == "INVALID_MESSAGE"
        assert answers[2]["payload"]["ref"] == "2"
        assert answers[3]["payload"]["code"] == "PEER_OFFLINE"
        assert answers[3]["payload"]["ref"] == "3"
        assert answers[4]["id"] == "4"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("role", ["phone", "agent"])
async def test_when_a_side_leaves_the_other_hears_offline(
    relay: RelayProcess, role: str, end: str
) -> None:
    token = relay.token()
    async with (
        log_in(relay.url, token, "agent" if role == "phone" else "phone") as witness,
        log_in(relay.url, token, role) as leaver,
    ):
        assert (await witness.expect("status"))["payload"] == {"peer": "online"}
        if end == "close":
            await leaver.close()
        else:
            leaver.connection.transport.abort()
        assert (await witness.expect("status"))["payload"] == {"peer": "offline"}
        id = await witness.send("agent.list" if role == "agent" else "agent.list.result")
        await witness.expect_error("PEER_OFFLINE", ref=id)


@pytest.mark.parametrize("role", list(Role))
async def test_every_type_of_the_table_is_forwarded(relay: RelayProcess, role: Role) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        sender, receiver = (phone, agent) if role is Role.PHONE else (agent, phone)
        for name in FORWARDED[role]:
            raw = f'{{"v":1,"type":"{name}","id":"i","ts":1,"payload":{{"a":1}}}}'
            await sender.send_raw(raw)
            assert await receiver.receive_raw() == raw


@pytest.mark.parametrize("name", ["chat.stream", "chat.done"])
async def test_a_phone_cannot_send_stream_messages(relay: RelayProcess, name: str) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        id = await phone.send(name, {"delta": "x", "seq": 1})
        error = await phone.expect_error("INVALID_MESSAGE", ref=id)
        assert error["message"] == "Phone cannot send stream messages"
        assert await agent.barrier() == []


async def test_no_other_direction_is_enforced(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        for name in ("chat.tool_status", "chat.history.result", "agent.result", "group.message"):
            await phone.send(name)
            await agent.expect(name)
        for name in ("chat.send", "agent.list", "memory.search", "system.status"):
            await agent.send(name)
            await phone.expect(name)


@pytest.mark.parametrize("name", ["auth", "auth.ok", "auth.fail", "status", "pong"])
async def test_what_is_between_client_and_relay_is_never_forwarded(
    relay: RelayProcess, name: str
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        for sender, receiver in ((phone, agent), (agent, phone)):
            id = await sender.send(name, {"token": "x", "role": "phone", "peer": "online"})
            await sender.expect_error("INVALID_MESSAGE", ref=id)
            assert await receiver.barrier() == []


async def test_a_ping_is_answered_and_not_forwarded(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        id = await phone.send("ping")
        assert (await phone.expect("pong"))["id"] == id
        assert await agent.barrier() == []


@pytest.mark.parametrize(
    "name", ["weather.now", "chat", "chats.send", "key_exchange2", "", "CHAT.SEND"]
)
async def test_an_unknown_namespace_is_refused_and_not_dropped(
    relay: RelayProcess, name: str
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        id = await phone.send(name)
        await phone.expect_error("INVALID_MESSAGE", ref=id)
        assert await agent.barrier() == []


@pytest.mark.parametrize(
    "raw",
    [
        '{"type":"chat.send"}',
        ' {\t"payload" : {"b":1,"a":[1.0,1e3,-0]} ,\n"type":"chat.send" }\r\n',
        '{"type":"chat.send","type":"chat.send","x":null,"payload":{"k":1,"k":2}}',
        '{"type":"chat.send","payload":{"text":"Grüße 👋 \\u00fc \\ud83d\\udc4b"}}',
        '{"type":"chat.send","payload":{"text":"half an emoji \\ud83d"}}',
        '{"type":"chat.send","payload":{"n":123456789012345678901234567890}}',
        '{"v":99,"type":"chat.send","id":"\\u0041","ts":-9007199254740992}',
    ],
)
async def test_forwarding_is_byte_for_byte(relay: RelayProcess, raw: str) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        await phone.send_raw(raw)
        assert await agent.receive_raw() == raw
        # A binary frame of the same bytes arrives as text.
        await phone.send_raw(raw.encode())
        assert await agent.receive_raw() == raw


async def test_a_message_in_fragments_arrives_whole(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        raw = '{"type":"chat.send","payload":{"text":"Grüße"}}'
        data = raw.encode()
        # Cut in the middle of the ü, too.
        at = data.index("ü".encode()) + 1
        await phone.connection.send([data[:5], data[5:at], data[at:]], text=True)
        assert await agent.receive_raw() == raw


async def test_ref_is_left_out_where_there_is_no_id_or_it_is_over_128_bytes(
    relay: RelayProcess,
) -> None:
    async with log_in(relay.url, relay.token(), "phone") as phone:
        await phone.send_raw('{"type":"chat.send"}')
        await phone.expect_error("PEER_OFFLINE", ref=None)
        await phone.send("chat.send", id="i" * 128)
        await phone.expect_error("PEER_OFFLINE", ref="i" * 128)
        await phone.send("chat.send", id="i" * 129)
        await phone.expect_error("PEER_OFFLINE", ref=None)
        await phone.send_raw(json.dumps({"type": "chat.send", "id": "ü" * 64}, ensure_ascii=False))
        await phone.expect_error("PEER_OFFLINE", ref="ü" * 64)
        await phone.send_raw(json.dumps({"type": "chat.send", "id": "ü" * 65}, ensure_ascii=False))
        await phone.expect_error("PEER_OFFLINE", ref=None)


async def test_the_newest_connection_of_a_role_is_the_live_one(relay: RelayProcess) -> None:
    token = relay.token()
    async with pair(relay.url, token) as (_, agent), log_in(relay.url, token, "phone") as newest:
        await agent.expect("status")
        await agent.send("chat.done", {"full_text": "for the newest"})
        assert (await newest.expect("chat.done"))["payload"]["full_text"] == "for the newest"
        await newest.send("chat.send", {"text": "?"})
        await agent.expect("chat.send")
