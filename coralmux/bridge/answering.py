"""One answer of a backend: followed while it comes, and ended where it must be.

A backend may be anybody's. Here it is held to its word: pieces of the right kinds, no longer
silence than allowed, an end when it is told to end; and whatever it raises becomes one
sentence for the phone's user, which repeats nothing that is nobody's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from coralmux import Attachment, BackendError, ToolStatus
from coralmux.bridge.backend import Backend, Piece, Question
from coralmux.text import duration, one_line

# Pieces that may wait for the phone before the backend has to.
_AHEAD = 16

# Seconds that a backend gets to end when it is told to. Then it is left behind.
STOP_SECONDS = 5.0

# Characters of an answer, after which it is ended: some never do so themselves.
MAX_CHARACTERS = 1_000_000

# Characters of the name of a tool: one line on a phone.
_TOOL_CHARACTERS = 200


class Failed(BackendError):
    """What is told of a backend that has no sentence itself. `kind` is what is logged."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Answering:
    """Runs `backend.reply(question)` in a task of its own, so that it can be left behind."""

    def __init__(self, backend: Backend, question: Question, *, silence_seconds: float) -> None:
        self._backend = backend
        self._question = question
        self._silence_seconds = silence_seconds
        self._came: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_AHEAD)
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(self._ended)
        self.complete = False

    async def _run(self) -> None:
        try:
            async with contextlib.aclosing(self._backend.reply(self._question)) as pieces:
                async for piece in pieces:
                    await self._room.acquire()
                    self._came.put_nowait(_checked(piece))
        except (SystemExit, KeyboardInterrupt) as error:
            # Frameworks that take themselves for the whole program.
            raise RuntimeError("a backend wanted to end the program") from error

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._came.put_nowait(None)
        if not task.cancelled():
            task.exception()  # else asyncio complains, with the text, of those left behind

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What the backend says. Raises BackendError, or Failed, behind all that it said."""
        something, room = False, MAX_CHARACTERS
        while (piece := await self._next()) is not None:
            room -= _size(piece)
            if room < 0:
                if isinstance(piece, str):
                    yield piece[:room]
                raise Failed(
                    f"The answer grew longer than {MAX_CHARACTERS:,} characters and was ended. "
                    "Ask for less at once.",
                    f"longer than {MAX_CHARACTERS:,} characters",
                )
            if isinstance(piece, Attachment) or (isinstance(piece, str) and piece.strip()):
                something = True
            yield piece
            self._room.release()
        self._raise()
        if not something and not self._backend.may_be_silent:
            raise Failed("The AI gave an empty answer. Ask again.", "empty answer")
        self.complete = True

    async def _next(self) -> Piece | None:
        try:
            async with asyncio.timeout(self._silence_seconds):
                return await self._came.get()
        except TimeoutError:
            raise Failed(
                f"The AI has said nothing for {duration(self._silence_seconds)}. "
                "Ask again, or look whether it is well.",
                "silence",
            ) from None

    def _raise(self) -> None:
        """Raise what ended the backend, if it was not the answer's end."""
        if self.task.cancelled():
            raise Failed("The AI broke the answer off. Ask again.", "CancelledError")
        error = self.task.exception()
        if error is not None:
            # Not `from error`: a traceback may hold what is in the messages.
            raise as_told(error) from None

    async def stop(self, within: float) -> bool:
        """End the backend's work, and tell it that nobody waits any more. Whether it ended."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=within)
        told = await finished(self._backend.abort(self._question), within)
        return self.task.done() and told


async def finished(work: Coroutine[Any, Any, Any], within: float) -> bool:
    """Let it run for so many seconds at most, whatever it raises; whether it ended."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    done, _ = await asyncio.wait([task], timeout=within)
    if not done:
        task.cancel()
    return bool(done)


def as_told(error: BaseException) -> BackendError:
    """What the phone is told of an error: a BackendError's own words, of others the kind."""
    if isinstance(error, BackendError):
        if str(error):
            return error
        return Failed("The AI failed and gave no reason. Ask again.", type(error).__name__)
    kind = type(error).__name__
    return Failed(
        f"The AI's backend failed ({kind}). Ask again; if it goes on, whoever runs this agent "
        "has to look at it.",
        kind,
    )


def kind_of(error: BaseException) -> str:
    """What may be logged of it: what its `kind` says, or its class."""
    kind = getattr(error, "kind", "")
    return kind if isinstance(kind, str) and kind else type(error).__name__


def _size(piece: Piece) -> int:
    """What counts of it: without end are not only words."""
    if isinstance(piece, str):
        return len(piece)
    return len(piece.tool if isinstance(piece, ToolStatus) else piece.name)


def _checked(piece: object) -> Piece:
    """A piece as it can be sent. Raises Failed for what is none."""
    if isinstance(piece, str):
        # Halves of characters, of which models make some, cannot be sent.
        # Some frameworks give kinds of str of their own, and JSON knows only the one.
        return str(piece) if piece.isascii() else piece.encode("utf-8", "replace").decode()
    if isinstance(piece, ToolStatus) and isinstance(piece.tool, str):
        return ToolStatus(one_line(piece.tool)[:_TOOL_CHARACTERS] or "tool", piece.status)
    if isinstance(piece, Attachment):
        return piece
    raise Failed(
        "The AI's backend gave something that is no part of an answer. "
        "Whoever runs this agent has to look at it.",
        f"a piece of type {type(piece).__name__}",
    )
