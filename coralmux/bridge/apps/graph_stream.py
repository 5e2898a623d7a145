"""What a LangGraph graph streams, made into an answer; the same in process and from afar.

A pure machine: takes what `stream_mode=["messages", "updates"]` gives, where a message is an
object of langchain_core or the JSON of one, and returns what to pass on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from coralmux import ToolStatus
from coralmux.bridge.apps.final_answer import same

# Where an app may leave its answer, in the order of preference.
ANSWER_KEYS = ("answer", "output", "response", "result", "text", "content")

BETWEEN = "\n\n"

# Who speaks, in the plain forms of messages that LangChain takes too.
_ROLES = ("ai", "assistant", "human", "user", "system", "developer", "tool", "function")

# Names of the count of tokens: LangChain's, and those of the answer's end.
_COUNTS = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
}


def value(found: Any, name: str) -> Any:
    """An attribute of an object, or an item of its JSON."""
    return found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)


def text_of(content: Any) -> str:
    """The text in a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (
        part
        if isinstance(part, str)
        else value(part, "text")
        if value(part, "type") in ("text", "text_delta")
        else ""
        for part in content
    )
    return "".join(part for part in parts if isinstance(part, str))


def is_message(found: Any) -> bool:
    return value(found, "type") is not None and value(found, "content") is not None


def by_ai(message: Any) -> bool:
    return str(value(message, "type")) in ("ai", "AIMessageChunk", "assistant")


def _unplain(message: Any) -> Any:
    """A message written as ("ai", "…") or {"role": "assistant", …}, like the JSON of others."""
    if isinstance(message, list | tuple) and len(message) == 2 and message[0] in _ROLES:
        return {"type": message[0], "content": message[1]}
    if isinstance(message, Mapping) and message.get("role") in _ROLES:
        return {**message, "type": message["role"]}
    return message


def _messages_in(found: Any) -> Sequence[Any] | None:
    """Those of a table, which may hold a list or one alone; None where it has none."""
    messages = _unplain(found.get("messages")) if isinstance(found, Mapping) else None
    if is_message(messages):
        return [messages]
    return messages if isinstance(messages, list | tuple) else None


def answer_in(found: Any) -> str:
    """The answer in what an app returned: text, a message, or a table with either in it."""
    found = _unplain(found)
    if isinstance(found, str):
        return found
    if is_message(found):
        return text_of(value(found, "content")) if by_ai(found) else ""
    if isinstance(found, Mapping):
        if (messages := _messages_in(found)) is not None:
            return next((text for m in reversed(messages) if (text := answer_in(m))), "")
        return next((text for key in ANSWER_KEYS if (text := answer_in(found.get(key)))), "")
    return ""


def as_text(found: Any) -> str:
    """What is not an answer in words, for people all the same."""
    if isinstance(found, str):
        return found
    if hasattr(found, "model_dump"):
        found = found.model_dump()
    return json.dumps(found, ensure_ascii=False, default=str)


def _ends_plain(change: Any) -> bool:
    """Whether a node's last message is the AI's in plain form, which "messages" leaves out:
    it becomes a message, and gets its id, in the graph's state only."""
    messages = _messages_in(change)
    last = _unplain(messages[-1]) if messages else None
    return by_ai(last) and not value(last, "id")


class GraphAnswer:
    """Follows one run. `nodes`: those that speak to the user; none named: all do."""

    def __init__(self, nodes: Collection[str] = ()) -> None:
        self._nodes = nodes
        self._heard: set[str] = set()  # ids of messages
        self._said: dict[tuple[str, str], list[str]] = {}  # by the node's run, and the id
        self._speaker: str | None = None  # the message that spoke last
        self._tools: dict[str, str] = {}  # names of those at work, by the id of the call
        self._last = ""  # an answer outside of any message
        self.usage: dict[str, int] = {}

    def message(self, message: Any, metadata: Mapping[str, Any]) -> Iterable[str | ToolStatus]:
        """From "messages": a piece of what a model says, or a message that a node returned."""
        kind = str(value(message, "type"))
        if kind in ("tool", "ToolMessageChunk"):
            yield from self._tool_done(message)
        if not by_ai(message):
            return
        id = str(value(message, "id") or "")
        where = str(metadata.get("langgraph_checkpoint_ns") or "")
        text = text_of(value(message, "content"))
        if kind != "AIMessageChunk":
            if id in self._heard:
                return  # the whole of what has come in pieces
            if text and self._was_said(text, where):
                text = ""  # the node has made a message of what its model said
        self._heard.add(id)
        yield from self._tools_called(message)
        self._count(value(message, "usage_metadata"))
        if not text or (self._nodes and metadata.get("langgraph_node") not in self._nodes):
            return
        self._said.setdefault((where, id), []).append(text)
        yield from self._say(text, id)

    def update(self, update: Any) -> Iterable[str | ToolStatus]:
        """From "updates": what each node has changed, or that the graph waits for the user."""
        if not isinstance(update, Mapping):
            return
        for node, change in update.items():
            if node == "__interrupt__":
                for number, interrupt in enumerate(change):
                    yield from self._say(as_text(value(interrupt, "value")), f"?{number}")
            elif not self._nodes or node in self._nodes:
                for one in change if isinstance(change, list) else [change]:
                    text = answer_in(one)
                    # A node may hand on what another one has said.
                    anew = text != self._last and not self._was_said(text, f"{node}:")
                    if text and anew and _ends_plain(one):
                        yield from self._say(text, f"{node}: {text}")
                    self._last = text or self._last

    def end(self) -> Iterable[str | ToolStatus]:
        """Nothing more comes: what is left to say where nothing was said yet."""
        yield from self._tools_left("done")
        if self._speaker is None and self._last:
            yield from self._say(self._last, "")

    def failed(self) -> Iterable[ToolStatus]:
        """The run broke off: no tool is at work any more."""
        yield from self._tools_left("error")

    def _was_said(self, text: str, where: str) -> bool:
        """Whether a message there, or in a graph within, had this text already. Runs of nodes
        are named like "node:1234", and in those "node:1234|inner:5678"."""
        return bool(where) and any(
            same(text, "".join(pieces))
            for (place, _), pieces in self._said.items()
            if place.startswith(where)
        )

    def _say(self, text: str, speaker: str) -> Iterable[str]:
        if self._speaker not in (None, speaker):
            yield BETWEEN
        self._speaker = speaker
        yield text

    def _tools_left(self, status: Literal["done", "error"]) -> Iterable[ToolStatus]:
        for name in self._tools.values():
            yield ToolStatus(name, status)
        self._tools.clear()

    def _tools_called(self, message: Any) -> Iterable[ToolStatus]:
        # In pieces the name comes first, and its arguments without it.
        for call in value(message, "tool_call_chunks") or value(message, "tool_calls") or ():
            id, name = value(call, "id"), value(call, "name")
            if id and name and id not in self._tools:
                self._tools[id] = name
                yield ToolStatus(name, "running")

    def _tool_done(self, message: Any) -> Iterable[ToolStatus]:
        name = self._tools.pop(str(value(message, "tool_call_id")), None)
        name = name or value(message, "name")
        if name:
            failed = value(message, "status") == "error"
            yield ToolStatus(str(name), "error" if failed else "done")

    def _count(self, usage: Any) -> None:
        for name, ours in _COUNTS.items():
            count = value(usage, name)
            if isinstance(count, int):
                self.usage[ours] = self.usage.get(ours, 0) + count
