"""Many questions on a bad day: each one ends, with its whole answer or with an error."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

import coralmux
from tests.client.meeting import agent_for, new_link, phone_for, serving
from tests.support.client import SOON
from tests.support.process import relay_process

# Nobody is limited here: what is looked for happens between the messages.
PLENTY = {
    "CORALMUX_PHONE_MESSAGES_PER_MINUTE": "0",
    "CORALMUX_AGENT_MESSAGES_PER_MINUTE": "0",
    "CORALMUX_KEY_EXCHANGES_PER_MINUTE": "0",
    "CORALMUX_REPLACEMENTS_PER_MINUTE": "1000",
}

DELTAS = 200
ASKERS = 12


EXPECTED = (
    coralmux.AgentError,
    coralmux.ConnectionLost,
    coralmux.FileError,
    coralmux.NotConnected,
    coralmux.PeerOffline,
)


# The eight places for files may be taken by questions that the relay's death took with it,
# and a file may have gone to an agent that is no more.
AGENTS_WORDS = ("files at once", "shutting down", "no file with this id")


class Day:
    """Askers that never rest, and what became of their questions."""

    def __init__(self, phone: coralmux.Phone, seed: int) -> None:
        self.answered = 0
        self.errors = 0
        self._phone = phone
        self._random = random.Random(seed)
        self._over = False

    async def ask(self, name: int) -> None:
        n = 0
        while not self._over:
            n += 1
            text = f"{name}.{n}"
            images = [_file()] if self._random.random() < 0.3 else []
            answer = self._phone.ask(text, images=images, timeout=SOON)
            cancel_at = self._random.choice([None, None, 0, 50])
            try:
                await self._follow(answer, text, cancel_at)
            except EXPECTED as error:
                told = any(words in str(error) for words in AGENTS_WORDS)
                if error.ids != (answer.id,) or (
                    isinstance(error, coralmux.AgentError) and not told
                ):
                    raise
                self.errors += 1
                await asyncio.sleep(0.01)

    async def _follow(self, answer: coralmux.Answer, text: str, cancel_at: int | None) -> None:
        at = 0
        async for _ in answer:
            at += 1
            if at == cancel_at:
                answer.cancel()
        whole = "".join(f"{text}:{n} " for n in range(DELTAS))
        if answer.cancelled:
            assert whole.startswith(answer.text)
        else:
            assert answer.text == whole
        self.answered += 1

    async def reach(self, answered: int) -> None:
        target = self.answered + answered
        async with asyncio.timeout(2 * SOON):
            while self.answered < target:
                await asyncio.sleep(0.02)

    def end(self) -> None:
        self._over = True


def _file() -> coralmux.Attachment:
    return coralmux.Attachment.from_bytes(bytes(150_000), "application/octet-stream", "zeros")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_question_ends_whatever_dies_meanwhile(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    agents: list[coralmux.Agent] = []

    def agent(link: coralmux.PairingLink, store: coralmux.MemoryStore) -> coralmux.Agent:
        agents.append(agent_for(link, store=store))

        @agents[-1].on_chat
        async def reply(message: coralmux.ChatMessage) -> AsyncIterator[Any]:
            for n in range(DELTAS):
                yield f"{message.text}:{n} "
            for attachment in message.attachments:
                yield attachment

        return agents[-1]

    before = asyncio.all_tasks()
    with relay_process(env=PLENTY) as relay:
        link = new_link(relay)
        store = coralmux.MemoryStore()
        async with phone_for(link) as phone, asyncio.TaskGroup() as group:
            day = Day(phone, seed)
            askers = [group.create_task(day.ask(name)) for name in range(ASKERS)]
            for _ in range(2):
                async with serving(agent(link, store)):
                    await day.reach(30)
                    relay.process.kill()
                    relay.process.wait()
                    await asyncio.to_thread(relay.start)
                    await day.reach(30)
            async with serving(agent(link, store)):
                await day.reach(30)
                day.end()
                async with asyncio.timeout(3 * SOON):
                    await asyncio.wait(askers)
        assert relay.process.poll() is None
    assert asyncio.all_tasks() == before
    assert day.errors
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
