"""An OpenAI-compatible server that misbehaves as a test tells it to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.bridge.doubles.http_exchange import Exchange, http_server


class ChatServer:
    """`base_url` ends in /v1. `asked` holds the questions as they came; `answer` is what is
    done with one, `models` what the server has; None if it does not tell."""

    def __init__(self) -> None:
        self.base_url = ""
        self.asked: list[dict[str, Any]] = []
        self.exchanges: list[Exchange] = []
        self.models: list[str] | None = ["small"]
        self.answer: Callable[[Exchange], Awaitable[None]] = says("Hello", " there")

    async def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        listed = self.models is not None and exchange.path == "/v1/models"
        if exchange.method == "GET" and listed:
            await exchange.respond(200, {"data": [{"id": name} for name in self.models or ()]})
        elif exchange.method == "POST" and exchange.path == "/v1/chat/completions":
            self.asked.append(exchange.json)
            await self.answer(exchange)
        else:
            await exchange.respond(404, {"error": {"message": "File Not Found"}})


@contextlib.asynccontextmanager
async def chat_server(port: int = 0) -> AsyncIterator[ChatServer]:
    server = ChatServer()
    async with http_server(server.handle, port=port) as root:
        server.base_url = f"{root}/v1"
        yield server


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(text: str | None = None, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text, **more}}]})


def finish(reason: str = "stop") -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


DONE = b"data: [DONE]\n\n"


def streams(*raw: bytes) -> Callable[[Exchange], Awaitable[None]]:
    """Answers with these chunks, and ends the stream in good order."""

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in raw:
            await exchange.send(piece)

    return answer


def says(*texts: str) -> Callable[[Exchange], Awaitable[None]]:
    return streams(*map(delta, texts), finish(), DONE)


def refuses(
    status: int, body: bytes | dict[str, Any] = b"", **headers: str
) -> Callable[[Exchange], Awaitable[None]]:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(status, body, **headers)

    return answer


def one_after_another(
    *answers: Callable[[Exchange], Awaitable[None]],
) -> Callable[[Exchange], Awaitable[None]]:
    """The first question gets the first answer; the last one stays."""
    left = list(answers)

    async def answer(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return answer
