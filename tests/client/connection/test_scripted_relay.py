"""What version 1 relays and odd ones say, by script, and what a log tells of it."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from coralmux import __version__
from coralmux.client.connection import (
    Connected,
    Connecting,
    Disconnected,
    Greeting,
    Received,
    Stopped,
)
from tests.client.connection.dialling import (
    FAST,
    TOKEN,
    Longest,
    connected,
    connection_to,
    envelope,
    watching,
)
from tests.client.servers import ScriptedRelay, say, scripted


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
