"""The openai backend: what it sends, and what it makes of what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coralmux import Attachment, Turn
from coralmux.bridge import Backend, Place
from coralmux.bridge.backends import BackendUnusable, make
from tests.bridge.asking import outcome, question, started
from tests.bridge.doubles.chat_server import (
    DONE,
    ChatServer,
    chat_server,
    delta,
    event,
    finish,
    one_after_another,
    refuses,
    says,
    streams,
)
from tests.support.client import SOON

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as server:
        yield server


@pytest.fixture
async def backend(server: ChatServer, tmp_path: Path) -> AsyncIterator[Backend]:
    async with started("openai", tmp_path, base_url=server.base_url, model="small") as backend:
        yield backend


# What is sent


async def test_the_conversation_goes_before_the_question(
    server: ChatServer, backend: Backend
) -> None:
    history = (Turn("user", "I am Ada."), Turn("assistant", "Hello Ada."))
    await outcome(backend, question("Who am I?", history=history))
    assert server.asked[0]["messages"] == [
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "Who am I?"},
    ]


async def test_roles_take_turns_although_an_answer_was_never_given(
    server: ChatServer, backend: Backend
) -> None:
    history = (Turn("assistant", "cut off"), Turn("user", "One?"), Turn("assistant", " "))
    await outcome(backend, question("Two?", history=history))
    assert server.asked[0]["messages"] == [{"role": "user", "content": "One?\n\nTwo?"}]


async def test_what_the_phone_asks_for_goes_before_what_is_set(
    server: ChatServer, tmp_path: Path
) -> None:
    async with started(
        "openai",
        tmp_path,
        base_url=server.base_url,
        model="small",
        system_prompt="Be brief.",
        temperature=0.5,
        max_tokens=10,
    ) as backend:
        options: dict[str, Any] = {"temperature": 0, "top_p": 0.9, "max_tokens": True, "n": 5}
        await outcome(backend, question(model="large", options=options))
    asked = server.asked[0]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("large", 0, 10)
    assert asked["top_p"] == 0.9
    assert "n" not in asked


async def test_without_a_model_the_first_one_of_the_server_is_taken(
    server: ChatServer, tmp_path: Path
) -> None:
    server.models = ["first", "second"]
    async with started("openai", tmp_path, base_url=server.base_url) as backend:
        assert (await outcome(backend, question())).text == "Hello there"
        assert server.asked[0]["model"] == "first"
        server.models = []
        server.answer = refuses(404, {"error": {"message": "model 'first' not found"}})
        assert "does not know the model 'first'" in (await outcome(backend, question())).error
        assert "has no model" in (await outcome(backend, question())).error


async def test_pictures_are_parts_and_texts_are_text(server: ChatServer, backend: Backend) -> None:
    notes = Attachment("notes.md", "text/markdown", "Grün".encode())
    await outcome(backend, question("See?", attachments=(notes,)))
    await outcome(backend, question("See?", attachments=(notes, Attachment("a", "image/png", PNG))))
    text, parts = (asked["messages"][0]["content"] for asked in server.asked)
    assert text == "See?\n\nnotes.md:\n\nGrün"
    assert parts[0] == {"type": "text", "text": text}
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


async def test_a_model_that_sees_nothing_is_told_apart(
    server: ChatServer, backend: Backend
) -> None:
    server.answer = refuses(500, {"error": {"message": "image input is not supported"}})
    picture = Attachment("a.png", "image/png", PNG)
    assert (
        "choose a model that sees"
        in (await outcome(backend, question(attachments=(picture,)))).error
    )
    assert "choose a model that sees" not in (await outcome(backend, question())).error


async def test_a_file_that_no_model_reads_is_named(server: ChatServer, backend: Backend) -> None:
    archive = Attachment("all.zip", "application/zip", b"PK")
    assert "all.zip is neither" in (await outcome(backend, question(attachments=(archive,)))).error
    assert server.asked == []


async def test_key_and_headers_go_along(server: ChatServer, tmp_path: Path) -> None:
    async with started(
        "openai",
        tmp_path,
        base_url=server.base_url + "/",
        api_key="sk-quite-secret\n",
        headers={"X-Title": "Home"},
        model="small",
    ) as backend:
        await outcome(backend, question())
        assert "sk-quite" not in repr(backend.settings)
    headers = server.exchanges[0].headers
    assert headers["authorization"] == "Bearer sk-quite-secret"
    assert headers["x-title"] == "Home"


async def test_a_login_in_the_address_goes_along_and_stands_in_no_url(
    server: ChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.base_url.replace("http://", "http://me:secret%20word@")
    async with started("openai", tmp_path, base_url=address, model="small") as backend:
        assert (await outcome(backend, question())).text == "Hello there"
    assert server.exchanges[0].headers["authorization"] == "Basic bWU6c2VjcmV0IHdvcmQ="
    assert "secret" not in caplog.text


# What comes


async def test_each_delta_is_handed_on_with_the_count_of_tokens(
    server: ChatServer, backend: Backend
) -> None:
    server.answer = streams(
        delta("", role="assistant"),
        delta("One"),
        delta(" two"),
        finish("length"),
        event({"choices": [], "usage": {"total_tokens": 7, "prompt_tokens": None, "x": {}}}),
        DONE,
    )
    asked = question()
    found = await outcome(backend, asked)
    assert (found.deltas, found.error) == (["One", " two"], "")
    assert asked.usage == {"total_tokens": 7, "finish_reason": "length"}
    assert server.asked[0]["stream_options"] == {"include_usage": True}


async def test_thoughts_and_tools_are_shown_but_are_no_answer(
    server: ChatServer, backend: Backend
) -> None:
    call = [{"index": 0, "function": {"name": "search", "arguments": ""}}]
    more = [{"index": 0, "function": {"arguments": '{"q":'}}]
    server.answer = streams(
        delta(reasoning_content="Hm"),
        delta(reasoning_content=", well"),
        delta(tool_calls=call),
        delta(tool_calls=more),
        delta("Found."),
        finish(),
    )
    found = await outcome(backend, question())
    assert (found.text, found.error) == ("Found.", "")
    assert found.tools == [
        ("thinking", "running"),
        ("search", "running"),
        ("thinking", "done"),
        ("search", "done"),
    ]


async def test_a_tool_that_nobody_runs_is_an_error(server: ChatServer, backend: Backend) -> None:
    server.answer = streams(
        delta(tool_calls=[{"function": {"name": "search"}}]), finish("tool_calls"), DONE
    )
    found = await outcome(backend, question())
    assert found.tools == [("search", "running"), ("search", "done")]
    assert "wants a tool to be used (search)" in found.error


async def test_a_server_that_does_not_stream_is_understood(
    server: ChatServer, backend: Backend
) -> None:
    server.answer = refuses(
        200, {"choices": [{"message": {"content": "All."}}], "usage": {"total_tokens": 3}}
    )
    asked = question()
    found = await outcome(backend, asked)
    assert (found.text, found.error, asked.usage) == ("All.", "", {"total_tokens": 3})


async def test_a_character_in_two_halves_is_put_together(
    server: ChatServer, backend: Backend
) -> None:
    server.answer = streams(
        b'data: {"choices":[{"delta":{"content":"A\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        DONE,
    )
    assert (
        await outcome(backend, question())
    ).text == "A\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("end", [b"", DONE])
async def test_nothing_is_waited_for_once_the_answer_is_whole(
    server: ChatServer, backend: Backend, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr("coralmux.bridge.web.completion_server._LAST_WORD_SECONDS", 0.05)

    left = asyncio.Event()

    async def answer(exchange: Any) -> None:
        await exchange.begin()
        await exchange.send(delta("Done.") + finish() + end)
        await exchange.gone()
        left.set()

    server.answer = answer
    found = await outcome(backend, question())
    assert (found.text, found.error) == ("Done.", "")
    async with asyncio.timeout(SOON):
        await left.wait()


async def test_signs_of_life_after_the_end_do_not_keep_an_answer_open(
    server: ChatServer, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coralmux.bridge.web.completion_server._LAST_WORD_SECONDS", 0.1)
    left = asyncio.Event()

    async def answer(exchange: Any) -> None:
        await exchange.begin()
        await exchange.send(delta("Done.") + finish())
        gone = asyncio.ensure_future(exchange.gone())
        try:
            while not gone.done():
                await exchange.send(b": keep-alive\n\n")
                await asyncio.wait([gone], timeout=0.01)
        finally:
            left.set()

    server.answer = answer
    async with asyncio.timeout(SOON):
        found = await outcome(backend, question())
        assert (found.text, found.error) == ("Done.", "")
        await left.wait()


# Servers that know less


async def test_a_server_that_refuses_the_count_of_tokens_is_asked_without(
    server: ChatServer, backend: Backend
) -> None:
    refused = refuses(400, {"detail": "extra fields not permitted: stream_options"})
    server.answer = one_after_another(refused, says("Hello"))
    assert (await outcome(backend, question())).text == "Hello"
    assert (await outcome(backend, question())).text == "Hello"
    assert ["stream_options" in asked for asked in server.asked] == [True, False, False]


async def test_what_is_wrong_otherwise_costs_no_count_of_tokens(
    server: ChatServer, backend: Backend
) -> None:
    refused = refuses(400, {"error": {"message": "temperature is not for this model"}})
    server.answer = one_after_another(refused, refused, says("Hello"))
    assert "temperature is not for this model" in (await outcome(backend, question())).error
    await outcome(backend, question())
    assert "stream_options" in server.asked[2]


async def test_the_newer_name_of_max_tokens_is_learned(server: ChatServer, tmp_path: Path) -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.answer = one_after_another(refuses(400, {"error": {"message": said}}), says("Hello"))
    async with started(
        "openai", tmp_path, base_url=server.base_url, model="small", max_tokens=9
    ) as backend:
        assert (await outcome(backend, question())).text == "Hello"
    assert "max_tokens" not in server.asked[1]
    assert server.asked[1]["max_completion_tokens"] == 9


TOO_LONG = {"error": {"message": "request (9 tokens) exceeds the available context size"}}


@pytest.mark.parametrize("in_the_stream", [False, True])
async def test_a_conversation_that_is_too_long_loses_its_older_half(
    server: ChatServer, backend: Backend, in_the_stream: bool
) -> None:
    refused = streams(event(TOO_LONG)) if in_the_stream else refuses(400, TOO_LONG)
    server.answer = one_after_another(refused, refused, says("Hello"))
    roles = ("user", "assistant") * 4
    history = tuple(Turn(role, f"{number}") for number, role in enumerate(roles))
    assert (await outcome(backend, question("8", history=history))).text == "Hello"
    said = [[message["content"] for message in asked["messages"]] for asked in server.asked]
    assert said == [list("012345678"), list("45678"), list("678")]


async def test_a_question_that_is_too_long_by_itself_is_an_error(
    server: ChatServer, backend: Backend
) -> None:
    server.answer = refuses(400, TOO_LONG)
    history = (Turn("user", "a"), Turn("assistant", "b"))
    found = await outcome(backend, question(history=history))
    assert "even without what was said before" in found.error
    assert len(server.asked) == 3


async def test_an_answer_that_fills_the_context_is_told_apart_from_a_question_that_does(
    server: ChatServer, backend: Backend
) -> None:
    server.answer = streams(delta("Half"), event(TOO_LONG))
    for history in ((), (Turn("user", "a"), Turn("assistant", "b"))):
        found = await outcome(backend, question(history=history))
        assert found.text == "Half"
        assert found.error == "The answer has filled the model's context. Ask for less at once."
    assert len(server.asked) == 2


# Settings


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"base_url": "localhost:11434"}, "with http:// or https://"),
        ({"base_url": "http://[::1"}, "with http:// or https://"),
        ({"api_key": "sk-\u2026"}, "api_key holds characters that no key has"),
        ({"headers": {"X": "a\nb"}}, "headers have names"),
        ({"connect_timeout": 0}, "connect_timeout is between"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_settings_that_make_no_sense_are_explained(
    tmp_path: Path, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(BackendUnusable) as raised:
        make("openai", settings, Place(tmp_path))
    assert text in str(raised.value)
    assert "\u2026" not in str(raised.value)
