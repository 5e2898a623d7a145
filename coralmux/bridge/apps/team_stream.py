"""What a team of AutoGen's AgentChat streams, made into an answer. A pure machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

from coralmux import ToolStatus
from coralmux.bridge.apps.graph_stream import BETWEEN

_COUNTS = ("prompt_tokens", "completion_tokens")


class TeamAnswer:
    """Follows one run. `speakers`: the agents who speak to the user; none named: all do."""

    def __init__(self, speakers: Collection[str] = ()) -> None:
        self._speakers = speakers
        self._streamed: set[str] = set()  # ids of messages that came in pieces
        self._speaking: str | None = None
        self._tools: dict[str, str] = {}  # names of those at work, by the id of the call
        self.usage: dict[str, int] = {}

    @property
    def spoke(self) -> bool:
        """Whether there was any answer."""
        return self._speaking is not None

    def event(self, event: Any) -> Iterable[str | ToolStatus]:
        """A message of an agent's, or an event on the way to one."""
        self._count(getattr(event, "models_usage", None))
        kind = type(event).__name__
        source = str(getattr(event, "source", ""))
        if kind == "ModelClientStreamingChunkEvent":
            id = getattr(event, "full_message_id", None) or source
            self._streamed.add(id)
            yield from self._say(event.content, id, source)
        elif kind == "ToolCallRequestEvent":
            for called in event.content:
                self._tools[called.id] = called.name
                yield ToolStatus(called.name, "running")
        elif kind == "ToolCallExecutionEvent":
            for result in event.content:
                self._tools.pop(result.call_id, None)
                yield ToolStatus(result.name, "error" if result.is_error else "done")
        elif kind == "HandoffMessage":
            yield ToolStatus(f"hand over to {event.target}", "done")
        elif hasattr(event, "to_model_message") and source != "user":
            # Where the pieces have no id of their message they have their speaker's.
            if not self._streamed & {event.id, source}:
                yield from self._say(event.to_text(), event.id, source)
            self._streamed.discard(source)

    def end(self) -> Iterable[ToolStatus]:
        """It has come to its end: no tool is at work any more."""
        yield from self._tools_left("done")

    def failed(self) -> Iterable[ToolStatus]:
        yield from self._tools_left("error")

    def _say(self, text: str, id: str, source: str) -> Iterable[str]:
        if not text or (self._speakers and source not in self._speakers):
            return
        if self._speaking not in (None, id):
            yield BETWEEN
        self._speaking = id
        yield text

    def _tools_left(self, status: Literal["done", "error"]) -> Iterable[ToolStatus]:
        for name in self._tools.values():
            yield ToolStatus(name, status)
        self._tools.clear()

    def _count(self, usage: Any) -> None:
        for name in _COUNTS:
            if count := getattr(usage, name, 0):
                self.usage[name] = self.usage.get(name, 0) + count
