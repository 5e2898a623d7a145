"""Any OpenAI-compatible server: Ollama, llama.cpp, vLLM, LM Studio, OpenAI itself and others."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import msgspec

from coralmux import AgentProfile, Turn
from coralmux.bridge.backend import AgentSpec, Backend, Finding, Piece, Place, Question
from coralmux.bridge.profiles import DEFAULT, Profile, Profiles
from coralmux.bridge.web import completions
from coralmux.bridge.web.client import ServerSettings, numbers
from coralmux.bridge.web.completion_server import (
    CompletionServer,
    LimitRefused,
    TooLong,
    UnknownModel,
)
from coralmux.bridge.web.completions import CompletionReader
from coralmux.bridge.web.failures import Failure
from coralmux.text import one_line

# Seconds that a model may take for its first token while it is tried: it may be loaded then.
_TRY_SECONDS = 90

# What it may say then. Some refuse to say less.
_TRY_TOKENS = 16


class OpenaiSettings(ServerSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Without a model, the first one that the server names is taken."""

    base_url: str = "https://api.openai.com/v1"
    model: str = ""
    system_prompt: str = ""
    temperature: float | None = None
    max_tokens: int | None = None

    __repr__ = ServerSettings.__repr__


class OpenaiBackend(Backend):
    """The server knows of one question at a time: the conversation is sent with each."""

    Settings = OpenaiSettings

    def __init__(self, settings: OpenaiSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._server = CompletionServer(settings)
        self._profiles = Profiles(place.directory, place.say)
        self._first_model = ""

    async def stop(self) -> None:
        await self._server.close()

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        profile = await self._profile(question.agent_id)
        asked = completions.question(question.text, question.attachments)
        body = self._values(profile, question)
        body["model"] = question.model or profile.model or await self._any_model()
        history = question.history
        reader = CompletionReader()
        while True:
            body["messages"] = completions.messages(profile.system_prompt, history, asked)
            try:
                async with contextlib.aclosing(self._server.answer(body, reader)) as pieces:
                    async for piece in pieces:
                        yield piece
                break
            except TooLong:
                if reader.spoke:
                    raise Failure(
                        "The answer has filled the model's context.", "Ask for less at once."
                    ) from None
                if not history:
                    raise _too_long(bool(question.history)) from None
                history = _newer_half(history)
            except Failure:
                # Another one may be loaded by now.
                self._first_model = ""
                raise
        question.usage.update(_shown_usage(reader))
        _check_end(reader)

    def _values(self, profile: Profile, question: Question) -> dict[str, Any]:
        """How the answer is to be made. What the phone asks for goes before what is set."""
        values = {"temperature": profile.temperature, "max_tokens": self.settings.max_tokens}
        asked = numbers(question.options, "temperature", "max_tokens", "top_p")
        return {key: value for key, value in values.items() if value is not None} | asked

    async def _profile(self, agent_id: str) -> Profile:
        """How an agent answers, the config's values where it has none of its own."""
        settings = self.settings
        default = Profile(
            id=DEFAULT,
            name=self.place.agent_name,
            model=settings.model,
            system_prompt=settings.system_prompt,
            temperature=settings.temperature,
        )
        if agent_id in ("", DEFAULT):
            return default
        made = await self._profiles.get(agent_id)
        own_temperature = made.temperature is not None
        return msgspec.structs.replace(
            made,
            model=made.model or default.model,
            system_prompt=made.system_prompt or default.system_prompt,
            temperature=made.temperature if own_temperature else default.temperature,
        )

    async def _any_model(self) -> str:
        if not self._first_model:
            models = await self._server.models()
            if not models:
                raise Failure(
                    "The AI server has no model, or does not tell which.",
                    "Load one there, or set model.",
                )
            self._first_model = models[0]
        return self._first_model

    async def check(self) -> AsyncIterator[Finding]:
        settings = self.settings
        try:
            models = await self._server.models()
            yield Finding(True, f"The AI server at {settings.address} answers.")
            model = settings.model or await self._any_model()
            started = time.monotonic()
            async with asyncio.timeout(settings.connect_timeout + _TRY_SECONDS):
                await self._try(model)
            seconds = time.monotonic() - started
            yield Finding(True, f"The model {one_line(model)} answers (in {seconds:.1f} s).")
        except UnknownModel as failure:
            # Only now: servers answer to names that they do not list.
            yield _unknown_model(failure, model, models or [])
        except Failure as failure:
            yield Finding(False, failure.what, failure.remedy)
        except TimeoutError:
            yield Finding(
                False,
                "The model did not begin to answer within a minute and a half.",
                "It may still be loading, or be too large for its machine.",
            )

    async def _try(self, model: str) -> None:
        """Let it begin to answer."""
        body = {"model": model, "messages": completions.messages("", (), _HI)}
        try:
            try:
                await self._begin(body | {"max_tokens": _TRY_TOKENS})
            except LimitRefused:
                await self._begin(body)
        except TooLong:
            raise _too_long(False) from None

    async def _begin(self, body: dict[str, Any]) -> None:
        async with contextlib.aclosing(self._server.answer(body, CompletionReader())) as pieces:
            await anext(pieces, None)

    async def agents(self) -> list[AgentProfile]:
        default = await self._profile(DEFAULT)
        return [default.shown(), *(made.shown() for made in await self._profiles.all())]

    async def create_agent(self, spec: AgentSpec) -> AgentProfile:
        return (await self._profiles.create(spec)).shown()

    async def update_agent(self, spec: AgentSpec) -> AgentProfile:
        return (await self._profiles.update(spec)).shown()

    async def delete_agent(self, id: str) -> AgentProfile:
        return (await self._profiles.delete(id)).shown()


_HI = completions.question("Hi", ())


def _newer_half(history: Sequence[Turn]) -> tuple[Turn, ...]:
    """What is left when the older half is dropped; nothing of a single turn."""
    return tuple(history[(len(history) + 1) // 2 :])


def _too_long(after_a_conversation: bool) -> Failure:
    return Failure(
        "The question is longer than this model takes"
        + (", even without what was said before." if after_a_conversation else "."),
        "Ask for less at once.",
    )


def _check_end(reader: CompletionReader) -> None:
    """Raise Failure for an answer that ended, but not well."""
    if reader.finish_reason == "content_filter":
        raise Failure(
            "The AI server stopped the answer: its filter found something in it.",
            "Ask in other words.",
        )
    if reader.finish_reason == "error":
        raise Failure("The AI server broke off with an error.", "Ask again.")
    if reader.tools and not reader.spoke:
        tools = ", ".join(dict.fromkeys(reader.tools[:5]))
        raise Failure(
            f"The model wants a tool to be used ({tools}), which this backend cannot do.",
            "Ask in other words.",
            # Names that a model gives are its words.
            kind="The model wants a tool to be used, which this backend cannot do.",
        )


def _shown_usage(reader: CompletionReader) -> dict[str, Any]:
    """The count of tokens, and why the answer ended if it was cut short."""
    shown: dict[str, Any] = dict(
        numbers(reader.usage, "prompt_tokens", "completion_tokens", "total_tokens")
    )
    if reader.finish_reason == "length":
        shown["finish_reason"] = "length"
    return shown


def _unknown_model(failure: UnknownModel, model: str, models: list[str]) -> Finding:
    if not models or model in models:
        return Finding(False, failure.what, failure.remedy)
    close = difflib.get_close_matches(model, models, n=3, cutoff=0.4) or models[:5]
    return Finding(
        False,
        f"The AI server does not know the model {one_line(model)!r}.",
        f"Set model to one that it has, such as {one_line(', '.join(close))}.",
    )
