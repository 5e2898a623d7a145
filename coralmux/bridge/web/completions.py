"""Chat completions as OpenAI-compatible servers speak them: what is sent, what comes.

No I/O. Servers differ in what they leave out, add and misname; all that is needed to
understand one is that texts stand where they belong.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import coralmux
from coralmux import Attachment, ToolStatus, Turn
from coralmux.bridge.backend import Piece
from coralmux.text import one_line

Message = dict[str, Any]

_ROLES = ("system", "user", "assistant")
_TEXTS = {"application/json", "application/xml", "application/x-yaml", "application/toml"}
_LONGEST_TOOL = 60


class NoCompletion(Exception):
    """What came is nothing that an OpenAI-compatible server says."""


class ServerError(Exception):
    """The server broke off with an error; `body` is what it says about it, as JSON."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


# What is sent


def messages(system: str, history: Sequence[Turn], question: Message) -> list[Message]:
    """The conversation as a server takes it. Some insist that user and assistant take
    turns, which they do not after an answer that was cancelled or failed."""
    found: list[Message] = [{"role": "system", "content": system}] if system else []
    turns = [
        {"role": turn.role, "content": turn.content}
        for turn in history
        if turn.role in _ROLES and turn.content.strip()
    ]
    while turns and turns[0]["role"] == "assistant":
        del turns[0]
    for message in (*turns, question):
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {
                "role": message["role"],
                "content": _joined(found[-1]["content"], message["content"]),
            }
        else:
            found.append(message)
    return found


def question(text: str, attachments: Iterable[Attachment]) -> Message:
    """What the user asks, pictures as parts of it. Raises BackendError for other files."""
    texts, pictures = [text] if text else [], []
    for attachment in attachments:
        if attachment.is_image:
            data = b64encode(attachment.data).decode("ascii")
            url = f"data:{attachment.mime_type};base64,{data}"
            pictures.append({"type": "image_url", "image_url": {"url": url}})
        elif attachment.mime_type.startswith("text/") or attachment.mime_type in _TEXTS:
            content = attachment.data.decode("utf-8-sig", "replace")
            texts.append(f"{attachment.name}:\n\n{content}")
        else:
            raise coralmux.BackendError(
                f"The AI takes pictures and texts, and {attachment.name} is neither "
                f"({attachment.mime_type}). Send it as a picture or a text."
            )
    whole = "\n\n".join(texts)
    # Servers without eyes take a content of one text only.
    if not pictures:
        return {"role": "user", "content": whole}
    return {"role": "user", "content": [*_parts(whole), *pictures]}


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Message]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


# What comes


class CompletionReader:
    """Turns the data of a stream's events, or of one whole answer, into pieces.

    `finish_reason` is "" until the server gave one, `ended` says that nothing follows,
    `understood` that the server speaks this language, `spoke` that there was any text.
    `usage` is the server's own count.
    """

    def __init__(self) -> None:
        self.finish_reason = ""
        self.ended = False
        self.understood = False
        self.spoke = False
        self.usage: dict[str, Any] = {}
        self.tools: list[str] = []
        self._running: list[str] = []
        self._half = ""

    @property
    def whole(self) -> bool:
        return self.ended or bool(self.finish_reason)

    def read(self, data: str, *, name: str = "") -> Iterator[Piece]:
        """One event. Raises NoCompletion or ServerError."""
        if data.strip() == "[DONE]":
            self.ended = True
            return
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise NoCompletion from None
        if not isinstance(found, dict):
            raise NoCompletion
        if name == "error" or found.get("error") or found.get("object") == "error":
            raise ServerError(data.encode("utf-8", "replace"))
        if isinstance(usage := found.get("usage"), dict):
            self.usage = usage
        # Others are a count of tokens alone, or what some server adds.
        if isinstance(choices := found.get("choices"), list):
            self.understood = True
            for choice in choices[:1]:
                if isinstance(choice, dict):
                    yield from self._read_choice(choice)

    def end(self) -> Iterator[Piece]:
        """What is left to say when nothing follows."""
        yield from self._say("", last=True)
        yield from self._stop_tools()

    def _read_choice(self, choice: dict[str, Any]) -> Iterator[Piece]:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            # Thoughts are not the answer. Two names are in use.
            if delta.get("reasoning_content") or delta.get("reasoning"):
                yield from self._start_tool("thinking")
            for text in (delta.get("content"), delta.get("refusal")):
                yield from self._say(_text(text))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                function = call.get("function") if isinstance(call, dict) else None
                tool = function.get("name") if isinstance(function, dict) else None
                if tool and isinstance(tool, str):
                    tool = one_line(tool)[:_LONGEST_TOOL]
                    self.tools.append(tool)
                    yield from self._start_tool(tool)
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self.finish_reason = reason

    def _say(self, text: str, *, last: bool = False) -> Iterator[Piece]:
        if not (text or last):
            return
        # A character beyond U+FFFF may come in two halves, which are no text each.
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff" and not last:
            text, self._half = text[:-1], text[-1]
        if text := text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"):
            yield from self._stop_tools()
            self.spoke = True
            yield text

    def _start_tool(self, tool: str) -> Iterator[Piece]:
        if tool not in self._running:
            self._running.append(tool)
            yield ToolStatus(tool, "running")

    def _stop_tools(self) -> Iterator[Piece]:
        stopped, self._running = self._running, []
        for tool in stopped:
            yield ToolStatus(tool, "done")


def _text(content: Any) -> str:
    """Content is a text, or a list of parts with texts in them."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""
