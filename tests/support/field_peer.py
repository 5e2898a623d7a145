"""What the field's two peers have in common; see tests/support/field.py."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import websockets
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

Payload = dict[str, Any]
# A MIME type and the bytes.
Picture = tuple[str, bytes]

# Seconds of patience for anything that should happen at once.
PATIENCE = 10.0


class FieldError(Exception):
    """A `chat.error` or `auth.fail`, or the connection's end (`CONNECTION_ENDED`)."""

    def __init__(self, code: str, message: str = "", payload: Payload | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.payload = payload or {}


class Unreadable(Exception):
    """A sealed payload that does not open."""


@dataclass(frozen=True)
class Received:
    """A message of the peer, opened where it was sealed."""

    type: str
    id: str
    payload: Payload
    sealed: bool


class Keys:
    """One key pair and, once the peer's key is there, what both agreed on."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self._agreed: AESGCM | None = None

    @property
    def public(self) -> str:
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    @property
    def agreed(self) -> bool:
        return self._agreed is not None

    def agree(self, peer: str) -> None:
        """Take the peer's key; ValueError when it is not one."""
        raw = base64.b64decode(peer, validate=True)
        shared = self._private.exchange(X25519PublicKey.from_public_bytes(raw))
        kdf = HKDF(SHA256(), 32, b"openclaw-relay-e2e-v1", b"chat-encryption")
        self._agreed = AESGCM(kdf.derive(shared))

    def forget(self) -> None:
        self._agreed = None

    def seal(self, plaintext: bytes) -> Payload:
        if self._agreed is None:
            raise Unreadable
        nonce = os.urandom(12)
        sealed = self._agreed.encrypt(nonce, plaintext, None)
        return {
            "enc": True,
            "ciphertext": base64.b64encode(sealed).decode(),
            "nonce": base64.b64encode(nonce).decode(),
        }

    def open(self, payload: Payload) -> bytes:
        if self._agreed is None:
            raise Unreadable
        try:
            nonce, sealed = (base64.b64decode(payload[key]) for key in ("nonce", "ciphertext"))
            return self._agreed.decrypt(nonce, sealed, None)
        except (InvalidTag, ValueError, LookupError, TypeError):
            raise Unreadable from None


def inline(pictures: Iterable[Picture]) -> list[Payload]:
    """Pictures as version 1 carries them, inside the message."""
    return [
        {"type": "image", "mime_type": mime, "content_b64": base64.b64encode(data).decode()}
        for mime, data in pictures
    ]


def pictures(payload: Payload) -> list[Picture]:
    """The pictures inside a `chat.send` or `chat.done`."""
    return [
        (item["mime_type"], base64.b64decode(item["content_b64"]))
        for item in payload.get("attachments") or []
    ]


class FieldPeer:
    """What both have in common: auth, status, keys, and a record of what came.

    `surprises` are messages that a version 1 peer cannot take; `unreadable` those that
    were sealed and did not open. A test of manners asserts that both are empty.
    """

    role: ClassVar[str]
    takes: ClassVar[frozenset[str]]
    opens: ClassVar[frozenset[str]]

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self.keys = Keys()
        self.keyed = asyncio.Event()
        self.peer_online = False
        self.peer_keys: list[str] = []
        self.received: list[Received] = []
        self.unreadable: list[Payload] = []
        self.surprises: list[Payload] = []
        self.errors: list[Payload] = []
        self.greeting: Payload = {}

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def connect(self) -> None:
        """Dial, authenticate and start reading; FieldError when the relay says no."""
        self._connection: ClientConnection = await websockets.connect(
            self._url, max_size=6 * 1024 * 1024
        )
        try:
            self.greeting = await self._authenticate()
        except BaseException:
            await self._close()
            raise
        self.peer_online = bool(self.greeting.get("paired"))
        self._connected()
        if self.peer_online:
            await self._send_key()
        self._reader = asyncio.create_task(self._read())

    async def _authenticate(self) -> Payload:
        await self.send("auth", {"token": self._token, "role": self.role})
        async with asyncio.timeout(PATIENCE):
            first = json.loads(await self._connection.recv())
        if first["type"] != "auth.ok":
            raise FieldError(first["payload"]["code"], first["payload"].get("message", ""))
        return dict(first["payload"])

    async def leave(self) -> None:
        """Close; an error of our own while reading is raised now."""
        await self._close()
        await self._reader

    async def _close(self) -> None:
        # Closing a lost connection again can trip over asyncio's transport (Python 3.11).
        if self._connection.state is not State.CLOSED:
            await self._connection.close()

    async def reconnect(self) -> None:
        """Leave and come back; what was recorded stays."""
        await self.leave()
        await self.connect()

    @property
    def close_code(self) -> int | None:
        return self._connection.close_code

    def of_type(self, type: str) -> list[Received]:
        return [message for message in self.received if message.type == type]

    async def send(self, type: str, payload: Payload) -> str:
        """Send as it is; the id."""
        id = str(uuid.uuid4())
        envelope = {"v": 1, "type": type, "id": id, "ts": now_ms(), "payload": payload}
        await self._connection.send(json.dumps(envelope))
        return id

    async def _send_key(self) -> None:
        await self.send("key_exchange", {"pubkey": self.keys.public})

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for data in self._connection:
                await self._take(json.loads(data))
        self._disconnected()

    async def _take(self, message: Payload) -> None:
        type, payload = message["type"], message.get("payload") or {}
        if type == "status":
            self.peer_online = payload["peer"] == "online"
            if self.peer_online:
                self._forget()
                await self._send_key()
        elif type == "key_exchange":
            self._take_key(message, payload)
        elif type == "chat.error":
            self.errors.append(payload)
            self._failed(payload)
        elif type not in self.takes or payload.get("v") == 2:
            self.surprises.append(message)
        else:
            await self._take_message(type, message.get("id", ""), payload, message)

    def _take_key(self, message: Payload, payload: Payload) -> None:
        try:
            self.keys.agree(payload["pubkey"])
        except (LookupError, ValueError, TypeError):
            self.surprises.append(message)
            return
        self.peer_keys.append(payload["pubkey"])
        self.keyed.set()

    async def _take_message(self, type: str, id: str, payload: Payload, whole: Payload) -> None:
        sealed = payload.get("enc") is True
        if sealed:
            try:
                if type not in self.opens:
                    raise Unreadable
                payload = json.loads(self.keys.open(payload))
            except (Unreadable, ValueError):
                self.unreadable.append(whole)
                return
        item = Received(type, id, payload, sealed)
        self.received.append(item)
        await self._handle(item)

    def _connected(self) -> None:
        """A new connection is authenticated."""

    def _forget(self) -> None:
        """The peer is new: what was agreed with the last one is void."""
        self.keys.forget()
        self.keyed.clear()

    def _failed(self, payload: Payload) -> None:
        """A `chat.error` came."""

    def _disconnected(self) -> None:
        """Nothing more will come on this connection."""

    async def _handle(self, item: Received) -> None:
        raise NotImplementedError


def now_ms() -> int:
    """Unix milliseconds."""
    return int(time.time() * 1000)
