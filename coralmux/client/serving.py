"""One pairing on the agent's side: questions in, replies out."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from coralmux.client import connection as wire
from coralmux.client.attachments import Attachment, RemoteAttachment, from_inline
from coralmux.client.channel import AnyEvent, Channel
from coralmux.client.errors import ClientError, NotConnected
from coralmux.client.messages import read_question
from coralmux.client.reply import Piece, Reply
from coralmux.client.requests import (
    RESULTS,
    BackendError,
    ChatHandler,
    ChatMessage,
    Request,
    RequestHandler,
    Unsupported,
)
from coralmux.client.store import Store
from coralmux.client.transfers import OnFile, Transfers
from coralmux.e2e import events as e2e
from coralmux.e2e.events import Opened, PeerInfo
from coralmux.e2e.link import PairingLink
from coralmux.protocol import ErrorCode, Role
from coralmux.protocol.errors import PeerCode
from coralmux.protocol.limits import MAX_FILE_BYTES

log = logging.getLogger("coralmux")

# Replies that run at once for one phone. A phone may ask 30 times a minute; one that asks
# on and on without waiting for answers is told to wait.
MAX_CHATS = 32

# All that is being worked on for one phone, requests that are no chats included.
MAX_WORK = 64

# Bytes of attachments that running chats of one phone hold, beside those that wait.
MAX_HELD_BYTES = 100_000_000

# Characters of an error's text that go to the phone. One that were too large to send
# would leave the phone waiting.
MAX_ERROR_CHARACTERS = 4000

# Seconds that a question of version 1 waits for the phone's newest key.
KEY_SECONDS = 10.0

EventHandler = Callable[[PairingLink, AnyEvent], None]


@dataclass(slots=True)
class Handlers:
    """What an agent's owner has registered; all its pairings share one."""

    chat: ChatHandler | None = None
    event: EventHandler | None = None
    progress: OnFile | None = None
    requests: dict[str, RequestHandler] = field(default_factory=dict)


class Serving:
    """One pairing that an agent serves: its channel, its files, the replies that run for it."""

    def __init__(
        self,
        link: PairingLink,
        handlers: Handlers,
        *,
        name: str,
        store: Store | None,
        finish_unheard: bool = False,
        max_file_bytes: int = MAX_FILE_BYTES,
        **options: Any,
    ) -> None:
        self._handlers = handlers
        self._finish_unheard = finish_unheard
        self.channel = Channel(
            link,
            Role.AGENT,
            name=name,
            store=store,
            on_message=self._message,
            on_event=self._event,
            **options,
        )
        self._transfers = Transfers(
            self.channel, max_file_bytes=max_file_bytes, on_incoming=self._incoming
        )
        self._held_bytes = 0
        self._chats: dict[str, _Chat] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Version 1 replies carry no reference, so one has to end before the next begins.
        self._one_at_a_time = asyncio.Lock()
        self._leaving = False

    async def serve(self) -> None:
        self._leaving = False
        try:
            await self.channel.run()
        finally:
            self._transfers.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(
        self, drain_seconds: float = 0.0, *, besides: asyncio.Task[Any] | None = None
    ) -> None:
        """Leave, after so many seconds for all that runs `besides` one task."""
        self._leaving = True
        running = self._tasks - {besides}
        if running and drain_seconds:
            await asyncio.wait(running, timeout=drain_seconds)
        await self.channel.close()

    def _event(self, event: AnyEvent) -> None:
        match event:
            case e2e.Established():
                self._transfers.established()
            case e2e.Ended():
                # Whoever asked is gone, or has been told that the session is.
                for chat in self._chats.values():
                    if chat.reply is not None and self._finish_unheard:
                        chat.reply.leave_unheard()
                    else:
                        chat.task.cancel()
                self._transfers.ended()
            case wire.Stopped():
                log.error("the pairing at %s ended: %s", self.channel.link.relay, event.cause)
        self.tell(event)

    def tell(self, event: AnyEvent) -> None:
        """Tell the agent's owner of an event."""
        if self._handlers.event is not None:
            try:
                self._handlers.event(self.channel.link, event)
            except Exception:
                log.exception("the agent's event handler failed")

    def _incoming(self, name: str, received: int, total: int) -> None:
        if self._handlers.progress is not None:
            self._handlers.progress(name, received, total)

    def _message(self, message: Opened) -> None:
        if self._transfers.receive(message):
            return
        if message.type == "chat.send":
            self._begin_chat(message)
        elif message.type == "chat.cancel":
            self._cancel_chat(message)
        elif message.type in RESULTS and len(self._tasks) >= MAX_WORK:
            text = f"{MAX_WORK} requests are being worked on; wait for one of them."
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, text)
        elif message.type in RESULTS:
            self._start(self._answer(message))
        elif message.type == "chat.error":
            # The phone has no question open here: it could not take something of ours.
            ref = message.payload.get("ref")
            self._event(e2e.Lost((ref,) if isinstance(ref, str) else ()))
        else:
            self._refuse(
                message.id, PeerCode.UNSUPPORTED, "This agent does not know such requests."
            )

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _refuse(self, ref: str, code: str, message: str) -> None:
        """Tell the phone that a request is not answered, and why."""
        payload = {"code": code, "message": _sendable(message)}
        if self.channel.version == 2:
            payload["ref"] = ref
        elif code in frozenset(PeerCode):
            payload["code"] = ErrorCode.BACKEND_ERROR  # version 1 knows no other
        with contextlib.suppress(ClientError):
            self.channel.insist("chat.error", payload)

    # Chats.

    def _begin_chat(self, message: Opened) -> None:
        if self._leaving:
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, "The agent is shutting down.")
        elif len(self._chats) >= MAX_CHATS:
            text = f"{MAX_CHATS} answers are on their way; wait for one of them."
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, text)
        else:
            # In version 1 nothing keeps two questions from having one id.
            key = message.id if self.channel.version == 2 else str(id(message))
            chat = _Chat()
            chat.task = self._start(self._chat(chat, message))
            self._chats[key] = chat
            chat.task.add_done_callback(lambda task: self._chats.pop(key, None))

    def _cancel_chat(self, message: Opened) -> None:
        chat = self._chats.get(str(message.payload.get("ref")))
        if chat is None:
            # Either both crossed, or what came of the answer never reached the phone.
            self._event(e2e.Ignored("a cancelling of no answer that is on its way", message.id))
            text = "There is no answer on its way to this message."
            self._refuse(message.id, PeerCode.UNKNOWN_REF, text)
            return
        if chat.cancelled:
            return  # it is ending already, and must not be kept from saying so
        chat.cancelled = True
        if chat.started:  # else it would end without a word, having run nothing
            chat.task.cancel()

    async def _chat(self, chat: _Chat, message: Opened) -> None:
        alone = self._one_at_a_time if self.channel.version == 1 else contextlib.nullcontext()
        async with alone:
            if not await self._can_answer():
                self._refuse(
                    message.id,
                    ErrorCode.BACKEND_ERROR,
                    "The phone's key for the answer did not come. Connect again, and ask again.",
                )
                return
            chat.started = True
            reply = chat.reply = Reply(
                self.channel, self._transfers, message.id, finish_unheard=self._finish_unheard
            )
            try:
                await self._reply(chat, reply, message)
            except NotConnected:
                pass  # the session's end is told by itself, to both sides
            except ClientError as error:
                await self._fail(reply, str(error))
            except BackendError as error:
                await self._fail(reply, str(error) or "The agent failed and gave no reason.")
            except Exception as error:
                log.exception("the chat handler failed")
                await self._fail(
                    reply, f"The agent failed ({type(error).__name__}). Its log says more."
                )
            finally:
                reply.close()
                self._held_bytes -= chat.held_bytes

    async def _can_answer(self) -> bool:
        """In version 1 a question may come ahead of the key to answer it with."""
        with contextlib.suppress(TimeoutError, ClientError):
            async with asyncio.timeout(KEY_SECONDS):
                await self.channel.wait_ready()
                return True
        return False

    async def _reply(self, chat: _Chat, reply: Reply, message: Opened) -> None:
        if chat.cancelled:
            await reply.done(cancelled=True)
            return
        try:
            question = self._question(chat, message)
            pieces = _pieces(self._handlers.chat, question)
            async with contextlib.aclosing(pieces):
                await reply.follow(pieces)
            reply.usage = question.usage
            await reply.done()
        except asyncio.CancelledError:
            task = _cancelled_task()
            if not chat.cancelled or not self.channel.ready:
                raise
            # The phone's wish, and no reason to end this task before it has said so.
            task.uncancel()
            await reply.done(cancelled=True)

    async def _fail(self, reply: Reply, text: str) -> None:
        with contextlib.suppress(ClientError):
            await reply.failed(ErrorCode.BACKEND_ERROR, _sendable(text))

    def _question(self, chat: _Chat, message: Opened) -> ChatMessage:
        """Raises InvalidAnswer, AttachmentError, FileError or BackendError."""
        payload = read_question(message.payload)
        attachments = [self._attachment(item) for item in payload.attachments]
        chat.held_bytes = sum(
            len(attachment.data) for attachment in attachments if isinstance(attachment, Attachment)
        )
        self._held_bytes += chat.held_bytes
        if self._held_bytes > MAX_HELD_BYTES:
            raise BackendError(
                "The agent is at work on as many files as it takes at once. "
                "Wait for an answer, then send these again."
            )
        return ChatMessage(
            id=message.id,
            text=payload.text,
            attachments=attachments,
            agent_id=payload.agent_id,
            conversation=payload.conversation,
            model=payload.model,
            options=payload.options,
            phone=self._phone(),
            pairing=self.channel.link,
        )

    def _attachment(self, item: dict[str, Any]) -> Attachment | RemoteAttachment:
        if "file_id" in item:
            return self._transfers.inbox.claim(item["file_id"])
        return from_inline(item)

    def _phone(self) -> PeerInfo:
        if self.channel.peer is None:
            raise NotConnected("The phone is gone.")
        return self.channel.peer

    # Other requests.

    async def _answer(self, message: Opened) -> None:
        handler = self._handlers.requests.get(message.type)
        if handler is None:
            text = f"This agent does not offer {message.type}."
            self._refuse(message.id, PeerCode.UNSUPPORTED, text)
            return
        try:
            request = Request(
                message.type, message.id, message.payload, self._phone(), self.channel.link
            )
            try:
                result = dict(await handler(request))
            except asyncio.CancelledError:
                _cancelled_task()
                raise
            if self.channel.version == 2:
                result["ref"] = message.id
            self.channel.insist(
                RESULTS[message.type],
                result,
                on_failure=lambda error: self._refuse(
                    message.id, ErrorCode.BACKEND_ERROR, f"The answer did not pass. {error}"
                ),
            )
        except NotConnected:
            pass
        except Unsupported as error:
            self._refuse(message.id, PeerCode.UNSUPPORTED, str(error))
        except (BackendError, ClientError) as error:
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, str(error))
        except Exception as error:
            log.exception("the handler of %s failed", message.type)
            text = f"The agent failed ({type(error).__name__}). Its log says more."
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, text)


class _Chat:
    """A reply that runs, and whether the phone wants it no more."""

    task: asyncio.Task[None]
    reply: Reply | None = None
    held_bytes = 0
    started = False
    cancelled = False


def _cancelled_task() -> asyncio.Task[Any]:
    """The running task, which was cancelled. Raises RuntimeError if it was not.

    A handler that waits for something that others cancel lets a CancelledError out as
    well; that ends its answer like any other error, not in silence.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise RuntimeError("what the handler waited for was cancelled")
    return task


def _sendable(text: str) -> str:
    """An error's text as UTF-8 can carry it, and not too long to be sent."""
    return text[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode()


async def _pieces(handler: ChatHandler | None, message: ChatMessage) -> AsyncGenerator[Piece, None]:
    """What a handler says, whichever kind it is."""
    if handler is None:
        raise BackendError("This agent answers no questions.")
    result = handler(message)
    if inspect.isawaitable(result):
        text = await result
        if text:
            yield text
        return
    if not isinstance(result, AsyncGenerator):
        raise TypeError(
            "a chat handler is an async generator function or a coroutine function, "
            f"and returns no {type(result).__name__}"
        )
    async with contextlib.aclosing(result) as pieces:
        async for piece in pieces:
            yield piece
