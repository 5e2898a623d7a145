"""What the tests of the phone's library in JavaScript play on: relays, agents, and who acts.

They ask over TCP, a line of JSON for each request and each answer: `{"do": "pair", …}`. The
methods of Stage whose names begin with `do_` are what can be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import coralmux
from coralmux.protocol import Role
from tests.client.meeting import agent_for, new_link, serving
from tests.support import interference
from tests.support.field import FieldConnector
from tests.support.hostile_relay import HostileRelay
from tests.support.process import RelayProcess

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1000


class Stage:
    """`relay` is there all the time; `mortal` is the one that is restarted."""

    def __init__(self, relay: RelayProcess, mortal: RelayProcess) -> None:
        self.relay = relay
        self.mortal = mortal
        self.asked: list[dict[str, Any]] = []
        self.agent = self._agent()
        self.agent.add(new_link(relay))  # so that serving never ends with the last one
        self.hostile: dict[str, tuple[HostileRelay, coralmux.Agent]] = {}
        self._held = asyncio.Event()
        self._things = contextlib.AsyncExitStack()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """The port on which it can be asked."""
        async with self._things, serving(self.agent):
            server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
            async with server:
                yield server.sockets[0].getsockname()[1]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        try:
            answer = {"result": await getattr(self, f"do_{request.pop('do')}")(**request)}
        except Exception as error:
            answer = {"error": repr(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    # What can be asked.

    async def do_pair(
        self, secret: bool = True, served: bool = True, mortal: bool = False
    ) -> dict[str, str]:
        """A pairing of one's own; with the agent unless not `served`."""
        link = new_link(self.mortal if mortal else self.relay)
        if not secret:
            link = link.with_secret(None)
        if served:
            self.agent.add(link)
        return {
            "link": link.web() if secret else link.field_uri(),
            "uri": link.uri(),
            "token": link.token,
        }

    async def do_serve(self, uri: str) -> None:
        self.agent.add(uri)

    async def do_leave(self, uri: str) -> None:
        """The agent serves this pairing no more."""
        await self.agent.remove(uri)

    async def do_revoke(self, token: str) -> None:
        path = f"/api/v1/pair/{token}"
        status, _ = await asyncio.to_thread(self.relay.http, "DELETE", path, admin=True)
        assert status == 204

    async def do_restart(self) -> None:
        """End the mortal relay, and start it again at its address."""
        await asyncio.to_thread(self.mortal.terminate)
        await asyncio.to_thread(self.mortal.start)

    async def do_asked(self, text: str) -> list[dict[str, Any]]:
        """The questions with this text that the agent was asked, in order."""
        return [question for question in self.asked if question["text"] == text]

    async def do_release(self) -> None:
        """Let all answers to "hold" come to their end."""
        self._held.set()
        self._held = asyncio.Event()

    async def do_group_message(self, room: str, text: str, uri: str = "") -> None:
        """Something is said in a room: all phones hear of it, or that at a hostile relay."""
        agent = self.hostile[uri][1] if uri else self.agent
        await agent.group_message(room, {"text": text})

    async def do_field(self, reply: list[str]) -> dict[str, str]:
        """A pairing with the field's connector, which speaks version 1 alone."""
        token = self.relay.token()
        connector = FieldConnector(
            self.relay.url,
            token,
            reply=reply,
            tools=["search"],
            attachments=[("image/png", PNG)],
        )
        await self._things.enter_async_context(connector)
        return {"link": coralmux.PairingLink(self.relay.url, token).field_uri()}

    async def do_hostile(
        self, tamper: str | None = None, sender: str | None = None, **options: Any
    ) -> dict[str, str]:
        """A pairing over a relay that does this, one of tests.support.interference."""
        relay = await self._things.enter_async_context(HostileRelay())
        link = coralmux.PairingLink.new(relay.url, "oc_pair_of_the_hostile_relay")
        if tamper is not None:
            kind: Callable[..., Any] = getattr(interference, tamper)
            if "to" in options and options["to"] in set(Role):
                options["to"] = Role(options["to"])
            relay.tamper = kind(sender=None if sender is None else Role(sender), **options)
        agent = self._agent(link)
        await self._things.enter_async_context(serving(agent))
        self.hostile[link.uri()] = relay, agent
        return {"link": link.web(), "uri": link.uri(), "token": link.token}

    async def do_struck(self, uri: str) -> int:
        """How often that relay did it."""
        tamper: Any = self.hostile[uri][0].tamper
        return len(tamper.struck)

    async def do_sent(self, uri: str, sender: str, type: str) -> int:
        """How many messages of a type a side has sent over that relay."""
        return len(self.hostile[uri][0].sent(Role(sender), type))

    # The agent.

    def _agent(self, *links: coralmux.PairingLink) -> coralmux.Agent:
        agent = agent_for(*links, name="Stage")
        agent.on_chat(self._reply)

        @agent.on("chat.history")
        async def history(request: coralmux.Request) -> dict[str, Any]:
            entry = {"role": "user", "content": "Before", "timestamp": 1}
            return {"messages": [entry] * request.payload["limit"]}

        return agent

    async def _reply(self, message: coralmux.ChatMessage) -> AsyncIterator[Any]:
        attachments = [
            {
                "name": item.name,
                "type": item.mime_type,
                "size": len(item.data),
                "sha256": hashlib.sha256(item.data).hexdigest(),
            }
            for item in message.attachments
            if isinstance(item, coralmux.Attachment)
        ]
        question = {
            "id": message.id,
            "text": message.text,
            "agentId": message.agent_id,
            "attachments": attachments,
            "turns": [turn.content for turn in message.conversation],
        }
        self.asked.append(question)
        what, _, argument = message.text.partition(" ")
        if what == "count":
            for number in range(int(argument)):
                yield f"{number} "
        elif what == "hold":
            held = self._held
            yield "Held."
            await held.wait()
            yield " Released."
        elif what == "picture":
            yield coralmux.ToolStatus("painter", "running")
            yield "Here:"
            yield coralmux.Attachment("dot.png", "image/png", PNG)
        elif what == "fail":
            raise coralmux.BackendError("The model is out.")
        else:
            yield f"You said: {message.text}"
