"""How an agent begins, is taken off its place, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.client import connection as wire
from coralmux.client.channel import AnyEvent
from tests.client.meeting import (
    TIMERS,
    Events,
    agent_for,
    meeting,
    new_link,
    phone_for,
    serving,
    until_raised,
)
from tests.support.client import SOON
from tests.support.process import RelayProcess, clean_environment

Pieces = AsyncIterator[Any]

# Says a word, then waits for a line on its standard input before the next one.
BOT = """
import asyncio, sys
import coralmux

agent = coralmux.Agent.from_link(sys.stdin.readline())

@agent.on_chat
async def reply(message):
    yield "begun "
    await asyncio.to_thread(sys.stdin.readline)
    yield "and ended"

agent.run()
"""


@contextlib.contextmanager
def bot(link: coralmux.PairingLink) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", BOT],
        env=clean_environment(PYTHONPATH=str(Path(__file__).parents[2])),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    with process:
        try:
            process.stdin.write(link.uri() + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


async def ended(process: subprocess.Popen[str], *, line: bool = False) -> tuple[int, str]:
    """Exit status and standard error, of a process that ends by itself."""
    _, errors = await asyncio.to_thread(process.communicate, "\n" if line else None, SOON)
    return process.returncode, errors


async def refuses(phone: coralmux.Phone) -> None:
    """Return once the bot takes no new questions."""
    error = await until_raised(
        coralmux.AgentError, lambda: phone.ask("another", timeout=0.3), coralmux.RequestTimeout
    )
    assert "shutting down" in str(error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
async def test_a_signal_lets_the_running_reply_end_and_exits_0(
    shared_relay: RelayProcess, number: int
) -> None:
    link = new_link(shared_relay)
    with bot(link) as process:
        async with phone_for(link) as phone, asyncio.timeout(SOON):
            answer = phone.ask("?")
            async for delta in answer:
                if delta == "begun ":
                    process.send_signal(number)
                    await refuses(phone)
                    end = asyncio.create_task(ended(process, line=True))
            assert answer.text == "begun and ended"
            assert await end == (0, "")


async def test_a_second_signal_ends_it_at_once(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    with bot(link) as process:
        async with phone_for(link) as phone, asyncio.timeout(SOON):
            answer = phone.ask("?")
            await anext(aiter(answer))
            process.send_signal(signal.SIGINT)
            await refuses(phone)
            process.send_signal(signal.SIGINT)
            with pytest.raises(coralmux.ConnectionLost) as caught:
                await answer
            assert caught.value.ids == (answer.id,)
            # The thread that reads the line is the bot's own, and ends with its input.
            status, errors = await ended(process)
            assert (status, errors) == (0, "")


async def test_a_bot_whose_link_is_revoked_ends_with_the_reason(
    shared_relay: RelayProcess,
) -> None:
    link = new_link(shared_relay)
    with bot(link) as process:
        async with phone_for(link) as phone:
            await phone.ready()
            shared_relay.http("DELETE", f"/api/v1/pair/{link.token}", admin=True)
            status, errors = await ended(process)
    assert status == 1
    assert errors.rstrip().endswith("This pairing was revoked or has expired. Pair again.")
    assert link.token not in errors


async def test_close_ends_serve_and_tells_the_phone(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    began = asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        yield "x"
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(agent.serve())
    async with phone_for(link) as phone, asyncio.timeout(SOON):
        answer = asyncio.create_task(phone.ask("?")._whole())
        await began.wait()
        await agent.close()
        await task
        with pytest.raises(coralmux.ConnectionLost):
            await answer


async def test_close_before_serve_and_twice_harms_nobody(shared_relay: RelayProcess) -> None:
    agent = agent_for(new_link(shared_relay))
    agent.on_chat(_answer_ok)
    await agent.close()
    await agent.close()
    async with asyncio.timeout(SOON):
        await agent.serve()


async def _answer_ok(message: coralmux.ChatMessage) -> str:
    return "ok"


# The relay wants it no more.


async def test_a_revoked_pairing_stops_both_ends(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = agent_for(link)
    agent.on_chat(_answer_ok)
    events: list[AnyEvent] = []

    @agent.on_event
    def note(pairing: coralmux.PairingLink, event: AnyEvent) -> None:
        assert pairing == link
        events.append(event)

    task = asyncio.create_task(agent.serve())
    async with phone_for(link) as phone, asyncio.timeout(SOON):
        await phone.ready()
        status, _ = shared_relay.http("DELETE", f"/api/v1/pair/{link.token}", admin=True)
        assert status == 204
        with pytest.raises(coralmux.Stopped, match="revoked") as caught:
            await task
        assert caught.value.code == 4003
        error = await until_raised(
            coralmux.Stopped,
            lambda: phone.ask("?", timeout=1),
            coralmux.PeerOffline,
            coralmux.ConnectionLost,
            coralmux.NotConnected,
        )
        assert error.code == 4003
    stopped = [event for event in events if isinstance(event, wire.Stopped)]
    assert [(event.code, event.final) for event in stopped] == [(4003, True)]


async def test_an_unknown_token_stops_both_ends(shared_relay: RelayProcess) -> None:
    link = coralmux.PairingLink.new(shared_relay.url, "oc_pair_" + "0" * 32)
    agent = agent_for(link)
    agent.on_chat(_answer_ok)
    with pytest.raises(coralmux.Stopped, match="pair again") as caught:
        await agent.serve()
    assert caught.value.code == 4001
    async with phone_for(link) as phone:
        for _ in range(2):
            answer = phone.ask("?")
            with pytest.raises(coralmux.Stopped, match="pair again") as caught:
                await answer
            assert (caught.value.code, caught.value.ids) == (4001, (answer.id,))


async def test_one_revoked_pairing_leaves_the_others_alone(shared_relay: RelayProcess) -> None:
    gone, kept = new_link(shared_relay), new_link(shared_relay)
    agent = agent_for(gone, kept)
    agent.on_chat(_answer_ok)
    stopped = asyncio.Event()

    @agent.on_event
    def note(pairing: coralmux.PairingLink, event: AnyEvent) -> None:
        if isinstance(event, wire.Stopped):
            assert pairing == gone
            stopped.set()

    async with serving(agent), phone_for(kept) as phone, asyncio.timeout(SOON):
        await phone.ready()
        shared_relay.http("DELETE", f"/api/v1/pair/{gone.token}", admin=True)
        await stopped.wait()
        assert await phone.ask("?") == "ok"


async def test_a_second_phone_takes_the_place_until_the_first_asks_for_it(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for(store=None)
    agent.on_chat(_answer_ok)
    events = Events()
    async with meeting(shared_relay, agent, on_event=events) as first, asyncio.timeout(SOON):
        assert await first.ask("?") == "ok"
        async with phone_for(first.channel.link) as second:
            assert await second.ask("?") == "ok"
            stopped = await events.wait_for(wire.Stopped)
            assert (stopped.code, stopped.final) == (4002, False)
            with pytest.raises(coralmux.Stopped, match="took the place") as caught:
                await first.ask("?")
            assert caught.value.code == 4002
            first.reconnect()
            assert await first.ask("?") == "ok"
            with pytest.raises((coralmux.Stopped, coralmux.ConnectionLost)):
                await second.ask("?")


async def test_a_second_agent_takes_the_place_and_the_first_waits(
    shared_relay: RelayProcess,
) -> None:
    link = new_link(shared_relay)
    disconnected = asyncio.Event()
    pauses: list[float] = []

    def named(name: str) -> coralmux.Agent:
        agent = agent_for(link, store=None)

        @agent.on_chat
        async def reply(message: coralmux.ChatMessage) -> str:
            return name

        return agent

    first = named("first")

    @first.on_event
    def note(pairing: coralmux.PairingLink, event: AnyEvent) -> None:
        if isinstance(event, wire.Disconnected):
            assert event.code == 4002
            pauses.append(event.retry_in)
            disconnected.set()

    async with serving(first), phone_for(link) as phone, asyncio.timeout(SOON):
        assert await phone.ask("?") == "first"
        async with serving(named("second")):
            await disconnected.wait()
            assert pauses == [TIMERS.replaced_pause]
            while True:
                with contextlib.suppress(coralmux.ConnectionLost):
                    assert await phone.ask("?") == "second"
                    break


async def test_handlers_of_events_may_fail(
    shared_relay: RelayProcess, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_for()
    agent.on_chat(_answer_ok)

    @agent.on_event
    def fail(pairing: coralmux.PairingLink, event: AnyEvent) -> None:
        raise ZeroDivisionError

    async with meeting(shared_relay, agent, on_event=lambda event: 1 / 0) as phone:
        assert await phone.ask("?") == "ok"
    assert "the agent's event handler failed" in caplog.text
    assert "the phone's event handler failed" in caplog.text


async def test_a_pairing_that_is_added_as_the_last_one_ends_is_served_at_once_or_next(
    shared_relay: RelayProcess,
) -> None:
    """Whichever moment it is added in: the end of a pairing takes several turns of the loop."""
    agent = agent_for(link := new_link(shared_relay))
    agent.on_chat(_answer_ok)

    async def serve() -> None:
        while True:
            await (agent.serve() if agent.pairings else asyncio.sleep(0))

    task = asyncio.create_task(serve())
    async with asyncio.timeout(2 * SOON):
        for turns in range(12):
            async with phone_for(link) as phone:
                assert await phone.ask("?") == "ok"
            await agent.remove(link)
            for _ in range(turns):
                await asyncio.sleep(0)
            agent.add(link := new_link(shared_relay))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await agent.close()
