"""CrewAI: a Crew of one's own, kicked off anew for each question, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

import coralmux
from coralmux import ToolStatus
from coralmux.bridge.apps.failures import explain, locate
from coralmux.bridge.apps.final_answer import FinalAnswer, same
from coralmux.bridge.apps.graph_stream import BETWEEN
from coralmux.bridge.apps.loading import app_directory, call, load
from coralmux.bridge.apps.threads import LoopThread
from coralmux.bridge.apps.turns import turn
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.transcript import transcript
from coralmux.bridge.web import completions

# Nothing leaves the machine that the user did not ask for, and nobody is asked questions at
# a terminal. Who wants CrewAI's traces sets its variables to something else.
_QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "ANONYMIZED_TELEMETRY": "false",
}

_STOP_SECONDS = 3.0
_HISTORY = "history"

# The run that an event of CrewAI's bus belongs to: the bus is one for the whole process.
_RUN: ContextVar[_Run | None] = ContextVar("coralmux_run", default=None)


class CrewaiSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`input`: the placeholder in the tasks that takes the question, where the crew has
    several; `inputs`: what the others are to be. `at_once`: crews that may run at the same
    time, the others wait. `directory`: where `app` is, the current one unless it is set.
    """

    app: str
    directory: str = ""
    input: str = ""
    inputs: dict[str, str] = {}
    at_once: int = 1

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ValueError("at_once is 1 or more")


class CrewaiBackend(Backend):
    """A copy of the crew, or what the factory makes, for each question."""

    Settings = CrewaiSettings
    needs = ("crewai",)
    install = ("crewai",)

    def __init__(self, settings: CrewaiSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._directory = Path()
        self._make: Callable[[], Any] | None = None
        self._key = ""
        self._turns = asyncio.Semaphore(settings.at_once)
        self._resources = contextlib.ExitStack()
        self._thread: LoopThread | None = None

    async def start(self) -> None:
        """Load the crew. Raises BackendUnusable."""
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        self._resources.enter_context(_without_stdout())
        try:
            self._resources.enter_context(_listening())
            self._make, crew = await self._load()
            self._key = self._question_key(crew)
        except ImportError:
            self._resources.close()
            raise BackendUnusable(
                "This CrewAI is too old for the agent. Type: pip install --upgrade crewai"
            ) from None
        except BaseException:
            self._resources.close()
            raise
        self._thread = LoopThread()

    async def stop(self) -> None:
        if self._thread is not None:
            await self._thread.stop(_STOP_SECONDS)
        self._resources.close()

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        if self._make is None or self._thread is None:
            raise coralmux.BackendError("The crew is not loaded. Start the agent again.")
        inputs = self._inputs(question)
        pieces = self._run(self._make, self._thread, inputs, question)
        async with turn(self._turns) as waiting, aclosing(pieces):
            async for status in waiting:
                yield status
            async for piece in pieces:
                yield piece

    async def check(self) -> AsyncIterator[Finding]:
        try:
            await self.start()
        except BackendUnusable as error:
            yield Finding(False, str(error))
            return
        await self.stop()
        yield Finding(
            True, f"{self.settings.app} is a crew; the question goes into {{{self._key}}}."
        )

    async def _run(
        self,
        make: Callable[[], Any],
        thread: LoopThread,
        inputs: dict[str, str],
        question: Question,
    ) -> AsyncGenerator[Piece, None]:
        run = _Run(asyncio.get_running_loop())
        task = asyncio.create_task(thread.run(run.kickoff(make, inputs)))
        task.add_done_callback(run.ended)
        try:
            async for piece in run.pieces():
                yield piece
            question.usage.update(await task)
        except Exception as error:
            told = explain(error)
            if told is not error:
                self.place.say(locate(error, self._directory))
            raise told from None
        finally:
            task.cancel()

    async def _load(self) -> tuple[Callable[[], Any], Any]:
        """What makes a crew for a question, and one to look at."""
        self._directory = app_directory(self.settings.directory)
        found, factory = await load(
            self.settings.app,
            self._directory,
            _is_crew,
            "a crewai.Crew, or a class with @CrewBase",
            "crew:crew",
        )
        if factory is None:
            return found.copy, found

        async def make() -> Any:
            made = await call(factory)
            return made.crew() if _is_base(made) else made

        return make, found.crew() if _is_base(found) else found

    def _question_key(self, crew: Any) -> str:
        if self.settings.input:
            return str(self.settings.input)
        there = crew.fetch_inputs() - {_HISTORY} - set(self.settings.inputs)
        if "question" in there or not there:
            # Without any the crew may take it from its inputs before the kickoff.
            return "question"
        if len(there) == 1:
            return str(next(iter(there)))
        names = ", ".join(sorted(there))
        raise BackendUnusable(
            f"The crew's tasks have the placeholders {names}. Say which takes the question, "
            f'such as input = "{sorted(there)[0]}", and what the others are, in the table inputs.'
        )

    def _inputs(self, question: Question) -> dict[str, str]:
        asked = completions.question(question.text, question.attachments)["content"]
        if not isinstance(asked, str):
            raise coralmux.BackendError(
                "This crew takes text alone. Send the question without pictures."
            )
        history = transcript(question.history) or "(nothing yet)"
        return {_HISTORY: history, **self.settings.inputs, self._key: asked}


class _Run:
    """One kickoff: its pieces come from the events of CrewAI's bus, in any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._came: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._last_task = ""
        self._heard = self._speaks = ""  # the last call, and the last that said anything
        self._answer = FinalAnswer()
        self._said = ""  # in the latter
        self._steps: dict[str, str] = {}

    async def kickoff(self, make: Callable[[], Any], inputs: dict[str, str]) -> dict[str, int]:
        """Run a crew to its end; the tokens that it took."""
        _RUN.set(self)
        crew = await call(make)
        crew.verbose = False
        for agent in crew.agents:
            agent.verbose = False
        if "stream" in type(crew).model_fields:
            crew.stream = True
        self._last_task = str(crew.tasks[-1].id)
        # Before 1.x there is only the one that blocks a thread.
        kickoff = getattr(crew, "akickoff", crew.kickoff_async)
        output = await kickoff(inputs=inputs)
        if hasattr(output, "__aiter__"):
            # Its pieces do not say which task they are of; those of the bus do.
            async for _ in output:
                pass
            output = output.result
        if not same(self._said, output.raw):
            self._begin()
            self._tell(output.raw)
        used = output.token_usage
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        return {name: count for name in names if (count := getattr(used, name, 0))}

    async def pieces(self) -> AsyncIterator[Piece]:
        while (piece := await self._came.get()) is not None:
            yield piece

    def ended(self, task: asyncio.Task[Any]) -> None:
        failed = task.cancelled() or task.exception() is not None
        for name in self._steps.values():
            self._came.put_nowait(ToolStatus(name, "error" if failed else "done"))
        self._came.put_nowait(None)

    def chunk(self, event: Any) -> None:
        """A piece of what a model says. Those of the last task are the answer."""
        if event.tool_call is not None or str(event.task_id) != self._last_task:
            return
        call = getattr(event, "call_id", "")
        if call != self._heard:
            self._heard, self._answer = call, FinalAnswer()
        if text := self._answer.feed(event.chunk):
            if self._speaks != self._heard:
                self._speaks = self._heard
                self._begin()
            self._tell(text)

    def step(self, id: str, name: str, status: str) -> None:
        """A task or a tool has begun, ended or failed."""

        def change() -> None:
            if status == "running":
                self._steps[id] = name
            elif self._steps.pop(id, None) is None:
                return
            self._came.put_nowait(ToolStatus(name, status))  # type: ignore[arg-type]

        self._loop.call_soon_threadsafe(change)

    def _begin(self) -> None:
        """Another call speaks: what it says stands by itself."""
        if self._said:
            self._loop.call_soon_threadsafe(self._came.put_nowait, BETWEEN)
        self._said = ""

    def _tell(self, text: str) -> None:
        self._said += text
        self._loop.call_soon_threadsafe(self._came.put_nowait, text)


@contextlib.contextmanager
def _without_stdout() -> Iterator[None]:
    """Crews report to stdout, in colours, and what they say is the user's."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """CrewAI's events lead to the run that they belong to."""
    from crewai.events import (
        LLMStreamChunkEvent,
        TaskCompletedEvent,
        TaskFailedEvent,
        TaskStartedEvent,
        ToolUsageErrorEvent,
        ToolUsageFinishedEvent,
        ToolUsageStartedEvent,
        crewai_event_bus,
    )

    def chunk(source: Any, event: Any) -> None:
        if run := _RUN.get():
            run.chunk(event)

    def task(status: str) -> Callable[[Any, Any], None]:
        def told(source: Any, event: Any) -> None:
            if run := _RUN.get():
                name = source.name or (source.agent.role if source.agent else "task")
                run.step(f"task {source.id}", name.strip(), status)

        return told

    def tool(status: str) -> Callable[[Any, Any], None]:
        def told(source: Any, event: Any) -> None:
            if run := _RUN.get():
                run.step(f"tool {event.tool_name}", event.tool_name, status)

        return told

    handlers = {
        LLMStreamChunkEvent: chunk,
        TaskStartedEvent: task("running"),
        TaskCompletedEvent: task("done"),
        TaskFailedEvent: task("error"),
        ToolUsageStartedEvent: tool("running"),
        ToolUsageFinishedEvent: tool("done"),
        ToolUsageErrorEvent: tool("error"),
    }
    for kind, handler in handlers.items():
        crewai_event_bus.on(kind)(handler)
    try:
        yield
    finally:
        for kind, handler in handlers.items():
            crewai_event_bus.off(kind, handler)


def _is_crew(found: object) -> bool:
    from crewai import Crew

    return isinstance(found, Crew) or _is_base(found)


def _is_base(found: object) -> bool:
    """An object of a class with @CrewBase: its method `crew` makes the crew."""
    from crewai import Crew

    return not isinstance(found, type | Crew) and callable(getattr(found, "crew", None))
