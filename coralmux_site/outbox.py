"""The output of one WebSocket: straight to the kernel, or queued with its sender.

A frame is written at once if nothing waits before it. What the kernel does not
take stays here, so that when the connection ends we know which frames were not
written, and can tell who sent them. Twisted only ever holds one small piece, as
a means to be told when the socket is writable again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from coralmux.protocol.limits import HIGH_WATER_BYTES, LOW_WATER_BYTES
from relay.sockets import Origin

# What a queued piece costs beside its bytes: it has its sender and ref with it.
_OVERHEAD_BYTES = 256

# The piece given to Twisted to learn when the socket is writable again.
_PROBE_BYTES = 4 * 1024

# Small frames are written together up to so many bytes.
_GATHER_BYTES = 64 * 1024
_GATHER_PIECES = 256

Piece = bytes | bytearray | memoryview


class Writer(Protocol):
    """What the output needs of a TCP connection."""

    def send_now(self, pieces: list[Piece]) -> int:
        """Bytes that the kernel took, without waiting."""

    def send_later(self, data: bytes) -> None:
        """Write, and have `Outbox.written` called when it is all in the kernel."""


class _Outgoing:
    """A piece of a frame that waits. `begun`: some of it is out; `continues`: it is the
    payload to the header before it. The last piece of a frame knows the sender."""

    __slots__ = ("begun", "continues", "origin", "ref", "view")

    def __init__(
        self, view: Piece, origin: Origin | None, ref: str, *, begun: bool, continues: bool
    ) -> None:
        self.view = view
        self.origin = origin
        self.ref = ref
        self.begun = begun
        self.continues = continues


class Outbox:
    """The frames of one connection that the kernel has not taken.

    `on_drained` is called when a full outbox has sunk to the low-water mark,
    `on_empty` when the last of a queue was written.
    """

    __slots__ = (
        "_handed",
        "_on_drained",
        "_on_empty",
        "_queue",
        "_writer",
        "full",
        "progress_at",
        "queued_bytes",
    )

    def __init__(
        self, writer: Writer, *, on_drained: Callable[[], None], on_empty: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._on_drained = on_drained
        self._on_empty = on_empty
        self._queue: deque[_Outgoing] = deque()
        # Bytes that Twisted has of the first piece.
        self._handed = 0
        self.queued_bytes = 0
        self.full = False
        # When the kernel last took something of a queue, by time.monotonic().
        self.progress_at = 0.0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._queue)

    def waiting(self) -> bytes:
        """All that waits, as it will be written."""
        return b"".join(bytes(outgoing.view) for outgoing in self._queue)

    def put(self, pieces: list[Piece], origin: Origin | None = None, ref: str = "") -> None:
        """Write a frame, or queue what the kernel does not take."""
        sent = 0
        if not self._queue:
            sent = self._writer.send_now(pieces)
            if sent == sum(map(len, pieces)):
                return
            self.progress_at = time.monotonic()
        for piece in pieces:
            size = len(piece)
            if sent >= size:
                sent -= size
                continue
            # Whole pieces stay as they are: a view costs more than a short message.
            view = memoryview(piece)[sent:] if sent else piece
            last = piece is pieces[-1]
            self._queue.append(
                _Outgoing(
                    view,
                    origin if last else None,
                    ref if last else "",
                    begun=sent > 0,
                    continues=piece is not pieces[0],
                )
            )
            self.queued_bytes += len(view) + _OVERHEAD_BYTES
            sent = 0
        if self.queued_bytes > HIGH_WATER_BYTES:
            self.full = True
        if not self._handed:
            self._probe()

    def written(self) -> bool:
        """Twisted has written what it was given; whether that was anything of ours."""
        handed, self._handed = self._handed, 0
        if handed:
            self._advance(handed)
            self._flush()
        return bool(handed)

    def drop(self, *, keep_begun: bool) -> None:
        """Empty the queue; the senders of what is dropped hear of it, in order.

        A frame that is partly out must go out whole (`keep_begun`), or no close
        frame could follow.
        """
        kept: deque[_Outgoing] = deque()
        dropped: list[_Outgoing] = []
        keep = keep_begun
        for outgoing in self._queue:
            keep = keep_begun and (outgoing.begun or (outgoing.continues and keep))
            (kept if keep else dropped).append(outgoing)
        self._queue = kept
        if not kept:
            self._handed = 0
        self.queued_bytes = sum(len(item.view) + _OVERHEAD_BYTES for item in kept)
        self.full = False
        for outgoing in dropped:
            if outgoing.origin is not None:
                outgoing.origin.undelivered(outgoing.ref)

    def _probe(self) -> None:
        head = self._queue[0]
        piece = bytes(head.view[:_PROBE_BYTES])
        head.begun = True
        self._handed = len(piece)
        self._writer.send_later(piece)

    def _flush(self) -> None:
        while self._queue:
            pieces = self._gather()
            sent = self._writer.send_now(pieces)
            self._advance(sent)
            if sent < sum(map(len, pieces)):
                self._probe()
                return
        self._on_empty()

    def _gather(self) -> list[Piece]:
        pieces: list[Piece] = []
        size = 0
        for outgoing in self._queue:
            pieces.append(outgoing.view)
            size += len(outgoing.view)
            if size >= _GATHER_BYTES or len(pieces) >= _GATHER_PIECES:
                break
        return pieces

    def _advance(self, sent: int) -> None:
        if not sent:
            return
        self.progress_at = time.monotonic()
        self.queued_bytes -= sent
        while sent:
            head = self._queue[0]
            size = len(head.view)
            if sent < size:
                head.view = memoryview(head.view)[sent:]
                head.begun = True
                break
            sent -= size
            self._queue.popleft()
            self.queued_bytes -= _OVERHEAD_BYTES
        if self.full and self.queued_bytes <= LOW_WATER_BYTES:
            self.full = False
            self._on_drained()
