"""Peers as they are in the field: a connector on the agent's side and a phone app.

Both speak version 1 only and are written from the contract alone, not from our code:
nothing here imports `coralmux`, so what they agree on with it is what the text says.
Each keeps what it got, for tests to look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import websockets

from tests.support.field_peer import (
    PATIENCE,
    FieldError,
    FieldPeer,
    Keys,
    Payload,
    Picture,
    Received,
    inline,
    now_ms,
    pictures,
)

__all__ = ["FieldConnector", "FieldError", "FieldPhone", "Picture", "Received", "pictures"]

Reply = Sequence[str] | Callable[[Payload], AsyncIterator[str]]

# What a phone asks in the clear, and the type that answers it.
ANSWERS = {
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


class FieldConnector(FieldPeer):
    """The connector beside an agent, with its habits.

    On every `status online` it makes a new key pair, forgets the phone's key, sends its
    own, and answers in the clear until the phone's comes again. It seals `chat.stream`
    and `chat.done` and opens `chat.send`, says `memories` for `results`, and refers to no
    request. Chats are answered one after the other. What it does with a chat that it
    cannot open the contract does not say: here it stays silent.

    `reply` is the deltas of every answer, or an async generator function of the request's
    payload; a FieldError raised in it goes to the phone as `chat.error`.
    """

    role = "agent"
    takes = frozenset({"chat.send", *ANSWERS})
    opens = frozenset({"chat.send"})

    def __init__(
        self,
        url: str,
        token: str,
        *,
        reply: Reply = ("Hel", "lo"),
        attachments: Iterable[Picture] = (),
        tools: Sequence[str] = (),
    ) -> None:
        super().__init__(url, token)
        self.reply = reply
        self.attachments = list(attachments)
        self.tools = tools
        self.agents: dict[str, Payload] = {"main": {"id": "main", "name": "Main"}}
        self.memories = [{"path": "notes.md", "snippet": "tea at four", "score": 0.5}]
        self.rooms: dict[str, list[Payload]] = {"hall": []}
        self.history: list[Payload] = []
        self._chats: asyncio.Queue[Payload] = asyncio.Queue()
        self._chatting: asyncio.Task[None] | None = None

    @property
    def chats(self) -> list[Received]:
        return self.of_type("chat.send")

    async def connect(self) -> None:
        await super().connect()
        if self._chatting is None:
            self._chatting = asyncio.create_task(self._answer_chats())

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        if self._chatting is not None:
            self._chatting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._chatting

    def _forget(self) -> None:
        self.keys = Keys()
        self.keyed.clear()

    async def _handle(self, item: Received) -> None:
        if item.type == "chat.send":
            self._chats.put_nowait(item.payload)
        else:
            await self.send(ANSWERS[item.type], self._result(item.type, item.payload))

    async def _answer_chats(self) -> None:
        while True:
            payload = await self._chats.get()
            # A chat whose connection ended is lost, as it is in the field.
            with contextlib.suppress(websockets.ConnectionClosed):
                try:
                    await self._answer_chat(payload)
                except FieldError as error:
                    await self.send("chat.error", {"code": error.code, "message": error.message})

    async def _answer_chat(self, payload: Payload) -> None:
        for tool in self.tools:
            for status in ("running", "done"):
                await self.send("chat.tool_status", {"tool": tool, "status": status})
        full_text = ""
        seq = 0
        async for delta in _deltas(self.reply, payload):
            seq += 1
            full_text += delta
            await self._send_sealed("chat.stream", {"delta": delta, "seq": seq})
        done: Payload = {"full_text": full_text}
        if self.attachments:
            done["attachments"] = inline(self.attachments)
        await self._send_sealed("chat.done", done)
        self.history += [
            {"role": "user", "content": payload.get("text", ""), "timestamp": now_ms()},
            {"role": "assistant", "content": full_text, "timestamp": now_ms()},
        ]

    async def _send_sealed(self, type: str, payload: Payload) -> None:
        sealed = self.keys.seal(json.dumps(payload).encode()) if self.keys.agreed else payload
        await self.send(type, sealed)

    def _result(self, type: str, asked: Payload) -> Payload:
        match type:
            case "chat.history":
                return {"messages": self.history[-int(asked.get("limit", 50)) :]}
            case "agent.list":
                return {"agents": list(self.agents.values())}
            case "memory.search":
                found = [m for m in self.memories if asked["query"] in str(m["snippet"])]
                return {"memories": found[: int(asked.get("limit", 10))]}
            case "group.list":
                return {"rooms": [{"id": room} for room in self.rooms]}
            case "group.messages":
                return {"room_id": asked["room_id"], "messages": self.rooms[asked["room_id"]]}
            case "group.send":
                message = {key: value for key, value in asked.items() if key != "room_id"}
                self.rooms[asked["room_id"]].append(message)
                return {"room_id": asked["room_id"], "message": message}
            case "system.status":
                used, total = 2.0, 8.0
                memory = {"memory_used_gb": used, "memory_total_gb": total}
                percent = {"cpu_percent": 12.5, "memory_percent": 100 * used / total}
                return {**percent, **memory, "uptime_seconds": 60}
            case _:
                return self._change_agent(type.removeprefix("agent."), asked)

    def _change_agent(self, action: str, asked: Payload) -> Payload:
        id = asked.get("id") or str(asked.get("name", "")).lower()
        if action != "create" and id not in self.agents:
            return {"ok": False, "action": action, "error": "no such agent"}
        if action == "delete":
            return {"ok": True, "action": action, "agent": self.agents.pop(id)}
        self.agents[id] = {**self.agents.get(id, {}), **asked, "id": id}
        return {"ok": True, "action": action, "agent": self.agents[id]}


class FieldPhone(FieldPeer):
    """A phone app: a key pair for each connection, one chat or request at a time.

    It sends its key on `auth.ok` with `paired` and on `status online`, chats when the
    agent's key is there, and takes pictures inside the messages.
    """

    role = "phone"
    opens = frozenset({"chat.stream", "chat.done"})
    takes = frozenset({*opens, "chat.tool_status", *ANSWERS.values()})

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self._turn = asyncio.Lock()
        self._inbox: asyncio.Queue[Received | FieldError] = asyncio.Queue()

    async def ask(
        self,
        text: str,
        *,
        attachments: Iterable[Picture] = (),
        sealed: bool = True,
        within: float = PATIENCE,
        **more: Any,
    ) -> tuple[list[str], Payload]:
        """The deltas and the payload of `chat.done`.

        `more` goes into `chat.send`; unless `sealed`, it is sent in the clear without
        waiting for a key. Raises FieldError on `chat.error`, TimeoutError.
        """
        payload: Payload = {"text": text, **more}
        if carried := inline(attachments):
            payload["attachments"] = carried
        async with self._turn, asyncio.timeout(within):
            if sealed:
                await self.keyed.wait()
                payload = self.keys.seal(json.dumps(payload).encode())
            self._inbox = asyncio.Queue()
            await self.send("chat.send", payload)
            deltas = []
            while (item := await self._next()).type != "chat.done":
                if item.type == "chat.stream":
                    deltas.append(item.payload["delta"])
            return deltas, item.payload

    async def request(
        self, type: str, payload: Payload | None = None, *, within: float = PATIENCE
    ) -> Payload:
        """Ask in the clear; the payload of the answer."""
        async with self._turn, asyncio.timeout(within):
            self._inbox = asyncio.Queue()
            await self.send(type, payload or {})
            while (item := await self._next()).type != ANSWERS[type]:
                pass
            return item.payload

    async def _next(self) -> Received:
        item = await self._inbox.get()
        if isinstance(item, FieldError):
            raise item
        return item

    def _connected(self) -> None:
        self.keys = Keys()
        self.keyed.clear()

    def _failed(self, payload: Payload) -> None:
        error = FieldError(payload.get("code", ""), payload.get("message", ""), payload)
        self._inbox.put_nowait(error)

    def _disconnected(self) -> None:
        self._inbox.put_nowait(FieldError("CONNECTION_ENDED"))

    async def _handle(self, item: Received) -> None:
        self._inbox.put_nowait(item)


async def _deltas(reply: Reply, payload: Payload) -> AsyncIterator[str]:
    if callable(reply):
        async for delta in reply(payload):
            yield delta
    else:
        for delta in reply:
            yield delta
