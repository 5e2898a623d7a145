"""The connection of one role, against the real relay and against relays by script."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http
import json
import logging
import re
import signal
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.asyncio.server import ServerConnection

from coralmux import __version__, protocol
from coralmux.client.connection import (
    Connected,
    Connecting,
    Connection,
    ConnectionEvent,
    Disconnected,
    Greeting,
    PeerStatus,
    Received,
    Stopped,
    Timers,
)
from coralmux.client.errors import NotConnected
from coralmux.protocol.limits import HIGH_WATER_BYTES, LOW_WATER_BYTES
from coralmux.protocol.types import Role
from tests.client.servers import (
    ScriptedRelay,
    certificate,
    connect_proxy,
    listening,
    say,
    scripted,
)
from tests.support.client import SOON, log_in
from tests.support.process import FAST as RELAY_FAST
from tests.support.process import RelayProcess, free_port, relay_process
from tests.support.waiting import eventually

# A tenth of the defaults, and pauses short enough to wait for.
FAST = Timers(
    open=1.0,
    auth=1.0,
    ping=0.2,
    ping_patience=0.4,
    close=0.3,
    first_pause=0.05,
    longest_pause=0.2,
    stable=1.0,
    restart_pause=0.05,
    later_pause=0.3,
    replaced_pause=0.4,
    longest_replaced_pause=1.6,
)
TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
MIB = 1024 * 1024

E = TypeVar("E", bound=ConnectionEvent)


class Events:
    """The events of a connection, one by one."""

    def __init__(self, iterator: AsyncGenerator[ConnectionEvent, None]) -> None:
        self._iterator = iterator

    async def next(self, within: float = SOON) -> ConnectionEvent:
        async with asyncio.timeout(within):
            return await anext(self._iterator)

    async def expect(self, kind: type[E], within: float = SOON) -> E:
        """The next event, which must be of this kind."""
        event = await self.next(within)
        assert isinstance(event, kind), event
        return event

    async def until(self, kind: type[E], within: float = SOON) -> E:
        """The next event of this kind; others are skipped."""
        async with asyncio.timeout(within):
            async for event in self._iterator:
                if isinstance(event, kind):
                    return event
        raise AssertionError(f"ended without {kind.__name__}")

    async def ended(self) -> None:
        async with asyncio.timeout(SOON):
            assert [event async for event in self._iterator] == []


@contextlib.asynccontextmanager
async def watching(connection: Connection) -> AsyncIterator[Events]:
    async with connection, contextlib.aclosing(connection.events()) as iterator:
        yield Events(iterator)


def connection_to(
    url: str, token: str = TOKEN, role: Role = Role.PHONE, **options: Any
) -> Connection:
    return Connection(url, token, role, **{"timers": FAST, "proxy": None, **options})


@contextlib.asynccontextmanager
async def connected(
    url: str, token: str = TOKEN, role: Role = Role.PHONE, **options: Any
) -> AsyncIterator[tuple[Connection, Events]]:
    """A connection that has logged in."""
    connection = connection_to(url, token, role, **options)
    async with watching(connection) as events:
        assert await events.expect(Connecting) == Connecting(1)
        await events.expect(Connected)
        yield connection, events


def envelope(type: str, payload: dict[str, Any] | None = None, *, id: str) -> bytes:
    return protocol.encode(type, payload, ts=0, id=id)


def deltas(count: int, size: int = 1) -> list[tuple[str, bytes]]:
    ids = [f"d{n}" for n in range(count)]
    return [(id, envelope("chat.stream", {"delta": "x" * size}, id=id)) for id in ids]


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


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """No task outlives a test: they all ended before it did, or within a moment."""
    before = asyncio.all_tasks()
    yield
    mine = lambda: [t for t in asyncio.all_tasks() - before if "coralmux" in t.get_name()]  # noqa: E731
    assert mine() == []


# The real relay: logging in


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


# The real relay: replacement


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


# The real relay: ends and restarts


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


# The real relay: order and backpressure


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


# By script: what v1 relays and odd ones say


async def test_a_v1_relay_announces_nothing_but_whether_the_peer_is_there() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection, paired=True, daily_quota_bytes=500, daily_used_bytes=7)
        await connection.wait_closed()

    async with scripted(script) as relay:
        connection = connection_to(relay.url, client_name="test-bot")
        async with watching(connection) as events:
            await events.expect(Connecting)
            greeting = (await events.expect(Connected)).greeting
            assert greeting == Greeting(paired=True, daily_quota_bytes=500, daily_used_bytes=7)
        assert relay.auths == [
            {
                "token": TOKEN,
                "role": "phone",
                "protocol": 2,
                "client": {"name": "test-bot", "version": __version__},
            }
        ]


@pytest.mark.parametrize(
    ("payload", "greeting"),
    [
        ({"paired": 1}, Greeting(paired=False)),
        ({"paired": True, "limits": [], "server": "x"}, Greeting(paired=True)),
        ({"daily_quota_bytes": True, "daily_used_bytes": -1}, Greeting(paired=False)),
        ({"monthly_quota_bytes": 2**70, "connection_id": 5}, Greeting(paired=False)),
    ],
)
def test_nonsense_in_a_greeting_counts_as_not_said(
    payload: dict[str, Any], greeting: Greeting
) -> None:
    assert Greeting.read(payload) == greeting


async def test_a_v1_refusal_without_a_close_frame_stops_for_good() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.take_auth(connection)
        await say(connection, "auth.fail", {"code": "UNAUTHORIZED", "message": "no\x1b[2J such"})
        connection.transport.close()

    async with scripted(script) as relay, watching(connection_to(relay.url)) as events:
        await events.expect(Connecting)
        stopped = await events.expect(Stopped)
        assert (stopped.code, stopped.final) == (4001, True)
        assert stopped.cause.endswith("The relay says: “no [2J such”")
        await events.ended()
        assert relay.visits == 1


async def test_a_time_that_the_relay_names_before_the_login_is_kept() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.take_auth(connection)
        if relay.visits > 1:
            await say(connection, "auth.ok", {"paired": False})
            await connection.wait_closed()
            return
        error = {"code": "RATE_LIMITED", "message": "Too many.", "retry_after_ms": 600}
        await say(connection, "chat.error", error)
        await connection.close(4029, "later")

    async with scripted(script) as relay:
        connection = connection_to(relay.url)
        async with watching(connection) as events:
            await events.expect(Connecting)
            began = time.monotonic()
            gone = await events.expect(Disconnected)
            assert (gone.code, gone.reason) == (4029, "later")
            assert 0.5 < gone.retry_in <= 0.65
            assert "Too many." in gone.cause
            # Asking to come back now does not move the relay's time.
            connection.reconnect()
            assert await events.next() == Connecting(2)
            assert time.monotonic() - began >= 0.55
            await events.expect(Connected)


async def test_try_later_without_a_time_is_some_seconds_which_asking_skips() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await connection.close(1013)

    timers = dataclasses.replace(FAST, later_pause=60.0)
    async with scripted(script) as relay:
        connection = connection_to(relay.url, timers=timers)
        async with watching(connection) as events:
            await events.expect(Connecting)
            assert (await events.expect(Disconnected)).retry_in >= 60.0
            connection.reconnect()
            assert await events.next() == Connecting(2)


async def test_asking_while_connected_does_not_skip_a_later_pause() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.recv()
        await connection.close(1013)

    async with scripted(script) as relay, connected(relay.url) as (phone, events):
        phone.reconnect()
        phone.post(envelope("chat.send", id="x"), id="x")
        gone = await events.expect(Disconnected)
        began = time.monotonic()
        await events.expect(Connecting)
        assert time.monotonic() - began >= gone.retry_in - 0.05


async def test_being_asked_after_a_replacement_forgets_earlier_failures() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.close(4002 if relay.visits == 4 else 1000)

    async with scripted(script) as relay:
        phone = connection_to(relay.url, random=Longest())
        async with watching(phone) as events:
            pauses = [(await events.until(Disconnected)).retry_in for _ in range(3)]
            assert pauses[0] == FAST.first_pause < pauses[2]
            await events.until(Stopped)
            phone.reconnect()
            assert (await events.until(Disconnected)).retry_in == FAST.first_pause


@pytest.mark.parametrize("code", [1000, 1002, 1007, 1009, 1011, 4004, 4007, 4008, 4012, 4999])
async def test_other_ends_are_followed_by_another_attempt(code: int) -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.close(code)

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        gone = await events.expect(Disconnected)
        assert gone.code == code
        assert gone.cause.endswith(".")
        assert await events.next() == Connecting(1)
        await events.expect(Connected)


async def test_garbage_is_dropped_without_its_contents_in_a_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    garbage: list[str | bytes] = [
        "SECRET",
        '{"type":"SECRET"',
        b"\xff\xfeSECRET",
        "[]",
        '{"type":"chat.done","payload":5}',
        '{"type":"status","payload":{"peer":"SECRET"}}',
        '{"type":"auth.ok","payload":{"paired":true}}',
        '{"type":"auth.fail","payload":{"code":"UNAUTHORIZED"}}',
        '{"type":"pong"}',
        '{"type":"status","payload":' + '{"a":' * 500 + "1" + "}" * 501,
    ]

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await connection.recv()
        for frame in garbage[:5]:
            await connection.send(frame)
        await say(connection, "auth.ok", {"paired": False})
        for frame in garbage:
            await connection.send(frame)
        await say(connection, "chat.done", {"full_text": "SECRET"}, id="good")
        await connection.wait_closed()

    caplog.set_level(logging.DEBUG)
    async with scripted(script) as relay, connected(relay.url) as (_, events):
        message = await events.expect(Received)
        assert message.envelope.id == "good"
        assert repr(message) == "Received(type='chat.done', id='good')"
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("coralmux"))
    assert ours.count("dropped a message") == 1
    assert f"{len(garbage)} messages dropped" in ours
    assert "SECRET" not in ours


async def test_no_log_and_no_repr_holds_the_token_or_the_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.close(1012)

    caplog.set_level(logging.DEBUG)
    # The scripted server logs what it reads.
    logging.getLogger("websockets.server").setLevel(logging.WARNING)
    async with scripted(script) as relay:
        url = relay.url.replace("ws://", "ws://user:hidden@") + "?key=hidden"
        connection = connection_to(url)
        async with watching(connection) as events:
            await events.until(Disconnected)
            for text in (caplog.text, repr(connection), repr(vars(connection)["_address"].shown)):
                assert TOKEN not in text
                assert "hidden" not in text
        assert f"ws://127.0.0.1:{relay.port}" in caplog.text


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("ws://relay.invalid/ws", True),
        ("ws://192.0.2.1/ws", True),
        ("wss://relay.invalid/ws", False),
        ("ws://localhost:1/ws", False),
        ("ws://127.0.0.1:1/ws", False),
        ("ws://[::1]:1/ws", False),
    ],
)
async def test_a_token_that_travels_unprotected_is_warned_of_once(
    url: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    timers = dataclasses.replace(FAST, open=0.1)
    async with watching(connection_to(url, timers=timers)) as events:
        for _ in range(3):
            await events.expect(Connecting)
            await events.expect(Disconnected)
    assert caplog.text.count("no TLS") == warned


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay.example.com",
        "https://relay.example.com/ws",
        "wss://",
        "ws://a/ws#token=x",
        "ws://a:token=x/ws",
        "ws://a:0/ws",
        "ws://[::1/ws?token=x",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must look like wss://") as caught:
        Connection(url, TOKEN, Role.PHONE)
    assert "token=x" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_tls_context_for_a_relay_without_tls_is_refused() -> None:
    with pytest.raises(ValueError, match="wss://"):
        Connection("ws://127.0.0.1/ws", TOKEN, Role.PHONE, ssl=ssl.create_default_context())


# By script: silence


async def test_a_relay_that_never_answers_auth_is_given_up() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await connection.wait_closed()

    timers = dataclasses.replace(FAST, auth=0.2)
    async with (
        scripted(script) as relay,
        watching(connection_to(relay.url, timers=timers)) as events,
    ):
        await events.expect(Connecting)
        gone = await events.expect(Disconnected)
        assert gone.code == 1006
        assert "did not answer the token" in gone.cause
        await events.expect(Connecting)


async def test_a_silent_connection_is_given_up() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()  # no pong
        await connection.wait_closed()

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        began = time.monotonic()
        gone = await events.expect(Disconnected)
        assert time.monotonic() - began >= FAST.ping + FAST.ping_patience
        assert gone.code == 1006
        assert "not even the answer to a ping" in gone.cause


async def test_silence_after_answered_pings_is_noticed_too() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        closed = asyncio.create_task(connection.wait_closed())
        await asyncio.wait([closed], timeout=3 * FAST.ping)
        connection.transport.pause_reading()
        await closed

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        began = time.monotonic()
        assert "a ping" in (await events.expect(Disconnected, within=5)).cause
        assert time.monotonic() - began > 3 * FAST.ping + FAST.ping_patience


async def test_anything_that_comes_counts_as_life() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()  # no pong
        for n in range(12):
            await asyncio.sleep(FAST.ping_patience / 3)
            await say(connection, "chat.stream", {"delta": "x"}, id=str(n))

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        for n in range(12):
            assert (await events.expect(Received)).envelope.id == str(n)


async def test_a_quiet_relay_that_answers_pings_is_kept() -> None:
    over = asyncio.Event()

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await asyncio.wait([asyncio.create_task(over.wait())], timeout=1.5)
        await say(connection, "chat.done", {"full_text": ""}, id="still here")

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        assert (await events.expect(Received)).envelope.id == "still here"


async def test_a_reader_that_is_busy_for_long_does_not_lose_its_connection() -> None:
    count = 200

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        for id, data in deltas(count, size=64 * 1024):
            await connection.send(data, text=True)
            sent.append(id)
        await connection.wait_closed()

    sent: list[str] = []
    async with scripted(script) as relay, connected(relay.url) as (_, events):
        busy_until = time.monotonic() + 3 * (FAST.ping + FAST.ping_patience)
        await eventually(lambda: time.monotonic() > busy_until)
        # TCP holds the relay back; nothing piles up here.
        assert len(sent) < count
        got = [(await events.expect(Received)).envelope.id for _ in range(count)]
        assert got == [f"d{n}" for n in range(count)]


async def test_a_ping_that_waits_behind_megabytes_is_no_silence() -> None:
    """A slow line takes a message longer than the ping's patience; it moves, so it lives."""

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        data = await connection.recv()
        await say(connection, "chat.done", {"size": len(data)}, id="taken")
        await connection.wait_closed()

    async with (
        scripted(script, max_size=None) as relay,
        slow_line(relay.port) as port,
        connected(f"ws://127.0.0.1:{port}/ws") as (phone, events),
    ):
        began = time.monotonic()
        phone.post(envelope("file.chunk", {"data": "x" * 5 * MIB}, id="big"), id="big")
        assert (await events.expect(Received)).envelope.id == "taken"
        assert time.monotonic() - began > 2 * (FAST.ping + FAST.ping_patience)


@contextlib.asynccontextmanager
async def slow_line(to: int, *, bytes_each: int = 64 * 1024) -> AsyncIterator[int]:
    """A TCP line that takes about 2 MiB a second, with little room in between; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to)

        async def up() -> None:
            while data := await reader.read(bytes_each):
                back.write(data)
                await back.drain()
                await asyncio.sleep(len(data) / (2 * MIB))

        async def down() -> None:
            while data := await there.read(bytes_each):
                writer.write(data)

        try:
            await asyncio.gather(up(), down())
        finally:
            back.transport.abort()

    async with listening(handle, receive_buffer=bytes_each) as port:
        yield port


# By script: sending


async def test_what_was_not_written_when_the_connection_broke_is_named() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        first = json.loads(await connection.recv())
        assert first["id"] == "first"
        connection.transport.pause_reading()
        await cut.wait()
        connection.transport.abort()

    cut = asyncio.Event()
    timers = dataclasses.replace(FAST, ping=30.0)
    async with scripted(script) as relay, connected(relay.url, timers=timers) as (phone, events):
        phone.post(envelope("chat.send", id="first"), id="first")
        # More than the kernel's buffers take.
        sent = deltas(64, size=MIB)
        for id, data in sent:
            phone.post(data, id=id)
        draining = asyncio.create_task(phone.drain())
        assert await asyncio.wait([draining], timeout=0.3) == (set(), {draining})
        cut.set()
        gone = await events.expect(Disconnected)
        ids = [id for id, _ in sent]
        assert 0 < len(gone.unsent) <= 64
        assert list(gone.unsent) == ids[-len(gone.unsent) :]
        with pytest.raises(NotConnected, match="Send it again"):
            await draining
        with pytest.raises(NotConnected):
            phone.post(b"{}", id="late")
        with pytest.raises(NotConnected):
            await phone.drain()


async def test_nothing_is_named_unsent_that_the_relay_got() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        for _ in range(3):
            await connection.recv()
        await connection.close(1012)

    async with scripted(script) as relay, connected(relay.url) as (phone, events):
        for id, data in deltas(3):
            phone.post(data, id=id)
        assert (await events.expect(Disconnected)).unsent == ()


async def test_posting_before_and_between_connections_is_refused() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.close()

    async with scripted(script) as relay:
        connection = connection_to(relay.url)
        with pytest.raises(NotConnected):
            connection.post(b"{}", id="x")
        async with watching(connection) as events:
            await events.expect(Connecting)
            assert not connection.connected
            with pytest.raises(NotConnected):
                connection.post(b"{}", id="x")
            await events.expect(Connected)
            assert connection.connected
            await events.expect(Disconnected)
            assert not connection.connected


async def test_drain_waits_from_the_high_to_the_low_water_mark() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()
        await go_on.wait()
        connection.transport.resume_reading()
        while True:
            got.append(await connection.recv())

    go_on = asyncio.Event()
    got: list[str | bytes] = []
    timers = dataclasses.replace(FAST, ping=30.0)
    async with (
        scripted(script, max_size=None) as relay,
        connected(relay.url, timers=timers) as (phone, _),
    ):
        small = envelope("chat.stream", id="small")
        phone.post(small, id="small")
        async with asyncio.timeout(SOON):
            await phone.drain()
        sent = deltas(32, size=HIGH_WATER_BYTES)
        for id, data in sent:
            phone.post(data, id=id)
        draining = asyncio.create_task(phone.drain())
        assert await asyncio.wait([draining], timeout=0.2) == (set(), {draining})
        go_on.set()
        async with asyncio.timeout(SOON):
            await draining
        queued = sum(len(data) for id, data in sent if id in phone._live.unsent())  # type: ignore[union-attr]
        assert queued <= LOW_WATER_BYTES
        await eventually(lambda: len(got) == 33)


async def test_the_reader_does_not_wait_for_the_writer() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        connection.transport.pause_reading()
        await posted.wait()
        await say(connection, "chat.done", {"full_text": ""}, id="through")
        await connection.wait_closed()

    posted = asyncio.Event()
    timers = dataclasses.replace(FAST, ping=30.0)
    async with scripted(script) as relay, connected(relay.url, timers=timers) as (phone, events):
        for id, data in deltas(32, size=MIB):
            phone.post(data, id=id)
        posted.set()
        assert (await events.expect(Received)).envelope.id == "through"


# Failures to connect


async def failure(connection: Connection) -> Disconnected:
    async with watching(connection) as events:
        await events.expect(Connecting)
        gone = await events.expect(Disconnected)
        assert gone.code == 1006
        assert await events.next() == Connecting(2)
        return gone


async def test_a_refused_connection_says_so() -> None:
    assert (
        "connection refused"
        in (await failure(connection_to(f"ws://127.0.0.1:{free_port()}/ws"))).cause
    )


async def test_a_name_with_several_addresses_that_refuse_says_so() -> None:
    assert (
        "connection refused"
        in (await failure(connection_to(f"ws://localhost:{free_port()}/ws"))).cause
    )


async def test_an_unknown_name_says_so() -> None:
    assert "DNS" in (await failure(connection_to("ws://relay.invalid/ws"))).cause
    assert "DNS" in (await failure(connection_to(f"ws://{'a' * 70}.invalid/ws"))).cause


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (http.HTTPStatus.FORBIDDEN, "refuses this client"),
        (http.HTTPStatus.NOT_FOUND, "ends in /ws"),
        (http.HTTPStatus.OK, "is no WebSocket"),
        (http.HTTPStatus.BAD_GATEWAY, "does not run"),
    ],
)
async def test_http_instead_of_websocket_says_which_and_what_to_do(
    status: http.HTTPStatus, words: str
) -> None:
    def refuse(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(status, "no\n")

    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        raise AssertionError("never reached")

    async with scripted(script, process_request=refuse) as relay:
        cause = (await failure(connection_to(relay.url))).cause
        assert f"HTTP {status.value}" in cause
        assert words in cause


@pytest.mark.parametrize("same_host", [True, False])
async def test_redirects_are_not_followed(same_host: bool) -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)

    def redirect(connection: ServerConnection, request: Any) -> Any:
        response = connection.respond(http.HTTPStatus.FOUND, "")
        target = "/elsewhere" if same_host else f"http://127.0.0.1:{other.port}/ws?\x1b[2Jx"
        response.headers["Location"] = target.replace("\x1b", "%1b")
        return response

    async with scripted(script) as other, scripted(script, process_request=redirect) as relay:
        cause = (await failure(connection_to(relay.url))).cause
        assert "HTTP 302" in cause
        assert "use it instead" in cause
        if not same_host:
            assert "http://127.0.0.1 " in cause
        assert other.visits == 0


async def test_something_else_than_http_says_so() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()
        writer.close()

    async with listening(handle) as port:
        assert (
            "does not speak WebSocket"
            in (await failure(connection_to(f"ws://127.0.0.1:{port}/ws"))).cause
        )


async def test_a_server_that_hangs_up_at_once_says_so() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with listening(handle) as port:
        assert (
            "closed the connection at once"
            in (await failure(connection_to(f"ws://127.0.0.1:{port}/ws"))).cause
        )


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    timers = dataclasses.replace(FAST, open=0.2)
    async with listening(handle) as port:
        connection = connection_to(f"ws://127.0.0.1:{port}/ws", timers=timers)
        assert "did not answer in time" in (await failure(connection)).cause


async def test_a_message_beyond_every_limit_ends_the_connection_with_a_cause() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        await connection.send("x" * (6 * MIB))
        await connection.wait_closed()

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        gone = await events.expect(Disconnected)
        assert "larger than a message may be" in gone.cause
        await events.expect(Connecting)


async def test_a_message_of_the_full_size_passes() -> None:
    async def script(relay: ScriptedRelay, connection: ServerConnection) -> None:
        await relay.greet(connection)
        frame = envelope("file.chunk", {"data": ""}, id="full")
        await connection.send(
            frame.replace(b'""', b'"' + b"x" * (5 * MIB - len(frame)) + b'"'), text=True
        )
        await connection.wait_closed()

    async with scripted(script) as relay, connected(relay.url) as (_, events):
        assert (await events.expect(Received)).envelope.id == "full"


# TLS


async def greet_and_wait(relay: ScriptedRelay, connection: ServerConnection) -> None:
    await relay.greet(connection)
    await connection.wait_closed()


async def test_a_self_signed_certificate_is_refused_in_words_that_say_what_to_do(
    tmp_path: Path,
) -> None:
    _, context = certificate(tmp_path)
    async with scripted(greet_and_wait, ssl_context=context, host="localhost") as relay:
        cause = (await failure(connection_to(relay.url))).cause
        assert "self-signed" in cause
        assert "SSL_CERT_FILE" in cause
        assert relay.visits == 0


async def test_a_certificate_that_the_context_trusts_is_taken(tmp_path: Path) -> None:
    file, context = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(file))
    async with (
        scripted(greet_and_wait, ssl_context=context, host="localhost") as relay,
        connected(relay.url, ssl=trusting) as (phone, _),
    ):
        assert phone.connected


async def test_a_certificate_that_the_environment_trusts_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sentence of a refusal advises."""
    file, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with (
        scripted(greet_and_wait, ssl_context=context, host="localhost") as relay,
        connected(relay.url) as (phone, _),
    ):
        assert phone.connected


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        ({"valid_from": -2, "valid_to": -1}, "has expired. Check the clock"),
        ({"valid_from": 1, "valid_to": 2}, "not valid yet. Check the clock"),
        ({"name": "other.example.com"}, "another host name"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_told(
    tmp_path: Path, dates: dict[str, Any], words: str
) -> None:
    file, context = certificate(tmp_path, **dates)
    trusting = ssl.create_default_context(cafile=str(file))
    async with scripted(greet_and_wait, ssl_context=context, host="localhost") as relay:
        assert words in (await failure(connection_to(relay.url, ssl=trusting))).cause
        assert relay.visits == 0


@pytest.mark.parametrize("answers", [True, False])
async def test_a_relay_without_tls_behind_a_tls_address_says_so(answers: bool) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answers:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with listening(handle) as port:
        cause = (await failure(connection_to(f"wss://127.0.0.1:{port}/ws"))).cause
        assert "begins with ws://" in cause


# Proxies


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "ws_proxy", "wss_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_the_environments_proxy_is_used_without_tls(no_proxies: pytest.MonkeyPatch) -> None:
    async with scripted(greet_and_wait) as relay, connect_proxy() as proxy:
        no_proxies.setenv("http_proxy", proxy.url)
        async with connected(f"ws://relay.invalid:{relay.port}/ws", proxy=True):
            assert proxy.asked == [f"relay.invalid:{relay.port}"]


async def test_the_environments_proxy_is_used_and_tls_is_verified_through_it(
    no_proxies: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, context = certificate(tmp_path, name="relay.invalid")
    trusting = ssl.create_default_context(cafile=str(file))
    async with (
        scripted(greet_and_wait, ssl_context=context) as relay,
        connect_proxy() as proxy,
    ):
        no_proxies.setenv("https_proxy", proxy.url)
        url = f"wss://relay.invalid:{relay.port}/ws"
        async with connected(url, proxy=True, ssl=trusting):
            assert proxy.asked == [f"relay.invalid:{relay.port}"]
        assert "self-signed" in (await failure(connection_to(url, proxy=True))).cause


async def test_no_proxy_makes_an_exception(no_proxies: pytest.MonkeyPatch) -> None:
    async with scripted(greet_and_wait) as relay, connect_proxy() as proxy:
        no_proxies.setenv("http_proxy", proxy.url)
        no_proxies.setenv("no_proxy", "127.0.0.1")
        async with connected(relay.url, proxy=True):
            assert proxy.asked == []


async def test_a_proxy_given_by_hand_is_used(no_proxies: pytest.MonkeyPatch) -> None:
    async with (
        scripted(greet_and_wait) as relay,
        connect_proxy() as proxy,
        connected(f"ws://relay.invalid:{relay.port}/ws", proxy=proxy.url),
    ):
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (b"407 Proxy Authentication Required", "user name and password"),
        (b"403 Forbidden", "(HTTP 403)"),
    ],
)
async def test_a_proxy_that_refuses_is_named(
    no_proxies: pytest.MonkeyPatch, refusal: bytes, words: str
) -> None:
    async with connect_proxy(refuse_with=refusal) as proxy:
        no_proxies.setenv("http_proxy", proxy.url)
        cause = (await failure(connection_to("ws://relay.invalid/ws", proxy=True))).cause
        assert "proxy" in cause
        assert words in cause


async def test_a_proxy_that_is_not_there_is_named(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("http_proxy", f"http://user:hidden@127.0.0.1:{free_port()}")
    cause = (await failure(connection_to("ws://relay.invalid/ws", proxy=True))).cause
    assert "it may be the proxy" in cause
    assert "hidden" not in cause


async def test_an_address_that_is_no_proxy_is_named_without_its_password(
    no_proxies: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    no_proxies.setenv("http_proxy", "gopher://user:hidden@127.0.0.1:70")
    cause = (await failure(connection_to("ws://relay.invalid/ws", proxy=True))).cause
    assert "Correct https_proxy" in cause
    assert "hidden" not in cause + caplog.text


# The end, asked for at every stage


async def blackhole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def never_answer_auth(relay: ScriptedRelay, connection: ServerConnection) -> None:
    await connection.wait_closed()


async def greet_and_never_read(relay: ScriptedRelay, connection: ServerConnection) -> None:
    await relay.greet(connection)
    connection.transport.pause_reading()
    await connection.wait_closed()


@contextlib.asynccontextmanager
async def stage(name: str) -> AsyncIterator[tuple[str, type[ConnectionEvent]]]:
    """A relay that brings a client to a stage and keeps it there; its URL, and the last
    event before that."""
    async with contextlib.AsyncExitStack() as stack:
        if name == "dialling":
            port = await stack.enter_async_context(listening(blackhole))
            yield f"ws://127.0.0.1:{port}/ws", Connecting
        elif name == "pausing":
            yield f"ws://127.0.0.1:{free_port()}/ws", Disconnected
        else:
            script, event = {
                "logging in": (never_answer_auth, Connecting),
                "reading": (greet_and_wait, Connected),
                "writing": (greet_and_never_read, Connected),
            }[name]
            relay = await stack.enter_async_context(scripted(script))
            yield relay.url, event


STAGES = ["dialling", "logging in", "reading", "writing", "pausing"]
# Nothing runs out by itself while these tests look.
PATIENT = dataclasses.replace(
    FAST, open=60.0, auth=60.0, ping=60.0, first_pause=60.0, longest_pause=60.0
)


class Longest:
    """As random.Random, but never short."""

    def uniform(self, low: float, high: float) -> float:
        return high


async def reach(
    name: str, url: str, last: type[ConnectionEvent]
) -> tuple[Connection, asyncio.Task[None]]:
    """A connection that is at this stage, and the task that iterates its events."""
    connection = connection_to(url, timers=PATIENT, random=Longest())
    reached = asyncio.Event()

    async def iterate() -> None:
        async for event in connection.events():
            if isinstance(event, last):
                reached.set()
                if name == "writing":
                    for id, data in deltas(32, size=MIB):
                        connection.post(data, id=id)

    task = asyncio.create_task(iterate())
    async with asyncio.timeout(SOON):
        await reached.wait()
    # Well into the stage, not at its door.
    await asyncio.wait([task], timeout=0.1)
    return connection, task


def library_tasks() -> set[str]:
    return {t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("coralmux")}


@pytest.mark.parametrize("name", STAGES)
async def test_cancelling_whoever_iterates_ends_everything(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with stage(name) as (url, last):
        connection, task = await reach(name, url, last)
        task.cancel()
        began = time.monotonic()
        await asyncio.wait([task], timeout=SOON)
        assert task.cancelled()
        assert time.monotonic() - began < 1
        assert not connection.connected
        assert library_tasks() == set()
    assert "Traceback" not in caplog.text
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("name", STAGES)
async def test_closing_from_another_task_ends_the_iteration(name: str) -> None:
    async with stage(name) as (url, last):
        connection, task = await reach(name, url, last)
        async with asyncio.timeout(2):
            await connection.close()
            await task
        assert not connection.connected
        assert library_tasks() == set()
        await connection.close()


@pytest.mark.parametrize("name", STAGES)
async def test_a_close_that_is_cancelled_still_ends_everything(name: str) -> None:
    async with stage(name) as (url, last):
        connection, task = await reach(name, url, last)
        closing = asyncio.create_task(connection.close())
        await asyncio.wait([closing], timeout=0.05)
        closing.cancel()
        await asyncio.wait([closing, task], timeout=SOON)
        assert task.done()
        assert not task.cancelled()
        assert task.exception() is None
        assert library_tasks() == set()


async def test_a_login_that_is_cancelled_or_given_up_leaves_no_socket() -> None:
    async with scripted(never_answer_auth) as relay:
        _, task = await reach("logging in", relay.url, Connecting)
        await eventually(lambda: len(relay.connections) == 1)
        task.cancel()
        async with asyncio.timeout(1):
            await relay.connections[0].wait_closed()
        await asyncio.wait([task])
        timers = dataclasses.replace(PATIENT, auth=0.1)
        async with watching(connection_to(relay.url, timers=timers, random=Longest())) as events:
            await events.until(Disconnected)
            async with asyncio.timeout(1):
                await relay.connections[1].wait_closed()


async def test_cancelling_somebody_who_works_on_an_event_ends_everything() -> None:
    async with scripted(greet_and_wait) as relay:
        connection = connection_to(relay.url)
        working = asyncio.Event()

        async def work() -> None:
            async with connection:
                async for event in connection.events():
                    if isinstance(event, Connected):
                        working.set()
                        await asyncio.Event().wait()

        task = asyncio.create_task(work())
        async with asyncio.timeout(SOON):
            await working.wait()
        task.cancel()
        await asyncio.wait([task], timeout=SOON)
        assert task.cancelled()
        assert library_tasks() == set()
        await eventually(lambda: relay.connections[0].close_code == 1000)


async def test_every_moment_of_a_connections_beginning_can_be_cancelled(
    tmp_path: Path,
) -> None:
    """TLS, the handshake, the login: cancelled after each number of turns of the loop."""
    file, context = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(file))
    asyncio.get_running_loop().set_debug(True)
    async with scripted(greet_and_wait, ssl_context=context, host="localhost") as relay:
        finished = False
        turns = 0
        while not finished:
            connection = connection_to(relay.url, ssl=trusting)
            there = asyncio.Event()

            async def iterate(connection: Connection, there: asyncio.Event) -> None:
                async for event in connection.events():
                    if isinstance(event, Connected):
                        there.set()

            task = asyncio.create_task(iterate(connection, there))
            for _ in range(turns):
                # Let the sockets move as well.
                await asyncio.sleep(0.0005)
            finished = there.is_set()
            task.cancel()
            await asyncio.wait([task], timeout=SOON)
            assert task.cancelled()
            assert library_tasks() == set()
            turns += 1


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


async def test_a_closed_connection_stays_closed() -> None:
    connection = connection_to("ws://127.0.0.1:1/ws")
    await connection.close()
    async with contextlib.aclosing(connection.events()) as events:
        await Events(events).ended()


async def test_only_one_may_iterate_at_a_time() -> None:
    async with scripted(greet_and_wait) as relay, connected(relay.url) as (connection, _):
        with pytest.raises(RuntimeError, match="already"):
            await anext(connection.events())
        assert connection.connected


async def test_leaving_the_iteration_hangs_up_and_another_one_dials_again() -> None:
    async with scripted(greet_and_wait) as relay:
        connection = connection_to(relay.url)
        for _ in range(2):
            async with contextlib.aclosing(connection.events()) as events:
                async for event in events:
                    if isinstance(event, Connected):
                        break
            assert not connection.connected
            assert library_tasks() == set()
        await eventually(lambda: [c.close_code for c in relay.connections] == [1000, 1000])
