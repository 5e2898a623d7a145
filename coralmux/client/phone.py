"""The phone's side: asks one agent, or the several behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Self

from coralmux.client import connection as wire
from coralmux.client.answer import Answer, OnProgress, OnTool, Question, meddled
from coralmux.client.attachments import Attachment
from coralmux.client.channel import AnyEvent, Channel, new_id
from coralmux.client.errors import (
    AgentError,
    ClientError,
    ConnectionLost,
    InvalidAnswer,
    NotConnected,
    PeerOffline,
    RequestTimeout,
)
from coralmux.client.exchange import Exchange, Exchanges
from coralmux.client.messages import ChatDone, GroupMessage, Turn, read
from coralmux.client.queries import Queries, T
from coralmux.client.refusals import refusal
from coralmux.client.store import Store
from coralmux.client.transfers import Transfers
from coralmux.e2e import events as e2e
from coralmux.e2e.events import Opened, PeerInfo
from coralmux.e2e.legacy import UNREADABLE, UNSEALED
from coralmux.e2e.link import PairingLink
from coralmux.protocol import Role
from coralmux.protocol.errors import PeerCode

log = logging.getLogger("coralmux")

# Seconds. An answer to a question may have to think, so what counts is the silence between
# two pieces of it.
SILENCE_SECONDS = 300.0
READY_SECONDS = 30.0

# Seconds that the next question of version 1 waits for an answer that is overdue.
LATE_SECONDS = 2.0

# Messages that an answer does not end with.
_PARTS = ("chat.stream", "chat.tool_status")

_UNTAKEN = {
    UNSEALED: (
        "The agent answered without encryption, and its answer was not taken. Ask again; if "
        "this repeats, restart the agent."
    ),
    UNREADABLE: (
        "The agent's answer could not be decrypted: something on the way may have changed it, "
        "or the agent has other keys. Ask again; if this repeats, restart both ends."
    ),
}


class Phone(Queries):
    """Talk to the agent of a pairing.

        async with coralmux.Phone.from_link(link, store=store) as phone:
            async for delta in phone.ask("What is in this picture?", images=["cat.jpg"]):
                print(delta, end="")

    The agent may hand over a new secret when the link is used for the first time, after
    which the link itself opens nothing. The `store` keeps that secret. Without one it is
    lost with this object, and a new link is needed then.

    `options` go to the connection: `ssl`, `proxy`, `timers`.
    """

    def __init__(
        self,
        link: str | PairingLink,
        *,
        name: str = "Phone",
        store: Store | None = None,
        on_event: Callable[[AnyEvent], None] | None = None,
        on_group_message: Callable[[GroupMessage], None] | None = None,
        **options: Any,
    ) -> None:
        self.channel = Channel(
            PairingLink.parse(link) if isinstance(link, str) else link,
            Role.PHONE,
            name=name,
            store=store,
            on_message=self._message,
            on_event=self._event,
            **options,
        )
        self.transfers = Transfers(self.channel)
        self._exchanges = Exchanges(self.channel.version)
        self._on_event = on_event
        self._on_group_message = on_group_message
        self._one_at_a_time = asyncio.Lock()
        self._abandoned: Exchange | None = None
        self._patience = SILENCE_SECONDS
        self._unanswered: Exchange | None = None  # the last one, until something comes
        self._task: asyncio.Task[None] | None = None
        self._cause = "The relay has not answered yet."
        self._online = False
        self._agent_online = False

    @classmethod
    def from_link(cls, link: str | PairingLink, **arguments: Any) -> Phone:
        """A phone for this link. Raises LinkError, StoreError."""
        return cls(link, **arguments)

    @property
    def agent(self) -> PeerInfo | None:
        """Who answers, once that is known; `verified` if the pairing's secret proves it."""
        return self.channel.peer

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="coralmux phone")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self) -> None:
        try:
            await self.channel.run()
        except ClientError as error:
            self.channel.give_up(error)
        except Exception:
            log.exception("the phone's connection failed")
            self.channel.give_up(NotConnected("The phone failed. Its log says more."))
        finally:
            if self.channel.failure is None:
                self.channel.give_up(NotConnected("The phone is closed."))
            self._fail_all()

    async def close(self) -> None:
        """Leave the relay; whatever still waits for an answer is told."""
        if self._task is None:
            return
        task, self._task = self._task, None
        try:
            await self.channel.close()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.transfers.close()

    async def ready(self, timeout: float | None = READY_SECONDS) -> PeerInfo:
        """Wait until the agent is there and messages can be exchanged; who it is.

        Raises PairingRefused, Stopped, PeerOffline (the agent is not there), or
        NotConnected (the relay is not).
        """
        if self._task is None:
            raise NotConnected("The phone is not running; use it in `async with`.")
        try:
            async with asyncio.timeout(timeout):
                await self.channel.wait_ready()
        except TimeoutError:
            raise self._absent() from None
        if self.agent is None:
            raise NotConnected("The agent left again.")
        return self.agent

    def _absent(self) -> ClientError:
        """Why there is no session."""
        if self._online and self._agent_online:
            return PeerOffline(
                "The agent is connected, and has not exchanged keys with this phone: it may "
                "be busy, or something on the way keeps them back. Ask again; if this "
                "repeats, restart the agent."
            )
        if self._online:
            return PeerOffline("The agent is not connected to the relay. Start it, and ask again.")
        return NotConnected(self._cause)

    def reconnect(self) -> None:
        """Come back at once; also after another device has taken this one's place."""
        self.channel.reconnect()

    # Questions.

    def ask(
        self,
        text: str,
        *,
        images: Sequence[Attachment | str | os.PathLike[str]] = (),
        agent_id: str = "",
        conversation: Sequence[Turn] = (),
        model: str = "",
        options: dict[str, Any] | None = None,
        id: str | None = None,
        timeout: float | None = SILENCE_SECONDS,
        on_tool: OnTool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Answer:
        """Ask a question; see Answer for what to do with it.

        `images` are attachments or paths (read now; raises OSError, AttachmentError), in
        version 2 of any type. `timeout` is the longest silence in seconds, None for no
        limit. `id` sends a question again that is not known to have arrived.
        """
        more: dict[str, Any] = {
            "agent_id": agent_id,
            "model": model,
            "options": options,
            "conversation": [{"role": turn.role, "content": turn.content} for turn in conversation],
        }
        attachments = [
            image if isinstance(image, Attachment) else Attachment.from_path(image)
            for image in images
        ]
        question = Question(
            text=text,
            id=new_id() if id is None else id,
            attachments=attachments,
            more={key: value for key, value in more.items() if value},
            timeout=timeout,
            on_tool=on_tool,
            on_progress=on_progress,
        )
        return Answer(self, question)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """In version 1 one question at a time: answers do not say what they answer."""
        if self.channel.version == 2:
            yield
            return
        async with self._one_at_a_time:
            if self._abandoned is not None:
                await self._end_of(self._abandoned)
                self._exchanges.close(self._abandoned)
                self._abandoned = None
            yield

    async def _end_of(self, exchange: Exchange) -> None:
        """Wait for an answer to end, or to have been silent for too long.

        Raises RequestTimeout while it still goes on after SILENCE_SECONDS: what comes of
        it must not be taken for the answer to the next question.
        """
        until = time.monotonic() + SILENCE_SECONDS
        last = False
        while not last:
            silent_at = exchange.touched + self._patience
            try:
                async with asyncio.timeout(min(silent_at, until) - time.monotonic()):
                    last = (await exchange.next(None)).type not in _PARTS
            except ClientError:
                return
            except TimeoutError:
                if silent_at <= until:
                    return
                raise RequestTimeout(
                    "The agent still answers the question before, which nobody listens to any "
                    "more, and version 1 can cancel none. Ask again when it is done."
                ) from None

    def abandon(self, exchange: Exchange, *, overdue: bool = False) -> None:
        """Nobody listens to this answer any more.

        In version 1 its rest still comes, and is not to be taken for the next one's: the
        next question waits for its end. One that is `overdue` may be lost as well, and is
        waited for only a little longer.
        """
        if self.channel.version == 1:
            self._abandoned = self._exchanges.abandon(exchange)
            self._patience = LATE_SECONDS if overdue else SILENCE_SECONDS
            if overdue:
                self._abandoned.touched = time.monotonic()

    @contextlib.contextmanager
    def exchange(self, id: str, *types: str) -> Generator[Exchange, None, None]:
        """A place where the answers to a request arrive."""
        exchange = self._exchanges.open(id, *types)
        self._unanswered = exchange
        try:
            yield exchange
        finally:
            if self._unanswered is exchange:
                self._unanswered = None
            self._exchanges.close(exchange)

    # Requests.

    async def _request(
        self,
        type: str,
        payload: dict[str, Any],
        result: str,
        timeout: float,
        parse: Callable[[dict[str, Any]], T],
    ) -> T:
        """Raises what `ready` raises, AgentError, RelayRefused, RequestTimeout, …"""
        id = new_id()
        asked = False
        try:
            async with asyncio.timeout(timeout), self.turn():
                await self.ready(None)
                with self.exchange(id, result) as waiting:
                    self.channel.send(type, payload, id=id, on_failure=waiting.fail)
                    asked = True
                    try:
                        message = await waiting.next(None)
                    except asyncio.CancelledError:
                        self.abandon(waiting, overdue=True)
                        raise
        except TimeoutError:
            if asked:
                raise RequestTimeout(
                    f"No answer came within {timeout:g} s. Ask again, or look whether the agent "
                    "is well.",
                    ids=(id,),
                ) from None
            if not self.channel.ready:
                raise self._absent() from None
            raise RequestTimeout(
                f"An earlier question was not answered within {timeout:g} s, and version 1 "
                "takes one at a time. This one was not sent; ask again later.",
                ids=(id,),
            ) from None
        except AgentError as error:
            if error.code == PeerCode.E2E_REQUIRED and self.channel.version == 2:
                raise meddled(error, "look before you ask again.") from None
            raise
        except ClientError as error:
            error.ids = error.ids or (id,)
            raise
        if message.type != result:
            raise InvalidAnswer(
                "The agent answered something else. Bring both ends up to date.", ids=(id,)
            )
        try:
            return parse(message.payload)
        except InvalidAnswer as error:
            error.ids = (id,)
            raise

    # What comes.

    def _message(self, message: Opened) -> None:
        if self.transfers.receive(message):
            return
        if self._exchanges.put(message):
            self._unanswered = None
            return
        if message.type == "chat.done":
            self._drop_files(message)
        elif message.type == "group.message" and self._on_group_message is not None:
            try:
                self._on_group_message(read(message.payload, GroupMessage))
            except Exception:
                log.exception("the handler of group messages failed")

    def _drop_files(self, message: Opened) -> None:
        """Nobody waits for this answer any more: its files need no place."""
        with contextlib.suppress(ClientError):
            for item in read(message.payload, ChatDone).attachments:
                self.transfers.inbox.cancel(str(item.get("file_id")))

    def _event(self, event: AnyEvent) -> None:
        match event:
            case wire.Connected(greeting):
                self._online = True
                self._agent_online = greeting.paired
            case wire.PeerStatus(online):
                self._agent_online = online
            case wire.Disconnected(cause=cause) | wire.Stopped(cause=cause):
                self._online = False
                self._cause = cause
            case e2e.Established():
                self.transfers.established()
            case e2e.Ended(failure):
                self.transfers.ended()
                self._exchanges.fail_all(
                    ConnectionLost,
                    f"{failure.value} Whether the message was understood is not known; "
                    "it can be sent again under the same id.",
                )
            case e2e.Hint(ref="") if self.channel.version == 1 and self._unanswered is not None:
                # A relay of version 1 does not say which message it refuses; there is one
                # question at a time, and this one is not known to have got there.
                id = self._unanswered.id
                self._unanswered.fail(refusal(dataclasses.replace(event, ref=id)))
            case e2e.Ignored(why, type="chat.done"):
                # Version 1: the end that somebody waits for will not come any more.
                self._exchanges.fail_all(
                    InvalidAnswer, _UNTAKEN.get(why, why), awaiting="chat.done"
                )
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                log.exception("the phone's event handler failed")

    def _fail_all(self) -> None:
        failure = self.channel.failure
        self._exchanges.fail_all(ConnectionLost, str(failure))
