"""A chat without a terminal: every line is a question."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coralmux import BackendError, ChatMessage
from tests.support.process import RelayProcess
from tests.terminal.phones import agent_at, run, started

pytestmark = pytest.mark.slow


async def test_without_a_terminal_every_line_is_a_question(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay) as (link, _):
        ended = await run(tmp_path, "--link", link.web(), stdin="one\n\n  zwei é  \nlast".encode())
    assert ended.out.decode() == "You said: one\nYou said: zwei é\nYou said: last\n"
    assert ended.status == 0
    assert "Verified" in ended.err


async def test_a_line_is_answered_before_the_next_one_is_there(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        agent_at(relay) as (link, _),
        started(tmp_path, "--link", link.web()) as process,
    ):
        assert process.stdin
        assert process.stdout
        async with asyncio.timeout(20):
            for text in (b"one\n", b"two\n"):
                process.stdin.write(text)
                assert await process.stdout.readline() == b"You said: " + text
            process.stdin.close()
            assert await process.wait() == 0


async def test_a_line_that_fails_does_not_end_the_others_and_sets_the_status(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> str:
        if message.text == "bad":
            raise BackendError("No.")
        return "Yes."

    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "--link", link.web(), "-q", stdin=b"bad\ngood\n")
    assert (ended.status, ended.out) == (1, b"Yes.\n")
    assert ended.err == "coralmux-phone: The agent says: No. (BACKEND_ERROR)\n"


async def test_sigterm_ends_a_chat_that_waits_for_lines(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        agent_at(relay) as (link, _),
        started(tmp_path, "--link", link.web()) as process,
    ):
        assert process.stderr
        async with asyncio.timeout(20):
            while b"Verified" not in await process.stderr.readline():
                pass
            process.terminate()
            assert await process.wait() == 143
        assert b"Traceback" not in await process.stderr.read()
