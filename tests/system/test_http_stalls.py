"""HTTP clients that ask for much and read nothing: memory stays bounded, and they are cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from coralmux import __version__
from coralmux_site import phone_files
from tests.support.hostile import MIB, nobody_else_notices
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import RawClient, narrow_socket

STATIC = f"/static/{__version__}-{phone_files.digest()}"
BUNDLE = f"GET {STATIC}/ninja/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n".encode()
ONE = BUNDLE + b"\r\n"
LAST = BUNDLE + b"Connection: close\r\n\r\n"


@contextlib.contextmanager
def deaf(relay: RelayProcess, request: bytes, count: int = 1) -> Iterator[list[socket.socket]]:
    """Connections that send this and read nothing."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(narrow_socket(relay.url)) for _ in range(count)]
        for sock in sockets:
            sock.send(request)
        yield sockets


async def most_memory(relay: RelayProcess, seconds: float) -> int:
    most = 0
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        most = max(most, relay.memory_bytes)
        await asyncio.sleep(0.05)
    return most


async def is_cut(sock: socket.socket, within: float) -> float:
    """Seconds until the relay resets the connection."""
    begun = time.monotonic()
    async with asyncio.timeout(within):
        while not _is_reset(sock):
            await asyncio.sleep(0.05)
    return time.monotonic() - begun


@pytest.mark.slow
async def test_pipelined_requests_of_a_client_that_never_reads_cost_no_memory(
    relay: RelayProcess,
) -> None:
    async with nobody_else_notices(relay):
        before = relay.memory_bytes
        with deaf(relay, ONE * 150):
            assert await most_memory(relay, 2.5) - before < 10 * MIB


@pytest.mark.slow
async def test_what_such_a_client_sends_meanwhile_is_not_kept(relay: RelayProcess) -> None:
    async with nobody_else_notices(relay):
        before = relay.memory_bytes
        with deaf(relay, ONE) as (sock,):
            # Before its answer is stuck, Twisted itself bounds what it reads.
            await asyncio.sleep(0.5)
            taken = 0
            ends_at = time.monotonic() + 2
            while time.monotonic() < ends_at:
                with contextlib.suppress(BlockingIOError):
                    taken += sock.send(bytes(MIB))
                await asyncio.sleep(0.01)
            assert relay.memory_bytes - before < 10 * MIB, taken


@pytest.mark.slow
async def test_many_connections_that_read_nothing_are_bounded_together() -> None:
    """As many as one address may open; of them the longest stuck make room."""
    with relay_process(env={"CORALMUX_STALL_TIMEOUT_SECONDS": "30"}) as relay:
        async with nobody_else_notices(relay):
            before = relay.memory_bytes
            with deaf(relay, ONE, 550) as sockets:
                assert await most_memory(relay, 10) - before < 150 * MIB
                # Reading this socket option clears it, so each is counted once.
                assert sum(map(_is_reset, sockets)) == 550 - 256


def _is_reset(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@pytest.mark.parametrize("request_", [ONE, LAST, ONE * 150], ids=["one", "close", "pipelined"])
@pytest.mark.slow
async def test_a_client_that_takes_nothing_is_cut_off(relay: RelayProcess, request_: bytes) -> None:
    """Within CORALMUX_STALL_TIMEOUT_SECONDS, which is 3 here."""
    with deaf(relay, request_) as (sock,):
        assert await is_cut(sock, within=6) > 2


@pytest.mark.slow
async def test_a_client_that_reads_slowly_gets_its_whole_answer(relay: RelayProcess) -> None:
    """Longer than the stall timeout, but it takes something all the while."""
    reader, writer = await asyncio.open_connection(sock=narrow_socket(relay.url), limit=4096)
    try:
        writer.write(LAST)
        got, begun = 0, time.monotonic()
        while data := await reader.read(16 * 1024):
            got += len(data)
            await asyncio.sleep(0.05)
        assert time.monotonic() - begun > 4
        assert got > MIB
    finally:
        writer.transport.abort()


async def test_pipelined_large_answers_arrive_whole_for_who_reads_them(
    relay: RelayProcess,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        writer.write(ONE * 4 + LAST)
        async with asyncio.timeout(20):
            answer = await reader.read()
        assert answer.count(b"HTTP/1.1 200 OK") == 5
        heads_and_bodies = answer.split(b"HTTP/1.1 200 OK")[1:]
        assert len({part.partition(b"\r\n\r\n")[2] for part in heads_and_bodies}) == 1
    finally:
        writer.transport.abort()


@pytest.mark.slow
async def test_a_websocket_behind_a_slowly_read_answer_is_not_cut_by_its_timer() -> None:
    upgrade = (
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    env = {"CORALMUX_STALL_TIMEOUT_SECONDS": "1", "CORALMUX_AUTH_TIMEOUT_SECONDS": "4"}
    with relay_process(env=env) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        try:
            writer.write(ONE + upgrade)
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                await reader.readexactly(length)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101 ")
                client = RawClient(reader, writer)
                assert await client.close_code() == 4004
        finally:
            writer.transport.abort()
