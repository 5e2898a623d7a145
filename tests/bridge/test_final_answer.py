"""Which words of an agent that thinks aloud are for the user."""

from __future__ import annotations

import pytest

from coralmux.bridge.apps.final_answer import FinalAnswer, same


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("The sea is wide.", "The sea is wide."),
        ("Thought: I know it.\nFinal Answer: The sea.", "The sea."),
        ("Final Answer:\n\nThe sea.", "The sea."),
        ("Thought: Look.\nAction: clock\nAction Input: {}", ""),
        ("Thoughts are free.", "Thoughts are free."),
        (" Thought: x\nFinal Answer: A Final Answer: B", "A Final Answer: B"),
    ],
)
def test_only_the_answer_of_who_thinks_aloud_is_heard(said: str, heard: str, size: int) -> None:
    answer = FinalAnswer()
    pieces = [answer.feed(said[at : at + size]) for at in range(0, len(said), size)]
    assert "".join(pieces) == heard


def test_texts_are_the_same_whatever_their_white_space() -> None:
    assert same(" a\nb ", "a b")
    assert not same("a b", "a c")
