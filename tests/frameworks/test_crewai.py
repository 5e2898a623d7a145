"""The crewai backend with CrewAI's own classes, driving a real model."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, Turn
from coralmux.bridge import Place
from coralmux.bridge.backends import BackendUnusable, make
from tests.bridge.apps import AppFiles
from tests.bridge.asking import Outcome, findings, outcome, question, started
from tests.bridge.bridges import bridge
from tests.support.process import RelayProcess, free_port
from tests.system.backends_page import program

HISTORY = (Turn("user", "My name is Ada."), Turn("assistant", "Hello Ada."))

BEGIN = """
    import threading
    from crewai import BaseLLM, LLM, Agent, Crew, Process, Task
    from crewai.project import CrewBase, agent, crew, task
    from crewai.tools import tool

    llm = LLM(model="openai/smollm2", base_url="{{model}}", api_key="sk-secret-key",
              temperature=0, max_tokens=16, max_retries=0)

    class Teller(BaseLLM):
        "Answers with what it is asked, or with what it is told to say."
        def __init__(self, *says):
            super().__init__(model="teller")
            object.__setattr__(self, "says", list(says))
        def call(self, messages, *more, **named):
            if self.says:
                return self.says.pop(0)
            said = messages if isinstance(messages, str) else messages[-1]["content"]
            return said[said.index("<"):said.rindex(">") + 1]
        async def acall(self, messages, *more, **named):
            return self.call(messages)
        def supports_function_calling(self):
            return False

    def one(llm, description="Answer: <{question}>", role="Writer", **more):
        writer = Agent(role=role, goal="Answer.", backstory="Short.", llm=llm, **more)
        answer = Task(description=description, expected_output="A word.", agent=writer)
        return Crew(agents=[writer], tasks=[answer], verbose=True)
"""


def app(
    apps: AppFiles, source: str, model: str = "http://127.0.0.1:9/v1", **more: Any
) -> dict[str, Any]:
    name = apps.write(BEGIN + source, model=model)
    return {"app": f"{name}:app", "directory": str(apps.directory), **more}


async def answer(apps: AppFiles, tmp_path: Path, source: str, **asked: Any) -> Outcome:
    async with started("crewai", tmp_path, **app(apps, source)) as backend:
        return await outcome(backend, question(**{"text": "the sea", **asked}))


async def test_a_crew_streams_the_real_model(
    apps: AppFiles, tmp_path: Path, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = question("What is the sea?")
    settings = app(apps, "\n    app = one(llm)\n", model)
    async with started("crewai", tmp_path, **settings) as backend:
        found = await outcome(backend, asked)
    assert found.error == ""
    assert len(found.deltas) >= 3
    assert found.text.count(found.text[:12]) == 1
    assert found.tools == [("Writer", "running"), ("Writer", "done")]
    assert asked.usage["completion_tokens"] > 0
    assert capfd.readouterr().out == ""


async def test_only_the_last_task_speaks_and_the_others_are_steps(
    apps: AppFiles, tmp_path: Path, model: str
) -> None:
    source = """
    notes = one(llm, role="Reader")
    words = one(Teller("Done."))
    app = Crew(agents=[*notes.agents, *words.agents], tasks=[*notes.tasks, *words.tasks])
"""
    async with started("crewai", tmp_path, **app(apps, source, model)) as backend:
        found = await outcome(backend, question("What is the sea?"))
    assert (found.error, found.text) == ("", "Done.")
    assert found.tools == [
        ("Reader", "running"),
        ("Reader", "done"),
        ("Writer", "running"),
        ("Writer", "done"),
    ]


async def test_tools_are_shown(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    @tool("clock")
    def clock(city: str) -> str:
        "The time in a city."
        return f"It is noon in {city}."
    says = ('Thought: look.\\nAction: clock\\nAction Input: {"city": "Paris"}',
            "Thought: I know.\\nFinal Answer: Noon.")
    app = lambda: one(Teller(*says), tools=[clock])
"""
    found = await answer(apps, tmp_path, source)
    assert (found.error, found.text) == ("", "Noon.")
    assert ("clock", "running") in found.tools
    assert ("clock", "done") in found.tools


# What is said is given; its pieces are told to CrewAI's bus as its own models tell them.
STREAMS = """
    from crewai.llms.base_llm import llm_call_context

    class Streamer(Teller):
        def call(self, messages, *more, from_task=None, from_agent=None, **named):
            said = super().call(messages)
            with llm_call_context():
                for piece in said.split("|"):
                    self._emit_stream_chunk_event(piece, from_task=from_task, from_agent=from_agent)
            return said.replace("|", "")
        async def acall(self, messages, *more, **named):
            return self.call(messages, *more, **named)
"""


async def test_an_answer_that_a_guardrail_sends_back_is_followed_by_the_next(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    def short(result):
        return (True, result.raw) if len(result.raw) < 11 else (False, "Say it shorter.")
    def app():
        crew = one(Streamer("Good |morning.", "Good| day."))
        crew.tasks = [Task(description="{question}", expected_output="A word.",
                           agent=crew.agents[0], guardrail=short)]
        return crew
"""
    found = await answer(apps, tmp_path, STREAMS + source)
    assert (found.error, found.text) == ("", "Good morning.\n\nGood day.")


async def test_words_before_a_tool_is_called_are_not_said_again(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    @tool("clock")
    def clock(city: str) -> str:
        "The time in a city."
        return f"It is noon in {city}."
    says = ('I look. |\\nAction: clock\\nAction Input: {"city": "Paris"}',
            "Thought: I know.\\nFinal Answer: |Noon| it is.")
    app = lambda: one(Streamer(*says), tools=[clock])
"""
    found = await answer(apps, tmp_path, STREAMS + source)
    assert found.error == ""
    assert found.text.startswith("I look.")
    assert found.text.endswith("\n\nNoon it is.")
    assert found.text.count("Noon it is.") == 1


@pytest.mark.parametrize(
    "made",
    [
        "one(Teller())",
        "lambda: one(Teller())",
    ],
    ids=["crew", "factory"],
)
async def test_each_question_gets_a_crew_of_its_own(
    apps: AppFiles, tmp_path: Path, made: str
) -> None:
    settings = app(apps, f"\n    app = {made}\n")
    async with started("crewai", tmp_path, **settings) as backend:
        assert (await outcome(backend, question("one"))).text == "<one>"
        assert (await outcome(backend, question("two"))).text == "<two>"


async def test_a_class_with_crewbase_makes_crews(apps: AppFiles, tmp_path: Path) -> None:
    (apps.directory / "config").mkdir()
    (apps.directory / "config" / "agents.yaml").write_text(
        "writer: {role: Writer, goal: Answer., backstory: Short.}\n"
    )
    (apps.directory / "config" / "tasks.yaml").write_text(
        'answer: {description: "<{topic}>", expected_output: A word.}\n'
    )
    source = """
    @CrewBase
    class app:
        @agent
        def writer(self):
            return Agent(config=self.agents_config["writer"], llm=Teller())
        @task
        def answer(self):
            return Task(config=self.tasks_config["answer"], agent=self.writer())
        @crew
        def crew(self):
            return Crew(agents=self.agents, tasks=self.tasks)
"""
    found = await answer(apps, tmp_path, source)
    assert (found.error, found.text) == ("", "<the sea>")


async def test_a_crew_is_told_what_was_said_before(apps: AppFiles, tmp_path: Path) -> None:
    source = "\n    app = one(Teller(), '<{history} / {question}>')\n"
    found = await answer(apps, tmp_path, source, history=HISTORY)
    assert found.text == "<user: My name is Ada.\nassistant: Hello Ada. / the sea>"
    assert (await answer(apps, tmp_path, source)).text == "<(nothing yet) / the sea>"


async def test_of_several_placeholders_the_question_s_has_to_be_named(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = "\n    app = one(Teller(), '<{topic} in {year}>')\n"
    settings = app(apps, source)
    with pytest.raises(BackendUnusable, match=r"placeholders topic, year\. .*input = \"topic\""):
        await make("crewai", settings, Place(tmp_path)).start()
    settings["inputs"] = {"year": "2026"}
    async with started("crewai", tmp_path, **settings) as backend:
        assert (await outcome(backend, question("Tea"))).text == "<Tea in 2026>"


async def test_pictures_are_refused(apps: AppFiles, tmp_path: Path) -> None:
    picture = Attachment("cat.png", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(16))
    found = await answer(apps, tmp_path, "\n    app = one(Teller())\n", attachments=(picture,))
    assert found.error == "This crew takes text alone. Send the question without pictures."


WAITS = """
    begun, go = threading.Event(), threading.Event()
    class Waiter(Teller):
        def call(self, messages, *more, **named):
            said = super().call(messages)
            if "wait" in said:
                begun.set()
                assert go.wait(20)
            return said
    app = one(Waiter())
"""


async def test_a_crew_that_blocks_keeps_the_others_waiting_and_nobody_else(
    apps: AppFiles, tmp_path: Path
) -> None:
    settings = app(apps, WAITS)
    async with started("crewai", tmp_path, **settings) as backend, asyncio.timeout(30):
        module = importlib.import_module(settings["app"].partition(":")[0])
        slow = asyncio.create_task(outcome(backend, question("wait")))
        assert await asyncio.to_thread(module.begun.wait, 20)
        other = asyncio.create_task(outcome(backend, question("hey")))
        await asyncio.sleep(0)
        module.go.set()
        assert (await slow).text == "<wait>"
        found = await other
    assert found.text == "<hey>"
    assert found.tools[:2] == [("waiting", "running"), ("waiting", "done")]


async def test_answers_of_crews_that_run_at_once_are_kept_apart(
    apps: AppFiles, tmp_path: Path, model: str
) -> None:
    settings = app(apps, "\n    app = one(llm)\n", model, at_once=3)
    async with started("crewai", tmp_path, **settings) as backend:
        texts = ["What is the sea?", "What is bread?", "What is a cat?"]
        alone = [(await outcome(backend, question(text))).text for text in texts]
        together = await asyncio.gather(*(outcome(backend, question(text)) for text in texts))
    assert [found.error for found in together] == ["", "", ""]
    for first, found in zip(alone, together, strict=True):
        # The model rounds differently in company; it begins the same way.
        assert found.text[:8] == first[:8]
        assert len(found.tools) == 2


async def test_a_cancelled_crew_makes_room_for_the_next(apps: AppFiles, tmp_path: Path) -> None:
    settings = app(apps, WAITS)
    async with started("crewai", tmp_path, **settings) as backend, asyncio.timeout(30):
        module = importlib.import_module(settings["app"].partition(":")[0])
        task = asyncio.create_task(outcome(backend, question("wait")))
        assert await asyncio.to_thread(module.begun.wait, 20)
        task.cancel()
        await asyncio.wait([task])
        # Its model is still at work, in a thread that nothing can end.
        assert (await outcome(backend, question("next"))).text == "<next>"
        module.go.set()


async def test_a_model_server_that_is_down_is_a_sentence(apps: AppFiles, tmp_path: Path) -> None:
    told: list[str] = []
    settings = app(apps, "\n    app = one(llm)\n", f"http://127.0.0.1:{free_port()}/v1")
    backend = make("crewai", settings, Place(tmp_path, say=told.append))
    await backend.start()
    try:
        found = await outcome(backend, question("a private word"))
    finally:
        await backend.stop()
    assert found.error == "The app cannot reach its model server. Look whether that is running."
    assert ("Writer", "error") in found.tools
    assert "private" not in "".join(told)
    assert "secret" not in "".join(told)


async def test_stdout_is_given_back(apps: AppFiles, tmp_path: Path) -> None:
    before = sys.stdout
    async with started("crewai", tmp_path, **app(apps, "\n    app = one(Teller())\n")):
        assert sys.stdout is not before
    assert sys.stdout is before


async def test_telemetry_is_off(apps: AppFiles, tmp_path: Path) -> None:
    async with started("crewai", tmp_path, **app(apps, "\n    app = one(Teller())\n")):
        from crewai.telemetry import Telemetry

        assert not Telemetry().ready
        assert os.environ["CREWAI_TRACING_ENABLED"] == "false"


async def test_check_looks_at_the_crew(apps: AppFiles, tmp_path: Path) -> None:
    settings = app(apps, "\n    app = one(Teller())\n    other = 3\n")
    [found] = await findings(make("crewai", settings, Place(tmp_path)))
    assert found.good
    assert found.text.endswith("is a crew; the question goes into {question}.")
    settings["app"] = settings["app"].replace(":app", ":other")
    [found] = await findings(make("crewai", settings, Place(tmp_path)))
    assert not found.good
    assert "is a builtins.int. It has to be a crewai.Crew" in found.text


async def test_a_phone_talks_with_the_crew_of_the_page(
    relay: RelayProcess, tmp_path: Path, model: str
) -> None:
    (tmp_path / "crew.py").write_text(program("crew.py"))
    options = ["--app", "crew:crew"]
    async with (
        bridge(relay, tmp_path, 'backend = "crewai"\n', options=options, MODEL_URL=model) as there,
        there.phone() as phone,
    ):
        deltas = [delta async for delta in phone.ask("What is the sea?")]
        assert len(deltas) >= 3
        await phone.ask("And the moon?")
    assert "moon" not in there.output()
