"""Phones, the bridge's process, and an agent that serves the Agent Protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import coralmux
from tests.bridge.bridges import bridge
from tests.bridge.doubles.agent_protocol import Artifact, Task, agent_protocol, step, steps
from tests.support.client import SOON
from tests.support.process import RelayProcess

pytestmark = pytest.mark.slow

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


async def test_a_phone_gets_steps_text_and_files_and_what_was_produced_before_a_fault(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async def paints(task: Task, number: int) -> dict[str, Any]:
        if number == 2:
            task.artifacts.append(Artifact("map.png", PNG))
        return step(f"Part {number}.", name="draw", is_last=number == 2)

    async def hangs(task: Task, number: int) -> dict[str, Any]:
        if number == 2:
            await agent.exchanges[-1].gone()
            left.set()
        return step("Half.")

    left = asyncio.Event()
    async with agent_protocol() as agent:
        config = (
            'backend = "autogpt"\nsilence_seconds = 1\n'
            f'[autogpt]\nbase_url = "{agent.root}"\napi_key = "key-0123456789"\n'
        )
        async with bridge(relay, tmp_path, config) as there, there.phone() as phone:
            agent.act = paints
            shown: list[coralmux.ToolStatus] = []
            answer = phone.ask("Draw a map", on_tool=shown.append)
            assert await answer == "Part 1.\n\nPart 2."
            (picture,) = answer.attachments
            assert isinstance(picture, coralmux.Attachment)
            assert (picture.name, picture.data) == ("map.png", PNG)
            assert [tool.tool for tool in shown[:3]] == ["step 1", "step 1", "draw"]

            for agent.act, text, sentence in (
                (hangs, "Half.", "has said nothing for"),
                (steps(step("Half.", status="created")), "Half.", "failed (HTTP 500)"),
            ):
                broken = phone.ask("Draw a map")
                with pytest.raises(coralmux.AgentError) as raised:
                    await broken
                assert raised.value.code == "BACKEND_ERROR"
                assert sentence in str(raised.value)
                assert broken.text == text
            async with asyncio.timeout(SOON):
                await left.wait()

            agent.act = steps(step("Done.", is_last=True))
            assert await phone.ask("And now?") == "Done."
            # What was said before is told to the new task.
            assert "assistant: Part 1.\n\nPart 2." in agent.tasks[-1].input
            assert agent.tasks[-1].input.endswith("And now?")
            assert "Part 1" not in there.output()
            assert "key-0123456789" not in there.output()
