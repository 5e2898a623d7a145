"""Says what it was asked, word by word: for trying the line, without any AI."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

from coralmux.bridge.backend import Backend, Finding, Piece, Question


class EchoBackend(Backend):
    """Nothing to set."""

    wants_history = False

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        for word in re.findall(r"\s*\S+\s*", question.text):
            yield word
        for attachment in question.attachments:
            yield attachment

    async def check(self) -> AsyncIterator[Finding]:
        yield Finding(True, "The echo backend needs nothing.")
