"""The backend `command`: what a program gets, and what becomes of what it says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, BackendError, Turn
from coralmux.bridge import Backend, Place, Question
from coralmux.bridge.answering import kind_of
from coralmux.bridge.backend import Piece
from coralmux.bridge.backends import BackendUnusable, make

PICTURE = Attachment("cat.gif", "image/gif", b"GIF89a" + bytes(60_000))


def python(source: str) -> list[str]:
    """A command that runs this program."""
    return [sys.executable, "-u", "-c", source]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "backend")


def command(place: Place, source: str, **settings: Any) -> Backend:
    return make("command", {"command": python(source), **settings}, place)


async def answer(backend: Backend, text: str = "Hello", **question: Any) -> str:
    pieces = [piece async for piece in backend.reply(Question("q", "p" * 32, text, **question))]
    assert all(isinstance(piece, str) for piece in pieces)
    return "".join(map(str, pieces))


async def failure(replies: AsyncGenerator[Piece, None]) -> tuple[str, str]:
    """What was said, and the sentence with which it ended."""
    said = ""
    try:
        async for piece in replies:
            said += str(piece)
    except BackendError as error:
        return said, str(error)
    pytest.fail(f"There was no failure behind {said!r}.")


async def test_the_message_is_on_standard_input_and_ends_there(place: Place) -> None:
    upper = command(place, "import sys; print(sys.stdin.read().upper(), end='')")
    assert await answer(upper, "Grüße, 🪸\nand more") == "GRÜSSE, 🪸\nAND MORE"


async def test_a_command_may_be_one_line_with_quotes(place: Place) -> None:
    echo = make("command", {"command": "printf '%s|' 'one word' two"}, place)
    assert await answer(echo) == "one word|two|"


async def test_the_answer_comes_as_it_is_printed(place: Place, tmp_path: Path) -> None:
    # The program goes on only when the first half of its answer has arrived here.
    go_on = tmp_path / "go-on"
    os.mkfifo(go_on)
    source = f"print('first', end=''); open({str(go_on)!r}).read(); print(' second', end='')"
    reply = command(place, source).reply(Question("q", "p", "Hello"))
    assert await anext(reply) == "first"
    await asyncio.to_thread(go_on.write_text, "now")
    assert [piece async for piece in reply] == [" second"]


async def test_a_character_in_two_parts_is_one_and_what_is_no_utf8_is_marked(
    place: Place, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    os.mkfifo(go_on)
    source = (
        "import os\n"
        "os.write(1, b'a\\xf0\\x9f')\n"
        f"open({str(go_on)!r}).read()\n"
        "os.write(1, b'\\xaa\\xb8 \\xff! \\xc3')"
    )
    reply = command(place, source).reply(Question("q", "p", "Hello"))
    assert await anext(reply) == "a"
    await asyncio.to_thread(go_on.write_text, "now")
    assert "".join([str(piece) async for piece in reply]) == "🪸 �! �"


async def test_a_long_answer_is_whole(place: Place) -> None:
    numbers = command(place, "for n in range(200_000): print(n)")
    assert await answer(numbers) == "".join(f"{n}\n" for n in range(200_000))


async def test_a_program_waits_for_an_answer_that_nobody_takes(
    place: Place, tmp_path: Path
) -> None:
    # It notes down how far it has come whenever it has printed 64 KiB.
    (far := tmp_path / "far").write_text("0")
    source = (
        "import os\n"
        "for n in range(1, 64):\n"
        "    os.write(1, b'x' * 65536)\n"
        f"    open({str(far)!r}, 'r+').write(f'{{n:03}}')"
    )
    reply = command(place, source).reply(Question("q", "p", "Hello"))
    said = len(str(await anext(reply)))
    before = -1
    while before != (before := int(far.read_text())):
        await asyncio.sleep(0.2)
    # One pipe, one buffer here and one piece that is being printed, not the 4 MB.
    assert before * 65536 <= said + 4 * 65536
    async for piece in reply:
        said += len(str(piece))
    assert said == 63 * 65536


async def test_a_long_message_that_a_program_does_not_read_is_no_error(place: Place) -> None:
    assert await answer(command(place, "print('no matter')"), "x" * 4_000_000) == "no matter\n"


async def test_json_tells_of_the_conversation_and_who_asks(place: Place) -> None:
    told = command(place, "import sys; print(sys.stdin.read())", stdin="json")
    said = await answer(
        told, "And now?", history=(Turn(role="user", content="Before"),), agent_id="writer"
    )
    assert json.loads(said) == {
        "text": "And now?",
        "history": [{"role": "user", "content": "Before"}],
        "agent": "writer",
        "phone": "p" * 32,
        "attachments": [],
    }


async def test_attachments_are_files_while_the_program_runs(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files := tmp_path / "files").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    source = (
        "import os, pathlib\n"
        "for path in os.environ['CORALMUX_ATTACHMENTS'].split(os.pathsep):\n"
        "    private = pathlib.Path(path).parents[1].stat().st_mode\n"
        "    print(path, os.path.getsize(path), oct(private))"
    )
    note = Attachment(f"a note{os.pathsep} mine.txt", "text/plain", b"12345")
    said = await answer(command(place, source), attachments=(PICTURE, PICTURE, note))
    rows = [line.rsplit(" ", 2) for line in said.splitlines()]
    assert [Path(path).name for path, *_ in rows] == ["cat.gif", "cat.gif", "a note_ mine.txt"]
    assert [size for _, size, _ in rows] == ["60006", "60006", "5"]
    assert {mode for *_, mode in rows} == {"0o40700"}
    assert len({path for path, *_ in rows}) == 3
    assert {Path(path).parents[2] for path, *_ in rows} == {files}
    assert not os.listdir(files)


async def test_settings_of_the_bridge_stay_its_own(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CORALMUX_LINK", "a secret")
    monkeypatch.setenv("CORALMUX_AGENT_OPENAI_API_KEY", "a secret")
    monkeypatch.setenv("CORALMUX_ADMIN_KEY", "a secret")
    monkeypatch.setenv("HOME_OF_MINE", "kept")
    source = "import json, os; print(json.dumps({**os.environ, 'at': os.getcwd()}))"
    settings = {"env": {"MORE": "added", "HOME": "/elsewhere"}, "directory": str(tmp_path)}
    environment = json.loads(await answer(command(place, source, **settings)))
    assert "a secret" not in environment.values()
    assert {
        name: environment[name]
        for name in ("HOME_OF_MINE", "MORE", "HOME", "CORALMUX_ATTACHMENTS", "at")
    } == {
        "HOME_OF_MINE": "kept",
        "MORE": "added",
        "HOME": "/elsewhere",
        "CORALMUX_ATTACHMENTS": "",
        "at": str(tmp_path),
    }


async def test_a_program_that_fails_leaves_what_it_said_and_its_last_words(place: Place) -> None:
    source = (
        "import sys; print('Half of it'); "
        "sys.stderr.write('Traceback:\\n  \\x1b[31mno space ' + 'x' * 400 + '\\n\\n'); sys.exit(3)"
    )
    said, sentence = await failure(command(place, source).reply(Question("q", "p", "Hello")))
    assert said == "Half of it\n"
    assert sentence.startswith("The agent's program ended with status 3: [31mno space xxx")
    assert len(sentence) < 350


async def test_a_program_that_fails_without_a_word_is_told(place: Place) -> None:
    _, sentence = await failure(
        command(place, "raise SystemExit(4)").reply(Question("q", "p", "Hello"))
    )
    assert sentence == "The agent's program ended with status 4 and gave no reason."


async def test_of_a_program_that_fails_its_end_is_logged_and_not_its_words(place: Place) -> None:
    asked = command(place, "raise SystemExit('nobody may read this')").reply(
        Question("q", "p", "Hello")
    )
    with pytest.raises(BackendError, match="nobody may read this") as caught:
        await anext(asked)
    assert kind_of(caught.value) == "the program ended with status 1"


async def test_a_program_that_is_killed_is_told_by_the_name_of_the_signal(place: Place) -> None:
    source = "import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    said, sentence = await failure(command(place, source).reply(Question("q", "p", "Hello")))
    assert said == "so far\n"
    assert sentence.startswith("The agent's program ended by SIGSEGV")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"command": "no-such-program --now"}, "no-such-program is not there. Install it"),
        ({"command": "./bot.sh"}, "./bot.sh may not be executed. Type: chmod \\+x .*/bot.sh"),
        ({"command": "./bare"}, "cannot be started: Exec format error. A script needs"),
        ({"command": "true", "directory": "nowhere"}, "directory .*nowhere.* does not exist"),
    ],
)
async def test_what_cannot_be_started_is_told_in_a_sentence(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "bot.sh").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "bare").write_text("echo hello\n")
    (tmp_path / "bare").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    backend = make("command", settings, place)
    with pytest.raises(BackendError, match=sentence):
        await answer(backend)
    findings = [finding async for finding in backend.check()]
    assert [finding.good for finding in findings] == ["bare" in settings["command"]]
    assert not [name for name in os.listdir(tmp_path) if name.startswith("coralmux-")], (
        "a directory for attachments was left"
    )


async def test_a_program_named_by_a_path_is_looked_for_where_it_runs(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "bot.sh").write_text("#!/bin/sh\necho here\n")
    (tmp_path / "bot.sh").chmod(0o755)
    backend = make("command", {"command": "./bot.sh", "directory": str(tmp_path)}, place)
    assert await answer(backend) == "here\n"
    [finding] = [finding async for finding in backend.check()]
    assert (finding.good, finding.text) == (True, f"The program is {tmp_path / 'bot.sh'}.")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "needs the setting 'command'"),
        ({"command": "say 'hello"}, "a quote is opened"),
        ({"command": ""}, "names no program"),
        ({"command": []}, "names no program"),
        ({"command": "true", "timeout_seconds": 0}, r"\[command\] timeout_seconds: "),
        ({"command": "true", "stdin": "yaml"}, r"\[command\] stdin: "),
        ({"command": "true", "env": {"DEBUG": 1}}, r"\[command\] env"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    place: Place, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BackendUnusable, match=sentence):
        make("command", settings, place)
