"""AutoGen: a team or an agent of AgentChat, in this process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import coralmux
from coralmux.bridge.apps.failures import explain, locate
from coralmux.bridge.apps.loading import app_directory, call, load
from coralmux.bridge.apps.team_stream import TeamAnswer
from coralmux.bridge.apps.threads import LoopThread
from coralmux.bridge.apps.turns import turn
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.transcript import with_transcript
from coralmux.bridge.web import completions

# Teams that a factory has made are kept so that they remember; the least used one goes.
_MOST_TEAMS = 64

# Seconds that a team gets to end when it is told to, and all of them together at the end.
_STOP_SECONDS = 4.0
_LEAVE_SECONDS = 1.0


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
    shared: one question at a time, and it forgets when another phone asks.

    All that is the app's runs in a loop of its own, since it may block."""

    Settings = AutogenSettings
    needs = ("autogen_agentchat",)
    install = ("autogen-agentchat", "autogen-ext[openai]")
    keeps = "its teams' conversations, until the agent is started anew"

    def __init__(self, settings: AutogenSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._directory = Path()
        self._factory: Callable[[], Any] | None = None
        self._seats: OrderedDict[str, _Seat] = OrderedDict()
        self._thread: LoopThread | None = None

    async def start(self) -> None:
        """Load the team. Raises BackendUnusable."""
        self._thread = LoopThread()
        try:
            found, self._factory = await self._thread.run(self._load())
        except BaseException:
            await self.stop()
            raise
        if self._factory is None:
            self._seats[""] = _Seat(found)

    async def stop(self) -> None:
        if self._thread is not None:
            await self._thread.stop(_LEAVE_SECONDS)
            self._thread = None

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        if self._thread is None:
            raise coralmux.BackendError("The team is not loaded. Start the agent again.")
        conversation = f"{question.phone}/{question.agent_id}"
        seat = self._seat(conversation)
        pieces = self._answer(self._thread, seat, conversation, question)
        async with turn(seat.lock) as waiting, aclosing(pieces):
            async for status in waiting:
                yield status
            async for piece in pieces:
                yield piece

    async def _answer(
        self, thread: LoopThread, seat: _Seat, conversation: str, question: Question
    ) -> AsyncGenerator[Piece, None]:
        try:
            begins = seat.conversation != conversation
            if begins:
                await thread.run(self._begin(seat))
            # Until it has come to its end nobody knows what it remembers.
            seat.conversation = ""
            async with aclosing(self._run(thread, seat.team, question, begins)) as pieces:
                async for piece in pieces:
                    yield piece
            seat.conversation = conversation
        except Exception as error:
            told = explain(error)
            if told is not error:
                self.place.say(locate(error, self._directory))
            raise told from None

    async def check(self) -> AsyncIterator[Finding]:
        thread = LoopThread()
        try:
            found, factory = await thread.run(self._load())
        except BackendUnusable as error:
            yield Finding(False, str(error))
            return
        finally:
            await thread.stop(_LEAVE_SECONDS)
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
        self, thread: LoopThread, team: Any, question: Question, begins: bool
    ) -> AsyncGenerator[Piece, None]:
        answer = TeamAnswer(self.settings.speakers)
        try:
            async with aclosing(_once(thread, team, _task(question, begins), answer)) as pieces:
                async for piece in pieces:
                    yield piece
            if begins and question.history and not answer.spoke:
                # What was said before had a word in it by which teams end. They have heard it.
                task = _task(question, False)
                async with aclosing(_once(thread, team, task, answer)) as pieces:
                    async for piece in pieces:
                        yield piece
        finally:
            question.usage.update(answer.usage)


async def _once(
    thread: LoopThread, team: Any, task: Any, answer: TeamAnswer
) -> AsyncGenerator[Piece, None]:
    from autogen_core import CancellationToken

    token = CancellationToken()
    came: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def follow() -> None:
        async for event in team.run_stream(task=task, cancellation_token=token):
            if getattr(event, "id", "") != task.id:
                loop.call_soon_threadsafe(came.put_nowait, event)

    following = asyncio.create_task(thread.run(follow()))
    following.add_done_callback(lambda _: came.put_nowait(None))
    try:
        while (event := await came.get()) is not None:
            for piece in answer.event(event):
                yield piece
        if (error := _error(following)) is not None:
            for status in answer.failed():
                yield status
            raise error
        for status in answer.end():
            yield status
    finally:
        if not following.done():
            # A team that is merely cancelled waits for its model first.
            thread.call(token.cancel)
            await asyncio.wait([following], timeout=_STOP_SECONDS)
            following.cancel()


def _error(task: asyncio.Task[None]) -> BaseException | None:
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
