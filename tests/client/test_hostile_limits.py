"""What a hostile relay gains by announcing, flooding and refusing: a delay at most.

It may keep messages back, as every relay can. It must not end a client, make it grow
without bound, or leave somebody waiting for what was refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection

import coralmux
from coralmux.client import connection as wire
from coralmux.client.backoff import Timers
from coralmux.client.errors import MessageTooLarge
from coralmux.protocol import Role, encode
from coralmux.protocol.limits import HIGH_WATER_BYTES, MAX_MESSAGE_BYTES
from tests.client.pair import TOKEN, pair
from tests.client.servers import ScriptedRelay, scripted
from tests.support.hostile_relay import Frame, HostileRelay, Outputs
from tests.support.waiting import eventually

PHONE, AGENT = Role.PHONE, Role.AGENT


# -- what is announced --


@pytest.mark.parametrize("limit", [1, 100, 128 * 1024 - 1])
async def test_a_limit_that_no_message_keeps_is_not_believed(limit: int) -> None:
    async with (
        HostileRelay(token=TOKEN, limits={"max_message_bytes": limit}) as relay,
        pair(relay.url) as both,
    ):
        await both.phone.ready()
        assert both.phone.channel.max_message_bytes == MAX_MESSAGE_BYTES
        await eventually(lambda: both.agent._pairings[0].channel.ready)
        # Both are answered out of the loop that reads.
        both.phone.channel.send("chat.cancel", {"ref": "nothing"})
        both.agent._pairings[0].channel.send("file.begin", {"file_id": "a", "size": 3})
        await both.works()


async def test_the_least_limit_is_kept_and_ends_with_the_relay_that_announced_it() -> None:
    limits = {"max_message_bytes": 128 * 1024}
    async with HostileRelay(token=TOKEN, limits=limits) as relay, pair(relay.url) as both:
        await both.works("first")
        channel = both.phone.channel
        assert channel.max_message_bytes == 128 * 1024
        with pytest.raises(MessageTooLarge):
            await both.phone.ask("x" * 128 * 1024)
        relay._limits = {"max_message_bytes": 0}
        relay.drop_connection(PHONE)
        await eventually(lambda: channel.max_message_bytes == MAX_MESSAGE_BYTES)
        await both.works("second")


async def test_an_answer_that_is_too_large_for_the_relay_ends_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        agent = both.agent._pairings[0].channel
        # As it is with a reference that came with megabytes.
        monkeypatch.setattr(agent, "max_message_bytes", 100)
        phone = both.phone.channel
        phone.send("file.begin", {"file_id": "a", "name": "x", "size": 3, "sha256": "0" * 64})
        for _ in range(2):
            phone.send("chat.send", {"text": "twice"}, id="the same")
        await eventually(lambda: "a message that came before" in both.ignored(AGENT))
        monkeypatch.undo()
        await both.works("second")


# -- what cannot be handled --


@pytest.mark.parametrize("victim", [PHONE, AGENT])
async def test_a_pause_of_400_digits_ends_nobody(victim: Role) -> None:
    async with (
        HostileRelay(token=TOKEN, v1=True) as relay,
        pair(relay.url, secret=None) as both,
    ):
        await both.works("first")
        payload = {"code": "RATE_LIMITED", "ref": "q", "retry_after_ms": msgspec.Raw(b"1" * 400)}
        relay.inject(victim, encode("chat.error", payload, ts=0))
        await eventually(lambda: both.hints(victim) == ["RATE_LIMITED"])
        await both.works("second")


async def test_no_depth_of_nesting_ends_a_phone() -> None:
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        both.hold = 0
        asking = asyncio.create_task(both.ask("second", timeout=10))
        await eventually(lambda: "second" in both.heard)
        agent = both.agent._pairings[0].channel
        for depth in range(940, 1000):
            payload = {
                "tool": "deep",
                "status": "running",
                "ref": both.asked[-1].id,
                "more": msgspec.Raw(b"[" * depth + b"]" * depth),
            }
            agent.send("chat.tool_status", payload)
        both.go.set()
        outcome = await asking
        assert outcome.error is None
        assert "deep" in both.tools
        await both.works("third")


class Unexpected(Exception):
    """As a fault of our own would raise it."""


@pytest.mark.parametrize("where", ["machine", "on_message", "on_failure"])
@pytest.mark.parametrize("victim", [PHONE, AGENT])
async def test_a_message_that_raises_is_dropped_and_the_next_is_read(
    victim: Role, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise Unexpected("marker-of-a-plaintext")

    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        ends = {PHONE: both.phone.channel, AGENT: both.agent._pairings[0].channel}
        channel, other = ends[victim], ends[victim.peer]
        if where == "machine":
            monkeypatch.setattr(channel._machine, "receive", fail)
        elif where == "on_message":
            monkeypatch.setattr(channel, "_on_message", fail)
        caplog.set_level(logging.DEBUG)
        if where == "on_failure":
            relay.tamper = lambda frame: []
            id = channel.send("file.cancel", {"file_id": "a"}, on_failure=fail)
            await eventually(lambda: relay.frames[-1].id == id)
            relay.tamper = None
            relay.inject(victim, encode("chat.error", {"code": "RATE_LIMITED", "ref": id}, ts=0))
        else:
            other.send("file.cancel", {"file_id": "a"})
        await both.reported_why(victim, "a message that could not be handled")
        assert "(Unexpected)" in caplog.text
        assert "marker-of-a-plaintext" not in caplog.text
        monkeypatch.undo()
        if where == "machine":  # the record is missing now; both ends see to that
            other.send("file.cancel", {"file_id": "a"})
        await both.works("second")


# -- what is answered, and the answers not taken --


@asynccontextmanager
async def flooded(
    secret: bytes | None, invent: Callable[[int], bytes], timers: Timers
) -> AsyncIterator[tuple[Any, list[Any], list[int]]]:
    """An agent at a relay that writes without end and reads nothing.

    The agent's channel, its events, and how many messages the relay wrote.
    """
    wrote = [0]

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection, paired=True)
        transport = connection.transport
        transport.pause_reading()
        while not transport.is_closing():
            for _ in range(20):
                connection.protocol.send_text(invent(wrote[0]))
                wrote[0] += 1
            connection.send_data()
            await asyncio.sleep(0)
            while transport.get_write_buffer_size() > 200_000 and not transport.is_closing():
                await asyncio.sleep(0.01)

    async with scripted(script) as relay:
        events: list[Any] = []
        link = coralmux.PairingLink(relay.url, TOKEN, secret)
        agent = coralmux.Agent.from_link(link, timers=timers)
        agent.on_chat(lambda message: None)  # type: ignore[arg-type, return-value]
        agent.on_event(lambda link, event: events.append(event))
        serving = asyncio.create_task(agent.serve())
        try:
            yield agent._pairings[0].channel, events, wrote
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def in_the_clear(n: int) -> bytes:
    """A question that version 1 answers with an error as long as its id."""
    return encode("chat.send", {"text": "x"}, ts=0, id="x" * 120)


async def test_answers_that_nobody_takes_hold_the_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coralmux.client.channel._HOLD_BYTES", HIGH_WATER_BYTES)
    quick = Timers(ping=0.5, ping_patience=0.5)
    async with flooded(None, in_the_clear, quick) as (channel, events, wrote):
        connection = channel._connection
        most = 0

        def gone() -> bool:
            nonlocal most
            most = max(most, connection.queued_bytes)
            return any(isinstance(event, wire.Disconnected) for event in events)

        # A relay that takes nothing for so long is dead, whatever it writes.
        await eventually(gone)
        assert HIGH_WATER_BYTES < most < HIGH_WATER_BYTES + 64 * 1024
        assert wrote[0] > 1000


async def test_a_relay_that_reads_again_gets_the_answers_that_were_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coralmux.client.channel._HOLD_BYTES", HIGH_WATER_BYTES)
    answered: list[str] = []
    count = 6000

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection, paired=True)
        connection.transport.pause_reading()
        writing = asyncio.create_task(write(connection))
        await asyncio.wait([writing], timeout=1)
        connection.transport.resume_reading()
        async for message in connection:
            if (decoded := msgspec.json.decode(message))["type"] == "chat.error":
                answered.append(decoded["payload"]["ref"])
        await writing

    async def write(connection: ServerConnection) -> None:
        for n in range(count):
            message = encode("chat.send", {"text": "x"}, ts=0, id=f"{n:0120}")
            await connection.send(message, text=True)

    async with scripted(script) as relay:
        agent = coralmux.Agent.from_link(coralmux.PairingLink(relay.url, TOKEN))
        agent.on_chat(lambda message: None)  # type: ignore[arg-type, return-value]
        serving = asyncio.create_task(agent.serve())
        await eventually(lambda: len(answered) == count)
        await agent.close()
        await serving
    assert answered == [f"{n:0120}" for n in range(count)]


# -- what is refused although the session lives --


class RefuseWith:
    """The relay's order: every message of these types is refused, so often."""

    def __init__(self, code: str, sender: Role, *types: str, times: int = 10**6) -> None:
        self.code, self.sender, self.types, self.times = code, sender, types, times
        self.refused: list[str] = []

    def __call__(self, frame: Frame) -> Outputs:
        if frame.sender is not self.sender or frame.type not in self.types or not self.times:
            return [frame.data]
        self.times -= 1
        self.refused.append(frame.id)
        error = {"code": self.code, "message": "x", "ref": frame.id}
        return [(frame.sender, encode("chat.error", error, ts=0))]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coralmux.client.channel.OFFLINE_SECONDS", (0.05, 0.1, 0.2))


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("times", [1, 3])
async def test_an_end_that_a_slow_reader_missed_is_said_again(times: int) -> None:
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        relay.tamper = refuse = RefuseWith("PEER_OFFLINE", AGENT, "chat.done", times=times)
        await both.works("second")
        assert refuse.refused == [refuse.refused[0]] * times
        relay.tamper = RefuseWith(
            "PEER_OFFLINE", AGENT, "agent.list.result", "chat.error", times=times
        )
        assert [agent.name for agent in await both.phone.agents(timeout=5)] == ["Test agent"]
        with pytest.raises(coralmux.AgentError):
            await both.phone.groups(timeout=5)
        assert both.failures(AGENT) == both.failures(PHONE) == []


@pytest.mark.usefixtures("_soon")
async def test_an_end_that_never_passes_is_replaced_by_an_error() -> None:
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        relay.tamper = refuse = RefuseWith("PEER_OFFLINE", AGENT, "chat.done")
        outcome = await both.ask("second", timeout=10)
        assert type(outcome.error) is coralmux.AgentError
        assert len(refuse.refused) == 4
        relay.tamper = None
        await both.works("third")


@pytest.mark.parametrize("code", ["PEER_OFFLINE", "RATE_LIMITED"])
@pytest.mark.parametrize("end", ["session", "channel"])
async def test_what_waits_to_be_said_again_ends_with_its_session(code: str, end: str) -> None:
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        agent = both.agent._pairings[0].channel
        error = {"code": code, "retry_after_ms": 50_000}
        failed: list[coralmux.ClientError] = []
        relay.tamper = lambda frame: [
            (AGENT, encode("chat.error", error | {"ref": frame.id}, ts=0))
        ]
        agent.insist("group.message", {"room_id": "r", "message": {}}, on_failure=failed.append)
        await eventually(lambda: len(agent._insistence._timers) == 1)
        [timer] = agent._insistence._timers
        relay.tamper = None
        if end == "session":
            relay.drop_connection(PHONE)
        else:
            await both.agent.close()
        await eventually(timer.cancelled)
        assert agent._insistence._timers == set()
        if end == "session":
            await both.works("second")
        assert failed == []
