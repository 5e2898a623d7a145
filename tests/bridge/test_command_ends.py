"""The backend `command` leaves nobody behind: cancelled, too slow, abandoned, with children."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from coralmux import BackendError
from coralmux.bridge import Place, Question
from coralmux.bridge.backends import make
from coralmux.bridge.backends.command import CommandBackend
from tests.support.waiting import eventually

QUESTION = Question("q", "p" * 32, "Hello")

# A program with a child and a grandchild; each names itself, and waits for ever.
FAMILY = """
import os, signal, subprocess, sys, time
{first}
more = int(sys.argv[1])
if more:
    subprocess.Popen([sys.executable, "-u", sys.argv[2], str(more - 1), sys.argv[2]])
os.write(1, f"<{{os.getpid()}}>".encode())
{last}
"""
WAITS = "time.sleep(60)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.fixture
def family(tmp_path: Path) -> Callable[..., CommandBackend]:
    """A backend that runs such a program."""

    def run(first: str = "", last: str = WAITS, timeout_seconds: float = 600) -> CommandBackend:
        script = tmp_path / "family.py"
        script.write_text(FAMILY.format(first=first, last=last))
        settings = {
            "command": [sys.executable, "-u", str(script), "2", str(script)],
            "timeout_seconds": timeout_seconds,
        }
        made = make("command", settings, Place(tmp_path))
        assert isinstance(made, CommandBackend)
        return made

    return run


class Listener:
    """Takes an answer in a task of its own."""

    def __init__(self, backend: CommandBackend) -> None:
        self.heard = ""
        self._more = asyncio.Event()
        self.task = asyncio.create_task(self._listen(backend))

    async def _listen(self, backend: CommandBackend) -> None:
        async with contextlib.aclosing(backend.reply(QUESTION)) as reply:
            async for piece in reply:
                self.heard += str(piece)
                self._more.set()

    async def pids(self) -> list[int]:
        """The three that run."""
        async with asyncio.timeout(20):
            while self.heard.count(">") < 3:
                self._more.clear()
                await self._more.wait()
        return [int(pid) for pid in self.heard.strip("<>").split("><")]


def alive(pids: list[int]) -> list[int]:
    """Those that still run; one that waits to be reaped by init does not."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


def own_zombies() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [found for found in children if found.status() == psutil.STATUS_ZOMBIE]


async def test_cancelling_ends_the_program_and_its_children(
    family: Callable[..., CommandBackend],
) -> None:
    listener = Listener(family())
    pids = await listener.pids()
    assert alive(pids) == pids
    began = time.monotonic()
    listener.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener.task
    assert not alive(pids)
    assert not own_zombies()
    assert time.monotonic() - began < 1.5, "they were asked to end, and did not have to be killed"


@pytest.mark.slow
async def test_those_that_do_not_want_to_end_are_killed(
    family: Callable[..., CommandBackend],
) -> None:
    listener = Listener(family(STUBBORN))
    pids = await listener.pids()
    listener.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener.task
    assert not alive(pids)
    assert not own_zombies()


@pytest.mark.slow
async def test_cancelled_twice_it_still_kills(family: Callable[..., CommandBackend]) -> None:
    backend = family(STUBBORN)
    listener = Listener(backend)
    pids = await listener.pids()
    listener.task.cancel()
    await asyncio.sleep(0)
    listener.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener.task
    assert alive(pids), "they have their two seconds"
    await backend.stop()
    assert not alive(pids)


async def test_a_program_that_takes_too_long_is_ended_with_its_children(
    family: Callable[..., CommandBackend],
) -> None:
    listener = Listener(family(timeout_seconds=1))
    with pytest.raises(BackendError, match=r"longer than 1 s\. Ask for less"):
        await listener.task
    assert listener.heard, "what was said before is kept"
    assert not alive([int(pid) for pid in listener.heard.strip("<>").split("><")])


async def test_children_that_outlive_the_program_do_not_hold_the_answer_open(
    family: Callable[..., CommandBackend],
) -> None:
    # Only the last of the three waits, with our pipe in its hand.
    listener = Listener(family(last=f"if not more: {WAITS}"))
    await listener.task
    assert not alive(await listener.pids())


async def test_what_an_ended_program_left_running_may_still_say_its_piece(
    tmp_path: Path,
) -> None:
    line = ["sh", "-c", "(sleep 0.3; echo later) & echo now"]
    backend = make("command", {"command": line}, Place(tmp_path))
    assert "".join([str(piece) async for piece in backend.reply(QUESTION)]) == "now\nlater\n"


async def test_an_answer_that_is_left_early_ends_the_program(
    family: Callable[..., CommandBackend],
) -> None:
    backend = family()
    reply = backend.reply(QUESTION)
    pid = int(str(await anext(reply)).split(">")[0].strip("<"))
    assert alive([pid])
    await reply.aclose()
    assert not alive([pid])


async def test_a_program_cancelled_while_it_starts_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    backend = make("command", {"command": "sleep 60"}, Place(tmp_path))
    for turns in range(12):
        task = asyncio.create_task(anext(backend.reply(QUESTION)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await eventually(lambda: not sleepers(), 5)
    await eventually(lambda: not list(tmp_path.glob("coralmux-*")), 5)


def sleepers() -> list[psutil.Process]:
    return [found for found in psutil.Process().children() if found.name() == "sleep"]


async def test_twenty_answers_at_once_stay_apart_and_leave_nothing_open(tmp_path: Path) -> None:
    source = "import sys; text = sys.stdin.read()\nfor n in range(50): print(text, n)"
    backend = make("command", {"command": [sys.executable, "-c", source]}, Place(tmp_path))

    async def ask(number: int) -> str:
        question = Question(str(number), "p", f"question {number}")
        return "".join([str(piece) async for piece in backend.reply(question)])

    await ask(0)
    before = psutil.Process().num_fds()
    answers = await asyncio.gather(*(ask(number) for number in range(20)))
    for number, answer in enumerate(answers):
        assert answer == "".join(f"question {number} {n}\n" for n in range(50))
    assert psutil.Process().num_fds() <= before
    assert not own_zombies()


async def test_the_group_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    source = (
        "import signal, sys, time\n"
        "def leave(*_):\n"
        f"    open({str(tmp_path / 'left')!r}, 'w').write('in order'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    backend = make("command", {"command": [sys.executable, "-c", source]}, Place(tmp_path))
    reply = backend.reply(QUESTION)
    assert str(await anext(reply)).startswith("ready")
    await reply.aclose()
    assert (tmp_path / "left").read_text() == "in order"
