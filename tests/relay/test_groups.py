"""Revocation through the token's channel-layer group, on the in-memory layer."""

from __future__ import annotations

import asyncio

from channels.layers import get_channel_layer

from relay.groups import Groups, group_name


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
