"""A flood, in a process of its own so that whoever measures is not slowed by it:

    python -m tests.support.flood URL KIND SECONDS reading|stuck < tokens

Prints the bytes sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

from tests.support.hostile import drain, raw_log_in
from tests.support.raw import CONTINUATION, PING, PONG, TEXT, frame

KINDS: dict[str, bytes] = {
    "ping messages": frame(TEXT, '{"type":"ping","id":"p"}') * 200,
    "ping frames": frame(PING, b"x" * 125) * 200,
    "pong frames": frame(PONG) * 200,
    "broken json": frame(TEXT, '{"type":') * 200,
    "deep json": frame(TEXT, '{"type":"chat.send","payload":' + '{"a":' * 5_000),
    "empty fragments": frame(CONTINUATION, fin=False) * 200,
    "messages to nobody": frame(TEXT, '{"type":"chat.send","id":"m"}') * 200,
}


async def _flood(url: str, token: str, kind: str, until: float, *, reads: bool) -> int:
    """Send as fast as the relay takes it; the bytes sent."""
    sent = 0
    async with raw_log_in(url, token, "agent", narrow=not reads) as client:
        draining = asyncio.create_task(drain(client)) if reads else None
        if kind == "empty fragments":
            await client.send_bytes(frame(TEXT, fin=False))
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(until - time.monotonic()):
                while True:
                    await client.send_bytes(KINDS[kind])
                    sent += len(KINDS[kind])
        if draining is not None:
            draining.cancel()
    return sent


async def _main(url: str, kind: str, seconds: str, reading: str) -> None:
    until = time.monotonic() + float(seconds)
    floods = [
        _flood(url, token, kind, until, reads=reading == "reading")
        for token in sys.stdin.read().split()
    ]
    sys.stdout.write(f"{sum(await asyncio.gather(*floods))}\n")


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
