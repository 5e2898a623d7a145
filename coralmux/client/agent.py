"""The agent's side: answers what phones ask, for one pairing or several."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

from coralmux.client.errors import NotConnected
from coralmux.client.requests import RESULTS, ChatHandler, Request, RequestHandler
from coralmux.client.serving import EventHandler, Handlers, Serving
from coralmux.client.store import Store
from coralmux.e2e.link import PairingLink

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
        self._handlers = Handlers(requests={"agent.list": self._list_itself})
        self._pairings: list[Serving] = []
        self._closed = False
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
        self._pairings.append(
            Serving(
                parsed,
                self._handlers,
                name=self.name,
                store=self._store,
                options=self._options,
            )
        )

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
        """Decorator: told what becomes of each pairing: connection, session, gaps, hints."""
        self._handlers.event = handler
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

        A pairing that the relay refuses for good is reported by `on_event`; the others go
        on. Raises the failure of the last one when none is left, and StoreError when a
        new secret cannot be written down.
        """
        if self._handlers.chat is None:
            raise RuntimeError("the agent has no on_chat handler")
        if not self._pairings:
            raise RuntimeError("the agent has no pairing; give it a link")
        if self._closed:
            return
        try:
            async with asyncio.TaskGroup() as group:
                for pairing in self._pairings:
                    group.create_task(pairing.serve())
        except ExceptionGroup as failed:
            # One error for people, such as StoreError: the others were cancelled for it.
            raise failed.exceptions[0] from None
        failures = [pairing.channel.failure for pairing in self._pairings]
        if not self._closed and failures[-1] is not None:
            raise failures[-1]

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Leave: running replies get so many seconds to end, new questions are refused."""
        self._closed = True
        await asyncio.gather(*(pairing.close(drain_seconds) for pairing in self._pairings))

    async def group_message(self, room_id: str, message: dict[str, Any]) -> None:
        """Tell all phones that are there of a message in a room."""
        for pairing in self._pairings:
            with contextlib.suppress(NotConnected):
                pairing.channel.insist("group.message", {"room_id": room_id, "message": message})

    async def _list_itself(self, request: Request) -> dict[str, Any]:
        return {"agents": [{"id": "default", "name": self.name}]}
