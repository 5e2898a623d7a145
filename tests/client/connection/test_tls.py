"""TLS: which certificates are taken, what a refusal says, and where TLS is missing."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from pathlib import Path
from typing import Any

import pytest

from coralmux.client.connection import Connecting, Connection, Disconnected
from coralmux.protocol.types import Role
from tests.client.connection.dialling import (
    FAST,
    TOKEN,
    connected,
    connection_to,
    failure,
    greet_and_wait,
    watching,
)
from tests.client.servers import certificate, listening, scripted


async def test_a_self_signed_certificate_is_refused_in_words_that_say_what_to_do(
    tmp_path: Path,
) -> None:
    _, context = certificate(tmp_path)
    async with scripted(greet_and_wait, ssl_context=context, host="localhost") as relay:
        cause = (await failure(connection_to(relay.url))).cause
        assert "self-signed" in cause
        assert "SSL_CERT_FILE" in cause
        assert relay.visits == 0


async def test_a_certificate_that_the_context_trusts_is_taken(tmp_path: Path) -> None:
    file, context = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(file))
    async with (
        scripted(greet_and_wait, ssl_context=context, host="localhost") as relay,
        connected(relay.url, ssl=trusting) as (phone, _),
    ):
        assert phone.connected


async def test_a_certificate_that_the_environment_trusts_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sentence of a refusal advises."""
    file, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with (
        scripted(greet_and_wait, ssl_context=context, host="localhost") as relay,
        connected(relay.url) as (phone, _),
    ):
        assert phone.connected


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        ({"valid_from": -2, "valid_to": -1}, "has expired. Check the clock"),
        ({"valid_from": 1, "valid_to": 2}, "not valid yet. Check the clock"),
        ({"name": "other.example.com"}, "another host name"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_told(
    tmp_path: Path, dates: dict[str, Any], words: str
) -> None:
    file, context = certificate(tmp_path, **dates)
    trusting = ssl.create_default_context(cafile=str(file))
    async with scripted(greet_and_wait, ssl_context=context, host="localhost") as relay:
        assert words in (await failure(connection_to(relay.url, ssl=trusting))).cause
        assert relay.visits == 0


@pytest.mark.parametrize("answers", [True, False])
async def test_a_relay_without_tls_behind_a_tls_address_says_so(answers: bool) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answers:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with listening(handle) as port:
        cause = (await failure(connection_to(f"wss://127.0.0.1:{port}/ws"))).cause
        assert "begins with ws://" in cause


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("ws://relay.invalid/ws", True),
        ("ws://192.0.2.1/ws", True),
        ("wss://relay.invalid/ws", False),
        ("ws://localhost:1/ws", False),
        ("ws://127.0.0.1:1/ws", False),
        ("ws://[::1]:1/ws", False),
    ],
)
async def test_a_token_that_travels_unprotected_is_warned_of_once(
    url: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    timers = dataclasses.replace(FAST, open=0.1)
    async with watching(connection_to(url, timers=timers)) as events:
        for _ in range(3):
            await events.expect(Connecting)
            await events.expect(Disconnected)
    assert caplog.text.count("no TLS") == warned


def test_a_tls_context_for_a_relay_without_tls_is_refused() -> None:
    with pytest.raises(ValueError, match="wss://"):
        Connection("ws://127.0.0.1/ws", TOKEN, Role.PHONE, ssl=ssl.create_default_context())
