"""What a phone missed, because the relay or the phone was away, is there when it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import coralmux
from coralmux.bridge import Backend, NoSettings, Piece, Place, Question
from tests.bridge.bridges import bridge, served
from tests.bridge.test_run import begun, slow_config
from tests.support.client import SOON
from tests.support.process import RelayProcess, relay_process
from tests.support.waiting import eventually


async def insistently(phone: coralmux.Phone) -> list[str]:
    """What was said, as soon as both are back."""
    async with asyncio.timeout(2 * SOON):
        while True:
            try:
                return [entry.content for entry in await phone.history()]
            except (coralmux.ConnectionLost, coralmux.NotConnected, coralmux.PeerOffline):
                pass


@pytest.mark.slow
async def test_an_answer_goes_on_while_the_relay_is_down(tmp_path: Path) -> None:
    with relay_process() as relay:
        async with bridge(relay, tmp_path, slow_config(tmp_path)) as there:
            async with there.phone() as phone:
                task = await begun(phone.ask("?"))
                relay.process.kill()
                relay.process.wait()
                with pytest.raises(coralmux.ConnectionLost):
                    await task
                await there.says("Trying again in")
                (tmp_path / "go").touch()
                await there.says("Phone 0: answered after")
                await asyncio.to_thread(relay.start)
                assert await insistently(phone) == ["?", "begun\nended\n"]
            # Each reason once, however often it was tried.
            lines = [line for line in there.output().splitlines() if "Trying again" in line]
            causes = [line.partition("Phone 0: ")[2].partition("Trying")[0] for line in lines]
            assert len(causes) == len(set(causes))


class Halting(Backend):
    """Says half of it, and the rest when it may."""

    def __init__(self) -> None:
        super().__init__(NoSettings(), Place(Path("/nowhere")))
        self.go = asyncio.Event()
        self.cancelled = False

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        yield "half "
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        yield "and half"


async def test_an_answer_goes_on_when_the_phone_leaves(relay: RelayProcess, tmp_path: Path) -> None:
    backend = Halting()
    store = coralmux.MemoryStore()
    async with served(relay, backend, tmp_path) as there:
        async with there.phone(store=store) as phone:
            task = await begun(phone.ask("?"))
        with pytest.raises(coralmux.ConnectionLost):
            await task
        await eventually(lambda: there.log.of("phone_left"))
        backend.go.set()
        await eventually(lambda: there.log.of("answered"))
        async with there.phone(store=store) as phone:
            assert await insistently(phone) == ["?", "half and half"]
    assert not backend.cancelled


async def test_a_phone_that_is_let_go_is_answered_no_more(
    relay: RelayProcess, tmp_path: Path
) -> None:
    """And what was said until then is kept."""
    backend = Halting()
    async with served(relay, backend, tmp_path) as there:
        async with there.phone() as phone:
            task = await begun(phone.ask("?"))
            await there.agent.remove(there.links[0])
            await eventually(lambda: there.log.of("broken_off"))
        with pytest.raises(coralmux.ClientError):
            await task
        assert backend.cancelled
        found = there.conversations.entries(there.key(), "", 10)
        assert [entry.content for entry in found] == ["?", "half "]


async def test_what_a_question_looked_like_before_its_answer_ends(
    relay: RelayProcess, tmp_path: Path
) -> None:
    """A phone that asks for the past meanwhile sees its question, and no half of an answer."""
    backend = Halting()
    async with served(relay, backend, tmp_path) as there, there.phone() as phone:
        task = await begun(phone.ask("?"))
        assert await insistently(phone) == ["?"]
        backend.go.set()
        assert await task == "half and half"
