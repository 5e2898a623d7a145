"""One WebSocket as the relay sees it, with flow control in both directions.

`coralmux_site.server` hands its own Socket to the consumer through the ASGI
scope (`scope["extensions"]["coralmux.socket"]`). Under any other ASGI server
`AsgiSocket` builds the same on `receive` and `send`: its output is bounded here
too, its input is as bounded as that server makes it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from coralmux.protocol.close_codes import REASONS, CloseCode
from coralmux.protocol.limits import HIGH_WATER_BYTES, LOW_WATER_BYTES

# A message: UTF-8, sent as a text frame.
Data = bytes | bytearray


class Disconnected(Exception):
    """The connection has ended, or its end has begun; `code` is the close code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A message over the limit was refused at its header; `head` is its beginning."""

    head: bytes


class Origin(Protocol):
    """Who sent a frame, and hears of it when it was not written."""

    def undelivered(self, ref: str) -> None: ...


class Socket(ABC):
    """`write` never waits; whoever writes asks `full` first and waits by `wait_for_change`."""

    __slots__ = ("_waiters", "close_code", "ended_by", "max_message_bytes")

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()
        # The code of the connection's end, 0 while it lasts, and whose it is:
        # "relay", "client", or "loss" where TCP just broke.
        self.close_code = 0
        self.ended_by = ""
        # The limit on the next message; only a server of ours enforces it at the header.
        self.max_message_bytes = 0

    @abstractmethod
    async def accept(self) -> None:
        """Complete the opening handshake."""

    @abstractmethod
    async def receive(self) -> Data | TooLarge:
        """The next message. Raises Disconnected."""

    @abstractmethod
    def write(self, data: Data, origin: Origin | None = None, ref: str = "") -> bool:
        """Queue a text message, above the high-water mark too; False if the end has begun.

        Should the connection end before the message was written to it,
        `origin.undelivered(ref)` is called.
        """

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether the output has risen above the high-water mark and not yet sunk
        below the low one."""

    @property
    @abstractmethod
    def overdue(self) -> bool:
        """Whether reading has been paused for as long as the client can bear."""

    @abstractmethod
    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        """Begin the end: write what is queued (or `discard` it), then the close frame.

        With `discard` the messages that were read and not yet received are dropped
        too, even if the client has begun the end itself.
        """

    def wake(self) -> None:
        """Tell all who wait that something about this socket has changed."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


async def wait_for_change(*sockets: Socket, seconds: float | None = None) -> None:
    """Wait until one of the sockets drains, ends or becomes overdue, or for so long."""
    waiter = asyncio.get_running_loop().create_future()
    for socket in sockets:
        socket._waiters.add(waiter)
    try:
        async with asyncio.timeout(seconds):
            await waiter
    except TimeoutError:
        pass
    finally:
        for socket in sockets:
            socket._waiters.discard(waiter)


Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class AsgiSocket(Socket):
    """The Socket over plain ASGI: a bounded queue and one task that empties it."""

    __slots__ = (
        "_busy",
        "_close_timeout",
        "_closing",
        "_full",
        "_hold_seconds",
        "_outgoing",
        "_queue",
        "_queued_bytes",
        "_receive",
        "_send",
        "_stall_timeout",
        "_waiting_since",
        "_writer",
    )

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        hold_seconds: float,
        stall_timeout: float,
        close_timeout: float,
    ) -> None:
        super().__init__()
        self._receive = receive
        self._send = send
        self._hold_seconds = hold_seconds
        self._stall_timeout = stall_timeout
        self._close_timeout = close_timeout
        self._queue: deque[tuple[Data, Origin | None, str]] = deque()
        self._queued_bytes = 0
        self._full = False
        self._closing = False
        self._busy = False
        self._waiting_since = 0.0
        self._outgoing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def accept(self) -> None:
        event = await self._receive()
        if event["type"] != "websocket.connect":
            self._lost(event.get("code"))
            raise Disconnected(self.close_code)
        await self._send({"type": "websocket.accept"})
        self._writer = asyncio.create_task(self._write_all())

    async def receive(self) -> Data | TooLarge:
        self._busy = False
        if self.close_code:
            raise Disconnected(self.close_code)
        event = await self._receive()
        if self.close_code:
            raise Disconnected(self.close_code)
        if event["type"] == "websocket.disconnect":
            self._lost(event.get("code"))
            raise Disconnected(self.close_code)
        self._busy = True
        self._waiting_since = time.monotonic()
        # Limits and quotas count bytes, so text is encoded here, once.
        text: str | None = event.get("text")
        data: Data = event["bytes"] if text is None else text.encode()
        return data

    def write(self, data: Data, origin: Origin | None = None, ref: str = "") -> bool:
        if self._closing or self.close_code:
            return False
        self._queue.append((data, origin, ref))
        self._queued_bytes += len(data)
        if self._queued_bytes > HIGH_WATER_BYTES:
            self._full = True
        self._outgoing.set()
        return True

    @property
    def full(self) -> bool:
        return self._full

    @property
    def overdue(self) -> bool:
        return self._busy and time.monotonic() - self._waiting_since >= self._hold_seconds

    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        if self._closing or self.close_code:
            return
        self._closing = True
        if discard:
            self._drop_queue(keep=1 if self._queued_bytes and self._outgoing.is_set() else 0)
        self.close_code, self.ended_by = code, "relay"
        self._outgoing.set()
        self.wake()

    async def closed(self) -> None:
        """Wait for the writer to have written everything and the close frame."""
        if self._writer is not None:
            async with asyncio.timeout(self._close_timeout):
                await asyncio.shield(self._writer)

    def abandon(self) -> None:
        """Stop writing; whatever is queued is undelivered."""
        if self._writer is not None:
            self._writer.cancel()
        self._lost()

    async def _write_all(self) -> None:
        while True:
            while self._queue:
                outgoing = self._queue[0]
                data = outgoing[0]
                text = str(data, "utf-8")
                try:
                    async with asyncio.timeout(self._stall_timeout):
                        await self._send({"type": "websocket.send", "text": text})
                except TimeoutError:
                    self.close_code, self.ended_by = CloseCode.TOO_SLOW, "relay"
                    self._lost()
                    await self._send_close(CloseCode.TOO_SLOW)
                    return
                except Exception:  # each server has its own for a connection that is gone
                    self._lost()
                    return
                if self._queue and self._queue[0] is outgoing:
                    self._queue.popleft()
                    self._queued_bytes -= len(data)
                if self._full and self._queued_bytes <= LOW_WATER_BYTES:
                    self._full = False
                    self.wake()
            if self._closing:
                await self._send_close(CloseCode(self.close_code))
                return
            self._outgoing.clear()
            await self._outgoing.wait()

    async def _send_close(self, code: CloseCode) -> None:
        # Daphne refuses to send the codes between 1000 and 3000, and would leave the
        # connection open; so 1007 becomes 4007 there, and so on.
        for sent in (int(code), int(code) + 3000):
            try:
                async with asyncio.timeout(self._close_timeout):
                    await self._send(
                        {"type": "websocket.close", "code": sent, "reason": REASONS[code]}
                    )
                return
            except Exception:  # refused, or the connection is gone already
                if not CloseCode.NORMAL < sent < 3000:
                    return

    def _lost(self, code: int | None = None) -> None:
        """The connection is gone; `code` is the client's, None or 1006 if it just broke."""
        if not self.close_code:
            self.close_code = code or 1006
            self.ended_by = "loss" if self.close_code == 1006 else "client"
        self._drop_queue()
        self.wake()

    def _drop_queue(self, keep: int = 0) -> None:
        dropped = [self._queue.pop() for _ in range(len(self._queue) - keep)]
        self._queued_bytes = sum(len(data) for data, _, _ in self._queue)
        self._full = False
        for _, origin, ref in reversed(dropped):
            if origin is not None:
                origin.undelivered(ref)
