"""The phone's library in JavaScript: its tests on Node, with a real relay and real agents."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.phone.core_stage import Stage
from tests.support.process import RelayProcess, clean_environment, relay_process

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> str:
    """The program. Under CI=true a missing one is a failure."""
    found = shutil.which("node")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no node; install Node.js 20 or newer")
        pytest.skip("there is no node; install Node.js 20 or newer")
    return found


@pytest.fixture(scope="module")
def mortal() -> Iterator[RelayProcess]:
    """A relay that may be restarted."""
    with relay_process() as relay:
        yield relay


async def run(
    *command: str, port: int = 0, cwd: Path = ROOT, seconds: float = 90
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
            "tests/phone/core/",
            port=port,
        )
    assert status == 0, output
    assert re.search(r"^ℹ skipped 0$", output, re.MULTILINE), output
