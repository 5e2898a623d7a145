"""`coralmux-phone` as a chat at a terminal: what it shows, its commands, its pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coralmux import Attachment, BackendError, ChatMessage, Request, ToolStatus
from tests.support.process import RelayProcess
from tests.terminal.phones import PROMPT, agent_at, terminal

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100_000)


async def test_a_chat_shows_who_answers_the_tools_and_the_answer_as_it_comes(
    relay: RelayProcess, tmp_path: Path
) -> None:
    more = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[object]:
        yield ToolStatus("search")
        yield ToolStatus("search", "done")
        yield f"About {message.text}: first"
        await more.wait()
        yield " second"

    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect("Connecting to", "Agent at home", "Verified", PROMPT)
        asked = there.type("corals\r")
        await there.expect(
            "search: …", "\r\x1b[K", "search: done", "About corals: first", after=asked
        )
        assert " second" not in there.shown
        more.set()
        await there.expect(" second", PROMPT, after=asked)
        there.type("/quit\r")
        assert await there.ended() == 0


@pytest.mark.parametrize("key", ["\x03", "\x04"])
async def test_one_leaves_at_the_empty_prompt_by_one_key(
    relay: RelayProcess, tmp_path: Path, key: str
) -> None:
    async with (
        agent_at(relay) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        there.type(key)
        assert await there.ended() == 0
        assert there.echoes()
    assert "Traceback" not in there.shown


async def test_a_link_can_be_typed_without_being_shown(relay: RelayProcess, tmp_path: Path) -> None:
    async with (
        agent_at(relay) as (link, _),
        terminal(tmp_path, "--link", "-", "ask", "hi") as there,
    ):
        await there.expect("Pairing link (not shown): ")
        there.type(link.web() + "\n")
        await there.expect("You said: hi")
        assert await there.ended() == 0
    assert link.token not in there.shown


async def test_what_is_typed_during_an_answer_is_asked_next(
    relay: RelayProcess, tmp_path: Path
) -> None:
    more = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        yield f"({message.text} "
        await more.wait()
        yield "answered)"

    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web()) as there,
    ):
        await there.expect(PROMPT)
        there.type("first\r")
        typed = await there.expect("(first ")
        there.type("second\r")
        more.set()
        end = await there.expect("answered)", "(second answered)", after=typed)
        assert there.shown[typed:end].index("answered)") < there.shown[typed:end].index("second")


async def test_escape_sequences_of_the_agent_do_not_reach_the_terminal(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[object]:
        yield ToolStatus("\x1b]0;owned\x07tool")
        yield "\x1b]0;own"
        yield "ed\x07\x9b2J\x08\rtext\tand\nlines"
        raise BackendError("\x1b]0;owned\x07 failed")

    async with (
        agent_at(relay, reply) as (link, agent),
        terminal(tmp_path, "--link", link.web()) as there,
    ):

        @agent.on("agent.list")
        async def _(request: Request) -> dict[str, object]:
            return {"agents": [{"id": "\x1b]0;owned\x07", "name": "\x1b]0;owned\x07"}]}

        await there.expect(PROMPT)
        asked = there.type("x\r")
        await there.expect("]0;owned2Jtext", "and", "lines", "failed", PROMPT, after=asked)
        there.type("/agents\r")
        await there.expect("]0;owned: ]0;owned", PROMPT)
        for evil in ("\x1b]0;owned", "\x07", "\x9b", "\x08ed"):
            assert evil not in there.shown.replace("\x1b]0;\x07", "")


async def test_ask_at_a_terminal_filters_too(relay: RelayProcess, tmp_path: Path) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[object]:
        yield "one"
        yield ToolStatus("look\x1b[2Jing")
        yield "\x1b[2J\x9b2Jtwo\n"

    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web(), "ask", "x") as there,
    ):
        assert await there.ended() == 0
    assert "\x1b[2J" not in there.shown
    assert "\x9b" not in there.shown
    end = there.shown[there.shown.index("one") :].replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert end == "one\r\n\r\x1b[Klook [2Jing: …\r\n[2J2Jtwo\r\n"


async def test_the_commands_ask_the_agent(relay: RelayProcess, tmp_path: Path) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[object]:
        yield f"{message.agent_id or 'nobody'} was asked {message.text}"
        yield Attachment("reef.png", "image/png", PICTURE)

    async with (
        agent_at(relay, reply) as (link, agent),
        terminal(tmp_path, "--link", link.web()) as there,
    ):

        @agent.on("agent.list")
        async def _(request: Request) -> dict[str, object]:
            return {"agents": [{"id": "cook", "name": "The cook", "model": "large"}]}

        @agent.on("chat.history")
        async def _(request: Request) -> dict[str, object]:
            assert request.payload == {"agent_id": "cook", "limit": 20}
            said = {"role": "user", "content": "soup?", "timestamp": 1_700_000_000_000}
            return {"messages": [said]}

        @agent.on("system.status")
        async def _(request: Request) -> dict[str, object]:
            return {"cpu_percent": 12.3, "uptime_seconds": 7200}

        await there.expect(PROMPT)
        for typed, shown in {
            "/help": "/image FILE",
            "/nonsense": "There is no /nonsense",
            "caf\udce9": "asked caf?",
            "/agents": "cook: The cook (large)",
            "/agent thief": "There is no agent thief",
            "/agent cook": "Questions go to cook",
            "/history": "user: soup?",
            "/status": "CPU 12 %, up for 2 h",
            "//etc?": "cook was asked /etc?",
            "/save": "Where to?",
            "/save kept ": "Saved kept/reef.png",
        }.items():
            begun = there.type(typed + "\r")
            await there.expect(shown, PROMPT, after=begun)
    assert (tmp_path / "kept" / "reef.png").read_bytes() == PICTURE


# Pictures


async def test_a_picture_goes_with_the_next_question_and_a_bar_shows_how_far(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> str:
        return f"{len(message.attachments)} for {message.text}."

    (tmp_path / "my reef.png").write_bytes(PICTURE)
    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web(), "--image", "my reef.png") as there,
    ):
        await there.expect(PROMPT)
        there.type("a\r")
        at = await there.expect("my reef.png", "100%", "1 for a.", PROMPT)
        there.type("b\r")
        at = await there.expect("0 for b.", PROMPT, after=at)
        there.type("/image nothing.png\r")
        at = await there.expect("nothing.png: No such file", PROMPT, after=at)
        there.type("/image my\\ reef.png\r")
        at = await there.expect("goes with the next question", PROMPT, after=at)
        there.type("c\r")
        await there.expect("1 for c.", PROMPT, after=at)


async def test_ctrl_c_while_a_picture_is_on_its_way_asks_nothing(
    relay: RelayProcess, tmp_path: Path
) -> None:
    asked = []

    async def reply(message: ChatMessage) -> str:
        asked.append(message.text)
        return f"{len(message.attachments)} for {message.text}."

    (tmp_path / "a.png").write_bytes(PICTURE[:8] + bytes(24_000_000))
    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web(), "--image", "a.png") as there,
    ):
        await there.expect(PROMPT)
        there.type("first\r")
        at = await there.expect("a.png", "%")
        there.type("\x03")
        at = await there.expect("Cancelled.", PROMPT, after=at)
        there.type("second\r")
        await there.expect("0 for second.", PROMPT, after=at)
    assert asked == ["second"]


async def test_a_picture_that_did_not_go_out_stays_and_can_be_dropped(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> str:
        if message.text == "bad":
            raise BackendError("No.")
        return f"{len(message.attachments)} for {message.text}."

    (tmp_path / "a.png").write_bytes(PICTURE)
    async with (
        agent_at(relay, reply) as (link, _),
        terminal(tmp_path, "--link", link.web(), "--image", "a.png") as there,
    ):
        at = await there.expect(PROMPT)
        for typed, shown in (
            ("\r", PROMPT),
            ("bad\r", "The files stay"),
            ("good\r", "1 for good."),
            ("/image a.png\r", "goes with the next question"),
            ("/image\r", "No file goes"),
            ("last\r", "0 for last."),
        ):
            there.type(typed)
            at = await there.expect(shown, after=at)
            at = await there.expect(PROMPT, after=at) if shown != PROMPT else at
