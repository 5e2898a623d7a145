"""The same application under plain `daphne` and under uvicorn: the main job works
there too, with what those servers can do and without our flow control."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.support.client import Client, connect, log_in, pair
from tests.support.hostile import MIB, raw_log_in
from tests.support.process import RelayProcess
from tests.support.raw import PING, PONG, TEXT, frame, header

# Each test starts a program of its own.
pytestmark = pytest.mark.slow

COMMANDS = {
    "daphne": (
        "{python} -m daphne --websocket-max-message-size 5242880"
        " --websocket-max-frame-size 5242880"
        " -b 127.0.0.1 -p {port} coralmux_site.asgi:application"
    ),
    "uvicorn": (
        "{python} -m uvicorn --host 127.0.0.1 --port {port}"
        " --ws-max-size 5242880 coralmux_site.asgi:application"
    ),
}


@pytest.fixture(scope="module", params=COMMANDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RelayProcess]:
    directory = Path(tmp_path_factory.mktemp(request.param))
    command = [part.replace("{python}", sys.executable) for part in COMMANDS[request.param].split()]
    process = RelayProcess(directory, command=command)
    migrated = process.manage("migrate")
    assert migrated.returncode == 0, migrated.stderr
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture
def is_daphne(server: RelayProcess) -> bool:
    return "daphne" in server.command


async def test_pair_chat_and_leave(server: RelayProcess) -> None:
    token = server.token()
    async with log_in(server.url, token, "phone") as phone:
        assert phone.greeting["paired"] is False  # type: ignore[attr-defined]
        async with log_in(server.url, token, "agent") as agent:
            assert (await phone.expect("status"))["payload"] == {"peer": "online"}
            question = '{"type" : "chat.send","id":"q","extra":[1],"payload":{"text":"Grüße 👋"}}'
            await phone.send_raw(question)
            assert await agent.receive_raw() == question
            for n in range(500):
                await agent.send("chat.stream", {"seq": n})
            await agent.send("chat.done", {"full_text": "hi"})
            for n in range(500):
                assert (await phone.expect("chat.stream"))["payload"] == {"seq": n}
            await phone.expect("chat.done")
            await phone.send_raw(b'{"type":"agent.list","id":"b"}')
            assert await agent.receive_raw() == '{"type":"agent.list","id":"b"}'
        assert (await phone.expect("status"))["payload"] == {"peer": "offline"}
        id = await phone.send("chat.send", {"text": "anyone?"})
        await phone.expect_error("PEER_OFFLINE", ref=id)


async def test_a_message_of_five_mebibytes_passes_and_a_larger_one_does_not(
    server: RelayProcess,
) -> None:
    token = server.token()
    async with pair(server.url, token) as (phone, agent):
        message = _message_of(5 * MIB)
        await phone.send_raw(message)
        assert await agent.receive_raw() == message
        with contextlib.suppress(websockets.ConnectionClosed):
            await phone.send_raw(_message_of(5 * MIB + 1))
        # Under these servers it may end without a close frame that is seen.
        assert await phone.closed() in (1006, 1009)
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
    await _works(server)


def _message_of(size: int) -> str:
    text = '{"type":"chat.send","id":"large","payload":{"text":"'
    return text + "x" * (size - len(text) - 3) + '"}}'


async def test_a_revoked_token_closes_both_sides_with_4003(server: RelayProcess) -> None:
    token = server.token()
    async with pair(server.url, token) as (phone, agent):
        assert server.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204
        assert await phone.closed(within=3) == 4003
        assert await agent.closed(within=3) == 4003


async def test_who_does_not_authenticate_is_closed_with_its_code(server: RelayProcess) -> None:
    async with connect(server.url) as client:
        assert await client.closed() == 4004
    async with connect(server.url) as client:
        await client.send("auth", {"token": "oc_pair_unknown", "role": "phone"})
        await client.expect("auth.fail")
        assert await client.closed() == 4001


async def test_the_newest_connection_of_a_role_wins(server: RelayProcess) -> None:
    token = server.token()
    async with pair(server.url, token) as (old, agent), log_in(server.url, token, "phone") as phone:
        assert await old.closed() == 4002
        assert (await agent.expect("status"))["payload"] == {"peer": "online"}
        await phone.send("chat.send", {"text": "new"})
        await agent.expect("chat.send")


async def test_bad_messages_get_their_errors(server: RelayProcess) -> None:
    async with pair(server.url, server.token()) as (phone, agent):
        for message in ("", "not json", "[]", '{"type":1}', '{"type":"a.b"}', "[" * 100_000):
            await phone.send_raw(message)
            await phone.expect_error("INVALID_MESSAGE")
        await phone.send_raw('{"id":"x","type":"chat.send","payload":[]}')
        await phone.expect_error("INVALID_MESSAGE", ref="x")
        id = await phone.send("chat.stream", {"seq": 1})
        await phone.expect_error("INVALID_MESSAGE", ref=id)
        assert await agent.barrier() == []


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
async def test_what_is_not_utf8_ends_its_sender_alone(
    server: RelayProcess, is_daphne: bool, binary: bool
) -> None:
    token = server.token()
    async with log_in(server.url, token, "agent") as agent:
        async with raw_log_in(server.url, token, "phone") as phone:
            await agent.expect("status")
            data = bytearray(frame(TEXT, b'{"type":"chat.send","payload":{"t":"\xff"}}'))
            data[0] = 0x82 if binary else 0x81
            await phone.send_bytes(bytes(data))
            # Text is checked by these servers, which may drop the connection instead.
            # Of the relay's own codes Daphne sends those between 1000 and 3000 as 4xxx.
            relays = 4007 if is_daphne else 1007
            assert await phone.close_code() in ((relays,) if binary else (1002, 1006, 1007))
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
        assert await agent.barrier() == []


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        b"\x81\x02{}",
        b"\x80\x80\0\0\0\0",
        b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126),
        header(TEXT, 2**30),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["reserved bit", "opcode", "unmasked", "continuation", "long ping", "gigabyte", "http"],
)
async def test_broken_frames_end_their_sender_alone(server: RelayProcess, data: bytes) -> None:
    async with raw_log_in(server.url, server.token(), "phone") as phone:
        await phone.send_bytes(data)
        assert await phone.close_code() in (1002, 1006, 1009)
    await _works(server)


async def test_pings_are_answered(server: RelayProcess) -> None:
    async with raw_log_in(server.url, server.token(), "phone") as phone:
        await phone.send_bytes(frame(PING, b"here?"))
        assert await phone.read_frame() == (PONG, b"here?")


@pytest.mark.slow
@pytest.mark.parametrize("server", ["uvicorn"], indirect=True)
async def test_a_slow_reader_is_bounded_where_the_server_waits_for_it(
    server: RelayProcess,
) -> None:
    """uvicorn waits for the client to read; Daphne has no flow control to pass on."""
    token = server.token()
    before = server.memory_bytes
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(raw_log_in(server.url, token, "phone", narrow=True))
        agent = await stack.enter_async_context(log_in(server.url, token, "agent"))
        refused = asyncio.create_task(_refusals(agent))
        begun, most = time.monotonic(), 0
        text = "x" * 50_000
        with contextlib.suppress(TimeoutError):
            # At a tenth of the timers the sender is held for 0.8 s, the reader given up after 3 s.
            async with asyncio.timeout(6):
                while not refused.done():
                    await agent.send("chat.stream", {"delta": text})
                    most = max(most, server.memory_bytes - before)
        assert await refused == "PEER_OFFLINE"
        assert time.monotonic() - begun < 6
        # One mebibyte and a message out; in, what the server reads ahead.
        assert most < 16 * MIB
    await _works(server)


async def _refusals(agent: Client) -> str:
    while (message := await agent.receive())["type"] != "chat.error":
        pass
    return str(message["payload"]["code"])


async def test_tokens_are_cut_out_of_all_output(server: RelayProcess) -> None:
    token = server.token()
    assert server.http("GET", f"/api/v1/pair/{token}")[0] == 200
    assert server.http("GET", "/api/v1/pair/oc_pair_guess")[0] == 404
    assert token not in server.output
    assert "oc_pair_guess" not in server.output


async def _works(server: RelayProcess) -> None:
    assert server.process.poll() is None, server.output[-2000:]
    async with pair(server.url, server.token()) as (phone, agent):
        await phone.send_raw(json.dumps({"type": "chat.send", "id": "w"}))
        assert (await agent.expect("chat.send"))["id"] == "w"
