"""Server-sent events, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralmux.bridge.web import event_stream
from coralmux.bridge.web.event_stream import EventReader, EventTooLarge, ServerEvent


def read(*chunks: bytes) -> list[ServerEvent]:
    reader = EventReader()
    found = [event for chunk in chunks for event in reader.feed(chunk)]
    return [*found, *reader.end()]


def data(*chunks: bytes) -> list[str]:
    return [event.data for event in read(*chunks)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_way(end: bytes) -> None:
    assert data(b"data: one", end, end, b"data: two", end, end) == ["one", "two"]


def test_lines_of_data_are_joined_and_one_blank_is_dropped() -> None:
    assert data(b"data:one\ndata:  two\ndata\n\n") == ["one\n two\n"]


def test_comments_and_other_fields_are_nothing() -> None:
    assert data(b": keepalive\n\nid: 7\nretry: 5\n\nunknown\ndata: x\n\n: bye\n") == ["x"]


def test_an_event_may_have_a_name() -> None:
    assert read(b"event: error\ndata: x\n\ndata: y\n\n") == [
        ServerEvent("error", "x"),
        ServerEvent("", "y"),
    ]


def test_a_byte_order_mark_is_dropped_once() -> None:
    stream = "\ufeffdata: \ufeffx\n\n\ufeffdata: y\n\n"
    assert data(stream.encode()) == ["\ufeffx"]


def test_the_last_event_may_lack_its_empty_line() -> None:
    assert data(b"data: x\n") == ["x"]
    assert data(b"data: x") == ["x"]


STREAM = "data: Grün \N{GRINNING FACE}\r\n\r\n: hm\r\ndata: a\r\ndata: b\r\n\r\n".encode()


@given(cuts=st.lists(st.integers(0, len(STREAM))))
def test_pieces_may_be_cut_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(places)]
    assert data(*chunks) == ["Grün \N{GRINNING FACE}", "a\nb"]


@pytest.mark.parametrize("chunk", [b"x" * 100, b"data: " + b"x" * 50 + b"\n", b": x\n"])
def test_an_event_may_not_grow_without_end(monkeypatch: pytest.MonkeyPatch, chunk: bytes) -> None:
    monkeypatch.setattr(event_stream, "MAX_EVENT_BYTES", 1000)
    if chunk.startswith(b":"):  # comments are forgotten at once
        assert data(*[chunk] * 1000) == []
    else:
        with pytest.raises(EventTooLarge):
            data(*[chunk] * 1000)
