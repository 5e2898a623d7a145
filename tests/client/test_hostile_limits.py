"""What a hostile relay gains by announcing, flooding and refusing: a delay at most.

It may keep messages back, as every relay can. It must not end a client, make it grow
without bound, or leave somebody waiting for what was refused.
"""

from __future__ import annotations

import pytest

from coralmux.client.errors import MessageTooLarge
from coralmux.protocol import Role
from coralmux.protocol.limits import MAX_MESSAGE_BYTES
from tests.client.pair import TOKEN, pair
from tests.support.hostile_relay import HostileRelay
from tests.support.waiting import eventually

PHONE, AGENT = Role.PHONE, Role.AGENT


# -- what is announced --


@pytest.mark.parametrize("limit", [1, 100, 128 * 1024 - 1])
async def test_a_limit_that_no_message_keeps_is_not_believed(limit: int) -> None:
    async with (
        HostileRelay(token=TOKEN, limits={"max_message_bytes": limit}) as relay,
        pair(relay.url) as both,
    ):
        await both.phone.ready()
        assert both.phone.channel.max_message_bytes == MAX_MESSAGE_BYTES
        await eventually(lambda: both.agent._pairings[0].channel.ready)
        # Both are answered out of the loop that reads.
        both.phone.channel.send("chat.cancel", {"ref": "nothing"})
        both.agent._pairings[0].channel.send("file.begin", {"file_id": "a", "size": 3})
        await both.works()


async def test_the_least_limit_is_kept_and_ends_with_the_relay_that_announced_it() -> None:
    limits = {"max_message_bytes": 128 * 1024}
    async with HostileRelay(token=TOKEN, limits=limits) as relay, pair(relay.url) as both:
        await both.works("first")
        channel = both.phone.channel
        assert channel.max_message_bytes == 128 * 1024
        with pytest.raises(MessageTooLarge):
            await both.phone.ask("x" * 128 * 1024)
        relay._limits = {"max_message_bytes": 0}
        relay.drop_connection(PHONE)
        await eventually(lambda: channel.max_message_bytes == MAX_MESSAGE_BYTES)
        await both.works("second")


async def test_an_answer_that_is_too_large_for_the_relay_ends_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("first")
        agent = both.agent._pairings[0].channel
        # As it is with a reference that came with megabytes.
        monkeypatch.setattr(agent, "max_message_bytes", 100)
        phone = both.phone.channel
        phone.send("file.begin", {"file_id": "a", "name": "x", "size": 3, "sha256": "0" * 64})
        for _ in range(2):
            phone.send("chat.send", {"text": "twice"}, id="the same")
        await eventually(lambda: "a message that came before" in both.ignored(AGENT))
        monkeypatch.undo()
        await both.works("second")
