"""The agent's side: answers what phones ask, for one pairing or several."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from coralmux.client import connection as wire
from coralmux.client.attachments import Attachment, RemoteAttachment, from_inline
from coralmux.client.channel import AnyEvent, Channel
from coralmux.client.errors import ClientError, NotConnected
from coralmux.client.messages import Turn, read_question
from coralmux.client.reply import Piece, Reply
from coralmux.client.store import Store
from coralmux.client.transfers import Transfers
from coralmux.e2e import events as e2e
from coralmux.e2e.events import Opened, PeerInfo
from coralmux.e2e.link import PairingLink
from coralmux.protocol import ErrorCode, Role
from coralmux.protocol.errors import PeerCode

log = logging.getLogger("coralmux")

# Replies that run at once for one phone. A phone may ask 30 times a minute; one that asks
# on and on without waiting for answers is told to wait.
MAX_CHATS = 32

# Seconds that running replies get to end when the agent is told to leave.
DRAIN_SECONDS = 10.0

# Characters of an error's text that go to the phone. One that were too large to send
# would leave the phone waiting.
MAX_ERROR_CHARACTERS = 4000

# Seconds that a question of version 1 waits for the phone's newest key.
KEY_SECONDS = 10.0

# Requests and the type of their answer.
RESULTS = {
    "chat.history": "chat.history.result",
    "agent.list": "agent.list.result",
    "agent.create": "agent.result",
    "agent.update": "agent.result",
    "agent.delete": "agent.result",
    "memory.search": "memory.search.result",
    "group.list": "group.list.result",
    "group.messages": "group.messages.result",
    "group.send": "group.message",
    "system.status": "system.status.result",
}


class BackendError(Exception):
    """Raised by a handler to tell the phone's user something: the text is shown as it is.

    Any other exception is reported without its text, which may hold what is nobody's
    business.
    """


@dataclass(slots=True)
class ChatMessage:
    """A question. `usage` may be filled by the handler, and goes out with the answer's end."""

    id: str
    text: str = field(repr=False)
    attachments: list[Attachment | RemoteAttachment]
    agent_id: str
    conversation: tuple[Turn, ...] = field(repr=False)
    model: str
    options: dict[str, Any] = field(repr=False)
    phone: PeerInfo
    pairing: PairingLink
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """Anything else that a phone asks; `payload` is as it came."""

    type: str
    id: str
    payload: dict[str, Any] = field(repr=False)
    phone: PeerInfo
    pairing: PairingLink


ChatHandler = Callable[[ChatMessage], AsyncGenerator[Piece, None] | Awaitable[str | None]]
RequestHandler = Callable[[Request], Awaitable[dict[str, Any]]]
EventHandler = Callable[[PairingLink, AnyEvent], None]


class Agent:
    """Your bot: give it a link and a handler, and run it.

        agent = coralmux.Agent.from_link(link)

        @agent.on_chat
        async def reply(message):
            yield "Hello "
            yield "there"

        agent.run()

    The handler is an async generator that yields `str`, `ToolStatus` and `Attachment`, or
    a coroutine function that returns the whole text. Chats run side by side. When the
    phone cancels, or its session ends, the handler is cancelled.

    With a `store` the secret of a link is replaced when the link is first used, so that
    the link opens nothing afterwards. Without one the link stays good for whoever has it:
    fine for trying, not for a link that was shown to others.

    `options` go to the connection: `ssl`, `proxy`, `timers`.
    """

    def __init__(
        self,
        relay: str | None = None,
        token: str | None = None,
        *,
        secret: bytes | None = None,
        name: str = "Agent",
        store: Store | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self._store = store
        self._options = options
        self._chat_handler: ChatHandler | None = None
        self._handlers: dict[str, RequestHandler] = {"agent.list": self._list_itself}
        self._event_handler: EventHandler | None = None
        self._pairings: list[_Pairing] = []
        self._closing = False
        if relay is not None and token is not None:
            self.add(PairingLink(relay, token, secret))
        elif relay is not None or token is not None:
            raise TypeError("relay and token go together")

    @classmethod
    def from_link(cls, *links: str | PairingLink, **arguments: Any) -> Agent:
        """An agent for the pairings of these links. Raises LinkError."""
        agent = cls(**arguments)
        for link in links:
            agent.add(link)
        return agent

    def add(self, link: str | PairingLink) -> None:
        """Serve another phone: each has a pairing of its own. Raises LinkError, StoreError."""
        parsed = PairingLink.parse(link) if isinstance(link, str) else link
        self._pairings.append(_Pairing(self, parsed, self._store, self._options))

    def on_chat(self, handler: ChatHandler) -> ChatHandler:
        """Decorator: what answers `chat.send`."""
        self._chat_handler = handler
        return handler

    def on(self, type: str) -> Callable[[RequestHandler], RequestHandler]:
        """Decorator: what answers another request, with the payload of its result.

        `type` is one of "chat.history", "agent.list", "agent.create", "agent.update",
        "agent.delete", "memory.search", "group.list", "group.messages", "group.send" and
        "system.status". Raises ValueError for others.
        """
        if type not in RESULTS:
            raise ValueError(f"no request is called {type!r}; there are {', '.join(RESULTS)}")

        def register(handler: RequestHandler) -> RequestHandler:
            self._handlers[type] = handler
            return handler

        return register

    def on_event(self, handler: EventHandler) -> EventHandler:
        """Decorator: told what becomes of each pairing: connection, session, gaps, hints."""
        self._event_handler = handler
        return handler

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C; replies that run then may end first."""
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        leaving: set[asyncio.Task[None]] = set()

        def leave() -> None:
            if leaving:
                raise KeyboardInterrupt  # asked twice: at once
            leaving.add(asyncio.create_task(self.close(drain_seconds=DRAIN_SECONDS)))

        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises by itself
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, leave)
        await self.serve()
        await asyncio.gather(*leaving)

    async def serve(self) -> None:
        """Be there for all pairings until `close`.

        A pairing that the relay refuses for good is reported by `on_event`; the others go
        on. Raises the failure of the last one when none is left, and StoreError when a
        new secret cannot be written down.
        """
        if self._chat_handler is None:
            raise RuntimeError("the agent has no on_chat handler")
        if not self._pairings:
            raise RuntimeError("the agent has no pairing; give it a link")
        self._closing = False
        try:
            async with asyncio.TaskGroup() as group:
                for pairing in self._pairings:
                    group.create_task(pairing.serve())
        except ExceptionGroup as failed:
            # One error for people, such as StoreError: the others were cancelled for it.
            raise failed.exceptions[0] from None
        failures = [pairing.channel.failure for pairing in self._pairings]
        if not self._closing and failures[-1] is not None:
            raise failures[-1]

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Leave: running replies get so many seconds to end, new questions are refused."""
        self._closing = True
        await asyncio.gather(*(pairing.close(drain_seconds) for pairing in self._pairings))

    async def group_message(self, room_id: str, message: dict[str, Any]) -> None:
        """Tell all phones that are there of a message in a room."""
        for pairing in self._pairings:
            with contextlib.suppress(NotConnected):
                pairing.channel.insist("group.message", {"room_id": room_id, "message": message})

    async def _list_itself(self, request: Request) -> dict[str, Any]:
        return {"agents": [{"id": "default", "name": self.name}]}


class _Pairing:
    """One phone: its channel, its files, and the replies that run for it."""

    def __init__(
        self, agent: Agent, link: PairingLink, store: Store | None, options: dict[str, Any]
    ) -> None:
        self._agent = agent
        self.channel = Channel(
            link,
            Role.AGENT,
            name=agent.name,
            store=store,
            on_message=self._message,
            on_event=self._event,
            **options,
        )
        self._transfers = Transfers(self.channel)
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

    async def close(self, drain_seconds: float) -> None:
        self._leaving = True
        if self._tasks and drain_seconds:
            await asyncio.wait(self._tasks, timeout=drain_seconds)
        await self.channel.close()

    def _event(self, event: AnyEvent) -> None:
        match event:
            case e2e.Established():
                self._transfers.established()
            case e2e.Ended():
                # Whoever asked is gone, or has been told that the session is.
                self._transfers.ended()
                for chat in self._chats.values():
                    chat.task.cancel()
            case wire.Stopped():
                log.error("the pairing at %s ended: %s", self.channel.link.relay, event.cause)
        if self._agent._event_handler is not None:
            try:
                self._agent._event_handler(self.channel.link, event)
            except Exception:
                log.exception("the agent's event handler failed")

    def _message(self, message: Opened) -> None:
        if self._transfers.receive(message):
            return
        if message.type == "chat.send":
            self._begin_chat(message)
        elif message.type == "chat.cancel":
            self._cancel_chat(message)
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
        with contextlib.suppress(NotConnected):
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
            reply = Reply(self.channel, self._transfers, message.id)
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
            question = self._question(message)
            pieces = _pieces(self._agent._chat_handler, question)
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

    def _question(self, message: Opened) -> ChatMessage:
        """Raises InvalidAnswer, AttachmentError or FileError."""
        payload = read_question(message.payload)
        return ChatMessage(
            id=message.id,
            text=payload.text,
            attachments=[self._attachment(item) for item in payload.attachments],
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
        handler = self._agent._handlers.get(message.type)
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
        except (BackendError, ClientError) as error:
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, str(error))
        except Exception as error:
            log.exception("the handler of %s failed", message.type)
            text = f"The agent failed ({type(error).__name__}). Its log says more."
            self._refuse(message.id, ErrorCode.BACKEND_ERROR, text)


class _Chat:
    """A reply that runs, and whether the phone wants it no more."""

    task: asyncio.Task[None]
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
