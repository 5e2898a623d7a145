"""Asking a backend without the bridge around it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from coralmux import Attachment, BackendError, ToolStatus
from coralmux.bridge import Backend, Finding, Piece, Place, Question
from coralmux.bridge.backends import make

PHONE = "0123456789abcdef" * 2


def question(text: str = "Hello?", **more: Any) -> Question:
    return Question(id="q1", phone=PHONE, text=text, **more)


@contextlib.asynccontextmanager
async def started(name: str, directory: Path, /, **settings: Any) -> AsyncIterator[Backend]:
    backend = make(name, settings, Place(directory))
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


class Outcome:
    """All that a reply yielded, and the error at its end, if there was one."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.error = ""

    @property
    def deltas(self) -> list[str]:
        return [piece for piece in self.pieces if isinstance(piece, str)]

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def tools(self) -> list[tuple[str, str]]:
        return [(p.tool, p.status) for p in self.pieces if isinstance(p, ToolStatus)]

    @property
    def attachments(self) -> list[Attachment]:
        return [piece for piece in self.pieces if isinstance(piece, Attachment)]


async def outcome(backend: Backend, asked: Question) -> Outcome:
    found = Outcome()
    try:
        async with contextlib.aclosing(backend.reply(asked)) as pieces:
            async for piece in pieces:
                found.pieces.append(piece)
    except BackendError as error:
        found.error = str(error)
    return found


async def findings(backend: Backend) -> list[Finding]:
    return [finding async for finding in backend.check()]
