"""What the tests of the backend `openclaw` share: the backend at a gateway, and its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from coralmux import BackendError
from coralmux.bridge import Place, Question
from coralmux.bridge.backend import Backend, Piece
from coralmux.bridge.backends import make
from tests.bridge.doubles.openclaw_gateway import TOKEN, OpenclawGateway

PHONE = "p" * 32


@contextlib.asynccontextmanager
async def backend_at(
    url: str, directory: Path, said: list[str] | None = None, **settings: Any
) -> AsyncIterator[Backend]:
    say = (lambda text: None) if said is None else said.append
    settings = {"base_url": url, "token": TOKEN} | settings
    backend = make("openclaw", settings, Place(directory, say=say))
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


@contextlib.asynccontextmanager
async def met(
    directory: Path, said: list[str] | None = None, **gateway: Any
) -> AsyncIterator[tuple[OpenclawGateway, Backend]]:
    """A gateway, and a backend at it."""
    async with (
        OpenclawGateway(**gateway).serving() as there,
        backend_at(there.url, directory / "backend", said) as backend,
    ):
        yield there, backend


class Asking:
    """A question on its way: what has come of it so far, and how it ended."""

    def __init__(self, backend: Backend, text: str = "Hello", id: str = "q", **rest: Any) -> None:
        self.question = Question(id, PHONE, text, **rest)
        self.pieces: list[Piece] = []
        self._backend = backend
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with contextlib.aclosing(self._backend.reply(self.question)) as pieces:
            async for piece in pieces:
                self.pieces.append(piece)
                self._came.set()

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    async def has(self, text: str) -> None:
        """Wait until this is the text so far."""
        async with asyncio.timeout(10):
            while self.text != text:
                assert not self._task.done(), (self.text, self._task)
                self._came.clear()
                await self._came.wait()

    async def end(self) -> str:
        """Wait for the answer's end; the text."""
        async with asyncio.timeout(10):
            await self._task
        return self.text

    async def failure(self) -> str:
        """Wait for the end by an error; what the user is told."""
        try:
            await self.end()
        except BackendError as error:
            return str(error)
        raise AssertionError(f"the answer ended well: {self.text!r}")

    async def cancel(self) -> None:
        """As the service does it when the user cancels."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._backend.abort(self.question)
