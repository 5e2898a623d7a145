"""What the tests of bad input share: bare TCP, the check that nobody else noticed,
and a pair that measures its round trips meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.client import SOON, Client, pair
from tests.support.process import RelayProcess
from tests.support.raw import RawClient, raw_connect

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def nobody_else_notices(relay: RelayProcess) -> AsyncIterator[tuple[Client, Client]]:
    """A pair that talks before and after; afterwards the process lives and takes a new pair."""
    async with pair(relay.url, relay.token()) as (phone, agent):
        await _talk(phone, agent)
        yield phone, agent
        await _talk(phone, agent)
    await works(relay)


async def works(relay: RelayProcess, *, faults: str = r"Traceback|\[error|\[critical") -> None:
    """The process lives, a fresh pair meets and talks, and no fault was printed."""
    assert relay.process.poll() is None, relay.output[-2000:]
    async with pair(relay.url, relay.token()) as (phone, agent):
        await _talk(phone, agent)
    assert not (fault := _new_fault(relay, faults)), fault


# Where in its output each relay's faults were looked for already.
_searched: dict[RelayProcess, int] = {}


def _new_fault(relay: RelayProcess, faults: str) -> str:
    """The first fault that the relay has printed since the last call."""
    output = relay.output
    new = output[_searched.get(relay, 0) :]
    _searched[relay] = len(output)
    found = re.search(faults, new)
    return new[max(0, found.start() - 500) : found.start() + 3000] if found else ""


async def _talk(phone: Client, agent: Client) -> None:
    id = await phone.send("key_exchange", {"text": "here?"})
    assert (await agent.expect("key_exchange"))["id"] == id
    id = await agent.send("chat.done", {"full_text": "yes"})
    assert (await phone.expect("chat.done"))["id"] == id


@contextlib.asynccontextmanager
async def raw_log_in(
    url: str, token: str, role: str, *, narrow: bool = False
) -> AsyncIterator[RawClient]:
    """An authenticated connection whose bytes are ours; auth.ok is read."""
    async with raw_connect(url, narrow=narrow) as client:
        await client.send(json.dumps({"type": "auth", "payload": {"token": token, "role": role}}))
        assert json.loads(await client.read_text())["type"] == "auth.ok"
        yield client


async def drain(client: RawClient) -> None:
    """Read and forget, until cancelled or closed."""
    with contextlib.suppress(ConnectionError):
        while await client.reader.read(65536):
            pass


@contextlib.asynccontextmanager
async def tcp(relay: RelayProcess) -> AsyncIterator[RawClient]:
    """A TCP connection and nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


async def http_answer(relay: RelayProcess, request: bytes, *, within: float = SOON) -> bytes:
    """All that comes back for these bytes, until the relay closes. Raises ConnectionResetError."""
    async with tcp(relay) as client, asyncio.timeout(within):
        await client.send_bytes(request)
        return await client.reader.read()


@dataclass
class RoundTrips:
    seconds: list[float] = field(default_factory=list)
    most_memory: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[math.ceil(len(self.seconds) * 0.99) - 1]


@contextlib.asynccontextmanager
async def round_trips(relay: RelayProcess, *, every: float = 0.02) -> AsyncIterator[RoundTrips]:
    """A pair that goes to and fro all the while: each message arrives, in order, once.

    Nobody's allowance is used up by it: what the agent sends is of the stream
    class, and so is a file's acknowledgement from the phone.
    """
    measured = RoundTrips()
    done = asyncio.Event()

    async def measure(phone: Client, agent: Client) -> None:
        n = 0
        while not done.is_set():
            begun = time.monotonic()
            await phone.send("file.ack", {"index": n})
            assert (await agent.expect("file.ack"))["payload"] == {"index": n}
            await agent.send("chat.stream", {"seq": n})
            assert (await phone.expect("chat.stream"))["payload"] == {"seq": n}
            measured.seconds.append(time.monotonic() - begun)
            measured.most_memory = max(measured.most_memory, relay.memory_bytes)
            n += 1
            await asyncio.sleep(every)

    async with pair(relay.url, relay.token()) as (phone, agent):
        measuring = asyncio.create_task(measure(phone, agent))
        try:
            yield measured
        finally:
            done.set()
            await measuring
