"""Revocation through the token's channel-layer group, on the in-memory layer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import get_channel_layer

from relay import groups as module
from relay.groups import Groups, group_name
from tests.support.waiting import eventually


@contextlib.asynccontextmanager
async def running(groups: Groups) -> AsyncIterator[Any]:
    """The channel layer of groups that are at work."""
    groups.start()
    try:
        yield get_channel_layer()
    finally:
        await groups.stop()


class Crash(Exception):
    pass


async def crash(*_: Any) -> None:
    raise Crash


async def test_a_revocation_reaches_the_process_that_has_the_token_and_no_other() -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    groups = Groups(heard.put_nowait)
    groups.start()
    await groups.join(7)
    await groups.join(8)
    await groups.tell_revoked(9)
    await groups.tell_revoked(7)
    assert await asyncio.wait_for(heard.get(), 5) == 7
    assert heard.empty()
    await groups.leave(7)
    await groups.leave(8)
    await groups.stop()


async def test_the_group_is_left_with_the_tokens_last_connection() -> None:
    groups = Groups(lambda token_id: None)
    groups.start()
    await groups.join(5)
    await groups.join(5)
    await groups.leave(5)
    assert group_name(5) in get_channel_layer().groups
    await groups.leave(5)
    assert group_name(5) not in get_channel_layer().groups
    await groups.stop()


async def test_a_join_that_fails_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Groups(lambda token_id: None)
    async with running(groups) as layer:
        with monkeypatch.context() as away:
            away.setattr(layer, "group_add", crash)
            with pytest.raises(Crash):
                await groups.join(6)
        await groups.join(6)
        assert group_name(6) in layer.groups
        await groups.leave(6)
        assert group_name(6) not in layer.groups


async def test_memberships_are_renewed_for_the_layer_forgets_them_after_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RENEW_SECONDS", 0.01)
    groups = Groups(lambda token_id: None)
    async with running(groups) as layer:
        await groups.join(3)
        with monkeypatch.context() as away:
            away.setattr(layer, "group_add", crash)
            await asyncio.sleep(0.05)
        layer.groups.clear()
        await eventually(lambda: group_name(3) in layer.groups)
        await groups.leave(3)


async def test_neither_a_layer_that_fails_nor_a_handler_that_does_ends_the_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    heard: list[int] = []

    def hear(token_id: int) -> None:
        heard.append(token_id)
        if token_id == 1:
            raise Crash

    groups = Groups(hear)
    with monkeypatch.context() as away:
        away.setattr(get_channel_layer(), "receive", crash)
        groups.start()
        await asyncio.sleep(0.05)
    for token_id in (1, 2):
        await groups.join(token_id)
        await groups.tell_revoked(token_id)
    await eventually(lambda: heard == [1, 2])
    await groups.stop()
