"""Answers of the backend `openclaw` where events, an end, or the connection were lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coralmux import ToolStatus
from tests.bridge.doubles.openclaw_gateway import Refused, message
from tests.bridge.openclaw import Asking, met
from tests.support.waiting import eventually


async def test_lost_pieces_are_filled_in_from_the_run_under_way(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        await asking.has("One")

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            return {"messages": [], "inFlightRun": {"runId": asked.run, "text": "One two three"}}

        gateway.answers["chat.history"] = history
        gateway.lose_event()
        await gateway.event("health", {})
        await asking.has("One two three")
        await asked.chat("delta", deltaText=" four")
        await asked.chat("final")
        assert await asking.end() == "One two three four"


async def test_lost_pieces_come_with_the_end_where_there_is_no_history(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        await asking.has("One")

        async def refuse(params: dict[str, Any]) -> None:
            raise Refused("UNAVAILABLE", "not now")

        gateway.answers["chat.history"] = refuse
        gateway.lose_event()
        await asked.chat("delta", deltaText=" three")
        await asked.whole("One two three four")
        assert await asking.end() == "One two three four"
        assert asking.pieces == ["One", " two three four"]


async def test_lost_pieces_are_in_the_history_where_the_end_has_no_text(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        await asking.has("One")
        gateway.lose_event()
        await gateway.event("health", {})
        # Looked for at once, when the history does not have it yet.
        await eventually(lambda: len(gateway.requests) == 2)

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            user = {"role": "user", "content": "Hello", "idempotencyKey": f"{asked.run}:user"}
            return {"messages": [user, message("One two")]}

        gateway.answers["chat.history"] = history
        await asked.chat("final")
        assert await asking.end() == "One two"


async def test_a_lost_end_is_found_in_the_history(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        await asking.has("One")

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            user = {"role": "user", "content": "Hello", "idempotencyKey": f"{asked.run}:user"}
            return {
                "messages": [user, message("One two")],
                "sessionInfo": {"hasActiveRun": False, "activeRunIds": []},
            }

        gateway.answers["chat.history"] = history
        gateway.lose_event()
        await gateway.event("health", {})
        assert await asking.end() == "One two"


async def test_a_run_whose_end_was_lost_holds_no_question(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        await gateway.connected()
        await gateway.chat("theirs", "delta", deltaText="From another channel")
        gateway.lose_event()
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("final")
        assert await asking.end() == ""
        # Nor the next one, which begins after that was noticed.
        again = Asking(backend, id="again")
        await (await gateway.next_question()).chat("final")
        assert await again.end() == ""


async def test_a_run_that_the_gateway_knows_no_more_holds_no_question(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            return {"messages": [], "sessionInfo": {"activeRunIds": []}}

        gateway.answers["chat.history"] = history
        await gateway.connected()
        await gateway.chat("theirs", "delta", deltaText="From another channel")
        asking = Asking(backend)
        await (await gateway.next_question()).chat("final")
        assert await asking.end() == ""
        assert asking.pieces == [ToolStatus("nothing to say", "done")]


async def test_a_run_that_the_gateway_dropped_holds_no_question(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        await gateway.connected()
        await gateway.chat("theirs", "delta", deltaText="From another channel")
        await gateway.drop()
        asking = Asking(backend)
        await (await gateway.next_question()).chat("final")
        assert await asking.end() == ""
        assert asking.pieces == [ToolStatus("nothing to say", "done")]
