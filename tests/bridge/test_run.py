"""`coralmux-agent run` as a process: phones are answered, and it leaves as it should."""

from __future__ import annotations

from pathlib import Path

from tests.bridge.bridges import bridge
from tests.support.process import RelayProcess


async def test_a_phone_is_answered(relay: RelayProcess, tmp_path: Path) -> None:
    async with bridge(relay, tmp_path) as there, there.phone() as phone:
        assert await phone.ask("Hello there") == "Hello there"
        assert [entry.content for entry in await phone.history()] == ["Hello there"] * 2
