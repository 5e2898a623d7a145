"""The OpenClaw gateway: its agents, their sessions and their memory.

All phones and all answers share one connection. The gateway keeps the conversations: the
session is `agent:<agent>:<session>`, and a phone goes on in it where another one, or another
channel of the gateway, has left it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import msgspec

from coralmux import AgentProfile, BackendError, HistoryEntry, MemoryHit, ToolStatus
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.openclaw import rows
from coralmux.bridge.openclaw.following import Following, Runs
from coralmux.bridge.openclaw.frames import part
from coralmux.bridge.openclaw.gateway import PROTOCOL, Gateway
from coralmux.bridge.openclaw.trouble import NoResponse, Trouble
from coralmux.text import duration

# What an id may be: anything else could lead to a session that is not meant for phones.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

# Rows of the history in which an answer is looked for that did not come as events.
_LOOK_BACK = 50

# Seconds that two clocks may differ before it is worth a word.
_CLOCK_SECONDS = 120

# What a listener finds in its queue: an event, word that some were lost, or the end.
_Event = tuple[str, Mapping[str, Any]]
_LOST = "lost"
_Queue = asyncio.Queue["_Event | str | Trouble"]


class OpenclawSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    base_url: str = "ws://127.0.0.1:18789"
    token: str = ""
    password: str = ""
    agent: str = "main"
    session: str = "main"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class OpenclawBackend(Backend):
    """One gateway. A question that finds its session busy goes to the run that is under way."""

    Settings = OpenclawSettings
    wants_history = False
    may_be_silent = True
    keeps = "the gateway's sessions"

    def __init__(self, settings: OpenclawSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._gateway = self._new_gateway(place.say)
        self._runs: dict[str, Runs] = {}
        self._listeners: dict[_Queue, tuple[str, str]] = {}

    def _new_gateway(self, say: Callable[[str], None]) -> Gateway:
        scheme, _, rest = self.settings.base_url.strip().partition("://")
        return Gateway(
            f"{ {'http': 'ws', 'https': 'wss'}.get(scheme, scheme) }://{rest}",
            self.place.directory,
            token=self.settings.token,
            password=self.settings.password,
            say=say,
            on_event=self._on_event,
            on_gap=lambda: self._lost(_LOST),
            on_end=self._lost,
        )

    async def start(self) -> None:
        self._gateway.start()

    async def stop(self) -> None:
        await self._gateway.stop()

    def _on_event(self, event: str, payload: Mapping[str, Any]) -> None:
        if event not in ("chat", "agent"):
            return
        session, run = str(payload.get("sessionKey")), payload.get("runId")
        if event == "chat":
            runs = self._runs.setdefault(session, Runs())
            runs.take(payload)
            if not runs:
                del self._runs[session]
        for queue, (its_session, its_run) in self._listeners.items():
            if session == its_session or run == its_run:
                queue.put_nowait((event, payload))

    def _lost(self, what: str | Trouble) -> None:
        """Some events, or the connection. What has ended meanwhile would be waited for."""
        self._runs.clear()
        for queue in self._listeners:
            queue.put_nowait(what)

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        session = self._session(question.agent_id)
        run = _run(question)
        await self._gateway.ready()
        message = self._message(question, session, run)
        queue: _Queue = asyncio.Queue()
        following = Following(run, self._runs.get(session, Runs()).copy())
        self._listeners[queue] = (session, run)
        sending = asyncio.create_task(self._send(message, queue))
        try:
            while not following.over:
                came = await queue.get()
                if isinstance(came, NoResponse) and following.heard:
                    continue  # the question has arrived, for its answer comes
                if isinstance(came, Trouble):
                    raise came
                if isinstance(came, tuple):
                    for piece in following.take(*came):
                        yield piece
                else:
                    for piece in await self._catch_up(following, session):
                        yield piece
                if following.lacking:
                    for piece in await self._find(following, session, run):
                        yield piece
            if not following.spoke:
                # The agent may be silent if it likes; that is no answer that got lost.
                yield ToolStatus("nothing to say", "done")
        finally:
            del self._listeners[queue]
            sending.cancel()
        question.usage.update(following.usage)

    async def _send(self, message: Mapping[str, Any], queue: _Queue) -> None:
        """Events may come before the answer to this does."""
        try:
            answer = await self._gateway.request("chat.send", message)
        except Trouble as trouble:
            queue.put_nowait(trouble)
            return
        if isinstance(answer, Mapping) and answer.get("status") == "ok":
            # The gateway has had this question before, and is done with it.
            queue.put_nowait(_LOST)

    def _message(self, question: Question, session: str, run: str) -> dict[str, Any]:
        """The parameters of `chat.send`. Raises BackendError for what the gateway won't take."""
        policy = part(self._gateway.hello, "policy")
        limits = part(policy, "attachments")
        attachments = []
        for file in question.attachments:
            most = limits.get("maxImageBytes" if file.is_image else "maxBytes")
            if isinstance(most, int) and len(file.data) > most:
                raise BackendError(
                    f"{file.name} is too large for the OpenClaw gateway: it takes "
                    f"{most / 1e6:.1f} MB. Send a smaller one."
                )
            attachments.append(
                {
                    "type": "image" if file.is_image else "file",
                    "mimeType": file.mime_type,
                    "fileName": file.name,
                    "content": b64encode(file.data).decode("ascii"),
                }
            )
        message: dict[str, Any] = {
            "sessionKey": session,
            "message": question.text,
            "idempotencyKey": run,
        }
        if attachments:
            message["attachments"] = attachments
        most = policy.get("maxPayload")
        size = sum(len(attachment["content"]) for attachment in attachments)
        if isinstance(most, int) and size + 6 * len(question.text) + 1000 > most:
            raise BackendError(
                "This is more than the OpenClaw gateway takes at once "
                f"({most / 1e6:.0f} MB). Send less."
            )
        return message

    async def _history(self, session: str, limit: int) -> Mapping[str, Any]:
        found = await self._gateway.request("chat.history", {"sessionKey": session, "limit": limit})
        return found if isinstance(found, Mapping) else {}

    async def _catch_up(self, following: Following, session: str) -> Iterator[str]:
        """What the phone lacks after events were lost."""
        following.lost()
        try:
            history = await self._history(session, _LOOK_BACK)
        except Trouble:
            return iter(())  # the end may bring it all
        under_way = part(history, "inFlightRun")
        if under_way.get("runId") == following.run:
            return following.is_now(str(under_way.get("text") or following.text.whole))
        said = rows.answer(history, following.run)
        active = _active(history)
        if (active is None and not said) or (active is not None and following.run in active):
            return iter(())  # it goes on, and its end brings the whole text
        following.over = True
        return following.is_now(said, final=True) if said else iter(())

    async def _find(self, following: Following, session: str, run: str) -> Iterator[str]:
        """The answer of a run that has ended without it."""
        history = await self._history(session, _LOOK_BACK)
        if said := rows.answer(history, following.run):
            return following.is_now(said, final=True)
        if following.spoke or following.run != run:
            return iter(())
        active = _active(history)
        busy = following.runs.newest(but=run)
        # A run that has ended meanwhile has its end in the queue.
        over = busy not in self._runs.get(session, Runs())
        if busy and (over or active is None or busy in active):
            text = following.runs.text(busy)
        else:
            under_way = part(history, "inFlightRun")
            busy, text = str(under_way.get("runId") or ""), str(under_way.get("text") or "")
        if busy and busy != run:
            following.turn_to(busy, text)
        return iter(())

    async def abort(self, question: Question) -> None:
        if self._gateway.connected:
            session, run = self._session(question.agent_id), _run(question)
            await self._gateway.request("chat.abort", {"sessionKey": session, "runId": run})

    async def history(self, phone: str, agent_id: str, limit: int) -> list[HistoryEntry]:
        history = await self._history(self._session(agent_id), min(max(limit, 1), 1000))
        return rows.entries(history)[-limit:]

    async def agents(self) -> list[AgentProfile]:
        return rows.agents(await self._gateway.request("agents.list", {}))

    async def memory(self, agent_id: str, query: str, limit: int) -> list[MemoryHit]:
        await self._gateway.ready()
        methods = part(self._gateway.hello, "features").get("methods")
        if not isinstance(methods, list) or "memory.search" not in methods:
            raise self.unsupported("searching memory")
        params = {"query": query, "maxResults": limit, "agentId": self._agent(agent_id)}
        return rows.findings(await self._gateway.request("memory.search", params))[:limit]

    def _agent(self, id: str) -> str:
        id = id or self.settings.agent
        if not _ID.fullmatch(id):
            raise BackendError("There is no such agent. Choose one from the list.")
        return id

    def _session(self, agent_id: str) -> str:
        return f"agent:{self._agent(agent_id)}:{self.settings.session}"

    async def check(self) -> AsyncIterator[Finding]:
        # What there is to say are the findings.
        gateway = self._new_gateway(lambda text: None)
        gateway.start()
        try:
            try:
                await gateway.ready()
                listed = await gateway.request("agents.list", {})
            except Trouble as trouble:
                yield Finding(False, trouble.what, trouble.remedy)
                return
            version = part(gateway.hello, "server").get("version")
            yield Finding(
                True,
                f"The OpenClaw gateway at {gateway.where} takes this bridge (OpenClaw "
                f"{version if isinstance(version, str) else 'of unknown version'}, "
                f"protocol {PROTOCOL}).",
            )
            yield self._find_agent([agent.id for agent in rows.agents(listed)])
            if abs(gateway.clock_ahead) > _CLOCK_SECONDS:
                yield Finding(
                    False,
                    "The clocks of this machine and of the gateway's differ by "
                    f"{duration(abs(gateway.clock_ahead))}.",
                    "Set them right (timedatectl).",
                )
        finally:
            await gateway.stop()

    def _find_agent(self, ids: list[str]) -> Finding:
        if self.settings.agent in ids:
            return Finding(True, f"The gateway has the agent {self.settings.agent!r}.")
        return Finding(
            False,
            f"The gateway has no agent {self.settings.agent!r}.",
            f"Set agent in [openclaw] to one of: {', '.join(ids) or 'none yet'}.",
        )


def _run(question: Question) -> str:
    """The run of a question: its idempotency key. The same question is answered once only,
    even by a bridge that was started anew meanwhile."""
    return hashlib.sha256(f"{question.phone} {question.id}".encode()).hexdigest()[:32]


def _active(history: Mapping[str, Any]) -> list[Any] | None:
    """The runs that are under way in a session; None where the gateway does not know."""
    found = part(history, "sessionInfo").get("activeRunIds")
    return found if isinstance(found, list) else None
