"""What a backend is: the one interface between the phones and any AI."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from coralmux import (
    AgentProfile,
    Attachment,
    HistoryEntry,
    MemoryHit,
    ToolStatus,
    Turn,
    Unsupported,
)

# What `reply` may yield: a piece of the answer, what the backend is doing, a file.
Piece = str | ToolStatus | Attachment


class NoSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Of a backend that has nothing to set."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a phone asks, with all that a backend needs to answer it.

    `phone` is a name for the pairing that stays the same and tells nothing: 32 hex digits.
    `history` is what was said before, oldest first, the question itself not included; empty
    for a backend that keeps its own. `agent_id` is "" where the phone names none. `usage`
    may be filled by the backend, and goes out with the answer's end.
    """

    id: str
    phone: str
    text: str = field(repr=False)
    attachments: tuple[Attachment, ...] = ()
    history: tuple[Turn, ...] = field(default=(), repr=False)
    agent_id: str = ""
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What a phone wants an agent to be; None leaves a value as it is.

    `id` is "" for an agent that is to be made.
    """

    id: str = ""
    name: str | None = None
    description: str | None = None
    model: str | None = None
    system_prompt: str | None = field(default=None, repr=False)
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `coralmux-agent check` looked at: what is so, and what to do about it."""

    good: bool
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What the bridge gives a backend.

    `directory`: for files of the backend's own; made by whoever writes there first.
    `agent_name`: what the phones see. `say`: tells the operator something in one line.
    """

    directory: Path
    agent_name: str = "Agent"
    say: Callable[[str], None] = lambda text: None


class Backend:
    """Answers questions. Subclasses have `reply`, and whatever else they can do.

    `Settings` describes the backend's table in the config. `needs` are the modules that it
    imports beyond those of the bridge, `install` is what to give to `pip install` for them;
    the file of a backend imports them only inside of functions, so that a backend whose
    framework is missing can still be named and explained.

    What a method of a backend raises as BackendError reaches the phone's user as it is, so
    it is a sentence that says what happened and what to do. Other exceptions reach the
    user without their text. What is logged is an error's `kind` where it has such an
    attribute, and its class where it has not: never its text, which may quote anything.
    """

    Settings: ClassVar[type[msgspec.Struct]] = NoSettings
    needs: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[tuple[str, ...]] = ()
    # Whether `history` of a question is wanted: not by backends that keep their own. May be
    # set by `start`, where it depends on what is found.
    wants_history: bool = True
    # Whether an answer may have no words and no file, and is no failure for that.
    may_be_silent: ClassVar[bool] = False
    # What of a conversation the backend keeps where `forget` and `unpair` do not reach it;
    # they say so: "What the backend keeps itself (…) stays there."
    keeps: ClassVar[str] = ""

    def __init__(self, settings: Any, place: Place) -> None:
        self.settings = settings
        self.place = place

    async def start(self) -> None:
        """Called once before the first question. A backend that is down is no error here:
        it may come up later, and until then each question gets a BackendError."""

    async def stop(self) -> None:
        """Called once after the last question."""

    def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        """The answer, as it comes. Chats run side by side. Cancelled when the user cancels."""
        raise NotImplementedError  # pragma: no cover

    async def abort(self, question: Question) -> None:
        """The answer is not wanted any more, because the user has cancelled it or it was
        silent for too long; `reply` has ended. For backends that have to be told."""

    async def check(self) -> AsyncIterator[Finding]:
        """Try the backend without changing anything; what works and what does not."""
        yield Finding(True, "There is nothing to check.")

    # What follows is answered "not supported by this backend" where it is not overridden.

    async def history(self, phone: str, agent_id: str, limit: int) -> list[HistoryEntry]:
        """The last messages with an agent, oldest first. Where it is not overridden, the
        bridge answers with what it has kept itself."""
        raise self.unsupported("history")

    async def agents(self) -> list[AgentProfile]:
        """The agents to choose from."""
        return [AgentProfile(id="default", name=self.place.agent_name)]

    async def create_agent(self, spec: AgentSpec) -> AgentProfile:
        raise self.unsupported("making agents")

    async def update_agent(self, spec: AgentSpec) -> AgentProfile:
        raise self.unsupported("changing agents")

    async def delete_agent(self, id: str) -> AgentProfile:
        raise self.unsupported("deleting agents")

    async def memory(self, agent_id: str, query: str, limit: int) -> list[MemoryHit]:
        """Search what an agent remembers."""
        raise self.unsupported("searching memory")

    async def groups(self) -> list[dict[str, Any]]:
        """The rooms that the backend's agents are in."""
        raise self.unsupported("groups")

    async def group_messages(self, room_id: str, limit: int) -> list[dict[str, Any]]:
        raise self.unsupported("groups")

    async def group_send(self, room_id: str, text: str) -> dict[str, Any]:
        """Say something in a room; the message as it stands there."""
        raise self.unsupported("groups")

    @classmethod
    def name(cls) -> str:
        return cls.__name__.removesuffix("Backend").lower()

    @classmethod
    def install_line(cls) -> str:
        """What to type for `needs`."""
        return f"pip install {shlex.join(cls.install)}"

    def overrides(self, method: str) -> bool:
        """Whether this backend has its own `method`."""
        return getattr(type(self), method) is not getattr(Backend, method)

    def unsupported(self, what: str) -> Unsupported:
        return Unsupported(
            f"{what[0].upper()}{what[1:]}: not supported by this backend ({self.name()})."
        )
