"""A relay that puts itself in the middle: it has keys of its own and re-encrypts.

Each is a `relay.tamper`. What it could read is in `read`, in the clear: against version 1
that is everything that is sealed, against version 2 nothing, unless it is given the
pairing secret. Noise is the independent `noiseprotocol`, so nothing here can share a
mistake with the library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import NoiseConnection

from coralmux.protocol import Role, encode
from tests.support.field_peer import Keys, Unreadable
from tests.support.hostile_relay import Frame, Outputs
from tests.support.interference import On, sealed, step

EPHEMERAL_BYTES = 32
TAG_BYTES = 16


@dataclass(frozen=True)
class Read:
    """A plaintext that the relay got hold of."""

    sender: Role
    type: str
    plaintext: bytes


class SwapPublicKeys:
    """Version 1: each side gets the relay's public key for its peer's.

    `rewrite` changes each plaintext on its way: sender, type and JSON to JSON.
    """

    def __init__(self, rewrite: Callable[[Role, str, bytes], bytes] | None = None) -> None:
        self.read: list[Read] = []
        self._rewrite = rewrite or (lambda sender, type, plaintext: plaintext)
        self._keys = {role: Keys() for role in Role}

    def __call__(self, frame: Frame) -> Outputs:
        ours, others = self._keys[frame.sender], self._keys[frame.sender.peer]
        payload = frame.payload
        if frame.type == "key_exchange" and "pubkey" in payload:
            ours.agree(payload["pubkey"])
            return [frame.rewritten(payload={**payload, "pubkey": others.public})]
        if not sealed(frame) or payload.get("v") == 2:
            return [frame.data]
        try:
            plaintext = ours.open(payload)
            self.read.append(Read(frame.sender, frame.type, plaintext))
            changed = self._rewrite(frame.sender, frame.type, plaintext)
            return [frame.rewritten(payload=others.seal(changed))]
        except Unreadable:
            return [frame.data]


class Downgrade:
    """Version 2 handshakes are replaced, to both sides, by version 1 keys of the relay.

    What a side seals for that key then, the relay reads.
    """

    def __init__(self) -> None:
        self.read: list[Read] = []
        self._keys = {role: Keys() for role in Role}

    def __call__(self, frame: Frame) -> Outputs:
        ours, others = self._keys[frame.sender], self._keys[frame.sender.peer]
        payload = frame.payload
        if frame.type == "key_exchange":
            if "pubkey" in payload:
                ours.agree(payload["pubkey"])
            return [
                encode("key_exchange", {"pubkey": others.public}, ts=0),
                (frame.sender, encode("key_exchange", {"pubkey": ours.public}, ts=0)),
            ]
        if sealed(frame):
            try:
                self.read.append(Read(frame.sender, frame.type, ours.open(payload)))
            except Unreadable:
                return [frame.data]
        return [frame.data]


class SwapEphemeral(On):
    """Version 2: the ephemeral key in step `number` (1 or 2) is the relay's own."""

    def __init__(self, number: int, *, nth: int | None = 1) -> None:
        super().__init__("key_exchange", nth=nth, where=step(number))

    def strike(self, frame: Frame) -> Outputs:
        payload = frame.payload
        ours = X25519PrivateKey.generate().public_key().public_bytes_raw()
        payload["noise"] = _b64(ours + base64.b64decode(payload["noise"])[EPHEMERAL_BYTES:])
        return [frame.rewritten(payload=payload)]


@dataclass
class _Handshake:
    """One `hs`: responder toward the phone, initiator toward the agent."""

    to_phone: NoiseConnection
    to_agent: NoiseConnection
    ends: dict[Role, NoiseConnection] = field(default_factory=dict)


class SwapNoise:
    """Version 2: the relay runs both handshakes itself, with a guess at the secret.

    `refused` counts the handshake messages that the guess did not open. A phone whose
    step 1 does not open gets a step 2 all the same, with a made-up ciphertext. With the
    right secret (a thief of the link who also is the relay) all is read.
    """

    def __init__(self, token: str, psk: bytes) -> None:
        self.read: list[Read] = []
        self.refused = 0
        self._token = token
        self._psk = psk
        self._handshakes: dict[str, _Handshake] = {}

    def __call__(self, frame: Frame) -> Outputs:
        payload = frame.payload
        if step(1)(frame) and frame.sender is Role.PHONE:
            return self._step_1(frame, payload)
        if step(2)(frame) and frame.sender is Role.AGENT:
            return self._step_2(frame, payload)
        if sealed(frame) and payload.get("v") == 2:
            return self._record(frame, payload)
        return [frame.data]

    def _step_1(self, frame: Frame, payload: dict[str, Any]) -> Outputs:
        hs = payload["hs"]
        shake = _Handshake(self._noise(hs, initiator=False), self._noise(hs, initiator=True))
        self._handshakes[hs] = shake
        noise = _b64(bytes(shake.to_agent.write_message()))
        to_agent = frame.rewritten(payload={**payload, "noise": noise})
        try:
            shake.to_phone.read_message(base64.b64decode(payload["noise"]))
        except InvalidTag:
            self.refused += 1
            return [to_agent, (Role.PHONE, forged_step_2(hs))]
        shake.ends[Role.PHONE] = shake.to_phone
        return [to_agent]

    def _step_2(self, frame: Frame, payload: dict[str, Any]) -> Outputs:
        shake = self._handshakes.get(payload["hs"])
        if shake is None:
            return [frame.data]
        try:
            hello = bytes(shake.to_agent.read_message(base64.b64decode(payload["noise"])))
        except InvalidTag:
            self.refused += 1
            return [frame.data]
        shake.ends[Role.AGENT] = shake.to_agent
        self.read.append(Read(frame.sender, frame.type, hello))
        if Role.PHONE not in shake.ends:
            return []
        noise = _b64(bytes(shake.to_phone.write_message(hello)))
        return [frame.rewritten(payload={**payload, "noise": noise})]

    def _record(self, frame: Frame, payload: dict[str, Any]) -> Outputs:
        shake = self._handshakes.get(payload["hs"])
        if shake is None or set(shake.ends) != set(Role):
            return [frame.data]
        data = f"{frame.type}\n{frame.id}".encode()
        sender, receiver = shake.ends[frame.sender], shake.ends[frame.sender.peer]
        opening = sender.noise_protocol.cipher_state_decrypt
        sealing = receiver.noise_protocol.cipher_state_encrypt
        opening.set_nonce(payload["n"])
        sealing.set_nonce(payload["n"])
        plaintext = opening.decrypt_with_ad(data, base64.b64decode(payload["ciphertext"]))
        self.read.append(Read(frame.sender, frame.type, plaintext))
        payload["ciphertext"] = _b64(sealing.encrypt_with_ad(data, plaintext))
        return [frame.rewritten(payload=payload)]

    def _noise(self, hs: str, *, initiator: bool) -> NoiseConnection:
        return noise(self._token, self._psk, hs, initiator=initiator)


class AnswerKeyExchange:
    """The relay answers for the other side, which hears of no key exchange at all.

    To a version 1 key it sends its own, and what is sealed for it then it reads; to
    step 1 it sends a step 2 and to step 0 a step 1, each made with the guess `psk`.
    """

    def __init__(self, token: str = "", psk: bytes = bytes(32)) -> None:
        self.read: list[Read] = []
        self.answered: list[Frame] = []
        self._token = token
        self._psk = psk
        self._keys = {role: Keys() for role in Role}

    def __call__(self, frame: Frame) -> Outputs:
        payload = frame.payload
        if frame.type == "key_exchange" and not sealed(frame):
            answer = self._answer(frame, payload)
            if answer is None:
                return [frame.data]
            self.answered.append(frame)
            return [(frame.sender, encode("key_exchange", answer, ts=0))]
        if sealed(frame):
            try:
                plaintext = self._keys[frame.sender].open(payload)
                self.read.append(Read(frame.sender, frame.type, plaintext))
            except Unreadable:
                pass
        return [frame.data]

    def _answer(self, frame: Frame, payload: dict[str, Any]) -> dict[str, Any] | None:
        if "pubkey" in payload:
            keys = self._keys[frame.sender]
            keys.agree(payload["pubkey"])
            return {"pubkey": keys.public}
        if payload.get("step") == 0:
            hs = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
            message = noise(self._token, self._psk, hs, initiator=True).write_message()
            return {"v": 2, "step": 1, "hs": hs, "noise": _b64(bytes(message))}
        if payload.get("step") == 1:
            hs = payload["hs"]
            responder = noise(self._token, self._psk, hs, initiator=False)
            try:
                responder.read_message(base64.b64decode(payload["noise"]))
            except InvalidTag:
                return dict(json.loads(forged_step_2(hs))["payload"])
            message = responder.write_message(b'{"name":"relay","version":"0","caps":[]}')
            return {"v": 2, "step": 2, "hs": hs, "noise": _b64(bytes(message))}
        return None


def noise(token: str, psk: bytes, hs: str, *, initiator: bool) -> NoiseConnection:
    """One end of a handshake, started, with the prologue of version 2."""
    connection = NoiseConnection.from_name(b"Noise_NNpsk0_25519_AESGCM_SHA256")
    connection.set_psks(psk)
    random = base64.urlsafe_b64decode(hs + "=" * (-len(hs) % 4))
    connection.set_prologue(b"CoralMux/2" + hashlib.sha256(token.encode()).digest() + random)
    if initiator:
        connection.set_as_initiator()
    else:
        connection.set_as_responder()
    connection.start_handshake()
    return connection


def forged_step_2(hs: str) -> bytes:
    """A step 2 with a real key and a ciphertext that only looks like one."""
    ours = X25519PrivateKey.generate().public_key().public_bytes_raw()
    made_up = ours + os.urandom(48 + TAG_BYTES)
    payload = {"v": 2, "step": 2, "hs": hs, "noise": _b64(made_up)}
    return encode("key_exchange", payload, ts=0)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
