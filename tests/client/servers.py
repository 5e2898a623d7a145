"""Relays by script, on `websockets`; certificates; a proxy: what the real relay never does."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve

Script = Callable[[ServerConnection], Awaitable[None]]


@dataclass
class ScriptedRelay:
    """What it was asked for. `auths` are the payloads of the `auth` messages."""

    port: int = 0
    scheme: str = "ws"
    host: str = "127.0.0.1"
    visits: int = 0
    auths: list[dict[str, Any]] = field(default_factory=list)
    connections: list[ServerConnection] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/ws"

    async def greet(self, connection: ServerConnection, **payload: Any) -> None:
        """Take `auth`, answer `auth.ok` as a v1 relay does, or with this payload."""
        await self.take_auth(connection)
        await say(connection, "auth.ok", payload or {"paired": False})

    async def take_auth(self, connection: ServerConnection) -> None:
        message = json.loads(await connection.recv())
        assert message["type"] == "auth"
        self.auths.append(message["payload"])


async def say(
    connection: ServerConnection, type: str, payload: dict[str, Any], id: str = ""
) -> None:
    await connection.send(json.dumps({"v": 1, "type": type, "id": id, "ts": 0, "payload": payload}))


@contextlib.asynccontextmanager
async def scripted(
    script: Callable[[ScriptedRelay, ServerConnection], Awaitable[None]],
    *,
    ssl_context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    **options: Any,
) -> AsyncIterator[ScriptedRelay]:
    """A relay that does this with each connection, and closes it with 1000 afterwards."""
    relay = ScriptedRelay(scheme="ws" if ssl_context is None else "wss", host=host)

    async def serve_one(connection: ServerConnection) -> None:
        relay.visits += 1
        relay.connections.append(connection)
        with contextlib.suppress(websockets.ConnectionClosed):
            await script(relay, connection)

    defaults = {"compression": None, "ping_interval": None, "close_timeout": 0.2}
    async with serve(
        serve_one, "127.0.0.1", 0, ssl=ssl_context, **{**defaults, **options}
    ) as server:
        relay.port = server.sockets[0].getsockname()[1]
        try:
            yield relay
        finally:
            for connection in relay.connections:
                connection.transport.abort()


@contextlib.asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    receive_buffer: int | None = None,
) -> AsyncIterator[int]:
    """A TCP server for anything but WebSocket; its port. `receive_buffer` is in bytes."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            await handle(reader, writer)

    sock = socket.create_server(("127.0.0.1", 0))
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    server = await asyncio.start_server(serve_one, sock=sock)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for writer in writers:
                writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Proxy:
    """An HTTP proxy that knows CONNECT alone; `asked` are the targets."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    refuse_with: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        assert method == b"CONNECT", head
        self.asked.append(target.decode())
        if self.refuse_with:
            writer.write(b"HTTP/1.1 " + self.refuse_with + b"\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        # Names are the proxy's to look up; in these tests all of them are here.
        port = int(target.rpartition(b":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        finally:
            back.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def connect_proxy(*, refuse_with: bytes = b"") -> AsyncIterator[Proxy]:
    proxy = Proxy(refuse_with=refuse_with)
    async with listening(proxy.handle) as proxy.port:
        yield proxy


def certificate(
    directory: Path, *, name: str = "localhost", valid_from: int = -1, valid_to: int = 1
) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for a name and 127.0.0.1, valid between these days from
    now; its file, and a context for the server that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=valid_from))
        .not_valid_after(now + datetime.timedelta(days=valid_to))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    file, key_file = directory / "cert.pem", directory / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return file, context
