"""The messages that carry files (PROTOCOL.md, "Files"): shapes, and how they are read.

    file.begin   {file_id, name, mime_type, size, sha256}     file.ack     {file_id, index}
    file.chunk   {file_id, index, data_b64}                   file.result  {file_id, ok, error?}
    file.end     {file_id}                                    file.cancel  {file_id}

A file goes out by files.Outgoing and comes in by inbox.Inbox.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from coralmux.client.errors import ClientError
from coralmux.protocol.limits import FILE_CHUNK_BYTES, MAX_SAFE_INTEGER

# (type, payload), in the order in which they travel.
Message = tuple[str, dict[str, Any]]

# \Z and not $, which would let a newline through.
_FileId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)]
_Base64 = Annotated[str, msgspec.Meta(max_length=(FILE_CHUNK_BYTES + 2) // 3 * 4)]


class Named(msgspec.Struct, frozen=True):
    """Names a file; its contents and its name stay out of every repr."""

    file_id: _FileId

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.file_id})"


class Begin(Named, frozen=True):
    name: Annotated[str, msgspec.Meta(max_length=1024)]
    mime_type: Annotated[str, msgspec.Meta(max_length=255)]
    size: _Count
    sha256: _Sha256


class Chunk(Named, frozen=True):
    index: _Count
    data_b64: _Base64


class Ack(Named, frozen=True):
    index: Annotated[int, msgspec.Meta(ge=-1, le=MAX_SAFE_INTEGER)]


class Result(Named, frozen=True):
    ok: bool
    error: str | None = None


Payload = TypeVar("Payload", bound=Named)


class FileError(ClientError):
    """A file that was not transferred, or is not here (any more); the text says why."""


def convert(payload: object, kind: type[Payload]) -> Payload:
    """The payload as that kind. Raises msgspec.ValidationError, whose text names types and
    members, and never repeats a value."""
    return msgspec.convert(payload, kind, strict=True)


def read(payload: object, kind: type[Payload]) -> Payload | None:
    """As `convert`, or None."""
    try:
        return convert(payload, kind)
    except msgspec.ValidationError:
        return None
