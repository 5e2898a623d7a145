"""How the backend `openclaw` introduces itself, and what it makes of being refused."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coralmux import BackendError
from coralmux.bridge import Finding, Place
from coralmux.bridge.backends import make
from coralmux.bridge.openclaw import gateway as gateway_module
from coralmux.bridge.openclaw import trouble
from coralmux.bridge.openclaw.device import Device, DeviceError
from tests.bridge.doubles.openclaw_gateway import TOKEN, OpenclawGateway
from tests.bridge.openclaw import Asking, backend_at, met
from tests.support.process import free_port


async def answered(gateway: OpenclawGateway, asking: Asking) -> None:
    """The question comes through, and its answer back."""
    asked = await gateway.next_question()
    await asked.whole("Yes")
    assert await asking.end() == "Yes"


def refusal(code: str, **details: Any) -> dict[str, Any]:
    return {
        "code": "INVALID_REQUEST",
        "message": f"no, not with {TOKEN}",
        "details": {"code": code} | details,
    }


async def findings(gateway: OpenclawGateway, directory: Path, **settings: Any) -> list[Finding]:
    given = {"base_url": gateway.url, "token": TOKEN} | settings
    return [found async for found in make("openclaw", given, Place(directory)).check()]


async def test_the_handshake_is_as_the_gateway_wants_it(tmp_path: Path) -> None:
    """The double checks every field and the signature, and its faults fail the test."""
    async with met(tmp_path) as (gateway, backend):
        await answered(gateway, Asking(backend))
        (handshake,) = gateway.handshakes
        assert handshake["auth"] == {"token": TOKEN}
        assert (handshake["minProtocol"], handshake["maxProtocol"]) == (4, 4)
        kept = tmp_path / "backend" / "device.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_the_platform_is_signed_in_lower_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "sys", SimpleNamespace(platform="Win32"))
    async with met(tmp_path) as (gateway, backend):
        await answered(gateway, Asking(backend))
        assert gateway.handshakes[0]["client"]["platform"] == "Win32"


async def test_a_gateway_on_this_machine_is_reached_by_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with met(tmp_path) as (gateway, backend):
        await answered(gateway, Asking(backend))


async def test_the_device_stays_the_same(tmp_path: Path) -> None:
    async with OpenclawGateway().serving() as gateway:
        for _ in range(2):
            async with backend_at(gateway.url, tmp_path) as backend:
                await answered(gateway, Asking(backend))
        first, second = (handshake["device"] for handshake in gateway.handshakes)
        assert first["id"] == second["id"]
        assert first["nonce"] != second["nonce"]


async def test_the_devices_own_token_is_kept_and_used(tmp_path: Path) -> None:
    async with OpenclawGateway(device_token="of-the-device").serving() as gateway:
        for _ in range(2):
            async with backend_at(gateway.url, tmp_path) as backend:
                await answered(gateway, Asking(backend))
        tokens = [handshake["auth"]["token"] for handshake in gateway.handshakes]
        assert tokens == [TOKEN, "of-the-device"]


async def test_a_rotated_token_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    async with OpenclawGateway(device_token="first").serving() as gateway:
        async with backend_at(gateway.url, tmp_path) as backend:
            await answered(gateway, Asking(backend))
        gateway.device_token = "second"
        # The first is refused and dropped; the gateway's own brings the second.
        for _ in range(2):
            async with backend_at(gateway.url, tmp_path) as backend:
                await answered(gateway, Asking(backend))
        tokens = [handshake["auth"]["token"] for handshake in gateway.handshakes]
        assert tokens == [TOKEN, "first", TOKEN, "second"]


async def test_no_other_gateway_sees_the_devices_token(tmp_path: Path) -> None:
    async with (
        OpenclawGateway(device_token="of-the-first").serving() as first,
        OpenclawGateway().serving() as second,
    ):
        for gateway in (first, second):
            async with backend_at(gateway.url, tmp_path) as backend:
                await answered(gateway, Asking(backend))
        assert second.handshakes[0]["auth"] == {"token": TOKEN}


async def test_a_password_does_as_well(tmp_path: Path) -> None:
    gateway = OpenclawGateway()
    gateway.password = "open sesame"
    async with (
        gateway.serving(),
        backend_at(gateway.url, tmp_path, token="", password="open sesame") as backend,
    ):
        await answered(gateway, Asking(backend))
        assert gateway.handshakes[0]["auth"] == {"password": "open sesame"}


async def test_an_unapproved_bridge_names_the_line_to_type_and_goes_on_trying(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    line = "openclaw devices approve 1f2e-3d"
    gateway = OpenclawGateway()
    gateway.refusal = refusal("PAIRING_REQUIRED", requestId="1f2e-3d", reason="not-paired")
    async with gateway.serving(), backend_at(gateway.url, tmp_path, said) as backend:
        for id in "12":
            assert (await Asking(backend, id=id).failure()).endswith(line)
        assert len([text for text in said if text.endswith(line)]) == 1
        gateway.refusal = None
        await answered(gateway, Asking(backend, id="3"))
        assert said[-1] == f"The OpenClaw gateway at {gateway.url} is there."


async def test_an_approved_bridge_is_taken_without_being_asked_again(tmp_path: Path) -> None:
    gateway = OpenclawGateway()
    gateway.refusal = refusal("PAIRING_REQUIRED", requestId="one")
    async with gateway.serving(), backend_at(gateway.url, tmp_path) as backend:
        await Asking(backend).failure()
        gateway.refusal = None
        await gateway.connected()


async def test_a_line_to_type_holds_nothing_that_the_gateway_made_up(tmp_path: Path) -> None:
    gateway = OpenclawGateway()
    gateway.refusal = refusal("PAIRING_REQUIRED", requestId="x; rm -rf ~")
    async with gateway.serving(), backend_at(gateway.url, tmp_path) as backend:
        told = await Asking(backend).failure()
        assert "rm -rf" not in told
        assert "openclaw devices list" in told


@pytest.mark.parametrize(
    ("code", "what", "remedy"),
    [
        ("AUTH_TOKEN_MISMATCH", "does not take the token", "openclaw gateway auth-token"),
        ("AUTH_TOKEN_MISSING", "wants its token", "openclaw gateway auth-token"),
        ("AUTH_PASSWORD_MISMATCH", "does not take the password", "gateway.auth.password"),
        ("AUTH_PASSWORD_MISSING", "wants a password", "gateway.auth.password"),
        ("AUTH_TOKEN_NOT_CONFIGURED", "has no token of its own", "openclaw configure"),
        ("AUTH_SCOPE_MISMATCH", "is not enough to chat", "openclaw devices list"),
        ("AUTH_RATE_LIMITED", "lets nobody in for 60 s", "Correct the token"),
        ("PROTOCOL_MISMATCH", "does not speak version 4", "up to date"),
        ("DEVICE_AUTH_SIGNATURE_EXPIRED", "came too late", "Compare the clocks"),
        ("DEVICE_AUTH_SIGNATURE_INVALID", "does not take this bridge's device key", "up to date"),
        ("PAIRING_REQUIRED", "has to approve this bridge first", "openclaw devices list"),
        ("SOMETHING_NEW", "does not take the connection: no, not with ….", "openclaw logs"),
    ],
)
async def test_a_refusal_is_told_in_plain_words(
    tmp_path: Path, code: str, what: str, remedy: str
) -> None:
    gateway = OpenclawGateway()
    gateway.refusal = refusal(code)
    async with gateway.serving():
        (found,) = await findings(gateway, tmp_path)
    assert not found.good
    assert what in found.text
    assert remedy in found.remedy
    assert TOKEN not in found.text + found.remedy


async def test_a_gateway_that_lets_nobody_in_is_left_alone_for_that_time(tmp_path: Path) -> None:
    gateway = OpenclawGateway()
    gateway.refusal = refusal("AUTH_RATE_LIMITED", retryAfterMs=60_000)
    async with gateway.serving(), backend_at(gateway.url, tmp_path) as backend:
        for id in "123":
            assert "lets nobody in for 60 s" in await Asking(backend, id=id).failure()
        assert len(gateway.handshakes) == 1


async def test_a_wrong_token_is_not_tried_with_every_question(tmp_path: Path) -> None:
    """Many wrong attempts would lock out others as well."""
    async with (
        OpenclawGateway().serving() as gateway,
        backend_at(gateway.url, tmp_path, token="wrong") as backend,
    ):
        for id in "123456":
            assert "does not take the token" in await Asking(backend, id=id).failure()
        assert len(gateway.handshakes) == 1


async def test_a_token_that_was_refused_is_tried_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_WRONG_TOKEN_SECONDS", 0.2)
    async with (
        OpenclawGateway().serving() as gateway,
        backend_at(gateway.url, tmp_path, token="new") as backend,
    ):
        await Asking(backend).failure()
        gateway.token = "new"
        await gateway.connected()
        await answered(gateway, Asking(backend))


async def test_a_gateway_of_another_version_is_told(tmp_path: Path) -> None:
    async with OpenclawGateway(protocol=5).serving() as gateway:
        (found,) = await findings(gateway, tmp_path)
    assert "does not speak version 4" in found.text


async def test_a_check_names_what_is_good(tmp_path: Path) -> None:
    gateway = OpenclawGateway()

    async def agents(params: dict[str, Any]) -> dict[str, Any]:
        return {"defaultId": "main", "agents": [{"id": "main"}, {"id": "work"}]}

    gateway.answers["agents.list"] = agents
    async with gateway.serving():
        found = await findings(gateway, tmp_path)
        assert [each.good for each in found] == [True, True]
        assert "OpenClaw 2026.9.6, protocol 4" in found[0].text
        *_, found_agent = await findings(gateway, tmp_path, agent="play")
    assert not found_agent.good
    assert found_agent.remedy == "Set agent in [openclaw] to one of: main, work."


async def test_a_check_names_clocks_that_differ(tmp_path: Path) -> None:
    async with OpenclawGateway(clock_ahead=600).serving() as gateway:
        gateway.answers["agents.list"] = lambda params: _agents()
        found = (await findings(gateway, tmp_path))[-1]
    assert "differ by 10 min" in found.text


async def _agents() -> dict[str, Any]:
    return {"agents": [{"id": "main"}]}


@pytest.mark.parametrize(
    ("base_url", "told"),
    [
        ("ws://127.0.0.1:{port}", "No OpenClaw gateway can be reached at ws://127.0.0.1:{port}."),
        ("ws://user:pass@127.0.0.1:{port}", "reached at ws://127.0.0.1:{port}."),
        ("http://127.0.0.1:{port}", "No OpenClaw gateway can be reached at ws://127.0.0.1:{port}."),
        ("127.0.0.1:{port}", "cannot be read"),
        ("wss://[", "cannot be read"),
    ],
)
async def test_where_no_gateway_is_the_check_says_so(
    tmp_path: Path, base_url: str, told: str
) -> None:
    port = free_port()
    url = base_url.format(port=port)
    said: list[str] = []
    backend = make("openclaw", {"base_url": url}, Place(tmp_path, say=said.append))
    (found,) = [found async for found in backend.check()]
    assert said == []
    assert not found.good
    assert told.format(port=port) in found.text
    assert os.listdir(tmp_path) == []  # it needs no key as yet
    assert "pass" not in found.text


async def test_what_is_no_gateway_is_told_as_that(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        async with backend_at(url, tmp_path) as backend:
            asking = Asking(backend)

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

            await asyncio.to_thread(answer)
            assert "is no OpenClaw gateway (HTTP 404)" in await asking.failure()


async def test_a_gateway_that_never_answers_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "_HANDSHAKE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        async with backend_at(url, tmp_path) as backend:
            assert "does not answer" in await Asking(backend).failure()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"private_key": "short"}', b'{"private_key": "*"}']
)
def test_a_damaged_device_is_named_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "device.json"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"device\.json is damaged\. Delete it"):
        Device.load(tmp_path)
    assert path.read_bytes() == content


async def test_a_device_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "backend").write_text("a file where the directory should be")
    async with met(tmp_path) as (_, backend):
        assert "device.json cannot be used" in await Asking(backend).failure()


async def test_nothing_secret_stands_in_logs_and_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    gateway = OpenclawGateway(device_token="of-the-device")
    async with gateway.serving():
        async with backend_at(gateway.url, tmp_path, said) as backend:
            await answered(gateway, Asking(backend, "something private"))
            assert TOKEN not in repr(backend.settings)
        gateway.refusal = {"code": "NOPE", "message": "of-the-device and the-gateway-token"}
        async with backend_at(gateway.url, tmp_path, said) as backend:
            said.append(await Asking(backend).failure())
    private = json.loads((tmp_path / "device.json").read_text())["private_key"]
    # What the double itself logs is not ours.
    ours = [record.getMessage() for record in caplog.records if "server" not in record.name]
    for secret in (TOKEN, "of-the-device", "something private", private):
        assert secret not in "".join(said + ours)


async def test_no_question_waits_after_the_end(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        await gateway.next_question()
        await backend.stop()
        assert "The bridge is leaving." in await asking.failure()
        with pytest.raises(BackendError):
            await backend.agents()
