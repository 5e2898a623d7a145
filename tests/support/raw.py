"""Clients that a library would not let us be: they answer nothing by themselves,
send bytes as told, and can have a receive buffer so small that a pause is felt."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

from tests.support.client import SOON

CLOSE, PING, TEXT, BINARY, CONTINUATION, PONG = (
    Opcode.CLOSE,
    Opcode.PING,
    Opcode.TEXT,
    Opcode.BINARY,
    Opcode.CONT,
    Opcode.PONG,
)


def frame(opcode: Opcode, payload: bytes | str = b"", *, fin: bool = True) -> bytes:
    """A masked frame, as a client sends it."""
    data = payload.encode() if isinstance(payload, str) else payload
    return Frame(opcode, data, fin=fin).serialize(mask=True, extensions=[])


def header(opcode: Opcode, length: int) -> bytes:
    """The header of a frame whose payload need never follow."""
    return bytes((0x80 | opcode, 0xFF)) + struct.pack("!Q", length) + b"\0\0\0\0"


class RawClient:
    """A WebSocket after its handshake, as a stream of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send(self, *texts: str) -> None:
        """Whole text frames in one write."""
        await self.send_bytes(b"".join(frame(TEXT, text) for text in texts))

    async def read_frame(self, within: float = SOON) -> tuple[Opcode, bytes]:
        """The next frame's opcode and payload. Raises EOFError (IncompleteReadError)."""
        async with asyncio.timeout(within):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return Opcode(first & 0x0F), await self.reader.readexactly(length)

    async def read_text(self, within: float = SOON) -> str:
        """The next text message, whatever pings come before it."""
        while True:
            opcode, payload = await self.read_frame(within)
            if opcode is TEXT:
                return payload.decode()
            assert opcode in (PING, PONG), (opcode, payload)

    async def close_code(self, within: float = SOON) -> int:
        """Read on to the close frame; its code, or 1006 if the stream ends without one."""
        try:
            while True:
                opcode, payload = await self.read_frame(within)
                if opcode is CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (EOFError, ConnectionError):
            return 1006

    def abort(self) -> None:
        """Reset the TCP connection, as a phone that loses its network seems to."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_connect(url: str, *, narrow: bool = False) -> AsyncIterator[RawClient]:
    """A WebSocket opened by hand."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    if narrow:
        reader, writer = await asyncio.open_connection(sock=narrow_socket(url), limit=4096)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def narrow_socket(url: str) -> socket.socket:
    """A connected socket that holds some kilobytes: who stops reading it is soon noticed."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((parts.hostname, parts.port))
    sock.setblocking(False)
    return sock


def narrow_options(url: str) -> dict[str, object]:
    """Options for `connect` and `log_in`: a client that buffers next to nothing,
    so that it is stuck whenever nobody receives from it."""
    return {"sock": narrow_socket(url), "max_queue": 1, "close_timeout": 0.1}
