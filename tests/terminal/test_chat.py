"""`coralmux-phone` as a chat: at a terminal, and by lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coralmux import (
    Attachment,
    BackendError,
    ChatMessage,
    FileStore,
    PairingLink,
    Phone,
    Request,
    ToolStatus,
)
from tests.support.field import FieldConnector
from tests.support.process import RelayProcess, relay_process
from tests.terminal.phones import agent_at, endless, run, started, terminal

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100_000)
# As prompt_toolkit draws it.
PROMPT = "\x1b[0m>"


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


async def test_ctrl_c_at_a_terminal_cancels_ask(relay: RelayProcess, tmp_path: Path) -> None:
    async with (
        agent_at(relay, endless) as (link, _),
        terminal(tmp_path, "--link", link.web(), "ask", "x") as there,
    ):
        await there.expect("one", "two")
        there.type("\x03")
        assert await there.ended() == 130
    assert "Cancelled." in there.shown


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


# By lines


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
