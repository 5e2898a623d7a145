"""What stands between phones and a backend: questions in, answers out, all of it kept."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from coralmux import (
    Agent,
    AgentProfile,
    Attachment,
    BackendError,
    ChatMessage,
    HistoryEntry,
    MemoryHit,
    Request,
    Unsupported,
)
from coralmux.bridge import payloads, system
from coralmux.bridge.answering import STOP_SECONDS, Answering, Failed, as_told, kind_of
from coralmux.bridge.backend import Backend, Piece, Question
from coralmux.bridge.conversations import MAX_CHARACTERS, Conversations, phone_key
from coralmux.bridge.reports import Reports

# Seconds for requests that are no questions: the phone waits 30.
_REQUEST_SECONDS = 25.0

T = TypeVar("T")


class Service:
    """Answers the phones of an agent by a backend. `close` it when the agent has ended.

    `silence_seconds` is the longest silence within an answer; `heard` is called whenever a
    phone asks something; `say` tells the operator something in one line.
    """

    def __init__(
        self,
        backend: Backend,
        conversations: Conversations,
        reports: Reports,
        *,
        silence_seconds: float = 300.0,
        system_status: bool = False,
        heard: Callable[[ChatMessage], None] = lambda message: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._backend = backend
        self._conversations = conversations
        self._reports = reports
        self._silence_seconds = silence_seconds
        self._system_status = system_status
        self._heard = heard
        self._say = say
        # One thread: what is written stays in order, and does not wait for a backend that
        # keeps all of asyncio's own threads busy.
        self._disk = ThreadPoolExecutor(1, "conversations")
        self._disk_failed = False
        self._endings: set[asyncio.Task[None]] = set()
        # Answers that are on their way.
        self.running = 0
        # How long a backend may take to end an answer that is not wanted any more.
        self.stop_seconds = STOP_SECONDS

    def attach(self, agent: Agent) -> None:
        """Be what answers this agent's phones."""
        agent.on_chat(self.reply)
        for type, handler in {
            "chat.history": self._history,
            "agent.list": self._list_agents,
            "agent.create": self._create_agent,
            "agent.update": self._update_agent,
            "agent.delete": self._delete_agent,
            "memory.search": self._search_memory,
            "group.list": self._list_groups,
            "group.messages": self._group_messages,
            "group.send": self._group_send,
            "system.status": self._status,
        }.items():
            agent.on(type)(handler)

    async def close(self) -> None:
        """Return when all that was said is on the disk, and broken off answers have ended."""
        if self._endings:
            await asyncio.wait(self._endings)
        self._disk.shutdown()

    # Questions.

    async def reply(self, message: ChatMessage) -> AsyncGenerator[Piece, None]:
        """The handler of chats."""
        asked = self._reports.asked(message.pairing, message.id, message.text, message.attachments)
        said = _Said()
        self._heard(message)
        self.running += 1
        try:
            question = await self._question(message)
            await self._keep(
                self._conversations.asked,
                question.phone,
                question.agent_id,
                question.id,
                _with_files(question.text, question.attachments),
            )
            answering = Answering(self._backend, question, silence_seconds=self._silence_seconds)
            try:
                async with contextlib.aclosing(answering.pieces()) as pieces:
                    async for piece in pieces:
                        if _is_file(piece) and message.phone.protocol < 2:
                            # Version 1 has pictures alone. The rest of the answer counts.
                            name = _named(piece)
                            piece = f"\n\n{name} (this phone takes pictures alone)\n\n"
                        if isinstance(piece, str):
                            asked.said(piece)
                        said.add(piece)
                        yield piece
            finally:
                # Neither a second cancelling nor the end of the agent may cut this short.
                ending = asyncio.create_task(self._end(answering, question, said.text))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
                await asyncio.shield(ending)
            message.usage.update(_plain(question.usage))
        except BackendError as error:
            asked.ended("failed", kind_of(error))
            raise
        except Exception as error:
            # Raised as it is, the library would log it with its text.
            asked.ended("failed", type(error).__name__)
            raise as_told(error) from None
        except (asyncio.CancelledError, GeneratorExit):
            asked.ended("broken_off")
            raise
        else:
            asked.ended("answered")
        finally:
            self.running -= 1

    async def _end(self, answering: Answering, question: Question, said: str) -> None:
        if said:
            await self._keep(
                self._conversations.answered,
                question.phone,
                question.agent_id,
                question.id,
                said,
            )
        if not answering.complete and not await answering.stop(self.stop_seconds):
            self._say(
                f"The backend did not end an answer within {self.stop_seconds:g} s of being "
                "told to. It was left behind and may still be at work."
            )

    async def _question(self, message: ChatMessage) -> Question:
        """Raises BackendError where it asks nothing, or what cannot be answered."""
        attachments = tuple(a for a in message.attachments if isinstance(a, Attachment))
        if len(attachments) < len(message.attachments):
            raise BackendError(
                "This agent fetches nothing from web addresses. Send the picture itself."
            )
        if not message.text.strip() and not attachments:
            raise BackendError("The question is empty. Write something, or send a picture.")
        agent_id = payloads.short(message.agent_id, "agent_id")
        phone = phone_key(message.pairing.token)
        history = message.conversation
        if not history and self._backend.wants_history:
            kept = await self._keep(self._conversations.turns, phone, agent_id)
            history = tuple(kept or ())
        return Question(
            # In version 1 nothing keeps two questions from having one id.
            id=message.id if message.phone.protocol >= 2 else secrets.token_urlsafe(12),
            phone=phone,
            text=message.text,
            attachments=attachments,
            history=history,
            agent_id=agent_id,
            model=payloads.short(message.model, "model"),
            options=message.options,
        )

    # Requests.

    async def _history(self, request: Request) -> dict[str, Any]:
        agent_id = payloads.text(request.payload, "agent_id")
        limit = payloads.limit(request.payload, 50)
        phone = phone_key(request.pairing.token)
        if self._backend.overrides("history"):
            found = await self._asked(self._backend.history(phone, agent_id, limit))
        else:
            found = await self._keep(self._conversations.entries, phone, agent_id, limit) or []
        return {"messages": payloads.newest(payloads.plain(found, list[HistoryEntry]))}

    async def _list_agents(self, request: Request) -> dict[str, Any]:
        return {
            "agents": payloads.plain(await self._asked(self._backend.agents()), list[AgentProfile])
        }

    async def _create_agent(self, request: Request) -> dict[str, Any]:
        return await self._change(
            "create", lambda: self._backend.create_agent(payloads.agent(request.payload))
        )

    async def _update_agent(self, request: Request) -> dict[str, Any]:
        return await self._change(
            "update",
            lambda: self._backend.update_agent(payloads.agent(request.payload, named=True)),
        )

    async def _delete_agent(self, request: Request) -> dict[str, Any]:
        result = await self._change(
            "delete",
            lambda: self._backend.delete_agent(payloads.agent(request.payload, named=True).id),
        )
        if result["ok"]:
            await self._keep(self._conversations.delete_agent, request.payload["id"])
        return result

    async def _change(self, action: str, change: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        try:
            agent = payloads.plain(await self._asked(change()), AgentProfile)
        except BackendError as error:
            return {"ok": False, "action": action, "error": str(error)}
        return {"ok": True, "action": action, "agent": agent}

    async def _search_memory(self, request: Request) -> dict[str, Any]:
        found = await self._asked(
            self._backend.memory(
                payloads.text(request.payload, "agent_id"),
                payloads.text(request.payload, "query", needed=True),
                payloads.limit(request.payload, 10),
            )
        )
        return {"results": payloads.plain(found, list[MemoryHit])}

    async def _list_groups(self, request: Request) -> dict[str, Any]:
        return {
            "rooms": payloads.plain(await self._asked(self._backend.groups()), list[dict[str, Any]])
        }

    async def _group_messages(self, request: Request) -> dict[str, Any]:
        room = payloads.text(request.payload, "room_id", needed=True)
        limit = payloads.limit(request.payload, 50)
        found = await self._asked(self._backend.group_messages(room, limit))
        return {"room_id": room, "messages": payloads.plain(found, list[dict[str, Any]])}

    async def _group_send(self, request: Request) -> dict[str, Any]:
        room = payloads.text(request.payload, "room_id", needed=True)
        text = payloads.text(request.payload, "text", needed=True, longest=payloads.LONG)
        message = await self._asked(self._backend.group_send(room, text))
        return {"room_id": room, "message": payloads.plain(message, dict[str, Any])}

    async def _status(self, request: Request) -> dict[str, Any]:
        if not self._system_status:
            raise Unsupported(
                "The system's status: not shown by this agent. Whoever runs it can allow it "
                "by system_status = true in its config."
            )
        return await asyncio.to_thread(system.status)

    async def _asked(self, answer: Awaitable[T]) -> T:
        """What a backend answers to a request. Raises BackendError and nothing else."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                return await answer
        except TimeoutError:
            raise BackendError(
                f"The AI's side did not answer within {_REQUEST_SECONDS:g} s. Try again later."
            ) from None
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise as_told(error) from None
        except Exception as error:
            told = as_told(error)
            if isinstance(told, Failed):
                self._say(f"The backend failed at a request ({told.kind}).")
            raise told from None

    async def _keep(self, work: Callable[..., T], *arguments: Any) -> T | None:
        """Have conversations read or written; None where the disk does not allow it."""
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._disk, work, *arguments)
        except (OSError, ValueError) as error:
            # No reason not to answer.
            if not self._disk_failed:
                why = getattr(error, "strerror", "") or type(error).__name__
                where = self._conversations.directory
                self._say(f"Conversations cannot be kept: {why}. Make room in {where}, or mend it.")
            self._disk_failed = True
            return None
        self._disk_failed = False
        return result


def _is_file(piece: Piece) -> bool:
    return isinstance(piece, Attachment) and not piece.is_image


def _with_files(text: str, attachments: Any) -> str:
    """A question or answer in words alone."""
    names = [_named(attachment) for attachment in attachments]
    return "\n".join([text, *names] if text else names)


def _named(attachment: Any) -> str:
    return f"[{'picture' if attachment.is_image else 'file'}: {attachment.name}]"


class _Said:
    """An answer in words alone, no more of it than is kept."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._names: list[str] = []
        self._room = MAX_CHARACTERS

    def add(self, piece: Piece) -> None:
        if self._room <= 0:
            return
        if isinstance(piece, str):
            self._words.append(piece[: self._room])
            self._room -= len(piece)
        elif isinstance(piece, Attachment):
            self._names.append(name := _named(piece))
            self._room -= len(name)

    @property
    def text(self) -> str:
        words = "".join(self._words)
        return "\n".join([words, *self._names] if words else self._names)


def _plain(usage: dict[str, Any]) -> dict[str, Any]:
    """What a backend says that an answer took, as far as it can be sent."""
    with contextlib.suppress(Exception):
        if isinstance(usage, dict) and len(msgspec.json.encode(usage)) <= 4096:
            return usage
    return {}
