"""The langchain backend and a LangGraph server that fails; a real one is in tests/frameworks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coralmux.bridge import Backend
from tests.bridge.asking import Outcome, outcome, question, started
from tests.bridge.doubles.http_exchange import Exchange, http_server

SCHEMA = {
    "input_schema": {"type": "object", "properties": {"messages": {"type": "array"}}},
}
KEY = "lsv2-secret-key"
RUN = "/threads/t1/runs/r1"


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def said(text: str) -> bytes:
    return event("messages", [{"type": "AIMessageChunk", "id": "m1", "content": text}, {}])


class Server:
    """Answers as a LangGraph server does until it is time to run."""

    def __init__(self, run: Callable[[Exchange], Awaitable[None]]) -> None:
        self._run = run
        self.keys: set[str] = set()
        self.cancelled: list[str] = []

    async def handle(self, exchange: Exchange) -> None:
        self.keys.add(exchange.headers.get("x-api-key", ""))
        path = exchange.path.partition("?")[0]
        if path == "/assistants/search":
            found = {"assistant_id": "a1", "graph_id": "agent", "name": "agent"}
            await exchange.respond(200, [found])
        elif path == "/assistants/a1/schemas":
            await exchange.respond(200, SCHEMA)
        elif path == "/threads":
            await exchange.respond(200, {"thread_id": exchange.json["thread_id"]})
        elif path.endswith("/state"):
            await exchange.respond(200, {"values": {}, "interrupts": []})
        elif path.endswith("/runs/stream"):
            await self._run(exchange)
        elif path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[-2])
            await exchange.respond(200, {})
        else:
            await exchange.respond(404, {"detail": "Not Found"})


@asynccontextmanager
async def served(
    run: Callable[[Exchange], Awaitable[None]], tmp_path: Path
) -> AsyncIterator[tuple[Server, Backend]]:
    server = Server(run)
    async with (
        http_server(server.handle) as root,
        started("langchain", tmp_path, base_url=root, api_key=KEY) as backend,
    ):
        yield server, backend


async def asked(run: Callable[[Exchange], Awaitable[None]], tmp_path: Path) -> Outcome:
    async with served(run, tmp_path) as (_, backend):
        return await outcome(backend, question())


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not take the key. Mend the setting `api_key`"),
        (403, "does not take the key. Mend the setting `api_key`"),
        (429, "takes no more questions just now. Try again later"),
        (422, "did not take the question (HTTP 422)"),
    ],
)
async def test_what_a_server_refuses_is_a_sentence(tmp_path: Path, status: int, said: str) -> None:
    async def run(exchange: Exchange) -> None:
        await exchange.respond(status, {"detail": f"no, not with {KEY}"})

    found = await asked(run, tmp_path)
    assert said in found.error
    assert KEY not in found.error


async def test_the_key_goes_out_and_none_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGSMITH_API_KEY", "of-another-service")

    async def run(exchange: Exchange) -> None:
        await exchange.begin(content_location=RUN)
        await exchange.send(said("Hello"))

    async with served(run, tmp_path) as (server, backend):
        assert (await outcome(backend, question())).text == "Hello"
        assert server.keys == {KEY}
    server = Server(run)
    async with (
        http_server(server.handle) as root,
        started("langchain", tmp_path, base_url=root) as backend,
    ):
        assert (await outcome(backend, question())).text == "Hello"
    assert server.keys == {""}


async def test_a_server_that_breaks_off_gives_what_it_said_and_one_sentence(
    tmp_path: Path,
) -> None:
    async def run(exchange: Exchange) -> None:
        await exchange.begin(content_location=RUN)
        await exchange.send(event("metadata", {"run_id": "r1"}))
        await exchange.send(said("So far"))
        exchange.cut()

    found = await asked(run, tmp_path)
    assert found.deltas == ["So far"]
    assert found.error == "The connection to the LangGraph server broke off. Ask again."


async def test_an_error_in_the_stream_is_told_by_its_class(tmp_path: Path) -> None:
    async def run(exchange: Exchange) -> None:
        await exchange.begin(content_location=RUN)
        await exchange.send(said("So far"))
        await exchange.send(event("error", {"error": "GraphRecursionError", "message": KEY}))

    found = await asked(run, tmp_path)
    assert found.deltas == ["So far"]
    assert "went around in circles" in found.error
    assert KEY not in found.error


async def test_a_cancelled_run_is_cancelled_on_the_server(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def run(exchange: Exchange) -> None:
        await exchange.begin(content_location=RUN)
        await exchange.send(said("Wait"))
        await exchange.gone()
        left.set()

    async with served(run, tmp_path) as (server, backend), asyncio.timeout(10):
        wanted = question()
        pieces = backend.reply(wanted)
        assert await anext(pieces) == "Wait"
        await pieces.aclose()
        await left.wait()
        await backend.abort(wanted)
        assert server.cancelled == ["r1"]
