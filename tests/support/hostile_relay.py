"""A relay between a real phone and a real agent that does to their messages as it likes.

Without orders it is honest: `auth.ok`, `status`, the newest connection wins, byte for byte
forwarding, PEER_OFFLINE. It serves one pair, in this process and event loop. What it may
do beyond that is in `tests.support.interference` and `tests.support.middle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from websockets import ConnectionClosed
from websockets.asyncio.server import Server, ServerConnection, serve

from coralmux.protocol import (
    CloseCode,
    Envelope,
    ErrorCode,
    InvalidMessage,
    NotUtf8,
    Role,
    decode,
    encode,
    error_payload,
    rate_class,
)
from coralmux.protocol.close_codes import REASONS
from coralmux.protocol.limits import (
    AGENT_MESSAGES_PER_MINUTE,
    DAILY_QUOTA_BYTES,
    MAX_MESSAGE_BYTES,
    MONTHLY_QUOTA_BYTES,
    PHONE_MESSAGES_PER_MINUTE,
    STREAM_FRAMES_PER_SECOND,
)


@dataclass(frozen=True)
class Frame:
    """A message as its sender wrote it.

    `meeting` counts the connections up to then, of both sides together; `at` is
    `time.monotonic()`.
    """

    sender: Role
    data: bytes = field(repr=False)
    envelope: Envelope = field(repr=False)
    meeting: int = 0
    at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def type(self) -> str:
        return self.envelope.type

    @property
    def id(self) -> str:
        return self.envelope.id

    @property
    def payload(self) -> dict[str, Any]:
        """Decoded anew each time, so that it may be changed freely."""
        return dict(json.loads(bytes(self.envelope.payload)))

    def rewritten(
        self, *, type: str | None = None, id: str | None = None, payload: Any = None
    ) -> bytes:
        """The same message but for what is given."""
        return encode(
            self.type if type is None else type,
            self.payload if payload is None else payload,
            ts=self.envelope.ts,
            id=self.id if id is None else id,
        )


# What is forwarded instead of a frame: bytes go to the sender's peer.
Outputs = Iterable[bytes | tuple[Role, bytes]]
Tamper = Callable[[Frame], Outputs]


class _Side:
    """An authenticated connection. What it is told goes out in order, without waiting."""

    def __init__(self, role: Role, connection: ServerConnection) -> None:
        self.role = role
        self.connection = connection
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write())

    def tell(self, data: bytes) -> None:
        self._outgoing.put_nowait(data)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.connection.send(await self._outgoing.get(), text=True)

    async def stop_writing(self) -> None:
        self._writer.cancel()
        await asyncio.wait([self._writer])


class HostileRelay:
    """`async with HostileRelay() as relay`, then connect to `relay.url`.

    `token`: the only one taken; None takes any. `v1`: `auth.ok` announces nothing beyond
    the contract of version 1. `limits` overrides what is announced.

    `frames` is what the two sides sent, `delivered` what the relay passed on. An
    exception in `tamper` loses the frame and is raised when the relay is left.
    """

    def __init__(
        self, *, token: str | None = None, v1: bool = False, limits: dict[str, int] | None = None
    ) -> None:
        self.frames: list[Frame] = []
        self.delivered: list[tuple[Role, bytes]] = []
        self.tamper: Tamper | None = None
        self.meetings = 0
        self._token = token
        self._v1 = v1
        self._limits = limits or {}
        self._port = 0
        self._sides: dict[Role, _Side] = {}
        self._held: dict[Role, list[bytes]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._faults: list[Exception] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, type: object, error: BaseException | None, _: object) -> None:
        await self.stop()
        if self._faults and error is None:
            raise self._faults[0]
        for fault in self._faults:
            error.add_note(f"and in the hostile relay: {fault!r}")  # type: ignore[union-attr]

    async def start(self) -> None:
        """Listen; on the same port as before if it did already."""
        self._server: Server = await serve(
            self._serve, "127.0.0.1", self._port, max_size=MAX_MESSAGE_BYTES, ping_interval=None
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close both sides, as a relay does that goes away."""
        self._server.close(code=CloseCode.RESTARTING, reason=REASONS[CloseCode.RESTARTING])
        await self._server.wait_closed()
        if self._closing:
            await asyncio.wait(self._closing)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/ws"

    def connected(self, role: Role) -> bool:
        return role in self._sides

    def sent(self, sender: Role, type: str | None = None) -> list[Frame]:
        """The frames of one side, of one type if that is given."""
        return [f for f in self.frames if f.sender is sender and type in (None, f.type)]

    def inject(self, role: Role, data: bytes) -> None:
        """Send this to a side as if the other had; LookupError when it is not there."""
        self.delivered.append((role, data))
        self._sides[role].tell(data)

    def drop_connection(self, role: Role, code: int | None = None) -> None:
        """Close a side with this code; without one, cut the TCP connection."""
        side = self._sides[role]
        if code is None:
            side.connection.transport.abort()
        else:
            self._close(side, code)

    def hold(self, role: Role) -> None:
        """Keep what is for this side until `release`."""
        self._held.setdefault(role, [])

    def release(
        self, role: Role, order: Callable[[list[bytes]], Iterable[bytes]] = lambda kept: kept
    ) -> None:
        """Deliver what was kept, in this order."""
        for data in order(self._held.pop(role)):
            self.inject(role, data)

    async def _serve(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            role = await self._authenticate(connection)
            if role is None:
                return
            side = _Side(role, connection)
            try:
                self._arrive(side)
                async for data in connection:
                    self._receive(side, data.encode() if isinstance(data, str) else data)
            finally:
                self._depart(side)
                await side.stop_writing()

    async def _authenticate(self, connection: ServerConnection) -> Role | None:
        try:
            async with asyncio.timeout(10):
                first = decode(await connection.recv())
        except TimeoutError:
            await connection.close(CloseCode.AUTH_TIMEOUT)
            return None
        payload = json.loads(bytes(first.payload))
        known = self._token in (None, payload.get("token"))
        if first.type == "auth" and known and payload.get("role") in set(Role):
            return Role(payload["role"])
        refusal = error_payload(ErrorCode.UNAUTHORIZED, "unknown token or role", ref=first.id)
        await connection.send(_message("auth.fail", refusal), text=True)
        await connection.close(CloseCode.UNAUTHORIZED)
        return None

    def _arrive(self, side: _Side) -> None:
        self.meetings += 1
        if old := self._sides.get(side.role):
            self._close(old, CloseCode.REPLACED)
        self._sides[side.role] = side
        peer = self._sides.get(side.role.peer)
        side.tell(_message("auth.ok", self._greeting(side.role, paired=peer is not None)))
        if peer is not None:
            peer.tell(_message("status", {"peer": "online"}))

    def _depart(self, side: _Side) -> None:
        if self._sides.get(side.role) is side:
            del self._sides[side.role]
            if peer := self._sides.get(side.role.peer):
                peer.tell(_message("status", {"peer": "offline"}))

    def _close(self, side: _Side, code: int) -> None:
        closing = asyncio.create_task(side.connection.close(code))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _greeting(self, role: Role, *, paired: bool) -> dict[str, Any]:
        greeting = {
            "paired": paired,
            "daily_quota_bytes": DAILY_QUOTA_BYTES,
            "daily_used_bytes": 0,
        }
        if self._v1:
            return greeting
        a_minute = {Role.PHONE: PHONE_MESSAGES_PER_MINUTE, Role.AGENT: AGENT_MESSAGES_PER_MINUTE}
        limits = {
            "max_message_bytes": MAX_MESSAGE_BYTES,
            "messages_per_minute": a_minute[role],
            "stream_frames_per_second": STREAM_FRAMES_PER_SECOND,
        }
        return {
            **greeting,
            "monthly_quota_bytes": MONTHLY_QUOTA_BYTES,
            "monthly_used_bytes": 0,
            "limits": {**limits, **self._limits},
            "connection_id": f"c{self.meetings}",
            "server": {"name": "hostile-relay", "version": "0", "protocol": 2},
        }

    def _receive(self, side: _Side, data: bytes) -> None:
        if self._sides.get(side.role) is not side:
            return  # replaced, and not quite gone yet
        try:
            envelope = decode(data)
        except NotUtf8:
            self._close(side, CloseCode.NOT_UTF8)
        except InvalidMessage as error:
            side.tell(_error(ErrorCode.INVALID_MESSAGE, str(error), error.ref))
        else:
            if envelope.type == "ping":
                side.tell(_message("pong", {}, id=envelope.id))
            elif rate_class(envelope.type, side.role) is None:
                text = "A message of this type is not forwarded"
                side.tell(_error(ErrorCode.INVALID_MESSAGE, text, envelope.id))
            else:
                self._forward(Frame(side.role, data, envelope, self.meetings))

    def _forward(self, frame: Frame) -> None:
        self.frames.append(frame)
        try:
            outputs = [frame.data] if self.tamper is None else list(self.tamper(frame))
        except Exception as error:
            self._faults.append(error)
            return
        for output in outputs:
            role, data = output if isinstance(output, tuple) else (frame.sender.peer, output)
            if role in self._held:
                self._held[role].append(data)
            elif role in self._sides:
                self.inject(role, data)
            elif sender := self._sides.get(frame.sender):
                sender.tell(_error(ErrorCode.PEER_OFFLINE, "The other side is away", frame.id))


def _message(type: str, payload: dict[str, Any], *, id: str | None = None) -> bytes:
    return encode(type, payload, ts=int(time.time() * 1000), id=id)


def _error(code: ErrorCode, text: str, ref: str) -> bytes:
    return _message("chat.error", error_payload(code, text, ref=ref))
