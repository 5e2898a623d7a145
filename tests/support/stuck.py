"""A reader that is stuck, and a sender that finds out."""

from __future__ import annotations

import asyncio
import contextlib

import websockets

from tests.support.client import Client
from tests.support.process import RelayProcess

SLOW_READER = 'coralmux_buffer_stalls_total{cause="slow_reader"}'
FRAME_BYTES = 50 * 1024


async def send_until_held(relay: RelayProcess, sender: Client) -> list[str]:
    """Send stream frames to a peer that does not read until the relay makes us wait.

    Returns their ids. What the kernel and the relay buffer is then full; the last
    few frames wait to be taken.
    """
    before = relay.metric(SLOW_READER)
    ids = []
    while await asyncio.to_thread(relay.metric, SLOW_READER) == before:
        assert len(ids) < 1000, "the relay takes 50 MB and more for a reader that is stuck"
        for _ in range(4):
            ids.append(await sender.send("chat.stream", {"delta": "x" * FRAME_BYTES, "seq": 1}))
    return ids


async def stream_ids_until_closed(client: Client) -> list[str]:
    """The ids of the stream frames that still arrive, up to the connection's end."""
    ids = []
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            message = await client.receive()
            if message["type"] == "chat.stream":
                ids.append(message["id"])
    return ids
