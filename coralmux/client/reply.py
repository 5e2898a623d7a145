"""One reply of an agent on its way to the phone: deltas, tools, files, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from coralmux.client.attachments import Attachment, AttachmentError, check_inline
from coralmux.client.channel import Channel
from coralmux.client.coalesce import Coalescer
from coralmux.client.errors import ClientError, MessageLost, NotConnected, RelayRefused
from coralmux.client.messages import ToolStatus
from coralmux.client.transfers import Transfers
from coralmux.protocol import ErrorCode

# What a chat handler may yield.
Piece = str | ToolStatus | Attachment

# Milliseconds that the relay may ask for before a reply is given up.
_PATIENCE_MS = 60_000

# Bytes that may wait for their turn before the handler has to.
_PENDING_BYTES = 64 * 1024


class ReplyBroken(ClientError):
    """The relay refused a part of the reply, so that its rest cannot follow in order."""


class Reply:
    """Sends what a handler yields. `ref` is the id of the question.

    Texts go out at once, or joined where the model is faster than the relay allows. With
    `finish_unheard` a handler may go on when the phone has left; nothing is sent then.
    """

    def __init__(
        self, channel: Channel, transfers: Transfers, ref: str, *, finish_unheard: bool = False
    ) -> None:
        self._finish_unheard = finish_unheard
        self._unheard = False
        self._upload: asyncio.Task[str] | None = None
        self.usage: dict[str, Any] = {}
        self._channel = channel
        self._transfers = transfers
        self._ref = {"ref": ref} if channel.version == 2 else {}
        self._coalescer = Coalescer()
        self._attachments: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._broken: ClientError | None = None

    async def follow(self, pieces: AsyncIterator[Piece]) -> None:
        """Send all that comes. Raises what the handler raises, NotConnected, or ReplyBroken."""
        async for piece in pieces:
            try:
                await self._hand_on(piece)
            except NotConnected:
                if not self._finish_unheard:
                    raise
                self.leave_unheard()

    async def _hand_on(self, piece: Piece) -> None:
        if not isinstance(piece, str | ToolStatus | Attachment):
            raise TypeError(
                f"a chat handler yields str, ToolStatus or Attachment, not {type(piece).__name__}"
            )
        if self._unheard:
            await asyncio.sleep(0)
        elif isinstance(piece, str):
            await self._say(piece)
        elif isinstance(piece, ToolStatus):
            await self._flush()
            await self._take_turn()
            self._send("chat.tool_status", msgspec.to_builtins(piece))
        else:
            await self._attach(piece)

    def leave_unheard(self) -> None:
        """The phone has left: what is said from here on is dropped."""
        self._unheard = True
        self.close()
        if self._upload is not None:
            self._upload.cancel()

    async def done(self, *, cancelled: bool = False) -> None:
        """End the reply well, or as the phone wished."""
        if self._unheard:
            return
        await self._flush(finish=True)
        payload: dict[str, Any] = {"full_text": self._coalescer.full_text}
        if self.usage:
            payload["usage"] = self.usage
        if self._attachments:
            payload["attachments"] = self._attachments
            if self._channel.version == 1:
                check_inline(
                    len(msgspec.json.encode(payload)),
                    max_message_bytes=self._channel.max_message_bytes,
                )
        if cancelled:
            payload["cancelled"] = True
        await self._take_turn()
        if self._unheard:
            return
        self._channel.insist("chat.done", payload | self._ref, on_failure=self._end_refused)

    async def failed(self, code: str, message: str) -> None:
        """End the reply with an error, behind what was said so far.

        What waits behind a refused part stays unsaid.
        """
        if self._unheard:
            return
        if self._broken is None:
            await self._flush(finish=True)
        self._end(code, message)

    def _end_refused(self, error: ClientError) -> None:
        with contextlib.suppress(ClientError):
            self._end(ErrorCode.BACKEND_ERROR, _cut_off(error))

    def _end(self, code: str, message: str) -> None:
        self._channel.insist("chat.error", {"code": code, "message": message} | self._ref)

    def close(self) -> None:
        """Send nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def _say(self, text: str) -> None:
        self._coalescer.add(text)
        await self._channel.drain()
        self._push()
        # A handler that never waits would keep all others from being heard.
        await asyncio.sleep(0)
        while self._coalescer.pending > _PENDING_BYTES:
            await self._turn()
            self._push()

    def _push(self) -> None:
        """Send what may go now; the rest follows when it may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._coalescer.pending:
            now = loop.time()
            if delay := self._channel.pacer.take(now, urgent=self._coalescer.urgent):
                self._timer = loop.call_at(now + delay, self._push_late)
                return
            if (piece := self._coalescer.take()) is not None:
                delta, seq = piece
                self._send("chat.stream", {"delta": delta, "seq": seq})

    def _push_late(self) -> None:
        self._timer = None
        try:
            self._push()
        except ClientError as error:
            self._broken = error

    async def _flush(self, *, finish: bool = False) -> None:
        """Return when everything that was said is on its way."""
        if finish:
            self._coalescer.finish()
        self._push()
        while self._coalescer.pending:
            await self._turn()
            self._push()

    async def _turn(self) -> None:
        """Wait until the pacer would let a frame go, and the connection take it."""
        loop = asyncio.get_running_loop()
        while delay := self._channel.pacer.delay(loop.time(), urgent=not self._coalescer.pending):
            await asyncio.sleep(delay)
        await self._channel.drain()

    async def _take_turn(self) -> None:
        """Wait for the turn of a frame that is no delta, and count it."""
        await self._turn()
        self._channel.pacer.sent(asyncio.get_running_loop().time())
        # A handler that never waits would keep all others from being heard.
        await asyncio.sleep(0)

    async def _attach(self, attachment: Attachment) -> None:
        await self._flush()
        if self._channel.version == 1:
            self._attachments.append(attachment.to_inline())
            return
        if self._channel.peer is not None and "files" not in self._channel.peer.caps:
            raise AttachmentError("The answer has a file, which this phone cannot take. Update it.")
        self._upload = asyncio.create_task(self._transfers.send(attachment))
        try:
            file_id = await self._upload
        except asyncio.CancelledError:
            self._upload.cancel()
            task = asyncio.current_task()
            if not self._unheard or (task is not None and task.cancelling()):
                raise
            return
        self._attachments.append(described(attachment, file_id))

    def _send(self, type: str, payload: dict[str, Any]) -> None:
        if self._unheard:
            raise NotConnected("The phone has left.")
        if self._broken is not None:
            raise self._broken
        self._channel.send(type, payload | self._ref, on_failure=self._failed)

    def _failed(self, error: ClientError) -> None:
        # Of a lost part chat.done has the text, from which the phone fills what it misses.
        if isinstance(error, MessageLost):
            return
        if (
            isinstance(error, RelayRefused)
            and error.code == ErrorCode.RATE_LIMITED
            and error.retry_after_ms is not None
            and error.retry_after_ms <= _PATIENCE_MS
        ):
            now = asyncio.get_running_loop().time()
            self._channel.pacer.limited(now, error.retry_after_ms / 1000)
            return
        self._broken = ReplyBroken(_cut_off(error))


def _cut_off(error: ClientError) -> str:
    return f"The answer was cut off. {error}"


def described(attachment: Attachment, file_id: str) -> dict[str, Any]:
    """How a message names a file that was sent before it."""
    return {
        "type": "image" if attachment.is_image else "file",
        "mime_type": attachment.mime_type,
        "name": attachment.name,
        "size": len(attachment.data),
        "file_id": file_id,
    }
