"""From an address and a token to a logged-in WebSocket, or to the reason why not."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl as ssl_module
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from coralmux import __version__, protocol
from coralmux.client import causes
from coralmux.client.backoff import Timers
from coralmux.client.events import Greeting, count
from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.envelope import Envelope
from coralmux.protocol.limits import MAX_MESSAGE_BYTES
from coralmux.protocol.types import Role

log = logging.getLogger("coralmux")

PROTOCOL_VERSION = 2

# No close code came (RFC 6455, section 7.1.5).
ABNORMAL = 1006

# Bytes: a relay with a limit of its own may pass on a little more than the contract's.
_MAX_SIZE = MAX_MESSAGE_BYTES + 64 * 1024

# How many messages websockets reads ahead of whoever reads them.
_READ_AHEAD = 16

# A `send` of websockets returns when this is met: all of it is with the kernel (under TLS,
# with the TLS layer). Whatever is not is known to be unsent.
_WRITE_LIMIT = (1, 0)

# Bytes that the kernel may hold without having sent them. Without this it takes megabytes
# on a slow line, which count as written, and behind which a ping waits for too long.
_NOT_SENT_BYTES = 64 * 1024

# websockets logs whole frames, the token among them, where its logger says DEBUG. This one
# belongs to no tree that a configuration reaches, and passes on what matters.
_websockets_log = logging.Logger("coralmux.websockets", logging.WARNING)
_websockets_log.parent = log


class Ended(Exception):
    """A connection, or an attempt at one, ended. `reason` is the relay's own words."""

    def __init__(
        self, code: int, cause: str, *, reason: str = "", retry_at: float | None = None
    ) -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.reason = reason
        self.retry_at = retry_at


def object_of(envelope: Envelope) -> dict[str, Any]:
    """The payload, decoded; empty where it cannot be."""
    try:
        payload = msgspec.json.decode(envelope.payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


# The socket


class Socket(ClientConnection):
    """A WebSocket that knows when it last heard anything, and ends within bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard_at = self.loop.time()
        self.lost = False
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux and macOS have it
        if sock is not None and option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, _NOT_SENT_BYTES)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)

    async def read(self) -> bytes:
        """The next message. Raises Ended."""
        try:
            return await self.recv(decode=False)
        except ConnectionClosed as closed:
            raise self.ended(closed) from None

    def ended(self, closed: ConnectionClosed) -> Ended:
        """Why it is closed."""
        if self.silent:
            return Ended(ABNORMAL, causes.SILENCE)
        if closed.sent is not None and not closed.rcvd_then_sent and closed.sent.code != 1000:
            return Ended(ABNORMAL, causes.UNREADABLE)
        if closed.rcvd is None:
            return Ended(ABNORMAL, causes.BROKE)
        reason = causes.plain(closed.rcvd.reason)
        return Ended(closed.rcvd.code, causes.of_code(closed.rcvd.code), reason=reason)

    async def keep_alive(self, interval: float, patience: float) -> None:
        """Ping every so often; break the connection off once nothing comes after a ping.

        Anything counts as life, not the pong alone, and so does progress with what we
        write: a ping may wait behind megabytes. While our own reader is busy nothing can
        come, so the clock stands; but not where it is our writing that does not get on, for
        that may be what the reader waits for.
        """
        while True:
            await asyncio.sleep(interval)
            if self.state is not State.OPEN:
                return
            asked = alive_at = self.loop.time()
            self.protocol.send_ping(b"")
            self.send_data()
            backlog = self.transport.get_write_buffer_size()
            while self.heard_at < asked:
                await asyncio.sleep(patience / 10)
                before, backlog = backlog, self.transport.get_write_buffer_size()
                if backlog < before or (self.recv_messages.paused and not backlog):
                    alive_at = self.loop.time()
                elif self.heard_at < asked and self.loop.time() - alive_at > patience:
                    self.silent = True
                    self.transport.abort()
                    return

    async def shut(self, seconds: float) -> None:
        """Close with 1000 and wait for the answer, so many seconds at most. Idempotent.

        Cancelled or out of time, it breaks the connection off.
        """
        try:
            if not self.lost:
                async with asyncio.timeout(seconds):
                    await self.close()
        except TimeoutError:
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        if not self.lost:
            self.transport.abort()


class _Dial(connect):
    """websockets' connect, which follows no redirects: the token goes where it was meant to."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@dataclass(frozen=True, slots=True)
class Address:
    """A relay's ws(s) URL, and how to get there."""

    url: str
    ssl: ssl_module.SSLContext | None
    proxy: str | Literal[True] | None

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            well = parts.scheme in ("ws", "wss") and parts.hostname and not parts.fragment
            well = well and parts.port != 0
        except ValueError:  # a port that is none, a bracket that is not closed
            well = False
        if not well:
            # The text repeats nothing of it: somebody may have put a whole link here.
            raise ValueError(
                "The relay's address must look like wss://relay.example.com/ws "
                "(ws:// without TLS), without a fragment."
            )
        if parts.scheme == "ws" and self.ssl is not None:
            raise ValueError("ssl is for relays whose address begins with wss://.")

    @property
    def shown(self) -> str:
        """Scheme, host and port, for logs: path and query may hold secrets."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def unprotected(self) -> bool:
        """Whether the token would travel readable for everybody on the way."""
        parts = urllib.parse.urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "wss" or host == "localhost" or host.endswith(".localhost"):
            return False
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return True

    @property
    def proxied(self) -> bool:
        return bool(self.proxy) and (self.proxy is not True or causes.environment_proxies(self.url))


async def dial(address: Address, timers: Timers) -> Socket:
    """A WebSocket to the relay, not logged in. Raises Ended."""
    options: dict[str, Any] = {} if address.ssl is None else {"ssl": address.ssl}
    try:
        ws = await _Dial(
            address.url,
            compression=None,
            proxy=address.proxy,
            open_timeout=timers.open,
            ping_interval=None,
            close_timeout=timers.close,
            max_size=_MAX_SIZE,
            max_queue=_READ_AHEAD,
            write_limit=_WRITE_LIMIT,
            logger=_websockets_log,
            create_connection=Socket,
            **options,
        )
    except Exception as error:
        # Whatever it is, there is no connection: an agent at home has to go on trying.
        raise Ended(ABNORMAL, causes.of_failure(error, proxied=address.proxied)) from None
    assert isinstance(ws, Socket)
    return ws


# Logging in


async def log_in(ws: Socket, token: str, role: Role, client_name: str, timers: Timers) -> Greeting:
    """Send `auth`, and read until it is answered. Raises Ended; the socket stays open."""
    hello = {
        "token": token,
        "role": role.value,
        "protocol": PROTOCOL_VERSION,
        "client": {"name": client_name, "version": __version__},
    }
    told = Told()
    try:
        async with asyncio.timeout(timers.auth):
            await ws.send(protocol.encode("auth", hello, ts=milliseconds()), text=True)
            answer = await _answer(ws, told)
        if answer.type == "auth.ok":
            return Greeting.read(object_of(answer))
        told.note(object_of(answer))
        code = await _code_behind_refusal(ws, timers)
        ended = Ended(code, causes.of_code(code))
    except TimeoutError:
        ended = Ended(ABNORMAL, causes.NO_AUTH_ANSWER)
    except ConnectionClosed as closed:
        ended = ws.ended(closed)
    except Ended as error:
        ended = error
    raise told.added_to(ended) from None


async def _answer(ws: Socket, told: Told) -> Envelope:
    """The first auth.ok or auth.fail."""
    while True:
        envelope = understood(await ws.read())
        if envelope is not None:
            if envelope.type in ("auth.ok", "auth.fail"):
                return envelope
            if envelope.type == "chat.error":
                told.note(object_of(envelope))


async def _code_behind_refusal(ws: Socket, timers: Timers) -> int:
    """After `auth.fail`: the close code tells a revoked token from an unknown one."""
    try:
        async with asyncio.timeout(timers.close):
            while True:
                await ws.read()
    except TimeoutError:
        return CloseCode.UNAUTHORIZED
    except Ended as ended:
        # v1 relays just cut the connection.
        revoked = ended.code == CloseCode.REVOKED
        return CloseCode.REVOKED if revoked else CloseCode.UNAUTHORIZED


class Told:
    """What the relay said before the end, in `chat.error` or `auth.fail`."""

    def __init__(self) -> None:
        self._words = ""
        self._retry_at: float | None = None

    def note(self, payload: dict[str, Any]) -> None:
        self._words = causes.plain(payload.get("message"))
        wait = count(payload.get("retry_after_ms"))
        if wait is not None:
            self._retry_at = asyncio.get_running_loop().time() + wait / 1000

    def added_to(self, ended: Ended) -> Ended:
        cause = ended.cause + causes.quoted(self._words)
        return Ended(ended.code, cause, reason=ended.reason, retry_at=self._retry_at)


def understood(data: bytes) -> Envelope | None:
    """The envelope, or None for what is none: to be dropped."""
    try:
        return protocol.decode(data)
    except (protocol.InvalidMessage, protocol.NotUtf8):
        return None


def milliseconds() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000
