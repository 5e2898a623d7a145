"""What a phone can ask besides questions: a typed method for each request of the protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from coralmux.client.messages import (
    AgentChange,
    AgentProfile,
    GroupMessage,
    GroupMessages,
    HistoryEntry,
    MemoryHit,
    SystemStatus,
    read,
)

# Seconds: such requests are answered from what the agent has.
REQUEST_SECONDS = 30.0

T = TypeVar("T")


class Queries(ABC):
    """The requests of PROTOCOL.md and their results; `timeout` is in seconds, for all of it.

    All raise what `Phone.ready` raises, and AgentError, RelayRefused, RequestTimeout,
    ConnectionLost, MessageLost and InvalidAnswer, each with the request's id in `ids`.
    """

    @abstractmethod
    async def _request(
        self,
        type: str,
        payload: dict[str, Any],
        result: str,
        timeout: float,
        parse: Callable[[dict[str, Any]], T],
    ) -> T:
        """Ask, and read the answer, which must be of the type `result`."""

    async def history(
        self, agent_id: str = "", limit: int = 50, *, timeout: float = REQUEST_SECONDS
    ) -> list[HistoryEntry]:
        """The last messages with an agent, oldest first as the agent gives them."""
        payload = {"agent_id": agent_id, "limit": limit}
        return await self._request(
            "chat.history",
            payload,
            "chat.history.result",
            timeout,
            lambda result: read(result.get("messages"), list[HistoryEntry]),
        )

    async def agents(self, *, timeout: float = REQUEST_SECONDS) -> list[AgentProfile]:
        """The agents behind this pairing."""
        return await self._request(
            "agent.list",
            {},
            "agent.list.result",
            timeout,
            lambda result: read(result.get("agents"), list[AgentProfile]),
        )

    async def create_agent(
        self, *, timeout: float = REQUEST_SECONDS, **profile: Any
    ) -> AgentChange:
        """Make an agent: `name`, `model`, `system_prompt`, …, as the agent's side knows them."""
        return await self._change("agent.create", profile, timeout)

    async def update_agent(
        self, id: str, *, timeout: float = REQUEST_SECONDS, **profile: Any
    ) -> AgentChange:
        """Change an agent."""
        return await self._change("agent.update", {"id": id} | profile, timeout)

    async def delete_agent(self, id: str, *, timeout: float = REQUEST_SECONDS) -> AgentChange:
        """Delete an agent."""
        return await self._change("agent.delete", {"id": id}, timeout)

    async def _change(self, type: str, payload: dict[str, Any], timeout: float) -> AgentChange:
        return await self._request(
            type, payload, "agent.result", timeout, lambda result: read(result, AgentChange)
        )

    async def search_memory(
        self,
        query: str,
        agent_id: str = "",
        limit: int = 10,
        *,
        timeout: float = REQUEST_SECONDS,
    ) -> list[MemoryHit]:
        """Search what an agent remembers."""
        return await self._request(
            "memory.search",
            {"agent_id": agent_id, "query": query, "limit": limit},
            "memory.search.result",
            timeout,
            # The field's connector has another name for them.
            lambda result: read(result.get("results", result.get("memories")), list[MemoryHit]),
        )

    async def groups(self, *, timeout: float = REQUEST_SECONDS) -> list[dict[str, Any]]:
        """The rooms that the agent is in, as it describes them."""
        return await self._request(
            "group.list",
            {},
            "group.list.result",
            timeout,
            lambda result: read(result.get("rooms"), list[dict[str, Any]]),
        )

    async def group_messages(
        self, room_id: str, limit: int = 50, *, timeout: float = REQUEST_SECONDS
    ) -> GroupMessages:
        """The last messages in a room."""
        return await self._request(
            "group.messages",
            {"room_id": room_id, "limit": limit},
            "group.messages.result",
            timeout,
            lambda result: read(result, GroupMessages),
        )

    async def send_group_message(
        self, room_id: str, text: str, *, timeout: float = REQUEST_SECONDS
    ) -> GroupMessage:
        """Say something in a room; the message as it stands there."""
        return await self._request(
            "group.send",
            {"room_id": room_id, "text": text},
            "group.message",
            timeout,
            lambda result: read(result, GroupMessage),
        )

    async def system_status(self, *, timeout: float = REQUEST_SECONDS) -> SystemStatus:
        """How the agent's machine is doing."""
        return await self._request(
            "system.status",
            {},
            "system.status.result",
            timeout,
            lambda result: read(result, SystemStatus),
        )
