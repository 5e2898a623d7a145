"""Messages and frames that break the rules: each gets its error or close code,
and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time

import pytest

from tests.support.client import connect, log_in, pair
from tests.support.hostile import MIB, nobody_else_notices, raw_log_in, tcp
from tests.support.process import RelayProcess
from tests.support.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    frame,
    header,
    raw_connect,
)
from tests.support.waiting import eventually

MASK = b"\0\0\0\0"

# Messages


@pytest.mark.parametrize(
    ("message", "ref"),
    [
        ("", None),
        ("not json", None),
        ('{"type":"chat.send"', None),
        ('{"id":"cut","type":"chat.send","payload":{', "cut"),
        ("[]", None),
        ("null", None),
        ('"chat.send"', None),
        ("12", None),
        ("{}", None),
        ('{"id":"t1","type":1}', "t1"),
        ('{"id":"t2","type":null}', "t2"),
        ('{"id":"t3"}', "t3"),
        ('{"type":"chat.send","id":5}', None),
        ('{"type":"chat.send","id":{}}', None),
        ('{"id":"v","v":"1","type":"chat.send"}', "v"),
        ('{"id":"v2","v":1.5,"type":"chat.send"}', "v2"),
        ('{"id":"ts","ts":"now","type":"chat.send"}', "ts"),
        ('{"id":"ts2","ts":9007199254740993,"type":"chat.send"}', "ts2"),
        ('{"id":"ts3","ts":1e400,"type":"chat.send"}', "ts3"),
        ('{"id":"p1","type":"chat.send","payload":[]}', "p1"),
        ('{"id":"p2","type":"chat.send","payload":"{}"}', "p2"),
        ('{"id":"p3","type":"chat.send","payload":null}', "p3"),
        ('{"id":"n","type":"no.such.namespace"}', "n"),
        ('{"id":"e","type":""}', "e"),
        ('{"id":"nan","type":"chat.send","payload":{"x":NaN}}', "nan"),
        ('{"id":"ctl","type":"chat.send","payload":{"x":"\x01"}}', "ctl"),
        ('{"id":"twice","type":"chat.send"} {}', "twice"),
        ('{"id":"deep","type":"chat.send","payload":' + '{"a":' * 100_000 + "}" * 100_001, "deep"),
        ('{"id":"deep2","type":"chat.send","payload":{"a":' + "[" * 1_000_000, "deep2"),
        ("[" * 1_000_000, None),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_broken_message_is_invalid_and_its_sender_stays(
    relay: RelayProcess, message: str, ref: str | None
) -> None:
    async with pair(relay.url, relay.token()) as (phone, agent):
        await phone.send_raw(message)
        await phone.expect_error("INVALID_MESSAGE", ref=ref)
        # Nothing of it went to the agent, and what comes next does.
        id = await phone.send("chat.send", {"text": "next"})
        assert (await agent.expect("chat.send"))["id"] == id


@pytest.mark.parametrize(
    "first",
    [
        "not json",
        "{}",
        '{"type":"auth"}',
        '{"type":"auth","payload":[]}',
        '{"type":"auth","payload":{"token":1,"role":"phone"}}',
        '{"type":"auth","payload":{"token":"x","role":null}}',
        '{"type":"auth","payload":{"role":"phone"}}',
        '{"type":"chat.send","payload":{}}',
        "[" * 60_000,
    ],
    ids=lambda value: value[:40],
)
async def test_a_broken_first_message_ends_with_4001(relay: RelayProcess, first: str) -> None:
    async with connect(relay.url) as client:
        await client.send_raw(first)
        assert (await client.receive())["type"] == "chat.error"
        assert await client.closed() == 4001


async def test_a_first_message_over_64_kib_ends_with_1009(relay: RelayProcess) -> None:
    async with nobody_else_notices(relay), raw_connect(relay.url) as client:
        await client.send_bytes(header(TEXT, 65_537) + b'{"id":"a1","type":"auth","payload":{"' * 3)
        error = json.loads(await client.read_text())["payload"]
        assert error["code"] == "MESSAGE_TOO_LARGE"
        assert error["ref"] == "a1"
        assert await client.close_code() == 1009


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"],
    ids=["never", "cut", "surrogate", "above unicode", "overlong"],
)
async def test_what_is_not_utf8_ends_its_sender_with_1007_and_not_its_receiver(
    relay: RelayProcess, opcode: int, bad: bytes
) -> None:
    token = relay.token()
    async with nobody_else_notices(relay), log_in(relay.url, token, "agent") as agent:
        async with raw_log_in(relay.url, token, "phone") as phone:
            await agent.expect("status")
            envelope = b'{"type":"chat.send","id":"u","payload":{"text":"' + bad + b'"}}'
            await phone.send_bytes(_frame(opcode, envelope))
            assert await phone.close_code() == 1007
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
        assert await agent.barrier() == []


def _frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """As `frame`, with opcodes that do not exist as well."""
    assert len(payload) < 65536
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        return bytes((first, 0x80 | len(payload))) + MASK + payload
    return bytes((first, 0xFE)) + struct.pack("!H", len(payload)) + MASK + payload


# Frames

BROKEN_FRAMES = {
    "reserved bit": (b"\xc1\x80" + MASK, 1002),
    "reserved bits of a ping": (b"\xf9\x80" + MASK, 1002),
    "reserved data opcode": (_frame(0x3, b""), 1002),
    "reserved control opcode": (_frame(0xB, b""), 1002),
    "unmasked text": (b"\x81\x02{}", 1002),
    "unmasked close": (b"\x88\x00", 1002),
    "ping of 126 bytes": (_frame(0x9, bytes(126)), 1002),
    "pong of 60,000 bytes": (_frame(0xA, bytes(60_000)), 1002),
    "close of 126 bytes": (_frame(0x8, b"\x03\xe8" + bytes(124)), 1002),
    "ping of a gigabyte": (header(PING, 2**30), 1002),
    "fragmented ping": (_frame(0x9, b"", fin=False), 1002),
    "continuation of nothing": (_frame(0x0, b"x"), 1002),
    "message inside a message": (_frame(0x1, b"{", fin=False) + _frame(0x1, b"}"), 1002),
    "length that is not minimal": (b"\x81\xfe\x00\x02" + MASK + b"{}", 1002),
    "length over 2^63": (b"\x81\xff" + b"\xff" * 8 + MASK, 1002),
    "close of one byte": (_frame(0x8, b"\x03"), 1002),
    "close with a code that may not be sent": (_frame(0x8, b"\x03\xee"), 1002),
    "close whose reason is not UTF-8": (_frame(0x8, b"\x03\xe8\xff"), 1007),
    "an HTTP request": (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1002),
}


@pytest.mark.parametrize("logged_in", [True, False], ids=["logged in", "before auth"])
@pytest.mark.parametrize(("data", "code"), BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
async def test_a_broken_frame_ends_with_its_close_code(
    relay: RelayProcess, data: bytes, code: int, logged_in: bool
) -> None:
    client_of = raw_log_in(relay.url, relay.token(), "phone") if logged_in else None
    async with client_of or raw_connect(relay.url) as client:
        # More behind it, which must not turn the close frame into a reset.
        await client.send_bytes(data + bytes(100_000))
        assert await client.close_code() == code
        assert await client.reader.read() == b""


async def test_a_broken_frame_disturbs_nobody_else(relay: RelayProcess) -> None:
    async with nobody_else_notices(relay):
        for data, code in BROKEN_FRAMES.values():
            async with raw_connect(relay.url) as client:
                await client.send_bytes(data)
                assert await client.close_code() == code


async def test_fragments_with_control_frames_between_them_are_one_message(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with (
        log_in(relay.url, token, "agent") as agent,
        raw_log_in(relay.url, token, "phone") as phone,
    ):
        await agent.expect("status")
        text = '{"type":"chat.send","id":"f","payload":{"text":"Grüße 👋"}}'.encode()
        await phone.send_bytes(_frame(TEXT, b"", fin=False))
        for n in range(len(text)):
            # One byte each, through the middle of characters.
            await phone.send_bytes(_frame(CONTINUATION, text[n : n + 1], fin=False))
            if n % 10 == 0:
                await phone.send_bytes(_frame(PING, b"%d" % n) + _frame(PONG, b""))
                assert await phone.read_frame() == (PONG, b"%d" % n)
        await phone.send_bytes(_frame(CONTINUATION, b""))
        assert await agent.receive_raw() == text.decode()


async def test_messages_sent_behind_a_handshake_or_a_close_crash_nothing(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with nobody_else_notices(relay), log_in(relay.url, token, "agent") as agent:
        async with raw_log_in(relay.url, token, "phone") as phone:
            await agent.expect("status")
            sent = [f'{{"type":"file.ack","id":"{n}","payload":{{}}}}' for n in range(100)]
            await phone.send_bytes(
                b"".join(frame(TEXT, text) for text in sent)
                + frame(CLOSE, b"\x03\xe8bye")
                + frame(TEXT, "after the close")
                + b"\xff" * 1000
            )
            assert await phone.close_code() == 1000
        # What came before the close frame was delivered.
        assert [await agent.receive_raw() for _ in sent] == sent
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
        async with tcp(relay) as client:
            await client.send_bytes(_handshake(relay) + frame(TEXT, "too early") * 1000)
            await client.reader.readuntil(b"\r\n\r\n")
            assert await client.close_code() in (1002, 4001, 4004)


def _handshake(relay: RelayProcess) -> bytes:
    return (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


# Size


async def test_a_gigabyte_is_refused_at_its_header(relay: RelayProcess) -> None:
    async with nobody_else_notices(relay):
        before = relay.memory_bytes
        for length in (2**30, 2**40, 2**62):
            async with raw_log_in(relay.url, relay.token(), "phone") as phone:
                begun = time.monotonic()
                await phone.send_bytes(header(TEXT, length))
                error = json.loads(await phone.read_text())["payload"]
                assert error["code"] == "MESSAGE_TOO_LARGE"
                assert "ref" not in error
                assert await phone.close_code() == 1009
                assert time.monotonic() - begun < 3
        assert relay.memory_bytes - before < 10 * MIB


async def test_a_gigabyte_is_refused_by_its_id_where_that_came(relay: RelayProcess) -> None:
    async with raw_log_in(relay.url, relay.token(), "phone") as phone:
        start = b'{"v":1,"type":"chat.send","id":"huge","payload":{"text":"'
        await phone.send_bytes(header(TEXT, 2**30) + start + b"x" * 100)
        error = json.loads(await phone.read_text())["payload"]
        assert (error["code"], error["ref"]) == ("MESSAGE_TOO_LARGE", "huge")
        assert await phone.close_code() == 1009


async def test_many_headers_of_five_mebibytes_cost_no_memory(relay: RelayProcess) -> None:
    """A header within the limit makes the relay wait for a body, not pay for it."""
    async with nobody_else_notices(relay) as (phone, _), contextlib.AsyncExitStack() as clients:
        before = relay.memory_bytes
        for _ in range(50):
            client = await clients.enter_async_context(
                raw_log_in(relay.url, relay.token(), "agent")
            )
            await client.send_bytes(header(TEXT, 5 * MIB) + b"{" + b" " * 100)
        assert await phone.barrier() == []
        assert relay.memory_bytes - before < 20 * MIB


async def test_the_limit_is_over_all_fragments(relay: RelayProcess) -> None:
    async with nobody_else_notices(relay), raw_log_in(relay.url, relay.token(), "phone") as phone:
        start = b'{"type":"chat.send","id":"frag","payload":{"text":"'
        await phone.send_bytes(frame(TEXT, start, fin=False))
        for _ in range(5):
            await phone.send_bytes(frame(CONTINUATION, b"x" * MIB, fin=False))
        error = json.loads(await phone.read_text())["payload"]
        assert (error["code"], error["ref"]) == ("MESSAGE_TOO_LARGE", "frag")
        assert await phone.close_code() == 1009


async def test_a_client_that_sends_six_mebibytes_whole_reads_why_it_was_closed(
    relay: RelayProcess,
) -> None:
    async with nobody_else_notices(relay), log_in(relay.url, relay.token(), "phone") as phone:
        message = json.dumps({"id": "six", "type": "chat.send", "payload": {"t": "x" * 6 * MIB}})
        await phone.send_raw(message)
        await phone.expect_error("MESSAGE_TOO_LARGE", ref="six")
        assert await phone.closed() == 1009


# Halves and stalls


@pytest.mark.slow
async def test_half_of_anything_is_ended_in_time_and_disturbs_nobody(
    relay: RelayProcess,
) -> None:
    """Timers run at a tenth: a request has 2 s, auth 1 s, silence 6 s."""
    token = relay.token()
    async with nobody_else_notices(relay):
        request = b"POST /api/v1/pair HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        halves = [b"", b"G", _handshake(relay)[:40], _handshake(relay)[:-2], request + b"{"]
        begun = time.monotonic()
        await asyncio.gather(*(_ends_without_an_answer(relay, half) for half in halves))
        assert time.monotonic() - begun < 6

        async with raw_connect(relay.url) as client:
            assert await client.close_code() == 4004
        async with raw_connect(relay.url) as client:
            await client.send_bytes(frame(TEXT, b'{"type":"auth"' + b" " * 1000)[:500])
            assert await client.close_code() == 4004
        # Half a frame, then nothing: silence ends it, and only it.
        async with raw_log_in(relay.url, token, "phone") as client:
            await client.send_bytes(frame(TEXT, b"{}" * 5000)[:5000])
            assert await client.close_code(within=12) == 4008


async def _ends_without_an_answer(relay: RelayProcess, half: bytes) -> None:
    async with tcp(relay) as client, asyncio.timeout(8):
        await client.send_bytes(half)
        assert await client.reader.read() == b""


@pytest.mark.slow
async def test_a_request_that_drips_is_ended_all_the_same(relay: RelayProcess) -> None:
    async with tcp(relay) as client:
        ended = asyncio.create_task(client.reader.read())
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while not ended.done():
                assert time.monotonic() - begun < 8
                await client.send_bytes(b"G")
                await asyncio.sleep(0.1)
        with contextlib.suppress(OSError):
            assert await ended == b""


async def test_resets_in_the_middle_of_everything_disturb_nobody(relay: RelayProcess) -> None:
    token = relay.token()
    async with nobody_else_notices(relay):
        for _ in range(20):
            async with tcp(relay) as client:
                await client.send_bytes(_handshake(relay)[:50])
            async with tcp(relay) as client:
                await client.send_bytes(_handshake(relay))
            async with raw_connect(relay.url) as client:
                await client.send_bytes(b"\x81")
            async with raw_connect(relay.url) as client:
                await client.send(
                    json.dumps({"type": "auth", "payload": {"token": token, "role": "phone"}})
                )
            client = RawClient(*await asyncio.open_connection("127.0.0.1", relay.port))
            client.abort()


@pytest.mark.slow
async def test_a_reset_right_behind_data_is_noticed_at_once(relay: RelayProcess) -> None:
    """The data and the reset are there in the same turn of the relay's loop."""
    data = b"".join(frame(PING, b"%d" % n) for n in range(20))
    async with nobody_else_notices(relay) as (phone, _):
        for _ in range(20):
            async with raw_log_in(relay.url, relay.token(), "agent") as client:
                _reset_behind(client, data)
            async with tcp(relay) as client:
                _reset_behind(client, b"GET /health HTTP/1.1\r\nX: ")
            async with tcp(relay) as client:
                _reset_behind(client, _handshake(relay))
        assert await phone.barrier() == []
        # Timers at a tenth would end what was not noticed after 6 s.
        await eventually(lambda: _connections(relay) == 2, within=3)
    # And if they did, they must still run: nobody authenticates here.
    async with raw_connect(relay.url) as client:
        assert await client.close_code() == 4004


def _reset_behind(client: RawClient, data: bytes) -> None:
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.write(data)
    client.abort()


def _connections(relay: RelayProcess) -> int:
    return int(relay.http("GET", "/health")[1]["connections"])
