"""Our Phone talks to the field's connector, which speaks version 1 only.

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
from coralmux.protocol import Role, encode
from tests.client.pair import SECRET, TOKEN, Pair, check, cut, hurry, said, whole
from tests.support.field import FieldConnector, FieldError, Picture, pictures
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
async def with_phone(
    relay: RelayProcess, first: Role = AGENT, *, secret: bytes | None = None, **options: Any
) -> AsyncIterator[tuple[Pair, FieldConnector]]:
    token = relay.token()
    connector = FieldConnector(relay.url, token, **options)
    both = Pair(relay.url, token=token, secret=secret)
    async with contextlib.AsyncExitStack() as stack:
        if first is AGENT:
            await stack.enter_async_context(connector)
        await stack.enter_async_context(both.phone)
        if first is PHONE:
            await eventually(lambda: relay.http("GET", f"/api/v1/pair/{token}")[1]["phone"])
            await stack.enter_async_context(connector)
        yield both, connector
        check(connector)


@pytest.mark.parametrize("first", list(Role))
async def test_a_field_connector_answers_our_phone_whoever_comes_first(
    relay: RelayProcess, first: Role
) -> None:
    async with with_phone(relay, first, tools=["search"]) as (both, connector):
        for text in ("one?", "two?"):
            outcome = await both.ask(text)
            assert outcome.error is None
            assert outcome.deltas == ["Hel", "lo"]
            assert connector.chats[-1].payload == {"text": text}
            assert connector.chats[-1].sealed
        assert both.tools == ["search"] * 4
        assert both.phone.agent is not None
        assert not both.phone.agent.verified


@pytest.mark.parametrize("leaver", list(Role))
async def test_our_phone_goes_on_with_a_field_connector_after_either_reconnects(
    relay: RelayProcess, leaver: Role
) -> None:
    async with with_phone(relay) as (both, connector):
        assert (await both.ask("before?")).text == "Hello"
        for round in range(3):
            keys = len(connector.peer_keys)
            if leaver is AGENT:
                await connector.reconnect()
            else:
                cut(both.phone.channel)
            await eventually(lambda keys=keys: len(connector.peer_keys) > keys)
            assert (await both.ask(f"after {round}?", timeout=5)).text == "Hello"


async def test_pictures_of_our_phone_and_of_a_field_connector_travel_inside_messages(
    relay: RelayProcess,
) -> None:
    async with with_phone(relay, attachments=[PNG]) as (both, connector):
        outcome = await both.ask("what is it?", images=[coralmux.Attachment.from_bytes(PNG[1])])
        assert pictures(connector.chats[0].payload) == [PNG]
        assert [(file.mime_type, file.data) for file in outcome.attachments] == [PNG]


async def test_a_picture_too_large_for_a_field_connector_is_an_error_and_is_not_sent(
    relay: RelayProcess,
) -> None:
    async with with_phone(relay) as (both, connector):
        large = coralmux.Attachment.from_bytes(PNG[1] + bytes(4_500_000))
        outcome = await both.ask("what is it?", images=[large])
        assert isinstance(outcome.error, coralmux.AttachmentError)
        assert outcome.error.ids == (outcome.id,)
        assert connector.chats == []
        assert (await both.ask("and now?")).text == "Hello"


async def test_our_phone_gets_all_results_of_a_field_connector(relay: RelayProcess) -> None:
    async with with_phone(relay) as (both, connector):
        phone = both.phone
        await phone.ask("hi")
        history = await phone.history(limit=2)
        assert [(entry.role, entry.content) for entry in history] == [
            ("user", "hi"),
            ("assistant", "Hello"),
        ]
        assert [agent.name for agent in await phone.agents()] == ["Main"]
        created = await phone.create_agent(name="Second")
        assert created.ok
        assert created.agent is not None
        updated = await phone.update_agent(created.agent.id, model="small")
        assert updated.agent is not None
        assert updated.agent.model == "small"
        assert (await phone.delete_agent(created.agent.id)).ok
        assert (await phone.delete_agent("nobody")).error == "no such agent"
        # The connector calls them memories.
        (hit,) = await phone.search_memory("tea")
        assert (hit.path, hit.snippet, hit.score) == ("notes.md", "tea at four", 0.5)
        assert await phone.groups() == [{"id": "hall"}]
        assert (await phone.send_group_message("hall", "hello all")).message["text"] == "hello all"
        assert len((await phone.group_messages("hall")).messages) == 1
        status = await phone.system_status()
        assert status.cpu_percent == 12.5
        assert status.uptime_seconds == 60
        assert [message.type for message in connector.received if message.sealed] == ["chat.send"]


async def test_an_error_of_a_field_connector_is_the_question_s_error(
    relay: RelayProcess,
) -> None:
    async def fail(payload: dict[str, Any]) -> AsyncIterator[str]:
        yield "I was "
        raise FieldError("BACKEND_ERROR", "The model is gone.")

    async with with_phone(relay, reply=fail) as (both, _):
        outcome = await both.ask("hello?")
        assert outcome.deltas == ["I was "]
        assert isinstance(outcome.error, coralmux.AgentError)
        assert outcome.error.code == "BACKEND_ERROR"
        assert str(outcome.error) == "The model is gone."
        assert outcome.error.ids == (outcome.id,)


async def test_our_phone_asks_a_field_connector_one_thing_at_a_time(relay: RelayProcess) -> None:
    async def echo(payload: dict[str, Any]) -> AsyncIterator[str]:
        for delta in said(payload["text"]):
            await asyncio.sleep(0)
            yield delta

    async with with_phone(relay, reply=echo) as (both, _):
        texts = [f"question {n}?" for n in range(5)]
        outcomes = await asyncio.gather(
            *(both.ask(text, timeout=10) for text in texts), both.phone.agents()
        )
        assert [outcome.text for outcome in outcomes[:-1]] == [whole(text) for text in texts]


async def test_a_phone_with_a_secret_says_that_a_field_connector_cannot_speak_version_2(
    relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    async with with_phone(relay, secret=SECRET) as (both, connector):
        outcome = await both.ask("hello?", timeout=5)
        assert isinstance(outcome.error, coralmux.PairingRefused)
        assert outcome.error.failure is Failure.NO_VERSION_2
        assert connector.chats == []
        # What it cannot make anything of is a key exchange without a key.
        assert {message["type"] for message in connector.surprises} <= {"key_exchange"}
        connector.surprises.clear()


async def test_an_answer_in_the_clear_is_an_error_and_not_a_long_wait() -> None:
    going = asyncio.Event()

    async def reply(payload: dict[str, Any]) -> AsyncIterator[str]:
        yield "Hel"
        await going.wait()
        yield "lo"

    async with HostileRelay(token=TOKEN) as relay:
        connector = FieldConnector(relay.url, TOKEN, reply=reply)
        both = Pair(relay.url, secret=None)
        async with connector, both.phone:
            asking = asyncio.create_task(both.ask("hello?", timeout=60))
            await eventually(lambda: relay.sent(AGENT, "chat.stream"))
            # It hears of a new phone and forgets our key, which comes too late.
            relay.hold(AGENT)
            relay.inject(AGENT, encode("status", {"peer": "online"}, ts=0))
            await eventually(lambda: not connector.keys.agreed)
            going.set()
            outcome = await asyncio.wait_for(asking, 5)
            assert outcome.deltas == ["Hel"]
            assert isinstance(outcome.error, coralmux.InvalidAnswer)
            assert "without encryption" in str(outcome.error)
            assert outcome.error.ids == (outcome.id,)
            relay.release(AGENT)
            assert (await both.ask("and now?", timeout=5)).text == "Hello"
        check(connector)
