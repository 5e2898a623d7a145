"""How one connection's end, by a newer one or by revocation, touches the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from tests.support.client import Client, connect, log_in, pair
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import Opcode, frame, narrow_options, raw_connect
from tests.support.stuck import FRAME_BYTES, send_until_held, stream_ids_until_closed

# 4. Replacement


@pytest.mark.parametrize("role", ["phone", "agent"])
async def test_a_replaced_connection_is_closed_at_once_with_4002(
    relay: RelayProcess, role: str
) -> None:
    token = relay.token()
    async with log_in(relay.url, token, role) as old:
        started = time.monotonic()
        async with log_in(relay.url, token, role):
            assert await old.closed() == 4002
            assert time.monotonic() - started < 1
            assert old.connection.close_reason


@pytest.mark.slow
async def test_the_end_of_a_replaced_connection_touches_only_itself(relay: RelayProcess) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "agent") as agent, contextlib.AsyncExitStack() as stack:
        # A client that never answers the close frame, so that its TCP connection ends
        # long after the newcomer has its place.
        old = await stack.enter_async_context(raw_connect(relay.url))
        await old.send(json.dumps({"type": "auth", "payload": {"token": token, "role": "phone"}}))
        await old.read_text()
        new = await stack.enter_async_context(log_in(relay.url, token, "phone"))
        assert await old.close_code() == 4002
        assert [m["payload"]["peer"] for m in await agent.barrier()] == ["online", "online"]
        old.abort()
        # Long enough for the relay to notice: it closes what is left within a second.
        await _talk(new, agent, seconds=1.5)
        assert relay.http("GET", f"/api/v1/pair/{token}") == (200, {"phone": True, "agent": True})


async def _talk(phone: Client, agent: Client, *, seconds: float) -> None:
    """Both hear each other, and nothing else, for so long."""
    until = time.monotonic() + seconds
    while True:
        await agent.send("chat.stream", {"delta": "x", "seq": 1})
        await phone.expect("chat.stream")
        assert await agent.barrier() == []
        if time.monotonic() >= until:
            return
        await asyncio.sleep(0.05)


async def test_frames_not_yet_written_to_a_replaced_connection_are_answered_peer_offline(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with (
        log_in(relay.url, token, "phone", **narrow_options(relay.url)) as stuck,
        log_in(relay.url, token, "agent", max_queue=None) as agent,
    ):
        ids = await send_until_held(relay, agent)
        async with log_in(relay.url, token, "phone", max_queue=None) as new:
            written, answers = await asyncio.gather(stream_ids_until_closed(stuck), agent.barrier())
            assert stuck.connection.close_code == 4002
            errors = [m["payload"] for m in answers if m["type"] == "chat.error"]
            assert {error["code"] for error in errors} == {"PEER_OFFLINE"}
            refused = [error["ref"] for error in errors]
            # First what the old connection was still given, then what nobody got, then
            # what the relay had not looked at when the new one came.
            assert written + refused + [m["id"] for m in await new.barrier()] == ids
            assert len(refused) >= 1024 * 1024 // FRAME_BYTES
            assert [m["payload"] for m in answers if m["type"] == "status"] == [{"peer": "online"}]
            await _talk(new, agent, seconds=0)


@pytest.mark.parametrize("role", ["phone", "agent"])
async def test_more_than_6_replacements_a_minute_send_the_newcomer_away_with_1013(
    relay: RelayProcess, role: str
) -> None:
    token = relay.token()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(log_in(relay.url, token, role))]
        for _ in range(6):
            clients.append(await stack.enter_async_context(log_in(relay.url, token, role)))
            assert await clients[-2].closed() == 4002
        newcomer = await stack.enter_async_context(connect(relay.url))
        await newcomer.send("auth", {"token": token, "role": role})
        assert await newcomer.closed() == 1013
        # The one that was there stays, and the other role has an allowance of its own.
        assert await clients[-1].barrier() == []
        other = "agent" if role == "phone" else "phone"
        peer = await stack.enter_async_context(log_in(relay.url, token, other))
        assert peer.greeting["paired"] is True
        assert len(await clients[-1].barrier()) == 1


async def test_connecting_again_after_leaving_is_no_replacement(relay: RelayProcess) -> None:
    token = relay.token()
    async with log_in(relay.url, token, "agent") as agent:
        for _ in range(10):
            async with log_in(relay.url, token, "phone"):
                assert (await agent.expect("status"))["payload"] == {"peer": "online"}
            assert (await agent.expect("status"))["payload"] == {"peer": "offline"}


# 5. Revocation


async def test_deleting_a_token_closes_both_sides_with_4003_within_a_second(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with pair(relay.url, token) as (phone, agent):
        started = time.monotonic()
        assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204
        assert await asyncio.gather(phone.closed(), agent.closed()) == [4003, 4003]
        assert time.monotonic() - started < 1


@pytest.mark.slow
async def test_revoking_in_another_process_closes_both_sides_with_4003_within_a_second() -> None:
    # The interval at which the relay looks is what is tested, so none is at a tenth.
    with relay_process(fast=False) as relay:
        token = relay.token()
        async with (
            pair(relay.url, token) as (phone, agent),
            pair(relay.url, relay.token()) as other,
        ):
            closed = asyncio.gather(_closed_at(phone), _closed_at(agent))
            done = await asyncio.to_thread(relay.manage, "revoketoken", token)
            returned_at = time.monotonic()
            assert done.returncode == 0, done.stderr
            for code, closed_at in await closed:
                assert code == 4003
                assert closed_at - returned_at < 1
            await _talk(*other, seconds=0)


async def _closed_at(client: Client) -> tuple[int, float]:
    return await client.closed(within=60), time.monotonic()


@pytest.mark.slow
async def test_a_token_that_expires_closes_both_sides_with_4003(relay: RelayProcess) -> None:
    started = time.monotonic()
    async with pair(relay.url, relay.token(expires_in_seconds=2)) as (phone, agent):
        assert await asyncio.gather(phone.closed(), agent.closed()) == [4003, 4003]
        assert time.monotonic() - started >= 1.9


async def test_a_revoked_or_expired_token_lets_nobody_in(relay: RelayProcess) -> None:
    revoked = relay.token()
    relay.http("DELETE", f"/api/v1/pair/{revoked}", admin=True)
    expired = relay.token(expires_in_seconds=1)
    async with log_in(relay.url, expired, "agent") as agent:
        assert await agent.closed() == 4003
    for token in (revoked, expired):
        async with connect(relay.url) as phone:
            id = await phone.send("auth", {"token": token, "role": "phone"})
            failure = (await phone.expect("auth.fail"))["payload"]
            assert failure["code"] == "UNAUTHORIZED"
            assert failure["ref"] == id
            assert await phone.closed() == 4003


async def test_revoking_closes_a_stuck_reader_too(relay: RelayProcess) -> None:
    token = relay.token()
    async with (
        log_in(relay.url, token, "phone", **narrow_options(relay.url)) as stuck,
        log_in(relay.url, token, "agent", max_queue=None) as agent,
    ):
        await send_until_held(relay, agent)
        assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204
        assert await agent.closed() == 4003
        assert await stuck.closed() == 4003


async def test_nothing_of_a_replaced_connection_comes_after_status_online(
    relay: RelayProcess,
) -> None:
    """Not even what it sent, in a flood, before it closed of its own accord."""
    token = relay.token()
    async with log_in(relay.url, token, "phone") as phone, raw_connect(relay.url) as old:
        auth = json.dumps({"type": "auth", "payload": {"token": token, "role": "agent"}})
        await old.send(auth)
        await phone.expect("status")
        flood = [json.dumps({"type": "chat.stream", "id": f"old-{n}"}) for n in range(4900)]
        await old.send_bytes(
            b"".join(frame(Opcode.TEXT, text) for text in flood) + frame(Opcode.CLOSE, b"\x03\xe8")
        )
        async with log_in(relay.url, token, "agent") as new:
            await new.send("chat.stream", id="new-1")
            seen = []
            while (message := await phone.receive())["id"] != "new-1":
                seen.append(message["type"] if message["type"] == "status" else message["id"])
            # Whether the old connection's end comes before the new one or with it,
            # from the last `status` on there is nothing of the old one.
            after = seen[len(seen) - seen[::-1].index("status") :]
            assert after == []
            await asyncio.gather(*(phone.barrier(), new.barrier()))
