"""One relay for all tests that do not change or end it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import RelayProcess


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A started relay with timers at a tenth; use a token of your own."""
    process = RelayProcess(Path(tmp_path_factory.mktemp("relay")))
    try:
        yield process.start()
    finally:
        process.stop()
    process.check_output()
    assert "Traceback" not in process.output, process.output
