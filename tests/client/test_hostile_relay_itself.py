"""The hostile relay is honest until told otherwise, and then obeys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from coralmux.protocol import Role, encode
from tests.support import middle
from tests.support.client import connect, log_in, pair
from tests.support.field import FieldConnector, FieldPhone
from tests.support.hostile_relay import Frame, HostileRelay, Outputs
from tests.support.waiting import eventually

PHONE, AGENT = Role.PHONE, Role.AGENT


@pytest.fixture
async def relay() -> AsyncIterator[HostileRelay]:
    async with HostileRelay() as relay:
        yield relay


# -- honest --


async def test_it_forwards_byte_for_byte_and_keeps_what_was_sent(relay: HostileRelay) -> None:
    odd = '{ "type" : "chat.send","id":"m1", "new":[1], "payload":{"text":"\\u00e9 é"}}'
    async with pair(relay.url, "t") as (phone, agent):
        await phone.send_raw(odd)
        assert await agent.receive_raw() == odd
        await agent.send_raw(odd.encode())
        assert await phone.receive_raw() == odd
    assert [(f.sender, f.type, f.id, f.data) for f in relay.frames] == [
        (PHONE, "chat.send", "m1", odd.encode()),
        (AGENT, "chat.send", "m1", odd.encode()),
    ]
    assert relay.frames[0].payload == {"text": "é é"}
    assert relay.delivered == [(AGENT, odd.encode()), (PHONE, odd.encode())]
    assert relay.sent(PHONE) == relay.sent(PHONE, "chat.send") == relay.frames[:1]
    assert relay.sent(AGENT, "chat.done") == []


async def test_it_announces_what_our_relay_does_or_only_what_version_1_has() -> None:
    limits = {"messages_per_minute": 7}
    async with HostileRelay(limits=limits) as relay, log_in(relay.url, "t", "phone") as phone:
        assert phone.greeting["paired"] is False
        assert phone.greeting["server"]["protocol"] == 2
        assert phone.greeting["limits"] == {
            "max_message_bytes": 5_242_880,
            "messages_per_minute": 7,
            "stream_frames_per_second": 1000,
        }
    async with HostileRelay(v1=True) as relay, pair(relay.url, "t") as (_, agent):
        assert sorted(agent.greeting) == ["daily_quota_bytes", "daily_used_bytes", "paired"]
        assert agent.greeting["paired"] is True


@pytest.mark.parametrize("payload", [{"token": "x", "role": "phone"}, {"token": "t", "role": "x"}])
async def test_it_refuses_another_token_and_an_unknown_role(payload: dict[str, str]) -> None:
    async with HostileRelay(token="t") as relay, connect(relay.url) as client:
        await client.send("auth", payload)
        assert (await client.expect("auth.fail"))["payload"]["code"] == "UNAUTHORIZED"
        assert await client.closed() == 4001


async def test_status_tells_of_coming_replacing_and_going(relay: HostileRelay) -> None:
    async with log_in(relay.url, "t", "phone") as phone:
        async with (
            log_in(relay.url, "t", "agent") as old,
            log_in(relay.url, "t", "agent") as new,
        ):
            assert await old.closed() == 4002
            assert new.greeting["paired"] is True
            assert [m["payload"]["peer"] for m in await phone.barrier()] == ["online"] * 2
        assert (await phone.expect("status"))["payload"] == {"peer": "offline"}
    assert relay.meetings == 3


async def test_it_answers_what_it_does_not_forward(relay: HostileRelay) -> None:
    async with log_in(relay.url, "t", "phone") as phone:
        await phone.expect_error("PEER_OFFLINE", ref=await phone.send("chat.send"))
        await phone.expect_error("INVALID_MESSAGE", ref=await phone.send("chat.stream"))
        await phone.expect_error("INVALID_MESSAGE", ref=await phone.send("nonsense"))
        await phone.send_raw("[]")
        await phone.expect_error("INVALID_MESSAGE")
        assert await phone.barrier() == []
        await phone.send_raw(b'{"type":"ping\xff"}')
        assert await phone.closed() == 1007


async def test_the_fields_peers_chat_through_it() -> None:
    async with HostileRelay(v1=True) as relay, FieldConnector(relay.url, "t") as connector:
        async with FieldPhone(relay.url, "t") as phone:
            assert await phone.ask("secret") == (["Hel", "lo"], {"full_text": "Hello"})
            assert connector.chats[0].sealed
        assert not any(b"secret" in frame.data for frame in relay.frames)


# -- under orders --


async def test_tamper_decides_what_arrives_where(relay: HostileRelay) -> None:
    def tamper(frame: Frame) -> Outputs:
        match frame.id:
            case "drop":
                return []
            case "twice":
                return [frame.data, frame.data]
            case "back":
                return [(frame.sender, frame.data)]
        return [frame.rewritten(id="changed", payload={"text": "other"})]

    relay.tamper = tamper
    async with pair(relay.url, "t") as (phone, agent):
        for id in ("drop", "twice", "back", "other"):
            await phone.send("chat.send", {"text": "x"}, id=id)
        assert [m["id"] for m in [await agent.receive() for _ in range(3)]] == [
            "twice",
            "twice",
            "changed",
        ]
        assert [m["id"] for m in await phone.barrier()] == ["back"]
    assert [frame.id for frame in relay.frames] == ["drop", "twice", "back", "other"]


async def test_an_exception_in_tamper_fails_the_test() -> None:
    async def interfere() -> None:
        async with HostileRelay() as relay, pair(relay.url, "t") as (phone, agent):
            relay.tamper = lambda frame: [frame.data] * (1 // 0)
            await phone.send("chat.send")
            assert await phone.barrier() == []
            assert await agent.barrier() == []

    with pytest.raises(ZeroDivisionError):
        await interfere()


async def test_inject_hold_and_release(relay: HostileRelay) -> None:
    async with pair(relay.url, "t") as (phone, agent):
        relay.inject(PHONE, encode("chat.done", {}, ts=0, id="made-up"))
        assert (await phone.receive())["id"] == "made-up"
        relay.hold(AGENT)
        for id in "abc":
            await phone.send("chat.send", id=id)
        assert await phone.barrier() == []
        assert await agent.barrier() == []
        relay.release(AGENT, order=reversed)
        await phone.send("chat.send", id="d")
        assert [(await agent.receive())["id"] for _ in range(4)] == list("cbad")


async def test_it_cuts_and_closes_connections(relay: HostileRelay) -> None:
    async with pair(relay.url, "t") as (phone, agent):
        relay.drop_connection(AGENT)
        assert await agent.closed() == 1006
        assert (await phone.expect("status"))["payload"] == {"peer": "offline"}
        assert (relay.connected(PHONE), relay.connected(AGENT)) == (True, False)
        relay.drop_connection(PHONE, 4003)
        assert await phone.closed() == 4003


async def test_it_comes_back_on_the_same_port(relay: HostileRelay) -> None:
    url = relay.url
    async with log_in(url, "t", "phone") as phone:
        await relay.stop()
        assert await phone.closed() == 1012
        with pytest.raises((OSError, ConnectionClosed)):
            async with connect(url):
                pass
        await relay.start()
        async with log_in(url, "t", "phone") as phone:
            assert await phone.barrier() == []


# -- in the middle of version 1 --


async def test_against_version_1_swapped_keys_read_and_rewrite_everything() -> None:
    def rewrite(sender: Role, type: str, plaintext: bytes) -> bytes:
        return plaintext.replace(b"lo", b"p!").replace(b"yes", b"no")

    async with HostileRelay(v1=True) as relay, FieldConnector(relay.url, "t") as connector:
        relay.tamper = tamper = middle.SwapPublicKeys(rewrite)
        async with FieldPhone(relay.url, "t") as phone:
            for round in (1, 2):
                deltas, done = await phone.ask("yes")
                assert (deltas, done) == (["Hel", "p!"], {"full_text": "Help!"})
                await connector.reconnect()
                await eventually(lambda n=round + 1: len(phone.peer_keys) == n)
            assert [chat.payload["text"] for chat in connector.chats] == ["no", "no"]
            assert {chat.sealed for chat in connector.chats} == {True}
            assert phone.unreadable == connector.unreadable == []
    assert [r.type for r in tamper.read] == ["chat.send", *["chat.stream"] * 2, "chat.done"] * 2
    assert json.loads(tamper.read[0].plaintext) == {"text": "yes"}


async def test_against_version_1_the_relay_can_answer_the_key_exchange_itself() -> None:
    async with HostileRelay() as relay, FieldPhone(relay.url, "t") as phone:
        relay.tamper = tamper = middle.AnswerKeyExchange()
        async with log_in(relay.url, "t", "agent") as agent:
            with pytest.raises(TimeoutError):
                await phone.ask("for nobody else", within=0.5)
            assert (await agent.receive())["type"] == "chat.send"
    assert [json.loads(r.plaintext) for r in tamper.read] == [{"text": "for nobody else"}]
