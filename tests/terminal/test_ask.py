"""`coralmux-phone ask`: the answer and nothing else, and why there is none."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coralmux import (
    Attachment,
    BackendError,
    ChatMessage,
    FileStore,
    PairingLink,
    ToolStatus,
)
from tests.support.client import log_in
from tests.support.field import FieldConnector
from tests.support.process import RelayProcess
from tests.terminal.phones import SCRIPT, agent_at, endless, run, started

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2000


async def test_the_installed_command_prints_the_answer_and_nothing_else(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay) as (link, _):
        ended = await run(tmp_path, "--link", link.web(), "ask", "Hello?", command=SCRIPT)
    assert (ended.status, ended.out) == (0, b"You said: Hello?\n")
    assert "Verified" in ended.err
    assert "Agent at home" in ended.err


async def test_quiet_leaves_standard_error_empty(relay: RelayProcess, tmp_path: Path) -> None:
    async with agent_at(relay) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", "-q", "Hello?")
    assert ended == type(ended)(0, b"You said: Hello?\n", "")


@pytest.mark.parametrize("text", ["", "no end", "an end\n", "\n\n", "🪸 é\r\n"])
async def test_an_answer_ends_with_a_line_feed_and_is_else_unchanged(
    relay: RelayProcess, tmp_path: Path, text: str
) -> None:
    async def reply(message: ChatMessage) -> str:
        return text

    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", "x")
    assert ended.out.decode() == (text if not text or text.endswith("\n") else text + "\n")
    assert ended.status == 0


async def test_a_pipe_gets_control_characters_as_the_agent_sent_them(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        yield "\x1b[2J\x1b]0;title\x07"
        yield "red\x9b31m\x00\r\n"

    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", "x")
    assert ended.out == "\x1b[2J\x1b]0;title\x07red\x9b31m\x00\r\n".encode()


async def test_deltas_are_written_as_they_come(relay: RelayProcess, tmp_path: Path) -> None:
    more = asyncio.Event()

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        yield "first"
        await more.wait()
        yield " second"

    async with (
        agent_at(relay, reply) as (link, _),
        started(tmp_path, "--link", link.uri(), "ask", "x") as process,
    ):
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.close()
        async with asyncio.timeout(20):
            assert await process.stdout.read(5) == b"first", await process.stderr.read()
            more.set()
            assert await process.stdout.read() == b" second\n"
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "piped", "asked"),
    [
        ([], b"hi\n", "hi"),
        (["-"], b"a\nb\n\n", "a\nb"),
        (["What", "is", "this?"], b"diff\n", "What is this?\n\ndiff"),
        (["What is this?"], b"", "What is this?"),
        (["What is this?"], b"\n", "What is this?"),
    ],
)
async def test_a_question_is_typed_or_piped_or_both(
    relay: RelayProcess, tmp_path: Path, arguments: list[str], piped: bytes, asked: str
) -> None:
    got = []

    async def reply(message: ChatMessage) -> str:
        got.append(message.text)
        return "ok"

    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", *arguments, stdin=piped)
    assert (ended.status, ended.out, got) == (0, b"ok\n", [asked])


@pytest.mark.parametrize("piped", [b"", b" \n"])
async def test_no_question_is_an_error(relay: RelayProcess, tmp_path: Path, piped: bytes) -> None:
    link = PairingLink.new(relay.url, "oc_pair_" + "0" * 32)
    ended = await run(tmp_path, "--link", link.uri(), "ask", stdin=piped)
    assert (ended.status, ended.out) == (1, b"")
    assert "There is no question" in ended.err


async def test_piped_bytes_that_are_no_text_are_refused(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, "oc_pair_" + "0" * 32)
    ended = await run(tmp_path, "--link", link.uri(), "ask", stdin=PICTURE)
    assert (ended.status, ended.out) == (1, b"")
    assert "--image" in ended.err


# Links


@pytest.mark.parametrize("way", ["environment", "file", "standard input", "behind ask"])
async def test_the_link_need_not_stand_on_the_command_line(
    relay: RelayProcess, tmp_path: Path, way: str
) -> None:
    async with agent_at(relay) as (link, _):
        if way == "environment":
            ended = await run(tmp_path, "ask", "hi", CORALMUX_LINK=link.web())
        elif way == "file":
            file = tmp_path / "link"
            file.write_text(link.web() + "\n")
            file.chmod(0o600)
            wrong = "coralmux://pair?nonsense"
            ended = await run(tmp_path, "--link-file", str(file), "ask", "hi", CORALMUX_LINK=wrong)
            assert "chmod" not in ended.err
        elif way == "standard input":
            piped = f"{link.web()}\nwhat follows".encode()
            ended = await run(tmp_path, "--link", "-", "ask", "hi", stdin=piped)
        else:
            ended = await run(tmp_path, "ask", "--link", link.web(), "hi")
    piped_too = way == "standard input"
    assert ended.out == (b"You said: hi\n\nwhat follows\n" if piped_too else b"You said: hi\n")
    assert ended.status == 0


async def test_a_link_file_that_others_may_read_is_worth_a_warning(
    relay: RelayProcess, tmp_path: Path
) -> None:
    file = tmp_path / "link"
    async with agent_at(relay) as (link, _):
        file.write_text(link.web())
        file.chmod(0o644)
        ended = await run(tmp_path, "--link-file", str(file), "ask", "hi")
    assert (ended.status, ended.out) == (0, b"You said: hi\n")
    assert "chmod 600" in ended.err


TOKEN, SECRET = "oc_pair_0123456789abcdef0123456789abcdef", "A" * 42 + "B"
FRAGMENT = f"token={TOKEN}&psk={SECRET}"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--link", f"https://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 2),
        (["--link", f"ftp://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 2),
        (["--link", f"https://relay.example.com/phone?{FRAGMENT}", "ask", "hi"], 2),
        (["--link", "https://relay.example.com/phone#token", "ask", "hi"], 2),
        ([f"https://relay.example.com/phone#{FRAGMENT}"], 1),
        (["ask", "--timeout", f"https://relay.example.com/phone#{FRAGMENT}", "hi"], 1),
        ([f"--lnk=https://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 1),
        ([f"--https://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 1),
        (["ask", "hi"], 1),
    ],
)
async def test_a_link_that_is_none_is_refused_without_being_repeated(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    ended = await run(tmp_path, *arguments)
    assert (ended.status, ended.out) == (status, b""), ended.err
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("coralmux-phone: ")
    for confidential in (TOKEN[8:], SECRET):
        assert confidential not in ended.err


# The pairing


async def test_the_same_link_works_again_after_the_agent_changed_its_secret(
    relay: RelayProcess, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with agent_at(relay, store=FileStore(tmp_path / "agent")) as (link, _):
        for _ in range(2):
            ended = await run(home, "--link", link.web(), "ask", "hi")
            assert (ended.status, ended.out) == (0, b"You said: hi\n"), ended.err
    (file,) = [path for path in home.rglob("*") if path.is_file()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    content = file.read_text()
    assert link.token not in content
    assert link.token not in file.name
    assert link.web().rpartition("psk=")[2] not in content


async def test_a_used_link_is_refused_elsewhere_in_words_that_say_what_to_do(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay, store=FileStore(tmp_path / "agent")) as (link, _):
        await run(tmp_path, "--link", link.web(), "ask", "hi", "--data-dir", str(tmp_path / "a"))
        ended = await run(
            tmp_path, "-q", "--link", link.web(), "ask", "hi", "--data-dir", str(tmp_path / "b")
        )
    assert (ended.status, ended.out) == (2, b"")
    assert ended.err.count("\n") == 1
    assert "used before" in ended.err
    assert "Make a new link" in ended.err
    assert (tmp_path / "a" / "phone").is_dir()
    assert not (tmp_path / "b").exists()


async def test_a_token_that_the_relay_does_not_know_is_refused(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, TOKEN)
    ended = await run(tmp_path, "--link", link.uri(), "ask", "hi")
    assert (ended.status, ended.out) == (2, b"")
    assert "does not take this token" in ended.err
    assert TOKEN not in ended.err


async def test_an_agent_that_takes_only_secrets_refuses_a_token_alone(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay) as (link, _):
        bare = link.with_secret(None).uri()
        ended = await run(tmp_path, "--link", bare, "ask", "hi", "-q")
    assert (ended.status, ended.out) == (2, b"")
    assert "Pair by its link" in ended.err


@pytest.mark.slow
async def test_an_agent_that_knows_no_secrets_is_never_talked_to_without(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    async with FieldConnector(relay.url, link.token) as agent:
        await agent.connect()
        ended = await run(tmp_path, "--link", link.uri(), "ask", "hi", "-q")
        assert agent.chats == []
    assert (ended.status, ended.out) == (2, b"")
    assert "could not encrypt with a pairing secret" in ended.err
    assert ended.err.count("\n") == 1


async def test_a_pairing_by_token_alone_works_and_is_called_not_verified(
    relay: RelayProcess, tmp_path: Path
) -> None:
    token = relay.token()
    async with FieldConnector(relay.url, token, reply=("Hel", "lo"), tools=["search"]) as agent:
        await agent.connect()
        ended = await run(
            tmp_path, "--link", PairingLink(relay.url, token).field_uri(), "ask", "hi"
        )
    assert (ended.status, ended.out) == (0, b"Hello\n")
    assert "Not verified" in ended.err
    assert "search: running\nsearch: done\n" in ended.err


# What goes wrong


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


# JSON


async def test_json_tells_everything_one_object_a_line(relay: RelayProcess, tmp_path: Path) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[object]:
        yield "Look:\u2028 "
        yield ToolStatus("search")
        yield ToolStatus("search", "done")
        yield "\x1b[2Jé"
        yield Attachment.from_bytes(PICTURE, name="reef.png")
        message.usage["output_tokens"] = 3

    async with agent_at(relay, reply) as (link, _):
        ended = await run(
            tmp_path, "--link", link.uri(), "ask", "x", "--json", "-q", "--save", "kept"
        )
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert "".join(line["text"] for line in lines if line["type"] == "delta") == (
        "Look:\u2028 \x1b[2Jé"
    )
    assert [line for line in lines if line["type"] == "tool"] == [
        {"type": "tool", "tool": "search", "status": status} for status in ("running", "done")
    ]
    assert [line["type"] for line in lines] == ["delta", "tool", "tool", "delta", "done"]
    path = "kept/reef.png"
    assert lines[-1] == {
        "type": "done",
        "text": "Look:\u2028 \x1b[2Jé",
        "cancelled": False,
        "usage": {"output_tokens": 3},
        "attachments": [
            {
                "name": "reef.png",
                "mime_type": "image/png",
                "size": len(PICTURE),
                "sha256": hashlib.sha256(PICTURE).hexdigest(),
                "path": path,
            }
        ],
    }
    assert (tmp_path / path).read_bytes() == PICTURE
    assert ended.out.isascii()
    assert (ended.status, ended.err) == (0, "")


async def test_json_tells_errors_too(relay: RelayProcess, tmp_path: Path) -> None:
    async def reply(message: ChatMessage) -> str:
        raise BackendError("The model is full.")

    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", "x", "--json", "-q")
    assert json.loads(ended.out) == {
        "type": "error",
        "code": "BACKEND_ERROR",
        "message": "The agent says: The model is full. (BACKEND_ERROR)",
        "status": 1,
    }
    assert ended.status == 1
    assert "The model is full." in ended.err


# Files


async def test_pictures_arrive_whole_and_their_progress_is_shown(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> str:
        return " ".join(
            f"{item.name} {item.sha256}"
            for item in message.attachments
            if isinstance(item, Attachment)
        )

    pictures = {"a reef.png": PICTURE, "b.png": PICTURE[:1000]}
    for name, data in pictures.items():
        (tmp_path / name).write_bytes(data)
    async with agent_at(relay, reply) as (link, _):
        ended = await run(
            tmp_path, "--link", link.uri(), "--image", "a reef.png", "ask", "--image", "b.png"
        )
    wanted = " ".join(f"{name} {hashlib.sha256(d).hexdigest()}" for name, d in pictures.items())
    assert (ended.status, ended.out.decode()) == (0, wanted + "\n")
    shown = [line for line in ended.err.splitlines() if line.startswith("a reef.png: ")]
    assert shown[-1] == "a reef.png: 100 %"
    assert 3 <= len(shown) <= 5


@pytest.mark.parametrize("name", ["missing.png", "folder", "large.png"])
async def test_what_cannot_be_sent_is_named_before_anything_is(
    relay: RelayProcess, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(25_000_001)
    link = PairingLink.new(relay.url, TOKEN)
    ended = await run(tmp_path, "--link", link.uri(), "ask", "x", "--image", name)
    assert (ended.status, ended.out) == (1, b"")
    assert name in ended.err
    assert ended.err.count("\n") == 1


async def test_files_of_an_answer_are_saved_beside_what_is_there(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def reply(message: ChatMessage) -> AsyncIterator[object]:
        yield "Here"
        yield Attachment("../reef.png", "image/png", PICTURE)

    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "reef.png").write_text("mine")
    async with agent_at(relay, reply) as (link, _):
        ended = await run(tmp_path, "--link", link.uri(), "ask", "x", "--save", "kept")
        unsaved = await run(tmp_path, "--link", link.uri(), "ask", "x")
    assert (ended.status, ended.out) == (0, b"Here\n")
    assert (kept / "reef.png").read_text() == "mine"
    assert (kept / "reef (2).png").read_bytes() == PICTURE
    assert os.listdir(kept) in (["reef.png", "reef (2).png"], ["reef (2).png", "reef.png"])
    assert (unsaved.status, unsaved.out) == (0, b"Here\n")
    assert "1 attachment came with the answer: reef.png (512 kB). Ask with --save DIR" in (
        unsaved.err
    )


async def test_a_long_answer_comes_whole_through_a_slow_reader(
    relay: RelayProcess, tmp_path: Path
) -> None:
    words = [f"{n} " for n in range(40_000)]

    async def reply(message: ChatMessage) -> AsyncIterator[str]:
        for word in words:
            yield word

    async with (
        agent_at(relay, reply) as (link, _),
        started(tmp_path, "--link", link.uri(), "ask", "count", "-q") as process,
    ):
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        got = b""
        async with asyncio.timeout(60):
            while data := await process.stdout.read(20_000):
                got += data
                await asyncio.sleep(0.005)
            assert await process.wait() == 0
    assert got.decode() == "".join(words) + "\n"


async def test_help_teaches_by_example(tmp_path: Path) -> None:
    ended = await run(tmp_path, "--help")
    for text in (b"#token=...&psk=...", b"Exit status:", b"CORALMUX_LINK", b"git diff |"):
        assert text in ended.out
    assert (await run(tmp_path, "ask", "--help")).out.count(b"piped") >= 2


async def test_without_its_packages_the_command_says_what_to_install(tmp_path: Path) -> None:
    blocked = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name: None if name == 'rich' else find(name);"
        "sys.argv = ['coralmux-phone', '--help'];"
        "from coralmux.terminal.cli import main; main()"
    )
    ended = await run(tmp_path, command=(sys.executable, "-c", blocked))
    assert (ended.status, ended.out) == (1, b"")
    assert ended.err == "coralmux-phone needs: pip install 'coralmux[phone]'\n"
