"""An answer on its way to a phone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from coralmux.client.attachments import (
    Attachment,
    AttachmentError,
    RemoteAttachment,
    check_inline,
    from_inline,
)
from coralmux.client.errors import (
    AgentError,
    ClientError,
    ConnectionLost,
    InvalidAnswer,
    MessageLost,
    PeerOffline,
    RelayRefused,
    ReplyIncomplete,
    RequestTimeout,
)
from coralmux.client.exchange import Exchange
from coralmux.client.file_messages import FileError
from coralmux.client.messages import ChatDone, ChatStream, ToolStatus, read, read_tool
from coralmux.client.reply import described
from coralmux.protocol.errors import PeerCode

if TYPE_CHECKING:
    from coralmux.client.phone import Phone

log = logging.getLogger("coralmux")

# Ends of an answer that the agent knows of. All others it has to be told: a refusal, too,
# comes in the clear, so it may be forged, and the agent be answering.
_AGENT_KNOWS = (AgentError, ConnectionLost, MessageLost)

_NOT_DELIVERED = (RelayRefused, PeerOffline, MessageLost)

# (attachment, bytes that arrived, bytes in all)
OnProgress = Callable[[Attachment, int, int], None]
OnTool = Callable[[ToolStatus], None]

T = TypeVar("T")


@dataclass(slots=True)
class Question:
    """What `Phone.ask` was given."""

    text: str = field(repr=False)
    id: str
    attachments: Sequence[Attachment] = field(repr=False)
    more: dict[str, Any] = field(repr=False)
    timeout: float | None
    on_tool: OnTool | None
    on_progress: OnProgress | None


class Answer:
    """Iterate over it for the deltas, or await it for the whole text; once.

    When it has ended, `text` is the whole of it, `attachments` are the files that came
    with it, `usage` is what the agent says it took, and `cancelled` whether `cancel`
    cut it short. `id` names the question.

    Leaving the loop ends it as `cancel` does, as soon as nothing refers to the answer any
    more; `async with phone.ask(…) as answer` ends it where the block does.

    Raises, while it is iterated: AgentError (what the agent says went wrong), PeerOffline,
    ConnectionLost, MessageLost, RelayRefused, RequestTimeout, ReplyIncomplete,
    PairingRefused, Stopped, FileError and AttachmentError; each has the `ids` it is about.
    """

    # The generator must know nothing of what holds it: one that is in a cycle lives on
    # after a `break`, unfinished, until the garbage collector happens to come by.
    def __init__(self, phone: Phone, question: Question) -> None:
        self.id = question.id
        self._question = question
        self._asking = _Asking(phone, question)
        self._deltas = self._asking.follow()

    def __repr__(self) -> str:
        return f"<Answer to {self.id}, {len(self.text)} characters>"

    @property
    def text(self) -> str:
        return self._asking.text

    @property
    def attachments(self) -> list[Attachment | RemoteAttachment]:
        return self._asking.attachments

    @property
    def usage(self) -> dict[str, Any]:
        return self._asking.usage

    @property
    def cancelled(self) -> bool:
        return self._asking.cancelled

    def __aiter__(self) -> AsyncGenerator[str, None]:
        return self._deltas

    def __await__(self) -> Generator[Any, None, str]:
        return self._whole().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._deltas.aclose()

    async def _whole(self) -> str:
        async for _ in self._deltas:
            pass
        return self.text

    def cancel(self) -> None:
        """Ask the agent to stop; the answer then ends with what was said until then.

        A question that is not sent yet, because the agent is away or a file is on its way,
        is not sent any more.
        Version 1 knows no cancelling, nor do some agents of version 2: there nothing more
        is handed out until the agent has come to its end, for which the next question
        waits in version 1.
        """
        self._asking.cancel()


class _Asking:
    """What becomes of a question; `follow` asks it."""

    def __init__(self, phone: Phone, question: Question) -> None:
        self.id = question.id
        self.text = ""
        self.attachments: list[Attachment | RemoteAttachment] = []
        self.usage: dict[str, Any] = {}
        self.cancelled = False
        self._phone = phone
        self._question = question
        self._preparing: asyncio.Task[Any] | None = None
        self._files: list[str] = []
        self._sent = False
        self._ended = False

    def cancel(self) -> None:
        """See `Answer.cancel`."""
        if self._ended or self.cancelled:
            return
        self.cancelled = True
        if self._preparing is not None:
            self._preparing.cancel()
        if self._sent and self._agent_can("cancel"):
            with contextlib.suppress(ClientError):
                self._phone.channel.insist("chat.cancel", {"ref": self.id})

    def _give_up(self) -> None:
        """Nobody listens any more; in version 1 the answer still has to come to its end."""
        if self._ended or self.cancelled:
            return
        self.cancelled = True
        if self._agent_can("cancel"):
            # Once, unlike `cancel`: after a refusal it would take the place of the
            # question that is sent again.
            with contextlib.suppress(ClientError):
                self._phone.channel.send("chat.cancel", {"ref": self.id})

    def _agent_can(self, ability: str) -> bool:
        """Whether the agent says so; in version 1 it says nothing, and can nothing."""
        agent = self._phone.agent
        return agent is not None and ability in agent.caps

    async def follow(self) -> AsyncGenerator[str, None]:
        """The deltas, in order."""
        phone, question = self._phone, self._question
        async with phone.turn():
            try:
                payload = await self._unless_cancelled(self._payload())
                while not (self.cancelled or phone.channel.ready):
                    await self._unless_cancelled(phone.ready(question.timeout))
                # From here to the sending of the question nothing else can run.
                if payload is None or self.cancelled:
                    return
                with phone.exchange(
                    self.id, "chat.stream", "chat.done", "chat.tool_status"
                ) as waiting:
                    phone.channel.send("chat.send", payload, id=self.id, on_failure=waiting.fail)
                    self._sent = True
                    try:
                        async with contextlib.aclosing(self._read(waiting)) as deltas:
                            async for delta in deltas:
                                yield delta
                    except (GeneratorExit, asyncio.CancelledError):
                        self._abandon(waiting)
                        self.cancel()
                        raise
                    except BaseException as error:
                        # After a time-out this also brings to light what was lost: the
                        # agent misses the question, or we its answer.
                        overdue = isinstance(error, RequestTimeout)
                        if not waiting.failed:
                            self._abandon(waiting, overdue=overdue)
                        if not isinstance(error, _AGENT_KNOWS):
                            self._give_up()
                        raise
            except ClientError as error:
                if not error.ids:
                    error.ids = (self.id,)
                if isinstance(error, _NOT_DELIVERED):
                    self._sent = False
                raise
            finally:
                self._ended = True
                if not self._sent:
                    self._take_back_files()

    def _take_back_files(self) -> None:
        """The question does not get there: its files need no place at the agent's."""
        for file_id in self._files:
            with contextlib.suppress(ClientError):
                self._phone.channel.send("file.cancel", {"file_id": file_id})

    def _abandon(self, waiting: Exchange, *, overdue: bool = False) -> None:
        if not self._ended:
            self._phone.abandon(waiting, overdue=overdue)

    async def _unless_cancelled(self, preparing: Coroutine[Any, Any, T]) -> T | None:
        """What it returns, or None where `cancel` came in between."""
        if self.cancelled:
            preparing.close()
            return None
        self._preparing = task = asyncio.create_task(preparing)
        try:
            return await task
        except asyncio.CancelledError:
            ours = asyncio.current_task()
            if not self.cancelled or (ours is not None and ours.cancelling()):
                raise
            return None
        finally:
            self._preparing = None

    async def _payload(self) -> dict[str, Any]:
        """Of `chat.send`, once the agent is there and has all the files."""
        phone, question = self._phone, self._question
        await phone.ready(question.timeout)
        payload = {"text": question.text} | question.more
        if question.attachments:
            payload["attachments"] = await self._send_attachments()
        if phone.channel.version == 1:
            check_inline(
                len(msgspec.json.encode(payload)),
                max_message_bytes=phone.channel.max_message_bytes,
            )
        return payload

    async def _read(self, waiting: Exchange) -> AsyncGenerator[str, None]:
        """Hand out deltas in order. After one that is missing, the end brings the rest."""
        seen = 0
        complete = True
        while True:
            try:
                message = await waiting.next(self._question.timeout)
            except AgentError as error:
                if error.code == PeerCode.E2E_REQUIRED and self._phone.channel.version == 2:
                    self._give_up()
                    raise meddled(error, "it was cancelled. Ask again.") from None
                raise
            if message.type == "chat.tool_status":
                if self._question.on_tool is not None:
                    # It comes in the clear in version 1. An answer is no worse without it.
                    try:
                        status = read_tool(message.payload)
                    except InvalidAnswer:
                        continue
                    self._question.on_tool(status)
            elif message.type == "chat.stream":
                delta = read(message.payload, ChatStream)
                if delta.seq and delta.seq <= seen:
                    continue
                complete = complete and delta.seq in (0, seen + 1)
                seen = delta.seq
                if complete and not (self.cancelled and not self._agent_can("cancel")):
                    self.text += delta.delta
                    yield delta.delta
            elif message.type == "chat.done":
                self._ended = True
                done = read(message.payload, ChatDone)
                break
        self.usage = done.usage
        self.cancelled = done.cancelled or self.cancelled
        missing = self._take_files(done)
        if rest := self._rest(done.full_text, complete):
            self.text += rest
            yield rest
        if missing:
            raise type(missing[0])(
                f"The text is whole, but {len(missing)} of {len(done.attachments)} files that "
                f"belong to it did not come. {missing[0]}",
                ids=(self.id,),
            )

    def _take_files(self, done: ChatDone) -> list[AttachmentError | FileError]:
        """Claim all that came, and say what was wrong with the others."""
        missing: list[AttachmentError | FileError] = []
        for item in done.attachments:
            try:
                self.attachments.append(self._attachment(item))
            except (AttachmentError, FileError) as error:
                missing.append(error)
        return missing

    def _rest(self, full_text: str, complete: bool) -> str:
        """What is missing at the end. Raises ReplyIncomplete where that cannot be told."""
        if full_text.startswith(self.text):
            return "" if self.cancelled and complete else full_text[len(self.text) :]
        if complete:
            # An agent may tidy up what it has said; that was handed out as it was said.
            return ""
        raise ReplyIncomplete(
            "Parts of the answer were lost on the way, and what came does not fit its end. "
            "Ask again.",
            full_text=full_text,
            ids=(self.id,),
        )

    def _attachment(self, item: dict[str, Any]) -> Attachment | RemoteAttachment:
        if "file_id" in item:
            return self._phone.transfers.inbox.claim(item["file_id"])
        return from_inline(item)

    async def _send_attachments(self) -> list[dict[str, Any]]:
        """Files go ahead of the message in version 2, and inside it in version 1."""
        question = self._question
        if self._phone.channel.version == 1:
            return [attachment.to_inline() for attachment in question.attachments]
        if not self._agent_can("files"):
            raise AttachmentError(
                "This agent takes no files. Update it, or ask without them.", ids=(self.id,)
            )
        sent = []
        for attachment in question.attachments:
            report = None
            if question.on_progress is not None:
                report = _reporter(question.on_progress, attachment)
            file_id = await self._phone.transfers.send(
                attachment, report, patience=question.timeout
            )
            self._files.append(file_id)
            sent.append(described(attachment, file_id))
        return sent


def meddled(error: AgentError, then: str) -> AgentError:
    """What E2E_REQUIRED means to whoever sent the message sealed.

    A copy that a relay made in the clear is answered so as well, while the message
    itself may have been taken. `then` says what to do.
    """
    return AgentError(
        "A copy of this message came unsealed, so something on the way meddles. "
        f"Whether the message itself was taken is not known; {then}",
        code=error.code,
        ids=error.ids,
    )


def _reporter(on_progress: OnProgress, attachment: Attachment) -> Callable[[int, int], None]:
    def report(sent: int, total: int) -> None:
        # It runs where messages come in, which must go on.
        try:
            on_progress(attachment, sent, total)
        except Exception:
            log.exception("the handler of progress failed")

    return report
