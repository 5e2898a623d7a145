"""The connection of one role against the real relay."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coralmux.client.connection import (
    Connected,
    Connecting,
    Disconnected,
    PeerStatus,
    Received,
    Stopped,
    Timers,
)
from coralmux.client.errors import NotConnected
from coralmux.protocol.types import Role
from tests.client.connection.dialling import (
    FAST,
    MIB,
    TOKEN,
    connected,
    connection_to,
    deltas,
    envelope,
    watching,
)
from tests.support.client import log_in
from tests.support.process import FAST as RELAY_FAST
from tests.support.process import RelayProcess, relay_process


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A started relay with timers at a tenth; use a token of your own.

    It slows senders for longer than that, so that a busy machine refuses nothing.
    """
    env = {**RELAY_FAST, "CORALMUX_HOLD_SECONDS": "6"}
    process = RelayProcess(Path(tmp_path_factory.mktemp("relay")), env=env)
    try:
        yield process.start()
    finally:
        process.stop()
    process.check_output()


# Logging in


async def test_a_login_tells_what_the_relay_announces(relay: RelayProcess) -> None:
    async with watching(connection_to(relay.url, relay.token())) as events:
        assert await events.next() == Connecting(1)
        greeting = (await events.expect(Connected)).greeting
        assert greeting.paired is False
        assert greeting.daily_quota_bytes == 500 * MIB
        assert greeting.daily_used_bytes == 0
        assert greeting.monthly_quota_bytes == 10 * 1024 * MIB
        assert greeting.monthly_used_bytes == 0
        assert greeting.limits is not None
        assert greeting.limits.max_message_bytes == 5 * MIB
        assert greeting.limits.messages_per_minute == 30
        assert greeting.limits.stream_frames_per_second == 1_000
        assert re.fullmatch("[0-9a-f]{16}", greeting.connection_id)
        assert greeting.server is not None
        assert (greeting.server.name, greeting.server.protocol) == ("coralmux-relay", 2)


async def test_both_sides_hear_of_each_other_and_talk(relay: RelayProcess) -> None:
    token = relay.token()
    async with connected(relay.url, token, Role.PHONE) as (phone, to_phone):
        agent = connection_to(relay.url, token, Role.AGENT)
        async with watching(agent) as to_agent:
            await to_agent.expect(Connecting)
            assert (await to_agent.expect(Connected)).greeting.paired is True
            assert await to_phone.next() == PeerStatus(online=True)
            phone.post(envelope("chat.send", {"text": "hello"}, id="q1"), id="q1")
            question = (await to_agent.expect(Received)).envelope
            assert (question.type, question.id) == ("chat.send", "q1")
            assert json.loads(bytes(question.payload)) == {"text": "hello"}
            agent.post(envelope("chat.done", {"full_text": "hi"}, id="a1"), id="a1")
            assert (await to_phone.expect(Received)).envelope.type == "chat.done"
        assert await to_phone.next() == PeerStatus(online=False)


async def test_an_error_of_the_relay_comes_as_a_message(relay: RelayProcess) -> None:
    async with connected(relay.url, relay.token()) as (phone, events):
        phone.post(envelope("chat.send", {"text": "hello"}, id="q1"), id="q1")
        error = (await events.expect(Received)).envelope
        assert error.type == "chat.error"
        assert json.loads(bytes(error.payload))["code"] == "PEER_OFFLINE"


async def test_an_unknown_token_stops_for_good_in_words_that_say_what_to_do(
    relay: RelayProcess,
) -> None:
    async with watching(connection_to(relay.url, TOKEN)) as events:
        await events.expect(Connecting)
        stopped = await events.expect(Stopped)
        assert (stopped.code, stopped.final) == (4001, True)
        assert "pair again" in stopped.cause
        assert "The relay says: “Unknown token." in stopped.cause
        await events.ended()


async def test_a_token_revoked_earlier_stops_for_good(relay: RelayProcess) -> None:
    token = relay.token()
    assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204
    async with watching(connection_to(relay.url, token)) as events:
        await events.expect(Connecting)
        stopped = await events.expect(Stopped)
        assert (stopped.code, stopped.final) == (4003, True)
        await events.ended()


@pytest.mark.parametrize("role", Role)
async def test_a_token_revoked_while_connected_stops_for_good(
    relay: RelayProcess, role: Role
) -> None:
    token = relay.token()
    async with connected(relay.url, token, role) as (connection, events):
        await asyncio.to_thread(relay.http, "DELETE", f"/api/v1/pair/{token}", admin=True)
        stopped = await events.expect(Stopped)
        assert (stopped.code, stopped.final) == (4003, True)
        assert "Pair again" in stopped.cause
        with pytest.raises(NotConnected):
            connection.post(b"{}", id="x")
        await events.ended()


# Replacement


async def test_a_replaced_phone_stays_away_until_asked(relay: RelayProcess) -> None:
    token = relay.token()
    async with connected(relay.url, token) as (phone, events):
        async with log_in(relay.url, token, "phone"):
            stopped = await events.expect(Stopped)
            assert (stopped.code, stopped.final) == (4002, False)
            assert "Another device" in stopped.cause
            waiting = asyncio.ensure_future(events.next())
            # Longer than any pause of FAST for a phone: it really stays away.
            assert await asyncio.wait([waiting], timeout=0.5) == (set(), {waiting})
        phone.reconnect()
        assert await waiting == Connecting(1)
        await events.expect(Connected)


async def test_asking_right_at_the_stop_is_heard(relay: RelayProcess) -> None:
    token = relay.token()
    async with (
        connected(relay.url, token) as (phone, events),
        log_in(relay.url, token, "phone") as other,
    ):
        await events.expect(Stopped)
        phone.reconnect()
        await events.expect(Connecting)
        await events.expect(Connected)
        assert await other.closed() == 4002


@pytest.mark.slow
async def test_a_replaced_agent_comes_back_after_its_pause_and_doubles_it(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with connected(relay.url, token, Role.AGENT) as (_, events):
        for pause in (0.4, 0.8):
            async with log_in(relay.url, token, "agent"):
                gone = await events.expect(Disconnected)
                began = time.monotonic()
                assert (gone.code, gone.retry_in) == (4002, pause)
                assert gone.reason
            await events.expect(Connecting)
            assert time.monotonic() - began >= pause - 0.05
            await events.expect(Connected)


# Ends and restarts


@pytest.mark.slow
async def test_a_relay_that_restarts_is_found_again() -> None:
    with relay_process() as own:
        async with connected(own.url, own.token(), Role.AGENT) as (_, events):
            terminated = asyncio.create_task(asyncio.to_thread(own.terminate))
            gone = await events.expect(Disconnected)
            assert gone.code == 1012
            assert gone.retry_in <= FAST.restart_pause
            assert gone.cause == "The relay restarts."
            assert gone.reason == "the relay restarts; connect again in a moment"
            await terminated
            await asyncio.to_thread(own.start)
            await events.until(Connected)


@pytest.mark.slow
async def test_a_killed_relay_is_found_again_within_five_seconds_of_its_return() -> None:
    with relay_process() as own:
        # With the pauses that everybody has.
        timers = Timers()
        async with connected(own.url, own.token(), timers=timers) as (_, events):
            own.process.send_signal(signal.SIGKILL)
            own.process.wait()
            gone = await events.expect(Disconnected)
            assert gone.code == 1006
            assert "broke" in gone.cause
            back = asyncio.create_task(events.until(Connected, within=60))
            await asyncio.to_thread(own.start)
            returned = time.monotonic()
            await back
            assert time.monotonic() - returned < 5


async def test_the_relay_reads_a_close_with_1000(relay: RelayProcess) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "agent") as agent:
        async with connected(relay.url, token) as (phone, events):
            await agent.expect("status")
            began = time.monotonic()
            await phone.close()
            assert time.monotonic() - began < FAST.close
            await events.ended()
        assert (await agent.expect("status"))["payload"] == {"peer": "offline"}


# Order and backpressure


async def test_a_thousand_posts_arrive_in_the_order_of_the_calls(relay: RelayProcess) -> None:
    token = relay.token()
    async with (
        connected(relay.url, token, Role.PHONE) as (_, to_phone),
        connected(relay.url, token, Role.AGENT) as (agent, _),
    ):
        await to_phone.expect(PeerStatus)
        sent = deltas(1_000)
        for id, data in sent:
            agent.post(data, id=id)
        got = [(await to_phone.expect(Received)).envelope.id for _ in sent]
        assert got == [id for id, _ in sent]


async def test_a_busy_phone_slows_the_agent_and_loses_nothing(relay: RelayProcess) -> None:
    """A phone looks away while more is sent to it than all buffers on the way hold."""
    token = relay.token()
    # A held sender gets no pong, and these hold for longer than FAST bears.
    timers = dataclasses.replace(FAST, ping=30.0)
    async with (
        connected(relay.url, token, Role.PHONE, timers=timers) as (_, to_phone),
        connected(relay.url, token, Role.AGENT, timers=timers) as (agent, to_agent),
    ):
        await to_phone.expect(PeerStatus)
        sent = deltas(200, size=256 * 1024)
        posted = 0

        async def post_all() -> None:
            nonlocal posted
            for id, data in sent:
                agent.post(data, id=id)
                posted += 1
                await agent.drain()

        posting = asyncio.create_task(post_all())
        refusals = asyncio.create_task(to_agent.next())
        # Shorter than the relay holds anybody: nothing is refused.
        assert await asyncio.wait([posting], timeout=0.4) == (set(), {posting})
        assert 0 < posted < len(sent)
        got = [(await to_phone.expect(Received)).envelope.id for _ in sent]
        assert got == [id for id, _ in sent]
        await posting
        assert not refusals.done()
        refusals.cancel()
        await asyncio.wait([refusals])


async def test_close_sends_what_was_posted_before(relay: RelayProcess) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "phone", max_queue=None) as phone:
        async with connected(relay.url, token, Role.AGENT) as (agent, _):
            await phone.expect("status")
            sent = deltas(500)
            for id, data in sent:
                agent.post(data, id=id)
            await agent.close()
        got = [(await phone.expect("chat.stream"))["id"] for _ in sent]
        assert got == [id for id, _ in sent]
