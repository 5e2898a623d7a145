"""Three phones and twenty chats at once through one bridge: each answer is the one asked for."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

import coralmux
from tests.bridge.bridges import bridge
from tests.support.client import SOON
from tests.support.process import RelayProcess

PHONES, CHATS, PIECES = 3, 20, 12

# Says the question back in pieces, with pauses in which the others get their turn.
PROGRAM = f"""\
import random, sys, time
question = sys.stdin.read().strip()
for n in range({PIECES}):
    print(f"<{{question}}:{{n}}>", end="", flush=True)
    time.sleep(random.uniform(0.0, 0.05))
"""


@pytest.mark.slow
async def test_three_phones_and_twenty_chats_keep_their_answers_apart(
    relay: RelayProcess, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = json.dumps([sys.executable, "-S", str(program)])
    config = f'backend = "command"\n[command]\ncommand = {command}\n'
    async with bridge(relay, tmp_path, config, phones=PHONES) as there:
        async with there.phone(0) as a, there.phone(1) as b, there.phone(2) as c:
            phones = [a, b, c]
            alive = most = 0

            async def ask(n: int) -> coralmux.Answer:
                nonlocal alive, most
                answer = phones[n % PHONES].ask(f"chat {n}", agent_id=f"agent {n % 2}")
                deltas = []
                async for delta in answer:
                    if not deltas:
                        alive += 1
                        most = max(most, alive)
                    deltas.append(delta)
                alive -= 1
                assert "".join(deltas) == answer.text
                assert len(deltas) > 1
                return answer

            async with asyncio.timeout(6 * SOON):
                answers = await asyncio.gather(*(ask(n) for n in range(CHATS)))
            assert most > 1, "no two answers came side by side"
            expected = ["".join(f"<chat {n}:{i}>" for i in range(PIECES)) for n in range(CHATS)]
            assert [answer.text for answer in answers] == expected
            for p, phone in enumerate(phones):
                for agent in range(2):
                    mine = [n for n in range(CHATS) if (n % PHONES, n % 2) == (p, agent)]
                    found = [entry.content for entry in await phone.history(f"agent {agent}")]
                    pairs = dict(zip(found[::2], found[1::2], strict=True))
                    assert pairs == {f"chat {n}": expected[n] for n in mine}
        await there.says(": answered after", CHATS)
        assert "failed" not in there.output()
