"""Many at once: floods, crowds and exhaustion, while a pair of others goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
import sys
import time
from collections import Counter

import pytest

from tests.support import flood
from tests.support.client import connect, pair
from tests.support.hostile import (
    MIB,
    RoundTrips,
    drain,
    nobody_else_notices,
    raw_log_in,
    round_trips,
    works,
)
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import TEXT, RawClient, frame
from tests.support.waiting import eventually

log = logging.getLogger(__name__)

FLOODERS = 30
FLOOD_SECONDS = 5.0

# A round trip is two messages through the relay. On an idle machine it takes about
# a millisecond; these hold where flooders, relay, pair and others share two cores.
MEDIAN_SECONDS = 0.1
P99_SECONDS = 1.0


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["reading", "stuck"])
@pytest.mark.parametrize("kind", flood.KINDS)
async def test_a_flood_from_many_sockets_is_not_noticed_by_others(
    relay: RelayProcess, kind: str, reading: str
) -> None:
    tokens = [relay.token() for _ in range(FLOODERS)]
    before = relay.memory_bytes
    async with round_trips(relay) as measured:
        sent = await _flood(relay, kind, reading, tokens)
    _report(f"{kind} ({reading}), {sent} bytes", measured, before)
    assert measured.median < MEDIAN_SECONDS
    assert measured.p99 < P99_SECONDS
    # Each flooder may have its read-ahead filled, and its answers.
    assert measured.most_memory - before < FLOODERS * 2 * MIB
    await works(relay)


def _report(what: str, measured: RoundTrips, before: int) -> None:
    """To be read with pytest's --log-cli-level=INFO."""
    log.info(
        "%s: %d round trips, median %.1f ms, p99 %.1f ms, memory +%.1f MiB",
        what,
        len(measured.seconds),
        measured.median * 1000,
        measured.p99 * 1000,
        (measured.most_memory - before) / MIB,
    )


async def _flood(relay: RelayProcess, kind: str, reading: str, tokens: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.flood", relay.url, kind, str(FLOOD_SECONDS), reading),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate("\n".join(tokens).encode())
    assert process.returncode == 0
    return int(output)


@pytest.mark.slow
async def test_two_thousand_that_never_authenticate_get_4004_each() -> None:
    env = {
        "CORALMUX_MAX_CONNECTIONS_PER_ADDRESS": "5000",
        # All of them shall be there at once, however slowly this machine connects them.
        "CORALMUX_AUTH_TIMEOUT_SECONDS": "10",
    }
    with relay_process(env=env) as relay:
        before = relay.memory_bytes
        limit = asyncio.Semaphore(100)
        codes: Counter[int] = Counter()
        async with round_trips(relay) as measured:
            await asyncio.gather(*(_never_authenticate(relay, limit, codes) for _ in range(2000)))
        _report("2,000 without auth", measured, before)
        assert codes == {4004: 2000}
        assert measured.median < MEDIAN_SECONDS
        assert measured.p99 < P99_SECONDS
        # Some 30 KiB each.
        assert measured.most_memory - before < 2000 * 64 * 1024
        await works(relay)
        assert relay.metric('coralmux_auth_total{result="timeout"}') == 2000


async def _never_authenticate(
    relay: RelayProcess, limit: asyncio.Semaphore, codes: Counter[int]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with limit:
            client = await stack.enter_async_context(connect(relay.url, open_timeout=60))
        codes[await client.closed(within=60)] += 1


@pytest.mark.slow
async def test_stalled_readers_keep_their_share_of_memory_and_no_more(
    relay: RelayProcess,
) -> None:
    """Ten agents send to phones that read nothing: each costs its high-water mark."""
    async with nobody_else_notices(relay), contextlib.AsyncExitStack() as stack:
        before = relay.memory_bytes
        sending = []
        for _ in range(10):
            token = relay.token()
            await stack.enter_async_context(raw_log_in(relay.url, token, "phone", narrow=True))
            agent = await stack.enter_async_context(raw_log_in(relay.url, token, "agent"))
            sending.append(asyncio.create_task(_send_for_ever(agent)))
        # At a tenth of the timers the phones are closed after 3 s.
        until = time.monotonic() + 2.5
        most = 0
        while time.monotonic() < until:
            most = max(most, relay.memory_bytes - before)
            await asyncio.sleep(0.05)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        # In: a mebibyte read ahead; out: a mebibyte and one message.
        assert most < 10 * 3 * MIB


async def _send_for_ever(agent: RawClient) -> None:
    draining = asyncio.create_task(drain(agent))
    try:
        stream = frame(TEXT, json.dumps({"type": "chat.stream", "payload": {"d": "x" * 50_000}}))
        while True:
            await agent.send_bytes(stream)
    finally:
        draining.cancel()


@pytest.mark.slow
async def test_running_out_of_files_is_survived() -> None:
    """200 files: existing pairs go on, and there is room again when others leave."""
    with relay_process() as relay:
        _limit_files(relay, 200)
        async with pair(relay.url, relay.token()) as (phone, agent):
            crowd = await _crowd(relay, 400)
            try:
                # Beyond the cap on TCP connections the relay hangs up: nobody hears 101.
                for n in range(20):
                    await phone.send("chat.cancel", {"ref": str(n)})
                    assert (await agent.expect("chat.cancel"))["payload"] == {"ref": str(n)}
                    assert (await phone.barrier()) == []
            finally:
                for sock in crowd:
                    sock.close()
            await eventually(lambda: _answers(relay))
            # It says what it could not do, and that is all.
            await works(relay, faults="Traceback")


@pytest.mark.slow
async def test_a_limit_on_files_known_at_the_start_is_never_reached() -> None:
    """`ulimit -n 200`: the cap on TCP connections stays below it."""
    with relay_process(command=_with_ulimit(200)) as relay:
        async with pair(relay.url, relay.token()) as (phone, agent):
            crowd = await _crowd(relay, 400)
            try:
                # Logins and the database still have files of their own.
                assert relay.manage("usage").returncode == 0
                id = await phone.send("chat.send", {"text": "still here"})
                assert (await agent.expect("chat.send"))["id"] == id
                assert relay.process.poll() is None
                assert "Too many open files" not in relay.output
            finally:
                for sock in crowd:
                    sock.close()
            await eventually(lambda: _answers(relay))
            await works(relay)
            assert "raise `ulimit -n`" in relay.output


def _limit_files(relay: RelayProcess, files: int) -> None:
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (files, files))


def _with_ulimit(files: int) -> list[str]:
    relay = f"exec {sys.executable} -m coralmux_site.cli -addr 127.0.0.1:{{port}}"
    return ["sh", "-c", f"ulimit -n {files}; {relay}"]


async def _crowd(relay: RelayProcess, count: int) -> list[socket.socket]:
    """So many TCP connections, each with half a request."""
    crowd = []
    for _ in range(count):
        reader_socket = socket.create_connection(("127.0.0.1", relay.port), timeout=5)
        with contextlib.suppress(OSError):
            reader_socket.sendall(b"GET /health HTTP/1.1\r\n")
        crowd.append(reader_socket)
        if len(crowd) % 50 == 0:
            await asyncio.sleep(0)
    return crowd


def _answers(relay: RelayProcess) -> bool:
    try:
        return relay.http("GET", "/health")[0] == 200
    except OSError:
        return False
