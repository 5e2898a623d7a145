"""One relay for all of these tests; each takes a token of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import RelayProcess


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A started relay."""
    process = RelayProcess(Path(tmp_path_factory.mktemp("relay")))
    try:
        yield process.start()
    finally:
        process.stop()
    process.check_output()
