"""WebSocket frames (RFC 6455, section 5), read and written without I/O.

autobahn, which Daphne builds on, opens the connection; from then on this
reader takes the bytes. It costs about a microsecond a frame where autobahn
takes thirty, and that holds for fragments and control frames too: a flood of
the odd ones must not cost more than a flood of the common one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from coralmux.protocol.close_codes import CloseCode

try:
    from websockets.speedups import apply_mask
except ImportError:
    # Where there is no wheel for the platform: slower, and the same.
    from websockets.utils import apply_mask

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# Payloads from this size on are unmasked into place as they arrive; smaller
# ones wait in the read buffer until they are whole, which is simpler and faster.
_ASSEMBLE_BYTES = 32 * 1024

# A fragment under this size is counted as odd by the caller (see Odd).
_SMALL_FRAGMENT_BYTES = 512

# How much of an oversized message is kept to find its id in.
_HEAD_BYTES = 1024
_HEAD_ENOUGH_BYTES = 64

_U16 = struct.Struct("!H")
_U64 = struct.Struct("!Q")

# Codes that may stand in a close frame (RFC 6455, section 7.4, and IANA's registry).
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class ProtocolViolation(Exception):
    """The bytes are not what RFC 6455 allows; the connection fails with `code`."""

    def __init__(self, text: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


class Odd(Enum):
    """Frames that carry no message and so meet no allowance of the session."""

    PONG = "pong"
    FRAGMENT = "small fragment"


class _Silent(Enum):
    """A fragment like any other: on to the next frame."""

    FRAGMENT = "fragment"


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Closing:
    """A close frame; `code` is 1005 where it had none."""

    code: int


@dataclass(frozen=True, slots=True)
class Oversize:
    """A message is over the limit. `head` is its beginning; nothing more is read."""

    head: bytes


Event = bytes | bytearray | Ping | Closing | Oversize | Odd


class FrameReader:
    """Feed it bytes, take events until there is none. A message is one event,
    `bytes` or `bytearray`, whole and unmasked, text and binary alike.

    Raises ProtocolViolation. After that, or after Oversize, it is of no more use:
    where the next frame begins can no longer be told.
    """

    __slots__ = (
        "_body",
        "_body_final",
        "_body_length",
        "_body_mask",
        "_buffer",
        "_message",
        "_oversize",
        "_position",
        "limit",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = b""
        self._position = 0
        # A data frame being assembled, its full length and mask.
        self._body: bytearray | None = None
        self._body_length = 0
        self._body_mask = b""
        self._body_final = True
        # The fragments so far of a fragmented message.
        self._message: bytearray | None = None
        # The mask of an oversized frame whose head is still to come.
        self._oversize: bytes | None = None

    def feed(self, data: bytes) -> None:
        if self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + data
        else:
            self._buffer = data
        self._position = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes fed and not yet taken."""
        return len(self._buffer) - self._position

    def next(self) -> Event | None:
        """The next event, or None until more bytes are fed."""
        while (event := self._next()) is _Silent.FRAGMENT:
            pass
        return event

    def _next(self) -> Event | _Silent | None:
        if self._body is not None:
            return self._fill_body()
        if self._oversize is not None:
            return self._refuse(enough=_HEAD_ENOUGH_BYTES)
        buffer, start = self._buffer, self._position
        available = len(buffer) - start
        if available < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        if first & 0x70:
            raise ProtocolViolation("reserved bits are set")
        if not second & 0x80:
            raise ProtocolViolation("client frames must be masked")
        opcode = first & 0x0F
        length = second & 0x7F
        if opcode >= _CLOSE:
            return self._control(opcode, first, length)
        if opcode == _CONTINUATION:
            if self._message is None:
                raise ProtocolViolation("continuation without a message")
        elif opcode > _BINARY:
            raise ProtocolViolation("reserved opcode")
        elif self._message is not None:
            raise ProtocolViolation("a new message inside a fragmented one")
        header = 6
        if length == 126:
            header = 8
            if available < 4:
                return None
            (length,) = _U16.unpack_from(buffer, start + 2)
            if length < 126:
                raise ProtocolViolation("length is not minimal")
        elif length == 127:
            header = 14
            if available < 10:
                return None
            (length,) = _U64.unpack_from(buffer, start + 2)
            if length < 65536 or length >> 63:
                raise ProtocolViolation("length is not minimal, or over 2^63")
        if available < header:
            return None
        mask = buffer[start + header - 4 : start + header]
        final = first >= 0x80
        body_at = start + header
        assembled = 0 if self._message is None else len(self._message)
        if assembled + length > self.limit:
            self._position = body_at
            self._oversize = mask
            return self._refuse(enough=_HEAD_ENOUGH_BYTES)
        end = body_at + length
        if end <= len(buffer):
            self._position = end
            return self._frame(apply_mask(buffer[body_at:end], mask), final)
        if length < _ASSEMBLE_BYTES:
            return None
        # It grows with what arrives: a header alone must not make the process pay for
        # its body, and bytearray(length) would write zeros to all of it.
        self._body = bytearray()
        self._body_length = length
        self._body_mask = mask
        self._body_final = final
        self._position = body_at
        return self._fill_body()

    def head_so_far(self) -> Oversize | None:
        """Stop waiting for the beginning of an oversized message."""
        return None if self._oversize is None else self._refuse(enough=0)

    def _fill_body(self) -> Event | _Silent | None:
        body = self._body
        assert body is not None
        at = len(body)
        chunk = self._buffer[self._position : self._position + self._body_length - at]
        if not chunk:
            return None
        turn = at & 3
        mask = self._body_mask[turn:] + self._body_mask[:turn]
        body += apply_mask(chunk, mask)
        self._position += len(chunk)
        if len(body) < self._body_length:
            return None
        self._body = None
        return self._frame(body, self._body_final)

    def _frame(self, payload: bytes | bytearray, final: bool) -> Event | _Silent:
        """A whole data frame: the message it ends, or what to make of a fragment."""
        if self._message is None:
            if final:
                return payload
            self._message = bytearray(payload)
        else:
            self._message += payload
            if final:
                message, self._message = self._message, None
                return message
        return Odd.FRAGMENT if len(payload) < _SMALL_FRAGMENT_BYTES else _Silent.FRAGMENT

    def _control(self, opcode: int, first: int, length: int) -> Event | None:
        if first < 0x80:
            raise ProtocolViolation("fragmented control frame")
        if length > 125:
            raise ProtocolViolation("control frame over 125 bytes")
        if opcode > _PONG:
            raise ProtocolViolation("reserved opcode")
        start = self._position
        end = start + 6 + length
        if end > len(self._buffer):
            return None
        payload = apply_mask(self._buffer[start + 6 : end], self._buffer[start + 2 : start + 6])
        self._position = end
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Odd.PONG
        return Closing(_close_code(payload))

    def _refuse(self, enough: int) -> Oversize | None:
        """The beginning of an oversized message, once there is enough of it to find an id in."""
        assert self._oversize is not None
        head = bytes(self._message or b"")[:_HEAD_BYTES]
        if len(head) < _HEAD_BYTES:
            chunk = self._buffer[self._position : self._position + _HEAD_BYTES]
            head += apply_mask(chunk, self._oversize)
        return Oversize(head) if len(head) >= enough else None


def _close_code(payload: bytes) -> int:
    if not payload:
        return 1005
    if len(payload) == 1:
        raise ProtocolViolation("close frame of one byte")
    (code,) = _U16.unpack_from(payload)
    if code not in _CLOSE_CODES and not 3000 <= code < 5000:
        raise ProtocolViolation("close code that may not be sent")
    try:
        str(payload[2:], "utf-8")
    except UnicodeDecodeError:
        raise ProtocolViolation("close reason is not UTF-8", CloseCode.NOT_UTF8) from None
    return int(code)


def text_header(length: int) -> bytes:
    """The header of a whole, unmasked text frame."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return b"\x81\x7e" + _U16.pack(length)
    return b"\x81\x7f" + _U64.pack(length)


def ping_frame(payload: bytes = b"") -> bytes:
    return bytes((0x89, len(payload))) + payload


def pong_frame(payload: bytes) -> bytes:
    return bytes((0x8A, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    payload = _U16.pack(code) + reason.encode()[:123]
    return bytes((0x88, len(payload))) + payload
