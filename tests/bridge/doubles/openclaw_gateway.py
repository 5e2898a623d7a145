"""An OpenClaw gateway to test with: the protocol's version 4, played by script.

It checks every field of the handshake and the device's signature as the real one does, and
leaves it to the test what it answers and which events it sends when. Its `faults` must stay
empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

TOKEN = "the-gateway-token"
SESSION = "agent:main:main"

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

Answer = Callable[[dict[str, Any]], Awaitable[Any]]


class Refused(Exception):
    """What a script raises to have a request answered with an error."""

    def __init__(self, code: str, message: str = "no", **details: Any) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | details


@dataclass
class Asked:
    """A question that has come: the parameters of `chat.send`."""

    gateway: OpenclawGateway
    params: dict[str, Any]

    @property
    def run(self) -> str:
        return str(self.params["idempotencyKey"])

    @property
    def session(self) -> str:
        return str(self.params["sessionKey"])

    async def chat(self, state: str, **rest: Any) -> None:
        await self.gateway.chat(self.run, state, session=self.session, **rest)

    async def tool(self, phase: str, **data: Any) -> None:
        await self.gateway.tool(self.run, phase, **data)

    async def whole(self, text: str) -> None:
        """The end, with all of the text."""
        await self.chat("final", message=message(text))


def message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class OpenclawGateway:
    """`refusal` is what the next handshakes are answered with, `device_token` what hello-ok
    gives and a later handshake may come with, `answers` what requests are answered."""

    def __init__(
        self,
        *,
        port: int = 0,
        tick_ms: float = 30_000,
        device_token: str = "",
        clock_ahead: float = 0,
        protocol: int = 4,
    ) -> None:
        self.port = port
        self.tick_ms = tick_ms
        self.device_token = device_token
        self.clock_ahead = clock_ahead
        self.protocol = protocol
        self.policy: dict[str, Any] = {"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800}
        self.methods = ["chat.send", "chat.abort", "chat.history", "agents.list"]
        self.refusal: dict[str, Any] | None = None
        self.password = ""
        self.token = TOKEN
        self.silent = False
        self.faults: list[str] = []
        self.handshakes: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.asked: asyncio.Queue[Asked] = asyncio.Queue()
        self.aborted: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers: dict[str, Answer] = {
            "chat.send": self._sent,
            "chat.abort": self._abort,
            "chat.history": self._history,
        }
        self.taken = 0
        self._ticks = 0
        self._last = ""
        self._changed = asyncio.Condition()
        self._connections: dict[ServerConnection, Iterator[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[OpenclawGateway]:
        async with serve(self._connected, "127.0.0.1", self.port, max_size=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()
        assert not self.faults, self.faults

    async def connected(self, times: int = 1) -> None:
        """Wait until it has taken so many connections since it began."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.taken >= times)

    async def drop(self) -> None:
        """Close every connection, as a gateway does that is started anew."""
        for connection in list(self._connections):
            await connection.close(1012, "service restart")

    async def next_question(self) -> Asked:
        async with asyncio.timeout(10):
            return await self.asked.get()

    async def chat(self, run: str, state: str, session: str = SESSION, **rest: Any) -> None:
        payload = {"runId": run, "sessionKey": session, "seq": 1, "state": state}
        await self.event("chat", payload | rest)

    async def tool(self, run: str, phase: str, **data: Any) -> None:
        await self.event(
            "agent",
            {"runId": run, "seq": 1, "ts": 1, "stream": "tool", "data": {"phase": phase} | data},
        )

    async def event(self, name: str, payload: dict[str, Any]) -> None:
        for connection, seqs in list(self._connections.items()):
            frame = {"type": "event", "event": name, "payload": payload, "seq": next(seqs)}
            self._last = json.dumps(frame)
            await connection.send(self._last)

    async def raw(self, text: str | bytes) -> None:
        for connection in list(self._connections):
            await connection.send(text)

    async def again(self) -> None:
        """Send the last event once more, as it was."""
        await self.raw(self._last)

    async def ticked(self, times: int) -> None:
        """Wait for so many more ticks."""
        until = self._ticks + times
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self._ticks >= until)

    def pause(self) -> None:
        """Take nothing in from now on, until `go_on`."""
        for connection in self._connections:
            connection.transport.pause_reading()

    def go_on(self) -> None:
        for connection in self._connections:
            connection.transport.resume_reading()

    def lose_event(self) -> None:
        """The next event is the one after the next."""
        for seqs in self._connections.values():
            next(seqs)

    async def _connected(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            challenge = {
                "nonce": secrets.token_urlsafe(16),
                "ts": int((time.time() + self.clock_ahead) * 1000),
            }
            event = {"type": "event", "event": "connect.challenge", "payload": challenge}
            await connection.send(json.dumps(event))
            frame = json.loads(await connection.recv())
            params = self._checked(frame, challenge)
            self.handshakes.append(params)
            if error := self.refusal or self._refused(params["auth"]):
                answer = {"type": "res", "id": frame["id"], "ok": False, "error": error}
                await connection.send(json.dumps(answer))
                await connection.close(1008, "refused")
                return
            await connection.send(
                json.dumps({"type": "res", "id": frame["id"], "ok": True, "payload": self._hello()})
            )
            self._connections[connection] = iter(range(1, 1_000_000))
            self._spawn(self._tick(connection))
            async with self._changed:
                self.taken += 1
                self._changed.notify_all()
            try:
                async for text in connection:
                    self._spawn(self._answer(connection, json.loads(text)))
            finally:
                del self._connections[connection]

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hello(self) -> dict[str, Any]:
        auth: dict[str, Any] = {
            "role": "operator",
            "scopes": ["operator.read", "operator.write"],
        }
        if self.device_token:
            auth["deviceToken"] = self.device_token
        return {
            "type": "hello-ok",
            "protocol": self.protocol,
            "server": {"version": "2026.9.6", "connId": "one"},
            "features": {"methods": self.methods, "events": ["chat", "agent", "tick"]},
            "snapshot": {},
            "auth": auth,
            "policy": self.policy | {"tickIntervalMs": self.tick_ms},
        }

    def _refused(self, auth: dict[str, Any]) -> dict[str, Any] | None:
        if self.password and auth.get("password") == self.password:
            return None
        token = auth.get("token")
        if token and token in (self.token, self.device_token):
            return None
        code = "AUTH_TOKEN_MISMATCH" if token else "AUTH_TOKEN_MISSING"
        return {"code": "INVALID_REQUEST", "message": "unauthorized", "details": {"code": code}}

    def _expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.faults.append(f"{what} is {found!r}, not {expected!r}")

    def _checked(self, frame: dict[str, Any], challenge: dict[str, Any]) -> dict[str, Any]:
        """The parameters of `connect`; whatever is wrong with them becomes a fault."""
        self._expect("the frame's keys", sorted(frame), ["id", "method", "params", "type"])
        self._expect("type", frame.get("type"), "req")
        self._expect("method", frame.get("method"), "connect")
        if not (isinstance(frame.get("id"), str) and frame["id"]):
            self.faults.append("id is no text")
        params: dict[str, Any] = frame["params"]
        keys = ["auth", "caps", "client", "device", "maxProtocol", "minProtocol", "role", "scopes"]
        self._expect("the keys of connect", sorted(params), keys)
        if not params["minProtocol"] <= 4 <= params["maxProtocol"]:
            self.faults.append("version 4 is not offered")
        client = params["client"]
        self._expect("the client's keys", sorted(client), ["id", "mode", "platform", "version"])
        self._expect("client.id", client["id"], "gateway-client")
        self._expect("client.mode", client["mode"], "backend")
        if not (client["platform"] and re.match(r"\d+\.\d+", client["version"])):
            self.faults.append("the client does not tell its platform and version")
        self._expect("role", params["role"], "operator")
        self._expect("scopes", params["scopes"], ["operator.read", "operator.write"])
        self._expect("caps", params["caps"], ["tool-events"])
        if unknown := set(params["auth"]) - {"token", "password"}:
            self.faults.append(f"auth has {unknown}")
        self._check_device(params, challenge)
        return params

    def _check_device(self, params: dict[str, Any], challenge: dict[str, Any]) -> None:
        device = params["device"]
        keys = ["id", "nonce", "publicKey", "signature", "signedAt"]
        self._expect("the device's keys", sorted(device), keys)
        self._expect("device.nonce", device["nonce"], challenge["nonce"])
        self._expect("device.signedAt", device["signedAt"], challenge["ts"])
        for key in ("publicKey", "signature"):
            if not _BASE64URL.fullmatch(device[key]):
                self.faults.append(f"device.{key} is not base64url without padding")
                return
        raw = _unpadded(device["publicKey"])
        self._expect("device.id", device["id"], hashlib.sha256(raw).hexdigest())
        signed = "|".join(
            [
                "v3",
                device["id"],
                params["client"]["id"],
                params["client"]["mode"],
                params["role"],
                ",".join(params["scopes"]),
                str(device["signedAt"]),
                params["auth"].get("token", ""),
                device["nonce"],
                params["client"]["platform"].lower(),
                params["client"].get("deviceFamily", "").lower(),
            ]
        )
        try:
            key = Ed25519PublicKey.from_public_bytes(raw)
            key.verify(_unpadded(device["signature"]), signed.encode())
        except (InvalidSignature, ValueError):
            self.faults.append("the device's signature is not good")

    async def _tick(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed, KeyError):
            while True:
                await asyncio.sleep(self.tick_ms / 1000)
                if not self.silent:
                    seq = next(self._connections[connection])
                    tick = {"type": "event", "event": "tick", "payload": {"ts": 1}, "seq": seq}
                    await connection.send(json.dumps(tick))
                    async with self._changed:
                        self._ticks += 1
                        self._changed.notify_all()

    async def _answer(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        self._expect("the keys of a request", sorted(frame), ["id", "method", "params", "type"])
        method, params = frame["method"], frame["params"]
        self.requests.append((method, params))
        answer: dict[str, Any] = {"type": "res", "id": frame["id"]}
        try:
            if method not in self.answers:
                raise Refused("INVALID_REQUEST", f"unknown method: {method}")
            answer |= {"ok": True, "payload": await self.answers[method](params)}
        except Refused as refused:
            answer |= {"ok": False, "error": refused.error}
        with contextlib.suppress(ConnectionClosed):
            await connection.send(json.dumps(answer))

    async def _sent(self, params: dict[str, Any]) -> dict[str, Any]:
        unknown = set(params) - {"sessionKey", "message", "idempotencyKey", "attachments"}
        if unknown:
            self.faults.append(f"chat.send has {unknown}")
        asked = Asked(self, params)
        self.asked.put_nowait(asked)
        return {"runId": asked.run, "status": "started"}

    async def _abort(self, params: dict[str, Any]) -> dict[str, Any]:
        self.aborted.put_nowait(params)
        return {"ok": True, "aborted": True, "runIds": [params.get("runId")]}

    async def _history(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"sessionKey": params["sessionKey"], "messages": []}


def _unpadded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
