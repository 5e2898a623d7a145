"""A real Agent and a real Phone at one relay, with everything that they hear and report."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

import coralmux
from coralmux.client.backoff import Timers
from coralmux.client.channel import AnyEvent, Channel
from coralmux.client.reply import Piece
from coralmux.e2e.events import Ended, Hint, Ignored
from coralmux.protocol import Role
from coralmux.protocol.errors import PeerCode
from tests.support.field_peer import FieldPeer
from tests.support.hostile_relay import HostileRelay
from tests.support.interference import sealed
from tests.support.waiting import eventually

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
SECRET = bytes(range(32))
# What the agent says to be doing.
TOOL = "search the web"

# Both ends come back at once, so that tests are quick.
TIMERS = Timers(first_pause=0.05, longest_pause=0.1, restart_pause=0.05, later_pause=0.1)

# Seconds of silence after which a question is given up.
PATIENCE = 1.0

DELTAS = 6

E = TypeVar("E")


def said(text: str) -> list[str]:
    """The deltas with which the agent answers a question."""
    return [f"<{text}|{n}>" for n in range(DELTAS)]


def whole(text: str) -> str:
    return "".join(said(text))


@dataclass
class Outcome:
    """What became of a question: what was handed out, and how it ended."""

    id: str
    question: str
    deltas: list[str]
    text: str
    error: coralmux.ClientError | None
    attachments: list[Any] = field(default_factory=list)

    @property
    def handed_out(self) -> str:
        return "".join(self.deltas)


class Pair:
    """`heard` is what the agent's handler was asked, `dropped` what it was cancelled at.

    `files` are the attachments that the agent got; `sends` those that it answers with.
    `hold` lets the agent say so many deltas and then wait for `go`.
    """

    def __init__(
        self,
        relay: str,
        *,
        token: str = TOKEN,
        secret: bytes | None = SECRET,
        store: bool = True,
        on_chat: Callable[[coralmux.ChatMessage], AsyncIterator[Piece]] | None = None,
        phone_options: dict[str, Any] | None = None,
    ) -> None:
        self.heard: list[str] = []
        self.finished: list[str] = []
        self.dropped: list[str] = []
        self.files: list[coralmux.Attachment] = []
        self.sends: Sequence[coralmux.Attachment] = ()
        self.hold: int | None = None
        self.go = asyncio.Event()
        self.tools: list[str] = []
        self.asked: list[Outcome] = []
        self.events: dict[Role, list[AnyEvent]] = {role: [] for role in Role}
        self.link = coralmux.PairingLink(relay, token, secret)
        self.agent = coralmux.Agent.from_link(
            self.link,
            name="Test agent",
            store=coralmux.MemoryStore() if store else None,
            timers=TIMERS,
        )
        self.agent.on_chat(on_chat or self._reply)
        self.agent.on_event(lambda link, event: self.events[Role.AGENT].append(event))
        self.phone = coralmux.Phone.from_link(
            self.link,
            name="Test phone",
            store=coralmux.MemoryStore() if store else None,
            on_event=self.events[Role.PHONE].append,
            timers=TIMERS,
            **(phone_options or {}),
        )

    async def _reply(self, message: coralmux.ChatMessage) -> AsyncIterator[Piece]:
        self.heard.append(message.text)
        self.files += [item for item in message.attachments if hasattr(item, "data")]
        try:
            yield coralmux.ToolStatus(TOOL)
            for n, delta in enumerate(said(message.text)):
                if n == self.hold:
                    await self.go.wait()
                yield delta
            for attachment in self.sends:
                yield attachment
            self.finished.append(message.text)
        except (asyncio.CancelledError, GeneratorExit):
            self.dropped.append(message.text)
            raise

    async def ask(self, text: str, *, timeout: float = PATIENCE, **more: Any) -> Outcome:
        """Ask, and keep whatever comes of it; only ClientErrors are expected."""
        answer = self.phone.ask(
            text, timeout=timeout, on_tool=lambda tool: self.tools.append(tool.tool), **more
        )
        outcome = Outcome(answer.id, text, [], "", None)
        self.asked.append(outcome)
        try:
            async with asyncio.timeout(30):
                async for delta in answer:
                    outcome.deltas.append(delta)
        except coralmux.ClientError as error:
            outcome.error = error
        outcome.text = answer.text
        outcome.attachments = answer.attachments
        return outcome

    async def works(self, text: str = "and now?") -> None:
        """A question is answered whole."""
        outcome = await self.ask(text, timeout=6)
        assert outcome.error is None
        assert outcome.handed_out == whole(text)

    def of(self, role: Role, kind: type[E] | tuple[type[E], ...]) -> list[E]:
        """What one end reported of one kind, or of several."""
        return [event for event in self.events[role] if isinstance(event, kind)]

    def failures(self, role: Role) -> list[str]:
        return [event.failure.name for event in self.of(role, Ended)]

    def ignored(self, role: Role) -> list[str]:
        return [event.why for event in self.of(role, Ignored)]

    def hints(self, role: Role) -> list[str]:
        return [event.code for event in self.of(role, Hint)]

    async def reported(self, role: Role, event: object) -> None:
        """Wait until an end reports this."""
        await eventually(lambda: event in self.events[role])

    async def reported_why(self, role: Role, why: str) -> None:
        """Wait until an end reports that it ignored something for this reason."""
        await eventually(lambda: why in self.ignored(role))

    def check_truth(self) -> None:
        """Nothing was made up: neither of what the agent said nor of what it was asked."""
        for outcome in self.asked:
            assert whole(outcome.question).startswith(outcome.handed_out)
            assert outcome.text == outcome.handed_out
        questions = {outcome.question for outcome in self.asked}
        assert set(self.heard) <= questions
        assert len(self.heard) == len(set(self.heard))


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes that fail are tried again after fractions of a second."""
    for side in ("initiator", "responder"):
        monkeypatch.setattr(f"coralmux.e2e.{side}.RESTART_SECONDS", 0.1)
        monkeypatch.setattr(f"coralmux.e2e.{side}.ANSWER_SECONDS", 0.3)
        monkeypatch.setattr(f"coralmux.e2e.{side}.PATIENCE_SECONDS", 0.5)


@contextlib.asynccontextmanager
async def pair(relay: str, **options: Any) -> AsyncIterator[Pair]:
    """Both ends, on their way to the relay; neither is waited for."""
    both = Pair(relay, **options)
    serving = asyncio.create_task(both.agent.serve())
    try:
        async with both.phone:
            yield both
    finally:
        await both.agent.close()
        await serving


def check_wire(relay: HostileRelay, pair: Pair) -> None:
    """What our two ends wrote holds nothing that version 2 must not say in the clear."""
    plain = [text for outcome in pair.asked for text in (outcome.question, *said(outcome.question))]
    plain += [SECRET.hex(), TOOL, "full_text"]
    # A word that base64 can spell stands in a megabyte of ciphertext by chance.
    assert not any(re.fullmatch("[A-Za-z0-9+/]{1,9}", secret) for secret in plain)
    for frame in relay.frames:
        text = frame.data.decode()
        assert not any(secret in text for secret in plain)
        payload = frame.payload
        assert "pubkey" not in payload, "an end fell back to version 1"
        if frame.type == "key_exchange" and not sealed(frame):
            assert payload["v"] == 2
            assert payload["step"] in (0, 1, 2)
        elif frame.type == "chat.error" and not sealed(frame):
            # Said to a stranger, who has no keys that it could be sealed with.
            assert payload["code"] in (PeerCode.E2E_REFUSED, PeerCode.E2E_REQUIRED)
        else:
            assert payload["enc"] is True
            assert payload["v"] == 2


def fails(outcome: Outcome, kind: type[coralmux.ClientError]) -> None:
    assert type(outcome.error) is kind
    assert outcome.error.ids == (outcome.id,)


@contextlib.asynccontextmanager
async def talking() -> AsyncIterator[tuple[HostileRelay, Pair]]:
    """A pair that has talked, and does so again when the relay is honest again."""
    async with HostileRelay(token=TOKEN) as relay, pair(relay.url) as both:
        await both.works("hello there")
        for events in both.events.values():
            events.clear()
        yield relay, both
        relay.tamper = both.hold = None
        both.go.set()
        await both.works()
        both.check_truth()
        check_wire(relay, both)


def check(peer: FieldPeer) -> None:
    """A client of the field never got what it cannot take, or cannot open."""
    assert peer.surprises == []
    assert peer.unreadable == []


def cut(channel: Channel) -> None:
    """End a connection of ours without a word, as networks do."""
    live = channel._connection._live
    assert live is not None
    live._socket.abort()
