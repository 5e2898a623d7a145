"""A TCP connection in memory, for a FlowSocket to be tested on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from coralmux.protocol.limits import MAX_MESSAGE_BYTES
from coralmux_site.flow import FlowSocket, FlowTimers
from relay.sockets import Data, TooLarge

TIMERS = FlowTimers(ping=30, silence=60, stall=30, hold=8, close=2, drain=6)


class FakeTransport:
    """A TCP connection: `wire` is what the kernel took, `room` what it takes yet."""

    def __init__(self, room: int = 0) -> None:
        self.wire = bytearray()
        self.room = room
        # The client at the other end, and the frames that it has read.
        self._client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self.frames: list[Frame] = []
        self._whole_bytes = 0
        self.waiting = b""
        self.paused = False
        self.output_ended = False
        self.finished = False
        self.aborted = False
        self.socket: FlowSocket

    def send_now(self, pieces: list[bytes | bytearray | memoryview]) -> int:
        assert not self.waiting, "bytes would overtake those that wait"
        assert len(pieces) <= 1024, "more than sendmsg() takes"
        return self._take(b"".join(pieces))

    def send_later(self, data: bytes) -> None:
        assert not self.waiting
        assert data
        self.waiting = data

    def drain(self, room: int) -> None:
        """Make room; whoever waited for it is told."""
        self.room += room
        while self.waiting and self.room:
            self.waiting = self.waiting[self._take(self.waiting) :]
            if not self.waiting:
                self.socket.written()

    def _take(self, data: bytes) -> int:
        assert not self.output_ended
        taken = min(len(data), self.room)
        self.wire += data[:taken]
        self.room -= taken
        self._client.receive_data(data[:taken])
        for frame in self._client.events_received():
            assert isinstance(frame, Frame)
            self.frames.append(frame)
            self._whole_bytes += len(frame.serialize(mask=False))
        assert self._client.parser_exc is None, self._client.parser_exc
        return taken

    @property
    def whole(self) -> bool:
        """Whether the last frame is out to its end."""
        return len(self.wire) == self._whole_bytes

    def data(self, opcode: Opcode) -> list[bytes]:
        return [bytes(frame.data) for frame in self.frames if frame.opcode is opcode]

    def pause(self) -> None:
        assert not self.paused
        self.paused = True

    def resume(self) -> None:
        assert self.paused
        self.paused = False

    def accept(self) -> None:
        pass

    def end_output(self) -> None:
        assert not self.waiting
        self.output_ended = True

    def finish(self) -> None:
        assert not self.waiting
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


class Sender:
    """The origin of frames; it hears of those that were not written."""

    def __init__(self) -> None:
        self.undelivered_refs: list[str] = []

    def undelivered(self, ref: str) -> None:
        self.undelivered_refs.append(ref)


def step(coroutine: Coroutine[Any, Any, Data | TooLarge]) -> Data | TooLarge:
    """Run a receive() that has no reason to wait, except for its turn."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


def open_socket(room: int = 0) -> tuple[FlowSocket, FakeTransport]:
    transport = FakeTransport(room)
    socket = transport.socket = FlowSocket(transport, TIMERS)
    with pytest.raises(StopIteration):
        socket.accept().send(None)  # type: ignore[attr-defined]
    socket.max_message_bytes = MAX_MESSAGE_BYTES
    return socket, transport


def text(payload: bytes) -> bytes:
    return Frame(Opcode.TEXT, payload).serialize(mask=True)


def control(opcode: Opcode, payload: bytes = b"") -> bytes:
    return Frame(opcode, payload).serialize(mask=True)
