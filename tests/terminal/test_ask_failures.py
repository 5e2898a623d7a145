"""`coralmux-phone ask`: why there is no answer, and interrupts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coralmux import BackendError, ChatMessage, FileStore, PairingLink
from tests.support.client import log_in
from tests.support.process import RelayProcess
from tests.terminal.phones import TOKEN, agent_at, endless, run, started

pytestmark = pytest.mark.slow


async def test_what_the_agent_says_went_wrong_is_named(relay: RelayProcess, tmp_path: Path) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        yield "Well"
        raise BackendError("The model\x1b[31m is\nfull.")

    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "-q", "--link", link.uri(), "ask", "hi")
    assert (ended.status, ended.out) == (1, b"Well\n")
    assert ended.err == (
        "coralmux-phone: The agent says: The model [31m is full. (BACKEND_ERROR)\n"
    )


async def test_an_agent_that_is_not_there_is_named_when_the_time_is_up(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    ended = await run(tmp_path, "--link", link.uri(), "ask", "hi", "--timeout", "0.7")
    assert (ended.status, ended.out) == (1, b"")
    assert "The agent is not connected to the relay. Start it" in ended.err


@pytest.mark.slow
async def test_an_agent_that_is_not_there_is_not_waited_for_as_long_as_for_an_answer(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    begun = asyncio.get_running_loop().time()
    ended = await run(tmp_path, "--link", link.uri(), "ask", "hi")
    assert asyncio.get_running_loop().time() - begun > 9
    assert (ended.status, ended.out) == (1, b"")
    assert "Start it" in ended.err


@pytest.mark.slow
async def test_an_agent_that_answers_no_handshake_is_told_from_one_that_is_not_there(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    async with log_in(relay.url, link.token, "agent"):
        ended = await run(tmp_path, "-q", "--link", link.uri(), "ask", "hi", within=60)
    assert (ended.status, ended.out) == (2, b"")
    assert "does not answer the handshake" in ended.err


async def test_a_question_that_is_no_text_is_refused(relay: RelayProcess, tmp_path: Path) -> None:
    link = PairingLink.new(relay.url, TOKEN)
    ended = await run(tmp_path, "--link", link.uri(), "ask", os.fsdecode(b"caf\xe9"))
    assert (ended.status, ended.out) == (1, b"")
    assert "not UTF-8" in ended.err


async def test_a_question_waits_for_an_agent_that_is_on_its_way(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    async with started(tmp_path, "--link", link.uri(), "ask", "hi") as process:
        assert process.stdin
        assert process.stderr
        process.stdin.close()
        async with asyncio.timeout(20):
            while b"Waiting for it" not in await process.stderr.readline():
                pass
            async with agent_at(relay, link=link):
                out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"You said: hi\n")


async def test_a_relay_that_is_not_there_is_named(tmp_path: Path) -> None:
    link = PairingLink.new("ws://127.0.0.1:9/ws", TOKEN)
    ended = await run(tmp_path, "--link", link.uri(), "ask", "hi", "--timeout", "0.5")
    assert (ended.status, ended.out) == (1, b"")
    assert "Nobody listens" in ended.err.splitlines()[-1]


@pytest.mark.slow
async def test_silence_is_an_error_when_the_time_is_up(relay: RelayProcess, tmp_path: Path) -> None:
    async with agent_at(relay, endless) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", "hi", "--timeout", "1")
    assert (ended.status, ended.out) == (1, b"one two \n")
    assert "No answer came within 1 s" in ended.err


async def test_a_state_file_that_cannot_be_read_is_named(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay, store=FileStore(tmp_path / "agent")) as (link, _):
        await run(tmp_path, "--link", link.web(), "ask", "hi")
        (file,) = (tmp_path / "phone").iterdir()
        file.write_text("{")
        ended = await run(tmp_path, "--link", link.web(), "ask", "hi")
    assert (ended.status, ended.out) == (1, b"")
    assert "is damaged" in ended.err
    assert file.read_text() == "{"


async def test_a_state_that_cannot_be_written_ends_it_before_the_question_is_sent(
    relay: RelayProcess, tmp_path: Path
) -> None:
    asked = []

    async def reply(message: ChatMessage) -> str:
        asked.append(message.text)
        return "ok"

    (tmp_path / "phone").symlink_to(tmp_path / "missing" / "too")
    async with agent_at(relay, reply, store=FileStore(tmp_path / "agent")) as (link, _):
        ended = await run(tmp_path, "-q", "--link", link.web(), "ask", "hi")
        by_lines = await run(tmp_path, "-q", "--link", link.web(), stdin=b"hi\n")
    for result in (ended, by_lines):
        assert (result.status, result.out) == (1, b"")
        assert "cannot be written" in result.err
        assert "choose another directory" in result.err
    assert asked == []


async def test_a_reader_who_has_had_enough_ends_the_answer(
    relay: RelayProcess, tmp_path: Path
) -> None:
    stopped = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        try:
            for n in range(100_000):
                yield f"{n}\n"
                await asyncio.sleep(0.001)
        finally:
            stopped.set()

    async with (
        agent_at(relay, reply) as (link, _),
        started(tmp_path, "--link", link.uri(), "ask", "count", "-q") as process,
    ):
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.close()
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"0\n"
            process.stdout._transport.close()  # type: ignore[attr-defined]
            assert await process.wait() == 1
            assert await process.stderr.read() == b""
            await stopped.wait()


# Interrupts


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupt_stops_the_agent_too(
    relay: RelayProcess, tmp_path: Path, number: int, status: int
) -> None:
    stopped = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with (
        agent_at(relay, reply) as (link, _),
        started(tmp_path, "--link", link.uri(), "ask", "count") as process,
    ):
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        async with asyncio.timeout(20):
            assert await process.stdout.readexactly(3) == b"one"
            process.send_signal(number)
            out, err = await process.communicate()
            await stopped.wait()
    assert (process.returncode, out) == (status, b"\n")
    assert err.endswith(b"Cancelled.\n")


async def test_an_interrupt_before_the_question_was_sent_leaves(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    async with started(tmp_path, "--link", link.uri(), "ask", "hi") as process:
        assert process.stdin
        assert process.stderr
        process.stdin.close()
        async with asyncio.timeout(20):
            while b"Waiting for it" not in await process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            out, _ = await process.communicate()
    assert (process.returncode, out) == (130, b"")
