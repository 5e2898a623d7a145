"""A real Agent and a real Phone that meet at a relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import coralmux
from coralmux.client.backoff import Timers
from coralmux.client.channel import AnyEvent
from tests.support.client import SOON
from tests.support.process import RelayProcess

E = TypeVar("E", bound=Exception)

# Whoever lost its connection is back in a moment.
TIMERS = Timers(first_pause=0.05, longest_pause=0.3, restart_pause=0.1, later_pause=0.3)


def new_link(relay: RelayProcess) -> coralmux.PairingLink:
    """A pairing of one's own at this relay."""
    return coralmux.PairingLink.new(relay.url, relay.token())


def agent_for(*links: coralmux.PairingLink, **options: Any) -> coralmux.Agent:
    """An agent that has no handler yet and rotates the secrets of its links."""
    options.setdefault("store", coralmux.MemoryStore())
    return coralmux.Agent.from_link(*links, timers=TIMERS, **options)


def plain_agent() -> coralmux.Agent:
    """An agent that says what it was told."""
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        return message.text

    return agent


def phone_for(link: coralmux.PairingLink, **options: Any) -> coralmux.Phone:
    options.setdefault("store", coralmux.MemoryStore())
    return coralmux.Phone.from_link(link, timers=TIMERS, **options)


@contextlib.asynccontextmanager
async def serving(agent: coralmux.Agent) -> AsyncIterator[coralmux.Agent]:
    """The agent serves inside; leaving it must end without an error."""
    task = asyncio.create_task(agent.serve())
    try:
        yield agent
    finally:
        await agent.close()
        async with asyncio.timeout(SOON):
            await task


@contextlib.asynccontextmanager
async def meeting(relay: RelayProcess, agent: coralmux.Agent, **options: Any) -> Any:
    """`agent` has a new pairing added to it and serves; a phone for that pairing."""
    link = new_link(relay)
    agent.add(link)
    async with serving(agent), phone_for(link, **options) as phone:
        yield phone


async def until_raised(
    kind: type[E], attempt: Callable[[], Awaitable[Any]], *meanwhile: type[Exception]
) -> E:
    """Try until this error comes; it. Those that are named may come before it."""
    while True:
        try:
            await attempt()
        except kind as error:
            return error
        except meanwhile:
            pass


class Events:
    """What a phone's `on_event` is told; can be waited for."""

    def __init__(self) -> None:
        self.all: list[AnyEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: AnyEvent) -> None:
        self.all.append(event)
        self._changed.set()

    def count(self, kind: type[Any]) -> int:
        return sum(isinstance(event, kind) for event in self.all)

    async def wait_for(self, kind: type[Any], count: int = 1, within: float = SOON) -> Any:
        """The `count`-th event of this kind."""
        async with asyncio.timeout(within):
            while len(found := [event for event in self.all if isinstance(event, kind)]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found[count - 1]
