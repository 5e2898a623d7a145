"""What waits for an answer, alone: order, failure, time, and how much it may hold."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import coralmux
from coralmux.client.exchange import Exchange, Exchanges
from coralmux.e2e.events import Opened
from tests.support.client import SOON

MIB = 1024 * 1024


def message(type: str = "chat.stream", **payload: Any) -> Opened:
    size = len(json.dumps(payload, separators=(",", ":")))
    return Opened(type, "m", payload, sealed=True, size=size)


def exchange() -> Exchange:
    return Exchange("q", frozenset({"chat.stream"}))


async def test_messages_come_out_in_the_order_in_which_they_came() -> None:
    waiting = exchange()
    for n in range(3):
        waiting.put(message(delta=str(n)))
    assert [(await waiting.next(SOON)).payload["delta"] for _ in range(3)] == ["0", "1", "2"]


async def test_a_failure_comes_behind_what_came_before_and_stays() -> None:
    waiting = exchange()
    waiting.put(message(delta="x"))
    waiting.fail(coralmux.ConnectionLost("gone", ids=("q",)))
    waiting.fail(coralmux.ConnectionLost("later", ids=("q",)))
    assert (await waiting.next(SOON)).payload == {"delta": "x"}
    for _ in range(2):
        with pytest.raises(coralmux.ConnectionLost, match="gone"):
            await waiting.next(SOON)


async def test_a_failure_wakes_whoever_waits() -> None:
    waiting = exchange()
    task = asyncio.create_task(waiting.next(SOON))
    await asyncio.sleep(0)
    waiting.fail(coralmux.ConnectionLost("gone"))
    with pytest.raises(coralmux.ConnectionLost):
        await task


async def test_silence_ends_in_a_time_out_with_the_id() -> None:
    with pytest.raises(coralmux.RequestTimeout, match=r"0\.05 s") as caught:
        await exchange().next(0.05)
    assert caught.value.ids == ("q",)


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        ({"code": "BACKEND_ERROR", "message": "no memory"}, "BACKEND_ERROR", "no memory"),
        ({}, "BACKEND_ERROR", "gave no reason"),
        ({"code": 7, "message": ["x"]}, "BACKEND_ERROR", "gave no reason"),
        ({"code": "DUPLICATE", "message": ""}, "DUPLICATE", "gave no reason"),
    ],
)
async def test_an_error_of_the_agent_is_raised_as_such(
    payload: dict[str, Any], code: str, text: str
) -> None:
    waiting = exchange()
    waiting.put(message("chat.error", **payload))
    with pytest.raises(coralmux.AgentError, match=text) as caught:
        await waiting.next(SOON)
    assert (caught.value.code, caught.value.ids) == (code, ("q",))


@pytest.mark.parametrize(
    "payload",
    [
        {"delta": "x" * MIB},
        {"list": ["x" * MIB]},
        {"object": {"deep": {"down": "x" * MIB}}},
        {},
    ],
    ids=["text", "list", "object", "empty"],
)
async def test_what_nobody_takes_does_not_grow_without_bound(payload: dict[str, Any]) -> None:
    waiting = exchange()
    held = 0
    for _ in range(200_000):
        waiting.put(message(**payload))
        held += 1
        if waiting._failure is not None:
            break
    assert held * (len(str(payload)) + 100) < 40 * MIB
    for _ in range(held - 1):
        await waiting.next(SOON)
    with pytest.raises(coralmux.InvalidAnswer, match="larger than can be taken") as caught:
        await waiting.next(SOON)
    assert caught.value.ids == ("q",)


async def test_what_is_taken_makes_room() -> None:
    waiting = exchange()
    for _ in range(100):
        waiting.put(message(delta="x" * MIB))
        await waiting.next(SOON)


def test_an_id_waits_once() -> None:
    exchanges = Exchanges(2)
    first = exchanges.open("q")
    with pytest.raises(coralmux.NotConnected, match="still waits") as caught:
        exchanges.open("q")
    assert caught.value.ids == ("q",)
    exchanges.close(first)
    exchanges.open("q")


def test_version_2_goes_by_the_reference_alone() -> None:
    exchanges = Exchanges(2)
    exchanges.open("q", "chat.stream")
    assert not exchanges.put(message(delta="x"))
    assert not exchanges.put(message(delta="x", ref="other"))
    assert not exchanges.put(message(delta="x", ref=7))
    assert exchanges.put(message(delta="x", ref="q"))


def test_version_1_goes_by_the_type() -> None:
    exchanges = Exchanges(1)
    exchanges.open("q", "chat.stream", "chat.done")
    assert not exchanges.put(message("agent.list.result"))
    assert exchanges.put(message("chat.done"))
    assert exchanges.put(message("chat.error"))


async def test_the_end_of_a_session_names_each_request() -> None:
    exchanges = Exchanges(2)
    waiting = [exchanges.open(id) for id in ("a", "b")]
    exchanges.fail_all(coralmux.ConnectionLost, "gone")
    for one in waiting:
        with pytest.raises(coralmux.ConnectionLost, match="gone") as caught:
            await one.next(SOON)
        assert caught.value.ids == (one.id,)


async def test_what_had_come_for_an_abandoned_answer_is_not_lost() -> None:
    exchanges = Exchanges(1)
    left = exchanges.open("one", "chat.stream", "chat.done")
    exchanges.put(Opened("chat.done", "x", {"full_text": "end"}, sealed=True))
    rest = exchanges.abandon(left)
    exchanges.close(left)
    assert (await rest.next(1)).type == "chat.done"
    exchanges.put(Opened("chat.stream", "y", {"delta": "late"}, sealed=True))
    assert (await rest.next(1)).type == "chat.stream"
