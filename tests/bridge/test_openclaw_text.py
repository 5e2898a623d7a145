"""What a phone lacks of a text that the gateway tells in pieces, as a whole, and anew."""

from __future__ import annotations

from typing import Any

import pytest

from coralmux.bridge.openclaw.text import RunText, of_message


def whole(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": [{"type": "text", "text": text}]}}


@pytest.mark.parametrize(
    ("payloads", "said"),
    [
        ([{"deltaText": "One"}, {"deltaText": " two"}], ["One", " two"]),
        ([{"message": "One"}, {"message": "One two"}], ["One", " two"]),
        ([{"deltaText": "One"}, {"deltaText": " two"} | whole("One two")], ["One", " two"]),
        # A whole text heals what got lost among the pieces.
        ([{"deltaText": "One"}, {"deltaText": "!"} | whole("One two!")], ["One", " two!"]),
        ([{"deltaText": "One"}, {"deltaText": "One two", "replace": True}], ["One", " two"]),
        ([{"deltaText": "One"}, {"deltaText": "Two", "replace": True}], ["One", "\n\nTwo"]),
        (
            [{"deltaText": "One"}, {"deltaText": "Two", "replace": True}, {"deltaText": "!"}],
            ["One", "\n\nTwo", "!"],
        ),
        # Taken back, and begun again as it was, or in another way.
        ([{"deltaText": "A b"}, {"message": "A"}, {"message": "A b c"}], ["A b", "", " c"]),
        ([{"deltaText": "A b"}, {"message": "A"}, {"message": "A d"}], ["A b", "", "\n\nA d"]),
        # White space at the end comes and goes.
        ([{"deltaText": "A \n"}, {"message": "A"}, {"message": "A\n\nB"}], ["A \n", "", "\n\nB"]),
        # Nor is it the same where the parts of a message are joined.
        ([{"deltaText": "A."}, {"message": "A.\n\nB"}, {"deltaText": "C"}], ["A.", "\n\nB", "C"]),
        ([{"deltaText": "A.B"}, {"message": "A.\n\nB"}, {"deltaText": " C"}], ["A.B", "", " C"]),
        ([{"deltaText": "A.  B"}, {"message": "A."}, {"message": "A. B c"}], ["A.  B", "", " c"]),
        ([{"deltaText": "A.\n\nB"}, {"message": "A. B"}, {"message": "A"}], ["A.\n\nB", "", ""]),
        ([{"message": None}, {"deltaText": 7}, {}], ["", "", ""]),
    ],
)
def test_a_phone_gets_what_it_lacks(payloads: list[dict[str, Any]], said: list[str]) -> None:
    text = RunText()
    assert [text.delta(payload) for payload in payloads] == said


@pytest.mark.parametrize(
    ("before", "end", "missing"),
    [
        ("", "All of it", "All of it"),
        ("All", "All of it", " of it"),
        ("All of it \n", "All of it", ""),
        # The end may hold the last part alone.
        ("Let me look.\n\nFound.", "Found.", ""),
        ("Let me look.\n\nIt  is 5.", "It is 5.", ""),
        # Its parts may be joined in another way, and its white space tidied.
        ("Let me look. It is 5.", "Let me look. \n\nIt is 5.", ""),
        ("Let me look.It is 5.", "Let me look.\n\nIt is 5.", ""),
        ("Let me look. It is", "Let me look.\n\nIt is 5.", " 5."),
        ("One\n\ntwo  three\n", "One\ntwo three", ""),
        ("Quite another", "All of it", "\n\nAll of it"),
        ("One and two", "One", "\n\nOne"),
    ],
)
def test_the_end_says_what_is_missing(before: str, end: str, missing: str) -> None:
    text = RunText()
    text.delta({"deltaText": before})
    assert text.is_now(end, final=True) == missing


def test_pieces_say_nothing_where_something_before_them_got_lost() -> None:
    text = RunText()
    text.delta({"deltaText": "One"})
    text.sure = False
    assert text.delta({"deltaText": " three"}) == ""
    assert text.delta({"deltaText": " four", "message": "One two three four"}) == " two three four"
    assert text.delta({"deltaText": " five"}) == " five"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("plain", "plain"),
        ({"content": "plain"}, "plain"),
        ({"text": "plain"}, "plain"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\n\nb"),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, None),
        ({"content": [{"type": "text"}, "text", None]}, None),
        ({"content": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_text_of_a_message_is_found_in_every_shape(message: object, text: str | None) -> None:
    assert of_message(message) == text
