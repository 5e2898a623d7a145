"""Standard input, whole or by lines, where it is no terminal.

Read from its file descriptor, past Python's own buffer: a thread that waits in there
could not be left behind when the program ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
from collections.abc import AsyncGenerator

_CHUNK = 65_536


class TooMuchInput(Exception):
    """More stands there than can be sent."""


class StandardInput:
    """One per process: what it has read ahead is its own."""

    def __init__(self) -> None:
        self._ahead = b""
        self._ended = False
        self._descriptor = -1
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or none
            self._descriptor = sys.stdin.fileno()

    @property
    def is_terminal(self) -> bool:
        return self._descriptor >= 0 and os.isatty(self._descriptor)

    @property
    def is_piped(self) -> bool:
        """Whether somebody gave us a file, a pipe or a socket to read."""
        if self._descriptor < 0:
            return False
        mode = os.fstat(self._descriptor).st_mode
        return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def read_line(self, limit: int) -> bytes:
        """Up to and with the next line feed; b"" at the end."""
        while b"\n" not in self._ahead and len(self._ahead) < limit and self._more():
            pass
        line, feed, self._ahead = self._ahead.partition(b"\n")
        return line + feed

    def read_all(self, limit: int) -> bytes:
        """All that is left. Raises TooMuchInput for more than so many bytes."""
        while self._more():
            if len(self._ahead) > limit:
                raise TooMuchInput
        data, self._ahead = self._ahead, b""
        return data

    async def lines(self, limit: int) -> AsyncGenerator[bytes, None]:
        """Line by line, while the event loop goes on. One iterator at a time."""
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

        def work() -> None:
            # The loop is closed when the program ends before its input does.
            with contextlib.suppress(RuntimeError):
                while line := self.read_line(limit):
                    asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
                asyncio.run_coroutine_threadsafe(lines.put(b""), loop).result()

        threading.Thread(target=work, daemon=True, name="stdin").start()
        while line := await lines.get():
            yield line

    def _more(self) -> bool:
        if self._ended or self._descriptor < 0:
            return False
        data = os.read(self._descriptor, _CHUNK)
        self._ahead += data
        self._ended = not data
        return not self._ended
