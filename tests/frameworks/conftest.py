"""What the tests of each framework share: the model, and a relay of the main environment."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.apps import apps as apps
from tests.support.process import RelayProcess

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "backends.md"

# Each test file runs in its framework's environment, and nowhere else.
collect_ignore = [
    f"test_{lock.stem}.py"
    for lock in HERE.glob("*.txt")
    if lock.stem != os.environ.get("FRAMEWORK")
]


@pytest.fixture(scope="session")
def model() -> str:
    """The base URL of a real model, which answers any name."""
    return os.environ["FRAMEWORK_MODEL"]


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    directory = tmp_path_factory.mktemp("relay")
    command = [
        os.environ["FRAMEWORK_RELAY_PYTHON"],
        *("-m", "coralmux_site.cli", "-addr", "127.0.0.1:{port}"),
    ]
    process = RelayProcess(directory, command=command)
    try:
        yield process.start()
    finally:
        process.stop()
    process.check_output()


def program(name: str) -> str:
    """The code block of docs/backends.md that begins with this file name."""
    for page in (PAGE, HERE / "recipes.md"):
        if page.is_file() and (
            found := re.search(
                rf"```python\n# {re.escape(name)}\n(.*?)```", page.read_text("utf-8"), re.DOTALL
            )
        ):
            return textwrap.dedent(found[1])
    raise AssertionError(f"{PAGE.name} has no program {name}")
