"""The process's own end, its start where the port is taken, and what must never end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from tests.support.client import Client, connect, log_in, pair
from tests.support.process import FAST, RelayProcess, relay_process
from tests.support.raw import CLOSE, TEXT, frame, narrow_options, raw_connect
from tests.support.stuck import send_until_held, stream_ids_until_closed
from tests.support.waiting import eventually

# Each test starts a relay of its own, or several.
pytestmark = pytest.mark.slow

# 14. SIGTERM


async def test_sigterm_closes_everybody_with_1012_and_exits_0() -> None:
    with relay_process() as relay:
        async with (
            pair(relay.url, relay.token()) as (phone, agent),
            connect(relay.url) as unknown,
        ):
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            codes = await asyncio.gather(phone.closed(), agent.closed(), unknown.closed())
            assert codes == [1012, 1012, 1012]
            assert phone.connection.close_reason
            assert await terminated == 0


async def test_sigterm_drains_what_is_buffered_before_1012() -> None:
    with relay_process() as relay:
        token = relay.token()
        async with (
            log_in(relay.url, token, "phone", **narrow_options(relay.url)) as phone,
            log_in(relay.url, token, "agent", max_queue=None) as agent,
        ):
            ids = await send_until_held(relay, agent)
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            await eventually(lambda: "draining" in relay.output)
            written = await stream_ids_until_closed(phone)
            assert phone.connection.close_code == 1012
            # The very last ones may not have been read when the signal came; their sender
            # knows by its connection's end.
            assert written == ids[: len(written)]
            assert len(written) >= len(ids) - 4
            assert await agent.closed() == 1012
            assert await terminated == 0


async def test_sigterm_stops_accepting_while_it_drains() -> None:
    with relay_process(env={"CORALMUX_DRAIN_TIMEOUT_SECONDS": "6"}) as relay:
        token = relay.token()
        async with (
            log_in(relay.url, token, "phone", **narrow_options(relay.url)),
            log_in(relay.url, token, "agent", max_queue=None) as agent,
        ):
            await send_until_held(relay, agent)
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            await eventually(lambda: "draining" in relay.output)
            await eventually(lambda: _refuses_connections(relay))
            assert relay.process.poll() is None
            assert await terminated == 0


async def test_sigterm_waits_for_a_request_that_is_being_answered() -> None:
    """The one answer that holds the new token is not lost."""
    with relay_process() as relay:
        with contextlib.closing(
            sqlite3.connect(relay.state_dir / "coralmux.sqlite3", isolation_level=None)
        ) as database:
            database.execute("BEGIN IMMEDIATE")
            asked = asyncio.create_task(
                asyncio.to_thread(relay.http, "POST", "/api/v1/pair", admin=True)
            )
            await asyncio.sleep(0.5)
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            await eventually(lambda: "draining" in relay.output)
            await asyncio.sleep(0.5)
            database.execute("COMMIT")
        status, body = await asked
        assert status == 201
        assert body["token"].startswith("oc_pair_")
        assert await terminated == 0


def _refuses_connections(relay: RelayProcess) -> bool:
    try:
        socket.create_connection(("127.0.0.1", relay.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_with_a_stuck_reader_attached_sigterm_ends_within_10_seconds() -> None:
    with relay_process(fast=False) as relay:
        token = relay.token()
        async with (
            log_in(relay.url, token, "phone", **narrow_options(relay.url)),
            log_in(relay.url, token, "agent", max_queue=None) as agent,
            pair(relay.url, relay.token()) as (alice, bob),
        ):
            await send_until_held(relay, agent)
            started = time.monotonic()
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            codes = await asyncio.gather(alice.closed(), bob.closed(), agent.closed())
            assert codes == [1012, 1012, 1012]
            assert await terminated == 0
            assert time.monotonic() - started <= 10, relay.output


async def test_after_a_restart_the_same_token_meets_again() -> None:
    with relay_process() as relay:
        token = relay.token()
        async with pair(relay.url, token) as (phone, _):
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            assert await phone.closed() == 1012
            assert await terminated == 0
        relay.start()
        async with pair(relay.url, token) as (phone, agent):
            await phone.send("chat.send")
            await agent.expect("chat.send")


# 15. The port is taken


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_with_the_port_taken_it_exits_1_with_exactly_one_clear_line(
    relay: RelayProcess, host: str
) -> None:
    started = time.monotonic()
    second = subprocess.run(
        [sys.executable, "-m", "coralmux_site.cli", "-addr", f"{host}:{relay.port}"],
        env={
            **relay.env,
            "CORALMUX_STATE_DIR": str(relay.directory / "other"),
            "PYTHONPATH": ":".join(sys.path),
        },
        cwd=relay.directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert time.monotonic() - started < 20
    assert second.returncode == 1
    assert second.stdout == ""
    (line,) = second.stderr.splitlines()
    assert f"{host or '*'}:{relay.port}" in line
    assert "another program listens there" in line
    # The first one did not notice.
    assert relay.http("GET", "/health")[0] == 200


# 8. No input ends the process or disturbs another pair


def auth(token: str, role: str = "phone") -> str:
    return json.dumps({"type": "auth", "id": "a", "payload": {"token": token, "role": role}})


_CHAT = '{"type":"chat.send","id":"c"}'
_CLOSE = frame(CLOSE, b"\x03\xe8")


def wrong_moments(token: str) -> list[bytes]:
    """Two frames and more in one segment, where only one was expected."""
    login = frame(TEXT, auth(token))
    chat = frame(TEXT, _CHAT)
    return [
        login + login,
        login + frame(TEXT, auth(token, "agent")),
        login + _CLOSE,
        login + chat + _CLOSE,
        login + _CLOSE + chat,
        login + _CLOSE + _CLOSE,
        chat + login,
        chat + chat,
        _CLOSE + login,
        _CLOSE + _CLOSE,
        login + frame(TEXT, b"\xff") + chat,
        login + b"\xff\xff" + chat,
        frame(TEXT, auth("oc_pair_unknown")) + login,
        frame(TEXT, auth(token)[:9], fin=False) + login,
    ]


async def test_two_frames_at_the_wrong_moment_disturb_nobody_else(relay: RelayProcess) -> None:
    pid, before = relay.process.pid, relay.output.count("Traceback")
    async with pair(relay.url, relay.token(phone_messages_per_minute=0)) as (alice, bob):
        talking = asyncio.create_task(_talk(alice, bob))
        token = relay.token()
        await asyncio.gather(
            *(
                _provoke(relay, data, reset=reset)
                for data in wrong_moments(token) * 3
                for reset in (False, True)
            )
        )
        assert not talking.done(), talking
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
        await alice.barrier()
        assert await bob.barrier() is not None
    assert relay.process.poll() is None
    assert relay.process.pid == pid
    assert relay.output.count("Traceback") == before
    async with log_in(relay.url, relay.token(), "phone"):
        pass


async def _provoke(relay: RelayProcess, data: bytes, *, reset: bool) -> None:
    async with raw_connect(relay.url) as client:
        with contextlib.suppress(ConnectionError):
            await client.send_bytes(data)
            if reset:
                client.abort()
            else:
                # Whatever it was, it has an end with a close frame.
                assert await client.close_code() in (1000, 1002, 1007, 1013, 4001, 4002, 4004, 4008)


async def _talk(alice: Client, bob: Client) -> None:
    while True:
        id = await alice.send("chat.send")
        assert (await bob.expect("chat.send", within=2))["id"] == id
        id = await bob.send("chat.stream")
        assert (await alice.expect("chat.stream", within=2))["id"] == id


# 1011: a fault of ours, put in here because there should be none

_FAULT = """
import sys
from coralmux_site import cli
from coralmux.protocol import envelope
right = envelope.decode
def decode(data):
    if b"fault" in bytes(data):
        raise RuntimeError("made for a test")
    return right(data)
envelope.decode = decode
cli.main(sys.argv[1:])
"""


async def test_a_fault_of_the_relay_ends_one_connection_with_1011_and_no_other() -> None:
    command = [sys.executable, "-c", _FAULT, "-addr", "127.0.0.1:{port}"]
    with relay_process(command=command) as relay:
        token = relay.token()
        async with pair(relay.url, token) as (phone, agent):
            await phone.send("chat.send", id="fault")
            assert await phone.closed() == 1011
            assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
            async with log_in(relay.url, token, "phone") as again:
                await again.send("chat.send")
                await agent.expect("status")
                await agent.expect("chat.send")


# Under plain daphne, too


async def test_under_plain_daphne_the_access_log_holds_no_token() -> None:
    command = [
        *(sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", "{port}"),
        *("--websocket-max-message-size", "5242880", "--websocket-max-frame-size", "5242880"),
        "coralmux_site.asgi:application",
    ]
    with relay_process(command=_if_known(command)) as relay:
        assert relay.manage("migrate").returncode == 0
        token = relay.token()
        for path in (f"/api/v1/pair/{token}", f"/api/v1/pair/{token}?x={token}", f"/x/{token}"):
            relay.http("GET", path)
            relay.http("POST", path)
        assert relay.http("GET", f"/api/v1/pair/{token}")[0] == 200
        async with pair(relay.url, token) as (phone, agent):
            await phone.send("chat.send")
            await agent.expect("chat.send")
            await phone.send_raw(token)
            await phone.expect_error("INVALID_MESSAGE")
        assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204
        relay.stop()
        # The access log is there, and relay_process searches it for the token.
        assert '"GET /api/v1/pair/…"' in relay.output or "/api/v1/pair/oc_pair_…" in relay.output


def _if_known(command: list[str]) -> list[str]:
    """The command without the options that the installed daphne does not have."""
    known = subprocess.run(
        [*command[:3], "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    if "--websocket-max-message-size" in known:
        return command
    return [*command[:7], command[-1]]


async def test_no_output_of_the_relay_holds_a_token(relay: RelayProcess) -> None:
    token = relay.token()
    for method in ("GET", "POST", "PUT", "DELETE"):
        relay.http(method, f"/api/v1/pair/{token}")
        relay.http(method, f"/api/v1/pair/{token}/more?token={token}")
        relay.http(method, f"/nowhere/{token}")
    async with log_in(relay.url, token, "phone") as phone:
        await phone.send_raw(token)
        await phone.send(token, {"token": token}, id=token)
        await phone.barrier()
    relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)
    async with connect(relay.url) as late:
        await late.send_raw(auth(token))
        assert await late.closed() == 4003
    relay.check_output()


async def test_the_log_tells_each_connections_end() -> None:
    with relay_process(env={**FAST, "CORALMUX_LOG_FORMAT": "json"}) as relay:
        async with pair(relay.url, relay.token()) as (phone, agent):
            await phone.send("chat.send")
            size = len(await agent.receive_raw())
            await phone.close()
            await agent.expect("status")
        await eventually(lambda: relay.output.count("connection ended") == 2)
        lines = [json.loads(line) for line in relay.output.splitlines() if line.startswith("{")]
        ends = {line["role"]: line for line in lines if line["event"] == "connection ended"}
        assert ends["phone"]["code"] == 1000
        assert ends["phone"]["bytes_in"] == ends["agent"]["bytes_out"] == size
        assert ends["phone"]["token_id"] == ends["agent"]["token_id"]
        assert ends["phone"]["seconds"] >= 0
        assert ends["phone"]["reason"]
