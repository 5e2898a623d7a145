"""HTTP that breaks the rules, by hand: every request gets its status, and nobody notices."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.client import Client, connect
from tests.support.hostile import MIB, http_answer, nobody_else_notices, works
from tests.support.process import ADMIN_KEY, RelayProcess, relay_process

POST = f"POST /api/v1/pair HTTP/1.1\r\nHost: x\r\nX-Admin-Key: {ADMIN_KEY}\r\n".encode()


def status_of(answer: bytes) -> int:
    """The status of the one answer there is."""
    assert answer.startswith(b"HTTP/1."), answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"])


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /he\xffalth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /health?\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbad name: x\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\x00y\r\n\r\n",
        b": : :\r\n\r\n",
    ],
    ids=lambda line: repr(line)[2:40],
)
async def test_a_broken_request_gets_400(relay: RelayProcess, request_line: bytes) -> None:
    assert status_of(await http_answer(relay, request_line)) == 400
    await works(relay)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nContent-Length: 30\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n",
        b"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 30\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: 0x2\r\n",
        b"Content-Length: 2, 2\r\n",
    ],
    ids=lambda headers: repr(headers)[2:50],
)
async def test_two_readings_of_a_bodys_length_are_refused(
    relay: RelayProcess, headers: bytes
) -> None:
    """What one server takes for the body, another takes for the next request."""
    smuggled = b"{}GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await http_answer(relay, POST + headers + b"\r\n" + smuggled)
    assert status_of(answer) == 400
    assert error_of(answer) == "INVALID_REQUEST"
    assert b"oc_pair_" not in answer


async def test_a_body_over_64_kib_is_refused_at_its_header(relay: RelayProcess) -> None:
    answer = await http_answer(relay, POST + b"Content-Length: 65537\r\n\r\n")
    assert (status_of(answer), error_of(answer)) == (413, "TOO_LARGE")
    answer = await http_answer(
        relay, POST + b"Expect: 100-continue\r\nContent-Length: 9999999999\r\n\r\n"
    )
    assert (status_of(answer), error_of(answer)) == (413, "TOO_LARGE")


async def test_a_body_of_64_kib_is_read(relay: RelayProcess) -> None:
    body = b'{"label":"x"}'.ljust(65536)
    head = POST + b"Content-Type: application/json\r\nConnection: close\r\n"
    answer = await http_answer(relay, head + b"Content-Length: 65536\r\n\r\n" + body)
    assert status_of(answer) == 201


async def test_a_client_that_sends_its_large_body_whole_reads_the_413(
    relay: RelayProcess,
) -> None:
    async with nobody_else_notices(relay):
        before = relay.memory_bytes
        body = bytes(10 * MIB)
        answer = await http_answer(relay, POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (status_of(answer), error_of(answer)) == (413, "TOO_LARGE")
        assert relay.memory_bytes - before < 5 * MIB


@pytest.mark.slow
async def test_a_body_without_a_length_gets_411_and_is_not_acted_on(relay: RelayProcess) -> None:
    tokens = relay.manage("listtokens", "--json").stdout
    body = b"2\r\n{}\r\n0\r\n\r\n"
    answer = await http_answer(relay, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert (status_of(answer), error_of(answer)) == (411, "LENGTH_REQUIRED")
    assert relay.manage("listtokens", "--json").stdout == tokens


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: " + b"a" * MIB,
        b"GET /health HTTP/1.1\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 20 + b"\r\n",
    ],
    ids=["long path", "long header", "endless header", "many headers"],
)
async def test_a_huge_head_gets_431(relay: RelayProcess, head: bytes) -> None:
    answer = await http_answer(relay, head)
    assert (status_of(answer), error_of(answer)) == (431, "TOO_LARGE")


async def test_more_headers_than_anybody_needs_get_400(relay: RelayProcess) -> None:
    answer = await http_answer(relay, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 600 + b"\r\n")
    assert status_of(answer) == 400


async def test_pipelined_requests_are_answered_one_after_the_other(relay: RelayProcess) -> None:
    once = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await http_answer(relay, once * 50 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 51


# Upgrades


UPGRADE = (
    "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(
    "path", ["/", "/ws/", "/wss", "/ws/x", "/api/v1/pair", "/health", "/%77s/"]
)
async def test_a_websocket_is_refused_on_any_other_path(relay: RelayProcess, path: str) -> None:
    answer = await http_answer(relay, f"GET {path} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
    assert status_of(answer) == 403
    await works(relay)


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("POST /ws HTTP/1.1", UPGRADE, 405),
        ("GET /ws HTTP/1.1", UPGRADE.replace("Version: 13", "Version: 8"), 400),
        ("GET /ws HTTP/1.1", UPGRADE.replace("Version: 13", "Version: x"), 400),
        ("GET /ws HTTP/1.1", UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        ("GET /ws HTTP/1.1", UPGRADE.replace("Sec-WebSocket-Key", "X-Key"), 400),
        ("GET /ws HTTP/1.1", UPGRADE.replace("Connection: Upgrade", "Connection: close"), 400),
        ("GET /ws HTTP/1.1", UPGRADE + "Sec-WebSocket-Protocol: \xff\r\n", 400),
        ("GET /ws?\xff HTTP/1.1", UPGRADE, 400),
    ],
)
async def test_a_broken_upgrade_is_refused(
    relay: RelayProcess, request_line: str, headers: str, status: int
) -> None:
    answer = await http_answer(relay, f"{request_line}\r\n{headers}\r\n".encode("latin-1"))
    assert status_of(answer) == status
    await works(relay)


# Caps


@pytest.mark.slow
async def test_connection_caps_answer_1013_and_a_slot_is_free_after_a_close() -> None:
    with relay_process(env={"CORALMUX_MAX_CONNECTIONS_PER_ADDRESS": "3"}) as relay:
        await _check_cap(relay, 3)
    with relay_process(env={"CORALMUX_MAX_CONNECTIONS": "3"}) as relay:
        await _check_cap(relay, 3)


async def _check_cap(relay: RelayProcess, cap: int) -> None:
    for _ in range(3):
        clients = [connect(relay.url) for _ in range(cap)]
        entered = [await client.__aenter__() for client in clients]
        async with connect(relay.url) as one_more:
            assert await one_more.closed() == 1013
        for client in clients:
            await client.__aexit__(None, None, None)
        assert {client.connection.close_code for client in entered} == {1000}
    assert relay.metric('coralmux_refused_total{reason="TOO_MANY_CONNECTIONS"}') == 3


@pytest.mark.slow
async def test_forwarded_headers_of_an_untrusted_peer_do_not_get_around_the_cap() -> None:
    with relay_process(env={"CORALMUX_MAX_CONNECTIONS_PER_ADDRESS": "1"}) as relay:
        async with connect(relay.url):
            for n in range(5):
                spoofed = {"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=10.0.0.{n}"}
                async with connect(relay.url, additional_headers=spoofed) as client:
                    assert await client.closed() == 1013


@pytest.mark.slow
async def test_behind_a_trusted_proxy_the_cap_counts_clients() -> None:
    env = {
        "CORALMUX_MAX_CONNECTIONS_PER_ADDRESS": "1",
        "CORALMUX_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with relay_process(env=env) as relay:
        one = {"X-Forwarded-For": "192.0.2.1"}
        # What stands to the left of the proxy's own entry is the client's invention.
        same = {"X-Forwarded-For": "198.51.100.9, 192.0.2.1"}
        other = {"X-Forwarded-For": "192.0.2.2"}
        async with connect(relay.url, additional_headers=one):
            async with connect(relay.url, additional_headers=same) as client:
                assert await client.closed() == 1013
            async with connect(relay.url, additional_headers=other) as client:
                assert await _is_open(client)


async def _is_open(client: Client) -> bool:
    """Not closed at once: it is closed for want of auth, much later."""
    return await client.closed() == 4004


@pytest.mark.slow
async def test_half_open_connections_of_one_address_are_capped_and_keep_nobody_out() -> None:
    """A slowloris at 127.0.0.2 gets as many as the caps on its address can ever use."""
    env = {"CORALMUX_MAX_CONNECTIONS_PER_ADDRESS": "20"}
    with relay_process(env=env) as relay:
        async with nobody_else_notices(relay):
            held = await asyncio.gather(*(_drip(relay) for _ in range(200)))
            assert held.count(True) == 120


async def _drip(relay: RelayProcess) -> bool:
    """Send half a request from 127.0.0.2; whether the relay kept the connection for a while."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", relay.port, local_addr=("127.0.0.2", 0)
    )
    try:
        async with asyncio.timeout(8):
            writer.write(b"GET /health HTTP/1.1\r\nX: ")
            begun = asyncio.get_running_loop().time()
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                return False
            return asyncio.get_running_loop().time() - begun > 1
    finally:
        writer.transport.abort()
