"""An agent with several pairings: they come, go and fail without each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import coralmux
from coralmux import events
from coralmux.client import serving as serving_module
from tests.client.meeting import agent_for, meeting, new_link, phone_for, serving
from tests.support.client import SOON
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

PICTURE = coralmux.Attachment.from_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100_000), name="dot.png")


def echo(agent: coralmux.Agent) -> coralmux.Agent:
    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        return message.text

    return agent


async def test_a_pairing_can_be_added_and_removed_while_the_agent_serves(
    shared_relay: RelayProcess,
) -> None:
    first, second = new_link(shared_relay), new_link(shared_relay)
    agent = echo(agent_for(first))
    async with asyncio.timeout(SOON), serving(agent), phone_for(first) as alice:
        assert await alice.ask("one") == "one"
        agent.add(second)
        assert agent.pairings == [first, second]
        async with phone_for(second) as bob:
            assert await bob.ask("two") == "two"
            await agent.remove(second)
            with pytest.raises(coralmux.PeerOffline):
                await bob.ask("three", timeout=0.3)
        assert await alice.ask("four") == "four"


def test_a_pairing_is_served_once(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    with pytest.raises(ValueError, match="another token"):
        agent.add(link.web())


async def test_who_is_not_served_cannot_be_removed(shared_relay: RelayProcess) -> None:
    with pytest.raises(ValueError, match="not served"):
        await agent_for().remove(new_link(shared_relay))


class FullDisk(coralmux.MemoryStore):
    """Has no room for one of its tokens."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    def save(self, token: str, state: coralmux.PairingState) -> None:
        if token == self.token:
            raise coralmux.StoreError(Path("full"), "There is no room left.")
        super().save(token, state)


async def test_a_pairing_whose_secret_cannot_be_kept_leaves_the_others_alone(
    shared_relay: RelayProcess,
) -> None:
    good, bad = new_link(shared_relay), new_link(shared_relay)
    agent = echo(agent_for(good, bad, store=FullDisk(bad.token)))
    told: list[tuple[coralmux.PairingLink, str]] = []

    @agent.on_event
    def note(link: coralmux.PairingLink, event: object) -> None:
        if isinstance(event, events.Stopped):
            told.append((link, event.cause))

    async with asyncio.timeout(SOON), serving(agent), phone_for(good) as alice:
        async with phone_for(bad) as bob:
            with pytest.raises(coralmux.PeerOffline):
                await bob.ask("anybody?", timeout=1)
        assert told == [(bad, "full: There is no room left.")]
        assert await alice.ask("still there?") == "still there?"


def test_an_event_handler_that_nobody_would_wait_for_is_refused() -> None:
    async def late(link: coralmux.PairingLink, event: object) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        agent_for().on_event(late)  # type: ignore[arg-type]


class Slow:
    """A handler that says a word, waits for `go`, says another, and notes how it ended."""

    def __init__(self, agent: coralmux.Agent, piece: str | coralmux.Attachment = "end") -> None:
        self.go = asyncio.Event()
        self.ended = ""
        self._piece = piece
        agent.on_chat(self)

    async def __call__(self, message: coralmux.ChatMessage) -> AsyncIterator[object]:
        if message.text == "echo":
            yield "echo"
            return
        try:
            yield "begin"
            await self.go.wait()
            yield self._piece
            yield "!"
            self.ended = "finished"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


@pytest.mark.parametrize("piece", ["end", PICTURE], ids=["text", "file"])
async def test_a_handler_may_finish_although_the_phone_has_left(
    shared_relay: RelayProcess, piece: str | coralmux.Attachment
) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link, finish_unheard=True)
    slow = Slow(agent, piece)
    store = coralmux.MemoryStore()
    async with asyncio.timeout(SOON), serving(agent):
        async with phone_for(link, store=store) as phone:
            assert await anext(aiter(phone.ask("tell me"))) == "begin"
        async with phone_for(link, store=store) as phone:
            assert await phone.ask("echo") == "echo"
            slow.go.set()
            await eventually(lambda: slow.ended)
            assert slow.ended == "finished"
            assert await phone.ask("echo") == "echo"


async def test_a_handler_that_finishes_unheard_still_ends_at_the_users_wish(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for(finish_unheard=True)
    slow = Slow(agent)
    async with asyncio.timeout(SOON), meeting(shared_relay, agent) as phone:
        answer = phone.ask("tell me")
        async for _ in answer:
            answer.cancel()
        assert (answer.text, answer.cancelled, slow.ended) == ("begin", True, "cancelled")


async def test_a_handler_is_cancelled_when_the_phone_leaves(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    slow = Slow(agent)
    async with asyncio.timeout(SOON), serving(agent):
        async with phone_for(link) as phone:
            assert await anext(aiter(phone.ask("tell me"))) == "begin"
        await eventually(lambda: slow.ended)
        assert slow.ended == "cancelled"


async def test_a_handler_that_closes_its_agent_is_not_waited_for(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()
    took: list[float] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            await agent.close(drain_seconds=30)
        finally:
            took.append(loop.time() - begun)
        return "bye"

    async with asyncio.timeout(SOON), meeting(shared_relay, agent) as phone:
        with contextlib.suppress(coralmux.ClientError):
            await phone.ask("go")
        await eventually(lambda: took)
        assert took[0] < 5


async def test_an_agent_is_told_of_files_on_their_way(shared_relay: RelayProcess) -> None:
    agent = echo(agent_for())
    seen: list[tuple[str, int, int]] = []

    @agent.on_file_progress
    def note(name: str, received: int, total: int) -> None:
        seen.append((name, received, total))
        raise RuntimeError("the owner's own trouble")

    async with asyncio.timeout(SOON), meeting(shared_relay, agent) as phone:
        assert await phone.ask("look", images=[PICTURE]) == "look"
    size = len(PICTURE.data)
    assert seen == [("dot.png", done, size) for done in (0, 65_536, size)]


async def test_an_agent_takes_no_larger_files_than_it_was_told(
    shared_relay: RelayProcess,
) -> None:
    agent = echo(agent_for(max_file_bytes=50_000))
    async with asyncio.timeout(SOON), meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.FileError, match="50 kB"):
            await phone.ask("look", images=[PICTURE])
        assert await phone.ask("without") == "without"


async def test_files_that_running_chats_hold_are_bounded(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "MAX_HELD_BYTES", 150_000)
    agent = agent_for()
    slow = Slow(agent)
    async with asyncio.timeout(SOON), meeting(shared_relay, agent) as phone:
        first = aiter(phone.ask("tell me", images=[PICTURE]))
        assert await anext(first) == "begin"
        with pytest.raises(coralmux.AgentError, match="as many files"):
            await phone.ask("and this", images=[PICTURE])
        slow.go.set()
        assert [delta async for delta in first] == ["end", "!"]
        slow.ended = ""
        assert await phone.ask("now", images=[PICTURE]) == "beginend!"


async def test_requests_at_once_are_bounded(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "MAX_WORK", 2)
    agent = echo(agent_for())
    go = asyncio.Event()

    @agent.on("system.status")
    async def status(request: coralmux.Request) -> dict[str, float]:
        await go.wait()
        return {"cpu_percent": 1.0}

    async with asyncio.timeout(SOON), meeting(shared_relay, agent) as phone:
        waiting: list[Awaitable[object]] = [
            asyncio.ensure_future(phone.system_status()) for _ in range(2)
        ]
        await eventually(_has_tasks(agent, 2))
        with pytest.raises(coralmux.AgentError, match="wait for one"):
            await phone.system_status()
        go.set()
        assert len(await asyncio.gather(*waiting)) == 2


def _has_tasks(agent: coralmux.Agent, count: int) -> Callable[[], bool]:
    return lambda: len(agent._pairings[0]._tasks) == count


async def test_a_phone_that_takes_no_files_is_sent_none(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    Slow(agent, PICTURE).go.set()
    monkeypatch.setattr("coralmux.client.channel.CAPS", ())
    async with asyncio.timeout(SOON), serving(agent), phone_for(link) as phone:
        answer = phone.ask("tell me")
        with pytest.raises(coralmux.AgentError, match="cannot take"):
            await answer
        assert answer.text == "begin"


async def test_a_pairing_that_ended_can_be_added_again(shared_relay: RelayProcess) -> None:
    good, bad = new_link(shared_relay), new_link(shared_relay)
    disk = FullDisk(bad.token)
    agent = echo(agent_for(good, bad, store=disk))
    async with asyncio.timeout(SOON), serving(agent), phone_for(bad) as bob:
        with pytest.raises(coralmux.PeerOffline):
            await bob.ask("anybody?", timeout=1)
        assert agent.pairings == [good]
        disk.token = ""
        agent.add(bad)
        assert await bob.ask("now?") == "now?"


async def test_a_closed_agent_takes_no_pairing(shared_relay: RelayProcess) -> None:
    agent = echo(agent_for())
    await agent.close()
    with pytest.raises(RuntimeError, match="closed"):
        agent.add(new_link(shared_relay))


def test_a_link_in_the_wrong_place_is_told_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"Agent\.from_link"):
        coralmux.Agent("https://relay.example.com/phone#token=oc_pair_1")
