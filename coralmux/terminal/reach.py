"""Waiting for the agent: patience depends on what it is that keeps us waiting."""

from __future__ import annotations

import asyncio

from coralmux.client import connection as wire
from coralmux.client.channel import AnyEvent
from coralmux.client.errors import ClientError, NotConnected, PeerOffline, RequestTimeout
from coralmux.client.phone import Phone
from coralmux.e2e.events import PeerInfo

# Seconds. A relay that restarts is back within a few; so is an agent, which comes back by
# itself after the relay did. A handshake takes three time-outs of ten seconds until the
# phone can say that no answer comes.
RELAY_SECONDS = 20.0
AGENT_SECONDS = 10.0
HANDSHAKE_SECONDS = 45.0


class Reach:
    """How far the phone has got, from its events."""

    def __init__(self) -> None:
        self.online = False
        self.agent_online = False
        self._cause = "The relay has not answered."
        self._heard = False
        self._since = 0.0
        self._moved = asyncio.Event()

    def note(self, event: AnyEvent) -> None:
        """What the phone's `on_event` is told."""
        before = self.online, self.agent_online
        match event:
            case wire.Connected(greeting):
                self.online, self.agent_online = True, greeting.paired
            case wire.PeerStatus(online):
                self.agent_online = online
            case wire.Disconnected(cause=cause) | wire.Stopped(cause=cause):
                self.online = self.agent_online = False
                self._cause = cause
            case _:
                return
        self._heard = True
        if (self.online, self.agent_online) != before:
            self._since = asyncio.get_running_loop().time()
        self._moved.set()

    async def settled(self, phone: Phone) -> None:
        """Return once there is something to tell: a session, or what stands in its way."""
        ready = self._ready(phone)
        try:
            while not ready.done() and (not self._heard or self.agent_online):
                self._moved.clear()
                await self._moved.wait()
        finally:
            ready.cancel()

    async def wait(self, phone: Phone, limit: float) -> PeerInfo:
        """Who answers. Gives up after `limit` seconds, or sooner where waiting seems vain.

        Raises PairingRefused, Stopped, PeerOffline, NotConnected, RequestTimeout or StoreError.
        """
        begun = asyncio.get_running_loop().time()
        ready = self._ready(phone)
        try:
            while not ready.done():
                self._moved.clear()
                patience = max(begun, self._since) + self._patience
                async with asyncio.timeout_at(min(begun + limit, patience)):
                    await self._moved.wait()
            return ready.result()
        except TimeoutError:
            raise self._obstacle() from None
        finally:
            ready.cancel()

    def _ready(self, phone: Phone) -> asyncio.Task[PeerInfo]:
        ready = asyncio.create_task(phone.ready(None))
        ready.add_done_callback(self._ended)
        return ready

    def _ended(self, ready: asyncio.Task[PeerInfo]) -> None:
        if not ready.cancelled():
            ready.exception()  # it may be of no interest, and that is no reason for a warning
        self._moved.set()

    @property
    def _patience(self) -> float:
        if not self.online:
            return RELAY_SECONDS
        return HANDSHAKE_SECONDS if self.agent_online else AGENT_SECONDS

    def _obstacle(self) -> ClientError:
        if not self.online:
            return NotConnected(self._cause)
        if not self.agent_online:
            return PeerOffline("The agent is not connected to the relay. Start it, and ask again.")
        return RequestTimeout(
            "The agent is connected to the relay, and does not answer. "
            "Look whether it is well, or give it more time (--timeout)."
        )
