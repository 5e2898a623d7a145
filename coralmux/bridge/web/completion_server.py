"""One OpenAI-compatible server: its models, and its answers as they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import httpx

from coralmux.bridge.backend import Piece
from coralmux.bridge.web import failures
from coralmux.bridge.web.client import SHORT_SECONDS, ServerSettings, Web, read_body
from coralmux.bridge.web.completions import CompletionReader, NoCompletion, ServerError
from coralmux.bridge.web.event_stream import EventReader, EventTooLarge, ServerEvent
from coralmux.bridge.web.failures import ASK_AGAIN, CUT_OFF, MOST_READ, Failure
from coralmux.text import one_line

# Bytes of a list of models, or of an answer that is not streamed.
_LARGEST_BODY = 16_000_000

# Seconds for what follows the end of an answer: a count of its tokens.
_LAST_WORD_SECONDS = 5

# How servers say that a conversation is too long for the model, ...
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum context|prompt is too long|input is too long"
    r"|too many (input |prompt )?tokens|token count.{0,40}exceeds",
    re.IGNORECASE,
)
# ... that they do not have the model, ...
_UNKNOWN_MODEL = re.compile(
    r"model.{0,120}(not[ _]found|not exist|not loaded|not a valid|unknown|try pulling)"
    r"|(unknown|invalid|no such|not a valid)[ _]model",
    re.IGNORECASE,
)
# ... that it has to be allowed more of an answer, or less, ...
_LIMIT = re.compile(r"max_\w*tokens|(output|tokens?) limit", re.IGNORECASE)
# ... and that it does not see.
_NO_EYES = re.compile(r"image|vision|multi-?modal", re.IGNORECASE)


class TooLong(Exception):
    """The conversation is longer than the model takes."""


class UnknownModel(Failure):
    """The server does not have the model."""


class LimitRefused(Failure):
    """The server does not take the `max_tokens` of the question."""


class CompletionServer:
    """All methods raise BackendError in words for the phone's user."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._web = Web(settings)
        # What this server was found not to know, or to call otherwise.
        self._counts = True
        self._length_key = "max_tokens"

    async def close(self) -> None:
        await self._web.close()

    async def models(self) -> list[str] | None:
        """The names of those that the server has; None if it does not tell."""
        try:
            async with (
                asyncio.timeout(self._settings.connect_timeout + SHORT_SECONDS),
                self._web.client.stream("GET", f"{self._settings.root}/models") as response,
            ):
                body = await read_body(response, _LARGEST_BODY)
        except TimeoutError:
            raise failures.of_error(httpx.ReadTimeout(""), self._settings) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise failures.of_error(error, self._settings) from None
        if response.status_code in (404, 405, 501):
            return None
        if not response.is_success:
            raise self._refused(response, body, {})
        try:
            found = json.loads(body)
            listed = found["data"] if isinstance(found, dict) else found
            return [model["id"] for model in listed or () if isinstance(model["id"], str)]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._no_answer() from None

    async def answer(
        self, body: dict[str, Any], reader: CompletionReader
    ) -> AsyncGenerator[Piece, None]:
        """What the server streams. `body` is the request without what makes it a stream;
        `reader` knows more of the answer afterwards. Raises TooLong as well."""
        async with self._asked(body) as response:
            try:
                async with contextlib.aclosing(self._read(response, reader)) as pieces:
                    async for piece in pieces:
                        yield piece
            except ServerError as error:
                if _TOO_LONG.search(_text(error.body)):
                    raise TooLong from None
                said = failures.words(error.body, self._settings)
                raise Failure(
                    "The AI server broke off with an error." + failures.quoted(said),
                    ASK_AGAIN,
                ) from None
            except NoCompletion:
                raise self._no_answer() from None
            except EventTooLarge:
                raise Failure(
                    "The AI server sent more at once than an answer ever has.",
                    "Look into its log.",
                ) from None
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                pass  # whether that matters depends on how far the answer had come
            except httpx.HTTPError as error:
                raise failures.of_error(error, self._settings) from None
        for piece in reader.end():
            yield piece
        if not reader.whole:
            raise Failure(CUT_OFF, ASK_AGAIN)

    @contextlib.asynccontextmanager
    async def _asked(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response to a question that the server has taken. What some servers refuse is
        renamed or left out, and the question put once more."""
        counts, length_key = self._counts, self._length_key
        while True:
            response = await self._post(body, counts, length_key)
            try:
                if response.is_success:
                    self._counts, self._length_key = counts, length_key
                    yield response
                    return
                said = await read_body(response, MOST_READ)
            except httpx.HTTPError as error:
                raise failures.of_error(error, self._settings) from None
            finally:
                await response.aclose()
            picky = response.status_code in (400, 422) and not _TOO_LONG.search(_text(said))
            if picky and b"max_completion_tokens" in said and length_key == "max_tokens":
                length_key = "max_completion_tokens"
            elif picky and counts:
                counts = False
            else:
                raise self._refused(response, said, body)

    async def _post(self, body: dict[str, Any], counts: bool, length_key: str) -> httpx.Response:
        body = body | {"stream": True}
        if counts:
            body["stream_options"] = {"include_usage": True}
        if "max_tokens" in body:
            body[length_key] = body.pop("max_tokens")
        try:
            client = self._web.client
            request = client.build_request(
                "POST",
                f"{self._settings.root}/chat/completions",
                content=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
            )
            return await client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise failures.of_error(error, self._settings) from None

    def _refused(self, response: httpx.Response, said: bytes, body: Mapping[str, Any]) -> Exception:
        status, text = response.status_code, _text(said)
        if status in (400, 413, 422, 500) and _TOO_LONG.search(text):
            return TooLong()
        words = failures.quoted(failures.words(said, self._settings))
        if body and status in (400, 404, 422) and _UNKNOWN_MODEL.search(text):
            return UnknownModel(
                f"The AI server does not know the model {one_line(body['model'])[:100]!r}." + words,
                "Choose another one, or have it loaded there.",
            )
        if _shows_pictures(body) and status in (400, 422, 500, 501) and _NO_EYES.search(text):
            return Failure(
                "The AI server did not take the picture; not every model can see." + words,
                "Ask in words, or choose a model that sees.",
            )
        failure = failures.of_status(response, said, self._settings)
        if "max_tokens" in body and status in (400, 422) and _LIMIT.search(text):
            return LimitRefused(failure.what, failure.remedy)
        if status in (404, 405) and not self._settings.root.endswith("/v1"):
            return Failure(failure.what, "Check base_url; mostly it ends in /v1.")
        return failure

    async def _read(
        self, response: httpx.Response, reader: CompletionReader
    ) -> AsyncGenerator[Piece, None]:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/json":  # a server that does not stream
            for piece in reader.read(_text(await read_body(response, _LARGEST_BODY))):
                yield piece
            reader.ended = reader.understood
        elif kind != "text/html":
            async with contextlib.aclosing(_events(response, reader)) as events:
                async for event in events:
                    for piece in reader.read(event.data, name=event.name):
                        yield piece
        if kind != "text/event-stream" and not reader.understood:
            raise NoCompletion

    def _no_answer(self) -> Failure:
        return Failure(
            f"What answers at {self._settings.address} is no OpenAI-compatible server, "
            "or sends what nobody can read.",
            "Check base_url; mostly it ends in /v1.",
        )


async def _events(
    response: httpx.Response, reader: CompletionReader
) -> AsyncGenerator[ServerEvent, None]:
    """Until the server says that it is done, or closes. Where the answer is whole already,
    a server that does neither, silent or not, is not waited for."""
    parser = EventReader()
    chunks = response.aiter_bytes()
    deadline: float | None = None
    while not reader.ended:
        if reader.whole and deadline is None:
            deadline = asyncio.get_running_loop().time() + _LAST_WORD_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(chunks, None)
        except TimeoutError:
            return
        if chunk is None:
            break
        for event in parser.feed(chunk):
            yield event
    for event in parser.end():
        yield event


def _shows_pictures(body: Mapping[str, Any]) -> bool:
    return any(isinstance(message["content"], list) for message in body.get("messages", ()))


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
