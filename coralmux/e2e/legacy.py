"""Version 1, for the clients in the field: one key from two public keys that the relay carries.

Theory of operation. Both ends send `key_exchange {pubkey}`. Each new connection of ours
has a key pair of its own, and is not ready until a peer key came over it; a peer that
connects again must send a key again, because it may have forgotten ours. A peer may
change its key in the middle: what it sealed before still opens with the key before.

    connected, paired          send our key
    peer_online                not ready; send our key
    key_exchange               ready; send our key once for each key that is new
    peer_offline, disconnected not ready

Exactly `chat.send`, `chat.stream` and `chat.done` are sealed, and in the clear they are
not taken. All else travels in the clear, as the apps in the field expect it.

What this cannot do: nothing tells the peer's public key from one that the relay made, so
a hostile relay can read and write everything. Neither type, order nor direction is bound
to a ciphertext. `PeerInfo.verified` is therefore false, always.

Source: PROTOCOL.md, "Encryption, version 1"; RFC 7748 (X25519), RFC 5869 (HKDF).
"""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coralmux.e2e.errors import E2EError, Failure, NotReady
from coralmux.e2e.events import (
    Ended,
    Established,
    Event,
    Hint,
    Ignored,
    Opened,
    PairingRefused,
    PeerInfo,
    Send,
)
from coralmux.protocol.envelope import Envelope, decode_object
from coralmux.protocol.errors import RELAY_CODES, InvalidMessage, PeerCode
from coralmux.protocol.limits import KEY_EXCHANGES_PER_MINUTE, MAX_REF_BYTES, MAX_SAFE_INTEGER
from coralmux.protocol.types import Role, rate_class

__all__ = [
    "SEALED_TYPES",
    "UNREADABLE",
    "UNSEALED",
    "LegacySession",
    "derive_key",
    "open_payload",
    "seal_payload",
]

_SALT = b"openclaw-relay-e2e-v1"
_INFO = b"chat-encryption"
_NONCE_BYTES = 12

SEALED_TYPES = frozenset({"chat.send", "chat.stream", "chat.done"})

# Of these, what each role takes. One key serves both directions, so a relay that
# hands our own message back to us would otherwise be believed.
_TAKES = {
    Role.PHONE: frozenset({"chat.stream", "chat.done"}),
    Role.AGENT: frozenset({"chat.send"}),
}

# `Ignored.why` where a person is waiting for what was dropped.
UNSEALED = "a chat message came in the clear, and was not taken"
UNREADABLE = "a chat message could not be decrypted with the keys of this connection"

_PEER = PeerInfo(name="", version="", caps=(), protocol=1, verified=False)

# A key that the relay refused goes out again at the pace that the relay allows.
_KEY_SECONDS = 60 / KEY_EXCHANGES_PER_MINUTE


def derive_key(private: X25519PrivateKey, peer_public: bytes) -> bytes:
    """The 32 bytes that both ends compute from their own key and the other's public one.

    Raises E2EError(TAMPERED) for a public key that is not 32 bytes long or makes no secret.
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError:
        raise E2EError(Failure.TAMPERED) from None
    return HKDF(SHA256(), length=32, salt=_SALT, info=_INFO).derive(shared)


def seal_payload(key: bytes, plaintext: bytes) -> bytes:
    """The wire payload, JSON: `{"enc":true,"ciphertext":b64,"nonce":b64}`."""
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = AESGCM(key).encrypt(nonce, plaintext, None)
    return msgspec.json.encode({"enc": True, "ciphertext": ciphertext, "nonce": nonce})


def open_payload(keys: Iterable[bytes], payload: Mapping[str, Any]) -> bytes:
    """The plaintext of a wire payload, by the first of the keys that fits.

    Raises E2EError(TAMPERED).
    """
    try:
        nonce = _base64(payload.get("nonce"))
        ciphertext = _base64(payload.get("ciphertext"))
    except ValueError:
        raise E2EError(Failure.TAMPERED) from None
    if len(nonce) == _NONCE_BYTES:
        for key in keys:
            try:
                return AESGCM(key).decrypt(nonce, ciphertext, None)
            except InvalidTag:
                continue
    raise E2EError(Failure.TAMPERED)


class LegacySession:
    """One side of a pairing by token alone; see the top of the module.

    Every `now` is monotonic, in seconds. A message of the peer may open while the
    session is not ready: it was sealed before the peer heard of our new key.
    """

    def __init__(self, role: Role) -> None:
        self.ready = False
        self.peer: PeerInfo | None = None
        self.deadline: float | None = None
        self._role = role
        self._private: X25519PrivateKey | None = None  # None: not connected
        self._peer_public: bytes | None = None  # the last that came over this connection
        self._keys: list[bytes] = []  # the newest first, at most two
        self._key_id = ""  # of our latest key_exchange, sent at:
        self._key_sent = 0.0
        self._complained = False

    def __repr__(self) -> str:
        return f"<LegacySession {self._role.value}, {'ready' if self.ready else 'not ready'}>"

    # The connection and the peer come and go.

    def connected(self, now: float, *, paired: bool) -> list[Event]:
        """A new connection to the relay; `paired` says whether the peer is there already."""
        events = self.disconnected(now)
        self._private = X25519PrivateKey.generate()
        return [*events, self._send_key(now)] if paired else events

    def peer_online(self, now: float) -> list[Event]:
        # The peer that comes back may not know our key any more, and then it answers in
        # the clear until its own new key tells us that it does.
        events = self._end()
        return events if self._private is None else [*events, self._send_key(now)]

    def peer_offline(self, now: float) -> list[Event]:
        return self._end()

    def disconnected(self, now: float) -> list[Event]:
        events = self._end()
        self._private = None
        self._peer_public = None
        return events

    def refused(self, id: str) -> None:
        """The relay refused the message of this id."""
        if id and id == self._key_id:
            self.deadline = self._key_sent + _KEY_SECONDS

    def tick(self, now: float) -> list[Event]:
        if self.deadline is None or now < self.deadline:
            return []
        return [self._send_key(now)]

    def _end(self) -> list[Event]:
        events: list[Event] = [Ended(Failure.CONNECTION_ENDED)] if self.ready else []
        self.ready = False
        self.peer = None
        self.deadline = None
        self._key_id = ""
        self._complained = False
        return events

    # Out.

    def seal(self, type: str, id: str, payload: bytes) -> bytes:
        """A JSON object as it goes on the wire: sealed, or as it is where v1 seals nothing.

        Raises NotReady for a type that has to be sealed.
        """
        if type not in SEALED_TYPES:
            return payload
        if not self.ready:
            raise NotReady("The other end has not sent its key over this connection yet.")
        return seal_payload(self._keys[0], payload)

    def _send_key(self, now: float) -> Send:
        if self._private is None:
            raise RuntimeError("a key is sent over a connection")
        self._key_id = str(uuid.uuid4())
        self._key_sent = now
        self.deadline = None
        public = base64.b64encode(self._private.public_key().public_bytes_raw())
        return Send("key_exchange", self._key_id, msgspec.json.encode({"pubkey": public.decode()}))

    # In.

    def receive(self, envelope: Envelope, now: float) -> list[Event]:
        """A message that the relay forwarded, or a `chat.error` of its own."""
        type, id = envelope.type, envelope.id
        if self._private is None:
            return [Ignored("a message without a connection", id)]
        if rate_class(type, self._role.peer) is None or (
            type in SEALED_TYPES and type not in _TAKES[self._role]
        ):
            return [Ignored("a type that the other end does not send", id)]
        try:
            payload = decode_object(envelope.payload)
        except InvalidMessage:
            return [Ignored("a payload that cannot be read", id)]
        if type == "key_exchange":
            return self._key_came(self._private, payload, id, now)
        sealed = payload.get("enc") is True
        if type == "chat.error":
            return [Ignored("a sealed error", id)] if sealed else self._error(payload, envelope)
        if type in SEALED_TYPES:
            return self._open(type, payload, id) if sealed else self._unsealed(type, id)
        if sealed:
            return [*self._complain(id), Ignored("a sealed message of a type in the clear", id)]
        return [Opened(type, id, payload, sealed=False, size=len(envelope.payload))]

    def _key_came(
        self, private: X25519PrivateKey, payload: dict[str, Any], id: str, now: float
    ) -> list[Event]:
        if payload.get("v", 1) != 1:
            return [Ignored("a step of another version's handshake", id)]
        try:
            public = _base64(payload.get("pubkey"))
            key = derive_key(private, public)
        except (ValueError, E2EError):
            return [Ignored("a public key that is none", id)]
        events: list[Event] = []
        if public != self._peer_public:
            # The peer may have made itself anew, and forgotten ours.
            self._peer_public = public
            events.append(self._send_key(now))
        if key not in self._keys[:1]:
            self._keys = [key, *self._keys[:1]]
            self._complained = False
        if not self.ready:
            self.ready = True
            self.peer = _PEER
            events.append(Established(_PEER))
        return events

    def _open(self, type: str, payload: dict[str, Any], id: str) -> list[Event]:
        try:
            plaintext = open_payload(self._keys, payload)
            opened = decode_object(plaintext)
        except (E2EError, InvalidMessage):
            return [*self._complain(id), Ignored(UNREADABLE, id, type)]
        self._complained = False
        return [Opened(type, id, opened, sealed=True, size=len(plaintext))]

    def _complain(self, id: str) -> list[Event]:
        # A phone says it once: a reply of hundreds of deltas that do not open would use
        # up its thirty messages a minute. At an agent, every message has somebody waiting.
        if self._complained and self._role is Role.PHONE:
            return []
        self._complained = True
        text = (
            "The message could not be decrypted, and was not taken. "
            "Send your key again (key_exchange), then the message."
        )
        return [_error(PeerCode.E2E_FAILED, text, id)]

    def _unsealed(self, type: str, id: str) -> list[Event]:
        ignored = Ignored(UNSEALED, id, type)
        if self._role is Role.PHONE:
            return [ignored]
        text = (
            "This agent takes chat messages only encrypted. "
            "Send your key (key_exchange), then the message again, sealed."
        )
        return [_error(PeerCode.E2E_REQUIRED, text, id), ignored]

    def _error(self, payload: dict[str, Any], envelope: Envelope) -> list[Event]:
        code = payload.get("code")
        if isinstance(code, str) and code in RELAY_CODES:
            wait = payload.get("retry_after_ms")
            # Anybody may write an integer here that no arithmetic with floats survives.
            after = min(wait, MAX_SAFE_INTEGER) if type(wait) is int and wait >= 0 else None
            return [Hint(code, _text(payload.get("message")), _text(payload.get("ref")), after)]
        if code == PeerCode.E2E_REQUIRED and self._role is Role.PHONE and not self.ready:
            # We have sent nothing but our key: the agent holds a secret, and wants it.
            return [PairingRefused(Failure.NO_VERSION_1)]
        size = len(envelope.payload)
        return [Opened("chat.error", envelope.id, payload, sealed=False, size=size)]


def _error(code: PeerCode, message: str, ref: str) -> Send:
    payload = {"code": code.value, "message": message}
    if 0 < len(ref.encode()) <= MAX_REF_BYTES:
        payload["ref"] = ref
    return Send("chat.error", str(uuid.uuid4()), msgspec.json.encode(payload))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _base64(value: object) -> bytes:
    """Raises ValueError. Line breaks are skipped: version 1 never said that there are none."""
    return base64.b64decode("".join(_text(value).split()), validate=True)
