"""The field's phone app, which speaks version 1 only, talks to our Agent.

It is written from the contract alone (tests/support/field.py). Each test ends by
asserting that it never got a frame which it cannot take, or cannot open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import coralmux
from coralmux.e2e.errors import Failure
from coralmux.e2e.events import PairingRefused
from coralmux.protocol import Role
from tests.client.pair import SECRET, TOKEN, TOOL, Pair, check, cut, whole
from tests.support.field import (
    FieldError,
    FieldPhone,
    Picture,
    pictures,
)
from tests.support.hostile_relay import HostileRelay
from tests.support.process import RelayProcess, relay_process
from tests.support.waiting import eventually

PHONE, AGENT = Role.PHONE, Role.AGENT

PNG: Picture = ("image/png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with relay_process() as process:
        yield process


@contextlib.asynccontextmanager
async def our_agent(url: str, token: str, **options: Any) -> AsyncIterator[Pair]:
    """Our Agent alone; its phone never connects."""
    options.setdefault("secret", None)
    both = Pair(url, token=token, **options)
    serving = asyncio.create_task(both.agent.serve())
    try:
        yield both
    finally:
        await both.agent.close()
        await serving


@contextlib.asynccontextmanager
async def with_agent(
    relay: RelayProcess, first: Role = AGENT, **options: Any
) -> AsyncIterator[tuple[Pair, FieldPhone]]:
    token = relay.token()
    phone = FieldPhone(relay.url, token)
    async with contextlib.AsyncExitStack() as stack:
        if first is PHONE:
            await stack.enter_async_context(phone)
        both = await stack.enter_async_context(our_agent(relay.url, token, **options))
        if first is AGENT:
            await eventually(lambda: relay.http("GET", f"/api/v1/pair/{token}")[1]["agent"])
            await stack.enter_async_context(phone)
        yield both, phone
        check(phone)


@pytest.mark.parametrize("first", list(Role))
async def test_a_field_phone_gets_answers_whoever_comes_first(
    relay: RelayProcess, first: Role
) -> None:
    async with with_agent(relay, first) as (both, phone):
        for text in ("one?", "two?"):
            deltas, done = await phone.ask(text)
            assert "".join(deltas) == whole(text)
            assert done == {"full_text": whole(text)}
        assert both.heard == ["one?", "two?"]
        assert all(m.sealed for m in phone.received if m.type in ("chat.stream", "chat.done"))
        assert [m.payload for m in phone.of_type("chat.tool_status")] == [
            {"tool": TOOL, "status": "running"}
        ] * 2


@pytest.mark.parametrize("leaver", list(Role))
async def test_a_field_phone_goes_on_after_either_reconnects(
    relay: RelayProcess, leaver: Role
) -> None:
    async with with_agent(relay) as (both, phone):
        await phone.ask("before?")
        for round in range(3):
            keys = len(phone.peer_keys)
            if leaver is PHONE:
                await phone.reconnect()
            else:
                cut(both.agent._pairings[0].channel)
            await eventually(lambda keys=keys: len(phone.peer_keys) > keys)
            deltas, _ = await phone.ask(f"after {round}?")
            assert "".join(deltas) == whole(f"after {round}?")


async def test_pictures_travel_inside_messages_both_ways(relay: RelayProcess) -> None:
    async with with_agent(relay) as (both, phone):
        both.sends = [coralmux.Attachment.from_bytes(PNG[1], name="shell.png")]
        _, done = await phone.ask("what is it?", attachments=[PNG])
        assert [(file.mime_type, file.data) for file in both.files] == [PNG]
        assert pictures(done) == [PNG]


async def test_a_picture_too_large_for_a_field_phone_is_an_error_and_is_not_sent(
    relay: RelayProcess,
) -> None:
    async with with_agent(relay) as (both, phone):
        both.sends = [coralmux.Attachment.from_bytes(PNG[1] + bytes(4_500_000))]
        with pytest.raises(FieldError) as caught:
            await phone.ask("show me")
        assert caught.value.code == "BACKEND_ERROR"
        assert "MB" in caught.value.message or "bytes" in caught.value.message
        assert phone.of_type("chat.done") == []
        both.sends = []
        deltas, _ = await phone.ask("and without?")
        assert "".join(deltas) == whole("and without?")


async def test_errors_of_a_handler_reach_a_field_phone(relay: RelayProcess) -> None:
    async def fail(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "I was about to "
        raise coralmux.BackendError("The model is out of memory.")

    async with with_agent(relay, on_chat=fail) as (_, phone):
        with pytest.raises(FieldError) as caught:
            await phone.ask("hello?")
        assert caught.value.payload == {
            "code": "BACKEND_ERROR",
            "message": "The model is out of memory.",
        }
        assert [m.payload["delta"] for m in phone.of_type("chat.stream")] == ["I was about to "]


async def test_our_agent_answers_one_chat_at_a_time_toward_a_field_phone(
    relay: RelayProcess,
) -> None:
    async with with_agent(relay) as (both, phone):
        await phone.keyed.wait()
        both.hold = 3
        for text in ("one?", "two?"):
            await phone.send("chat.send", phone.keys.seal(b'{"text":"%s"}' % text.encode()))
        await eventually(lambda: len(phone.of_type("chat.stream")) == 3)
        assert both.heard == ["one?"]
        both.go.set()
        await eventually(lambda: len(phone.of_type("chat.done")) == 2)
        streamed = "".join(m.payload["delta"] for m in phone.of_type("chat.stream"))
        assert streamed == whole("one?") + whole("two?")


async def test_a_field_phone_gets_answers_to_every_request(relay: RelayProcess) -> None:
    async with with_agent(relay) as (both, phone):
        answers: dict[str, dict[str, Any]] = {
            "chat.history": {"messages": [{"role": "user", "content": "hi", "timestamp": 1}]},
            "agent.create": {"ok": True, "action": "create", "agent": {"id": "a", "name": "A"}},
            "agent.update": {"ok": True, "action": "update"},
            "agent.delete": {"ok": False, "action": "delete", "error": "no such agent"},
            "memory.search": {"results": [{"path": "x", "snippet": "y", "score": 0.5}]},
            "group.list": {"rooms": [{"id": "hall"}]},
            "group.messages": {"room_id": "hall", "messages": [{"text": "hi"}]},
            "group.send": {"room_id": "hall", "message": {"text": "hi"}},
            "system.status": {"cpu_percent": 1.5, "uptime_seconds": 60},
        }
        for type, answer in answers.items():

            async def handle(
                request: coralmux.Request, answer: dict[str, Any] = answer
            ) -> dict[str, Any]:
                return answer

            both.agent.on(type)(handle)
        for type, answer in answers.items():
            assert await phone.request(type, {"limit": 3}) == answer
        listed = await phone.request("agent.list")
        assert listed == {"agents": [{"id": "default", "name": "Test agent"}]}


async def test_a_request_that_our_agent_does_not_offer_is_an_error_a_field_phone_knows(
    relay: RelayProcess,
) -> None:
    async with with_agent(relay) as (_, phone):
        with pytest.raises(FieldError) as caught:
            await phone.request("group.list")
        assert caught.value.code == "BACKEND_ERROR"
        assert "group.list" in caught.value.message


async def test_an_agent_with_a_secret_tells_a_field_phone_once_and_takes_nothing(
    relay: RelayProcess,
) -> None:
    async with with_agent(relay, secret=SECRET) as (both, phone):
        await eventually(lambda: phone.errors)
        assert phone.errors[0]["code"] == "E2E_REQUIRED"
        assert "link" in phone.errors[0]["message"]
        with pytest.raises((FieldError, TimeoutError)):
            await phone.ask("hello?", sealed=False, within=0.5)
        with pytest.raises((FieldError, TimeoutError)):
            await phone.request("agent.list", within=0.5)
        await phone._send_key()
        await phone.send("ping", {})
        assert [error["code"] for error in phone.errors] == ["E2E_REQUIRED"]
        assert both.heard == []
        assert PairingRefused(Failure.NO_VERSION_1) in both.events[AGENT]


@pytest.mark.slow
async def test_a_fast_reply_stays_inside_what_a_relay_of_version_1_allows() -> None:
    tokens = [f"token {n} " for n in range(4000)]

    async def fast(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        for token in tokens:
            yield token

    async with HostileRelay(token=TOKEN, v1=True) as relay:
        phone = FieldPhone(relay.url, TOKEN)
        async with our_agent(relay.url, TOKEN, on_chat=fast), phone:
            for question in ("all?", "again?"):
                deltas, done = await phone.ask(question, within=60)
                assert "".join(deltas) == done["full_text"] == "".join(tokens)
            assert {"limits", "server"}.isdisjoint(phone.greeting)
        check(phone)
        frames = relay.sent(AGENT)
        # The relay's own bucket: 120 at once, and 2 more a second.
        level, last = 120.0, frames[0].at
        for frame in frames:
            level = min(120.0, level + (frame.at - last) * 2) - 1
            last = frame.at
            assert level >= 0, f"frame {frames.index(frame)} of {len(frames)} is one too many"
        # The first delta did not wait for anything, also of the second reply.
        asked = [frame.at for frame in relay.sent(PHONE, "chat.send")]
        for at in asked:
            first = next(f.at for f in frames if f.type == "chat.stream" and f.at > at)
            assert first - at < 0.5
