"""A graph on a LangGraph server, reached over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

import coralmux
from coralmux import ToolStatus
from coralmux.bridge.answering import Failed
from coralmux.bridge.apps.failures import of_name
from coralmux.bridge.apps.graph_stream import GraphAnswer
from coralmux.bridge.apps.langchain_app import thread_id
from coralmux.bridge.apps.question_input import InputShape, shape
from coralmux.bridge.backend import Finding, Question
from coralmux.bridge.backends import BackendUnusable
from coralmux.text import one_line

# Seconds. Answers take as long as they take: whoever waits for them watches over that.
_CONNECT, _READ, _WRITE, _POOL = 10.0, None, 20.0, 20.0
_CHECK_SECONDS = 20


class LanggraphServer:
    """One assistant of a server, which keeps a thread for each phone and agent."""

    def __init__(
        self,
        url: str,
        assistant: str,
        *,
        api_key: str = "",
        input: str = "",
        nodes: Collection[str] = (),
    ) -> None:
        from langgraph_sdk import get_client

        self._url = url.strip().rstrip("/")
        self._assistant = assistant
        self._input = input
        self._nodes = nodes
        # None, since otherwise a key for another service is taken from the environment.
        self._client = get_client(
            url=self._url, api_key=api_key or None, timeout=(_CONNECT, _READ, _WRITE, _POOL)
        )
        self._shape: InputShape | None = None
        self._runs: dict[str, tuple[str, str]] = {}  # thread and run, by the question's id

    async def close(self) -> None:
        await self._client.aclose()

    async def reply(self, question: Question) -> AsyncGenerator[str | ToolStatus, None]:
        """The answer. Raises BackendError."""
        answer = GraphAnswer(self._nodes)
        try:
            async with aclosing(self._events(question)) as events:
                async for event, data in events:
                    kind, _, where = event.partition("|")
                    pieces: Any = ()
                    if kind == "messages":
                        pieces = answer.message(*data)
                    elif kind == "updates" and not where:
                        pieces = answer.update(data)
                    elif kind == "error":
                        raise self._failed(data)
                    for piece in pieces:
                        yield piece
        except Exception as error:
            for piece in answer.failed():
                yield piece
            raise self._explain(error, question.id in self._runs) from None
        finally:
            question.usage.update(answer.usage)
        for piece in answer.end():
            yield piece

    async def _events(self, question: Question) -> AsyncGenerator[tuple[str, Any], None]:
        thread = thread_id(question)
        asked = (await self._input_shape()).of(question, ())
        await self._client.threads.create(thread_id=thread, if_exists="do_nothing")
        state: Any = await self._client.threads.get_state(thread)
        if state.get("interrupts"):
            # The graph has asked the user something, which this question answers.
            sent: Any = {"command": {"resume": question.text}}
        else:
            sent = {"input": asked}

        def created(run: Any) -> None:
            self._runs[question.id] = thread, run["run_id"]

        stream = self._client.runs.stream(
            thread,
            self._assistant,
            stream_mode=["messages-tuple", "updates"],
            stream_subgraphs=True,
            # A second question of the same phone waits for the first one's end.
            multitask_strategy="enqueue",
            on_disconnect="cancel",
            on_run_created=created,
            **sent,
        )
        async for part in stream:
            yield part.event, part.data
        self._runs.pop(question.id, None)

    async def abort(self, question: Question) -> None:
        """Stop the run of a question, if it has one."""
        run = self._runs.pop(question.id, None)
        if run is not None:
            with suppress(httpx.HTTPError):  # the run is over, or the server is gone
                await self._client.runs.cancel(*run)

    async def _input_shape(self) -> InputShape:
        if self._shape is None:
            schemas: Any = await self._client.assistants.get_schemas(await self._assistant_id())
            self._shape = shape(schemas.get("input_schema") or {}, self._input)
        return self._shape

    async def _assistant_id(self) -> str:
        """Runs may name a graph; what is asked about an assistant needs its id."""
        found = await self._assistants()
        for key in ("assistant_id", "graph_id", "name"):
            for assistant in found:
                if assistant[key] == self._assistant:
                    return str(assistant["assistant_id"])
        there = ", ".join(sorted({one_line(str(a["graph_id"])) for a in found})) or "none"
        raise coralmux.BackendError(
            f"The LangGraph server has no assistant {self._assistant!r}. It has: {there}. "
            "Mend the setting `assistant`."
        )

    async def _assistants(self) -> list[Any]:
        found: Any = await self._client.assistants.search(limit=100)
        return list(found)

    async def check(self) -> AsyncIterator[Finding]:
        """What the server says of the assistant."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._assistants()
            yield Finding(True, f"A LangGraph server answers at {self._address}.")
            async with asyncio.timeout(_CHECK_SECONDS):
                found = await self._input_shape()
            takes = "messages" if found.messages else found.key or "text"
            yield Finding(True, f"It has the assistant {self._assistant!r}, which takes {takes}.")
        except Exception as error:
            yield Finding(False, str(self._explain(error)))

    @property
    def _address(self) -> str:
        return urlsplit(self._url).netloc.rpartition("@")[2]

    def _failed(self, data: Any) -> coralmux.BackendError:
        """What the server says when a run fails: the class of the error, and its text."""
        kind = one_line(str(data.get("error") or "")) if isinstance(data, dict) else ""
        return coralmux.BackendError(
            of_name(kind)
            or f"The app failed on the LangGraph server{f' ({kind})' if kind else ''}. "
            "Its log says more."
        )

    def _explain(self, error: Exception, begun: bool = False) -> coralmux.BackendError:
        if isinstance(error, coralmux.BackendError):
            return error
        if isinstance(error, BackendUnusable):
            return coralmux.BackendError(str(error))
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            text = "The LangGraph server does not take the key. Mend the setting `api_key`."
        elif status == 404:
            text = f"No LangGraph server answers at {self._address}. Mend the setting `base_url`."
        elif status == 429:
            text = "The LangGraph server takes no more questions just now. Try again later."
        elif isinstance(status, int) and status >= 500:
            text = f"The LangGraph server failed (HTTP {status}). Try again in a moment."
        elif isinstance(status, int):
            text = f"The LangGraph server did not take the question (HTTP {status})."
        elif begun:
            text = "The connection to the LangGraph server broke off. Ask again."
        else:
            text = (
                f"No LangGraph server can be reached at {self._address}. "
                "Look whether it is running, and at the setting `base_url`."
            )
        return Failed(text, text)
