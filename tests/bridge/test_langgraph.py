"""The langchain backend with compiled LangGraph graphs."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from coralmux import Turn
from coralmux.bridge import Place
from coralmux.bridge.backends import BackendUnusable, make
from tests.bridge.apps import AppFiles
from tests.bridge.apps import apps as apps
from tests.bridge.asking import Outcome, findings, outcome, question, started
from tests.bridge.bridges import bridge
from tests.support.process import RelayProcess

HISTORY = (Turn("user", "My name is Ada."), Turn("assistant", "Hello Ada."))

# langchain-openai has one HTTP client for all models of an address. A connection that it
# kept would belong to an earlier test's event loop, so each ends with its answer.
BEGIN = """
    import asyncio, threading
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import END, START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition
    from langgraph.types import interrupt
    from typing import TypedDict

    model = ChatOpenAI(
        base_url="{{model}}", api_key="none", model="smollm2", temperature=0, max_tokens=8,
        default_headers={"Connection": "close"},
    )

    def line(*nodes, **options):
        graph = StateGraph(MessagesState)
        for before, node in zip([START, *(n.__name__ for n in nodes)], nodes, strict=False):
            graph.add_node(node.__name__, node)
            graph.add_edge(before, node.__name__)
        return graph.compile(**options)
"""

# The model is too small to call tools by itself: the graph decides, the model speaks.
TOOLS = """
    @tool
    def clock(city: str) -> str:
        "The time in a city."
        if city == "Nowhere":
            raise ValueError("no such city")
        return f"It is noon in {city}."

    def decide(state):
        city = state["messages"][-1].content
        call = {"name": "clock", "args": {"city": city}, "id": "call-1"}
        return {"messages": [AIMessage("Let me look.", tool_calls=[call])]}

    async def speak(state):
        return {"messages": [await model.ainvoke(state["messages"][:1])]}

    tools = ToolNode([clock], handle_tool_errors=True)
    graph = StateGraph(MessagesState)
    graph.add_node("decide", decide)
    graph.add_node("tools", tools)
    graph.add_node("speak", speak)
    graph.add_edge(START, "decide")
    graph.add_conditional_edges("decide", tools_condition)
    graph.add_edge("tools", "speak")
    app = graph.compile()
"""


def app(
    apps: AppFiles, source: str, model: str = "http://127.0.0.1:9/v1", **more: Any
) -> dict[str, Any]:
    name = apps.write(BEGIN + source, model=model)
    return {"app": f"{name}:app", "directory": str(apps.directory), **more}


async def answer(apps: AppFiles, tmp_path: Path, source: str, text: str = "?") -> Outcome:
    async with started("langchain", tmp_path, **app(apps, source)) as backend:
        return await outcome(backend, question(text, history=HISTORY))


@pytest.mark.slow
async def test_a_graph_streams_the_real_model_and_shows_its_tools(
    apps: AppFiles, tmp_path: Path, model_server: str
) -> None:
    async with started("langchain", tmp_path, **app(apps, TOOLS, model_server)) as backend:
        asked = question("Paris")
        found = await outcome(backend, asked)
    assert found.error == ""
    assert found.tools == [("clock", "running"), ("clock", "done")]
    assert found.text.startswith("Let me look.\n\n")
    assert len(found.deltas) >= 5
    assert "noon" not in found.text


async def test_a_tool_that_fails_is_shown_as_failed(
    apps: AppFiles, tmp_path: Path, model_server: str
) -> None:
    async with started("langchain", tmp_path, **app(apps, TOOLS, model_server)) as backend:
        found = await outcome(backend, question("Nowhere"))
    assert found.tools == [("clock", "running"), ("clock", "error")]
    assert "no such city" not in found.text


async def test_a_tool_that_ends_the_run_is_not_left_at_work(apps: AppFiles, tmp_path: Path) -> None:
    source = TOOLS.replace("handle_tool_errors=True", "handle_tool_errors=False")
    found = await answer(apps, tmp_path, source, "Nowhere")
    assert found.deltas == ["Let me look."]
    assert found.tools == [("clock", "running"), ("clock", "error")]
    assert found.error.startswith("The app failed with ValueError.")


async def test_only_the_nodes_that_are_named_speak(
    apps: AppFiles, tmp_path: Path, model_server: str
) -> None:
    settings = app(apps, TOOLS, model_server, nodes=["speak"])
    async with started("langchain", tmp_path, **settings) as backend:
        found = await outcome(backend, question("Paris"))
    assert found.text
    assert "Let me look" not in found.text


async def test_a_graph_without_memory_is_given_what_was_said_before(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    def tell(state):
        said = " | ".join(f"{m.type}: {m.content}" for m in state["messages"])
        return {"messages": [AIMessage(said)]}
    app = line(tell)
"""
    found = await answer(apps, tmp_path, source, "Who am I?")
    assert found.deltas == ["human: My name is Ada. | ai: Hello Ada. | human: Who am I?"]


@pytest.mark.parametrize("saver", ["InMemorySaver()", "Blocking()"])
async def test_a_graph_with_memory_has_one_for_each_phone_and_agent(
    apps: AppFiles, tmp_path: Path, saver: str
) -> None:
    source = f"""
    class Blocking(InMemorySaver):
        "Knows no asyncio, as the one for SQLite."
        async def aget_tuple(self, config):
            raise NotImplementedError
        async def aput(self, *values):
            raise NotImplementedError
    def tell(state):
        return {{"messages": [AIMessage(str(len(state["messages"])))]}}
    app = line(tell, checkpointer={saver})
"""
    async with started("langchain", tmp_path, **app(apps, source)) as backend:
        assert backend.wants_history is False
        first = await outcome(backend, question("a", history=HISTORY))
        assert (first.text, first.error) == ("1", "")
        assert (await outcome(backend, question("b"))).text == "3"
        assert (await outcome(backend, question("c", agent_id="other"))).text == "1"


async def test_questions_to_one_memory_are_answered_one_after_another(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    running, most = 0, 0
    async def tell(state):
        global running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return {"messages": [AIMessage(str(len(state["messages"])))]}
    app = line(tell, checkpointer=InMemorySaver())
"""
    settings = app(apps, source)
    async with started("langchain", tmp_path, **settings) as backend:
        found = await asyncio.gather(*(outcome(backend, question("a")) for _ in range(4)))
    assert sorted(one.text for one in found) == ["1", "3", "5", "7"]
    assert sorted(len(one.tools) for one in found) == [0, 2, 2, 2]
    assert importlib.import_module(settings["app"].partition(":")[0]).most == 1


async def test_a_graph_that_asks_back_gets_the_next_question_as_its_answer(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    def book(state):
        sure = interrupt("Really book it?")
        return {"messages": [AIMessage(f"You said {sure}.")]}
    app = line(book, checkpointer=InMemorySaver())
"""
    async with started("langchain", tmp_path, **app(apps, source)) as backend:
        assert (await outcome(backend, question("Book a table"))).text == "Really book it?"
        assert (await outcome(backend, question("yes"))).text == "You said yes."
        assert (await outcome(backend, question("Another"))).text == "Really book it?"


async def test_a_graph_within_a_graph_is_heard_once(
    apps: AppFiles, tmp_path: Path, model_server: str
) -> None:
    source = """
    async def speak(state):
        return {"messages": [await model.ainvoke(state["messages"])]}
    inner = line(speak)
    async def outer(state):
        return {"messages": (await inner.ainvoke(state))["messages"][-1:]}
    def last(state):
        return {"messages": [AIMessage("Copy: " + state["messages"][-1].content)]}
    app = line(outer, last)
"""
    async with started("langchain", tmp_path, **app(apps, source, model_server)) as backend:
        found = await outcome(backend, question("Say hello."))
    said, _, copy = found.text.partition("\n\nCopy: ")
    assert found.error == ""
    assert said
    assert said == copy
    assert len(found.deltas) > 3


CHAIN = """
    from langchain_core.output_parsers import StrOutputParser
    chain = model | StrOutputParser()
    async def think(state):
        return {"messages": [AIMessage(await chain.ainvoke(state["messages"]) + "\\n")]}
    async def plain(state):
        return {"messages": [("ai", await chain.ainvoke(state["messages"]))]}
    inner = line(think)
    async def outer(state):
        return {"messages": [AIMessage((await inner.ainvoke(state))["messages"][-1].content)]}
    def repeat(state):
        return {"messages": [AIMessage(state["messages"][-1].content)]}
"""


@pytest.mark.parametrize("node", ["think", "plain", "outer"])
async def test_what_a_node_returns_is_not_said_again_when_its_chain_has_said_it(
    apps: AppFiles, tmp_path: Path, model_server: str, node: str
) -> None:
    settings = app(apps, f"{CHAIN}\n    app = line({node})\n", model_server)
    async with started("langchain", tmp_path, **settings) as backend:
        found = await outcome(backend, question("Say hello."))
    assert found.error == ""
    assert len(found.deltas) > 3
    assert "\n\n" not in found.text
    assert found.text.count(found.text[:10]) == 1


async def test_what_another_node_repeats_is_said(
    apps: AppFiles, tmp_path: Path, model_server: str
) -> None:
    settings = app(apps, f"{CHAIN}\n    app = line(think, repeat)\n", model_server)
    async with started("langchain", tmp_path, **settings) as backend:
        found = await outcome(backend, question("Say hello."))
    said, _, again = found.text.partition("\n\n")
    assert said
    assert again == f"{said}\n"


async def test_of_a_graph_within_the_node_that_is_named_speaks_what_the_node_returns(
    apps: AppFiles, tmp_path: Path, model_server: str
) -> None:
    settings = app(apps, f"{CHAIN}\n    app = line(outer)\n", model_server, nodes=["outer"])
    async with started("langchain", tmp_path, **settings) as backend:
        found = await outcome(backend, question("Say hello."))
    assert len(found.deltas) == 1


async def test_a_graph_without_messages_answers_by_its_last_word(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    class Asked(TypedDict):
        question: str
        notes: list[str]
    class State(Asked, total=False):
        answer: str
    def read(state):
        return {"notes": [state["question"]]}
    def write(state):
        return {"answer": f"About {state['notes'][0]}."}
    graph = StateGraph(State, input_schema=Asked)
    graph.add_node("read", read)
    graph.add_node("write", write)
    graph.add_edge(START, "read")
    graph.add_edge("read", "write")
    app = graph.compile()
"""
    async with started("langchain", tmp_path, **app(apps, source)) as backend:
        assert (await outcome(backend, question("the sea"))).text == "About the sea."


@pytest.mark.parametrize(
    "messages",
    [
        '[("ai", "Hello.")]',
        '[("assistant", "Hello.")]',
        '[["ai", "Hello."]]',
        '("ai", "Hello.")',
        '[("ai", [{"type": "text", "text": "Hello."}])]',
        '[{"role": "assistant", "content": "Hello."}]',
        '{"role": "assistant", "content": "Hello."}',
        '[{"type": "ai", "content": "Hello."}]',
        '[("ai", "Hello."), ("user", "Not me.")]',
        '[("ai", "Hello."), {"role": "user", "content": "Not me."}]',
    ],
)
async def test_a_message_in_plain_form_is_an_answer(
    apps: AppFiles, tmp_path: Path, messages: str
) -> None:
    source = f"""
    def tell(state):
        return {{"messages": {messages}}}
    app = line(tell)
"""
    found = await answer(apps, tmp_path, source)
    assert (found.deltas, found.error) == (["Hello."], "")


async def test_messages_in_plain_form_are_heard_beside_others_and_once(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    class State(TypedDict):
        messages: list
    def one(state):
        return {"messages": [*state["messages"], ("ai", "One.")]}
    def two(state):
        return {"messages": [*state["messages"], AIMessage("Two.")]}
    def three(state):
        return {"messages": [*state["messages"], {"role": "assistant", "content": "Three."}]}
    def same(state):
        return {"messages": state["messages"]}
    graph = StateGraph(State)
    nodes = (one, two, three, same)
    for before, node in zip([START, "one", "two", "three"], nodes):
        graph.add_node(node.__name__, node)
        graph.add_edge(before, node.__name__)
    app = graph.compile()
"""
    found = await answer(apps, tmp_path, source)
    assert (found.text, found.error) == ("One.\n\nTwo.\n\nThree.", "")


async def test_a_graph_that_goes_in_circles_is_stopped(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    def round(state):
        return {"messages": [AIMessage("Again")]}
    graph = StateGraph(MessagesState)
    graph.add_node("round", round)
    graph.add_edge(START, "round")
    graph.add_edge("round", "round")
    app = graph.compile().with_config(recursion_limit=3)
"""
    found = await answer(apps, tmp_path, source)
    assert found.text == "Again\n\nAgain\n\nAgain"
    assert "went around in circles" in found.error


async def test_a_cancelled_graph_stops_and_goes_on_with_the_next_question(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    begun = asyncio.Event()
    stopped = asyncio.Event()
    async def tell(state):
        if state["messages"][-1].content == "wait":
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return {"messages": [AIMessage("Here.")]}
    app = line(tell, checkpointer=InMemorySaver())
"""
    settings = app(apps, source)
    async with started("langchain", tmp_path, **settings) as backend:
        module = importlib.import_module(settings["app"].partition(":")[0])
        task = asyncio.create_task(outcome(backend, question("wait")))
        async with asyncio.timeout(10):
            await module.begun.wait()
            task.cancel()
            await asyncio.wait([task])
            await module.stopped.wait()
            assert (await outcome(backend, question("go on"))).text == "Here."


async def test_tokens_are_counted(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    used = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    def one(state):
        return {"messages": [AIMessage("a", usage_metadata=used)]}
    def two(state):
        return {"messages": [AIMessage("b", usage_metadata=used)]}
    app = line(one, two)
"""
    async with started("langchain", tmp_path, **app(apps, source)) as backend:
        asked = question()
        await outcome(backend, asked)
    assert asked.usage == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}


async def test_a_graph_that_was_not_compiled_is_told(apps: AppFiles, tmp_path: Path) -> None:
    settings = app(apps, "\n    app = StateGraph(MessagesState)\n")
    with pytest.raises(BackendUnusable, match=r"StateGraph\. It has to be .*graph\.compile\(\)"):
        await make("langchain", settings, Place(tmp_path)).start()


async def test_check_says_whether_a_graph_remembers(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    def tell(state):
        return {"messages": [AIMessage("a")]}
    app = line(tell, checkpointer=InMemorySaver())
"""
    settings = app(apps, source)
    [found] = await findings(make("langchain", settings, Place(tmp_path)))
    assert found.good
    assert found.text.endswith("is a compiled LangGraph graph; it remembers conversations itself.")


@pytest.mark.slow
async def test_a_phone_talks_with_a_graph(
    apps: AppFiles, tmp_path: Path, relay: RelayProcess, model_server: str
) -> None:
    settings = app(apps, TOOLS, model_server)
    lines = "\n".join(f'{key} = "{value}"' for key, value in settings.items())
    config = f'backend = "langchain"\n[langchain]\n{lines}\n'
    async with bridge(relay, tmp_path, config) as there, there.phone() as phone:
        asked = phone.ask("Paris")
        deltas = [delta async for delta in asked]
    assert len(deltas) >= 3
    assert "".join(deltas).startswith("Let me look.\n\n")
