"""AutoGen: a team or an agent of AgentChat, in this process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import coralmux
from coralmux import ToolStatus
from coralmux.bridge.apps.failures import explain, locate
from coralmux.bridge.apps.loading import app_directory, call, load
from coralmux.bridge.apps.team_stream import TeamAnswer
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.transcript import with_transcript
from coralmux.bridge.web import completions

# Teams that a factory has made are kept so that they remember; the least used one goes.
_MOST_TEAMS = 64

# Seconds that a team gets to end when it is told to.
_STOP_SECONDS = 4.0


class AutogenSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`speakers`: the agents of a team whose words are for the user, all unless some are
    named. `directory`: where `app` is, the current directory unless it is set.
    """

    app: str
    directory: str = ""
    speakers: tuple[str, ...] = ()


@dataclass(slots=True)
class _Seat:
    """A team, and the conversation that it is in: "" where it has to begin anew."""

    team: Any = None
    conversation: str = ""
    used: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AutogenBackend(Backend):
    """A factory makes a team for each phone and agent. A team that was named itself is
    shared: one question at a time, and it forgets when another phone asks."""

    Settings = AutogenSettings
    needs = ("autogen_agentchat",)
    install = ("autogen-agentchat", "autogen-ext[openai]")
    keeps = "its teams' conversations, until the agent is started anew"

    def __init__(self, settings: AutogenSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._directory = Path()
        self._factory: Callable[[], Any] | None = None
        self._seats: OrderedDict[str, _Seat] = OrderedDict()

    async def start(self) -> None:
        """Load the team. Raises BackendUnusable."""
        found, self._factory = await self._load()
        if self._factory is None:
            self._seats[""] = _Seat(found)

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        conversation = f"{question.phone}/{question.agent_id}"
        seat = self._seat(conversation)
        waits = seat.lock.locked()
        if waits:
            yield ToolStatus("waiting", "running")
        async with seat.lock:
            if waits:
                yield ToolStatus("waiting", "done")
            try:
                begins = seat.conversation != conversation
                if begins:
                    await self._begin(seat)
                # Until it has come to its end nobody knows what it remembers.
                seat.conversation = ""
                async for piece in self._run(seat.team, question, begins):
                    yield piece
                seat.conversation = conversation
            except Exception as error:
                told = explain(error)
                if told is not error:
                    self.place.say(locate(error, self._directory))
                raise told from None

    async def check(self) -> AsyncIterator[Finding]:
        try:
            found, factory = await self._load()
        except BackendUnusable as error:
            yield Finding(False, str(error))
            return
        kind = type(found).__name__
        if factory is not None:
            yield Finding(True, f"{self.settings.app} makes a {kind} for each phone.")
        else:
            yield Finding(
                True,
                f"{self.settings.app} is a {kind}, which all phones share, one at a time. "
                "A function that makes one would give each its own.",
            )

    async def _load(self) -> tuple[Any, Callable[[], Any] | None]:
        self._directory = app_directory(self.settings.directory)
        return await load(
            self.settings.app,
            self._directory,
            _is_team,
            "an AgentChat team or agent",
            "team:make_team",
        )

    def _seat(self, conversation: str) -> _Seat:
        key = conversation if self._factory else ""
        seat = self._seats.setdefault(key, _Seat())
        self._seats.move_to_end(key)
        if len(self._seats) > _MOST_TEAMS:
            idle = next((k for k, s in self._seats.items() if not s.lock.locked()), key)
            if idle != key:
                del self._seats[idle]
        return seat

    async def _begin(self, seat: _Seat) -> None:
        """A team that has heard nothing yet."""
        if self._factory is not None:
            seat.team = await call(self._factory)
        elif seat.used:
            await _forget(seat.team)
        seat.used = True

    async def _run(
        self, team: Any, question: Question, begins: bool
    ) -> AsyncGenerator[Piece, None]:
        answer = TeamAnswer(self.settings.speakers)
        try:
            async for piece in self._once(team, _task(question, begins), answer):
                yield piece
            if begins and question.history and not answer.spoke:
                # What was said before had a word in it by which teams end. They have heard it.
                async for piece in self._once(team, _task(question, False), answer):
                    yield piece
        finally:
            question.usage.update(answer.usage)

    async def _once(self, team: Any, task: Any, answer: TeamAnswer) -> AsyncGenerator[Piece, None]:
        from autogen_core import CancellationToken

        token = CancellationToken()
        came: asyncio.Queue[Any] = asyncio.Queue()

        async def follow() -> None:
            try:
                async for event in team.run_stream(task=task, cancellation_token=token):
                    if getattr(event, "id", "") != task.id:
                        came.put_nowait(event)
            finally:
                came.put_nowait(None)

        following = asyncio.create_task(follow())
        try:
            while (event := await came.get()) is not None:
                for piece in answer.event(event):
                    yield piece
            if (error := await _error(following)) is not None:
                for status in answer.failed():
                    yield status
                raise error
            for status in answer.end():
                yield status
        finally:
            if not following.done():
                # A team that is merely cancelled waits for its model first.
                token.cancel()
                await asyncio.wait([following], timeout=_STOP_SECONDS)
                following.cancel()


async def _error(task: asyncio.Task[None]) -> BaseException | None:
    await asyncio.wait([task])
    if task.cancelled():
        return coralmux.BackendError("The team broke the answer off. Ask again.")
    return task.exception()


def _task(question: Question, begins: bool) -> Any:
    """The question, and what was said before where the team has not heard it: in one message,
    since teams count messages to know when they are done."""
    from autogen_agentchat.messages import MultiModalMessage, TextMessage
    from autogen_core import Image

    history = question.history if begins else ()
    asked = completions.question(with_transcript(history, question.text), question.attachments)[
        "content"
    ]
    if isinstance(asked, str):
        return TextMessage(content=asked, source="user")
    parts = [
        part["text"] if part["type"] == "text" else Image.from_uri(part["image_url"]["url"])
        for part in asked
    ]
    return MultiModalMessage(content=parts, source="user")


async def _forget(team: Any) -> None:
    reset: Callable[[], Awaitable[None]] | None = getattr(team, "reset", None)
    if reset is not None:
        await reset()
        return
    from autogen_core import CancellationToken

    await team.on_reset(CancellationToken())


def _is_team(found: object) -> bool:
    from autogen_agentchat.base import ChatAgent, Team

    return isinstance(found, ChatAgent | Team)
