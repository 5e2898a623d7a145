"""`coralmux-phone ask`: questions of every kind, the answer and nothing else, files and JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coralmux import Attachment, BackendError, ChatMessage, PairingLink, ToolStatus
from tests.support.process import RelayProcess
from tests.terminal.phones import SCRIPT, TOKEN, agent_at, run, started

# Each test starts a program of its own.
pytestmark = pytest.mark.slow

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
