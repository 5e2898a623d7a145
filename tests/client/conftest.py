"""One relay for all tests of the clients that do not change or end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.process import RelayProcess, relay_process


@pytest.fixture(scope="session")
def shared_relay() -> Iterator[RelayProcess]:
    """A started relay with fast timers; make a token of your own."""
    with relay_process() as relay:
        yield relay
        assert "Traceback" not in relay.output, relay.output
