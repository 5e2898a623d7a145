"""Where things are written: answers, as they come, and quiet lines about all else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from rich.cells import set_cell_size

from coralmux.text import discreet, one_line, without_controls

# Tools that one line has room for.
_TOOLS = 6


class Output:
    """Standard output, for answers.

    A terminal gets them without control characters. A pipe or file gets exactly what the
    agent said, in UTF-8, written by a thread of its own: whoever reads may take their
    time, while the connection has to be kept alive.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.at_line_start = True
        self._queue: queue.SimpleQueue[tuple[bytes, asyncio.Future[None] | None]]
        self._queue = queue.SimpleQueue()
        if self.is_terminal and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        if not self.is_terminal:
            threading.Thread(target=self._work, daemon=True, name="stdout").start()

    async def write(self, text: str) -> None:
        """Write and flush. Raises OSError: BrokenPipeError when nobody reads any more."""
        if self.is_terminal:
            self.post(text)
            return
        done = asyncio.get_running_loop().create_future()
        self._put(text, done)
        await done

    def post(self, text: str) -> None:
        """Write before whatever is written next; where that fails, the next one says so."""
        if not self.is_terminal:
            self._put(text, None)
            return
        text = without_controls(text)
        sys.stdout.write(text)
        sys.stdout.flush()
        self._note(text)

    async def end_line(self) -> None:
        if not self.at_line_start:
            await self.write("\n")

    def _put(self, text: str, done: asyncio.Future[None] | None) -> None:
        self._queue.put((text.encode("utf-8", "replace"), done))
        self._note(text)

    def _note(self, text: str) -> None:
        if text:
            self.at_line_start = text.endswith("\n")

    def _work(self) -> None:
        while True:
            data, done = self._queue.get()
            error: OSError | None = None
            try:
                while data:
                    data = data[os.write(1, data) :]
            except OSError as caught:
                error = caught
            # The loop may be closed by now: whoever was interrupted does not wait.
            if done is not None:
                with contextlib.suppress(RuntimeError):
                    done.get_loop().call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


class Notes:
    """Quiet lines for people, and at their end one that may still change.

    `stream` is asked for anew each time, since a prompt puts another in its place.
    `output`: where an answer may stand in the middle of a line of the same terminal.
    """

    def __init__(
        self, stream: Callable[[], TextIO], output: Output | None = None, *, quiet: bool = False
    ) -> None:
        self._stream = stream
        self._output = output if output is not None and output.is_terminal else None
        self.quiet = quiet
        self._open = False
        # "dumb" ones know no way back to the start of a line.
        self.is_terminal = stream().isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """A line."""
        if not self.quiet:
            self.insist(self._styled(text) if self.is_terminal else text)

    def insist(self, text: str) -> None:
        """A line that is not left out where people want it quiet."""
        self.settle()
        self._begin()
        self._write(f"{text}\n")

    def update(self, text: str) -> None:
        """A line in place of the last one, if that was such a line too."""
        if self.quiet:
            return
        if not self.is_terminal:
            self.say(text)
            return
        if not self._open:
            self._begin()
        # One column is left free: some terminals wrap as soon as the last one is filled.
        width = shutil.get_terminal_size().columns - 1
        text = one_line(text)
        self._write(f"\r\x1b[K{self._styled(set_cell_size(text, width).rstrip())}")
        self._open = True

    def settle(self) -> None:
        """From here on the last line stays as it is."""
        if self._open:
            self._open = False
            self._write("\n")

    def _begin(self) -> None:
        if self._output is not None and not self._output.at_line_start:
            self._output.at_line_start = True
            self._write("\n")

    def _styled(self, text: str) -> str:
        # https://no-color.org
        return text if os.environ.get("NO_COLOR") else f"\x1b[2m{text}\x1b[0m"

    def _write(self, text: str) -> None:
        stream = self._stream()
        # Whoever reads the answer goes on doing so without our notes.
        with contextlib.suppress(OSError):
            stream.write(text)
            stream.flush()


class Tools:
    """What the agent is doing, on one line that changes."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._status: dict[str, str] = {}

    def show(self, tool: str, status: str) -> None:
        """`status`: "running", "done" or "error"."""
        tool = one_line(tool)[:60] or "tool"
        said = {"running": "…", "error": "failed"}.get(status, status)
        if not self._notes.is_terminal:
            self._notes.update(f"{tool}: {'running' if status == 'running' else said}")
            return
        self._status[tool] = said
        if len(self._status) > _TOOLS:
            del self._status[next(iter(self._status))]
        self._notes.update(", ".join(f"{tool}: {s}" for tool, s in self._status.items()))

    def settle(self) -> None:
        """The answer goes on below."""
        if self._status:
            self._status = {}
            self._notes.settle()


class _Warnings(logging.Handler):
    def __init__(self, notes: Notes) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.say(discreet(one_line(record.getMessage())))


def show_warnings(notes: Notes) -> None:
    """What the library logs as worth a warning becomes a quiet line."""
    log = logging.getLogger("coralmux")
    log.propagate = False
    handler = _Warnings(notes)
    # That the relay ended it for good is an event too, and told as that.
    handler.addFilter(lambda record: "stopped" not in str(record.msg))
    log.addHandler(handler)
