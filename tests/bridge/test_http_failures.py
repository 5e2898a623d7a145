"""Why an AI server did not do what it was asked: a sentence for each cause."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from coralmux.bridge import Backend
from tests.bridge.asking import outcome, question, started
from tests.bridge.doubles.chat_server import (
    DONE,
    chat_server,
    delta,
    event,
    finish,
    refuses,
    says,
    streams,
)
from tests.bridge.doubles.http_exchange import Exchange, http_server
from tests.client.servers import certificate
from tests.support.process import free_port

KEY = "sk-0123456789abcdef"


def backend_at(base_url: str, directory: Path, **settings: Any) -> Any:
    settings = {"model": "small", "api_key": KEY} | settings
    return started("openai", directory, base_url=base_url, **settings)


async def failure(backend: Backend) -> str:
    """What the next question's user reads; never the key."""
    error = (await outcome(backend, question())).error
    assert error
    assert KEY not in error
    assert error.endswith((".", "”"))
    return error


async def failure_at(base_url: str, directory: Path, **settings: Any) -> str:
    async with backend_at(base_url, directory, **settings) as backend:
        return await failure(backend)


# No connection


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_that_does_not_run_is_named_by_host_and_port(
    tmp_path: Path, host: str
) -> None:
    port = free_port()
    error = await failure_at(f"http://me:secret-word@{host}:{port}/v1", tmp_path)
    assert f"Nobody listens at {host}:{port}" in error
    assert "secret-word" not in error


async def test_a_name_with_several_addresses_that_all_refuse_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()

    def both(*args: object, **more: object) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (host, port)) for host in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert "Nobody listens" in await failure_at(f"http://ai.invalid:{port}/v1", tmp_path)


async def test_a_name_that_nobody_has_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await failure_at("http://ai.invalid/v1", tmp_path)
    assert "The name of the AI server at ai.invalid:80 is not known" in error


async def test_a_server_that_cannot_be_reached_in_time_is_told(tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # What is behind the first connections waits for a place that never comes.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        error = await failure_at(f"http://127.0.0.1:{port}/v1", tmp_path, connect_timeout=0.2)
        for each in waiting:
            each.close()
    assert "could not be reached within" in error


async def test_a_certificate_that_nobody_signed_is_not_trusted(tmp_path: Path) -> None:
    _, context = certificate(tmp_path)

    async def never(exchange: Exchange) -> None:
        raise AssertionError("the question went out")

    async with http_server(never, ssl=context) as root:
        error = await failure_at(f"{root}/v1", tmp_path)
    assert "is signed by nobody whom this machine trusts" in error
    assert "SSL_CERT_FILE" in error


async def test_a_certificate_can_be_trusted_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with http_server(says("Hello"), ssl=context) as root, backend_at(root, tmp_path) as to:
        assert (await outcome(to, question())).text == "Hello"


async def test_whom_this_machine_trusts_counts_and_not_a_list_that_httpx_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = certificate(tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr("certifi.where", lambda: str(file))
    async with http_server(says("Hello"), ssl=context) as root:
        assert "signed by nobody" in await failure_at(root, tmp_path)


async def test_a_server_without_tls_is_told(tmp_path: Path) -> None:
    async with chat_server() as server:
        error = await failure_at(server.base_url.replace("http:", "https:"), tmp_path)
    assert "No TLS connection" in error
    assert "begins with http://" in error


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{}", "socks5://127.0.0.1:{}"])
async def test_a_proxy_is_asked_for_other_machines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("all_proxy", proxy.format(free_port()))
    async with chat_server() as server, backend_at(server.base_url, tmp_path) as backend:
        assert (await outcome(backend, question())).text == "Hello there"
    assert "proxy" in await failure_at("http://ai.invalid/v1", tmp_path)


# Refused


def error_body(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x"}}


PAGE = b"<html><body><h1>Bad gateway</h1></body></html>"


@pytest.mark.parametrize(
    ("status", "body", "headers", "texts"),
    [
        (401, error_body(f"Incorrect key {KEY}"), {}, ["not take the API key", "Check api_key"]),
        (401, error_body("Incorrect key sk-abc***xyz9"), {}, ["“Incorrect key …”"]),
        (403, b"", {}, ["does not allow this", "Check api_key"]),
        (402, error_body("No credits"), {}, ["paid", "“No credits”"]),
        (404, b"404 page not found", {}, ["nothing at /v1/chat/completions", "Check base_url"]),
        (404, error_body("model 'small' not found"), {}, ["does not know the model 'small'"]),
        (400, error_body("The model `small` does not exist"), {}, ["not know the model 'small'"]),
        (413, b"", {}, ["larger than the AI server takes"]),
        (429, error_body("Slow down"), {"Retry-After": "20"}, ["“Slow down”", "again in 20 s."]),
        (429, b"", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, ["Try again later."]),
        (500, {"detail": [{"msg": "CUDA\nout of memory"}]}, {}, ["“CUDA out of memory”"]),
        (502, PAGE, {"Content-Type": "text/html"}, ["failed (HTTP 502). Try again"]),
        (503, error_body("Loading model"), {}, ["“Loading model”", "in a moment"]),
        (307, b"", {"Location": "https://other.example/x?k=1"}, ["on to https://other.example,"]),
        (400, error_body("x" * 5000), {}, ["xxx…”"]),
        (418, b"{" * 100_000, {}, ["HTTP 418"]),
    ],
)
async def test_a_refusal_is_explained(
    tmp_path: Path, status: int, body: Any, headers: dict[str, str], texts: list[str]
) -> None:
    async with chat_server() as server:
        server.answer = refuses(status, body, **headers)
        error = await failure_at(server.base_url, tmp_path)
    for text in texts:
        assert text in error
    assert len(error) < 600


async def test_a_key_of_any_form_is_cut_out(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.answer = refuses(500, error_body("Who is any-old-words?"))
        error = await failure_at(server.base_url, tmp_path, api_key="any-old-words")
    assert "“Who is …?”" in error


async def test_a_missing_key_is_told_apart_from_a_wrong_one(tmp_path: Path) -> None:
    async with chat_server() as server:
        server.answer = refuses(401)
        assert "wants an API key" in await failure_at(server.base_url, tmp_path, api_key="")


async def test_an_address_without_v1_is_told(tmp_path: Path) -> None:
    async with chat_server() as server:
        error = await failure_at(server.base_url.removesuffix("/v1"), tmp_path)
    assert "nothing at /chat/completions" in error
    assert "ends in /v1" in error


# Broken off


async def cut_off(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.send(delta("Half"))
    exchange.cut()


async def cut_at_once(exchange: Exchange) -> None:
    exchange.cut()


async def never_closes_a_chunk(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.send(delta("Half"))
    exchange.streams = False


@pytest.mark.parametrize(
    ("answer", "text", "error"),
    [
        (cut_at_once, "", "closed the connection before it had answered"),
        (cut_off, "Half", "before the end of its answer"),
        (never_closes_a_chunk, "Half", "before the end of its answer"),
        (streams(delta("Half")), "Half", "before the end of its answer"),
        (streams(delta("Half"), b'data: {"choices": [{"del'), "Half", "nobody can read"),
        (streams(delta("Half"), event(error_body("Overloaded"))), "Half", "“Overloaded”"),
        (streams(delta("Half"), event({"error": "Gone"})), "Half", "“Gone”"),
        (streams(b'event: error\ndata: {"message": "Bad"}\n\n'), "", "“Bad”"),
        (streams(delta("Half"), finish("content_filter")), "Half", "its filter"),
        (streams(delta("Half"), finish("error")), "Half", "broke off"),
        (streams(b"data: what?\n\n"), "", "no OpenAI-compatible server"),
        (streams(b"data: [1, 2]\n\n"), "", "no OpenAI-compatible server"),
        (streams(delta("Half"), b"\xff\x00\xfe garbage" * 50), "Half", "before the end"),
        (refuses(200, PAGE, content_type="text/html"), "", "no OpenAI-compatible server"),
        (refuses(200, b"It works!", content_type="text/plain"), "", "no OpenAI-compatible server"),
        (refuses(200, {"status": "ok"}), "", "no OpenAI-compatible server"),
    ],
)
async def test_an_answer_that_breaks_off_is_kept_and_explained(
    tmp_path: Path, answer: Any, text: str, error: str
) -> None:
    async with chat_server() as server, backend_at(server.base_url, tmp_path) as backend:
        server.answer = answer
        found = await outcome(backend, question())
        assert found.text == text
        assert error in found.error
        server.answer = says("Well", " again")
        assert (await outcome(backend, question())).text == "Well again"


async def test_a_line_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.bridge.web.event_stream.MAX_EVENT_BYTES", 100_000)

    async def endless(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(delta("Half") + b"data: ")
        while True:
            await exchange.send(b"x" * 10_000)

    async with chat_server() as server, backend_at(server.base_url, tmp_path) as backend:
        server.answer = endless
        found = await outcome(backend, question())
    assert (found.text, "more at once than an answer" in found.error) == ("Half", True)


async def test_a_body_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.bridge.web.completion_server._LARGEST_BODY", 100_000)

    async def endless(exchange: Exchange) -> None:
        await exchange.begin("application/json")
        while True:
            await exchange.send(b"[" * 10_000)

    async with chat_server() as server, asyncio.timeout(10):
        server.answer = endless
        assert "no OpenAI-compatible server" in await failure_at(server.base_url, tmp_path)


async def test_whatever_is_no_utf_8_is_replaced(tmp_path: Path) -> None:
    async with chat_server() as server, backend_at(server.base_url, tmp_path) as backend:
        server.answer = streams(
            b'data: {"choices":[{"delta":{"content":"Gr\xffn"}}]}\r\n\r\n', finish(), DONE
        )
        assert (await outcome(backend, question())).text == "Gr\N{REPLACEMENT CHARACTER}n"


async def test_leaving_an_answer_ends_it_at_the_server(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def babble(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(delta("Half"))
        await exchange.gone()
        left.set()

    async with chat_server() as server, backend_at(server.base_url, tmp_path) as backend:
        server.answer = babble
        pieces = backend.reply(question())
        assert await anext(pieces) == "Half"
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(5):
            await left.wait()
