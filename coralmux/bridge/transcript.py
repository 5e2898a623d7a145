"""A conversation as one text, for backends that take nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from coralmux import Turn

# Characters: what is left of a small model's context has to hold the question and the answer.
_MOST = 8000


def transcript(history: Sequence[Turn]) -> str:
    """The newest turns that fit, oldest first."""
    lines: list[str] = []
    room = _MOST
    for turn in reversed(history):
        if room <= 0:
            break
        line = f"{turn.role}: {turn.content.strip()}"[:room]
        room -= len(line)
        lines.append(line)
    return "\n".join(reversed(lines))


def with_transcript(history: Sequence[Turn], question: str) -> str:
    """A question behind what was said before it, if anything was."""
    if not (before := transcript(history)):
        return question
    return f"What was said before:\n\n{before}\n\nWhat is asked now:\n\n{question}"
