"""What the tests of each framework share: the model, and a relay of the main environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.apps import apps as apps
from tests.support.process import RelayProcess

HERE = Path(__file__).parent

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
