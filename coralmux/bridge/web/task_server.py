"""One server of the Agent Protocol (agentprotocol.ai): tasks, their steps, their files.

Servers differ in where they put the API and in what they leave out; AutoGPT and the
reference SDK are what this was written against.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

import coralmux
from coralmux import Attachment
from coralmux.bridge.web import failures
from coralmux.bridge.web.client import ServerSettings, Web, read_body
from coralmux.bridge.web.failures import MOST_READ, Failure
from coralmux.text import one_line

PREFIX = "/ap/v1"

# A page of a list that is as long as lists are here. Some servers know the first two
# names, others the last two, and all have pages of ten where they see none.
_ALL = {"current_page": 1, "page_size": 1000, "page": 1, "pageSize": 1000}

# Bytes of a step with its output, and of a file that the agent made.
_LARGEST_BODY = 16_000_000
LARGEST_FILE = 5_000_000

# AutoGPT's tool for questions. The next step would take silence for the answer.
_ASK_USER = "ask_user"

# Characters of a step's name that phones see.
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Step:
    """`status` is "created", "running" or "completed"; `asks`: the agent wants an answer of
    the user before it goes on."""

    id: str
    name: str
    status: str
    output: str
    is_last: bool
    asks: bool


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a task; `name` is what the server says."""

    id: str
    name: str


class _NoSuchPath(Exception):
    """The server has nothing at this path; `failure` says so to people."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class TaskServer:
    """All methods raise BackendError in words for the phone's user."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._web = Web(settings)
        root = settings.root.removesuffix("/agent/tasks").removesuffix("/agent")
        # Where the API may be, until one place has answered.
        self._roots = [root] if root.endswith(PREFIX) else [root + PREFIX, root]

    async def close(self) -> None:
        await self._web.close()

    async def reach(self) -> None:
        """Ask for something that changes nothing."""
        found = await self._found("GET", params={"current_page": 1, "page_size": 1})
        if not isinstance(found, dict | list):
            raise self._unreadable()

    async def create_task(self, input: str) -> str:
        """The id of a new task."""
        found = await self._found("POST", json={"input": input})
        if not (isinstance(found, dict) and isinstance(id := found.get("task_id"), str) and id):
            raise self._unreadable()
        return id

    async def upload(self, task: str, attachment: Attachment) -> None:
        await self._asked(
            "POST",
            f"{_path(task)}/artifacts",
            data={"relative_path": ""},
            files={"file": (attachment.name, attachment.data, attachment.mime_type)},
        )

    async def step(self, task: str) -> Step:
        """Have the next step done."""
        return self._step(await self._asked("POST", f"{_path(task)}/steps", json={}))

    async def look(self, task: str, step: str) -> Step:
        """How a step is getting on."""
        return self._step(await self._asked("GET", f"{_path(task)}/steps/{quote(step, safe='')}"))

    async def all_done(self, task: str) -> bool:
        """Whether there are steps, and all of them completed."""
        found = await self._asked("GET", f"{_path(task)}/steps", params=_ALL)
        steps = [self._step(each) for each in _listed(found, "steps")]
        return bool(steps) and all(step.status == "completed" for step in steps)

    async def artifacts(self, task: str) -> list[Artifact]:
        """The files that the agent made."""
        found = await self._asked("GET", f"{_path(task)}/artifacts", params=_ALL)
        return [
            Artifact(each["artifact_id"], str(each.get("file_name") or "file"))
            for each in _listed(found, "artifacts")
            if isinstance(each.get("artifact_id"), str) and each.get("agent_created") is True
        ]

    async def download(self, task: str, artifact: Artifact) -> Attachment | None:
        """One of them; None for one that has more than LARGEST_FILE bytes."""
        path = f"{_path(task)}/artifacts/{quote(artifact.id, safe='')}"
        data = await self._fetched("GET", path, most=LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            return None
        try:
            return Attachment.from_bytes(data, None, artifact.name)
        except coralmux.AttachmentError:  # a picture by its name, but not by its bytes
            return Attachment.from_bytes(data, "application/octet-stream", artifact.name)

    def _step(self, found: Any) -> Step:
        if not (isinstance(found, dict) and isinstance(found.get("step_id"), str)):
            raise self._unreadable()
        name, output = found.get("name"), found.get("output")
        return Step(
            id=found["step_id"],
            name=one_line(name)[:_LONGEST_NAME] if isinstance(name, str) else "",
            status=str(found.get("status")),
            output=output if isinstance(output, str) else "",
            is_last=found.get("is_last") is True,
            asks=_next_tool(found.get("additional_output")) == _ASK_USER,
        )

    async def _found(self, method: str, **more: Any) -> Any:
        """Ask at the list of tasks, wherever the server has it."""
        missing = None
        for root in self._roots:
            try:
                found = self._json(await self._body(method, root, "", **more))
            except _NoSuchPath as error:
                missing = missing or error
            else:
                self._roots = [root]
                return found
        assert missing is not None
        raise missing.failure

    async def _asked(self, method: str, path: str, **more: Any) -> Any:
        return self._json(await self._fetched(method, path, **more))

    async def _fetched(self, method: str, path: str, **more: Any) -> bytes:
        try:
            return await self._body(method, self._roots[0], path, **more)
        except _NoSuchPath as error:
            raise error.failure from None

    async def _body(
        self, method: str, root: str, path: str, *, most: int = _LARGEST_BODY, **more: Any
    ) -> bytes:
        """Raises BackendError, or _NoSuchPath."""
        url = f"{root}/agent/tasks{path}"
        try:
            async with self._web.client.stream(method, url, **more) as response:
                body = await read_body(response, most if response.is_success else MOST_READ)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise failures.of_error(error, self._settings) from None
        if response.is_success:
            return body
        failure = failures.of_status(response, body, self._settings)
        raise _NoSuchPath(failure) if response.status_code in (404, 405) else failure

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self._unreadable() from None

    def _unreadable(self) -> Failure:
        return Failure(
            f"What answers at {self._settings.address} does not speak the Agent Protocol.",
            "Check base_url; mostly it is http://127.0.0.1:8000 or ends in /ap/v1.",
        )


def _next_tool(more: Any) -> Any:
    """What AutoGPT is about to use, which it tells beside the output of a step."""
    tool = more.get("use_tool") if isinstance(more, dict) else None
    return tool.get("name") if isinstance(tool, dict) else None


def _path(task: str) -> str:
    return f"/{quote(task, safe='')}"


def _listed(found: Any, key: str) -> list[dict[str, Any]]:
    """A list, or an object with the list and a note on its pages."""
    if isinstance(found, dict):
        found = found.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
