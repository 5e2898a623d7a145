"""What the bridge's tests share: a relay, and a real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.model import model_server as model_server
from tests.support.process import RelayProcess


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A running relay; no token may stand in what it prints."""
    process = RelayProcess(tmp_path_factory.mktemp("relay"))
    try:
        yield process.start()
    finally:
        process.stop()
    process.check_output()
