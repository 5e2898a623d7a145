"""What every test of pairing starts from: a clean cache, an operator's key, a closed relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from pairing import presence, signals

KEY = "correct-horse"


@pytest.fixture(autouse=True)
def _clean_cache() -> Iterator[None]:
    """Limits are counted in the cache, and no test pays for another's failures."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture(autouse=True)
def coralmux(settings: Any) -> Callable[..., None]:
    """Change settings.CORALMUX for one test: coralmux(PUBLIC=True)."""

    def change(**values: Any) -> None:
        settings.CORALMUX = {**settings.CORALMUX, **values}

    change(ADMIN_KEY=KEY, PUBLIC=False, TRUSTED_PROXIES=[])
    return change


@pytest.fixture
def client() -> Client:
    """A client that gets the answers to failures, too, instead of the exceptions."""
    return Client(raise_request_exception=False)


@pytest.fixture
def revocations() -> Iterator[list[int]]:
    """The ids of tokens whose revocation was announced."""
    announced: list[int] = []

    def note(*, token_id: int, **_: Any) -> None:
        announced.append(token_id)

    signals.token_revoked.connect(note)
    yield announced
    signals.token_revoked.disconnect(note)


@pytest.fixture
def online() -> Iterator[dict[int, frozenset[str]]]:
    """Who is online, by token id, as a relay would tell."""
    roles: dict[int, frozenset[str]] = {}
    before = presence._lookup
    presence.register(lambda token_id: roles.get(token_id, frozenset()))
    yield roles
    presence.register(before)
