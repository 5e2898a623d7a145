"""Ctrl-C at a terminal: it empties a line, cancels an answer, and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coralmux import ChatMessage
from tests.support.process import RelayProcess
from tests.terminal.phones import PROMPT, agent_at, endless, terminal

pytestmark = pytest.mark.slow


async def test_ctrl_c_in_a_line_that_was_begun_empties_it(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        agent_at(relay) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        there.type("not this")
        await there.expect("not this")
        asked = there.type("\x03that\r")
        await there.expect("You said: that", after=asked)
        assert "You said: not this" not in there.shown


async def test_ctrl_c_cancels_the_answer_and_the_chat_goes_on(
    relay: RelayProcess, tmp_path: Path
) -> None:
    stopped = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        if message.text == "short":
            yield "done at once"
            return
        try:
            yield "one "
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        there.type("long\r")
        await there.expect("one ")
        assert not there.echoes()
        cancelled = there.type("\x03")
        async with asyncio.timeout(10):
            await stopped.wait()
        await there.expect("Cancelled.", PROMPT, after=cancelled)
        asked = there.type("short\r")
        await there.expect("done at once", PROMPT, after=asked)
        there.type("\x03")
        assert await there.ended() == 0
        assert there.echoes()


async def test_a_second_ctrl_c_leaves_while_the_agent_has_not_stopped(
    relay: RelayProcess, tmp_path: Path
) -> None:
    asked_to_stop, let_go = asyncio.Event(), asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        try:
            yield "one "
            await asyncio.Event().wait()
        finally:
            asked_to_stop.set()
            await let_go.wait()

    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        there.type("long\r")
        await there.expect("one ")
        there.type("\x03")
        async with asyncio.timeout(10):
            await asked_to_stop.wait()
        there.type("\x03")
        assert await there.ended() == 0
        assert there.echoes()
        let_go.set()
    assert "Traceback" not in there.shown


async def test_an_agent_that_does_not_stop_is_left_to_itself(
    relay: RelayProcess, tmp_path: Path
) -> None:
    let_go = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        try:
            yield f"({message.text})"
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        there.type("first\r")
        await there.expect("(first)")
        at = there.type("\x03")
        at = await there.expect("Cancelled.", PROMPT, after=at)
        there.type("second\r")
        await there.expect("(second)", after=at)
        let_go.set()


async def test_ctrl_c_at_a_terminal_cancels_ask(relay: RelayProcess, tmp_path: Path) -> None:
    async with (
        agent_at(relay, endless) as (link, _),
        terminal(tmp_path, "--link", link.web(), "ask", "x") as there,
    ):
        await there.expect("one", "two")
        there.type("\x03")
        assert await there.ended() == 130
    assert "Cancelled." in there.shown
