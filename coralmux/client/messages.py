"""What the payloads say, as types: what handlers get and what a phone's methods return.

Source: PROTOCOL.md, "Types". Unknown keys are ignored; what is optional there has a
default here. Contents stay out of reprs.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from coralmux.client.errors import InvalidAnswer


class _Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Turn(_Payload, frozen=True):
    """One turn of a conversation that the phone sends along; `role` is "user", "assistant", …"""

    role: str
    content: str


class ChatSend(_Payload, frozen=True):
    """The payload of `chat.send`."""

    text: str = ""
    agent_id: str = ""
    attachments: tuple[dict[str, Any], ...] = ()
    model: str = ""
    options: dict[str, Any] = {}
    conversation: tuple[Turn, ...] = ()


class ChatStream(_Payload, frozen=True):
    """`chat.stream`: one delta; `seq` counts from 1."""

    delta: str
    seq: int = 0
    ref: str = ""


class ChatDone(_Payload, frozen=True):
    """`chat.done`: the whole text, and whatever came with it.

    Without `full_text` it is none: in version 1 a relay can call a delta the end.
    """

    full_text: str
    usage: dict[str, Any] = {}
    attachments: tuple[dict[str, Any], ...] = ()
    cancelled: bool = False
    ref: str = ""


_STATUSES = ("running", "done", "error")


class ToolStatus(_Payload, frozen=True, omit_defaults=False):
    """`chat.tool_status`: what the agent is doing. A chat handler yields it between texts."""

    tool: str
    status: Literal["running", "done", "error"] = "running"

    def __post_init__(self) -> None:
        if self.status not in _STATUSES:
            raise ValueError('the status of a tool is "running", "done" or "error"')

    def __repr__(self) -> str:
        return f"<ToolStatus {self.status}>"


class HistoryEntry(_Payload, frozen=True):
    """One message of the past; `timestamp` is what the agent gives, mostly Unix milliseconds."""

    role: str
    content: str
    timestamp: int | float | str | None = None


class AgentProfile(_Payload, frozen=True):
    """One of the agents behind a pairing."""

    id: str
    name: str = ""
    description: str | None = None
    avatar_url: str | None = None
    model: str | None = None


class AgentChange(_Payload, frozen=True):
    """`agent.result`: what became of creating, changing or deleting an agent."""

    ok: bool
    action: str = ""
    agent: AgentProfile | None = None
    error: str | None = None


class MemoryHit(_Payload, frozen=True):
    """One finding of a search in the agent's memory."""

    path: str = ""
    snippet: str = ""
    score: float | None = None


class SystemStatus(_Payload, frozen=True):
    """How the agent's machine is doing: percent, GB (10^9 bytes) and seconds."""

    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_gb: float | None = None
    memory_total_gb: float | None = None
    gpu_percent: float | None = None
    uptime_seconds: float | None = None


class GroupMessages(_Payload, frozen=True):
    """`group.messages.result`; rooms and messages are the agent's own objects."""

    room_id: str = ""
    messages: tuple[dict[str, Any], ...] = ()


class GroupMessage(_Payload, frozen=True):
    """`group.message`: something was said in a room."""

    room_id: str = ""
    message: dict[str, Any] = {}


T = TypeVar("T")


def read_question(payload: dict[str, Any]) -> ChatSend:
    """A question. Raises InvalidAnswer where it asks nothing at all: in version 1 a relay
    can hand an agent its own words as one."""
    if "text" not in payload and "attachments" not in payload:
        raise InvalidAnswer("The question has neither text nor attachments. Send it again.")
    return read(payload, ChatSend)


def read_tool(payload: dict[str, Any]) -> ToolStatus:
    """What an agent is doing. A status that is not known yet is shown as "running": an
    answer is no worse for it. Raises InvalidAnswer."""
    if payload.get("status") not in _STATUSES:
        payload = payload | {"status": "running"}
    return read(payload, ToolStatus)


def read(payload: Any, type: type[T]) -> T:
    """A payload as one of these types. Raises InvalidAnswer, which repeats nothing of it."""
    try:
        return msgspec.convert(payload, type)
    except msgspec.ValidationError:
        raise InvalidAnswer(
            "The other end sent something that breaks the protocol. "
            "Bring both ends to the same version."
        ) from None
