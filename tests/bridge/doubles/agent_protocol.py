"""An agent that serves the Agent Protocol: tasks, steps and artifacts, as the specification
and AutoGPT have them, and doing what a test says."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.bridge.doubles.http_exchange import Exchange, http_server


@dataclass
class Artifact:
    file_name: str
    data: bytes
    agent_created: bool = True
    relative_path: str | None = None

    def shown(self, number: int) -> dict[str, Any]:
        return {
            "artifact_id": f"artifact/{number}",
            "agent_created": self.agent_created,
            "file_name": self.file_name,
            "relative_path": self.relative_path,
        }


@dataclass
class Task:
    input: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)


def step(output: str | None = "", **more: Any) -> dict[str, Any]:
    """What a step turns out to be."""
    return {"output": output, "is_last": False, "status": "completed", **more}


Script = Callable[[Task, int], Awaitable[dict[str, Any] | None]]


class AgentProtocol:
    """`root` is the server's address, and `prefix` where the API is. `act` does the n-th step
    (from 1) of a task; None is a failure. `pages`: lists come with a note on their pages,
    `page_size` is what asks for more than ten."""

    def __init__(self, prefix: str) -> None:
        self.root = ""
        self.prefix = prefix
        self.pages = True
        self.page_size = "page_size"
        self.tasks: list[Task] = []
        self.exchanges: list[Exchange] = []
        self.act: Script = steps(step("Done.", is_last=True))

    async def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        path = exchange.path.partition("?")[0]
        if not path.startswith(f"{self.prefix}/agent/tasks"):
            await exchange.respond(404, {"detail": "Not Found"})
            return
        rest = path.removeprefix(f"{self.prefix}/agent/tasks").strip("/").split("/")
        match exchange.method, *rest:
            case "GET", "":
                await self._list(exchange, "tasks", [])
            case "POST", "":
                self.tasks.append(Task(exchange.json["input"]))
                id = f"task-{len(self.tasks)}"
                await exchange.respond(200, {"task_id": id, "artifacts": []})
            case method, id, what, *more:
                task = self.tasks[int(id.removeprefix("task-")) - 1]
                await self._of_task(exchange, task, method, what, "/".join(more))

    async def _of_task(
        self, exchange: Exchange, task: Task, method: str, what: str, id: str
    ) -> None:
        if (method, what) == ("POST", "steps"):
            assert exchange.json == {}
            made = await self.act(task, len(task.steps) + 1)
            if made is None:
                await exchange.respond(500, b"Internal Server Error")
                return
            task.steps.append(made | {"step_id": f"step-{len(task.steps) + 1}"})
            await exchange.respond(200, task.steps[-1])
        elif (method, what) == ("GET", "steps") and id:
            await exchange.respond(200, next(s for s in task.steps if s["step_id"] == id))
        elif (method, what) == ("GET", "steps"):
            await self._list(exchange, "steps", task.steps)
        elif (method, what) == ("POST", "artifacts"):
            task.artifacts.append(_uploaded(exchange))
            await exchange.respond(200, task.artifacts[-1].shown(len(task.artifacts)))
        elif (method, what) == ("GET", "artifacts") and id:
            number = int(id.removeprefix("artifact%2F"))
            await exchange.respond(
                200, task.artifacts[number - 1].data, content_type="application/octet-stream"
            )
        else:
            shown = [each.shown(number) for number, each in enumerate(task.artifacts, 1)]
            await self._list(exchange, what, shown)

    async def _list(self, exchange: Exchange, key: str, found: list[Any]) -> None:
        query = parse_qs(exchange.path.partition("?")[2])
        found = found[: int(query.get(self.page_size, ["10"])[0])]
        await exchange.respond(200, {key: found, "pagination": {}} if self.pages else found)


@contextlib.asynccontextmanager
async def agent_protocol(prefix: str = "/ap/v1") -> AsyncIterator[AgentProtocol]:
    agent = AgentProtocol(prefix)
    async with http_server(agent.handle) as agent.root:
        yield agent


def steps(*made: dict[str, Any]) -> Script:
    """These steps, and a failure after them."""

    async def act(task: Task, number: int) -> dict[str, Any] | None:
        return made[number - 1] if number <= len(made) else None

    return act


def _uploaded(exchange: Exchange) -> Artifact:
    """The file of a multipart form."""
    head = f"Content-Type: {exchange.headers['content-type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + exchange.body, policy=email.policy.HTTP)
    for part in form.iter_parts():  # type: ignore[attr-defined]
        if name := part.get_filename():
            return Artifact(name, part.get_payload(decode=True), agent_created=False)
    raise AssertionError(json.dumps(dict(exchange.headers)))
