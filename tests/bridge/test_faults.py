"""A backend that is not well: the phone gets what there was and one sentence, others nothing.

The backend is in the test's process and does what it is asked by the question's text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.bridge import Backend, NoSettings, Piece, Place, Question
from tests.bridge.bridges import Served, served
from tests.support.client import SOON
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

SECRET = "what nobody may read"


class Nasty(Backend):
    """Says "so far " and then does its worst."""

    def __init__(self) -> None:
        super().__init__(NoSettings(), Place(Path("/nowhere")))
        self.cancelled: list[str] = []
        self.aborted: list[str] = []
        self.release = asyncio.Event()
        self.said = 0

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        if question.text == "well":
            yield "all "
            yield "is well"
            return
        if question.text == "long":
            for n in range(1000):
                yield f"{n} "
            return
        if question.text == "endless":
            while True:
                self.said += 10_000
                yield "abcdefghi " * 1000
        if question.text == "endless tools":
            while True:
                yield coralmux.ToolStatus("a tool " * 30, "running")
        if question.text == "empty":
            yield ""
            yield coralmux.ToolStatus("search", "done")
            yield " \n"
            return
        yield "so far "
        try:
            await self._worst(question.text)
        except asyncio.CancelledError:
            self.cancelled.append(question.text)
            raise
        wrong: dict[str, Any] = {
            "bytes": b"\xff\xfe",
            "nothing": None,
            "a tool without a name": coralmux.ToolStatus(7),  # type: ignore[arg-type]
        }
        if question.text in wrong:
            yield wrong[question.text]
            yield "never said"
        if question.text == "half a character":
            yield "\ud83d"

    async def _worst(self, what: str) -> None:
        match what:
            case "down":
                raise coralmux.BackendError("The server at 127.0.0.1:11434 is down. Start it.")
            case "tells its kind":
                error = coralmux.BackendError(f"It says: {SECRET[5:]}")
                error.kind = "HTTP 429 from the AI server."  # type: ignore[attr-defined]
                raise error
            case "no reason":
                raise coralmux.BackendError
            case "crash":
                raise ValueError(SECRET)
            case "cancels itself":
                raise asyncio.CancelledError
            case "leaves":
                raise SystemExit(SECRET)
            case "hang":
                await asyncio.Event().wait()
            case "stubborn":
                while not self.release.is_set():
                    try:
                        await self.release.wait()
                    except asyncio.CancelledError:
                        self.cancelled.append(what)

    async def abort(self, question: Question) -> None:
        self.aborted.append(question.text)
        if question.text == "hang":
            raise ValueError(SECRET)


@pytest.fixture
async def backend() -> AsyncIterator[Nasty]:
    there = Nasty()
    yield there
    there.release.set()


@pytest.fixture
async def there(
    relay: RelayProcess, tmp_path: Path, backend: Nasty, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Served]:
    """What must hold whatever happened: nothing was logged that is nobody's business."""
    caplog.set_level(logging.DEBUG)
    async with served(relay, backend, tmp_path, silence_seconds=0.5) as it:
        it.service.stop_seconds = 0.2
        yield it
        backend.release.set()
    assert SECRET not in caplog.text
    assert SECRET[5:] not in repr(it.log.events) + repr(it.log.lines)
    assert "Traceback" not in caplog.text


async def fails(phone: coralmux.Phone, text: str) -> tuple[str, str]:
    """What was said, and the error."""
    answer = phone.ask(text)
    with pytest.raises(coralmux.AgentError) as caught:
        async with asyncio.timeout(SOON):
            await answer
    assert caught.value.code == "BACKEND_ERROR"
    assert SECRET not in str(caught.value)
    return answer.text, str(caught.value)


@pytest.mark.parametrize(
    ("what", "words", "kind"),
    [
        ("down", "The server at 127.0.0.1:11434 is down. Start it.", "BackendError"),
        ("tells its kind", f"It says: {SECRET[5:]}", "HTTP 429 from the AI server."),
        ("no reason", "failed and gave no reason. Ask again.", "BackendError"),
        ("crash", "failed (ValueError). Ask again", "ValueError"),
        ("cancels itself", "broke the answer off", "CancelledError"),
        ("leaves", "failed (RuntimeError)", "RuntimeError"),
        ("hang", "has said nothing for 1 s. Ask again", "silence"),
        ("stubborn", "has said nothing for 1 s. Ask again", "silence"),
        ("bytes", "no part of an answer", "a piece of type bytes"),
        ("nothing", "no part of an answer", "a piece of type NoneType"),
        ("a tool without a name", "no part of an answer", "a piece of type ToolStatus"),
    ],
)
async def test_the_phone_gets_what_there_was_and_then_one_sentence(
    there: Served, what: str, words: str, kind: str
) -> None:
    async with there.phone() as phone:
        said, error = await fails(phone, what)
        assert said == "so far "
        assert words in error
        # The bridge lives on, and keeps what was said.
        assert await phone.ask("well") == "all is well"
        assert [(entry.role, entry.content) for entry in await phone.history()] == [
            ("user", what),
            ("assistant", "so far "),
            ("user", "well"),
            ("assistant", "all is well"),
        ]
    (failed,) = there.log.of("failed")
    assert failed["error"] == kind
    assert failed["characters"] == len("so far ")


async def test_a_long_answer_without_a_pause_comes_whole(there: Served) -> None:
    async with there.phone() as phone:
        assert await phone.ask("long") == "".join(f"{n} " for n in range(1000))
        (answered,) = there.log.of("answered")
        assert answered["deltas"] == 1000


async def test_an_answer_without_end_is_ended(there: Served) -> None:
    async with there.phone() as phone:
        said, error = await fails(phone, "endless")
        assert len(said) == 1_000_000
        assert error == (
            "The answer grew longer than 1,000,000 characters and was ended. Ask for less at once."
        )
        kept = (await phone.history())[-1].content
        assert kept == said[: len(kept)]
    (failed,) = there.log.of("failed")
    assert failed["error"] == "longer than 1,000,000 characters"


async def test_an_answer_without_end_is_ended_for_a_phone_that_has_left(
    there: Served, backend: Nasty
) -> None:
    async with there.phone() as phone:
        answer = phone.ask("endless")
        await anext(aiter(answer))
    async with asyncio.timeout(SOON):
        await eventually(lambda: there.log.of("failed"), SOON)
    assert backend.said <= 1_200_000
    (entry,) = there.conversations.entries(there.key(), "", 1)
    assert len(entry.content) == 100_000
    assert there.service.running == 0


@pytest.mark.slow
async def test_tools_that_are_used_without_end_end_the_answer(there: Served) -> None:
    async with there.phone() as phone:
        assert "grew longer" in (await fails(phone, "endless tools"))[1]


async def test_an_empty_answer_is_an_error(there: Served) -> None:
    async with there.phone() as phone:
        _, error = await fails(phone, "empty")
        assert error == "The AI gave an empty answer. Ask again."


async def test_an_empty_answer_of_a_backend_that_may_be_silent_is_none(
    there: Served, backend: Nasty
) -> None:
    backend.may_be_silent = True  # type: ignore[misc]
    async with there.phone() as phone:
        assert (await phone.ask("empty")).strip() == ""
    assert there.log.of("failed") == []


async def test_half_a_character_is_shown_as_one_that_cannot_be(there: Served) -> None:
    async with there.phone() as phone:
        assert await phone.ask("half a character") == "so far ?"


async def test_other_chats_do_not_notice(there: Served) -> None:
    async with there.phone() as phone:
        bad = [phone.ask(what) for what in ("crash", "hang", "leaves", "bytes")]
        good = [phone.ask("well") for _ in range(4)]
        ends = await asyncio.gather(
            *(answer._whole() for answer in [*bad, *good]), return_exceptions=True
        )
        assert [type(end) for end in ends[:4]] == [coralmux.AgentError] * 4
        assert ends[4:] == ["all is well"] * 4


async def test_a_backend_is_told_when_its_answer_is_not_wanted_any_more(
    there: Served, backend: Nasty
) -> None:
    async with there.phone() as phone:
        await fails(phone, "hang")
    assert backend.cancelled == backend.aborted == ["hang"]


async def test_a_cancelled_answer_ends_at_the_backend_too(there: Served, backend: Nasty) -> None:
    there.service._silence_seconds = SOON
    async with there.phone() as phone:
        answer = phone.ask("hang")
        async for _ in answer:
            answer.cancel()
        assert answer.text == "so far "
        await eventually(lambda: backend.aborted)
        assert backend.cancelled == ["hang"]
        assert [entry.content for entry in await phone.history()] == ["hang", "so far "]
    assert len(there.log.of("broken_off")) == 1


async def test_a_backend_that_does_not_end_is_left_behind(there: Served, backend: Nasty) -> None:
    there.service._silence_seconds = SOON
    async with there.phone() as phone:
        answer = phone.ask("stubborn")
        async with asyncio.timeout(SOON / 2):
            async for _ in answer:
                answer.cancel()
        await eventually(lambda: any("left behind" in line for line in there.log.lines))
    assert backend.cancelled == ["stubborn"]
