"""What waits for an answer: one request, and everything that comes back for it."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from coralmux.client.errors import (
    AgentError,
    ClientError,
    InvalidAnswer,
    NotConnected,
    RequestTimeout,
)
from coralmux.e2e.events import Opened

# Bytes of what came and was not yet taken: a phone that stopped listening to an answer
# must not grow without bound on the word of an agent.
_MAX_BYTES = 32 * 1024 * 1024

# Bytes that a message takes beside its text: an empty one is not free either.
_MESSAGE_BYTES = 512


class Exchange:
    """The messages that answer one request, in the order in which they came.

    `types` are those of its answers, for version 1, whose answers name no request.
    """

    def __init__(self, id: str, types: frozenset[str]) -> None:
        self.id = id
        self.types = types
        self._came: deque[Opened] = deque()
        self._bytes = 0
        self._failure: ClientError | None = None
        self._wake = asyncio.Event()
        # When it was opened or something last came, in monotonic seconds.
        self.touched = time.monotonic()

    def put(self, message: Opened) -> None:
        self.touched = time.monotonic()
        if message.type == "chat.error":
            self.fail(_agent_error(message, self.id))
            return
        # As it came: what decodes need not encode again, for instance when it is nested deep.
        self._bytes += _MESSAGE_BYTES + message.size
        if self._bytes > _MAX_BYTES:
            self.fail(InvalidAnswer("The answer is larger than can be taken.", ids=(self.id,)))
            return
        self._came.append(message)
        self._wake.set()

    def fail(self, error: ClientError) -> None:
        """Nothing more comes; what came before is still handed out."""
        if self._failure is None:
            self._failure = error
            self._wake.set()

    @property
    def failed(self) -> bool:
        return self._failure is not None

    async def next(self, timeout: float | None) -> Opened:
        """The next message. Raises what `fail` was given, or RequestTimeout."""
        try:
            async with asyncio.timeout(timeout):
                while not self._came:
                    if self._failure is not None:
                        raise self._failure
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            raise RequestTimeout(
                f"No answer came within {timeout:g} s. It may still have been understood; "
                "ask again, or look whether the agent is well.",
                ids=(self.id,),
            ) from None
        message = self._came.popleft()
        self._bytes -= _MESSAGE_BYTES + message.size
        return message


class Exchanges:
    """All that wait, by the id of their request."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._open: dict[str, Exchange] = {}

    def open(self, id: str, *types: str) -> Exchange:
        """Raises NotConnected if a request with this id waits already."""
        if id in self._open:
            raise NotConnected("A request with this id still waits for its answer.", ids=(id,))
        exchange = self._open[id] = Exchange(id, frozenset(types))
        return exchange

    def close(self, exchange: Exchange) -> None:
        if self._open.get(exchange.id) is exchange:
            del self._open[exchange.id]

    def abandon(self, exchange: Exchange) -> Exchange:
        """What still comes for it goes here instead, to nobody."""
        rest = self._open[exchange.id] = Exchange(exchange.id, exchange.types)
        rest.touched = exchange.touched
        rest._came, rest._bytes = exchange._came, exchange._bytes
        return rest

    def put(self, message: Opened) -> bool:
        """Hand a message to whoever waits for it; whether anybody does."""
        exchange = self._find(message)
        if exchange is not None:
            exchange.put(message)
        return exchange is not None

    def _find(self, message: Opened) -> Exchange | None:
        ref = message.payload.get("ref")
        if isinstance(ref, str) and ref in self._open:
            return self._open[ref]
        if self._version == 2:
            return None
        for exchange in self._open.values():
            if message.type in exchange.types or message.type == "chat.error":
                return exchange
        return None

    def fail_all(self, error: type[ClientError], text: str, *, awaiting: str = "") -> None:
        """Each gets an error that names it; with `awaiting` those that wait for this type."""
        for id, exchange in list(self._open.items()):
            if not awaiting or awaiting in exchange.types:
                exchange.fail(error(text, ids=(id,)))


def _agent_error(message: Opened, id: str) -> AgentError:
    code, text = message.payload.get("code"), message.payload.get("message")
    return AgentError(
        text if isinstance(text, str) and text else "The agent failed and gave no reason.",
        code=code if isinstance(code, str) else "BACKEND_ERROR",
        ids=(id,),
    )
