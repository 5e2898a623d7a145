"""Agents that think aloud: which part of what a model says is meant for the user."""

from __future__ import annotations

import re

# How agents without native tool calls are taught to speak: thoughts and actions, until the
# answer. What begins otherwise is the answer.
_ALOUD = ("Thought:", "Action:", "Action Input:", "Observation:", "Final Answer:")
_ANSWER = "Final Answer:"


class FinalAnswer:
    """Takes what one call of a model says in pieces, and lets the answer through."""

    def __init__(self) -> None:
        self._held = ""
        self._through = False

    def feed(self, piece: str) -> str:
        """What of it, and of what was held back, is for the user."""
        if self._through:
            return piece
        self._held += piece
        begin = self._held.lstrip()
        if _ANSWER in begin:
            return self._let(begin.partition(_ANSWER)[2].lstrip())
        if any(begin.startswith(mark) or mark.startswith(begin) for mark in _ALOUD):
            return ""
        return self._let(self._held)

    def _let(self, text: str) -> str:
        # Spaces behind the mark may come with the next piece.
        if not text:
            self._held = _ANSWER
            return ""
        self._through = True
        return text


def same(one: str, other: str) -> bool:
    """Whether two texts differ at most in their white space."""
    return re.sub(r"\s+", " ", one).strip() == re.sub(r"\s+", " ", other).strip()
