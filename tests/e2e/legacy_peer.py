"""A second implementation of version 1, from the text alone, and a peer made of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coralmux.e2e.events import Event, PeerInfo, Send
from coralmux.e2e.legacy import LegacySession
from coralmux.protocol.envelope import Envelope, decode, encode
from coralmux.protocol.types import Role

V1 = PeerInfo(name="", version="", caps=(), protocol=1, verified=False)
CHAT = {"text": "hello"}


def second_key(private: bytes, peer_public: bytes) -> bytes:
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(peer_public)
    )
    # RFC 5869: extract, then the first block of expand.
    extracted = hmac.digest(b"openclaw-relay-e2e-v1", shared, hashlib.sha256)
    return hmac.digest(extracted, b"chat-encryption" + b"\x01", hashlib.sha256)


def second_seal(key: bytes, plaintext: bytes, nonce: bytes) -> dict[str, Any]:
    ciphertext = AESGCM(key).encrypt(nonce, plaintext, None)
    return {
        "enc": True,
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "nonce": base64.b64encode(nonce).decode(),
    }


def second_open(key: bytes, payload: dict[str, Any]) -> bytes:
    nonce, ciphertext = (base64.b64decode(payload[name]) for name in ("nonce", "ciphertext"))
    return AESGCM(key).decrypt(nonce, ciphertext, None)


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


# What the tests of the machine share


class Raw:
    """A peer of the field, held in the hand: its key pair, and what it can open."""

    def __init__(self) -> None:
        self.new_pair()

    def new_pair(self) -> None:
        self.private = X25519PrivateKey.generate().private_bytes_raw()

    @property
    def pubkey(self) -> dict[str, Any]:
        return {"pubkey": base64.b64encode(public_of(self.private)).decode()}

    def learn(self, send: Send) -> None:
        assert send.type == "key_exchange"
        payload = json.loads(send.payload)
        assert list(payload) == ["pubkey"]
        self.key = second_key(self.private, base64.b64decode(payload["pubkey"], validate=True))

    def sealed(self, payload: object = CHAT) -> dict[str, Any]:
        nonce = hashlib.sha256(repr(payload).encode()).digest()[:12]
        return second_seal(self.key, json.dumps(payload).encode(), nonce)

    def opens(self, payload: bytes) -> Any:
        return json.loads(second_open(self.key, json.loads(payload)))


def envelope(type: str, payload: dict[str, Any], id: str = "m1") -> Envelope:
    return decode(encode(type, payload, ts=1, id=id))


def say(machine: LegacySession, type: str, payload: dict[str, Any], id: str = "m1") -> list[Event]:
    return machine.receive(envelope(type, payload, id), 1.0)


def sends(events: list[Event]) -> list[Send]:
    return [event for event in events if isinstance(event, Send)]


def told(event: Event) -> dict[str, Any]:
    """The payload of an error that was sent, without its text for people."""
    assert isinstance(event, Send)
    assert event.type == "chat.error"
    payload = json.loads(event.payload)
    assert len(payload.pop("message")) > 30
    return dict(payload)


def talking(role: Role) -> tuple[LegacySession, Raw]:
    """A machine that is ready, and the peer whose key it has."""
    machine, peer = LegacySession(role), Raw()
    peer.learn(sends(machine.connected(0.0, paired=True))[0])
    say(machine, "key_exchange", peer.pubkey)
    assert machine.ready
    return machine, peer


INCOMING = {Role.AGENT: "chat.send", Role.PHONE: "chat.done"}
OUTGOING = {Role.AGENT: "chat.stream", Role.PHONE: "chat.send"}
