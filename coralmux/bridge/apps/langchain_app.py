"""A LangChain Runnable or a compiled LangGraph graph that runs in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from typing import Any, get_origin, get_type_hints
from uuid import NAMESPACE_URL, uuid5

from coralmux import ToolStatus
from coralmux.bridge.apps.graph_stream import GraphAnswer, answer_in, as_text, by_ai, is_message
from coralmux.bridge.apps.question_input import InputShape, shape
from coralmux.bridge.apps.threads import in_thread
from coralmux.bridge.backend import Question

Said = AsyncGenerator[str | ToolStatus, None]


def thread_id(question: Question) -> str:
    """Names a phone's conversation with an agent to whoever keeps it. A UUID, since that is
    what LangGraph servers want; the same one after each restart."""
    return str(uuid5(NAMESPACE_URL, f"coralmux:{question.phone}/{question.agent_id}"))


def is_runnable(found: object) -> bool:
    from langchain_core.runnables import Runnable

    return isinstance(found, Runnable)


def is_graph(found: object) -> bool:
    # Where nobody has imported LangGraph there are no graphs.
    pregel = sys.modules.get("langgraph.pregel")
    return pregel is not None and isinstance(found, pregel.Pregel)


class LangchainApp:
    """`keeps_history`: it remembers what was said by itself, for each phone and agent.

    Raises BackendUnusable where it is not clear how to put a question to it.
    """

    def __init__(self, app: Any, *, input: str = "", nodes: Collection[str] = ()) -> None:
        self._app = app
        self._nodes = nodes
        self.is_graph = is_graph(app)
        if self.is_graph:
            self.keeps_history = bool(app.checkpointer)
        else:
            self.keeps_history = bool(_session_keys(app))
        self.shape: InputShape = shape(_schema(app), input)

    async def reply(self, question: Question) -> Said:
        """The answer of the app; raises whatever the app raises."""
        from langchain_core.messages import convert_to_messages

        history = () if self.keeps_history else question.history
        asked = self.shape.of(question, history, convert_to_messages)
        thread = thread_id(question)
        keys = ("thread_id", *_session_keys(self._app))
        config = {"configurable": dict.fromkeys(keys, thread)}
        if self.is_graph:
            if self.keeps_history and await self._waits_for_user(config):
                from langgraph.types import Command

                asked = Command(resume=question.text)
            pieces = self._of_graph(asked, config, question)
        else:
            pieces = self._of_runnable(asked, config, question)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _of_graph(self, asked: Any, config: dict[str, Any], question: Question) -> Said:
        answer = GraphAnswer(self._nodes)
        options = {"stream_mode": ["messages", "updates"], "subgraphs": True}
        try:
            async with aclosing(self._stream(asked, config, **options)) as stream:
                async for where, mode, data in stream:
                    if mode == "messages":
                        pieces = answer.message(*data)
                    else:
                        # What graphs inside of it change shows in their own nodes' changes.
                        pieces = answer.update(data) if not where else ()
                    for piece in pieces:
                        yield piece
        except Exception:
            for piece in answer.failed():
                yield piece
            raise
        finally:
            question.usage.update(answer.usage)
        for piece in answer.end():
            yield piece

    async def _of_runnable(self, asked: Any, config: dict[str, Any], question: Question) -> Said:
        from langchain_core.runnables.utils import AddableDict

        answer = GraphAnswer()
        last: Any = None
        spoke = False
        try:
            async with aclosing(self._stream(asked, config)) as stream:
                async for chunk in stream:
                    pieces: Any = ()
                    if is_message(chunk) and not isinstance(chunk, dict):
                        pieces = answer.message(chunk, {}) if by_ai(chunk) else ()
                    elif isinstance(chunk, str):
                        pieces = (chunk,)
                    elif isinstance(chunk, AddableDict) and "messages" not in chunk:
                        pieces = (answer_in(chunk),)
                    else:
                        # Each takes the place of the one before, and the last one counts.
                        last = chunk
                    for piece in pieces:
                        spoke = spoke or (isinstance(piece, str) and bool(piece))
                        yield piece
        except Exception:
            for piece in answer.failed():
                yield piece
            raise
        finally:
            question.usage.update(answer.usage)
        for piece in answer.end():
            yield piece
        if not spoke and last is not None:
            yield answer_in(last) or as_text(last)

    async def _stream(self, asked: Any, config: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """`astream`, or `stream` in a thread where the app has parts that know no asyncio."""
        begun = False
        try:
            async with aclosing(self._app.astream(asked, config, **options)) as stream:
                async for piece in stream:
                    begun = True
                    yield piece
                return
        except NotImplementedError:
            if begun:
                raise

        def work() -> Iterator[Any]:
            return iter(self._app.stream(asked, config, **options))

        async with aclosing(in_thread(work)) as pieces:
            async for piece in pieces:
                yield piece

    async def _waits_for_user(self, config: Any) -> bool:
        """Whether the graph has asked the user something, which this question answers."""
        try:
            state = await self._app.aget_state(config)
        except NotImplementedError:
            state = await asyncio.to_thread(self._app.get_state, config)
        return any(task.interrupts for task in state.tasks)


def _schema(app: Any) -> dict[str, Any]:
    """The JSON schema of the app's input, as far as there is one."""
    try:
        found: dict[str, Any] = app.get_input_jsonschema()
    except Exception:
        # Some types have none, such as a plain TypedDict before Python 3.12. Of a graph's
        # state the names of the fields tell enough.
        state = getattr(getattr(app, "builder", None), "input_schema", None)
        fields = {
            name: {"type": "array"} if get_origin(kind) is list else {}
            for name, kind in (get_type_hints(state) if state else {}).items()
        }
        return {"type": "object", "properties": fields} if fields else {}
    return found


def _session_keys(app: Any) -> list[str]:
    """What names a conversation to RunnableWithMessageHistory, wherever that is in the app."""
    from langchain_core.runnables import RunnableSequence
    from langchain_core.runnables.history import RunnableWithMessageHistory

    if isinstance(app, RunnableWithMessageHistory):
        return [spec.id for spec in app.history_factory_config]
    if isinstance(app, RunnableSequence):
        return [key for step in app.steps for key in _session_keys(step)]
    return []
