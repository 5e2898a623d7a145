"""Server-sent events (text/event-stream) as AI servers stream them: bytes in, events out.

No I/O. httpx-sse would do, but for one thing: it keeps a line that never ends until
memory does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Bytes of one event. Delta by delta they are tiny; whole answers and pictures are not.
MAX_EVENT_BYTES = 16_000_000

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLarge(Exception):
    """An event has more than MAX_EVENT_BYTES."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """`name` is "" where the server gives none; `data` has its lines joined."""

    name: str
    data: str


class EventReader:
    """Feed it what comes, in whatever pieces; `end` once nothing comes any more.

    UTF-8 may be split anywhere; what is not UTF-8 becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._first = True
        self._after_return = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that this completes. Raises EventTooLarge."""
        if not chunk:
            return
        # A line's end may be cut in two.
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_return = False
            if not chunk:
                return
        self._after_return = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(chunk)
        for line in lines:
            self._grow(line)
            yield from self._take_line()
        self._grow(rest)

    def end(self) -> Iterator[ServerEvent]:
        """The event at the end that lacks its empty line: servers forget it."""
        if self._line:
            yield from self._take_line()
        yield from self._dispatch()

    def _grow(self, piece: bytes) -> None:
        self._line += piece
        if self._size + len(self._line) > MAX_EVENT_BYTES:
            raise EventTooLarge

    def _take_line(self) -> Iterator[ServerEvent]:
        size = len(self._line)
        line = self._line.decode("utf-8", "replace")
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix("\ufeff")
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        # Others are of no use here: comments, which keep the connection alive, id, retry.
        if field == "data":
            self._data.append(value)
            self._size += size
        elif field == "event":
            self._name = value

    def _dispatch(self) -> Iterator[ServerEvent]:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        if data:
            yield ServerEvent(name, "\n".join(data))
