"""What a phone asks of an agent, as its handlers get it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from coralmux.client.attachments import Attachment, RemoteAttachment
from coralmux.client.messages import Turn
from coralmux.client.reply import Piece
from coralmux.e2e.events import PeerInfo
from coralmux.e2e.link import PairingLink

# Requests and the type of their answer.
RESULTS = {
    "chat.history": "chat.history.result",
    "agent.list": "agent.list.result",
    "agent.create": "agent.result",
    "agent.update": "agent.result",
    "agent.delete": "agent.result",
    "memory.search": "memory.search.result",
    "group.list": "group.list.result",
    "group.messages": "group.messages.result",
    "group.send": "group.message",
    "system.status": "system.status.result",
}


class BackendError(Exception):
    """Raised by a handler to tell the phone's user something: the text is shown as it is.

    Any other exception is reported without its text, which may hold what is nobody's
    business.
    """


class Unsupported(BackendError):
    """Raised by a handler for what this agent does not offer; the text is shown as it is."""


@dataclass(slots=True)
class ChatMessage:
    """A question. `usage` may be filled by the handler, and goes out with the answer's end."""

    id: str
    text: str = field(repr=False)
    attachments: list[Attachment | RemoteAttachment]
    agent_id: str
    conversation: tuple[Turn, ...] = field(repr=False)
    model: str
    options: dict[str, Any] = field(repr=False)
    phone: PeerInfo
    pairing: PairingLink
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """Anything else that a phone asks; `payload` is as it came."""

    type: str
    id: str
    payload: dict[str, Any] = field(repr=False)
    phone: PeerInfo
    pairing: PairingLink


ChatHandler = Callable[[ChatMessage], AsyncGenerator[Piece, None] | Awaitable[str | None]]
RequestHandler = Callable[[Request], Awaitable[dict[str, Any]]]
