"""The phone's JavaScript on Node: the library with a relay and agents, the rules of the app."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.phone.core_stage import Stage
from tests.phone.harness import ScriptedAgent
from tests.support.parts import need
from tests.support.process import RelayProcess, clean_environment, relay_process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "javascript.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> str:
    """The program."""
    return need("node")


@pytest.fixture(scope="module")
def mortal() -> Iterator[RelayProcess]:
    """A relay that may be restarted."""
    with relay_process() as relay:
        yield relay


async def run(
    *command: str, port: int = 0, cwd: Path = ROOT, seconds: float = 240
) -> tuple[int, str]:
    """Exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=clean_environment(CORALMUX_STAGE=str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        pytest.fail(output.decode())
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_the_library_passes_its_tests_on_node(
    node: str, relay: RelayProcess, mortal: RelayProcess
) -> None:
    async with Stage(relay, mortal).open() as port:
        status, output = await run(
            node,
            "--experimental-websocket",
            "--test",
            "--test-reporter=spec",
            "--test-timeout=60000",
            "--test-concurrency=2",
            "tests/phone/core/",
            port=port,
        )
    assert status == 0, output
    assert re.search(r"^ℹ skipped 0$", output, re.MULTILINE), output


async def test_the_rules_of_the_app_s_model_pass_their_tests_on_node(node: str) -> None:
    status, output = await run(node, "--test", "--test-reporter=spec", "tests/phone/model/")
    assert status == 0, output
    assert "ℹ skipped 0" in output


async def test_the_page_s_ten_lines_ask_an_agent(
    node: str, relay: RelayProcess, agent: ScriptedAgent, tmp_path: Path
) -> None:
    found = re.search(r"```js\n// client\.mjs\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    lines = found[1].splitlines()
    assert len([line for line in lines if line]) <= 10
    (tmp_path / "client.mjs").write_text(found[1])
    shutil.copytree(ROOT / "static" / "phone" / "core", tmp_path / "core")
    program = [node, "--experimental-websocket", "client.mjs", agent.url, "Ten lines?"]
    status, output = await run(*program, cwd=tmp_path)
    assert (status, output.splitlines()[-1]) == (0, "You said: Ten lines?"), output


async def test_the_page_names_every_error_and_every_state(node: str) -> None:
    program = """
        import * as core from "./static/phone/core/index.js";
        const isError = (it) => it?.prototype instanceof core.CoralmuxError;
        console.log(Object.values(core).filter(isError).map((it) => it.name).sort().join(" "));
    """
    status, output = await run(node, "--input-type=module", "--eval", program)
    assert status == 0, output
    assert sorted(rows("Errors")) == output.split()
    kinds = re.search(r"@typedef \{(.*?)\} Kind", state_module(), re.DOTALL)
    assert kinds is not None
    assert sorted(rows("States")) == sorted(re.findall(r'"([a-z-]+)"', kinds[1]))


def rows(heading: str) -> list[str]:
    """What stands in the first column of the first table under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)[1:]


def state_module() -> str:
    return (ROOT / "static" / "phone" / "core" / "state.js").read_text(encoding="utf-8")
