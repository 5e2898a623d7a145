"""An agent that serves the Agent Protocol, as AutoGPT does: a task for each question."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

import msgspec

from coralmux import ToolStatus
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.transcript import with_transcript
from coralmux.bridge.web.client import SHORT_SECONDS, ServerSettings
from coralmux.bridge.web.failures import Failure
from coralmux.bridge.web.task_server import LARGEST_FILE, Step, TaskServer
from coralmux.text import one_line

# Seconds between two looks at a step that the server does in the background.
_LOOK_SECONDS = 1.0

# Files that an answer brings along.
_MOST_FILES = 20


class AutogptSettings(ServerSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`max_steps`: after so many an answer ends, done or not."""

    base_url: str = "http://127.0.0.1:8000"
    max_steps: Annotated[int, msgspec.Meta(ge=1)] = 25

    __repr__ = ServerSettings.__repr__


class AutogptBackend(Backend):
    """Steps are shown as tools, and what they put out is the answer. A task knows nothing of
    the one before it, so the conversation is told in its words."""

    Settings = AutogptSettings
    keeps = "the server's tasks"

    def __init__(self, settings: AutogptSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._server = TaskServer(settings)

    async def stop(self) -> None:
        await self._server.close()

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        task = await self._server.create_task(_input(question))
        for attachment in question.attachments:
            await self._server.upload(task, attachment)
        said = False
        for number in range(1, self.settings.max_steps + 1):
            label = f"step {number}"
            yield ToolStatus(label, "running")
            try:
                step = await self._step(task)
            except Failure:
                yield ToolStatus(label, "error")
                # Some agents name no last step, and have nothing to do after it.
                if number > 1 and await self._is_finished(task):
                    break
                raise
            yield ToolStatus(label, "done")
            if step.name:
                yield ToolStatus(step.name, "done")
            if output := step.output.strip():
                yield f"\n\n{output}" if said else output
                said = True
            if step.is_last or step.asks:
                break
        else:
            yield ("\n\n" if said else "") + (
                f"[Ended after {self.settings.max_steps} steps, which is the most that are "
                "set for one answer. Ask to go on.]"
            )
            said = True
        async with contextlib.aclosing(self._files(task)) as pieces:
            async for piece in pieces:
                yield f"\n\n{piece}" if isinstance(piece, str) and said else piece

    async def _step(self, task: str) -> Step:
        """The next step, once it is done."""
        step = await self._server.step(task)
        while step.status == "running":
            await asyncio.sleep(_LOOK_SECONDS)
            step = await self._server.look(task, step.id)
        return step

    async def _is_finished(self, task: str) -> bool:
        try:
            return await self._server.all_done(task)
        except Failure:
            return False

    async def _files(self, task: str) -> AsyncGenerator[Piece, None]:
        """What the agent made. A file that cannot be had spoils no answer."""
        try:
            artifacts = await self._server.artifacts(task)
        except Failure:
            return
        for artifact in artifacts[:_MOST_FILES]:
            name = one_line(artifact.name)[:100]
            try:
                found = await self._server.download(task, artifact)
            except Failure:
                yield f"[The file {name} could not be fetched.]"
                continue
            if found is None:
                yield f"[The file {name} has more than {LARGEST_FILE // 10**6} MB, and stays.]"
            else:
                yield found
        if len(artifacts) > _MOST_FILES:
            yield f"[{len(artifacts) - _MOST_FILES} more files stay at the agent.]"

    async def check(self) -> AsyncIterator[Finding]:
        try:
            started = time.monotonic()
            async with asyncio.timeout(self.settings.connect_timeout + SHORT_SECONDS):
                await self._server.reach()
            seconds = time.monotonic() - started
            yield Finding(
                True, f"The agent at {self.settings.address} answers (in {seconds:.1f} s)."
            )
        except Failure as failure:
            yield Finding(False, failure.what, failure.remedy)
        except TimeoutError:
            yield Finding(
                False,
                f"The agent at {self.settings.address} takes the connection, but does not answer.",
                "Look into its log, and start it anew.",
            )


def _input(question: Question) -> str:
    """The task: what was said before, what is asked now, and which files come along."""
    parts = [question.text] if question.text else []
    if names := ", ".join(attachment.name for attachment in question.attachments):
        parts.append(f"Files in the workspace: {names}")
    return with_transcript(question.history, "\n\n".join(parts))
