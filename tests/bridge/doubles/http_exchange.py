"""A small HTTP server whose every byte a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.client import SOON


@dataclass
class Exchange:
    """One request, and the way to answer it. The connection ends with it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    _reader: asyncio.StreamReader = field(repr=False)
    _writer: asyncio.StreamWriter = field(repr=False)
    streams: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def respond(
        self, status: int, body: bytes | dict[str, Any] | list[Any] = b"", **headers: str
    ) -> None:
        """The whole answer; JSON unless it is bytes. `content_type` and the like are headers."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("content_type", "application/json")
        await self._head(status, headers | {"content_length": str(len(body))})
        await self._write(body)

    async def begin(self, content_type: str = "text/event-stream", **headers: str) -> None:
        self.streams = True
        headers |= {"content_type": content_type, "transfer_encoding": "chunked"}
        await self._head(200, headers)

    async def send(self, raw: bytes) -> None:
        """A chunk of what was begun."""
        await self._write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def cut(self) -> None:
        """Close without another word."""
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Return once the client has left."""
        async with asyncio.timeout(SOON):
            while await self._reader.read(4096):
                pass

    async def finish(self) -> None:
        if self.streams:
            await self._write(b"0\r\n\r\n")

    async def _head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Some words", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def _write(self, raw: bytes) -> None:
        self._writer.write(raw)
        await self._writer.drain()


Handler = Callable[[Exchange], Awaitable[None]]


@contextlib.asynccontextmanager
async def http_server(
    handler: Handler, *, ssl: tls.SSLContext | None = None, port: int = 0
) -> AsyncIterator[str]:
    """The root URL. What a handler raises, other than a broken connection, fails the test."""
    failures: list[BaseException] = []
    open_now: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            exchange = await _read_request(reader, writer)
            if exchange is not None:
                await handler(exchange)
                await exchange.finish()
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            open_now.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=ssl)
    try:
        yield f"http{'s' if ssl else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in open_now:
            task.cancel()
        if open_now:
            await asyncio.wait(open_now)
    if failures:
        raise failures[0]


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Exchange | None:
    try:
        start = await reader.readexactly(1)
        if start == b"\x16":  # a client that wants TLS
            writer.write(b"HTTP/1.1 400 Bad request\r\nConnection: close\r\n\r\n")
            return None
        head = (start + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Exchange(method, path, headers, body, reader, writer)
