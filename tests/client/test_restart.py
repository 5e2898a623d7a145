"""Ends that come back: after the relay's death, after their own, with what the disk has kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.client import connection as wire
from coralmux.client.store import PairingState
from coralmux.e2e.events import Established
from tests.client.meeting import (
    Events,
    agent_for,
    meeting,
    new_link,
    phone_for,
    serving,
    until_raised,
)
from tests.support.client import SOON
from tests.support.process import RelayProcess, relay_process
from tests.support.waiting import eventually

Pieces = AsyncIterator[Any]


def echo(agent: coralmux.Agent) -> coralmux.Agent:
    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        return message.text

    return agent


async def insistently(phone: coralmux.Phone, text: str) -> str:
    """Ask, and again where the end of the old session was still on its way."""
    while True:
        try:
            return await phone.ask(text)
        except (coralmux.ConnectionLost, coralmux.NotConnected, coralmux.PeerOffline):
            pass


# The relay.


@pytest.mark.slow
async def test_both_talk_again_within_5_seconds_of_the_relays_return() -> None:
    """With the timers that everybody has, three times in a row."""
    with relay_process() as relay:
        link = new_link(relay)
        agent = echo(coralmux.Agent.from_link(link, store=coralmux.MemoryStore()))
        async with (
            serving(agent),
            coralmux.Phone.from_link(link, store=coralmux.MemoryStore()) as phone,
        ):
            assert await phone.ask("before") == "before"
            for n in range(3):
                relay.process.kill()
                relay.process.wait()
                await asyncio.to_thread(relay.start)
                back = time.monotonic()  # /health has answered
                async with asyncio.timeout(SOON):
                    assert await insistently(phone, f"after {n}") == f"after {n}"
                assert time.monotonic() - back < 5


@pytest.mark.slow
async def test_an_answer_that_the_relay_takes_with_it_is_named_and_not_given_twice() -> None:
    agent = agent_for()
    began = asyncio.Event()
    asked: list[str] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        asked.append(message.text)
        yield "begun"
        began.set()
        await asyncio.Event().wait()

    with relay_process() as relay:
        events = Events()
        async with meeting(relay, agent, on_event=events) as phone, asyncio.timeout(2 * SOON):
            answer = phone.ask("?")
            task = asyncio.create_task(answer._whole())
            await began.wait()
            await eventually(lambda: answer.text)
            relay.process.kill()
            with pytest.raises(coralmux.ConnectionLost, match="sent again") as caught:
                await task
            assert caught.value.ids == (answer.id,)
            assert answer.text == "begun"
            relay.process.wait()
            await asyncio.to_thread(relay.start)
            with pytest.raises(coralmux.AgentError, match="came before") as twice:
                await phone.ask("?", id=answer.id)
            assert (twice.value.code, twice.value.ids) == ("DUPLICATE", (answer.id,))
            assert asked == ["?"]


@pytest.mark.slow
async def test_a_relay_that_restarts_politely_is_met_again() -> None:
    with relay_process() as relay:
        events = Events()
        async with (
            meeting(relay, echo(agent_for()), on_event=events) as phone,
            asyncio.timeout(2 * SOON),
        ):
            assert await phone.ask("1") == "1"
            assert await asyncio.to_thread(relay.terminate) == 0
            assert (await events.wait_for(wire.Disconnected)).code == 1012
            await asyncio.to_thread(relay.start)
            await events.wait_for(Established, 2)
            assert await phone.ask("2") == "2"


# The ends themselves.


async def test_a_used_link_opens_for_its_phone_alone_after_both_restarted(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    text = new_link(shared_relay).web()
    link = coralmux.PairingLink.parse(text)

    def agent() -> coralmux.Agent:
        return echo(agent_for(link, store=coralmux.FileStore(tmp_path / "agent")))

    def phone(directory: str) -> coralmux.Phone:
        return phone_for(
            coralmux.PairingLink.parse(text), store=coralmux.FileStore(tmp_path / directory)
        )

    async with asyncio.timeout(2 * SOON):
        for _ in range(3):
            async with serving(agent()), phone("phone") as first:
                assert await first.ask("?") == "?"
        async with serving(agent()):
            async with phone("thief") as second:
                with pytest.raises(coralmux.PairingRefused) as caught:
                    await second.ask("?")
            text_of_refusal = str(caught.value)
            assert "the link was used before, on another device perhaps" in text_of_refusal
            assert "Make a new link on the agent's side and pair again" in text_of_refusal
            assert "thief" not in os.listdir(tmp_path)
            async with phone("phone") as first:
                assert await first.ask("still mine") == "still mine"
    for side in ("agent", "phone"):
        (kept,) = (tmp_path / side).iterdir()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert link.token not in kept.read_text()
        assert link.secret is not None
        assert text.partition("psk=")[2] not in kept.read_text()


async def test_without_a_store_the_link_stays_good(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    async with serving(echo(agent_for(link, store=None))):
        for _ in range(2):
            async with phone_for(link, store=None) as phone:
                assert await phone.ask("?") == "?"


async def test_an_agent_that_restarts_is_met_by_the_phone_that_stayed(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    link = new_link(shared_relay)
    async with phone_for(link) as phone, asyncio.timeout(2 * SOON):
        for n in range(3):
            agent = echo(agent_for(link, store=coralmux.FileStore(tmp_path)))
            async with serving(agent):
                assert await insistently(phone, str(n)) == str(n)


async def test_an_id_is_answered_once_even_by_an_agent_that_restarted(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    link = new_link(shared_relay)
    async with phone_for(link) as phone, asyncio.timeout(2 * SOON):
        async with serving(echo(agent_for(link, store=coralmux.FileStore(tmp_path)))):
            answer = phone.ask("?")
            assert await answer == "?"
            with pytest.raises(coralmux.AgentError) as caught:
                await phone.ask("?", id=answer.id)
            assert caught.value.code == "DUPLICATE"
        async with serving(echo(agent_for(link, store=coralmux.FileStore(tmp_path)))):
            error = await until_raised(
                coralmux.AgentError,
                lambda: phone.ask("?", id=answer.id),
                coralmux.ConnectionLost,
            )
            assert error.code == "DUPLICATE"
            assert await phone.ask("new") == "new"


# Disks.


class Full(coralmux.MemoryStore):
    """A disk with room for so many writes, until it is emptied."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def save(self, token: str, state: PairingState) -> None:
        if not self.room:
            raise coralmux.StoreError(Path("/full"), "cannot be written: No space left on device.")
        self.room -= 1
        super().save(token, state)


@pytest.mark.parametrize("room", [0, 1])
async def test_an_agent_that_cannot_write_its_secret_stops_and_locks_nobody_out(
    shared_relay: RelayProcess, room: int
) -> None:
    link = new_link(shared_relay)
    store = Full(room)
    async with phone_for(link) as phone, asyncio.timeout(2 * SOON):
        question = asyncio.create_task(phone.ask("early")._whole())
        with pytest.raises(coralmux.StoreError, match="No space left") as caught:
            await echo(agent_for(link, store=store)).serve()
        assert type(caught.value) is coralmux.StoreError
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
        store.room = 100
        async with serving(echo(agent_for(link, store=store))):
            assert await insistently(phone, "now") == "now"


@pytest.mark.parametrize("room", [0, 1])
async def test_a_phone_that_cannot_write_its_secret_says_so_and_is_not_locked_out(
    shared_relay: RelayProcess, room: int
) -> None:
    link = new_link(shared_relay)
    store = Full(room)
    async with serving(echo(agent_for(link))), asyncio.timeout(2 * SOON):
        async with phone_for(link, store=store) as phone:
            error = await until_raised(
                coralmux.StoreError, lambda: phone.ask("?"), coralmux.ConnectionLost
            )
            assert "No space left" in str(error)
        store.room = 100
        async with phone_for(link, store=store) as phone:
            assert await phone.ask("now") == "now"


async def test_a_directory_that_is_none_is_named(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    store = coralmux.FileStore(blocked / "below")
    link = new_link(shared_relay)
    with pytest.raises(coralmux.StoreError, match="choose another directory") as caught:
        async with phone_for(link, store=coralmux.MemoryStore()), asyncio.timeout(SOON):
            await echo(agent_for(link, store=store)).serve()
    assert str(blocked) in str(caught.value)


async def test_a_refusal_is_forgotten_when_another_agent_comes(
    shared_relay: RelayProcess,
) -> None:
    link = new_link(shared_relay)
    stranger = echo(agent_for(coralmux.PairingLink.new(shared_relay.url, link.token)))
    async with phone_for(link) as phone, asyncio.timeout(2 * SOON):
        async with serving(stranger):
            for _ in range(2):
                answer = phone.ask("?")
                with pytest.raises(coralmux.PairingRefused, match="another pairing") as caught:
                    await answer
                assert caught.value.ids == (answer.id,)
                assert caught.value.failure.name == "SECRET_REFUSED"
        events: list[object] = []
        phone._on_event = events.append
        async with serving(echo(agent_for(link))):
            while wire.PeerStatus(True) not in events:
                with contextlib.suppress(coralmux.PairingRefused):
                    await phone.ready(0.01)
                await asyncio.sleep(0)
            assert await phone.ask("at last") == "at last"
