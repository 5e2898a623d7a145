"""What is said of errors of apps: nothing that stands in their texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coralmux import BackendError
from coralmux.bridge.apps.failures import explain, locate


class RateLimitError(Exception):
    """As the libraries of several providers call it."""


def ask() -> None:
    try:
        raise RateLimitError("for the key sk-secret")
    except RateLimitError as error:
        raise RuntimeError("wrapped sk-secret") from error


def test_the_cause_of_an_error_decides_what_is_said() -> None:
    with pytest.raises(RuntimeError) as raised:
        ask()
    assert str(explain(raised.value)).startswith("The app's model takes no more questions")
    assert re.fullmatch(
        rf"The app failed with RuntimeError from RateLimitError at {Path(__file__).name}, "
        r"line \d+\.",
        locate(raised.value, Path(__file__).parent),
    )


def test_an_error_that_was_made_a_text_is_known_by_its_name() -> None:
    assert "cannot reach" in str(explain(RuntimeError("APIConnectionError: secret\nTraceback")))
    assert "KeyError" in str(explain(RuntimeError("KeyError: 'secret'")))
    assert "secret" not in str(explain(RuntimeError("KeyError: 'secret'")))


def test_an_app_s_own_sentence_reaches_the_user() -> None:
    error = BackendError("The shop is closed. Ask tomorrow.")
    assert explain(error) is error
