"""Answers of the backend `openclaw`: the events of a run, in the orders in which they come."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, ToolStatus
from coralmux.bridge.openclaw import gateway as connecting
from tests.bridge.doubles.openclaw_gateway import Asked, OpenclawGateway, Refused, message
from tests.bridge.openclaw import Asking, backend_at, met
from tests.support.waiting import eventually

PICTURE = Attachment("cat.gif", "image/gif", b"GIF89a" + bytes(2000))


async def test_pieces_reach_the_phone_as_they_come(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend, "Say hello")
        asked = await gateway.next_question()
        assert asked.params["message"] == "Say hello"
        assert asked.session == "agent:main:main"
        await asked.chat("status", phase="starting_model")
        await asked.chat("delta", deltaText="Hel", message=message("Hel"))
        await asking.has("Hel")
        await asked.chat("delta", deltaText="lo")
        await asking.has("Hello")
        await asked.chat("final", message=message("Hello there"), usage={"totalTokens": 3})
        assert await asking.end() == "Hello there"
        assert asking.question.usage == {"totalTokens": 3}


async def test_whole_texts_are_cut_to_what_is_new(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", message="One")
        await asked.chat("delta", message=message("One two"))
        await asked.chat("final")
        assert await asking.end() == "One two"
        assert asking.pieces == ["One", " two"]


async def test_a_text_that_starts_over_is_a_new_paragraph(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="It is A")
        await asked.chat("delta", deltaText="No, B", replace=True)
        await asked.chat("delta", deltaText=" it is.")
        await asked.whole("No, B it is.")
        assert await asking.end() == "It is A\n\nNo, B it is."


async def test_an_end_in_parts_is_no_second_answer(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="Let me look. ")
        await asked.chat("delta", deltaText="It is 5.")
        parts = [{"type": "text", "text": text} for text in ("Let me look. ", "It is 5.")]
        await asked.chat("final", message={"role": "assistant", "content": parts})
        assert await asking.end() == "Let me look. It is 5."


async def test_events_before_the_response_are_not_lost(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        late = asyncio.Event()

        async def answer_late(params: dict[str, Any]) -> dict[str, Any]:
            run = params["idempotencyKey"]
            await gateway.chat(run, "delta", deltaText="Early")
            await late.wait()
            return {"runId": run, "status": "started"}

        gateway.answers["chat.send"] = answer_late
        asking = Asking(backend)
        await asking.has("Early")
        late.set()
        await gateway.chat(gateway.requests[0][1]["idempotencyKey"], "final")
        assert await asking.end() == "Early"


async def test_a_late_response_ends_no_answer_that_is_coming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_REQUEST_SECONDS", 0.5)
    async with met(tmp_path) as (gateway, backend):

        async def never(params: dict[str, Any]) -> None:
            gateway.asked.put_nowait(Asked(gateway, params))
            await asyncio.Event().wait()

        gateway.answers["chat.send"] = never
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        # Of a question that was asked later nothing has come at all.
        later = Asking(backend, id="later", agent_id="later")
        assert "has not answered for" in await later.failure()
        await asked.chat("delta", deltaText=" two")
        await asked.chat("final")
        assert await asking.end() == "One two"


@pytest.mark.slow
async def test_a_large_file_may_take_its_time_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_REQUEST_SECONDS", 0.5)
    async with met(tmp_path) as (gateway, backend):
        await gateway.connected()
        gateway.pause()
        film = Attachment("film.bin", "application/octet-stream", bytes(12_000_000))
        asking = Asking(backend, attachments=(film,))
        await asyncio.sleep(0.8)
        gateway.go_on()
        await (await gateway.next_question()).whole("Seen")
        assert await asking.end() == "Seen"


async def test_tools_are_shown_by_name_and_once(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        call = {"name": "exec\n" + "x" * 100, "toolCallId": "1", "args": {"command": "secret"}}
        await asked.tool("start", **call)
        await asked.tool("update", partialResult="…", **call)
        await asked.tool("result", isError=False, **call)
        await asked.tool("start", name="web_fetch", toolCallId="2")
        await asked.tool("result", name="web_fetch", toolCallId="2", isError=True)
        await asked.tool("review", name="web_fetch", toolCallId="3")
        await gateway.tool("another-run", "start", name="not_ours", toolCallId="4")
        await asked.whole("Done.")
        await asking.end()
        long = "exec " + "x" * 55
        assert asking.pieces == [
            ToolStatus(long, "running"),
            ToolStatus(long, "done"),
            ToolStatus("web_fetch", "running"),
            ToolStatus("web_fetch", "error"),
            "Done.",
        ]


async def test_answers_of_different_sessions_stay_apart(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        first = Asking(backend, id="1", agent_id="one")
        asked_first = await gateway.next_question()
        second = Asking(backend, id="2", agent_id="two")
        asked_second = await gateway.next_question()
        assert (asked_first.session, asked_second.session) == ("agent:one:main", "agent:two:main")
        assert asked_first.run != asked_second.run
        await asked_second.chat("delta", deltaText="Two")
        await asked_first.chat("delta", deltaText="One")
        await asked_second.whole("Two")
        await asked_first.whole("One")
        assert (await first.end(), await second.end()) == ("One", "Two")


async def test_twenty_answers_at_once_stay_apart(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = [Asking(backend, str(n), str(n), agent_id=f"a{n}") for n in range(20)]
        asked = [await gateway.next_question() for _ in asking]
        for word in ("All", " that", " is"):
            for each in reversed(asked):
                await each.chat("delta", deltaText=f"{word} {each.params['message']}")
        for each in asked:
            await each.chat("final")
        for n, each in enumerate(asking):
            assert await each.end() == f"All {n} that {n} is {n}"


async def test_a_question_to_a_busy_session_is_answered_by_the_run_that_is_under_way(
    tmp_path: Path,
) -> None:
    async with met(tmp_path) as (gateway, backend):
        first = Asking(backend, "Tell me a story", "1")
        busy = await gateway.next_question()
        await busy.chat("delta", deltaText="A ship sailed.", message=message("A ship sailed."))
        await first.has("A ship sailed.")
        second = Asking(backend, "Let it be a cat", "2")
        steering = await gateway.next_question()
        await steering.chat("final")
        now = "A ship sailed. A cat slept."
        await busy.chat("delta", deltaText=" A cat slept.", message=message(now))
        await busy.whole(now)
        assert await first.end() == now
        assert await second.end() == " A cat slept."


async def test_a_run_that_another_channel_began_answers_too(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            under_way = {"runId": "theirs", "text": "So far."}
            return {
                "messages": [],
                "inFlightRun": under_way,
                "sessionInfo": {"hasActiveRun": True, "activeRunIds": ["theirs"]},
            }

        gateway.answers["chat.history"] = history
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("final")
        await eventually(lambda: len(gateway.requests) == 2)
        await gateway.chat("theirs", "delta", deltaText=" More.", message=message("So far. More."))
        await gateway.chat("theirs", "final", message=message("So far. More."))
        assert await asking.end() == " More."


async def test_an_answer_that_came_without_events_is_in_the_history(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            mark = {"idempotencyKey": f"{asked.run}:user"}
            return {
                "messages": [
                    {"role": "user", "content": "Before", "idempotencyKey": "other:user"},
                    message("Not this."),
                    {"role": "user", "content": "Hello", "__openclaw": mark},
                    {"role": "toolResult", "content": "noise"},
                    message("Here it is."),
                    {"role": "user", "content": "Later"},
                    message("Nor this."),
                ]
            }

        gateway.answers["chat.history"] = history
        await asked.chat("final")
        assert await asking.end() == "Here it is."


async def test_an_agent_that_has_nothing_to_say_is_no_error(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="", replace=True)
        await asked.chat("final")
        assert await asking.end() == ""
        assert asking.pieces == [ToolStatus("nothing to say", "done")]


@pytest.mark.parametrize(
    ("state", "rest", "told"),
    [
        ("aborted", {"stopReason": "stop"}, "The agent was stopped before it was done."),
        ("error", {"errorMessage": "out of\x1b[31m tea"}, "It says: “out of [31m tea”."),
        ("error", {"errorKind": "rate_limit"}, "takes no more questions just now"),
        ("error", {"errorKind": "context_length"}, "Send /new to begin another one."),
        ("error", {}, "The agent could not answer. Ask again."),
    ],
)
async def test_a_run_that_fails_leaves_what_it_said(
    tmp_path: Path, state: str, rest: dict[str, Any], told: str
) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="So far")
        await asked.chat(state, message=message("So far, so good"), **rest)
        assert told in await asking.failure()
        assert asking.text == "So far, so good"


async def test_a_cancelled_question_is_not_sent_any_further(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        await gateway.connected()
        loop = asyncio.get_running_loop()

        async def never(params: dict[str, Any]) -> None:
            gateway.asked.put_nowait(Asked(gateway, params))
            await asyncio.Event().wait()

        gateway.answers["chat.send"] = never

        def sending() -> list[asyncio.Task[Any]]:
            return [task for task in asyncio.all_tasks(loop) if "OpenclawBackend" in repr(task)]

        asking = Asking(backend)
        await gateway.next_question()
        assert sending()
        await asking.cancel()
        await eventually(lambda: not sending())


async def test_a_cancelled_answer_is_stopped_at_the_gateway(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        asking = Asking(backend)
        asked = await gateway.next_question()
        await asked.chat("delta", deltaText="One")
        await asking.has("One")
        await asking.cancel()
        assert await gateway.aborted.get() == {"sessionKey": asked.session, "runId": asked.run}


async def test_a_refused_question_is_told_in_the_gateways_words(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):

        async def refuse(params: dict[str, Any]) -> None:
            raise Refused("INVALID_REQUEST", "the-gateway-token is not an agent")

        gateway.answers["chat.send"] = refuse
        asking = Asking(backend)
        assert await asking.failure() == "The OpenClaw gateway refuses: … is not an agent."


async def test_the_same_question_is_the_same_run(tmp_path: Path) -> None:
    """A bridge that was started anew does not have the agent work twice."""
    async with OpenclawGateway().serving() as gateway:
        runs = []
        for place in ("one", "two"):
            async with backend_at(gateway.url, tmp_path / place) as backend:
                asking = Asking(backend)
                asked = await gateway.next_question()
                await asked.whole("Yes")
                await asking.end()
                runs.append(asked.run)
        assert runs[0] == runs[1]


async def test_a_question_that_the_gateway_has_answered_before_is_answered_again(
    tmp_path: Path,
) -> None:
    async with met(tmp_path) as (gateway, backend):
        runs = []

        async def known(params: dict[str, Any]) -> dict[str, Any]:
            runs.append(params["idempotencyKey"])
            return {"runId": runs[0], "status": "ok"}

        async def history(params: dict[str, Any]) -> dict[str, Any]:
            user = {"role": "user", "content": "Hello", "idempotencyKey": f"{runs[0]}:user"}
            return {"messages": [user, message("As before")]}

        gateway.answers |= {"chat.send": known, "chat.history": history}
        assert await Asking(backend).end() == "As before"


async def test_files_go_along_as_the_gateway_takes_them(tmp_path: Path) -> None:
    async with met(tmp_path) as (gateway, backend):
        text = Attachment("notes.txt", "text/plain", b"notes")
        asking = Asking(backend, attachments=(PICTURE, text))
        asked = await gateway.next_question()
        picture, notes = asked.params["attachments"]
        assert b64decode(picture.pop("content")) == PICTURE.data
        assert picture == {"type": "image", "mimeType": "image/gif", "fileName": "cat.gif"}
        assert b64decode(notes.pop("content")) == b"notes"
        assert notes == {"type": "file", "mimeType": "text/plain", "fileName": "notes.txt"}
        await asked.whole("Seen")
        await asking.end()


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (
            {"attachments": {"maxBytes": 10**6, "maxImageBytes": 1000}},
            "cat.gif is too large for the OpenClaw gateway: it takes 0.0 MB.",
        ),
        ({"maxPayload": 3000}, "This is more than the OpenClaw gateway takes at once"),
    ],
)
async def test_what_is_too_large_is_not_sent(
    tmp_path: Path, policy: dict[str, Any], told: str
) -> None:
    gateway = OpenclawGateway()
    gateway.policy |= policy
    async with gateway.serving(), backend_at(gateway.url, tmp_path) as backend:
        assert told in await Asking(backend, attachments=(PICTURE,)).failure()
        assert gateway.requests == []


@pytest.mark.parametrize("agent", ["main:other", "../x", "a b", "x" * 65])
async def test_an_agents_id_leads_to_no_session_of_others(tmp_path: Path, agent: str) -> None:
    async with met(tmp_path) as (gateway, backend):
        assert "no such agent" in await Asking(backend, agent_id=agent).failure()
        assert gateway.requests == []
