"""A sender and a receiver of one file back to back, and file messages made by hand."""

from __future__ import annotations

import hashlib
import json
import random
from base64 import b64encode
from typing import Any

import pytest

from coralmux.client.attachments import Attachment
from coralmux.client.files import FileError, Inbox, Message, Outgoing
from coralmux.protocol.limits import FILE_CHUNK_BYTES, FILE_WINDOW

PNG = b"\x89PNG\r\n\x1a\n"


def file_of(size: int, seed: int = 1) -> Attachment:
    data = random.Random(seed).randbytes(size)
    return Attachment.from_bytes(data, "application/octet-stream", "data.bin")


class Pair:
    """One sender and one receiver, with what is on its way between them, oldest first."""

    def __init__(self, attachment: Attachment, **inbox: Any) -> None:
        self.sent_progress: list[tuple[int, int]] = []
        self.received_progress: list[tuple[str, str, int, int]] = []
        self.outgoing = Outgoing(attachment, "f1", lambda *p: self.sent_progress.append(p))
        self.inbox = Inbox(**inbox, on_progress=lambda *p: self.received_progress.append(p))
        self.now = 0.0
        self.there: list[Message] = []
        self.back: list[Message] = []
        self.chunks: list[int] = []  # indexes in the order in which they were sent
        self.most_in_flight = 0
        self.most_really = FILE_WINDOW

    def start(self) -> None:
        self.send(self.outgoing.start(self.now))

    def send(self, messages: list[Message]) -> None:
        for message in messages:
            # As JSON, for nothing else travels.
            self.there.append((message[0], json.loads(json.dumps(message[1]))))
            if message[0] == "file.chunk":
                self.chunks.append(message[1]["index"])
        self.most_in_flight = max(self.most_in_flight, self.outgoing.unacknowledged)
        # Whatever the sender believes: this many are really on their way.
        assert sum(type == "file.chunk" for type, _ in self.there) <= self.most_really

    def step_there(self) -> None:
        if self.there:
            self.back += self.inbox.receive(*self.there.pop(0), self.now)

    def step_back(self) -> None:
        if self.back:
            self.send(self.outgoing.receive(*self.back.pop(0), self.now))

    def run(self) -> None:
        while self.there or self.back:
            self.step_there()
            self.step_back()

    def lose_everything(self) -> None:
        self.there.clear()
        self.back.clear()

    def check_arrived(self) -> None:
        assert self.outgoing.done, self.outgoing.error
        got = self.inbox.claim("f1")
        sent = self.outgoing.attachment
        assert (got.name, got.mime_type, got.sha256) == (sent.name, sent.mime_type, sent.sha256)
        assert got.data == sent.data
        total = len(sent.data)
        numbers = [acked for acked, _ in self.sent_progress]
        assert numbers == sorted(set(numbers))
        assert self.sent_progress[-1] == (total, total)
        assert {told for _, told in self.sent_progress} == {total}
        arrived = [received for *_, received, _ in self.received_progress]
        assert arrived == sorted(arrived)
        assert self.received_progress[-1] == ("f1", sent.name, total, total)


TWO = bytes(FILE_CHUNK_BYTES) + b"xyz"


def begin_of(data: bytes, file_id: str = "f1", **change: Any) -> dict[str, Any]:
    return {
        "file_id": file_id,
        "name": "a.bin",
        "mime_type": "application/octet-stream",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **change,
    }


def chunk_of(data: bytes, index: Any = 0, file_id: str = "f1") -> dict[str, Any]:
    return {"file_id": file_id, "index": index, "data_b64": b64encode(data).decode()}


def refusal(messages: list[Message], file_id: str = "f1") -> str:
    """The text of the one refusal."""
    ((type, payload),) = messages
    assert type == "file.result"
    assert (payload["file_id"], payload["ok"]) == (file_id, False)
    assert set(payload) == {"file_id", "ok", "error"}
    return str(payload["error"])


def gone(inbox: Inbox, file_id: str = "f1") -> bool:
    with pytest.raises(FileError):
        inbox.claim(file_id)
    return inbox.deadline is None
