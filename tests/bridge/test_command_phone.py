"""A phone that talks to a program through the bridge."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import psutil
import pytest

from coralmux import AgentError, Attachment
from tests.bridge.bridges import bridge
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

# It names its child, and both wait for ever.
WAITS = """
import subprocess, sys, time
waiting = [sys.executable, "-c", "import time; time.sleep(60)"]
print(subprocess.Popen(waiting).pid, flush=True)
time.sleep(60)
"""


def options(directory: Path, source: str) -> list[str]:
    (directory / "program.py").write_text(source)
    return ["--backend", "command", "--command", shlex.join([sys.executable, "program.py"])]


async def test_when_the_user_cancels_the_program_and_its_child_are_ended(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        bridge(relay, tmp_path, options=options(tmp_path, WAITS)) as there,
        there.phone() as phone,
    ):
        async with phone.ask("Wait for me") as answer:
            child = psutil.Process(int(await anext(aiter(answer))))
            parent = psutil.Process(child.ppid())
            assert "program.py" in parent.cmdline()
        await eventually(lambda: not parent.is_running())
        await eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_a_failing_program_is_told_after_what_it_said_and_the_next_question_works(
    relay: RelayProcess, tmp_path: Path
) -> None:
    source = (
        "import os, sys\n"
        "text = sys.stdin.read()\n"
        "print(text, os.environ['CORALMUX_ATTACHMENTS'].count('note.txt'))\n"
        "sys.exit('The oven is cold.' if 'bake' in text else 0)\n"
    )
    note = Attachment("note.txt", "text/plain", b"flour")
    async with (
        bridge(relay, tmp_path, options=options(tmp_path, source)) as there,
        there.phone() as phone,
    ):
        answer = phone.ask("bake")
        with pytest.raises(AgentError, match=r"with status 1: The oven is cold\.") as caught:
            await answer
        assert (caught.value.code, answer.text) == ("BACKEND_ERROR", "bake 0\n")
        assert await phone.ask("eat", images=[note]) == "eat 1\n"
        assert "oven" not in there.output()
