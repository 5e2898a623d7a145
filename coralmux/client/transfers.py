"""Files over a channel: drives the machines of `files` with its session, pace and time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from coralmux.client.attachments import Attachment
from coralmux.client.channel import Channel
from coralmux.client.errors import ClientError, NotConnected, PeerOffline, RelayRefused
from coralmux.client.file_messages import FileError, Message
from coralmux.client.files import Outgoing
from coralmux.client.inbox import Inbox
from coralmux.e2e.events import Opened
from coralmux.protocol.limits import MAX_FILE_BYTES

log = logging.getLogger("coralmux")

Progress = Callable[[int, int], None]

# Name, bytes that are here, bytes in all.
OnFile = Callable[[str, int, int], None]

# Seconds until a file goes on that the relay refused without saying when it would take it.
_REFUSED_SECONDS = 5.0

# Seconds that a file waits at most because the relay asks for it. Longer is an error that a
# person should see: the day's bandwidth is used up, or somebody forges refusals.
_LONGEST_SECONDS = 60.0


class Transfers:
    """The files of one pairing, in both directions.

    Incoming ones wait in `inbox` to be claimed. Outgoing ones survive the session that
    they were begun in: the next one goes on where the other end has got to.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        on_incoming: OnFile | None = None,
    ) -> None:
        self.inbox = Inbox(max_file_bytes=max_file_bytes, on_progress=self._progress)
        self._channel = channel
        self._on_incoming = on_incoming
        self._uploads: dict[str, _Upload] = {}
        self._timer: asyncio.TimerHandle | None = None

    def receive(self, message: Opened) -> bool:
        """Take a message if it is about files."""
        if not message.type.startswith("file."):
            return False
        now = asyncio.get_running_loop().time()
        for upload in list(self._uploads.values()):
            upload.receive(message, now)
        for answer in self.inbox.receive(message.type, message.payload, now):
            self._answer(answer)
        self._schedule()
        return True

    async def send(
        self,
        attachment: Attachment,
        on_progress: Progress | None = None,
        *,
        patience: float | None = None,
    ) -> str:
        """Send a file; its id, once the other end has all of it and has checked it.

        Waits for the other end where it is away, so many seconds each time; None is for
        ever. Raises FileError, PeerOffline, or the channel's failure; cancelling it
        cancels the transfer.
        """
        upload = _Upload(self._channel, Outgoing(attachment, on_progress=on_progress))
        file_id = upload.machine.file_id
        self._uploads[file_id] = upload
        try:
            await upload.run(patience)
        finally:
            del self._uploads[file_id]
        return file_id

    def established(self) -> None:
        """There is a new session."""
        for upload in self._uploads.values():
            upload.resume()

    def ended(self) -> None:
        """The session is over."""
        for upload in self._uploads.values():
            upload.pause()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _progress(self, file_id: str, name: str, received: int, total: int) -> None:
        if self._on_incoming is not None:
            try:
                self._on_incoming(name, received, total)
            except Exception:
                log.exception("the progress handler failed")

    def _answer(self, message: Message) -> None:
        type, payload = message
        # Without a session: the sender begins again in the next one, and is answered there.
        # Nothing that the relay does to one answer may end the reading of what comes next.
        with contextlib.suppress(ClientError):
            self._channel.send(type, payload)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.inbox.deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self.inbox.deadline, self._prune)

    def _prune(self) -> None:
        self.inbox.prune(asyncio.get_running_loop().time())
        self._schedule()


class _Upload:
    """One file on its way out: what its machine wants sent, at the channel's pace."""

    def __init__(self, channel: Channel, machine: Outgoing) -> None:
        self.machine = machine
        self._channel = channel
        self._messages: list[Message] = []
        self._wake = asyncio.Event()
        self._not_before = 0.0
        self._begin = True  # the file, or its rest, and
        self._anew = True  # in a new session
        self._refusal: ClientError | None = None

    def receive(self, message: Opened, now: float) -> None:
        answers = self.machine.receive(message.type, message.payload, now)
        self._messages += answers
        self._wake.set()

    def resume(self) -> None:
        self._begin = self._anew = True
        self._wake.set()

    def pause(self) -> None:
        self._messages.clear()
        self.machine.suspend()
        self._wake.set()

    async def run(self, patience: float | None) -> None:
        machine = self.machine
        try:
            while not (machine.done or machine.failed):
                if self._refusal is not None:
                    self._cancel()
                    raise self._refusal
                await self._wait_ready(patience)
                await self._turn()
        except asyncio.CancelledError:
            self._cancel()
            raise
        if machine.failed:
            raise FileError(machine.error)

    async def _wait_ready(self, patience: float | None) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._channel.wait_ready()
        except TimeoutError:
            raise PeerOffline(
                "The other end left in the middle of a file and did not come back. "
                "Send the file again when it is there."
            ) from None

    async def _turn(self) -> None:
        """Send what is due, then wait for an answer, a time-out or a new session."""
        loop = asyncio.get_running_loop()
        self._wake.clear()
        now = loop.time()
        if now < self._not_before:
            await self._wait_until(self._not_before)
            return
        if self._begin:
            begin = self.machine.restart if self._anew else self.machine.again
            self._begin = self._anew = False
            self._messages = begin(now)
        else:
            self._messages += self.machine.tick(now)
        while self._messages:
            if delay := self._pace(self._messages[0][0], loop.time()):
                await asyncio.sleep(delay)
                continue
            try:
                type, payload = self._messages[0]
                self._channel.send(type, payload, on_failure=self._failed)
                del self._messages[0]
                await self._channel.drain()
            except NotConnected:
                # Whatever ended the session gets its turn to say so.
                await asyncio.sleep(0)
                return
        if not (self.machine.done or self.machine.failed):
            await self._wait_until(self.machine.deadline)

    def _pace(self, type: str, now: float) -> float:
        """Chunks wait for their turn; what begins and ends a file does not."""
        return self._channel.pacer.take(now, urgent=type != "file.chunk")

    async def _wait_until(self, when: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(when):
                await self._wake.wait()

    def _failed(self, error: ClientError) -> None:
        """The relay refused a message, or the other end missed it: begin again, in time."""
        delay = 0.0
        if isinstance(error, RelayRefused):
            after = error.retry_after_ms
            delay = _REFUSED_SECONDS if after is None else after / 1000
        if delay > _LONGEST_SECONDS:
            self._refusal = error
        self._not_before = asyncio.get_running_loop().time() + delay
        self._begin = True
        self._wake.set()

    def _cancel(self) -> None:
        with contextlib.suppress(ClientError):
            for type, payload in self.machine.cancel():
                self._channel.send(type, payload)
