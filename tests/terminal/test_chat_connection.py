"""What a chat at a terminal says of its connection and its pairing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coralmux import FileStore, PairingLink, Phone
from tests.support.field import FieldConnector
from tests.support.process import RelayProcess, relay_process
from tests.terminal.phones import PROMPT, agent_at, run, terminal

pytestmark = pytest.mark.slow


async def test_another_device_takes_the_place_and_connect_takes_it_back(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        agent_at(relay) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        async with Phone.from_link(link) as other:
            await other.ready()
            at = await there.expect("took", "Type /connect to take it back")
            there.type("still there?\r")
            at = await there.expect("took the place of this one", PROMPT, after=at)
            there.type("/connect\r")
            at = await there.expect("Connected again, verified", after=at)
        there.type("hi\r")
        await there.expect("You said: hi", after=at)


async def test_a_revoked_pairing_is_told_and_ends_with_its_status(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        agent_at(relay) as (link, agent),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        await agent.close()
        await there.expect("The agent has left the relay")
        status, _ = relay.http("DELETE", f"/api/v1/pair/{link.token}", admin=True)
        assert status == 204
        await there.expect("revoked or has expired", "/quit leaves")
        at = there.type("/connect\r")
        await there.expect("revoked or has expired", after=at)
        there.type("/quit\r")
        assert await there.ended() == 2


async def test_a_question_waits_for_the_agent_and_can_be_taken_back(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    async with terminal(tmp_path, "--link", link.web()) as there:
        await there.expect("the agent is not. Waiting for it", PROMPT)
        there.type("first\r")
        at = await there.expect("goes out when the agent is there")
        there.type("\x03")
        await there.expect(PROMPT, after=at)
        at = there.type("second\r")
        await there.expect("goes out when the agent is there", after=at)
        async with agent_at(relay, link=link):
            await there.expect("Verified", "You said: second", PROMPT, after=at)
    assert "You said: first" not in there.shown


@pytest.mark.slow
async def test_a_relay_that_restarts_is_waited_for(tmp_path: Path) -> None:
    with relay_process() as relay:
        async with (
            agent_at(relay) as (link, _),
            terminal(tmp_path, "--link", link.web()) as there,
        ):
            await there.expect(PROMPT)
            await asyncio.to_thread(relay.terminate)
            at = await there.expect("Trying again in")
            await asyncio.to_thread(relay.start)
            at = await there.expect("Connected again, verified", after=at)
            there.type("hi\r")
            await there.expect("You said: hi", after=at)


async def test_a_refused_link_opens_no_chat(relay: RelayProcess, tmp_path: Path) -> None:
    async with agent_at(relay, store=FileStore(tmp_path / "agent")) as (link, _):
        await run(tmp_path, "--link", link.web(), "ask", "hi")
        there_is = ("--link", link.web(), "--data-dir", str(tmp_path / "elsewhere"))
        async with terminal(tmp_path, *there_is) as there:
            assert await there.ended() == 2
        by_lines = await run(tmp_path, *there_is, "-q", stdin=b"hi\n")
    assert "Make a new link" in there.shown
    assert (by_lines.status, by_lines.out, by_lines.err.count("\n")) == (2, b"", 1)
    assert "Make a new link" in by_lines.err


async def test_a_token_alone_is_shown_as_not_verified(relay: RelayProcess, tmp_path: Path) -> None:
    token = relay.token()
    link = PairingLink(relay.url, token).field_uri()
    async with FieldConnector(relay.url, token) as agent:
        await agent.connect()
        async with terminal(tmp_path, "--link", link) as there:
            await there.expect("Not verified", PROMPT)
            there.type("hi\r")
            await there.expect("Hello", PROMPT)
