"""The relay's REST API: each way in which it can fail is one plain sentence, and a remedy."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from coralmux.bridge.registration import Relay, is_unprotected, normalised
from coralmux.bridge.relay_failures import RelayProblem
from tests.bridge.doubles.http_exchange import Exchange, http_server
from tests.client.servers import certificate, connect_proxy, listening
from tests.support.process import ADMIN_KEY, RelayProcess

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"


def error(code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "Words of the relay.", **more}}


async def problem(url: str, what: str = "register", *arguments: str, key: str = "") -> RelayProblem:
    """What is said of a request to this relay."""

    def ask() -> None:
        with Relay(normalised(url), admin_key=key) as relay:
            getattr(relay, what)(*arguments)

    with pytest.raises(RelayProblem) as raised:
        await asyncio.to_thread(ask)
    assert raised.value.what.endswith((".", "”", "?"))
    assert raised.value.remedy.endswith((".", "socksio"))
    # The request, and in it the token or the key, hangs on none of the exceptions.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    return raised.value


# A real relay


async def test_a_token_is_made_looked_at_and_revoked(relay: RelayProcess) -> None:
    def talk() -> None:
        with Relay(normalised(relay.url), admin_key=ADMIN_KEY) as there:
            token = there.create("my phone")
            assert there.online(token) == {"phone": False, "agent": False}
            there.revoke(token)
            with pytest.raises(RelayProblem) as raised:
                there.online(token)
            assert raised.value.code == "NOT_FOUND"
            health = there.health()
            assert health.version
            assert health.ahead is not None
            assert abs(health.ahead) < 10

    await asyncio.to_thread(talk)


# Answers that are no success


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (403, error("REGISTRATION_CLOSED"), {}, "coralmux-relay token issue"),
        (403, error("ADMIN_CLOSED"), {}, "has no admin key"),
        (403, error("ADMIN_CLOSED"), {}, "made and revoked on its machine"),
        (401, error("UNAUTHORIZED"), {}, "CORALMUX_ADMIN_KEY: copy it"),
        (429, error("RATE_LIMITED", retry_after_ms=420_000), {}, "Try again in 7 min."),
        (429, error("RATE_LIMITED"), {"retry_after": "30"}, "Try again in 30 s."),
        (429, error("RATE_LIMITED", retry_after_ms=-1), {}, "Try again later."),
        (503, error("UNAVAILABLE"), {}, "Try again in a moment."),
        (500, error("INTERNAL"), {}, "The relay failed."),
        (422, error("INVALID_REQUEST"), {}, "“Words of the relay.”"),
        (503, b"<h1>down</h1>", {}, "behind 127.0.0.1"),
        (401, b"who are you?", {}, "wants a log-in"),
        (404, b"<h1>nothing</h1>", {}, "it is no CoralMux relay"),
        (404, error("NOT_FOUND"), {}, "does not know this token"),
        (418, {"error": ["odd"]}, {}, "it is no CoralMux relay"),
        (302, b"", {"location": "https://a.example.com/x?token=1"}, "https://a.example.com, which"),
        (201, b"<h1>welcome</h1>", {}, "it is no CoralMux relay"),
        (201, {"token": "two words"}, {}, "it is no CoralMux relay"),
        (201, {"token": 7}, {}, "it is no CoralMux relay"),
        (201, [], {}, "it is no CoralMux relay"),
        (200, b"x" * 300_000, {}, "it is no CoralMux relay"),
        (200, b"[" * 200_000, {}, "it is no CoralMux relay"),
    ],
)
async def test_what_a_relay_refuses_is_explained(
    status: int, body: Any, headers: dict[str, str], words: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(status, body, **headers)

    async with http_server(answer) as url:
        assert words in str(await problem(url))


async def test_words_of_a_relay_are_cut_and_cleaned() -> None:
    async def answer(exchange: Exchange) -> None:
        said = f"\x1b[31m{TOKEN}\n" + "long " * 1000
        await exchange.respond(422, {"error": {"code": "ODD", "message": said}})

    async with http_server(answer) as url:
        text = str(await problem(url))
    assert "\x1b" not in text
    assert TOKEN[8:] not in text
    assert len(text) < 400


@pytest.mark.parametrize("body", [b"<h1>hello</h1>", {"status": "ok"}, {"phone": 1, "agent": 0}])
async def test_what_only_answers_is_no_relay(body: Any) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(200, body)

    async with http_server(answer) as url:
        for request in (("health",), ("online", TOKEN)):
            assert "no CoralMux relay" in str(await problem(url, *request))


async def test_a_relay_behind_a_path_is_asked_there() -> None:
    asked = []

    async def answer(exchange: Exchange) -> None:
        asked.append(exchange.path)
        await exchange.respond(404, error("NOT_FOUND"))

    async with http_server(answer) as url:
        await problem(f"{url}/behind/ws", "online", f"{TOKEN}/..%")
    assert asked == [f"/behind/api/v1/pair/{TOKEN}%2F..%25"]


# No answer


async def test_nobody_at_the_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told = await problem(f"ws://127.0.0.1:{port}")
    assert told.what == f"Nobody listens at 127.0.0.1:{port} (connection refused)."


async def test_an_unknown_name_is_told() -> None:
    assert "not known (DNS)" in str(await problem("wss://nowhere.invalid"))


async def test_a_connection_that_is_cut_is_told() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"what is it?\r\n\r\n")
        await writer.drain()

    for handle in (cut, garbage):

        async def handled(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Any = handle
        ) -> None:
            await handle(reader, writer)
            writer.close()

        async with listening(handled) as port:
            assert "begins with wss://" in str(await problem(f"ws://127.0.0.1:{port}"))


async def test_a_relay_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coralmux.bridge.registration._TIMEOUT", 0.1)

    async def silent(exchange: Exchange) -> None:
        await exchange.gone()

    async with http_server(silent) as url:
        assert "did not answer in time" in str(await problem(url))


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 201 Made\r\nContent-Length: 999\r\n\r\n"])
async def test_a_relay_that_answers_drop_by_drop_is_given_up(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("coralmux.bridge.registration._DEADLINE", 0.3)
    given_up = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begun)
        # Whoever waits for the end of it waits longer than the test may take.
        while not given_up.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        writer.close()

    async with listening(drip) as port:
        async with asyncio.timeout(5):
            said = str(await problem(f"ws://127.0.0.1:{port}"))
        given_up.set()
    assert "did not answer in time" in said


# TLS


async def test_a_relay_that_waits_for_more_than_the_beginning_of_tls_may_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coralmux.bridge.registration._TIMEOUT", 0.1)

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(wait) as port:
        assert "begins with ws://" in str(await problem(f"wss://127.0.0.1:{port}"))
        assert "begins with ws://" not in str(await problem(f"ws://127.0.0.1:{port}"))


async def tls_problem(tmp_path: Path, **about: Any) -> str:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(201, {"token": TOKEN})

    _, context = certificate(tmp_path, **about)
    async with http_server(answer, ssl=context) as url:
        return str(await problem(url.replace("127.0.0.1", "localhost")))


async def test_a_self_signed_certificate_is_told(tmp_path: Path) -> None:
    said = await tls_problem(tmp_path)
    assert "it may be self-signed" in said
    assert "SSL_CERT_FILE" in said


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"valid_from": -2, "valid_to": -1}, "has expired. Check the clock"),
        ({"valid_from": 1, "valid_to": 2}, "not valid yet. Check the clock"),
        ({"name": "other.example.com"}, "is for another name"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert words in await tls_problem(tmp_path, **about)


async def test_a_certificate_that_the_environment_trusts_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sentence of a refusal advises."""

    async def answer(exchange: Exchange) -> None:
        await exchange.respond(201, {"token": TOKEN})

    file, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    def register(url: str) -> str:
        with Relay(normalised(url)) as relay:
            return relay.register()

    async with http_server(answer, ssl=context) as url:
        url = url.replace("127.0.0.1", "localhost")
        assert await asyncio.to_thread(register, url) == TOKEN


async def test_a_relay_without_tls_behind_a_tls_address_is_told() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(200)

    async with http_server(answer) as url:
        said = str(await problem(url.replace("http:", "https:")))
    assert "begins with ws://" in said


# The environment, and keys


async def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect_proxy(refuse_with=b"403 No") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert "The proxy on the way" in str(await problem("wss://relay.invalid"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("https_proxy", "http://user:secret-word@host:no", "not a valid address"),
        ("https_proxy", "socks5://user:secret-word@127.0.0.1:1", "pip install socksio"),
        ("https_proxy", "http://user:secret-word@127.0.0.1:1", "the proxy that cannot be reached"),
    ],
)
async def test_an_environment_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    said = str(await problem("wss://relay.invalid"))
    assert words in said
    assert "secret-word" not in said


@pytest.mark.parametrize("key", ["with\nbreak", "Schlüssel"])
async def test_a_key_that_no_header_can_hold_is_refused_unseen(key: str) -> None:
    said = str(await problem("ws://127.0.0.1:1", "create", "x", key=key))
    assert "holds characters" in said
    assert key not in said


@pytest.mark.parametrize(
    ("url", "unprotected"),
    [
        ("ws://relay.invalid/ws", True),
        ("ws://192.0.2.1/ws", True),
        ("wss://relay.invalid/ws", False),
        ("ws://localhost:1/ws", False),
        ("ws://a.localhost/ws", False),
        ("ws://127.0.0.1:1/ws", False),
        ("ws://[::1]:1/ws", False),
    ],
)
def test_only_the_way_out_of_this_machine_needs_tls(url: str, unprotected: bool) -> None:
    assert is_unprotected(url) is unprotected
