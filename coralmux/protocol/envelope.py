"""The envelope: one JSON object for each WebSocket message.

    {"v":1,"type":"chat.send","id":"<uuid>","ts":<unix ms>,"payload":{...}}

Only `type` is required; unknown keys are ignored. Decoding leaves the payload
as the bytes it came in: a relay forwards what it cannot read, and an endpoint
decodes the payload by its type afterwards.
"""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Any

import msgspec

from coralmux.protocol.errors import InvalidMessage, NotUtf8
from coralmux.protocol.limits import MAX_SAFE_INTEGER

VERSION = 1

Buffer = bytes | bytearray | memoryview


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One message. `ts` is in Unix milliseconds; `payload` is undecoded JSON, an object."""

    type: str
    id: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    v: int = VERSION
    ts: Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)] = 0


_decoder = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()
_JSON_SPACE = b" \t\n\r"


def decode(data: bytes | bytearray | str) -> Envelope:
    """Read a message, text or binary.

    Raises NotUtf8, or InvalidMessage with a text that repeats nothing of the
    message and with its id where that could be read.
    """
    # msgspec leaves the inside of Raw alone, so UTF-8 is checked over the whole
    # frame first. Nearly all frames are ASCII (base64), which is known without
    # a copy; only the others are decoded to find out.
    if not isinstance(data, str) and not data.isascii():
        check_utf8(data)
    try:
        envelope = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"Not a valid envelope: {error}", ref=peek_id(data)) from None
    except RecursionError:
        raise InvalidMessage("JSON nested too deeply", ref=peek_id(data)) from None
    except (msgspec.DecodeError, UnicodeError):
        envelope = _decode_lone_surrogates(data)
    payload = memoryview(envelope.payload)
    if payload[0] != 0x7B and bytes(payload[:64]).lstrip(_JSON_SPACE)[:1] != b"{":
        raise InvalidMessage("payload must be an object", ref=envelope.id)
    return envelope


# JavaScript that cuts a text between two deltas may cut an emoji in half and
# write the halves as lone escapes. RFC 8259 (section 8.2) allows that, msgspec
# does not, so such messages are read with U+FFFD in place of each half. That is
# slow, so it is done for what a delta may be, and not for megabytes.
_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"\\u(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F][0-9a-fA-F]{2})"
)
_MEND_BYTES = 16 * 1024


def _decode_lone_surrogates(data: bytes | bytearray | str) -> Envelope:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        if mended := _mend(raw):
            return _decoder.decode(mended)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    raise InvalidMessage("Not valid JSON", ref=peek_id(data))


def _mend(raw: Buffer) -> bytes | None:
    """The JSON without lone surrogates, or None where there is nothing to mend."""
    if len(raw) > _MEND_BYTES:
        return None
    mended, changed = _LONE_SURROGATE.subn(rb"\1\\uFFFD", raw)
    return mended if changed else None


def decode_object(data: Buffer) -> dict[str, Any]:
    """Read a payload, which must be a JSON object.

    Raises InvalidMessage with a text that repeats nothing of it.
    """
    try:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            value = msgspec.json.decode(_mend(data) or b"")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidMessage("The payload is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidMessage("The payload is not a JSON object")
    return value


def check_utf8(data: Buffer) -> None:
    """Raise NotUtf8 unless the bytes are UTF-8."""
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        raise NotUtf8("message is not UTF-8") from None


def encode(
    type: str,
    payload: dict[str, Any] | msgspec.Raw | None = None,
    *,
    ts: int,
    id: str | None = None,
) -> bytes:
    """Write a message; a Raw payload is JSON already.

    `ts` is in Unix milliseconds; `id` is made (UUID 4) when not given.
    """
    return _encoder.encode(
        {
            "v": VERSION,
            "type": type,
            "id": str(uuid.uuid4()) if id is None else id,
            "ts": ts,
            "payload": {} if payload is None else payload,
        }
    )


_MEMBER = re.compile(
    rb'\s*"((?:[^"\\]|\\.)*)"\s*:\s*("(?:[^"\\]|\\.)*"|[-+.eE0-9]+|true|false|null)\s*(?:,|(?=\}))',
    re.DOTALL,
)
_PEEK_BYTES = 1024


def peek_id(data: bytes | bytearray | str) -> str:
    """The id of a message that is broken or cut off, or "" where it cannot be told.

    Reads the scalar members that stand before the first nested value, within the
    first kilobyte: senders write the payload last.
    """
    head = (
        data[:_PEEK_BYTES].encode("utf-8", "replace")
        if isinstance(data, str)
        else bytes(data[:_PEEK_BYTES])
    )
    start = head.lstrip(_JSON_SPACE)
    if not start.startswith(b"{"):
        return ""
    position = 1
    while member := _MEMBER.match(start, position):
        if member[1] == b"id":
            try:
                found = msgspec.json.decode(member[2])
            except (msgspec.DecodeError, UnicodeError):
                return ""
            return found if isinstance(found, str) else ""
        position = member.end()
    return ""
