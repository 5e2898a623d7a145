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

Data = bytes | bytearray | str


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

    __slots__ = ("_waiters", "close_code", "max_message_bytes")

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()
        # The code of the connection's end, 0 while it lasts.
        self.close_code = 0
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
    def idle(self) -> bool:
        """Whether no message that was read is still waiting or at work."""

    @property
    @abstractmethod
    def overdue(self) -> bool:
        """Whether reading has been paused for as long as the client can bear."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Take no more messages than were read so far (the relay is draining)."""

    @abstractmethod
    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        """Begin the end: write what is queued (or `discard` it), then the close frame."""

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
        "_clock",
        "_close_timeout",
        "_closing",
        "_full",
        "_hold_seconds",
        "_outgoing",
        "_queue",
        "_queued_bytes",
        "_reading_stopped",
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
        self._reading_stopped = False
        self._waiting_since = 0.0
        self._outgoing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def accept(self) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept"})
        self._writer = asyncio.create_task(self._write_all())

    async def receive(self) -> Data | TooLarge:
        self._busy = False
        if self._reading_stopped:
            await self._until_closed()
        if self.close_code:
            raise Disconnected(self.close_code)
        event = await self._receive()
        if self.close_code:
            raise Disconnected(self.close_code)
        if event["type"] == "websocket.disconnect":
            self._lost(event.get("code") or 1006)
            raise Disconnected(self.close_code)
        self._busy = True
        self._waiting_since = time.monotonic()
        text = event.get("text")
        data: Data = event["bytes"] if text is None else text
        return data

    async def _until_closed(self) -> None:
        while not self.close_code:
            await wait_for_change(self)

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
    def idle(self) -> bool:
        return not self._busy

    @property
    def overdue(self) -> bool:
        return self._busy and time.monotonic() - self._waiting_since >= self._hold_seconds

    def stop_reading(self) -> None:
        self._reading_stopped = True

    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        if self._closing or self.close_code:
            return
        self._closing = True
        if discard:
            self._drop_queue(keep=1 if self._queued_bytes and self._outgoing.is_set() else 0)
        self.close_code = code
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
        self._lost(self.close_code or 1006)

    async def _write_all(self) -> None:
        while True:
            while self._queue:
                data, origin, ref = self._queue[0]
                text = data if isinstance(data, str) else str(data, "utf-8")
                try:
                    async with asyncio.timeout(self._stall_timeout):
                        await self._send({"type": "websocket.send", "text": text})
                except TimeoutError:
                    self._lost(CloseCode.TOO_SLOW)
                    await self._send_close(CloseCode.TOO_SLOW)
                    return
                except Exception:  # each server has its own for a connection that is gone
                    self._lost(1006)
                    return
                if self._queue and self._queue[0] == (data, origin, ref):
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

    def _lost(self, code: int) -> None:
        self.close_code = self.close_code or code
        self._drop_queue()
        self.wake()

    def _drop_queue(self, keep: int = 0) -> None:
        dropped = [self._queue.pop() for _ in range(len(self._queue) - keep)]
        self._queued_bytes = sum(len(data) for data, _, _ in self._queue)
        self._full = False
        for _, origin, ref in reversed(dropped):
            if origin is not None:
                origin.undelivered(ref)
