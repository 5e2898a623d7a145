"""An agent that goes on with an answer while nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import coralmux
from tests.phone.harness import ScriptedAgent
from tests.support.process import RelayProcess


class Remembering(ScriptedAgent):
    """An agent that never ends its first answer, and remembers what the test says.

    `looked` counts how often it was asked what it remembers since it was asked something.
    """

    def __init__(self, relay: RelayProcess, said: str = "") -> None:
        super().__init__(relay)
        self.remembered: list[dict[str, Any]] = []
        self.came = asyncio.Event()
        self.looked = 0
        self.on("chat.history")(self._history)
        self._said = said
        self.answers(self._never_ending)

    def remember(self, role: str, text: str) -> None:
        self.remembered.append({"role": role, "content": text, "timestamp": None})

    async def _history(self, request: Any) -> Any:
        self.looked += self.came.is_set()
        return {"messages": self.remembered}

    async def _never_ending(self, message: coralmux.ChatMessage) -> AsyncIterator[str]:
        self.remember("user", message.text)
        self.came.set()
        if self._said:
            yield self._said
        await asyncio.Event().wait()

    async def __aenter__(self) -> Remembering:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
