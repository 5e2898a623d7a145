"""The Socket that Daphne lacks: bounded input, bounded output, and a proper end.

Input. Frames are parsed as they arrive and queue up to the high-water mark;
beyond it the transport is paused and the unread remainder kept. Control frames
are answered as they are parsed, so a slowed client still gets its pongs.

Output. See outbox.py.

End. Every end that is ours sends a close frame behind the queue. Then the
client's close frame is awaited, or, where its bytes can no longer be parsed,
its end of the TCP stream; whatever it still sends is thrown away.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from coralmux.protocol.close_codes import REASONS, CloseCode
from coralmux.protocol.limits import (
    DISCARD_BYTES,
    HIGH_WATER_BYTES,
    LOW_WATER_BYTES,
    MAX_AUTH_BYTES,
)
from coralmux_site import frames
from coralmux_site.frames import Closing, FrameReader, Oversize, Ping, ProtocolViolation
from coralmux_site.outbox import Outbox, Writer
from relay.limits import TokenBucket
from relay.sockets import Data, Disconnected, Origin, Socket, TooLarge

# What a message that waits costs beside its bytes, so that a million empty ones are
# not counted as nothing.
_OVERHEAD_BYTES = 64

# Whoever forwards asks `full` first, so a queue above this and one message is made
# of the relay's own words, to a client that takes them drop by drop.
_MOST_QUEUED_BYTES = 4 * HIGH_WATER_BYTES

# Frames that carry no message (pongs, pings, small fragments): far above what a
# client needs, far below what would keep the loop busy.
_ODD_PER_SECOND = 500.0
_ODD_BURST = 2_000.0

# Messages that one connection may handle before the others get their turn.
_TURN_MESSAGES = 16

# Above this size a header is not copied together with its payload.
_JOIN_BYTES = 16 * 1024


class Transport(Writer, Protocol):
    """What the flow needs of a TCP connection."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def accept(self) -> None: ...
    def end_output(self) -> None:
        """Send FIN, read on."""

    def finish(self) -> None:
        """Close, after what is buffered."""

    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FlowTimers:
    """Seconds; see docs/settings.md."""

    ping: float
    silence: float
    stall: float
    hold: float
    close: float
    drain: float


class FlowSocket(Socket):
    """One WebSocket of our own server. All times are of time.monotonic()."""

    __slots__ = (
        "_accepted",
        "_current_bytes",
        "_deadline",
        "_discard_left",
        "_discarding",
        "_finish_when_written",
        "_heard_at",
        "_inbox",
        "_inbox_bytes",
        "_limit_known",
        "_lost",
        "_odd",
        "_odd_resume_at",
        "_outbox",
        "_overdue",
        "_paused_at",
        "_paused_by_inbox",
        "_pinged_at",
        "_reader",
        "_reading_stopped",
        "_receiver",
        "_timers",
        "_transport",
        "_turn",
        "_unanswered",
    )

    def __init__(self, transport: Transport, timers: FlowTimers) -> None:
        super().__init__()
        now = time.monotonic()
        self._transport = transport
        self._timers = timers
        self._accepted = False
        self._lost = False
        # Input
        self._reader = FrameReader(MAX_AUTH_BYTES)
        self._limit_known = False
        self._inbox: deque[Data | TooLarge] = deque()
        self._inbox_bytes = 0
        self._current_bytes = 0
        self._receiver: asyncio.Future[None] | None = None
        self._turn = 0
        self._odd = TokenBucket(_ODD_PER_SECOND, _ODD_BURST)
        self._odd_resume_at = 0.0
        self._paused_at = 0.0
        self._paused_by_inbox = False
        self._overdue = False
        self._reading_stopped = False
        self._heard_at = now
        self._pinged_at = now
        # Output
        self._outbox = Outbox(transport, on_drained=self.wake, on_empty=self._written_out)
        self._unanswered: Ping | None = None
        # End
        self._deadline = 0.0
        self._discarding = False
        self._discard_left = DISCARD_BYTES
        self._finish_when_written = False

    # Socket: what the consumer uses

    async def accept(self) -> None:
        if self._lost:
            raise Disconnected(self.close_code)
        self._transport.accept()
        self._accepted = True
        self._heard_at = self._pinged_at = time.monotonic()

    async def receive(self) -> Data | TooLarge:
        if self._current_bytes:
            self._inbox_bytes -= self._current_bytes
            self._current_bytes = 0
            if self._paused_at and self._inbox_bytes <= LOW_WATER_BYTES:
                self._pump()
        self._turn += 1
        if self._turn >= _TURN_MESSAGES:
            self._turn = 0
            await asyncio.sleep(0)
        while not self._inbox:
            if self.close_code:
                raise Disconnected(self.close_code)
            self._turn = 0
            self._receiver = asyncio.get_running_loop().create_future()
            await self._receiver
        message = self._inbox.popleft()
        if not isinstance(message, TooLarge):
            self._current_bytes = len(message) + _OVERHEAD_BYTES
        if not self._limit_known and self.max_message_bytes:
            self._set_limit()
        return message

    def write(self, data: Data, origin: Origin | None = None, ref: str = "") -> bool:
        if self.close_code:
            return False
        if self._outbox.queued_bytes > _MOST_QUEUED_BYTES + self.max_message_bytes:
            self.close(CloseCode.TOO_SLOW, discard=True)
            return False
        size = len(data)
        header = frames.text_header(size)
        if size <= _JOIN_BYTES:
            self._outbox.put([header + data], origin, ref)
        else:
            self._outbox.put([header, data], origin, ref)
        return True

    @property
    def full(self) -> bool:
        return self._outbox.full

    @property
    def idle(self) -> bool:
        return not self._inbox and not self._current_bytes

    @property
    def overdue(self) -> bool:
        return self._overdue

    def stop_reading(self) -> None:
        self._reading_stopped = True
        self._pump()

    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        if discard or not self.close_code:
            # What was read and not handled is unanswered. (When it is the client that
            # ends, what it sent before that is handled first, unless a newer connection
            # has its place or the token is no good any more: see receive.)
            self._inbox.clear()
        if self.close_code:
            return
        self.ended_by = "relay"
        self._end(code, frames.close_frame(code, REASONS[code]), discard=discard)
        # Reading goes on, for the client's close frame.
        self._pump()

    # What the protocol calls

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard_at = time.monotonic()
        if self._discarding:
            self._discard_left -= len(data)
            if self._discard_left < 0:
                self._transport.abort()
            return
        self._reader.feed(data)
        self._pump()

    def written(self) -> None:
        """Twisted has written all that it was given."""
        if self._outbox.written():
            self._answer_ping()

    def cut_off(self) -> None:
        """End the connection at once, without a word more."""
        self._transport.abort()

    def lost(self) -> None:
        """The TCP connection is gone: what was not written is not delivered."""
        self._lost = True
        if not self.close_code:
            self.close_code, self.ended_by = 1006, "loss"
        self._outbox.drop(keep_begun=False)
        self._wake_receiver()
        self.wake()

    def tick(self, now: float) -> None:
        """Look at every timer; called a few times in the shortest of them."""
        if not self._accepted or self._lost:
            return
        timers = self._timers
        if self.close_code:
            if now >= self._deadline:
                self._transport.abort()
            return
        if self._paused_at:
            self._tick_paused(now)
        elif not self._outbox and now - self._heard_at >= timers.silence:
            self.close(CloseCode.TOO_SLOW, discard=True)
            return
        if self._outbox and now - self._outbox.progress_at >= timers.stall:
            self.close(CloseCode.TOO_SLOW, discard=True)
            return
        if now - self._pinged_at >= timers.ping:
            self._pinged_at = now
            self._outbox.put([frames.ping_frame()])
        if (oversize := self._reader.head_so_far()) is not None:
            self._refuse_oversize(oversize)
            self._wake_receiver()

    def _tick_paused(self, now: float) -> None:
        # The clock of silence stands while it is us who do not read.
        self._heard_at = now
        if self._paused_by_inbox:
            if not self._overdue and now - self._paused_at >= self._timers.hold:
                self._overdue = True
                self.wake()
        elif now >= self._odd_resume_at:
            self._pump()

    # Input

    def _set_limit(self) -> None:
        self._limit_known = True
        self._reader.limit = self.max_message_bytes

    def _pump(self) -> None:
        """Parse what there is, as far as it may be taken, then pause or go on reading."""
        if not self._limit_known and self.max_message_bytes:
            self._set_limit()
        arrived = False
        while (blocked := self._blocked()) is None and not self._discarding:
            try:
                event = self._reader.next()
            except ProtocolViolation as violation:
                self._fail(violation.code)
                break
            if event is None:
                break
            if isinstance(event, (bytes, bytearray)):
                if not self.close_code:
                    self._inbox.append(event)
                    self._inbox_bytes += len(event) + _OVERHEAD_BYTES
                    arrived = True
            elif isinstance(event, Closing):
                self._client_closes(event.code)
                break
            elif isinstance(event, Oversize):
                self._refuse_oversize(event)
                arrived = True
            else:
                if isinstance(event, Ping):
                    self._unanswered = event
                self._spend_odd()
        self._answer_ping()
        if arrived:
            self._wake_receiver()
        self._set_paused(blocked)

    def _blocked(self) -> str | None:
        """Why nothing more is taken now, or None."""
        if self.close_code:
            return None
        if self._reading_stopped:
            return "draining"
        if self._inbox_bytes >= (
            LOW_WATER_BYTES + 1 if self._paused_by_inbox else HIGH_WATER_BYTES
        ):
            return "inbox"
        if not self._limit_known and (self._inbox or self._current_bytes):
            # Behind auth, until the limits of its token are known.
            return "login"
        if self._discarding:
            return "oversize"
        if self._odd_resume_at > time.monotonic():
            return "odd"
        return None

    def _set_paused(self, blocked: str | None) -> None:
        self._paused_by_inbox = blocked == "inbox"
        if blocked and not self._paused_at:
            self._paused_at = time.monotonic()
            self._transport.pause()
        elif not blocked and self._paused_at:
            self._paused_at = 0.0
            self._overdue = False
            self._heard_at = time.monotonic()
            self._transport.resume()

    def _spend_odd(self) -> None:
        now = time.monotonic()
        wait = self._odd.take(now)
        if wait:
            # A tenth of a second's worth at a time, so that the timer is not busy.
            self._odd_resume_at = now + max(wait, 0.1)

    def _refuse_oversize(self, event: Oversize) -> None:
        """The rest is thrown away, and read only when the close frame is on its way."""
        self._discarding = True
        self._inbox.append(TooLarge(event.head))

    def _answer_ping(self) -> None:
        """Only the latest ping needs an answer (RFC 6455, section 5.5.3), and none
        while the output is full, or pongs that nobody reads would pile up."""
        if self._unanswered is not None and not self._outbox.full and not self.close_code:
            ping, self._unanswered = self._unanswered, None
            self._outbox.put([frames.pong_frame(ping.payload)])

    def _wake_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    # Output

    def _written_out(self) -> None:
        """Nothing is queued any more."""
        if self._finish_when_written:
            self._transport.finish()
        elif self.close_code and self._discarding:
            self._transport.end_output()

    # The end

    def _end(self, code: int, close_frame: bytes, *, discard: bool) -> None:
        self.close_code = code
        seconds = self._timers.close if discard or not self._outbox else self._timers.drain
        self._deadline = time.monotonic() + seconds
        if discard:
            self._outbox.drop(keep_begun=True)
        if self._accepted:
            self._outbox.put([close_frame])
            if not self._outbox and self._discarding:
                self._transport.end_output()
        self._wake_receiver()
        self.wake()

    def _fail(self, code: CloseCode) -> None:
        """The client's bytes make no sense any more."""
        self._discarding = True
        if not self.close_code:
            self.ended_by = "relay"
            self._end(code, frames.close_frame(code, REASONS[code]), discard=False)

    def _client_closes(self, code: int) -> None:
        if not self.close_code:
            # It reads no more, so what is queued for it is not delivered.
            self.ended_by = "client"
            echo = code if code != 1005 else CloseCode.NORMAL
            self._end(code, frames.close_frame(echo), discard=True)
        self._discarding = True
        self._finish_when_written = True
        if not self._outbox:
            self._transport.finish()
