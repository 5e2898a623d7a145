"""`make soak`: pairs that talk, stall, vanish and come back, for as long as one likes.

Not a test of one behaviour but of time: it fails if a message is lost without a
word, doubled or reordered, if a traceback appears, or if memory keeps growing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time

import websockets

from tests.support.client import Client, log_in
from tests.support.process import RelayProcess, relay_process

MIB = 1024 * 1024

# Memory may grow by so much after the first tenth of the time.
_GROWTH = 32 * MIB

_LIFTED = {
    "CORALMUX_PHONE_MESSAGES_PER_MINUTE": "0",
    "CORALMUX_AGENT_MESSAGES_PER_MINUTE": "0",
    "CORALMUX_DAILY_QUOTA_BYTES": "0",
    "CORALMUX_MONTHLY_QUOTA_BYTES": "0",
}


class Tally:
    """What happened, over all pairs."""

    def __init__(self) -> None:
        self.delivered = 0
        self.refused = 0
        self.cut = 0


async def _talk(relay: RelayProcess, until: float, tally: Tally, seed: int) -> None:
    chance = random.Random(seed)
    token = relay.token()
    async with log_in(relay.url, token, "phone") as phone:
        while time.monotonic() < until:
            async with log_in(relay.url, token, "agent") as agent:
                await _exchange(phone, agent, chance, until, tally)
                if chance.random() < 0.5:
                    agent.connection.transport.abort()


async def _exchange(
    phone: Client, agent: Client, chance: random.Random, until: float, tally: Tally
) -> None:
    """One connection's worth of stream: every number arrives once and in order."""
    while (await phone.receive(60))["payload"] != {"peer": "online"}:
        pass
    for _ in range(chance.randint(1, 20)):
        count, size = chance.randint(1, 300), chance.choice([1, 100, 5_000, 200_000])

        async def stream(count: int = count, size: int = size) -> None:
            for n in range(count):
                await agent.send("chat.stream", {"seq": n, "delta": "x" * size})

        sending = asyncio.create_task(stream())
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random())
        for n in range(count):
            message = await phone.expect("chat.stream", within=60)
            if message["payload"]["seq"] != n:
                raise AssertionError(f"expected {n}, got {message['payload']['seq']}")
            tally.delivered += 1
        await sending
        if time.monotonic() > until:
            return


async def _intrude(relay: RelayProcess, until: float, tally: Tally) -> None:
    """Strangers who do everything wrong."""
    chance = random.Random(0)
    while time.monotonic() < until:
        with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
            async with websockets.connect(relay.url, compression=None) as stranger:
                await stranger.send(chance.choice(["{", '{"type":"ping"}', "[]", "\x00" * 1000]))
                await asyncio.wait_for(stranger.recv(), 5)
                tally.refused += 1
                await asyncio.wait_for(stranger.wait_closed(), 5)
                tally.cut += 1


async def _soak(relay: RelayProcess, seconds: float, pairs: int) -> int:
    tally = Tally()
    begun = time.monotonic()
    until = begun + seconds
    people = [_talk(relay, until, tally, seed) for seed in range(pairs)]
    work = asyncio.gather(*people, _intrude(relay, until, tally))
    settled = 0
    try:
        while not work.done():
            await asyncio.wait([work], timeout=max(1.0, seconds / 60))
            memory = relay.memory_bytes
            passed = time.monotonic() - begun
            if not settled and passed > seconds / 10:
                settled = memory
            sys.stdout.write(
                f"{passed:6.0f} s  {tally.delivered:>10,} delivered  {tally.refused:>7,} refused  "
                f"{memory / MIB:6.1f} MiB\n"
            )
            sys.stdout.flush()
            if settled and memory > settled + _GROWTH:
                sys.stdout.write("memory keeps growing\n")
                return 1
        await work
    finally:
        work.cancel()
    return 1 if "Traceback" in relay.output else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    with relay_process(env=_LIFTED, fast=False) as relay:
        return asyncio.run(_soak(relay, options.minutes * 60, options.pairs))


if __name__ == "__main__":
    sys.exit(main())
