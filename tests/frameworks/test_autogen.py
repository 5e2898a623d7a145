"""The autogen backend with AgentChat's own teams and agents, driving a real model."""

from __future__ import annotations

import asyncio
import importlib
import textwrap
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, Phone, Turn
from coralmux.bridge import Place
from coralmux.bridge.backends import BackendUnusable, make
from tests.bridge.apps import AppFiles
from tests.bridge.asking import Outcome, findings, outcome, question, started
from tests.bridge.bridges import bridge
from tests.support.process import RelayProcess, free_port
from tests.support.waiting import eventually
from tests.system.backends_page import program

HISTORY = (Turn("user", "My name is Ada."), Turn("assistant", "Hello Ada."))

BEGIN = """
    import asyncio
    from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
    from autogen_agentchat.base import Response
    from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
    from autogen_agentchat.messages import TextMessage, MultiModalMessage
    from autogen_agentchat.teams import RoundRobinGroupChat
    from autogen_core import FunctionCall
    from autogen_core.models import CreateResult, RequestUsage
    from autogen_ext.models.openai import OpenAIChatCompletionClient
    from autogen_ext.models.replay import ReplayChatCompletionClient

    info = dict(family="unknown", function_calling=True, json_output=False,
                structured_output=False, vision=True)
    model = OpenAIChatCompletionClient(
        model="smollm2", base_url="{{model}}", api_key="sk-secret-key", temperature=0,
        max_tokens=8, max_retries=0, model_info=info,
    )

    class Teller(BaseChatAgent):
        "Tells what it has heard."
        def __init__(self, name):
            super().__init__(name, "tells")
            self.heard = []
        produced_message_types = (TextMessage,)
        async def on_messages(self, messages, cancellation_token):
            self.heard += [f"{m.source}: {m.to_text()}" for m in messages]
            said = f"[{' | '.join(self.heard)}]"
            self.heard.append(f"me")
            return Response(chat_message=TextMessage(content=said, source=self.name))
        async def on_reset(self, cancellation_token):
            self.heard.clear()
"""

# What is said is given; the agent, its tools and its stream are AgentChat's.
CALLS = """
    def clock(city: str) -> str:
        "The time in a city."
        if city == "Nowhere":
            raise ValueError("no such city")
        return f"It is noon in {city}."

    def make():
        call = FunctionCall(id="call-1", name="clock", arguments='{"city": "{{city}}"}')
        replies = [
            CreateResult(finish_reason="function_calls", content=[call], cached=False,
                         usage=RequestUsage(prompt_tokens=3, completion_tokens=4)),
            "Noon it is.",
        ]
        return AssistantAgent(
            "watch", ReplayChatCompletionClient(replies, model_info=info), tools=[clock],
            reflect_on_tool_use=True, model_client_stream=True,
        )
"""

NOWHERE = "http://127.0.0.1:9/v1"


def app(
    apps: AppFiles, source: str, name: str, model: str = NOWHERE, **more: Any
) -> dict[str, Any]:
    city = more.pop("city", "Paris")
    module = apps.write(BEGIN + source, model=model, city=city)
    return {"app": f"{module}:{name}", "directory": str(apps.directory), **more}


async def test_an_agent_streams_the_real_model(apps: AppFiles, tmp_path: Path, model: str) -> None:
    source = "\n    app = AssistantAgent('a', model, model_client_stream=True)\n"
    asked = question("Say hello.")
    async with started("autogen", tmp_path, **app(apps, source, "app", model)) as backend:
        found = await outcome(backend, asked)
    assert found.error == ""
    assert len(found.deltas) >= 3
    # Once in pieces, and not again as a whole.
    assert found.text.count(found.text[:10]) == 1
    assert asked.usage.get("completion_tokens", 1) > 0


async def test_speakers_of_a_team_are_kept_apart(
    apps: AppFiles, tmp_path: Path, model: str
) -> None:
    source = """
    def make():
        return RoundRobinGroupChat(
            [AssistantAgent("a", model, model_client_stream=True), AssistantAgent("b", model)],
            termination_condition=MaxMessageTermination(3),
        )
"""
    async with started("autogen", tmp_path, **app(apps, source, "make", model)) as backend:
        both = await outcome(backend, question("Say hello."))
    settings = app(apps, source, "make", model, speakers=["b"])
    async with started("autogen", tmp_path, **settings) as backend:
        one = await outcome(backend, question("Say hello."))
    assert both.error == one.error == ""
    first, _, second = both.text.partition("\n\n")
    assert first
    assert second
    assert len(both.deltas) >= 4
    assert len(one.deltas) == 1


async def test_tools_are_shown(apps: AppFiles, tmp_path: Path) -> None:
    asked = question("What time is it?")
    async with started("autogen", tmp_path, **app(apps, CALLS, "make")) as backend:
        found = await outcome(backend, asked)
    assert found.error == ""
    assert found.tools == [("clock", "running"), ("clock", "done")]
    assert found.text == "Noon it is."
    assert len(found.deltas) > 1
    assert asked.usage["prompt_tokens"] >= 3


async def test_a_tool_that_fails_is_shown_as_failed(apps: AppFiles, tmp_path: Path) -> None:
    settings = app(apps, CALLS, "make", city="Nowhere")
    async with started("autogen", tmp_path, **settings) as backend:
        found = await outcome(backend, question())
    assert found.tools == [("clock", "running"), ("clock", "error")]
    assert found.text == "Noon it is."


TELLERS = """
    app = RoundRobinGroupChat([Teller("t")], max_turns=1)
    agent = Teller("t")
    def make():
        return RoundRobinGroupChat([Teller("t")], max_turns=1)
"""


@pytest.mark.parametrize("name", ["make", "app", "agent"])
async def test_a_team_remembers_the_conversation_that_it_is_in(
    apps: AppFiles, tmp_path: Path, name: str
) -> None:
    async with started("autogen", tmp_path, **app(apps, TELLERS, name)) as backend:
        first = await outcome(backend, question("one", history=HISTORY))
        assert (first.error, first.text) == (
            "",
            "[user: What was said before:\n\nuser: My name is Ada.\nassistant: Hello Ada.\n\n"
            "What is asked now:\n\none]",
        )
        # It has heard it all: nothing is told twice.
        second = await outcome(backend, question("two", history=HISTORY))
        assert second.text.endswith("| me | user: two]")
        assert second.text.count("Ada.") == 2


@pytest.mark.parametrize("name", ["make", "app", "agent"])
async def test_no_conversation_hears_of_another(apps: AppFiles, tmp_path: Path, name: str) -> None:
    async with started("autogen", tmp_path, **app(apps, TELLERS, name)) as backend:
        await outcome(backend, question("mine"))
        other = await outcome(backend, question("yours", agent_id="other"))
        assert (other.error, other.text) == ("", "[user: yours]")
        again = await outcome(backend, question("again", history=HISTORY))
        assert again.text.endswith("again]")
        assert "yours" not in again.text
        # A factory's team has heard it; a shared one is told anew.
        assert ("mine" in again.text) == (name == "make")
        assert ("Hello Ada" in again.text) == (name != "make")


@pytest.mark.parametrize(
    "condition", ["MaxMessageTermination(2)", "TextMentionTermination('TERMINATE')"]
)
async def test_what_was_said_before_does_not_end_a_team(
    apps: AppFiles, tmp_path: Path, condition: str
) -> None:
    source = f"""
    def make():
        return RoundRobinGroupChat(
            [Teller("t")], max_turns=2, termination_condition={condition}
        )
"""
    history = (*HISTORY, Turn("user", "More"), Turn("assistant", "Enough. TERMINATE"))
    async with started("autogen", tmp_path, **app(apps, source, "make")) as backend:
        found = await outcome(backend, question("Go on", history=history))
    assert found.error == ""
    assert "Hello Ada." in found.text
    assert found.text.endswith("Go on]")


async def test_of_many_teams_the_one_that_was_not_used_for_longest_is_made_anew(
    apps: AppFiles, tmp_path: Path
) -> None:
    async with started("autogen", tmp_path, **app(apps, TELLERS, "make")) as backend:
        for n in range(65):
            await outcome(backend, question("mine", agent_id=f"a{n}"))
        kept = await outcome(backend, question("again", agent_id="a64", history=HISTORY))
        anew = await outcome(backend, question("again", agent_id="a0", history=HISTORY))
    assert "mine" in kept.text
    assert "mine" not in anew.text
    assert "Hello Ada" in anew.text


WAITS = """
    import threading
    begun, go = threading.Event(), threading.Event()
    stopped = []
    class Waiter(Teller):
        async def on_messages(self, messages, cancellation_token):
            if messages[-1].to_text() == "wait":
                waiting = asyncio.ensure_future(asyncio.to_thread(go.wait, 20))
                cancellation_token.link_future(waiting)
                begun.set()
                try:
                    await waiting
                except asyncio.CancelledError:
                    stopped.append(True)
                    raise
            return await super().on_messages(messages, cancellation_token)
    app = RoundRobinGroupChat([Waiter("t")], max_turns=1)
    def make():
        return RoundRobinGroupChat([Waiter("t")], max_turns=1)
"""


async def test_a_shared_team_has_others_wait_and_teams_of_a_factory_do_not(
    apps: AppFiles, tmp_path: Path
) -> None:
    settings = app(apps, WAITS, "app")
    module_name = settings["app"].partition(":")[0]
    for name in ("app", "make"):
        settings["app"] = f"{module_name}:{name}"
        async with started("autogen", tmp_path, **settings) as backend, asyncio.timeout(20):
            module = importlib.import_module(module_name)
            slow = asyncio.create_task(outcome(backend, question("wait")))
            assert await asyncio.to_thread(module.begun.wait, 20)
            other = asyncio.create_task(outcome(backend, question("hey", agent_id="other")))
            if name == "make":
                assert (await other).tools == []
                module.go.set()
            else:
                # It has asked for its turn once the loop has gone round.
                await asyncio.sleep(0)
                module.go.set()
                assert (await other).tools == [("waiting", "running"), ("waiting", "done")]
            assert (await slow).text == "[user: wait]"
            assert (await other).text == "[user: hey]"
            module.begun.clear()
            module.go.clear()


@pytest.mark.parametrize("name", ["make", "app"])
async def test_a_cancelled_team_stops_and_answers_the_next_question(
    apps: AppFiles, tmp_path: Path, name: str
) -> None:
    settings = app(apps, WAITS, name)
    async with started("autogen", tmp_path, **settings) as backend, asyncio.timeout(20):
        module = importlib.import_module(settings["app"].partition(":")[0])
        await outcome(backend, question("first"))
        task = asyncio.create_task(outcome(backend, question("wait")))
        assert await asyncio.to_thread(module.begun.wait, 20)
        task.cancel()
        await asyncio.wait([task])
        assert module.stopped == [True]
        module.go.set()
        found = await outcome(backend, question("go on", history=HISTORY))
    assert found.error == ""
    # Nobody knows what it had taken in, so it is told anew.
    assert "Hello Ada." in found.text
    assert "first" not in found.text


async def test_a_team_that_blocks_holds_up_nobody_else(apps: AppFiles, tmp_path: Path) -> None:
    source = """
    import threading
    begun, go = threading.Event(), threading.Event()
    def block():
        begun.set()
        assert go.wait(20)
    class Blocker(Teller):
        async def on_messages(self, messages, cancellation_token):
            block()
            return await super().on_messages(messages, cancellation_token)
    team = RoundRobinGroupChat([Blocker("t")], max_turns=1)
    made = []
    def make():
        if made:
            block()
        made.append(RoundRobinGroupChat([Teller("t")], max_turns=1))
        return made[-1]
"""
    settings = app(apps, source, "team")
    module_name = settings["app"].partition(":")[0]
    for name in ("team", "make"):
        settings["app"] = f"{module_name}:{name}"
        async with started("autogen", tmp_path, **settings) as backend, asyncio.timeout(10):
            module = importlib.import_module(module_name)
            asked = asyncio.create_task(outcome(backend, question("hey")))
            # This loop goes on: were it blocked, nobody could tell the team to go on.
            assert await asyncio.to_thread(module.begun.wait, 20)
            module.go.set()
            found = await asked
        assert (found.error, found.text) == ("", "[user: hey]")
        module.begun.clear()
        module.go.clear()


async def test_a_picture_reaches_the_team(apps: AppFiles, tmp_path: Path) -> None:
    picture = Attachment("dot.png", "image/png", DOT)
    source = """
    class Looker(Teller):
        async def on_messages(self, messages, cancellation_token):
            text, image = messages[-1].content
            said = f"{text} {image.image.size}"
            return Response(chat_message=TextMessage(content=said, source=self.name))
    app = RoundRobinGroupChat([Looker("t")], max_turns=1)
"""
    async with started("autogen", tmp_path, **app(apps, source, "app")) as backend:
        found = await outcome(backend, question("What?", attachments=(picture,)))
    assert (found.error, found.text) == ("", "What? (1, 1)")


DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


async def failing(
    apps: AppFiles, tmp_path: Path, source: str, model: str = NOWHERE
) -> tuple[Outcome, list[str]]:
    told: list[str] = []
    settings = app(apps, source, "app", model)
    backend = make("autogen", settings, Place(tmp_path, say=told.append))
    await backend.start()
    return await outcome(backend, question("a private word")), told


@pytest.mark.parametrize(
    "made",
    [
        "AssistantAgent('a', model)",
        "RoundRobinGroupChat([AssistantAgent('a', model)], max_turns=1)",
    ],
)
async def test_a_model_server_that_is_down_is_a_sentence(
    apps: AppFiles, tmp_path: Path, made: str
) -> None:
    down = f"http://127.0.0.1:{free_port()}/v1"
    found, told = await failing(apps, tmp_path, f"\n    app = {made}\n", down)
    assert found.error == "The app cannot reach its model server. Look whether that is running."
    assert "private" not in "".join(told)


async def test_an_error_of_an_agent_is_told_without_its_text(
    apps: AppFiles, tmp_path: Path
) -> None:
    source = """
    class Broken(Teller):
        async def on_messages(self, messages, cancellation_token):
            raise KeyError(messages[-1].to_text() + " sk-secret-key")
    app = RoundRobinGroupChat([Teller("t"), Broken("b")], max_turns=2)
"""
    found, told = await failing(apps, tmp_path, source)
    assert found.text == "[user: a private word]"
    assert found.error == "The app failed with KeyError. The agent's window at home says where."
    assert told
    assert "private" not in found.error + "".join(told)
    assert "secret" not in found.error + "".join(told)


async def test_check_looks_at_the_app(apps: AppFiles, tmp_path: Path) -> None:
    settings = app(apps, TELLERS + "\n    other = 3\n", "make")
    [found] = await findings(make("autogen", settings, Place(tmp_path)))
    assert found.good
    assert "makes a RoundRobinGroupChat for each phone" in found.text
    module = settings["app"].partition(":")[0]
    [found] = await findings(make("autogen", {**settings, "app": f"{module}:app"}, Place(tmp_path)))
    assert found.good
    assert "all phones share" in found.text
    wrong = {**settings, "app": f"{module}:other"}
    [found] = await findings(make("autogen", wrong, Place(tmp_path)))
    assert not found.good
    with pytest.raises(BackendUnusable, match=r"is a builtins\.int\. It has to be an AgentChat"):
        await make("autogen", wrong, Place(tmp_path)).start()


async def test_a_phone_talks_with_the_team_of_the_page(
    relay: RelayProcess, tmp_path: Path, model: str
) -> None:
    (tmp_path / "team.py").write_text(program("team.py"))
    config = 'backend = "autogen"\n'
    options = ["--app", "team:make_team"]
    async with (
        bridge(relay, tmp_path, config, options=options, MODEL_URL=model) as there,
        there.phone() as phone,
    ):
        deltas = [delta async for delta in phone.ask("What is the sea?")]
        assert len(deltas) >= 3
        await phone.ask("And the moon?")
    assert "moon" not in there.output()


async def test_an_agent_whose_team_blocks_can_be_stopped(
    relay: RelayProcess, tmp_path: Path
) -> None:
    source = """
    import time
    from pathlib import Path
    class Sleeper(Teller):
        async def on_messages(self, messages, cancellation_token):
            Path("asleep").touch()
            time.sleep(120)
    def make():
        return RoundRobinGroupChat([Sleeper("t")], max_turns=1)
"""
    (tmp_path / "team.py").write_text(
        textwrap.dedent((BEGIN + source).replace("{{model}}", NOWHERE))
    )
    config = 'backend = "autogen"\ndrain_seconds = 0\n'
    async with (
        bridge(relay, tmp_path, config, options=["--app", "team:make"]) as there,
        there.phone() as phone,
    ):
        asked = asyncio.create_task(answered(phone))
        await eventually((tmp_path / "asleep").exists)
        there.signal()
        assert await there.ended() == 0
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def answered(phone: Phone) -> str:
    return await phone.ask("Sleep")
