"""The autogpt backend with agents on AutoGPT's own Forge, the server of its Agent Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

from coralmux import Attachment, Turn
from tests.bridge.asking import findings, outcome, question, started
from tests.bridge.bridges import PATIENCE, bridge
from tests.support.process import RelayProcess, free_port
from tests.support.waiting import eventually
from tests.system.backends_page import program

# What the agents of the tests say is given; tasks, steps and files are Forge's.
BEGIN = """
    from forge.sdk import Agent, AgentDB, LocalWorkspace

    class Scripted(Agent):
        async def execute_step(self, task_id, step_request):
            task = await self.db.get_task(task_id)
            done, _ = await self.db.list_steps(task_id)
            step = await self.db.create_step(task_id, step_request, is_last=len(done) == 1)
            await self.act(task, len(done) + 1, step)
            return step

        async def leave(self, step, name, data):
            self.workspace.write(step.task_id, name, data)
            await self.db.create_artifact(
                step.task_id, name, "", agent_created=True, step_id=step.step_id
            )
"""
END = """
    app = Scripted(AgentDB("sqlite:///agent.db"), LocalWorkspace("workspace")).get_agent_app()
"""


@contextlib.asynccontextmanager
async def served(directory: Path, source: str, **env: str) -> AsyncIterator[str]:
    """The address of an agent that this program is, served as AutoGPT's are."""
    (directory / "writer.py").write_text(source)
    port = free_port()
    log = directory / "agent.txt"
    server = _start(directory, log, port, env)

    def runs() -> bool:
        assert server.poll() is None, log.read_text()
        return "Uvicorn running" in log.read_text()

    try:
        await eventually(runs, 4 * PATIENCE)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait)


def _start(directory: Path, log: Path, port: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "writer:app", "--port", str(port)],
            cwd=directory,
            env={**os.environ, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def scripted(act: str) -> str:
    return textwrap.dedent(BEGIN + textwrap.indent(textwrap.dedent(act), " " * 8) + END)


async def test_files_go_to_the_agent_and_come_from_it(tmp_path: Path) -> None:
    act = """
        async def act(self, task, number, step):
            step.name = "look around"
            if number == 2:
                files, _ = await self.db.list_artifacts(task.task_id)
                names = [file.file_name for file in files]
                data = self.workspace.read(task.task_id, names[0])
                step.output = f"{task.input}: {names} {data}"
                for n in range(12):
                    await self.leave(step, f"{n}.txt", b"%d" % n)
    """
    sent = Attachment("my notes.txt", "text/plain", b"hello")
    history = (Turn("user", "I am Ada."),)
    async with (
        served(tmp_path, scripted(act)) as address,
        started("autogpt", tmp_path, base_url=address) as backend,
    ):
        assert [finding.good for finding in await findings(backend)] == [True]
        found = await outcome(backend, question("Look", history=history, attachments=(sent,)))
    assert found.error == ""
    assert found.text.startswith("What was said before:\n\nuser: I am Ada.")
    assert found.text.endswith("my notes.txt: ['my notes.txt'] b'hello'")
    assert found.tools.count(("look around", "done")) == 2
    assert [file.data for file in found.attachments] == [b"%d" % n for n in range(12)]


async def test_an_agent_that_fails_is_an_error_and_works_again(tmp_path: Path) -> None:
    act = """
        async def act(self, task, number, step):
            if task.input == "fail" and number == 2:
                raise KeyError("private")
            step.output = f"{number}"
    """
    async with (
        served(tmp_path, scripted(act)) as address,
        started("autogpt", tmp_path, base_url=address) as backend,
    ):
        found = await outcome(backend, question("fail"))
        assert found.text == "1"
        assert "The AI server failed (HTTP 500)" in found.error
        assert "private" not in found.error
        assert (await outcome(backend, question("go on"))).text == "1\n\n2"


async def test_a_phone_talks_with_the_agent_of_the_page(
    relay: RelayProcess, tmp_path: Path, model: str
) -> None:
    env = {"MODEL_URL": model}
    async with served(tmp_path, program("writer.py"), **env) as address:
        config = f'backend = "autogpt"\n[autogpt]\nbase_url = "{address}"\n'
        async with bridge(relay, tmp_path, config) as there, there.phone() as phone:
            tools: list[str] = []
            answer = phone.ask("Say hello.", on_tool=lambda tool: tools.append(tool.tool))
            await answer
            plan, _, text = answer.text.partition("\n\n")
            assert plan
            assert text
            assert tools == ["step 1", "step 1", "plan", "step 2", "step 2", "write"]
            (file,) = answer.attachments
            assert isinstance(file, Attachment)
            assert file.name == "answer.txt"
            assert file.data.decode().strip() in answer.text
