"""The table of message types: who sends each, and which allowance it counts against.

Endpoints may grow without the relay: a type that is not in the table but in a
known namespace is forwarded in both directions as an ordinary message.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple


class Role(StrEnum):
    """The two ends that meet under a token."""

    PHONE = "phone"
    AGENT = "agent"

    @property
    def peer(self) -> Role:
        return Role.AGENT if self is Role.PHONE else Role.PHONE


class RateClass(StrEnum):
    """Which allowance a frame counts against."""

    MESSAGE = "message"  # forwarded; refused at once beyond 30 or 120 a minute
    STREAM = "stream"  # forwarded; slowed beyond 1,000 a second
    KEY_EXCHANGE = "key_exchange"  # forwarded; 30 a minute of its own
    PING = "ping"  # answered by the relay; slowed beyond 60 a minute
    INVALID = "invalid"  # answered with an error; slowed beyond 30 a minute


class Sender(Enum):
    """Who may send a type."""

    PHONE = "phone"
    AGENT = "agent"
    BOTH = "both"
    CLIENT = "client"  # to the relay itself, never forwarded
    RELAY = "relay"  # from the relay itself, never forwarded


class MessageType(NamedTuple):
    sender: Sender
    rate_class: RateClass


_PHONE = MessageType(Sender.PHONE, RateClass.MESSAGE)
_AGENT = MessageType(Sender.AGENT, RateClass.MESSAGE)
_STREAM = MessageType(Sender.AGENT, RateClass.STREAM)
_RELAY = MessageType(Sender.RELAY, RateClass.INVALID)

TYPES: dict[str, MessageType] = {
    "auth": MessageType(Sender.CLIENT, RateClass.INVALID),
    "auth.ok": _RELAY,
    "auth.fail": _RELAY,
    "status": _RELAY,
    "ping": MessageType(Sender.CLIENT, RateClass.PING),
    "pong": _RELAY,
    "key_exchange": MessageType(Sender.BOTH, RateClass.KEY_EXCHANGE),
    "chat.send": _PHONE,
    "chat.cancel": _PHONE,
    "chat.history": _PHONE,
    "agent.list": _PHONE,
    "agent.create": _PHONE,
    "agent.update": _PHONE,
    "agent.delete": _PHONE,
    "memory.search": _PHONE,
    "group.list": _PHONE,
    "group.messages": _PHONE,
    "group.send": _PHONE,
    "system.status": _PHONE,
    "chat.stream": _STREAM,
    "chat.done": _STREAM,
    "chat.tool_status": _STREAM,
    # From the agent it ends a stream, so it counts with it; a phone's is a message.
    "chat.error": MessageType(Sender.BOTH, RateClass.MESSAGE),
    "chat.history.result": _AGENT,
    "agent.list.result": _AGENT,
    "agent.result": _AGENT,
    "memory.search.result": _AGENT,
    "group.list.result": _AGENT,
    "group.messages.result": _AGENT,
    "group.message": _AGENT,
    "system.status.result": _AGENT,
    "file.begin": MessageType(Sender.BOTH, RateClass.MESSAGE),
    "file.chunk": MessageType(Sender.BOTH, RateClass.STREAM),
    "file.ack": MessageType(Sender.BOTH, RateClass.STREAM),
    "file.end": MessageType(Sender.BOTH, RateClass.MESSAGE),
    "file.result": MessageType(Sender.BOTH, RateClass.MESSAGE),
    "file.cancel": MessageType(Sender.BOTH, RateClass.MESSAGE),
}

NAMESPACES = ("chat.", "agent.", "group.", "system.", "memory.", "file.")

# The one rule of direction that the relay enforces.
STREAM_ONLY_FROM_AGENT = frozenset({"chat.stream", "chat.done"})


def _forwarded(role: Role) -> dict[str, RateClass]:
    classes = {
        name: kind.rate_class
        for name, kind in TYPES.items()
        if kind.sender not in (Sender.CLIENT, Sender.RELAY)
    }
    if role is Role.AGENT:
        classes["chat.error"] = RateClass.STREAM
    else:
        classes["chat.tool_status"] = RateClass.MESSAGE
        for name in STREAM_ONLY_FROM_AGENT:
            del classes[name]
    return classes


# Type -> rate class of what each role may have forwarded; a dictionary for each
# role, so that a frame costs one look-up.
FORWARDED: dict[Role, dict[str, RateClass]] = {role: _forwarded(role) for role in Role}


def rate_class(name: str, role: Role) -> RateClass | None:
    """The allowance that a forwarded type counts against, or None if it is not forwarded."""
    known = FORWARDED[role].get(name)
    if known is not None:
        return known
    if name in TYPES or not name.startswith(NAMESPACES):
        return None
    return RateClass.MESSAGE
