"""CoralMux: talk to the AI agent at home through a relay that cannot read along.

    agent = coralmux.Agent.from_link(link)

    @agent.on_chat
    async def reply(message):
        yield "Hello "
        yield "there"

    agent.run()

This package is the client side and the wire contract; it never imports Django. What is
named here is the public interface, described in docs/library.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coralmux.client.agent import Agent
    from coralmux.client.answer import Answer
    from coralmux.client.attachments import Attachment, AttachmentError, RemoteAttachment
    from coralmux.client.backoff import Timers
    from coralmux.client.errors import (
        AgentError,
        ClientError,
        ConnectionLost,
        InvalidAnswer,
        MessageLost,
        MessageTooLarge,
        NotConnected,
        PairingRefused,
        PeerOffline,
        RelayRefused,
        ReplyIncomplete,
        RequestTimeout,
        Stopped,
    )
    from coralmux.client.file_messages import FileError
    from coralmux.client.messages import (
        AgentChange,
        AgentProfile,
        GroupMessage,
        GroupMessages,
        HistoryEntry,
        MemoryHit,
        SystemStatus,
        ToolStatus,
        Turn,
    )
    from coralmux.client.phone import Phone
    from coralmux.client.requests import BackendError, ChatMessage, Request, Unsupported
    from coralmux.client.store import (
        FileStore,
        MemoryStore,
        PairingState,
        Store,
        StoreError,
        user_data_directory,
    )
    from coralmux.e2e.events import PeerInfo
    from coralmux.e2e.link import LinkError, PairingLink

__version__ = "0.1.0"

# Loaded when first used: the relay imports this package for its protocol alone.
_HOMES = {
    "coralmux.client.agent": ("Agent",),
    "coralmux.client.answer": ("Answer",),
    "coralmux.client.attachments": ("Attachment", "AttachmentError", "RemoteAttachment"),
    "coralmux.client.backoff": ("Timers",),
    "coralmux.client.errors": (
        "AgentError",
        "ClientError",
        "ConnectionLost",
        "InvalidAnswer",
        "MessageLost",
        "MessageTooLarge",
        "NotConnected",
        "PairingRefused",
        "PeerOffline",
        "RelayRefused",
        "ReplyIncomplete",
        "RequestTimeout",
        "Stopped",
    ),
    "coralmux.client.file_messages": ("FileError",),
    "coralmux.client.messages": (
        "AgentChange",
        "AgentProfile",
        "GroupMessage",
        "GroupMessages",
        "HistoryEntry",
        "MemoryHit",
        "SystemStatus",
        "ToolStatus",
        "Turn",
    ),
    "coralmux.client.phone": ("Phone",),
    "coralmux.client.requests": ("BackendError", "ChatMessage", "Request", "Unsupported"),
    "coralmux.client.store": (
        "FileStore",
        "MemoryStore",
        "PairingState",
        "Store",
        "StoreError",
        "user_data_directory",
    ),
    "coralmux.e2e.events": ("PeerInfo",),
    "coralmux.e2e.link": ("LinkError", "PairingLink"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentChange",
    "AgentError",
    "AgentProfile",
    "Answer",
    "Attachment",
    "AttachmentError",
    "BackendError",
    "ChatMessage",
    "ClientError",
    "ConnectionLost",
    "FileError",
    "FileStore",
    "GroupMessage",
    "GroupMessages",
    "HistoryEntry",
    "InvalidAnswer",
    "LinkError",
    "MemoryHit",
    "MemoryStore",
    "MessageLost",
    "MessageTooLarge",
    "NotConnected",
    "PairingLink",
    "PairingRefused",
    "PairingState",
    "PeerInfo",
    "PeerOffline",
    "Phone",
    "RelayRefused",
    "RemoteAttachment",
    "ReplyIncomplete",
    "Request",
    "RequestTimeout",
    "Stopped",
    "Store",
    "StoreError",
    "SystemStatus",
    "Timers",
    "ToolStatus",
    "Turn",
    "Unsupported",
    "__version__",
    "user_data_directory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
