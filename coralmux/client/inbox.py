"""Files in parts: the receiver as a pure machine. files.py sends, and tells how it works."""

from __future__ import annotations

import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from coralmux.client.attachments import Attachment, AttachmentError, megabytes, safe_name
from coralmux.client.file_messages import (
    Begin,
    Chunk,
    FileError,
    Message,
    Named,
    Payload,
    convert,
    read,
)
from coralmux.protocol.limits import FILE_CHUNK_BYTES, MAX_FILE_BYTES

# File ids whose refusal is remembered. Chunks that were on their way then need no
# second answer: `file.result` counts against 30 messages a minute of a phone.
_REFUSED_KEPT = 64


class _Incoming:
    """One file that is coming in, or waits to be claimed."""

    __slots__ = ("attachment", "begin", "data", "hash", "next", "touched")

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        # Grows with what arrives: memory is not given away on the peer's word.
        self.data = bytearray()
        self.hash = hashlib.sha256()
        self.next = 0
        self.touched = 0.0
        self.attachment: Attachment | None = None


class _Refused(Exception):
    """Ends a transfer; the text goes to the other end, for people."""


class Inbox:
    """Receives files and keeps each until it is claimed.

    At most `max_files` are kept, arriving or unclaimed, with `max_total_bytes` together
    by the sizes that were told; what nobody touches for `idle_seconds` is dropped.
    `on_progress(file_id, name, received_bytes, total_bytes)` must not raise. `now` is in
    seconds of any clock that never goes back.
    """

    def __init__(
        self,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_files: int = 8,
        max_total_bytes: int = 100_000_000,
        idle_seconds: float = 600.0,
        on_progress: Callable[[str, str, int, int], None] | None = None,
    ) -> None:
        self._max_file_bytes = max_file_bytes
        self._max_files = max_files
        self._max_total_bytes = max_total_bytes
        self._idle_seconds = idle_seconds
        self._on_progress = on_progress
        self._files: dict[str, _Incoming] = {}
        self._refused: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"Inbox({len(self._files)} files)"

    @property
    def deadline(self) -> float | None:
        """When `prune` will next find something to drop; None: never."""
        if not self._files:
            return None
        return min(file.touched for file in self._files.values()) + self._idle_seconds

    def receive(self, type: str, payload: object, now: float) -> list[Message]:
        """What to answer to `file.begin`, `file.chunk`, `file.end` or `file.cancel`.

        Whatever breaks the rules is answered with `file.result {ok: false, error}` and
        ends its transfer. Messages of other types are not for here: no answer.
        """
        steps: dict[str, Callable[[object, float], list[Message]]] = {
            "file.begin": self._begin,
            "file.chunk": self._chunk,
            "file.end": self._end,
            "file.cancel": self._cancelled,
        }
        step = steps.get(type)
        if step is None:
            return []
        self.prune(now)
        try:
            return step(payload, now)
        except _Refused as refusal:
            return self._refuse(payload, str(refusal))

    def claim(self, file_id: str) -> Attachment:
        """Hand over a file that has arrived and forget it. Raises FileError."""
        # The id comes out of a peer's message, so it may be of any type.
        file = self._files.get(file_id) if isinstance(file_id, str) else None
        if file is None:
            raise FileError(
                "There is no file with this id: it never arrived, or waited too long. "
                "Send the file again, and then the message."
            )
        if file.attachment is None:
            raise FileError(
                "The file has not arrived completely. Send the message after its file.result."
            )
        del self._files[file_id]
        return file.attachment

    def cancel(self, file_id: str) -> list[Message]:
        """Drop a file and tell the sender. Nothing if it is not here."""
        if self._files.pop(file_id, None) is None:
            return []
        self._remember_refusal(file_id)
        return [("file.cancel", {"file_id": file_id})]

    def prune(self, now: float) -> int:
        """Drop what nobody has touched for too long; how many that were."""
        idle = [
            file_id
            for file_id, file in self._files.items()
            if now - file.touched >= self._idle_seconds
        ]
        for file_id in idle:
            del self._files[file_id]
        return len(idle)

    def _begin(self, payload: object, now: float) -> list[Message]:
        begin = _checked(payload, Begin)
        file_id = begin.file_id
        self._refused.pop(file_id, None)
        file = self._files.get(file_id)
        if file is None:
            self._check_room(begin.size)
            file = self._files[file_id] = _Incoming(begin)
        elif file.begin != begin:
            raise _Refused("Another file was begun under this id. Send it under a new one.")
        file.touched = now
        self._report(file)
        return _acked(file)

    def _check_room(self, size: int) -> None:
        if size > self._max_file_bytes:
            raise _Refused(
                f"The file is too large: it has {megabytes(size)}, and at most "
                f"{megabytes(self._max_file_bytes)} are taken. Send a smaller one."
            )
        if len(self._files) >= self._max_files:
            raise _Refused(
                f"Too many files at once: {self._max_files} are on their way or not used yet. "
                "Send this one when they are done."
            )
        if size + sum(file.begin.size for file in self._files.values()) > self._max_total_bytes:
            raise _Refused(
                f"Too much at once: all files together may have "
                f"{megabytes(self._max_total_bytes)}. Send this one when the others are done."
            )

    def _chunk(self, payload: object, now: float) -> list[Message]:
        chunk = _checked(payload, Chunk)
        file = self._known(chunk.file_id)
        if file is None:
            return []
        file.touched = now
        size = file.begin.size
        if chunk.index * FILE_CHUNK_BYTES >= size:
            raise _Refused(f"More came than the {size} bytes that the file was said to have.")
        if chunk.index != file.next:
            # Earlier: it came twice. Later: one between was lost, and the sender goes back.
            return _acked(file)
        try:
            data = binascii.a2b_base64(chunk.data_b64, strict_mode=True)
        except ValueError:
            raise _Refused("A part of the file is not base64.") from None
        due = min(FILE_CHUNK_BYTES, size - len(file.data))
        if len(data) != due:
            raise _Refused(f"A part of the file has {len(data)} bytes where {due} are due.")
        file.data += data
        file.hash.update(data)
        file.next += 1
        self._report(file)
        return _acked(file)

    def _end(self, payload: object, now: float) -> list[Message]:
        end = _checked(payload, Named)
        file = self._known(end.file_id)
        if file is None:
            return []
        file.touched = now
        if file.attachment is None:
            file.attachment = self._finished(file)
            file.data = bytearray()
        # Also to an end that comes again, because the first answer was lost.
        return [("file.result", {"file_id": end.file_id, "ok": True})]

    def _finished(self, file: _Incoming) -> Attachment:
        begin = file.begin
        if len(file.data) != begin.size:
            raise _Refused(f"The file ended after {len(file.data)} of {begin.size} bytes.")
        if file.hash.hexdigest() != begin.sha256:
            raise _Refused(
                "The file that arrived is not the one that was sent: its checksum differs. "
                "Send it again."
            )
        try:
            return Attachment.from_bytes(file.data, begin.mime_type, begin.name)
        except AttachmentError as error:
            raise _Refused(str(error)) from None

    def _cancelled(self, payload: object, now: float) -> list[Message]:
        cancel = read(payload, Named)
        if cancel is not None and self._files.pop(cancel.file_id, None) is not None:
            self._remember_refusal(cancel.file_id)
        return []

    def _known(self, file_id: str) -> _Incoming | None:
        """The file, or None where its refusal has been told already."""
        file = self._files.get(file_id)
        if file is None and file_id not in self._refused:
            raise _Refused("No file was begun under this id, or it waited too long. Begin again.")
        return file

    def _refuse(self, payload: object, error: str) -> list[Message]:
        named = read(payload, Named)
        if named is None:
            return [("file.result", {"file_id": "", "ok": False, "error": error})]
        self._files.pop(named.file_id, None)
        self._remember_refusal(named.file_id)
        return [("file.result", {"file_id": named.file_id, "ok": False, "error": error})]

    def _remember_refusal(self, file_id: str) -> None:
        self._refused[file_id] = None
        while len(self._refused) > _REFUSED_KEPT:
            self._refused.popitem(last=False)

    def _report(self, file: _Incoming) -> None:
        if self._on_progress is not None:
            received = min(file.next * FILE_CHUNK_BYTES, file.begin.size)
            name = safe_name(file.begin.name)
            self._on_progress(file.begin.file_id, name, received, file.begin.size)


def _acked(file: _Incoming) -> list[Message]:
    return [("file.ack", {"file_id": file.begin.file_id, "index": file.next - 1})]


def _checked(payload: object, kind: type[Payload]) -> Payload:
    try:
        return convert(payload, kind)
    except msgspec.ValidationError as error:
        raise _Refused(f"Not a valid file message: {error}") from None
