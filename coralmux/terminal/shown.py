"""How one answer is put out: as text for people and pipes, or as JSON lines for scripts."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Protocol

from coralmux.client.answer import Answer
from coralmux.client.attachments import Attachment, RemoteAttachment
from coralmux.client.errors import AgentError, RelayRefused
from coralmux.client.messages import ToolStatus
from coralmux.terminal.output import Output, Tools
from coralmux.terminal.words import exit_status, of_error


class Shown(Protocol):
    """Methods raise OSError where standard output takes no more."""

    async def delta(self, text: str) -> None: ...
    def tool(self, status: ToolStatus) -> None: ...
    async def done(self, answer: Answer, saved: dict[int, Path]) -> None: ...
    async def failed(self, error: Exception) -> None: ...
    async def broken_off(self) -> None: ...


class Text:
    """The answer alone, ending with a line feed; tools on a line elsewhere."""

    def __init__(self, output: Output, tools: Tools) -> None:
        self._output = output
        self._tools = tools

    async def delta(self, text: str) -> None:
        self._tools.settle()
        await self._output.write(text)

    def tool(self, status: ToolStatus) -> None:
        self._tools.show(status.tool, status.status)

    async def done(self, answer: Answer, saved: dict[int, Path]) -> None:
        await self.broken_off()

    async def failed(self, error: Exception) -> None:
        await self.broken_off()

    async def broken_off(self) -> None:
        self._tools.settle()
        with contextlib.suppress(BrokenPipeError):
            await self._output.end_line()


class JsonLines:
    """One object a line: delta, tool, and at the end done or error.

    {"type": "delta", "text"}, {"type": "tool", "tool", "status"},
    {"type": "done", "text", "cancelled", "usage", "attachments": [{"name", "mime_type",
    "size", "sha256", "path"?} or {"mime_type", "url"}]},
    {"type": "error", "code", "message", "status"}, where `status` is the exit status.
    In ASCII, so that a line is a line and harmless wherever it ends up.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    async def delta(self, text: str) -> None:
        await self._output.write(_line("delta", text=text))

    def tool(self, status: ToolStatus) -> None:
        self._output.post(_line("tool", tool=status.tool, status=status.status))

    async def done(self, answer: Answer, saved: dict[int, Path]) -> None:
        files = [_file(item, saved.get(at)) for at, item in enumerate(answer.attachments)]
        line = _line(
            "done",
            text=answer.text,
            cancelled=answer.cancelled,
            usage=answer.usage,
            attachments=files,
        )
        await self._output.write(line)

    async def failed(self, error: Exception) -> None:
        code = error.code if isinstance(error, AgentError | RelayRefused) else type(error).__name__
        status = exit_status(error)
        line = _line("error", code=code, message=of_error(error), status=status)
        await self._output.write(line)

    async def broken_off(self) -> None:
        text = "The answer was cancelled."
        await self._output.write(_line("error", code="Cancelled", message=text, status=130))


def _line(type: str, **values: Any) -> str:
    return json.dumps({"type": type, **values}) + "\n"


def _file(item: Attachment | RemoteAttachment, path: Path | None) -> dict[str, Any]:
    if isinstance(item, RemoteAttachment):
        return {"mime_type": item.mime_type, "url": item.url}
    described: dict[str, Any] = {
        "name": item.name,
        "mime_type": item.mime_type,
        "size": len(item.data),
        "sha256": item.sha256,
    }
    return described if path is None else described | {"path": str(path)}
