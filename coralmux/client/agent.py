"""The agent's side: answers what phones ask, for one pairing or several."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
from collections.abc import Callable
from typing import Any

from coralmux.client.connection import Stopped
from coralmux.client.errors import ClientError
from coralmux.client.requests import RESULTS, ChatHandler, Request, RequestHandler
from coralmux.client.serving import EventHandler, Handlers, Serving
from coralmux.client.store import Store
from coralmux.client.transfers import OnFile
from coralmux.e2e.link import PairingLink
from coralmux.protocol import CloseCode
from coralmux.protocol.limits import MAX_FILE_BYTES

log = logging.getLogger("coralmux")

# Seconds that running replies get to end when the agent is told to leave.
DRAIN_SECONDS = 10.0


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
    fine for trying, not for a link that was shown to others. Agents and phones need
    directories of their own.

    With `finish_unheard` a handler runs to its end although the phone has left, for agents
    that keep what was said; otherwise it is cancelled. `max_file_bytes` is the size of the
    largest file that is taken. `options` go to the connection: `ssl`, `proxy`, `timers`.
    """

    def __init__(
        self,
        relay: str | None = None,
        token: str | None = None,
        *,
        secret: bytes | None = None,
        name: str = "Agent",
        store: Store | None = None,
        finish_unheard: bool = False,
        max_file_bytes: int = MAX_FILE_BYTES,
        **options: Any,
    ) -> None:
        self.name = name
        self._handlers = Handlers(requests={"agent.list": self._list_itself})
        self._options = {
            "store": store,
            "finish_unheard": finish_unheard,
            "max_file_bytes": max_file_bytes,
            **options,
        }
        self._pairings: list[Serving] = []
        self._group: asyncio.TaskGroup | None = None
        self._failure: Exception | None = None
        self._closed = False
        if relay is not None and token is not None:
            self.add(PairingLink(relay, token, secret))
        elif relay is not None or token is not None:
            raise TypeError("relay and token go together; a link is for Agent.from_link(link)")

    @classmethod
    def from_link(cls, *links: str | PairingLink, **arguments: Any) -> Agent:
        """An agent for the pairings of these links. Raises what `add` raises."""
        agent = cls(**arguments)
        for link in links:
            agent.add(link)
        return agent

    @property
    def pairings(self) -> list[PairingLink]:
        """The pairings that are served."""
        return [pairing.channel.link for pairing in self._pairings]

    def add(self, link: str | PairingLink) -> None:
        """Serve another phone, at once if the agent serves already.

        Each phone has a pairing of its own. Raises LinkError, StoreError, ValueError for a
        token that is served already, or RuntimeError for an agent that was closed.
        """
        if self._closed:
            raise RuntimeError("the agent was closed and serves no more")
        parsed, served = self._find(link)
        if served is not None:
            raise ValueError("this pairing is served already; another phone needs another token")
        pairing = Serving(parsed, self._handlers, name=self.name, **self._options)
        self._pairings.append(pairing)
        if self._group is not None:
            self._group.create_task(self._serve(pairing))

    async def remove(self, link: str | PairingLink) -> None:
        """Serve this pairing no more. Raises LinkError, or ValueError if it is not served.

        Serving ends with the last one: add the new one first.
        """
        _, served = self._find(link)
        if served is None:
            raise ValueError("this pairing is not served")
        self._pairings.remove(served)
        await served.close()

    def _find(self, link: str | PairingLink) -> tuple[PairingLink, Serving | None]:
        parsed = PairingLink.parse(link) if isinstance(link, str) else link
        for pairing in self._pairings:
            known = pairing.channel.link
            if (known.relay, known.token) == (parsed.relay, parsed.token):
                return parsed, pairing
        return parsed, None

    def on_chat(self, handler: ChatHandler) -> ChatHandler:
        """Decorator: what answers `chat.send`."""
        self._handlers.chat = handler
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
            self._handlers.requests[type] = handler
            return handler

        return register

    def on_event(self, handler: EventHandler) -> EventHandler:
        """Decorator: told what becomes of each pairing: connection, session, gaps, hints.

        A plain function of the pairing's link and one of `coralmux.events`.
        """
        if inspect.iscoroutinefunction(handler):
            raise TypeError("an event handler is a plain function: nobody would wait for it")
        self._handlers.event = handler
        return handler

    def on_file_progress(self, handler: OnFile) -> OnFile:
        """Decorator: told of files on their way here: name, bytes that came, bytes in all."""
        self._handlers.progress = handler
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
        """Be there for all pairings until `close`; a closed agent serves no more.

        A pairing that the relay refuses for good, or whose new secret cannot be written
        down, is reported by `on_event` as Stopped; the others go on. When none is left,
        raises why the last one ended: Stopped, or StoreError.
        """
        if self._handlers.chat is None:
            raise RuntimeError("the agent has no on_chat handler")
        if not self._pairings:
            raise RuntimeError("the agent has no pairing; give it a link")
        if self._closed:
            return
        self._failure = None
        try:
            async with asyncio.TaskGroup() as self._group:
                for pairing in list(self._pairings):
                    self._group.create_task(self._serve(pairing))
        finally:
            self._group = None
        if self._failure is not None and not self._closed:
            raise self._failure

    async def _serve(self, pairing: Serving) -> None:
        try:
            await pairing.serve()
        except ClientError as error:
            # Such as StoreError: it is this pairing's, and no reason to leave the others.
            log.error("the pairing at %s ended: %s", pairing.channel.link.relay, error)
            self._failure = error
            pairing.tell(Stopped(CloseCode.NORMAL, str(error)))
        else:
            self._failure = pairing.channel.failure or self._failure
        finally:
            # It may be added again, once the reason is gone.
            if pairing in self._pairings and not self._closed:
                self._pairings.remove(pairing)
            if not self._pairings:
                self._group = None  # it is over; what is added now waits for the next `serve`

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Leave: running replies get so many seconds to end, new questions are refused."""
        self._closed = True
        # A handler that closes its own agent cannot be waited for.
        caller = asyncio.current_task()
        await asyncio.gather(
            *(pairing.close(drain_seconds, besides=caller) for pairing in self._pairings)
        )

    async def group_message(self, room_id: str, message: dict[str, Any]) -> None:
        """Tell all phones that are there of a message in a room."""
        for pairing in self._pairings:
            with contextlib.suppress(ClientError):
                pairing.channel.insist("group.message", {"room_id": room_id, "message": message})

    async def _list_itself(self, request: Request) -> dict[str, Any]:
        return {"agents": [{"id": "default", "name": self.name}]}
