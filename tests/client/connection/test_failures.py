"""Addresses that are none, and servers that are no relay: each is told apart in words."""

from __future__ import annotations

import asyncio
import dataclasses
import http
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from coralmux.client.connection import Connecting, Connection, Disconnected, Received
from coralmux.protocol.types import Role
from tests.client.connection.dialling import (
    FAST,
    MIB,
    TOKEN,
    connected,
    connection_to,
    envelope,
    failure,
    watching,
)
from tests.client.servers import ScriptedRelay, listening, scripted
from tests.support.process import free_port


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay.example.com",
        "https://relay.example.com/ws",
        "wss://",
        "ws://a/ws#token=x",
        "ws://a:token=x/ws",
        "ws://a:0/ws",
        "ws://[::1/ws?token=x",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must look like wss://") as caught:
        Connection(url, TOKEN, Role.PHONE)
    assert "token=x" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_a_refused_connection_says_so() -> None:
    assert (
        "connection refused"
        in (await failure(connection_to(f"ws://127.0.0.1:{free_port()}/ws"))).cause
    )


async def test_each_new_reason_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="coralmux")
    async with watching(connection_to(f"ws://127.0.0.1:{free_port()}/ws")) as events:
        for _ in range(3):
            await events.until(Disconnected)
    levels = [record.levelname for record in caplog.records if "refused" in record.message]
    assert levels == ["WARNING", "INFO", "INFO"]


async def test_a_name_with_several_addresses_that_refuse_says_so() -> None:
    assert (
        "connection refused"
        in (await failure(connection_to(f"ws://localhost:{free_port()}/ws"))).cause
    )


async def test_an_unknown_name_says_so() -> None:
    assert "DNS" in (await failure(connection_to("ws://relay.invalid/ws"))).cause
    assert "DNS" in (await failure(connection_to(f"ws://{'a' * 70}.invalid/ws"))).cause


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (http.HTTPStatus.FORBIDDEN, "refuses this client"),
        (http.HTTPStatus.NOT_FOUND, "ends in /ws"),
        (http.HTTPStatus.OK, "is no WebSocket"),
        (http.HTTPStatus.BAD_GATEWAY, "does not run"),
    ],
)
async def test_http_instead_of_websocket_says_which_and_what_to_do(
    status: http.HTTPStatus, words: str
) -> None:
    def refuse(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(status, "no\n")

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        raise AssertionError("never reached")

    async with scripted(script, process_request=refuse) as relay:
        cause = (await failure(connection_to(relay.url))).cause
        assert f"HTTP {status.value}" in cause
        assert words in cause


@pytest.mark.parametrize("same_host", [True, False])
async def test_redirects_are_not_followed(same_host: bool) -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)

    def redirect(connection: ServerConnection, request: Any) -> Any:
        response = connection.respond(http.HTTPStatus.FOUND, "")
        target = "/elsewhere" if same_host else f"http://127.0.0.1:{other.port}/ws?\x1b[2Jx"
        response.headers["Location"] = target.replace("\x1b", "%1b")
        return response

    async with scripted(script) as other, scripted(script, process_request=redirect) as relay:
        cause = (await failure(connection_to(relay.url))).cause
        assert "HTTP 302" in cause
        assert "use it instead" in cause
        if not same_host:
            assert "http://127.0.0.1 " in cause
        assert other.visits == 0


async def test_something_else_than_http_says_so() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()
        writer.close()

    async with listening(handle) as port:
        assert (
            "does not speak WebSocket"
            in (await failure(connection_to(f"ws://127.0.0.1:{port}/ws"))).cause
        )


async def test_a_server_that_hangs_up_at_once_says_so() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with listening(handle) as port:
        assert (
            "closed the connection at once"
            in (await failure(connection_to(f"ws://127.0.0.1:{port}/ws"))).cause
        )


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    timers = dataclasses.replace(FAST, open=0.2)
    async with listening(handle) as port:
        connection = connection_to(f"ws://127.0.0.1:{port}/ws", timers=timers)
        assert "did not answer in time" in (await failure(connection)).cause


async def test_a_message_beyond_every_limit_ends_the_connection_with_a_cause() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.send("x" * (6 * MIB))
        await connection.wait_closed()

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        gone = await events.expect(Disconnected)
        assert "larger than a message may be" in gone.cause
        await events.expect(Connecting)


async def test_a_message_of_the_full_size_passes() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        frame = envelope("file.chunk", {"data": ""}, id="full")
        await connection.send(
            frame.replace(b'""', b'"' + b"x" * (5 * MIB - len(frame)) + b'"'), text=True
        )
        await connection.wait_closed()

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        assert (await events.expect(Received)).envelope.id == "full"
