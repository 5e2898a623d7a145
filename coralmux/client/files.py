"""Files in parts: the sender as a pure machine (PROTOCOL.md, "Files"). inbox.py receives.

    sender    file.begin → · file.chunk 0 … 3 → · file.chunk 4 → … file.end →
    receiver  ← file.ack -1 · ← file.ack 0 …                       ← file.result

Theory of operation. Messages go in and come out as (type, payload) in the order in which
they travel; sealing, pacing and reconnecting are other people's business. The receiver
counts: a `file.ack` says how far the file is here without a gap, and every other state
can be found again by `file.begin`, which is answered with that number. So after a lost
session, or half a minute without a word, the sender just begins again.
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from collections.abc import Callable
from enum import Enum
from typing import Any

from coralmux.client.attachments import Attachment
from coralmux.client.file_messages import Ack, FileError, Message, Named, Result, read
from coralmux.client.inbox import Inbox
from coralmux.protocol.limits import FILE_CHUNK_BYTES, FILE_WINDOW

__all__ = ["FileError", "Inbox", "Message", "Outgoing", "OutgoingState"]

# Seconds without progress until a sender begins again, and how often it does. The relay
# may hold a sender back for 10 s; four chunks take another 10 s at 400 kbit/s.
ACK_SECONDS = 30.0
RETRIES = 2

# How often in a row a sender begins again without progress, after new sessions and messages
# that were lost or refused: whoever meddles must not keep it at that for ever.
RESTARTS = 10

# Characters of a refusal's text that are taken from the other end.
_MAX_ERROR = 500


class OutgoingState(Enum):
    NEW = "new"
    BEGINNING = "beginning"  # file.begin is out; the ack says where to go on
    SENDING = "sending"
    ENDING = "ending"  # file.end is out
    DONE = "done"
    FAILED = "failed"


_OVER = (OutgoingState.DONE, OutgoingState.FAILED)


class Outgoing:
    """Sends one attachment. `now` is in seconds of any clock that never goes back.

    `on_progress(acknowledged_bytes, total_bytes)` is called with numbers that only grow,
    the last being (total, total); it must not raise. Once the state is DONE the `file_id`
    may be named in a message; once it is FAILED `error` says why, for people.
    """

    def __init__(
        self,
        attachment: Attachment,
        file_id: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.attachment = attachment
        self.file_id = uuid.uuid4().hex if file_id is None else file_id
        self.state = OutgoingState.NEW
        self.error = ""
        # When tick() wants to be called next (seconds, as `now`); None: never.
        self.deadline: float | None = None
        self._on_progress = on_progress
        self._count = -(-len(attachment.data) // FILE_CHUNK_BYTES)
        self._acked = -1  # highest index that is known to have arrived
        self._next = 0  # index that is sent next
        self._recover = -2  # highest index that was out when we last went back
        self._reported = -1
        self._retries = 0
        self._restarts = -1  # the first start is none

    def __repr__(self) -> str:
        return f"Outgoing({self.file_id}, {self.state.value}, {self._acked + 1}/{self._count})"

    @property
    def done(self) -> bool:
        return self.state is OutgoingState.DONE

    @property
    def failed(self) -> bool:
        return self.state is OutgoingState.FAILED

    @property
    def unacknowledged(self) -> int:
        """Chunks that are out and not acknowledged, at most FILE_WINDOW."""
        return self._next - self._acked - 1

    def start(self, now: float) -> list[Message]:
        """Begin, or begin again in a new session. Nothing once the transfer is over."""
        self._retries = 0
        return self.again(now)

    # After a new session: whatever was on its way is lost, and the answer to the
    # repeated file.begin tells how much of it arrived before.
    restart = start

    def again(self, now: float) -> list[Message]:
        """Begin again where a message was lost or refused; no patience is given anew."""
        if self.state in _OVER:
            return []
        if self._restarts >= RESTARTS:
            self._fail(
                "The file does not get through: what is sent of it is lost or changed on the "
                "way again and again. Check the connection and send it again later."
            )
            return [("file.cancel", {"file_id": self.file_id})]
        self._restarts += 1
        self._next = self._acked + 1
        self._recover = -2
        return self._begin(now)

    def suspend(self) -> None:
        """There is no session: no time-out runs until `restart`."""
        self.deadline = None

    def cancel(self) -> list[Message]:
        """Give up, and tell the other end if it has heard of the file."""
        if self.state in _OVER:
            return []
        told = self.state is not OutgoingState.NEW
        self._fail("The transfer was cancelled.")
        return [("file.cancel", {"file_id": self.file_id})] if told else []

    def receive(self, type: str, payload: object, now: float) -> list[Message]:
        """What to send in answer to `file.ack`, `file.result` or `file.cancel`.

        Messages of other types, of other files or of the wrong shape change nothing.
        """
        if self.state in _OVER or self.state is OutgoingState.NEW:
            return []
        if type == "file.ack":
            ack = read(payload, Ack)
            if ack is not None and ack.file_id == self.file_id and ack.index < self._count:
                return self._take_ack(ack.index, now)
        elif type == "file.result":
            result = read(payload, Result)
            if result is not None and result.file_id == self.file_id:
                self._take_result(result)
        elif type == "file.cancel":
            cancel = read(payload, Named)
            if cancel is not None and cancel.file_id == self.file_id:
                self._fail("The other end cancelled the transfer.")
        return []

    def tick(self, now: float) -> list[Message]:
        """Begin again if nothing was acknowledged for 30 s; fail when that did not help."""
        if self.deadline is None or now < self.deadline or self.state in _OVER:
            return []
        if self._retries >= RETRIES:
            self._fail(
                "The other end stopped answering in the middle of the file. "
                "Check its connection and send the file again."
            )
            return [("file.cancel", {"file_id": self.file_id})]
        self._retries += 1
        return self._begin(now)

    def _begin(self, now: float) -> list[Message]:
        self.state = OutgoingState.BEGINNING
        self.deadline = now + ACK_SECONDS
        attachment = self.attachment
        begin = {
            "file_id": self.file_id,
            "name": attachment.name,
            "mime_type": attachment.mime_type,
            "size": len(attachment.data),
            "sha256": attachment.sha256,
        }
        return [("file.begin", begin)]

    def _take_ack(self, index: int, now: float) -> list[Message]:
        if self.state is OutgoingState.BEGINNING:
            # Lower than before where the other end has lost what it had.
            if self._next - 1 > index:
                self._recover = self._next - 1
            if index > self._acked:
                self._retries = self._restarts = 0
            self._acked, self._next = index, index + 1
            self.state = OutgoingState.SENDING
        elif index > self._acked:
            self._acked, self._next = index, max(self._next, index + 1)
            self._retries = self._restarts = 0
        elif index == self._acked and self.unacknowledged and index > self._recover:
            # The other end got a chunk that does not follow: one is missing between. All
            # from there on goes out again, and the same words about chunks that were out
            # already (up to _recover) are no reason to do so twice.
            self._recover = self._next - 1
            self._next = index + 1
        else:
            return []
        self.deadline = now + ACK_SECONDS
        messages = self._more()
        self._report()
        return messages

    def _more(self) -> list[Message]:
        """The chunks that the window has room for, and the end behind the last."""
        if self._acked == self._count - 1:
            self.state = OutgoingState.ENDING
            return [("file.end", {"file_id": self.file_id})]
        messages = []
        while self._next < self._count and self.unacknowledged < FILE_WINDOW:
            messages.append(("file.chunk", self._chunk(self._next)))
            self._next += 1
        return messages

    def _chunk(self, index: int) -> dict[str, Any]:
        start = index * FILE_CHUNK_BYTES
        part = memoryview(self.attachment.data)[start : start + FILE_CHUNK_BYTES]
        return {
            "file_id": self.file_id,
            "index": index,
            "data_b64": b64encode(part).decode("ascii"),
        }

    def _take_result(self, result: Result) -> None:
        if not result.ok:
            reason = "".join(c for c in (result.error or "")[:_MAX_ERROR] if c.isprintable())
            self._fail(reason or "The other end refused the file and gave no reason.")
        elif self._acked == self._count - 1 and self._reported >= 0:
            # Also in BEGINNING: the answer to an end that took longer than our patience.
            self.state = OutgoingState.DONE
            self.deadline = None

    def _fail(self, error: str) -> None:
        self.state = OutgoingState.FAILED
        self.error = error
        self.deadline = None

    def _report(self) -> None:
        total = len(self.attachment.data)
        acked = min((self._acked + 1) * FILE_CHUNK_BYTES, total)
        if acked > self._reported:
            self._reported = acked
            if self._on_progress is not None:
                self._on_progress(acked, total)
