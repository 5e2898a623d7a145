"""What a Phone can ask beside questions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import coralmux
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
from tests.client.meeting import (
    agent_for,
    meeting,
    plain_agent,
)
from tests.support.client import SOON
from tests.support.process import RelayProcess

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
