"""Both roles, for what holds at either end."""

from __future__ import annotations

import pytest

from coralmux.protocol.types import Role


@pytest.fixture(params=list(Role))
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)
