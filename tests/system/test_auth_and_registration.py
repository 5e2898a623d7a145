"""Getting in, or not: each end has its close frame, and guesses are limited by address."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client import connect, log_in
from tests.support.process import RelayProcess, relay_process
from tests.support.raw import BINARY, CLOSE, frame, raw_connect

TOKEN = re.compile(r"oc_pair_[0-9a-f]{32}")
UNKNOWN = "oc_pair_" + "0" * 32


def auth(token: Any, role: Any, id: str = "a") -> str:
    return json.dumps({"type": "auth", "id": id, "payload": {"token": token, "role": role}})


# 12. Every end has a close frame


async def test_an_unknown_token_gets_auth_fail_and_4001(relay: RelayProcess) -> None:
    async with connect(relay.url) as client:
        await client.send_raw(auth(UNKNOWN, "phone"))
        failure = (await client.expect("auth.fail"))["payload"]
        assert failure["code"] == "UNAUTHORIZED"
        assert failure["message"]
        assert UNKNOWN not in failure["message"]
        assert await client.closed() == 4001


@pytest.mark.parametrize("role", ["", "PHONE", "relay", "both"])
async def test_a_bad_role_gets_auth_fail_and_4001(relay: RelayProcess, role: str) -> None:
    async with connect(relay.url) as client:
        await client.send_raw(auth(relay.token(), role))
        assert (await client.expect("auth.fail"))["payload"]["code"] == "UNAUTHORIZED"
        assert await client.closed() == 4001


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"type":"chat.send","id":"f"}', "UNAUTHORIZED"),
        ('{"type":"ping","id":"f"}', "UNAUTHORIZED"),
        ('{"id":"f","type":"auth","payload":{}}', "INVALID_MESSAGE"),
        ('{"id":"f","type":"auth","payload":{"token":1,"role":"phone"}}', "INVALID_MESSAGE"),
        ('{"id":"f","type":"auth","payload":[]}', "INVALID_MESSAGE"),
        ('{"id":"f","type":7}', "INVALID_MESSAGE"),
        ('{"id":"f","type":"auth"', "INVALID_MESSAGE"),
    ],
)
async def test_any_other_first_message_gets_chat_error_with_ref_and_4001(
    relay: RelayProcess, first: str, code: str
) -> None:
    async with connect(relay.url) as client:
        await client.send_raw(first)
        # Not auth.fail, on which v1 clients give up for good.
        await client.expect_error(code, ref="f")
        assert await client.closed() == 4001


async def test_a_first_message_that_is_not_json_gets_chat_error_and_4001(
    relay: RelayProcess,
) -> None:
    async with connect(relay.url) as client:
        await client.send_raw("hello")
        await client.expect_error("INVALID_MESSAGE", ref=None)
        assert await client.closed() == 4001


async def test_auth_must_come_in_time_or_4004(relay: RelayProcess) -> None:
    started = time.monotonic()
    async with connect(relay.url) as client:
        assert await client.closed() == 4004
        assert 0.9 <= time.monotonic() - started <= 4


async def test_bytes_that_are_no_message_do_not_put_the_auth_deadline_off(
    relay: RelayProcess,
) -> None:
    async with raw_connect(relay.url) as client:
        started = time.monotonic()
        # A frame of which the end never comes.
        await client.send_bytes(frame(BINARY, auth(relay.token(), "phone"))[:-1])
        assert await client.close_code() == 4004
        assert time.monotonic() - started <= 4


async def test_a_client_that_closes_normally_gets_1000_back(relay: RelayProcess) -> None:
    async with log_in(relay.url, relay.token(), "phone") as phone:
        await phone.connection.close(1000)
        assert phone.connection.close_code == 1000
        assert phone.connection.protocol.close_rcvd is not None
        assert phone.connection.protocol.close_rcvd.code == 1000


async def test_a_close_frame_without_a_code_is_answered_with_1000(relay: RelayProcess) -> None:
    async with raw_connect(relay.url) as client:
        await client.send_bytes(frame(CLOSE))
        assert await client.close_code() == 1000


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("logged_in", [True, False])
async def test_who_sends_invalid_utf8_is_closed_with_1007(
    relay: RelayProcess, logged_in: bool, text: bool
) -> None:
    broken = b'{"type":"chat.send","payload":{"text":"\xc3\x28"}}'
    token = relay.token()
    async with log_in(relay.url, token, "agent") as agent, connect(relay.url) as phone:
        if logged_in:
            await phone.send_raw(auth(token, "phone"))
            await phone.expect("auth.ok")
            await agent.expect("status")
        await phone.connection.send(broken, text=text)
        assert await phone.closed() == 1007
        if logged_in:
            assert (await agent.expect("status"))["payload"] == {"peer": "offline"}
        # It was not passed on, so the receiver lives.
        assert await agent.barrier() == []


@pytest.mark.slow
async def test_connections_over_the_caps_are_accepted_and_closed_with_1013() -> None:
    # A refusal of the handshake would reach browsers as 1006 without a reason.
    for cap in ("CORALMUX_MAX_CONNECTIONS", "CORALMUX_MAX_CONNECTIONS_PER_ADDRESS"):
        with relay_process(env={cap: "2"}) as relay:
            async with (
                log_in(relay.url, relay.token(), "phone") as one,
                log_in(relay.url, relay.token(), "phone") as two,
            ):
                async with connect(relay.url) as third:
                    assert await third.closed() == 1013
                    assert third.connection.close_reason
                assert await one.barrier() == await two.barrier() == []
                await two.close()
                async with log_in(relay.url, relay.token(), "phone"):
                    pass


# 11. Guessing


@pytest.mark.slow
async def test_too_many_failed_attempts_of_an_address_get_4029_and_a_valid_token_gets_in() -> None:
    with relay_process(env={"CORALMUX_FAILED_ATTEMPTS_PER_HOUR": "3"}) as relay:
        token = relay.token()
        for _ in range(5):
            async with log_in(relay.url, token, "phone"):
                pass  # successes are not counted
        for _ in range(3):
            async with connect(relay.url) as client:
                await client.send_raw(auth(UNKNOWN, "phone"))
                await client.expect("auth.fail")
                assert await client.closed() == 4001
        async with connect(relay.url) as client:
            await client.send_raw(auth(UNKNOWN, "phone"))
            # Not auth.fail: the token may be good, for all that the address is told.
            error = await client.expect_error("RATE_LIMITED", ref="a")
            assert 0 < error["retry_after_ms"] <= 3_600_000
            assert await client.closed() == 4029
        assert relay.http("GET", f"/api/v1/pair/{UNKNOWN}")[0] == 429
        async with log_in(relay.url, token, "phone"):
            assert relay.http("GET", f"/api/v1/pair/{token}") == (
                200,
                {"phone": True, "agent": False},
            )
        assert relay.http("POST", "/api/v1/pair", admin=True)[0] == 201


async def test_the_status_endpoint_answers_404_for_what_is_no_token(relay: RelayProcess) -> None:
    revoked = relay.token()
    relay.http("DELETE", f"/api/v1/pair/{revoked}", admin=True)
    for name in (UNKNOWN, revoked, "x", "oc_pair_"):
        status, body = relay.http("GET", f"/api/v1/pair/{name}")
        assert status == 404
        assert body["error"]["code"] == "NOT_FOUND"
        assert name not in body["error"]["message"]


@pytest.mark.slow
async def test_failed_guesses_at_the_status_endpoint_are_limited_by_address() -> None:
    env = {
        "CORALMUX_FAILED_ATTEMPTS_PER_HOUR": "3",
        "CORALMUX_TRUSTED_PROXIES": "127.0.0.1",
    }
    with relay_process(env=env) as relay:
        token = relay.token()

        def guess(address: str, name: str = UNKNOWN) -> int:
            path = f"/api/v1/pair/{name}"
            return relay.http("GET", path, headers={"X-Forwarded-For": address})[0]

        assert [guess("192.0.2.1") for _ in range(5)] == [404, 404, 404, 429, 429]
        assert guess("192.0.2.1", token) == 200
        assert guess("192.0.2.2") == 404


# 10. Registration


@pytest.fixture(scope="module")
def public() -> Iterator[RelayProcess]:
    with relay_process(
        env={"CORALMUX_PUBLIC": "1", "CORALMUX_TRUSTED_PROXIES": "127.0.0.1,2001:db8:1::/48"}
    ) as relay:
        yield relay


def register(relay: RelayProcess, address: str = "") -> int:
    headers = {"X-Forwarded-For": address} if address else {}
    status, body = relay.http("POST", "/api/v1/register", headers=headers)
    if status == 201:
        assert TOKEN.fullmatch(body["token"])
    else:
        assert body["error"]["code"] == "RATE_LIMITED"
    return status


SIX = [201, 201, 201, 201, 201, 429]


@pytest.mark.slow
async def test_registration_allows_5_an_hour_for_each_client_address(public: RelayProcess) -> None:
    # Each request comes from another port.
    assert [register(public, "192.0.2.1") for _ in range(6)] == SIX
    assert [register(public, "192.0.2.2") for _ in range(6)] == SIX


async def test_an_ipv4_mapped_address_counts_as_the_ipv4_one(public: RelayProcess) -> None:
    forms = ["192.0.2.10", "::ffff:192.0.2.10", "[::ffff:192.0.2.10]:99", "::FFFF:c000:20a"]
    assert [register(public, forms[n % 4]) for n in range(6)] == SIX


async def test_ipv6_addresses_count_by_their_64(public: RelayProcess) -> None:
    assert [register(public, f"2001:db8:0:1::{n}") for n in range(6)] == SIX
    assert register(public, "2001:db8:0:2::1") == 201


async def test_a_forwarded_header_counts_only_as_far_as_proxies_wrote_it(
    public: RelayProcess,
) -> None:
    # What a client wrote itself stands on the left, and is not believed.
    assert [register(public, f"198.51.100.{n}, 192.0.2.20") for n in range(6)] == SIX
    assert [register(public, f"192.0.2.30, 2001:db8:1::{n}") for n in range(6)] == SIX


@pytest.mark.slow
async def test_without_configured_proxies_no_forwarded_header_is_believed() -> None:
    with relay_process(env={"CORALMUX_PUBLIC": "1"}) as relay:
        assert [register(relay, f"192.0.2.{n}") for n in range(6)] == SIX


async def test_a_self_registered_token_lets_both_sides_in(public: RelayProcess) -> None:
    status, body = public.http(
        "POST", "/api/v1/register", headers={"X-Forwarded-For": "192.0.2.99"}
    )
    assert status == 201
    async with (
        log_in(public.url, body["token"], "phone") as phone,
        log_in(public.url, body["token"], "agent") as agent,
    ):
        await phone.expect("status")
        await phone.send("chat.send")
        await agent.expect("chat.send")


async def test_registration_is_closed_by_default_and_names_the_switch(
    relay: RelayProcess,
) -> None:
    status, body = relay.http("POST", "/api/v1/register")
    assert status == 403
    assert body["error"]["code"] == "REGISTRATION_CLOSED"
    assert "-public" in body["error"]["message"]


# The HTTP contract


async def test_creating_a_pairing_takes_the_admin_key(relay: RelayProcess) -> None:
    status, body = relay.http("POST", "/api/v1/pair", admin=True)
    assert status == 201
    assert list(body) == ["token"]
    assert TOKEN.fullmatch(body["token"])
    assert relay.http("POST", "/api/v1/pair")[0] == 401
    wrong = relay.http("POST", "/api/v1/pair", headers={"X-Admin-Key": "wrong"})
    assert wrong[0] == 401
    assert wrong[1]["error"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/pair"),
        ("PUT", "/api/v1/pair"),
        ("DELETE", "/api/v1/pair"),
        ("POST", "/api/v1/pair/x"),
        ("GET", "/api/v1/register"),
        ("POST", "/health"),
    ],
)
async def test_other_methods_are_answered_405(relay: RelayProcess, method: str, path: str) -> None:
    status, headers, body = relay.http_full(method, path, admin=True)
    assert status == 405
    assert headers["Allow"]
    assert body["error"]["code"] == "METHOD_NOT_ALLOWED"


async def test_deleting_a_pairing_takes_the_admin_key_and_works_once(relay: RelayProcess) -> None:
    token = relay.token()
    assert relay.http("DELETE", f"/api/v1/pair/{token}")[0] == 401
    assert relay.http("GET", f"/api/v1/pair/{token}")[0] == 200
    assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True) == (204, "")
    assert relay.http("GET", f"/api/v1/pair/{token}")[0] == 404
    assert relay.http("DELETE", f"/api/v1/pair/{UNKNOWN}", admin=True)[0] == 404


@pytest.mark.slow
async def test_health_counts_connections_and_sessions() -> None:
    with relay_process() as relay:
        token = relay.token()
        async with contextlib.AsyncExitStack() as stack:
            expected = [(0, 0), (1, 0), (2, 1)]
            for role, (connections, sessions) in zip(("", "phone", "agent"), expected, strict=True):
                if role:
                    await stack.enter_async_context(log_in(relay.url, token, role))
                status, body = relay.http("GET", "/health")
                assert status == 200
                assert body["status"] == "ok"
                assert (body["connections"], body["sessions"]) == (connections, sessions)
                assert isinstance(body["uptime_sec"], int)
