"""The langchain backend with Runnables: real ones, driving a real model where it matters."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, BackendError, Turn
from coralmux.bridge import Backend, Place
from coralmux.bridge.backends import BackendUnusable, make
from tests.bridge.apps import AppFiles
from tests.bridge.apps import apps as apps
from tests.bridge.asking import findings, outcome, question, started
from tests.bridge.doubles.chat_server import chat_server, refuses
from tests.support.process import free_port

PNG = Attachment("cat.png", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(16))
HISTORY = (Turn("user", "My name is Ada."), Turn("assistant", "Hello Ada."))

# langchain-openai has one HTTP client for all models of an address. A connection that it
# kept would belong to an earlier test's event loop, so each ends with its answer.
MODEL = """
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
    from langchain_core.runnables import RunnableGenerator, RunnableLambda, RunnablePassthrough
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        base_url="{{model}}", api_key="sk-secret-key", model="smollm2", temperature=0,
        max_tokens=8, max_retries=0, default_headers={"Connection": "close"},
    )
"""


def app(apps: AppFiles, source: str, model: str = "http://127.0.0.1:9/v1") -> dict[str, Any]:
    """Settings for an app whose object is called `app`."""
    name = apps.write(MODEL + source, model=model)
    return {"app": f"{name}:app", "directory": str(apps.directory)}


async def answer(
    apps: AppFiles, tmp_path: Path, source: str, *, input: str = "", **asked: Any
) -> Any:
    settings = {**app(apps, source), "input": input}
    async with started("langchain", tmp_path, **settings) as backend:
        return await outcome(backend, question(**asked))


@pytest.mark.parametrize(
    "source",
    [
        "\n    app = model\n",
        """
    prompt = ChatPromptTemplate.from_messages([("system", "Be short."), ("human", "{question}")])
    app = prompt | model | StrOutputParser()
""",
    ],
    ids=["model", "chain"],
)
@pytest.mark.slow
async def test_the_real_model_is_streamed(
    apps: AppFiles, tmp_path: Path, model_server: str, source: str
) -> None:
    settings = app(apps, source, model_server)
    async with started("langchain", tmp_path, **settings) as backend:
        found = await outcome(backend, question("Say hello."))
    assert found.error == ""
    assert len(found.deltas) >= 3
    assert found.text.strip()


async def test_a_model_is_asked_with_what_was_said_before(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    def tell(messages: list):
        return " | ".join(f"{m.type}: {m.content}" for m in messages)
    app = RunnableLambda(tell)
"""
    found = await answer(apps, tmp_path, source, text="Who am I?", history=HISTORY)
    assert found.text == "human: My name is Ada. | ai: Hello Ada. | human: Who am I?"


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("asked: str", "'Who am I?'"),
        ("asked", "'Who am I?'"),
    ],
)
async def test_an_app_that_takes_text_gets_text(
    apps: AppFiles, tmp_path: Path, signature: str, said: str
) -> None:
    source = f"\n    app = RunnableLambda(lambda {signature.partition(':')[0]}: repr(asked))\n"
    if ":" in signature:
        source = f"""
    def tell({signature}) -> str:
        return repr(asked)
    app = RunnableLambda(tell)
"""
    found = await answer(apps, tmp_path, source, text="Who am I?", history=HISTORY)
    assert found.text == said


PROMPT = """
    def tell(prompt) -> str:
        return " | ".join(f"{m.type}: {m.content}" for m in prompt.to_messages())
"""


async def test_a_prompts_only_key_gets_the_question(apps: AppFiles, tmp_path: Path) -> None:
    source = (
        PROMPT
        + """
    app = ChatPromptTemplate.from_template("Q: {topic}") | RunnableLambda(tell)
"""
    )
    assert (await answer(apps, tmp_path, source, text="the sea")).text == "human: Q: the sea"


async def test_a_prompts_placeholder_gets_what_was_said_before(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = (
        PROMPT
        + """
    prompt = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("past", optional=True), ("human", "{topic}")]
    )
    app = prompt | RunnableLambda(tell)
"""
    )
    found = await answer(apps, tmp_path, source, text="the sea", history=HISTORY)
    assert found.text == "human: My name is Ada. | ai: Hello Ada. | human: the sea"


async def test_of_several_keys_the_question_s_has_to_be_named(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = "\n    app = ChatPromptTemplate.from_template('{mood} {topic}')\n"
    backend = make("langchain", app(apps, source), Place(tmp_path))
    with pytest.raises(BackendUnusable, match=r"takes mood, topic\. .* input = \"mood\""):
        await backend.start()


async def test_the_setting_input_chooses(apps: AppFiles, tmp_path: Path) -> None:
    source = "\n    app = RunnableLambda(lambda asked: repr(asked))\n"
    found = await answer(apps, tmp_path, source, input="topic", text="the sea")
    assert found.text == "{'topic': 'the sea'}"
    found = await answer(apps, tmp_path, source, input="messages", text="the sea")
    assert found.text.startswith("[HumanMessage(content='the sea'")


async def test_pictures_go_as_parts_of_the_message(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    def tell(messages: list) -> str:
        text, picture = messages[-1].content
        return text["text"] + " " + picture["image_url"]["url"][:22]
    app = RunnableLambda(tell)
"""
    found = await answer(apps, tmp_path, source, text="What?", attachments=(PNG,))
    assert found.text == "What? data:image/png;base64,"


async def test_an_app_that_takes_text_alone_refuses_pictures(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = "\n    app = RunnableLambda(lambda asked: asked)\n"
    found = await answer(apps, tmp_path, source, text="What?", attachments=(PNG,))
    assert found.error == "This app takes text alone. Send the question without pictures."


@pytest.mark.parametrize(
    ("made", "deltas"),
    [
        ("RunnableLambda(lambda _: {'output': 'Yes.'})", ["Yes."]),
        ("RunnableLambda(lambda _: {'messages': [AIMessage('No.')]})", ["No."]),
        ("RunnableLambda(lambda _: AIMessage('Maybe.'))", ["Maybe."]),
        ("RunnableLambda(lambda _: {'cities': ['Köln']})", ['{"cities": ["Köln"]}']),
        ("RunnableLambda(lambda _: 3)", ["3"]),
        ("RunnablePassthrough.assign(answer=RunnableLambda(two))", ["a", "b"]),
        ("RunnableLambda(two)", ["a", "b"]),
        ("RunnableGenerator(blocking)", ["a", "b"]),
        (
            'RunnableLambda(lambda _: \'{"a": 1, "b": 2}\') | JsonOutputParser()',
            ['{"a": 1, "b": 2}'],
        ),
    ],
)
async def test_an_answer_is_found_in_whatever_an_app_gives(
    apps: AppFiles, tmp_path: Path, made: str, deltas: list[str]
) -> None:
    source = f"""
    async def two(_):
        yield "a"
        yield "b"
    def blocking(_):
        yield "a"
        yield "b"
    app = {made}
"""
    found = await answer(
        apps, tmp_path, source, input="question" if "assign" in made else "", text="?"
    )
    assert found.error == ""
    assert [delta for delta in found.deltas if delta] == deltas


async def test_an_app_that_blocks_keeps_nobody_else_waiting(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    import threading
    blocked, go = threading.Event(), threading.Event()
    def wait(asked) -> str:
        if asked == "slow":
            blocked.set()
            assert go.wait(20)
        return asked
    def stream(items):
        for item in items:
            yield wait(item)
    app = RunnableLambda(wait)
    streamed = RunnableGenerator(stream)
"""
    settings = app(apps, source)
    for name in ("app", "streamed"):
        settings["app"] = settings["app"].partition(":")[0] + f":{name}"
        async with started("langchain", tmp_path, **settings) as backend:
            import importlib

            module = importlib.import_module(settings["app"].partition(":")[0])
            slow = asyncio.create_task(outcome(backend, question("slow")))
            assert await asyncio.to_thread(module.blocked.wait, 10)
            async with asyncio.timeout(10):
                assert (await outcome(backend, question("fast"))).text == "fast"
            assert not slow.done()
            module.go.set()
            assert (await slow).text == "slow"
            module.blocked.clear()
            module.go.clear()


HISTORY_APP = """
    from langchain_core.chat_history import InMemoryChatMessageHistory
    from langchain_core.runnables.history import RunnableWithMessageHistory
    kept = {}
    def session(session_id: str):
        return kept.setdefault(session_id, InMemoryChatMessageHistory())
    def tell(asked: dict):
        return AIMessage(f"{len(asked['past'])} before {asked['question'][-1].content}")
    app = RunnableWithMessageHistory(
        RunnableLambda(tell), session, input_messages_key="question", history_messages_key="past"
    ) | StrOutputParser()
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_app_that_remembers_by_itself_has_a_memory_for_each_phone_and_agent(
    apps: AppFiles, tmp_path: Path
) -> None:
    async with started("langchain", tmp_path, **app(apps, HISTORY_APP)) as backend:
        assert backend.wants_history is False
        first = await outcome(backend, question("a", history=HISTORY))
        assert (first.text, first.error) == ("0 before a", "")
        assert (await outcome(backend, question("b"))).text == "2 before b"
        assert (await outcome(backend, question("c", agent_id="x"))).text == "0 before c"


async def test_the_bridge_keeps_the_conversation_of_an_app_that_does_not(
    apps: AppFiles, tmp_path: Path
) -> None:
    async with started("langchain", tmp_path, **app(apps, "\n    app = model\n")) as backend:
        assert backend.wants_history is True


async def broken(apps: AppFiles, tmp_path: Path, source: str, model: str = "") -> Any:
    """The outcome, and what the operator is told."""
    told: list[str] = []
    settings = app(apps, source, *([model] if model else []))
    backend = make("langchain", settings, Place(tmp_path, say=told.append))
    await backend.start()
    return await outcome(backend, question("a private word")), told


async def test_an_error_in_the_middle_comes_after_what_was_said(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    async def half(asked):
        yield "So far "
        raise ValueError(f"{asked} sk-secret-key")
    app = RunnableLambda(half)
"""
    found, told = await broken(apps, tmp_path, source)
    assert found.deltas == ["So far "]
    assert found.error == ("The app failed with ValueError. The agent's window at home says where.")
    assert len(told) == 1
    assert "ValueError at app_" in told[0]
    assert "line 15" in told[0]
    assert "private" not in told[0] + found.error
    assert "secret" not in told[0] + found.error


async def test_a_model_server_that_is_down_is_a_sentence(apps: AppFiles, tmp_path: Path) -> None:
    model = f"http://127.0.0.1:{free_port()}/v1"
    found, _ = await broken(apps, tmp_path, "\n    app = model\n", model)
    assert found.error == "The app cannot reach its model server. Look whether that is running."


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not take its API key"),
        (404, "does not know the model or the address"),
        (429, "limit reached"),
        (500, r"failed \(HTTP 500\)"),
        (418, r"did not take the request \(HTTP 418\)"),
    ],
)
async def test_what_a_model_server_refuses_is_a_sentence(
    apps: AppFiles, tmp_path: Path, status: int, said: str
) -> None:
    async with chat_server() as server:
        server.answer = refuses(status, {"error": {"message": "sk-secret-key"}})
        found, told = await broken(apps, tmp_path, "\n    app = model\n", server.base_url)
    with pytest.raises(BackendError, match=said):
        raise BackendError(found.error)
    assert "secret" not in found.error + "".join(told)


async def test_an_app_that_is_cancelled_is_told(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    import asyncio
    begun, ended = asyncio.Event(), asyncio.Event()
    async def wait(_):
        yield "Wait"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
    app = RunnableLambda(wait)
"""
    settings = app(apps, source)
    async with started("langchain", tmp_path, **settings) as backend:
        import importlib

        module = importlib.import_module(settings["app"].partition(":")[0])
        task = asyncio.create_task(outcome(backend, question()))
        async with asyncio.timeout(10):
            await module.begun.wait()
            task.cancel()
            await asyncio.wait([task])
            await module.ended.wait()
    assert task.cancelled()


def test_an_app_or_a_server_has_to_be_named(tmp_path: Path) -> None:
    for settings in ({}, {"app": "a:b", "base_url": "http://127.0.0.1:1"}):
        with pytest.raises(BackendUnusable, match=r"needs either app = .*not both\."):
            make("langchain", settings, Place(tmp_path))


async def checked(tmp_path: Path, settings: dict[str, Any]) -> list[tuple[bool, str]]:
    backend: Backend = make("langchain", settings, Place(tmp_path))
    return [(finding.good, finding.text) for finding in await findings(backend)]


async def test_check_loads_the_app(apps: AppFiles, tmp_path: Path) -> None:
    settings = app(apps, "\n    app = model\n    other = 3\n")
    good = [(True, f"{settings['app']} is a LangChain Runnable; it gets the conversation.")]
    assert await checked(tmp_path, settings) == good
    settings["app"] = settings["app"].replace(":app", ":other")
    [(fine, text)] = await checked(tmp_path, settings)
    assert not fine
    assert "is a builtins.int. It has to be a LangChain Runnable" in text
