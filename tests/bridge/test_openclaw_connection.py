"""The one connection of the backend `openclaw`: shared, watched, and made anew."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from coralmux import BackendError, Unsupported
from coralmux.bridge.answering import kind_of
from coralmux.bridge.openclaw import gateway as connecting
from tests.bridge.doubles.openclaw_gateway import OpenclawGateway, Refused, message
from tests.bridge.openclaw import Asking, backend_at, met
from tests.support.process import free_port
from tests.support.waiting import eventually

PHONE = "p" * 32


async def test_responses_may_come_in_any_order(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        order: list[str] = []
        later = asyncio.Event()

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            await later.wait()
            return {"messages": [message("Late")]}

        async def agents(params: dict[str, Any]) -> dict[str, Any]:
            return {"agents": [{"id": "main"}]}

        gateway.answers |= {"chat.history": history, "agents.list": agents}
        waiting = asyncio.create_task(backend.history(PHONE, "", 5))
        waiting.add_done_callback(lambda task: order.append("history"))
        await eventually(lambda: gateway.requests)
        (agent,) = await backend.agents()
        order.append("agents")
        later.set()
        (entry,) = await waiting
        assert (agent.id, entry.content, order) == ("main", "Late", ["agents", "history"])
        assert gateway.taken == 1


async def test_a_gateway_that_closes_ends_what_was_asked_of_it_at_once(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        never = asyncio.Event()

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            await never.wait()
            return {}

        gateway.answers["chat.history"] = history
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="So far")
        await asking.has("So far")
        waiting = asyncio.create_task(backend.history(PHONE, "", 5))
        await eventually(lambda: len(gateway.requests) == 2)
        await gateway.drop()
        assert "closed the connection" in await asking.failure()
        assert asking.text == "So far"
        with pytest.raises(BackendError, match="closed the connection"):
            await waiting


async def test_the_next_question_after_a_restart_is_answered(tmp_path: Path) -> None:
    port = free_port()
    said: list[str] = []
    async with backend_at(f"ws://127.0.0.1:{port}", tmp_path, said) as backend:
        assert "No OpenClaw gateway can be reached" in await Asking(backend, id="1").failure()
        for id in "23":
            async with OpenclawGateway(port=port).serving() as gateway:
                asking = Asking(backend, id=id)
                await (await gateway.next_question()).whole("Yes")
                assert await asking.end() == "Yes"
    assert sum("is there." in text for text in said) == 2


async def test_a_question_does_not_wait_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_FIRST_PAUSE", 60)
    port = free_port()
    async with backend_at(f"ws://127.0.0.1:{port}", tmp_path) as backend:
        await Asking(backend, id="1").failure()
        async with OpenclawGateway(port=port).serving() as gateway:
            asking = Asking(backend, id="2")
            await (await gateway.next_question()).whole("Yes")
            assert await asking.end() == "Yes"


@pytest.mark.slow
async def test_it_comes_back_without_being_asked(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, _):
        await gateway.connected()
        await gateway.drop()
        await gateway.connected(2)


async def test_silence_of_two_ticks_is_the_end_of_a_connection(tmp_path: Path) -> None:
    tick = 0.4
    async with met(tmp_path, tick_ms=1000 * tick) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        gateway.silent = True
        await asked.chat("delta", deltaText="So far")
        await asking.has("So far")
        since = time.monotonic()
        assert "has fallen silent" in await asking.failure()
        assert 1.8 * tick < time.monotonic() - since < 2.8 * tick
        gateway.silent = False
        again = Asking(backend, id="again")
        await (await gateway.next_question()).whole("Here")
        assert await again.end() == "Here"
        assert gateway.taken == 2


async def test_ticks_alone_keep_a_connection(tmp_path: Path) -> None:
    async with met(tmp_path, tick_ms=50) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await gateway.ticked(5)
        await asked.whole("At last")
        assert await asking.end() == "At last"
        assert gateway.taken == 1


@pytest.mark.parametrize(
    "garbage",
    [
        "no json",
        "[]",
        '"text"',
        "[" * 100_000,
        b"\xff\x00",
        '{"type": "event"}',
        '{"type": "event", "event": "chat", "payload": []}',
        '{"type": "event", "event": "chat", "payload": {"runId": 7, "state": []}}',
        '{"type": "event", "event": "agent", "payload": {"stream": "tool", "data": 1}}',
        '{"type": "event", "event": "tick", "seq": "one"}',
        '{"type": "res", "id": "1000", "ok": true}',
        '{"type": "res", "id": null, "ok": 1}',
        '{"type": "req", "id": "1", "method": "x"}',
    ],
)
async def test_garbage_is_passed_over(tmp_path: Path, garbage: str | bytes) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await gateway.raw(garbage)
        await asked.whole("All the same")
        assert await asking.end() == "All the same"


async def test_an_event_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        await gateway.again()
        await asked.chat("delta", deltaText=" two")
        await asked.chat("final")
        assert await asking.end() == "One two"


async def test_the_history_is_what_was_said(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            parts = [
                {"type": "thinking", "thinking": "hm"},
                {"type": "text", "text": "Hello"},
                {"type": "toolCall", "name": "exec"},
                {"type": "text", "text": "there"},
            ]
            return {
                "messages": [
                    {"role": "user", "content": "Too old"},
                    {"role": "user", "content": "Hi", "timestamp": 1_700_000_000_000},
                    {"role": "toolResult", "content": "noise"},
                    {"role": "assistant", "content": [{"type": "toolCall"}]},
                    {"role": "assistant", "content": parts, "timestamp": 1_700_000_000_001},
                    "garbage",
                ]
            }

        gateway.answers["chat.history"] = history
        entries = await backend.history(PHONE, "work", 2)
        assert gateway.requests[-1] == (
            "chat.history",
            {"sessionKey": "agent:work:main", "limit": 2},
        )
        assert [(entry.role, entry.content, entry.timestamp) for entry in entries] == [
            ("user", "Hi", 1_700_000_000_000),
            ("assistant", "Hello\n\nthere", 1_700_000_000_001),
        ]


async def test_the_agents_are_those_of_the_gateway(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):

        async def agents(params: dict[str, Any]) -> dict[str, Any]:
            assert params == {}
            return {
                "defaultId": "main",
                "agents": [
                    {"id": "work", "name": "Work", "model": {"primary": "local/small"}},
                    {"id": "main", "name": "m", "identity": {"name": "Claw", "emoji": "x"}},
                    {"id": "setup", "kind": "system"},
                    {"name": "without id"},
                    None,
                ],
            }

        gateway.answers["agents.list"] = agents
        found = await backend.agents()
        assert [(agent.id, agent.name, agent.model) for agent in found] == [
            ("main", "Claw", None),
            ("work", "Work", "local/small"),
        ]


async def test_memory_is_searched_where_the_gateway_can(tmp_path: Path) -> None:
    gateway = OpenclawGateway()

    async def search(params: dict[str, Any]) -> dict[str, Any]:
        assert params == {"query": "tea", "maxResults": 2, "agentId": "main"}
        hit = {"path": "MEMORY.md", "snippet": "Likes tea", "score": 0.5, "startLine": 1}
        return {"agentId": "main", "results": [hit, {"path": "b"}, {"path": "c"}]}

    gateway.answers["memory.search"] = search
    async with gateway.serving():
        async with backend_at(gateway.url, tmp_path) as backend:
            with pytest.raises(Unsupported):
                await backend.memory("", "tea", 2)
        gateway.methods.append("memory.search")
        async with backend_at(gateway.url, tmp_path) as backend:
            first, second = await backend.memory("", "tea", 2)
    assert (first.path, first.snippet, first.score) == ("MEMORY.md", "Likes tea", 0.5)
    assert (second.path, second.score) == ("b", None)


async def test_what_a_gateway_refuses_is_told(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):

        async def refuse(params: dict[str, Any]) -> None:
            raise Refused("FORBIDDEN", "missing scope: operator.read")

        gateway.answers["chat.history"] = refuse
        with pytest.raises(BackendError, match="refuses: missing scope: operator") as caught:
            await backend.history(PHONE, "", 5)
        assert kind_of(caught.value) == "The OpenClaw gateway refuses."  # what is logged
