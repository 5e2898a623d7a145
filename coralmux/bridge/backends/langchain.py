"""LangChain and LangGraph: an app of one's own in this process, or a LangGraph server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec

import coralmux
from coralmux import ToolStatus
from coralmux.bridge.apps.failures import explain, locate
from coralmux.bridge.apps.langchain_app import LangchainApp, is_runnable, thread_id
from coralmux.bridge.apps.langgraph_server import LanggraphServer
from coralmux.bridge.apps.loading import app_directory, load
from coralmux.bridge.apps.turns import turn
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.backends import BackendUnusable


class LangchainSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`app`, or `base_url` with `assistant` and `api_key`.

    `input`: "text", "messages", or the key that takes the question, where the app does not
    tell. `nodes`: the nodes of a graph that speak to the user, all unless some are named.
    `directory`: where `app` is, the current directory unless it is set.
    """

    app: str = ""
    directory: str = ""
    base_url: str = ""
    assistant: str = "agent"
    api_key: str = ""
    input: str = ""
    nodes: tuple[str, ...] = ()


class LangchainBackend(Backend):
    """Conversations of apps that remember by themselves run one at a time."""

    Settings = LangchainSettings
    needs = ("langchain_core",)
    install = ("langgraph",)
    keeps = "the threads of a checkpointer or a LangGraph server"

    def __init__(self, settings: LangchainSettings, place: Place) -> None:
        super().__init__(settings, place)
        if bool(settings.app) == bool(settings.base_url):
            raise BackendUnusable(
                '[langchain] needs either app = "module:object" or base_url = "http://…" of a '
                "LangGraph server, not both."
            )
        if settings.base_url and find_spec("langgraph_sdk") is None:
            raise BackendUnusable(
                "A LangGraph server is reached by langgraph-sdk, which is not installed here. "
                "Type: pip install langgraph-sdk"
            )
        self._directory = Path()
        self._app: LangchainApp | None = None
        self._server: LanggraphServer | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """Load the app. Raises BackendUnusable."""
        if self.settings.base_url:
            self._server = self._connect()
            self.wants_history = False
        else:
            self._app = await self._load()
            self.wants_history = not self._app.keeps_history

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        if self._server is not None:
            pieces = self._server.reply(question)
        elif self._app is not None:
            pieces = self._in_turn(self._app, question)
        else:
            raise coralmux.BackendError("The app is not loaded. Start the agent again.")
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def abort(self, question: Question) -> None:
        if self._server is not None:
            await self._server.abort(question)

    async def check(self) -> AsyncIterator[Finding]:
        if self.settings.base_url:
            server = self._connect()
            try:
                async for finding in server.check():
                    yield finding
            finally:
                await server.close()
            return
        try:
            app = await self._load()
        except BackendUnusable as error:
            yield Finding(False, str(error))
            return
        what = "compiled LangGraph graph" if app.is_graph else "LangChain Runnable"
        keeps = "remembers conversations itself" if app.keeps_history else "gets the conversation"
        yield Finding(True, f"{self.settings.app} is a {what}; it {keeps}.")

    def _connect(self) -> LanggraphServer:
        at = self.settings
        return LanggraphServer(
            at.base_url, at.assistant, api_key=at.api_key, input=at.input, nodes=at.nodes
        )

    async def _load(self) -> LangchainApp:
        self._directory = app_directory(self.settings.directory)
        found, _ = await load(
            self.settings.app,
            self._directory,
            is_runnable,
            "a LangChain Runnable, or a LangGraph graph after graph.compile()",
            "graph:graph",
        )
        return LangchainApp(found, input=self.settings.input, nodes=self.settings.nodes)

    async def _in_turn(
        self, app: LangchainApp, question: Question
    ) -> AsyncGenerator[str | ToolStatus, None]:
        try:
            if not app.keeps_history:
                async with aclosing(app.reply(question)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            # Two runs at once would write over each other's memory.
            lock = self._turns.setdefault(thread_id(question), asyncio.Lock())
            async with turn(lock) as waiting, aclosing(app.reply(question)) as pieces:
                async for status in waiting:
                    yield status
                async for piece in pieces:
                    yield piece
        except Exception as error:
            told: Any = explain(error)
            if told is not error:
                self.place.say(locate(error, self._directory))
            raise told from None
