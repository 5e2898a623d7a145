"""The load generator: pairs of clients that talk through a relay as fast as it lets them.

Each pair is a phone and an agent. The agent keeps a number of messages
outstanding: it sends the next as soon as the phone has one (a closed loop), so
the rate is what the relay can do and the latency what its senders would see.
Both ends live in this process, so that one clock measures the way.

Every message is checked byte for byte against the oldest that is outstanding.
One that is lost, doubled, altered or out of order ends the run with status 1.

    python -m bench.load --url ws://127.0.0.1:8080/ws --pairs 2 < tokens

Tokens come on standard input, one a line and pair. The result goes to standard
output as one line of JSON, see `Result`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
import uuid
from array import array
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.process import cpu_seconds, event_loop_factory, raise_open_files

SETTLE_SECONDS = 10.0  # for a log-in, and for what is outstanding at the end
CONNECTS_AT_ONCE = 20  # below any listen backlog
_NOT_ABOUT_MESSAGES = ("status", "pong")


class LoadError(Exception):
    """The relay refused, lost, doubled, altered or reordered something; the text says what."""


@dataclass(frozen=True)
class Result:
    """One run. Latency is from an agent's send to its phone's receive.

    `server_cpu_us` is the server's CPU time for each message in microseconds, and
    `server_cpu` the share of a core that it got, both None without `--server-pid`:
    well below 1, something else ran on that core. `generator_cpu` is the generator's
    own share: near 1, it was the generator that set the rate.
    """

    pairs: int
    outstanding: int
    message_bytes: int
    seconds: float
    messages: int
    messages_per_second: float
    p50_us: float
    p99_us: float
    server_cpu_us: float | None
    server_cpu: float | None
    generator_cpu: float


class MessageMaker:
    """Valid `chat.stream` envelopes of one exact size, numbered from 1.

    The template is filled by one formatting; the number is padded with spaces,
    which JSON allows before a value, so that all are equally long.
    """

    _HEAD = (
        b'{"v":1,"type":"chat.stream","id":"%08x-0000-4000-8000-%%012x","ts":%d,'
        b'"payload":{"seq":%%10d,"delta":"'
    )

    def __init__(self, pair: int, message_bytes: int) -> None:
        head = self._HEAD % (pair, time.time_ns() // 1_000_000)
        padding = message_bytes - len(head % (0, 0)) - len(b'"}}')
        if padding < 0:
            raise LoadError(f"a message cannot be shorter than {message_bytes - padding} bytes")
        self._template = head + b"x" * padding + b'"}}'

    def make(self, seq: int) -> bytes:
        return self._template % (seq, seq)


class Client(WSListener):
    """One end of a pair: logs in, then hands what comes to its pair."""

    def __init__(self, pair: Pair, role: str) -> None:
        self.pair = pair
        self.role = role
        self.transport: WSTransport
        self.admitted = asyncio.get_running_loop().create_future()
        self.ponged = asyncio.get_running_loop().create_future()
        self.closing = False

    async def log_in(self, url: str, token: str) -> None:
        self.transport, _ = await ws_connect(lambda: self, url)
        auth = {
            "v": 1,
            "type": "auth",
            "id": str(uuid.uuid4()),
            "ts": time.time_ns() // 1_000_000,
            "payload": {"token": token, "role": self.role},
        }
        self.transport.send(WSMsgType.TEXT, json.dumps(auth).encode())
        async with asyncio.timeout(SETTLE_SECONDS):
            await self.admitted

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PONG:
            if not self.ponged.done():
                self.ponged.set_result(None)
        elif frame.msg_type == WSMsgType.CLOSE:
            if not self.closing:
                self.pair.run.fail(f"{self} was closed with {frame.get_close_code()}")
            transport.disconnect()
        elif self.admitted.done():
            self.pair.received_other(self, frame)
        elif json.loads(frame.get_payload_as_bytes()).get("type") == "auth.ok":
            self.admitted.set_result(None)
        else:
            self.pair.run.fail(f"{self} was not admitted: {_excerpt(frame)}")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.closing:
            self.pair.run.fail(f"{self} was disconnected")

    def __str__(self) -> str:
        return f"the {self.role} of pair {self.pair.number}"


class Phone(Client):
    """Overrides the one callback that runs for each message."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        pair = self.pair
        outstanding = pair.outstanding
        if (
            outstanding
            and frame.msg_type == WSMsgType.TEXT
            and frame.get_payload_as_bytes() == outstanding[0][1]
        ):
            now = time.perf_counter_ns()
            run = pair.run
            run.latencies.append(now - outstanding.popleft()[0])
            if run.sending:
                pair.send_next()
        else:
            super().on_ws_frame(transport, frame)


class Pair:
    """A phone and an agent under one token, and what is on its way between them."""

    def __init__(self, run: Run, number: int, message_bytes: int) -> None:
        self.run = run
        self.number = number
        self.phone = Phone(self, "phone")
        self.agent = Client(self, "agent")
        self.outstanding: deque[tuple[int, bytes]] = deque()  # (sent at, ns; message)
        self._maker = MessageMaker(number, message_bytes)
        self._seq = 0

    def send_next(self) -> None:
        self._seq += 1
        message = self._maker.make(self._seq)
        self.outstanding.append((time.perf_counter_ns(), message))
        self.agent.transport.send(WSMsgType.TEXT, message)

    def received_other(self, client: Client, frame: WSFrame) -> None:
        """Something came that is not the message we wait for: find out what it means."""
        payload = frame.get_payload_as_bytes()
        try:
            envelope = json.loads(payload)
            kind = envelope["type"]
        except (ValueError, KeyError, TypeError):
            self.run.fail(f"{client} received what is no envelope: {_excerpt(frame)}")
            return
        if frame.msg_type == WSMsgType.TEXT and kind in _NOT_ABOUT_MESSAGES:
            return
        if kind == "chat.stream" and client is self.phone:
            self.run.fail(self._explain(envelope, frame))
        else:
            self.run.fail(f"{client} received {_excerpt(frame)}")

    def _explain(self, envelope: dict[str, Any], frame: WSFrame) -> str:
        came = envelope.get("payload", {}).get("seq")
        due = [self._maker.make(seq) for seq in range(1, self._seq + 1)]
        if frame.msg_type != WSMsgType.TEXT:
            what = f"message {came} came as a frame that is not text"
        elif frame.get_payload_as_bytes() not in due:
            what = f"message {came} was altered on its way"
        elif not self.outstanding or came < self._oldest:
            what = f"message {came} came twice"
        else:
            what = f"message {self._oldest} was lost or overtaken: {came} came in its place"
        return f"pair {self.number}: {what}"

    @property
    def _oldest(self) -> int:
        return self._seq - len(self.outstanding) + 1

    def lost(self) -> str:
        return (
            f"pair {self.number}: {len(self.outstanding)} messages from {self._oldest} on "
            f"had not come {SETTLE_SECONDS:.0f} s after the last was sent"
        )


class Run:
    """One measurement: connect, warm up, measure, drain, close."""

    def __init__(self, url: str, tokens: list[str], message_bytes: int) -> None:
        self.url = url
        self.tokens = tokens
        self.sending = False
        self.latencies = array("q")  # nanoseconds
        self.pairs = [Pair(self, number, message_bytes) for number in range(len(tokens))]
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, text: str) -> None:
        """Called in callbacks, where picows would only log an exception; the first one counts."""
        self.sending = False
        if not self._failed.done():
            self._failed.set_exception(LoadError(text))

    async def _wait(self, seconds: float) -> None:
        await asyncio.wait({self._failed}, timeout=seconds)
        if self._failed.done():
            self._failed.result()

    async def _until(self, done: asyncio.Future[Any]) -> None:
        """Wait for it, or raise what made the run fail meanwhile."""
        either: set[asyncio.Future[Any]] = {done, self._failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            done.cancel()
            self._failed.result()
        await done

    async def connect(self) -> None:
        # Phones first: an agent's frames then always find their peer.
        await self._log_in([pair.phone for pair in self.pairs])
        await self._log_in([pair.agent for pair in self.pairs])

    async def _log_in(self, clients: list[Client]) -> None:
        for first in range(0, len(clients), CONNECTS_AT_ONCE):
            chunk = zip(
                clients[first : first + CONNECTS_AT_ONCE],
                self.tokens[first : first + CONNECTS_AT_ONCE],
                strict=True,
            )
            await self._until(
                asyncio.gather(*(client.log_in(self.url, token) for client, token in chunk))
            )

    def start(self, outstanding: int) -> None:
        self.sending = True
        for pair in self.pairs:
            for _ in range(outstanding):
                pair.send_next()

    async def measure(self, seconds: float) -> tuple[array[int], float]:
        """Latencies in nanoseconds of what arrived, and the seconds it took."""
        self.latencies = array("q")
        started = time.perf_counter()
        await self._wait(seconds)
        elapsed = time.perf_counter() - started
        measured, self.latencies = self.latencies, array("q")
        return measured, elapsed

    async def drain(self) -> None:
        """Everything sent has to arrive, and nothing twice."""
        self.sending = False
        deadline = time.monotonic() + SETTLE_SECONDS
        while late := [pair for pair in self.pairs if pair.outstanding]:
            if time.monotonic() > deadline:
                raise LoadError(late[0].lost())
            await self._wait(0.01)
        # What the relay wrote before it answers a ping arrives before the answer.
        for pair in self.pairs:
            pair.phone.transport.send_ping()
        async with asyncio.timeout(SETTLE_SECONDS):
            await self._until(asyncio.gather(*(pair.phone.ponged for pair in self.pairs)))

    async def close(self) -> None:
        clients = [client for pair in self.pairs for client in (pair.phone, pair.agent)]
        connected = [client for client in clients if hasattr(client, "transport")]
        for client in connected:
            client.closing = True
            client.transport.send_close()
        waits = asyncio.gather(*(client.transport.wait_disconnected() for client in connected))
        try:
            await asyncio.wait_for(waits, SETTLE_SECONDS)
        except TimeoutError:
            for client in connected:
                client.transport.disconnect(False)


async def generate(
    *,
    url: str,
    tokens: list[str],
    outstanding: int,
    message_bytes: int,
    warm_up: float,
    seconds: float,
    server_pid: int | None = None,
) -> Result:
    """Run the load once; `warm_up` and `seconds` are in seconds. Raises LoadError."""
    run = Run(url, tokens, message_bytes)
    try:
        await run.connect()
        # No garbage is made in cycles, and a collection would stand in p99.
        gc.collect()
        gc.disable()
        run.start(outstanding)
        await run.measure(warm_up)
        own_before, server_before = time.process_time(), _server_cpu(server_pid)
        measured, elapsed = await run.measure(seconds)
        own_after, server_after = time.process_time(), _server_cpu(server_pid)
        await run.drain()
    except (OSError, TimeoutError) as error:
        raise LoadError(f"cannot reach the relay: {error or 'it does not answer'}") from None
    finally:
        gc.enable()
        await run.close()
    if not measured:
        raise LoadError(f"no message arrived within {seconds:g} s")
    server_seconds = None
    if server_before is not None and server_after is not None:
        server_seconds = server_after - server_before
    ordered = sorted(measured)
    return Result(
        pairs=len(tokens),
        outstanding=outstanding,
        message_bytes=message_bytes,
        seconds=round(elapsed, 3),
        messages=len(measured),
        messages_per_second=round(len(measured) / elapsed, 1),
        p50_us=_percentile_us(ordered, 50),
        p99_us=_percentile_us(ordered, 99),
        server_cpu_us=_rounded(server_seconds, len(measured) / 1e6),
        server_cpu=_rounded(server_seconds, elapsed),
        generator_cpu=round((own_after - own_before) / elapsed, 3),
    )


def _server_cpu(pid: int | None) -> float | None:
    return None if pid is None else cpu_seconds(pid)


def _rounded(seconds: float | None, divisor: float) -> float | None:
    return None if seconds is None else round(seconds / divisor, 3)


def _percentile_us(ordered: list[int], percent: int) -> float:
    """By nearest rank, of nanoseconds in ascending order; in microseconds."""
    rank = max(1, -(-len(ordered) * percent // 100))
    return round(ordered[rank - 1] / 1000, 1)


def _excerpt(frame: WSFrame) -> str:
    return repr(frame.get_payload_as_bytes()[:200])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("--url", required=True, help="ws://HOST:PORT/ws")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--outstanding", type=int, default=4, help="messages of each pair")
    parser.add_argument("--bytes", type=int, default=300, help="size of a message")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--server-pid", type=int, help="process whose CPU time is measured")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    tokens = sys.stdin.read().split()[: arguments.pairs]
    if len(tokens) < arguments.pairs:
        sys.stderr.write(f"load: {arguments.pairs} pairs need as many tokens, got {len(tokens)}\n")
        return 2
    raise_open_files()
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        try:
            result = runner.run(
                generate(
                    url=arguments.url,
                    tokens=tokens,
                    outstanding=arguments.outstanding,
                    message_bytes=arguments.bytes,
                    warm_up=arguments.warm_up,
                    seconds=arguments.seconds,
                    server_pid=arguments.server_pid,
                )
            )
        except LoadError as failure:
            sys.stderr.write(f"load: {failure}\n")
            return 1
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
