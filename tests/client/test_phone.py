"""What a Phone can ask beside questions, and what it says when it gets no answer."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.client import connection as wire
from coralmux.client.messages import (
    AgentChange,
    AgentProfile,
    GroupMessage,
    GroupMessages,
    HistoryEntry,
    MemoryHit,
    SystemStatus,
)
from coralmux.client.requests import RESULTS
from tests.client.meeting import Events, agent_for, meeting, new_link, phone_for, serving
from tests.support.client import SOON
from tests.support.process import RelayProcess, relay_process

STATUS = {
    "cpu_percent": 12.5,
    "memory_percent": 25,
    "memory_used_gb": 2.0,
    "memory_total_gb": 8.0,
    "uptime_seconds": 60,
}
TURN = {"role": "user", "content": "hi", "timestamp": 5}
HIT = {"path": "notes.md", "snippet": "tea", "score": 0.5}

# Type; what the phone calls; the payload that the agent gets; its answer; what the phone makes
# of it.
REQUESTS: dict[str, tuple[Any, dict[str, Any], dict[str, Any], Any]] = {
    "chat.history": (
        lambda phone, **more: phone.history("main", 3, **more),
        {"agent_id": "main", "limit": 3},
        {"messages": [TURN]},
        [HistoryEntry("user", "hi", 5)],
    ),
    "agent.list": (
        lambda phone, **more: phone.agents(**more),
        {},
        {"agents": [{"id": "main", "name": "Main", "model": "large"}]},
        [AgentProfile("main", "Main", model="large")],
    ),
    "agent.create": (
        lambda phone, **more: phone.create_agent(name="Second", model="small", **more),
        {"name": "Second", "model": "small"},
        {"ok": True, "action": "create", "agent": {"id": "second", "name": "Second"}},
        AgentChange(True, "create", AgentProfile("second", "Second")),
    ),
    "agent.update": (
        lambda phone, **more: phone.update_agent("second", name="2nd", **more),
        {"id": "second", "name": "2nd"},
        {"ok": True, "action": "update"},
        AgentChange(True, "update"),
    ),
    "agent.delete": (
        lambda phone, **more: phone.delete_agent("second", **more),
        {"id": "second"},
        {"ok": False, "action": "delete", "error": "no such agent"},
        AgentChange(False, "delete", error="no such agent"),
    ),
    "memory.search": (
        lambda phone, **more: phone.search_memory("tea", "main", 2, **more),
        {"agent_id": "main", "query": "tea", "limit": 2},
        {"results": [HIT]},
        [MemoryHit("notes.md", "tea", 0.5)],
    ),
    "group.list": (
        lambda phone, **more: phone.groups(**more),
        {},
        {"rooms": [{"id": "hall"}]},
        [{"id": "hall"}],
    ),
    "group.messages": (
        lambda phone, **more: phone.group_messages("hall", 4, **more),
        {"room_id": "hall", "limit": 4},
        {"room_id": "hall", "messages": [{"text": "hi"}]},
        GroupMessages("hall", ({"text": "hi"},)),
    ),
    "group.send": (
        lambda phone, **more: phone.send_group_message("hall", "hi", **more),
        {"room_id": "hall", "text": "hi"},
        {"room_id": "hall", "message": {"text": "hi"}},
        GroupMessage("hall", {"text": "hi"}),
    ),
    "system.status": (
        lambda phone, **more: phone.system_status(**more),
        {},
        STATUS,
        SystemStatus(12.5, 25, 2.0, 8.0, None, 60),
    ),
}
requests = pytest.mark.parametrize("type", REQUESTS)


def plain_agent() -> coralmux.Agent:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        return message.text

    return agent


def test_every_request_of_the_protocol_has_a_method() -> None:
    assert set(REQUESTS) == set(RESULTS)


@requests
async def test_a_request_is_answered_by_its_handler(shared_relay: RelayProcess, type: str) -> None:
    call, asked, answer, expected = REQUESTS[type]
    agent = plain_agent()
    got: list[coralmux.Request] = []

    @agent.on(type)
    async def handle(request: coralmux.Request) -> dict[str, Any]:
        got.append(request)
        return answer

    async with meeting(shared_relay, agent, name="Pocket") as phone:
        assert await call(phone) == expected
        assert await asyncio.gather(call(phone), call(phone)) == [expected] * 2
    assert [request.payload for request in got] == [asked] * 3
    assert {(request.type, request.phone.name) for request in got} == {(type, "Pocket")}


@requests
async def test_an_answer_of_a_wrong_shape_is_invalid(shared_relay: RelayProcess, type: str) -> None:
    call = REQUESTS[type][0]
    agent = plain_agent()
    wrong = dict.fromkeys(("messages", "agents", "ok", "results", "rooms", "room_id"), 7)

    @agent.on(type)
    async def handle(request: coralmux.Request) -> dict[str, Any]:
        return wrong | {"cpu_percent": "marker-of-a-text"}

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.InvalidAnswer, match="same version") as caught:
            await call(phone)
        assert len(caught.value.ids) == 1
        assert "marker" not in str(caught.value)


@requests
async def test_a_request_without_a_handler_is_unsupported(
    shared_relay: RelayProcess, type: str
) -> None:
    agent = plain_agent()
    agent._handlers.requests.clear()
    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match=f"does not offer {type}") as caught:
            await REQUESTS[type][0](phone)
        assert caught.value.code == "UNSUPPORTED"
        assert len(caught.value.ids) == 1


async def test_a_handler_may_say_itself_what_it_does_not_offer(shared_relay: RelayProcess) -> None:
    agent = plain_agent()

    @agent.on("memory.search")
    async def handle(request: coralmux.Request) -> dict[str, Any]:
        raise coralmux.Unsupported("There is no memory here.")

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="There is no memory here") as caught:
            await phone.search_memory("x")
        assert caught.value.code == "UNSUPPORTED"


@requests
async def test_a_request_that_is_not_answered_in_time_says_so(
    shared_relay: RelayProcess, type: str
) -> None:
    agent = plain_agent()
    asked = asyncio.Event()

    @agent.on(type)
    async def handle(request: coralmux.Request) -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    async with meeting(shared_relay, agent) as phone:
        await phone.ready()
        with pytest.raises(coralmux.RequestTimeout, match=r"0\.1 s") as caught:
            await REQUESTS[type][0](phone, timeout=0.1)
        assert asked.is_set()
        assert len(caught.value.ids) == 1


@pytest.mark.parametrize("result", [None, 7, {"object": object()}, {"text": "\ud800"}], ids=repr)
async def test_a_handler_that_returns_nonsense_is_an_error_of_the_agent(
    shared_relay: RelayProcess, result: Any
) -> None:
    agent = plain_agent()

    @agent.on("system.status")
    async def handle(request: coralmux.Request) -> Any:
        return result

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="Error") as caught:
            await phone.system_status(timeout=5)
        assert caught.value.code == "BACKEND_ERROR"


async def test_a_result_that_is_too_large_is_an_error_in_words(shared_relay: RelayProcess) -> None:
    agent = plain_agent()

    @agent.on("chat.history")
    async def handle(request: coralmux.Request) -> Any:
        return {"messages": [{"role": "user", "content": "x" * 6_000_000}]}

    async with meeting(shared_relay, agent) as phone:
        with pytest.raises(coralmux.AgentError, match="Send less at once"):
            await phone.history(timeout=5)


async def test_what_the_fields_connector_calls_memories_is_read_too(
    shared_relay: RelayProcess,
) -> None:
    agent = plain_agent()

    @agent.on("memory.search")
    async def handle(request: coralmux.Request) -> Any:
        return {"memories": [HIT]}

    async with meeting(shared_relay, agent) as phone:
        assert await phone.search_memory("tea") == [MemoryHit("notes.md", "tea", 0.5)]


async def test_an_agent_without_a_list_names_itself(shared_relay: RelayProcess) -> None:
    agent = agent_for(name="Kitchen")
    agent.on_chat(plain_agent()._handlers.chat)  # type: ignore[arg-type]
    async with meeting(shared_relay, agent) as phone:
        assert await phone.agents() == [AgentProfile("default", "Kitchen")]
        assert phone.agent is not None
        assert phone.agent.name == "Kitchen"


def test_no_handler_can_be_given_for_what_nobody_asks() -> None:
    with pytest.raises(ValueError, match=r"chat\.history"):
        agent_for().on("chat.send")


async def test_group_messages_come_unasked(
    shared_relay: RelayProcess, caplog: pytest.LogCaptureFixture
) -> None:
    agent = plain_agent()
    got: asyncio.Queue[GroupMessage] = asyncio.Queue()

    def handle(message: GroupMessage) -> None:
        got.put_nowait(message)
        if message.room_id == "bad":
            raise ZeroDivisionError

    async with meeting(shared_relay, agent, on_group_message=handle) as phone:
        await agent.group_message("nobody is there yet", {})
        assert await phone.ask("here?") == "here?"
        await agent.group_message("bad", {"text": "1"})
        await agent.group_message("hall", {"text": "2"})
        async with asyncio.timeout(SOON):
            while (message := await got.get()).room_id != "hall":
                pass
        assert message == GroupMessage("hall", {"text": "2"})
        assert await phone.ask("still here") == "still here"
    assert "the handler of group messages failed" in caplog.text


async def test_pictures_are_given_by_path_and_read_at_once(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        return " ".join(item.name for item in message.attachments if hasattr(item, "name"))

    path = tmp_path / "note.txt"
    path.write_bytes(b"hello")
    async with meeting(shared_relay, agent) as phone:
        assert await phone.ask("?", images=[path, str(path)]) == "note.txt note.txt"
        with pytest.raises(coralmux.AttachmentError, match="not a file"):
            phone.ask("?", images=[tmp_path])


async def test_files_that_did_come_are_kept_where_others_did_not(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()
    pdf = coralmux.Attachment("a.pdf", "application/pdf", b"%PDF-1.7")

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        (serving,) = agent._pairings
        came = [await serving._transfers.send(pdf) for _ in range(2)]
        named = [{"file_id": id} for id in (came[0], "never-came", came[1])]
        bad = {"type": "image", "content_b64": "AAAA"}
        done = {"full_text": "whole", "ref": message.id, "attachments": [*named, bad]}
        serving.channel.send("chat.done", done)
        return ""

    async with meeting(shared_relay, agent) as phone:
        asked = phone.ask("?", timeout=SOON)
        with pytest.raises(coralmux.FileError, match=r"2 of 4 .*never arrived") as caught:
            await asked
        assert caught.value.ids == (asked.id,)
        assert asked.text == "whole"
        assert [item.data for item in asked.attachments] == [pdf.data] * 2
        assert phone.transfers.inbox.deadline is None, "nothing is left unclaimed"


@pytest.mark.parametrize("status", ["queued", 7, None, [], "done"])
async def test_a_tool_status_of_tomorrow_ends_no_answer(
    shared_relay: RelayProcess, status: object
) -> None:
    agent = agent_for()
    tools: list[coralmux.ToolStatus] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        (serving,) = agent._pairings
        told = {"tool": "search", "status": status, "ref": message.id}
        serving.channel.send("chat.tool_status", told)
        return "found"

    async with meeting(shared_relay, agent) as phone:
        assert await phone.ask("?", timeout=SOON, on_tool=tools.append) == "found"
    expected = "done" if status == "done" else "running"
    assert tools == [coralmux.ToolStatus("search", expected)]


async def test_an_agent_that_takes_no_files_is_sent_none(
    shared_relay: RelayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.client.channel.CAPS", ("cancel",))
    async with meeting(shared_relay, plain_agent()) as phone:
        sent: list[str] = []
        send = phone.channel.send
        monkeypatch.setattr(
            phone.channel, "send", lambda type, *a, **k: (sent.append(type), send(type, *a, **k))[1]
        )
        answer = phone.ask("?", images=[coralmux.Attachment("a", "text/plain", b"a")])
        with pytest.raises(coralmux.AttachmentError, match="takes no files") as caught:
            await answer
        assert caught.value.ids == (answer.id,)
        assert sent == []
        assert await phone.ask("without") == "without"


# Nobody there.


async def test_a_question_waits_for_an_agent_that_is_still_away(shared_relay: RelayProcess) -> None:
    link = new_link(shared_relay)
    agent = plain_agent()
    agent.add(link)
    async with phone_for(link) as phone:
        task = asyncio.create_task(phone.ask("early")._whole())
        with pytest.raises(coralmux.PeerOffline, match="Start it"):
            await phone.ready(0.1)
        async with serving(agent), asyncio.timeout(SOON):
            assert await task == "early"


@pytest.mark.parametrize("what", ["ask", "agents", "ready"])
async def test_an_agent_that_does_not_come_is_offline_after_the_timeout(
    shared_relay: RelayProcess, what: str
) -> None:
    async with phone_for(new_link(shared_relay)) as phone:
        with pytest.raises(coralmux.PeerOffline, match="Start it, and ask again"):
            await getattr(phone, what)(*["?"] * (what == "ask"), timeout=0.3)


async def test_a_relay_that_is_not_there_is_named_as_the_cause() -> None:
    link = coralmux.PairingLink.new("ws://127.0.0.1:9/ws", "oc_pair_" + "1" * 32)
    async with phone_for(link) as phone:
        answer = phone.ask("?", timeout=0.3)
        with pytest.raises(coralmux.NotConnected, match="whether the relay runs") as caught:
            await answer
        assert caught.value.ids == (answer.id,)


async def test_a_phone_outside_async_with_says_how_to_use_it(shared_relay: RelayProcess) -> None:
    phone = phone_for(new_link(shared_relay))
    for attempt in (phone.ask("?"), phone.agents(), phone.ready()):
        assert inspect.isawaitable(attempt)
        with pytest.raises(coralmux.NotConnected, match="async with"):
            await attempt
    await phone.close()


async def test_closing_tells_whoever_waits(shared_relay: RelayProcess) -> None:
    events = Events()
    phone = phone_for(new_link(shared_relay), on_event=events)
    async with phone, asyncio.timeout(SOON):
        waiting = [asyncio.create_task(phone.ask("?")._whole()) for _ in range(2)]
        waiting.append(asyncio.create_task(phone.agents()))  # type: ignore[arg-type]
        await events.wait_for(wire.Connected)
        await phone.close()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, coralmux.NotConnected)
            assert "closed" in str(result)
    with pytest.raises(coralmux.NotConnected):
        await phone.ask("again")


# What the relay refuses.


@pytest.mark.slow
async def test_a_message_over_the_limit_passes_later_under_its_id() -> None:
    env = {"CORALMUX_PHONE_MESSAGES_PER_MINUTE": "60"}
    agent = plain_agent()
    with relay_process(env=env) as relay:
        async with meeting(relay, agent) as phone, asyncio.timeout(SOON):
            refused = None
            for n in range(70):
                answer = phone.ask(str(n))
                try:
                    assert await answer == str(n)
                except coralmux.RelayRefused as error:
                    refused = error
                    break
            assert refused is not None
            assert (refused.code, refused.ids) == ("RATE_LIMITED", (answer.id,))
            assert refused.retry_after_ms is not None
            assert 0 < refused.retry_after_ms <= 1000
            await asyncio.sleep(refused.retry_after_ms / 1000)
            assert await phone.ask("later", id=answer.id) == "later"


async def test_the_default_limit_names_the_time_to_wait(shared_relay: RelayProcess) -> None:
    async with meeting(shared_relay, plain_agent()) as phone:
        results = await asyncio.gather(
            *(phone.ask(str(n)) for n in range(31)), return_exceptions=True
        )
        (refused,) = [result for result in results if isinstance(result, Exception)]
        assert isinstance(refused, coralmux.RelayRefused)
        assert refused.code == "RATE_LIMITED"
        assert refused.retry_after_ms is not None
        assert 0 < refused.retry_after_ms <= 2100
        assert "Send it again in" in str(refused)


@pytest.mark.slow
async def test_a_used_up_quota_is_told_on_both_sides_of_a_reply() -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Any:
        for _ in range(100):
            yield "x" * 2000

    with relay_process(env={"CORALMUX_DAILY_QUOTA_BYTES": "100000"}) as relay:
        async with meeting(relay, agent) as phone:
            answer = phone.ask("?", timeout=SOON)
            with pytest.raises((coralmux.AgentError, coralmux.RelayRefused), match="bandwidth"):
                await answer
            assert 0 < len(answer.text) < 200_000
            again = phone.ask("?", timeout=SOON)
            with pytest.raises(coralmux.RelayRefused, match="day's bandwidth") as caught:
                await again
            assert caught.value.code == "DAILY_QUOTA_EXCEEDED"
            assert caught.value.ids == (again.id,)
            assert caught.value.retry_after_ms is not None


async def test_a_question_that_is_too_large_is_not_sent(shared_relay: RelayProcess) -> None:
    async with meeting(shared_relay, plain_agent()) as phone:
        answer = phone.ask("x" * 5_000_000)
        with pytest.raises(coralmux.MessageTooLarge, match="Send less") as caught:
            await answer
        assert caught.value.ids == (answer.id,)
        assert await phone.ask("less") == "less"
