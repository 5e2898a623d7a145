"""The langchain backend with a real LangGraph server, and LangChain's own agents."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from coralmux import Turn
from coralmux.bridge import Backend, Place
from coralmux.bridge.backends import make
from tests.bridge.apps import AppFiles
from tests.bridge.asking import findings, outcome, question, started
from tests.bridge.bridges import bridge
from tests.support.process import RelayProcess, clean_environment, free_port
from tests.support.waiting import eventually
from tests.system.backends_page import program

GRAPHS = """
import asyncio
import os
from pathlib import Path

from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

model = ChatOpenAI(model="smollm2", base_url=os.environ["OPENAI_BASE_URL"], api_key="none",
                   temperature=0, max_tokens=8)


@tool
def clock(city: str) -> str:
    "The time in a city."
    return f"It is noon in {city}."


def line(*nodes):
    graph = StateGraph(MessagesState)
    for before, (name, node) in zip([START, *(n for n, _ in nodes)], nodes):
        graph.add_node(name, node)
        graph.add_edge(before, name)
    return graph.compile()


async def decide(state):
    call = {"name": "clock", "args": {"city": "Paris"}, "id": "call-1"}
    return {"messages": [AIMessage("Let me look.", tool_calls=[call])]}


async def speak(state):
    return {"messages": [await model.ainvoke(state["messages"][:1])]}


async def think(state):
    return {"messages": [AIMessage(await (model | StrOutputParser()).ainvoke(state["messages"]))]}


async def tell(state):
    said = " | ".join(f"{m.type}: {m.content}" for m in state["messages"])
    return {"messages": [AIMessage(said)]}


async def book(state):
    sure = interrupt("Really book it?")
    return {"messages": [AIMessage(f"You said {sure}.")]}


async def fail(state):
    raise ValueError("sk-secret-key")


async def wait(state):
    if state["messages"][-1].content == "wait":
        Path(os.environ["MARKS"], "begun").touch()
        try:
            await asyncio.Event().wait()
        finally:
            Path(os.environ["MARKS"], "stopped").touch()
    return {"messages": [AIMessage("Here.")]}


talker = line(("decide", decide), ("tools", ToolNode([clock])), ("speak", speak))
thinker = line(("think", think))
teller = line(("tell", tell))
asker = line(("book", book))
breaker = line(("decide", decide), ("tools", ToolNode([clock])), ("fail", fail))
waiter = line(("wait", wait))
"""


class Server:
    """A process of `langgraph dev`, which needs no licence and no network."""

    def __init__(self, directory: Path, model: str) -> None:
        self.marks = directory / "marks"
        self.marks.mkdir()
        (directory / "graphs.py").write_text(GRAPHS)
        names = ("talker", "thinker", "teller", "asker", "breaker", "waiter")
        graphs = {name: f"./graphs.py:{name}" for name in names}
        (directory / "langgraph.json").write_text(
            json.dumps({"dependencies": ["."], "graphs": graphs})
        )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "server.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "langgraph"),
                    *("dev", "--no-browser", "--no-reload", "--port", str(port)),
                ],
                cwd=directory,
                env=clean_environment(
                    OPENAI_BASE_URL=model,
                    MARKS=str(self.marks),
                    LANGSMITH_TRACING="false",
                    LANGGRAPH_CLI_NO_ANALYTICS="1",
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def ready(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self._log.read_text(errors="replace")[-500:]
            try:
                return httpx.get(f"{self.url}/ok").status_code == 200
            except httpx.HTTPError:
                return False

        await eventually(answers, 60)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Server]:
    there = Server(tmp_path_factory.mktemp("langgraph"), model)
    try:
        asyncio.run(there.ready())
        yield there
    finally:
        there.stop()


@asynccontextmanager
async def assistant(server: Server, tmp_path: Path, name: str) -> AsyncIterator[Backend]:
    async with started("langchain", tmp_path, base_url=server.url, assistant=name) as backend:
        yield backend


async def test_a_server_streams_the_real_model_and_shows_its_tools(
    server: Server, tmp_path: Path
) -> None:
    async with assistant(server, tmp_path, "talker") as backend:
        found = await outcome(backend, question("Say hello."))
    assert found.error == ""
    assert found.tools == [("clock", "running"), ("clock", "done")]
    assert found.text.startswith("Let me look.\n\n")
    assert len(found.deltas) >= 5


async def test_what_a_chain_of_the_server_said_is_not_said_again_by_its_node(
    server: Server, tmp_path: Path
) -> None:
    async with assistant(server, tmp_path, "thinker") as backend:
        found = await outcome(backend, question("Say hello.", agent_id="thinker"))
    assert found.error == ""
    assert len(found.deltas) > 3
    assert found.text.count(found.text[:10]) == 1


async def test_a_server_remembers_for_each_phone_and_agent(server: Server, tmp_path: Path) -> None:
    async with assistant(server, tmp_path, "teller") as backend:
        assert backend.wants_history is False
        asked = question("one", agent_id="a", history=(Turn("user", "elsewhere"),))
        first = await outcome(backend, asked)
        assert (first.error, first.text) == ("", "human: one")
        second = await outcome(backend, question("two", agent_id="a"))
        assert second.text == "human: one | ai: human: one | human: two"
        assert (await outcome(backend, question("x", agent_id="b"))).text == "human: x"
    # A bridge that was started anew finds the same thread.
    async with assistant(server, tmp_path, "teller") as backend:
        third = await outcome(backend, question("three", agent_id="b"))
        assert third.text == "human: x | ai: human: x | human: three"


async def test_a_server_that_asks_back_gets_the_next_question_as_its_answer(
    server: Server, tmp_path: Path
) -> None:
    async with assistant(server, tmp_path, "asker") as backend:
        first = await outcome(backend, question("Book it", agent_id="asker"))
        assert (first.error, first.text) == ("", "Really book it?")
        second = await outcome(backend, question("yes", agent_id="asker"))
        assert (second.error, second.text) == ("", "You said yes.")


async def test_a_run_that_fails_is_a_sentence_after_what_was_said(
    server: Server, tmp_path: Path
) -> None:
    async with assistant(server, tmp_path, "breaker") as backend:
        found = await outcome(backend, question("x", agent_id="breaker"))
    assert found.text == "Let me look."
    assert found.error == (
        "The app failed on the LangGraph server (ValueError). Its log says more."
    )


async def test_a_cancelled_run_is_stopped_on_the_server(server: Server, tmp_path: Path) -> None:
    async with assistant(server, tmp_path, "waiter") as backend:
        asked = question("wait", agent_id="waiter")
        task = asyncio.create_task(outcome(backend, asked))
        await eventually((server.marks / "begun").exists)
        task.cancel()
        await asyncio.wait([task])
        await backend.abort(asked)
        await eventually((server.marks / "stopped").exists)
        found = await outcome(backend, question("go on", agent_id="waiter"))
    assert (found.error, found.text) == ("", "Here.")


async def checked(tmp_path: Path, **settings: Any) -> list[tuple[bool, str]]:
    backend = make("langchain", settings, Place(tmp_path))
    return [(found.good, found.text) for found in await findings(backend)]


async def test_check_asks_the_server(server: Server, tmp_path: Path) -> None:
    address = server.url.removeprefix("http://")
    assert await checked(tmp_path, base_url=server.url, assistant="talker") == [
        (True, f"A LangGraph server answers at {address}."),
        (True, "It has the assistant 'talker', which takes messages."),
    ]
    [_, (good, text)] = await checked(tmp_path, base_url=server.url, assistant="nobody")
    assert not good
    assert "no assistant 'nobody'. It has: asker, breaker, talker, teller, thinker, waiter." in text


async def test_an_unknown_assistant_and_a_server_that_is_down_are_sentences(
    server: Server, tmp_path: Path
) -> None:
    async with assistant(server, tmp_path, "nobody") as backend:
        found = await outcome(backend, question())
    assert "has no assistant 'nobody'" in found.error
    down = f"http://127.0.0.1:{free_port()}"
    async with started("langchain", tmp_path, base_url=down) as backend:
        found = await outcome(backend, question())
    assert found.error.startswith(f"No LangGraph server can be reached at {down[7:]}.")
    [(good, text)] = await checked(tmp_path, base_url=down)
    assert not good
    assert text == found.error


async def test_what_is_no_langgraph_server_is_told(model: str, tmp_path: Path) -> None:
    [(good, text)] = await checked(tmp_path, base_url=model.removesuffix("/v1"))
    assert not good
    assert "No LangGraph server answers at 127.0.0.1" in text


async def test_an_agent_of_langchain_is_a_graph(apps: AppFiles, tmp_path: Path, model: str) -> None:
    source = """
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI
    model = ChatOpenAI(model="smollm2", base_url="{{model}}", api_key="none", max_tokens=8,
                       default_headers={"Connection": "close"})  # it would outlive this loop
    app = create_agent(model, tools=[], system_prompt="Be short.")
"""
    name = apps.write(source, model=model)
    settings = {"app": f"{name}:app", "directory": str(apps.directory)}
    async with started("langchain", tmp_path, **settings) as backend:
        found = await outcome(backend, question("Say hello."))
    assert found.error == ""
    assert len(found.deltas) >= 3


async def test_a_phone_talks_with_the_graph_of_the_page_and_cancels(
    relay: RelayProcess, tmp_path: Path, model: str
) -> None:
    (tmp_path / "graph.py").write_text(program("graph.py"))
    options = ["--app", "graph:graph"]
    async with (
        bridge(
            relay, tmp_path, 'backend = "langchain"\n', options=options, MODEL_URL=model
        ) as there,
        there.phone() as phone,
    ):
        deltas = []
        # Nothing bounds what so small a model says to this.
        async with phone.ask("What is the sea?") as asked:
            async for delta in asked:
                deltas.append(delta)
                if len(deltas) == 3:
                    break
        await there.says("broken off")
    assert len(deltas) == 3


async def test_a_phone_talks_with_the_server(
    relay: RelayProcess, tmp_path: Path, server: Server
) -> None:
    config = f'backend = "langchain"\n[langchain]\nbase_url = "{server.url}"\n'
    config += 'assistant = "talker"\n'
    async with bridge(relay, tmp_path, config) as there, there.phone() as phone:
        text = await phone.ask("Say hello.")
    assert text.startswith("Let me look.\n\n")
