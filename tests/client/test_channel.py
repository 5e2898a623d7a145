"""What a phone and an agent leave behind, and what they show of themselves: nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import warnings
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.client import connection as wire
from coralmux.client.channel import Channel
from coralmux.client.errors import MessageTooLarge
from coralmux.client.store import Store
from coralmux.e2e import events as e2e
from coralmux.protocol import Role
from coralmux.text import duration
from tests.client.meeting import (
    TIMERS,
    Events,
    agent_for,
    meeting,
    new_link,
    phone_for,
    serving,
)
from tests.support.client import SOON
from tests.support.process import RelayProcess

Pieces = AsyncIterator[Any]

MARKER = "marker-of-a-plaintext"


async def everything(relay: RelayProcess) -> list[Any]:
    """A phone and an agent do all that there is to do; the objects that they met."""
    link = new_link(relay)
    store = coralmux.MemoryStore()
    agent = agent_for(link, name="Kitchen", store=store)
    met: list[Any] = [link, agent, agent._pairings[0].channel, agent._pairings[0]._transfers]

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        met.extend([message, *message.attachments])
        if message.text.startswith("fail"):
            raise coralmux.BackendError(MARKER)
        if message.text.startswith("wait"):
            yield MARKER
            await asyncio.Event().wait()
        status = coralmux.ToolStatus(MARKER)
        met.append(status)
        yield status
        yield MARKER * 3
        message.usage[MARKER] = MARKER
        for attachment in message.attachments:
            assert isinstance(attachment, coralmux.Attachment)
            yield attachment

    @agent.on("chat.history")
    async def history(request: coralmux.Request) -> dict[str, Any]:
        met.append(request)
        return {"messages": [{"role": "user", "content": MARKER}]}

    file = coralmux.Attachment.from_bytes(MARKER.encode() * 9000, "text/plain", f"{MARKER}.txt")
    events = Events()
    async with serving(agent), phone_for(link, on_event=events, name="Pocket") as phone:
        answer = phone.ask(MARKER, images=[file], conversation=[coralmux.Turn("user", MARKER)])
        assert await answer == MARKER * 3
        met += [phone, phone.channel, phone.transfers, answer, file, *answer.attachments]
        met += [phone.agent, *await phone.history(), *await phone.agents()]
        with pytest.raises(coralmux.AgentError, match=MARKER):
            await phone.ask(f"fail {MARKER}")
        async with phone.ask(f"wait {MARKER}") as waiting:
            async for _ in waiting:
                break
        with pytest.raises(coralmux.AgentError) as caught:
            await phone.ask(MARKER, id=answer.id)
        met.append(caught.value)
        with pytest.raises(coralmux.AgentError) as caught:
            await phone.groups()
        met.append(caught.value)
        async with phone_for(link) as thief:
            with pytest.raises(coralmux.PairingRefused) as refused:
                await thief.ask(MARKER)
            met.append(refused.value)
        await events.wait_for(wire.Stopped)
        met += events.all
    met += [
        store,
        phone.channel._memory,
        phone.channel._memory._state,
        phone.channel._memory.secrets,
    ]
    return met


async def test_nothing_shows_secrets_tokens_or_texts(
    shared_relay: RelayProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    met = await everything(shared_relay)
    link = met[0]
    states = [item for item in met if type(item).__name__ == "Secrets"]
    assert len(states) == 1
    forbidden = {link.token[12:], MARKER}
    for secret in (link.secret, states[0].current):
        assert secret is not None
        forbidden |= {secret.hex(), repr(secret)[2:-1], link.with_secret(secret).uri()[-43:]}
    shown = {type(item).__name__: f"{item!r} {item!s}" for item in met}
    assert len(shown) > 20
    for name, text in shown.items():
        assert not [word for word in forbidden if word in text], name
    assert len(caplog.records) >= 4
    assert not [word for word in forbidden if word in caplog.text]
    for record in caplog.records:
        assert not [word for word in forbidden if word in repr(record.args)]


async def test_nothing_is_left_behind(shared_relay: RelayProcess) -> None:
    before = asyncio.all_tasks()
    threads = set(threading.enumerate())
    await everything(shared_relay)
    # Nobody is waited for: what is left now would be left for good.
    left = asyncio.all_tasks() - before
    assert not left
    assert set(threading.enumerate()) == threads


def test_debug_mode_of_asyncio_has_nothing_to_say(
    shared_relay: RelayProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "asyncio")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _debugged(everything(shared_relay))
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    # Slow machines make slow callbacks; the rest of what it says is a fault.
    assert [r.getMessage() for r in caplog.records if "took" not in r.getMessage()] == []


def _debugged(work: Coroutine[Any, Any, object]) -> None:
    asyncio.run(work, debug=True)


async def test_a_phone_closed_at_any_moment_leaves_nothing(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link, store=None)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        for _ in range(50):
            yield "x"

    before = asyncio.all_tasks()
    async with serving(agent):
        for steps in range(0, 60, 4):
            async with phone_for(link, store=None) as phone:
                task = asyncio.create_task(phone.ask("?")._whole())
                for _ in range(steps):
                    await asyncio.sleep(0)
            async with asyncio.timeout(SOON):
                (result,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(result, coralmux.ClientError) or result == "x" * 50
            assert "None" not in str(result)
            assert not [left for left in asyncio.all_tasks() if "phone" in left.get_name()]
    assert asyncio.all_tasks() - before == set()


async def test_a_serve_that_is_cancelled_takes_everything_with_it(
    shared_relay: RelayProcess,
) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    began, ended = asyncio.Event(), asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        try:
            began.set()
            yield "x"
            await asyncio.Event().wait()
        finally:
            ended.set()

    events = Events()
    async with phone_for(link, on_event=events) as phone, asyncio.timeout(SOON):
        await events.wait_for(wire.Connected)
        before = asyncio.all_tasks()
        task = asyncio.create_task(agent.serve())
        question = asyncio.create_task(phone.ask("?")._whole())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        with pytest.raises(coralmux.ConnectionLost):
            await question
        assert asyncio.all_tasks() - before == set()


async def test_a_channel_says_what_it_is_for(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    channel = Channel(
        link,
        Role.PHONE,
        name="x",
        store=None,
        on_message=lambda message: None,
        on_event=lambda event: None,
        timers=TIMERS,
    )
    assert repr(channel) == f"<Channel of the phone at {shared_relay.url}, version 2>"
    with pytest.raises(coralmux.NotConnected) as caught:
        channel.send("chat.send", {"text": MARKER}, id="mine")
    assert caught.value.ids == ("mine",)
    with pytest.raises(MessageTooLarge) as large:
        channel.send("chat.send", {"text": "x" * 5_000_000}, id="mine")
    assert large.value.ids == ("mine",)
    await channel.close()


async def test_messages_sent_in_one_breath_arrive_in_their_order(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()
    agent.on_chat(lambda message: _nothing())
    got: list[int] = []

    async with meeting(
        shared_relay, agent, on_group_message=lambda m: got.append(m.message["n"])
    ) as phone:
        await phone.ask("here?")
        for n in range(100):
            await agent.group_message("hall", {"n": n})
        await phone.agents()
    assert got == list(range(100))


async def _nothing() -> None:
    return None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (7.4, "7 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (36000, "10 h")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_after_a_final_end_coming_back_changes_nothing(shared_relay: RelayProcess) -> None:
    unknown = coralmux.PairingLink.new(shared_relay.url, "oc_pair_" + "0" * 32)
    async with phone_for(unknown) as phone:
        with pytest.raises(coralmux.Stopped):
            await phone.ready()
        phone.reconnect()
        with pytest.raises(coralmux.Stopped):
            async with asyncio.timeout(1):
                await phone.ask("?")


async def test_after_its_closing_a_channel_goes_on_saying_why(shared_relay: RelayProcess) -> None:
    events = Events()
    phone = phone_for(new_link(shared_relay), on_event=events)
    async with phone:
        await events.wait_for(wire.Connected)
    phone.channel.reconnect()
    with pytest.raises(coralmux.NotConnected, match="closed"):
        async with asyncio.timeout(1):
            await phone.channel.wait_ready()


async def test_a_refused_phone_that_comes_back_asks_again_at_once(
    shared_relay: RelayProcess,
) -> None:
    link = new_link(shared_relay)
    stranger = link.with_secret(bytes(32))
    agent = agent_for(link)
    agent.on_chat(lambda message: _nothing())
    events = Events()
    async with serving(agent), phone_for(stranger, on_event=events) as phone:
        with pytest.raises(coralmux.PairingRefused):
            await phone.ready()
        refused = events.count(e2e.PairingRefused)
        phone.reconnect()
        with pytest.raises(coralmux.PairingRefused):
            await phone.ready()
        assert events.count(e2e.PairingRefused) == refused + 1
        assert events.count(wire.Connected) == 1


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_phone_in_the_agent_s_store_is_refused_and_costs_the_agent_nothing(
    shared_relay: RelayProcess, kind: str, tmp_path: Path
) -> None:
    store: Store = coralmux.MemoryStore() if kind == "memory" else coralmux.FileStore(tmp_path)
    link = new_link(shared_relay)
    agent = agent_for(link, store=store)
    agent.on_chat(lambda message: _nothing())
    early = phone_for(link, store=store)  # when nothing was kept there yet
    async with serving(agent):
        async with early:
            with pytest.raises(coralmux.StoreError, match="a directory"):
                await early.ready()
        with pytest.raises(coralmux.StoreError, match="the agent's"):
            phone_for(link, store=store)
        async with phone_for(link) as phone:
            assert await phone.ask("here?") == ""
    kept = store.load(link.token)
    assert kept is not None
    assert kept.role == "agent"
