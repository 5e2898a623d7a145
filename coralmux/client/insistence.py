"""Messages that must arrive: sent again, under the same id, where they were refused or lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from coralmux.client.errors import ClientError, ConnectionLost, PeerOffline, RelayRefused

Fate = Callable[[ClientError], None]

# Milliseconds that a message which must arrive waits for its next try: a minute's allowance
# comes back, a day's quota is no use waiting for.
PATIENCE_MS = 60_000

# Seconds until a message that must arrive is sent again where the relay says that the other
# end is away, and the session lives on: it says so of one that reads slowly, too.
OFFLINE_SECONDS = (1.0, 5.0, 15.0)

# Times that a message goes out where nobody is away.
TRIES = 3


class Send(Protocol):
    """`Channel.send`."""

    def __call__(
        self, type: str, payload: dict[str, Any], *, id: str | None, on_failure: Fate | None
    ) -> str: ...


class Insistence:
    """The messages of one channel that must arrive; they belong to its session."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._timers: set[asyncio.TimerHandle] = set()

    def send(
        self,
        type: str,
        payload: dict[str, Any],
        id: str,
        offline: Sequence[float] | None,
        on_failure: Fate | None,
    ) -> None:
        """Send it, and see to it. Raises what the channel raises when it is sent first.

        `offline` are the seconds until each new try where the other end was away; None
        takes that for the end of the matter.
        """
        waits = list(offline or ())

        def refused(error: ClientError, left: int) -> None:
            if isinstance(error, ConnectionLost) or (
                isinstance(error, PeerOffline) and offline is None
            ):
                return
            if isinstance(error, PeerOffline):
                wait, left = (waits.pop(0), left + 1) if waits else (None, left)
            else:
                after = error.retry_after_ms if isinstance(error, RelayRefused) else 0
                possible = left and after is not None and after <= PATIENCE_MS
                wait = (after or 0) / 1000 if possible else None
            if wait is not None:
                self._later(wait, lambda: attempt(left))
            elif on_failure is not None:
                on_failure(error)

        def attempt(left: int) -> None:
            with contextlib.suppress(ClientError):
                self._send(type, payload, id=id, on_failure=lambda error: refused(error, left - 1))

        self._send(type, payload, id=id, on_failure=lambda error: refused(error, TRIES - 1))

    def end(self) -> None:
        """The session is over, and told to all: nothing is sent again."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            work()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)
