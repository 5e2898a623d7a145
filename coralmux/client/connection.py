"""One role's place at the relay, kept for as long as it is wanted.

Theory of operation. `Connection.events` is the one who dials, logs in, reads and
comes back; nothing happens unless it is iterated. Beside it run two tasks while a
connection lives: the writer, which sends what was posted in the order of `post`,
and the keepalive. Neither outlives the connection. Whoever iterates sets the
pace: while an event is being worked on nothing more is read, beyond the few
messages that websockets reads ahead, and TCP holds the relay back.

What it does not know: what the messages mean, who may read them, and which of
them were answered. Source: PROTOCOL.md, "Connecting" and "Close codes".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator
from random import Random
from ssl import SSLContext
from types import TracebackType
from typing import Literal, Self

from websockets.exceptions import ConnectionClosed

from coralmux.client import backoff
from coralmux.client.backoff import DEFAULT_TIMERS, Backoff, Timers
from coralmux.client.dial import (
    ABNORMAL,
    Address,
    Ended,
    Socket,
    dial,
    log,
    log_in,
    object_of,
    understood,
)
from coralmux.client.errors import NotConnected
from coralmux.client.events import (
    Connected,
    Connecting,
    ConnectionEvent,
    Disconnected,
    Greeting,
    Limits,
    PeerStatus,
    Received,
    ServerInfo,
    Stopped,
)
from coralmux.protocol.limits import HIGH_WATER_BYTES, LOW_WATER_BYTES
from coralmux.protocol.types import Role

__all__ = [
    "Connected",
    "Connecting",
    "Connection",
    "ConnectionEvent",
    "Disconnected",
    "Greeting",
    "Limits",
    "PeerStatus",
    "Received",
    "ServerInfo",
    "Stopped",
    "Timers",
]

# Messages in one go, before others get their turn on the event loop.
_WRITTEN_AT_ONCE = 32

# Types that are between client and relay; they reach nobody but this module.
_OWN_TYPES = frozenset({"auth", "auth.ok", "auth.fail", "ping", "pong"})


class _Live:
    """A logged-in socket, with its queue of what is to be sent and its two tasks."""

    def __init__(self, socket: Socket, timers: Timers) -> None:
        self._socket = socket
        self._timers = timers
        self._queue: deque[tuple[str, bytes]] = deque()
        self.queued_bytes = 0
        self._full = False
        self._posted = asyncio.Event()
        # Set whenever somebody who waits for the queue should look at it again.
        self._moved = asyncio.Event()
        self.over = False
        self.dropped = 0
        self._tasks = [
            asyncio.create_task(self._write(), name="coralmux writer"),
            asyncio.create_task(
                socket.keep_alive(timers.ping, timers.ping_patience), name="coralmux keepalive"
            ),
        ]

    async def receive(self) -> PeerStatus | Received:
        """The next event. Raises Ended."""
        while True:
            envelope = understood(await self._socket.read())
            if envelope is not None:
                if envelope.type == "status":
                    peer = object_of(envelope).get("peer")
                    if peer in ("online", "offline"):
                        return PeerStatus(peer == "online")
                elif envelope.type not in _OWN_TYPES:
                    return Received(envelope)
            self.dropped += 1
            if self.dropped == 1:
                # One line, whatever the relay does; and nothing of the message in it.
                log.warning("dropped a message of the relay that is not valid")

    def post(self, data: bytes, id: str) -> None:
        self._queue.append((id, data))
        self.queued_bytes += len(data)
        if self.queued_bytes > HIGH_WATER_BYTES:
            self._full = True
        self._posted.set()

    async def drain(self) -> None:
        while self._full and not self.over:
            await self._wait_for_move()

    async def flush(self) -> None:
        while self._queue and not self.over:
            await self._wait_for_move()

    async def _wait_for_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def unsent(self) -> tuple[str, ...]:
        return tuple(id for id, _ in self._queue)

    async def _write(self) -> None:
        """Send what is posted, one after the other. Ends with the socket."""
        written = 0
        try:
            while True:
                while not self._queue:
                    self._posted.clear()
                    await self._posted.wait()
                _, data = self._queue[0]
                await self._socket.send(data, text=True)
                self._queue.popleft()
                self.queued_bytes -= len(data)
                if self.queued_bytes <= LOW_WATER_BYTES:
                    self._full = False
                    self._moved.set()
                written += 1
                if written % _WRITTEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except ConnectionClosed:
            pass
        except Exception:
            # A fault of ours: the reader notices that the connection broke.
            log.exception("writing to the relay failed")
            self._socket.abort()
        finally:
            self.over = True
            self._moved.set()

    async def shut(self) -> None:
        """End the tasks and close the socket. Idempotent; cancelled, it breaks off."""
        self.over = True
        self._moved.set()
        for task in self._tasks:
            task.cancel()
        try:
            await self._socket.shut(self._timers.close)
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)


class Connection:
    """The connection of one token and role to a relay.

        async with Connection("wss://relay.example.com/ws", token, Role.AGENT) as connection:
            async for event in connection.events():
                ...

    `relay` is the relay's ws(s) URL. TLS is verified against the system's certificates, or
    as `ssl` says. `proxy`: True takes the environment's (https_proxy, no_proxy, ...), None
    takes none, a URL takes that one. `random` decides the pauses (tests).

    Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        relay: str,
        token: str,
        role: Role,
        *,
        client_name: str = "coralmux",
        ssl: SSLContext | None = None,
        proxy: str | Literal[True] | None = True,
        timers: Timers = DEFAULT_TIMERS,
        random: Random | None = None,
    ) -> None:
        self._address = Address(relay, ssl, proxy)
        self._token = token
        self._role = role
        self._client_name = client_name
        self._timers = timers
        self._backoff = Backoff(role, timers=timers, random=random)
        self._live: _Live | None = None
        self._iterated = False
        self._warned = False
        self._opening: asyncio.Timeout | None = None
        self._closing = asyncio.Event()
        # Set by reconnect(), and by close() so that no pause outlasts it.
        self._asked = asyncio.Event()

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<Connection {self._address.shown} as {self._role.value}, {state}>"

    @property
    def connected(self) -> bool:
        """Whether `post` would take a message now."""
        return self._live is not None and not self._live.over

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Sending

    def post(self, data: bytes, *, id: str) -> None:
        """Queue an encoded envelope; what is posted is sent in the order of the calls.

        Never waits and never refuses for length: whoever sends much awaits `drain` in
        between. `id` is what `Disconnected.unsent` names the message by.
        Raises NotConnected.
        """
        self._require_live().post(data, id)

    async def drain(self) -> None:
        """Wait while too much is queued: from over 1 MiB until there is at most half of it.

        Raises NotConnected, also if the connection ends meanwhile.
        """
        live = self._require_live()
        await live.drain()
        if live.over:
            raise _not_connected()

    @property
    def queued_bytes(self) -> int:
        """What is posted and not yet written."""
        return 0 if self._live is None else self._live.queued_bytes

    def _require_live(self) -> _Live:
        if self._live is None or self._live.over:
            raise _not_connected()
        return self._live

    # The life of it

    def reconnect(self) -> None:
        """Come back now: skips the pause after Disconnected, and ends a Stopped not final.

        A time that the relay itself named is still waited for. Does nothing while there is
        a connection or an attempt at one.
        """
        self._asked.set()

    async def close(self) -> None:
        """Write what is posted (for 2 s at most), close with 1000, and end `events`. Idempotent."""
        self._closing.set()
        self._asked.set()
        if self._opening is not None:
            self._opening.reschedule(asyncio.get_running_loop().time())
        if (live := self._live) is not None:
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._timers.close):
                        await live.flush()
            finally:
                await live.shut()

    async def events(self) -> AsyncGenerator[ConnectionEvent, None]:
        """Dial, and tell what happens, over and over. Ends with a final Stopped, or `close`.

        Each Connecting is followed by Connected or the end of the attempt; each Connected by
        messages and its end; an end is Disconnected or Stopped. After a Stopped that is not
        final it waits for `reconnect`.

        One iterator at a time (RuntimeError). Left early it has to be closed: by
        contextlib.aclosing, or by `async with` around the connection.
        """
        if self._iterated:
            raise RuntimeError("events() is being iterated already")
        self._iterated = True
        attempt = 0
        warned = ""
        try:
            while not self._closing.is_set():
                attempt += 1
                yield Connecting(attempt)
                try:
                    greeting = await self._open()
                    attempt, warned = 0, ""
                    yield Connected(greeting)
                    while (live := self._live) is not None:
                        yield await live.receive()
                except Ended as error:
                    ended = error
                unsent = await self._hang_up()
                if self._closing.is_set():
                    return
                self._asked.clear()
                now = asyncio.get_running_loop().time()
                retry_after = None if ended.retry_at is None else ended.retry_at - now
                verdict = self._backoff.failed(now, ended.code, retry_after)
                if isinstance(verdict, backoff.Stop):
                    log.warning("%s: stopped: %s", self._address.shown, ended.cause)
                    yield Stopped(ended.code, ended.cause, ended.reason, unsent, verdict.final)
                    if verdict.final:
                        return
                    await self._asked.wait()
                    self._backoff.reset()
                    continue
                # A warning once for each reason: without a word nobody would find it.
                level = logging.WARNING if ended.cause != warned else logging.INFO
                warned = ended.cause
                log.log(
                    level,
                    "%s: %s (code %d); again in %.1f s",
                    self._address.shown,
                    ended.cause,
                    ended.code,
                    verdict.seconds,
                )
                yield Disconnected(ended.code, ended.reason, unsent, verdict.seconds, ended.cause)
                await self._pause(now + verdict.seconds, now + verdict.not_before)
        finally:
            self._iterated = False
            await self._hang_up()

    async def _open(self) -> Greeting:
        """Dial and log in. Raises Ended, also when `close` is called meanwhile."""
        if self._address.unprotected and not self._warned:
            self._warned = True
            log.warning(
                "%s has no TLS: the token travels readable for everybody on the way. "
                "Use a wss:// address.",
                self._address.shown,
            )
        try:
            # It never runs out, but close() from another task can end it at once.
            async with asyncio.timeout(None) as self._opening:
                socket = await dial(self._address, self._timers)
                try:
                    greeting = await log_in(
                        socket, self._token, self._role, self._client_name, self._timers
                    )
                except BaseException:
                    socket.abort()
                    raise
        except TimeoutError:
            raise Ended(ABNORMAL, "The connection was closed on this side.") from None
        finally:
            self._opening = None
        self._backoff.opened(asyncio.get_running_loop().time())
        self._live = _Live(socket, self._timers)
        log.info("%s: connected as %s", self._address.shown, self._role.value)
        return greeting

    async def _hang_up(self) -> tuple[str, ...]:
        """End what there is; the ids that are known not to have been sent."""
        live, self._live = self._live, None
        if live is None:
            return ()
        try:
            await live.shut()
        finally:
            if live.dropped:
                log.info("%s: %d messages dropped", self._address.shown, live.dropped)
        return live.unsent()

    async def _pause(self, until: float, not_before: float) -> None:
        """Wait until then, or until asked, but not beyond close()."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._asked.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(not_before):
                await self._closing.wait()


def _not_connected() -> NotConnected:
    return NotConnected("There is no connection to the relay now. Send it again once there is.")
