"""The agent bridge, `coralmux-agent`: runs beside an AI and answers phones with it.

A consumer of the public library. Another backend is a class of one's own:

    from coralmux.bridge import Backend, Question

    class Parrot(Backend):
        async def reply(self, question: Question):
            yield question.text

and an entry point of the group `coralmux.backends` that leads to it (docs/backends.md).
"""

from coralmux.bridge.backend import (
    AgentSpec,
    Backend,
    Finding,
    NoSettings,
    Piece,
    Place,
    Question,
)

__all__ = [
    "AgentSpec",
    "Backend",
    "Finding",
    "NoSettings",
    "Piece",
    "Place",
    "Question",
]
