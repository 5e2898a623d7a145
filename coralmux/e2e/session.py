"""Version 2 between phone and agent, what both sides share: records, and all that is clear.

    phone                                            agent
      ◀──  step 0  key_exchange {v, step}      (only to ask for a handshake)
      step 1  key_exchange {v, step, hs, noise}  ──▶
      ◀──  step 2  key_exchange {v, step, hs, noise: {name, version, caps, next_psk?}}
      step 3  record n=0: {step, name, version, caps}  ──▶
      ◀──  step 4  record n=0: {step}          (only where a next_psk was handed over)

There is one machine for each side, `initiator.PhoneSession` and `responder.AgentSession`,
without clock, socket or disk: they take what came and say what is to be done (`events`).
The relay is the adversary. It may drop, repeat, reorder, change and invent whatever it
likes, so nothing that comes in the clear changes more than what is asked next: an old
session stays until the new one has proved itself, and no secret is ever given up on
somebody's word.

The machines do not know which ids came before (the channel drops repeated ones), nor
what a request is; they know sessions.

Source: PROTOCOL.md, "End-to-end encryption, version 2"; Noise, revision 34.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeGuard

import msgspec

from coralmux.e2e import records
from coralmux.e2e.errors import E2EError, Failure, NotReady
from coralmux.e2e.events import (
    Ended,
    Established,
    Event,
    Gap,
    Hint,
    Ignored,
    Lost,
    Opened,
    PeerInfo,
    Secrets,
    Send,
)
from coralmux.e2e.records import Records
from coralmux.protocol import base64url
from coralmux.protocol.envelope import Envelope, decode_object
from coralmux.protocol.errors import RELAY_CODES, ErrorCode, InvalidMessage, PeerCode
from coralmux.protocol.limits import MAX_SAFE_INTEGER

PROTOCOL = 2
SECRET_BYTES = 32
HS_BYTES = 16

# Seconds between two handshakes that one side starts, whatever it is told in the clear:
# a relay that lies must not be able to keep both ends computing.
RESTART_SECONDS = 5.0

# Seconds that one side waits for the other's answer, and seconds until it tries again
# once it has given up hope of a quick one.
ANSWER_SECONDS = 10.0
PATIENCE_SECONDS = 60.0

# Messages in the clear that are answered, sealed, in each session; what a relay invents
# beyond these is dropped without spending the quota on it.
_CLEAR_ANSWERS = 10

# Reports of gaps whose ranges are kept, to say again those that get lost themselves.
_REPORTS = 256

_PROLOGUE = b"CoralMux/2"
_NAME_CHARACTERS = 64
_CAPS = 32
_REF_CHARACTERS = 64

# Random bytes, so many; tests and vectors bring their own.
Entropy = Callable[[int], bytes]

encode = msgspec.json.encode


class Identity(msgspec.Struct, frozen=True):
    """What an end says of itself, sealed: name and version for people, and its abilities."""

    name: str
    version: str
    caps: tuple[str, ...] = ()


class KeyExchange(msgspec.Struct, frozen=True):
    """A `key_exchange` in the clear, of either version; `noise` is base64 in JSON."""

    v: int = 1
    step: int = -1
    hs: str = ""
    noise: bytes = b""
    pubkey: str = ""


class ErrorPayload(msgspec.Struct, frozen=True):
    """A `chat.error` in the clear."""

    code: str
    message: str = ""
    ref: str = ""
    retry_after_ms: int | None = None


_key_exchange_decoder = msgspec.json.Decoder(KeyExchange)
_error_decoder = msgspec.json.Decoder(ErrorPayload)


def prologue(token: str, hs: bytes) -> bytes:
    """What both ends must agree on before they trust a handshake: 58 bytes."""
    return _PROLOGUE + hashlib.sha256(token.encode()).digest() + hs


class Session(ABC):
    """One side of a pairing that has a secret; `token` is the whole pairing token."""

    def __init__(self, token: str, secrets: Secrets, identity: Identity, entropy: Entropy) -> None:
        self._token = token
        self._secrets = secrets
        self._identity = identity
        self._entropy = entropy
        self._records: Records | None = None
        self._clear_answers = 0
        self._reports: dict[str, tuple[int, int]] = {}  # id -> the range that is missing
        self.peer: PeerInfo | None = None
        self.deadline: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'ready' if self.ready else 'not ready'}>"

    # What the sides do differently.

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether messages may be sealed and sent now."""

    @abstractmethod
    def _step(self, message: KeyExchange, id: str, now: float) -> list[Event]:
        """A key exchange in the clear."""

    @abstractmethod
    def _told(self, error: ErrorPayload, now: float) -> list[Event]:
        """An error in the clear."""

    @abstractmethod
    def _foreign(self, envelope: Envelope, record: records.Record, now: float) -> list[Event]:
        """A record of a session that is not the established one."""

    @abstractmethod
    def _restart(self, now: float) -> list[Event]:
        """The session is gone although both ends are there: see to a new one."""

    def _confirmed(self) -> list[Event]:
        """The other end has said something in this session."""
        return []

    # Out.

    def seal(self, type: str, id: str, payload: bytes) -> bytes:
        """A JSON object as the wire payload of the next record.

        What comes out must be sent in the order of the calls. Raises NotReady.
        """
        if self._records is None or not self.ready:
            raise NotReady("There is no end-to-end session yet.")
        try:
            return self._records.seal_payload(type, id, payload)
        except E2EError:
            self.deadline = 0.0  # tick() ends the session and sees to a new one
            raise NotReady("The session's keys are used up; a new one is on its way.") from None

    def refused(self, id: str) -> None:
        """The relay has refused the message of this id."""
        # A refused report must count as lost, or nobody would say it again.
        if self._records is not None and id not in self._reports:
            self._records.refused(id)

    def _new_id(self) -> str:
        return base64url.encode(self._entropy(12))

    def _send(self, type: str, payload: dict[str, Any]) -> Send:
        return Send(type, self._new_id(), encode(payload))

    def _send_sealed(self, keys: Records, type: str, payload: dict[str, Any]) -> list[Send]:
        id = self._new_id()
        try:
            return [Send(type, id, keys.seal_payload(type, id, encode(payload)))]
        except E2EError:
            return []  # no key is left to say it with; the handshake that follows does

    def _send_error(self, keys: Records, code: str, message: str, **more: Any) -> list[Send]:
        return self._send_sealed(keys, "chat.error", {"code": code, "message": message, **more})

    # In.

    def receive(self, envelope: Envelope, now: float) -> list[Event]:
        """A message that the relay forwarded, or a `chat.error` of its own."""
        record = records.read(envelope.payload)
        if record is None:
            return self._clear(envelope, now)
        keys = self._records
        if keys is None or record.hs != keys.hs:
            return self._foreign(envelope, record, now)
        expected = keys.receiving.n
        try:
            plaintext = keys.open(envelope.type, envelope.id, record.n, record.ciphertext)
        except E2EError as error:
            return self._fail(keys, error.failure, now)
        gap = self._gap(keys, expected, record.n - 1) if record.n > expected else []
        try:
            payload = decode_object(plaintext)
        except InvalidMessage as error:
            answer = self._send_error(
                keys, ErrorCode.INVALID_MESSAGE, str(error), ref=_ref(envelope.id)
            )
            return [*gap, *answer, Ignored("a sealed payload that is no object", envelope.id)]
        message = Opened(envelope.type, envelope.id, payload, sealed=True, size=len(plaintext))
        return gap + self._opened(keys, message, now)

    def _opened(self, keys: Records, message: Opened, now: float) -> list[Event]:
        code = message.payload.get("code") if message.type == "chat.error" else None
        if code == PeerCode.E2E_FAILED:
            return [*self._end(Failure.PEER_ENDED), *self._restart(now)]
        confirmed = self._confirmed()
        if code == PeerCode.E2E_GAP:
            return confirmed + self._lost(keys, message.payload)
        if message.type == "key_exchange":
            # Step 4 says nothing that its opening has not said already.
            return confirmed
        return [*confirmed, message]

    def _gap(self, keys: Records, first: int, last: int) -> list[Event]:
        return [*self._report(keys, first, last), Gap(first, last)]

    def _report(self, keys: Records, first: int, last: int) -> list[Event]:
        message = "Messages were lost on the way."
        told = self._send_error(keys, PeerCode.E2E_GAP, message, **{"from": first, "to": last})
        for event in told:
            self._reports[event.id] = (first, last)
        if len(self._reports) > _REPORTS:
            del self._reports[next(iter(self._reports))]
        return [*told]

    def _lost(self, keys: Records, payload: dict[str, Any]) -> list[Event]:
        first, last = payload.get("from"), payload.get("to")
        if not (_is_counter(first) and _is_counter(last)):
            return [Ignored("a report of lost messages that cannot be read")]
        lost = keys.lost(first, last)
        # Where the report of a gap is what got lost, the other end still counts on what
        # the report was about.
        reports = {id: self._reports.pop(id) for id in lost if id in self._reports}
        events = [told for gap in reports.values() for told in self._report(keys, *gap)]
        ids = tuple(id for id in lost if id not in reports)
        return [*events, Lost(ids)] if ids else events

    # The beginning and the end of a session.

    def _establish(self, keys: Records, peer: PeerInfo) -> list[Event]:
        ended = self._end(Failure.SUPERSEDED)
        self._records = keys
        self._clear_answers = 0
        self._reports.clear()
        self.peer = peer
        return [*ended, Established(peer)]

    def _fail(self, keys: Records, failure: Failure, now: float) -> list[Event]:
        """A record cannot be trusted: say so, sealed, and end the session."""
        told = self._send_error(keys, PeerCode.E2E_FAILED, failure.value, failure=failure.name)
        return [*told, *self._end(failure), *self._restart(now)]

    def _end(self, failure: Failure) -> list[Event]:
        if self._records is None:
            return []
        self._records = None
        return [Ended(failure)]

    def _end_if_exhausted(self, now: float) -> list[Event]:
        if self._records is None or self._records.sending.n < MAX_SAFE_INTEGER:
            return []
        return [*self._end(Failure.EXHAUSTED), *self._restart(now)]

    # In the clear: nothing here is known to come from the other end.

    def _clear(self, envelope: Envelope, now: float) -> list[Event]:
        try:
            if envelope.type == "key_exchange":
                message = _key_exchange_decoder.decode(envelope.payload)
                return self._step(message, envelope.id, now)
            if envelope.type == "chat.error":
                error = _error_decoder.decode(envelope.payload)
                return self._clear_error(error, envelope.id, now)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return [Ignored(f"a {envelope.type} that cannot be read", envelope.id)]
        answer: list[Send] = []
        if self._records is not None and self._clear_answers < _CLEAR_ANSWERS:
            self._clear_answers += 1
            answer = self._send_error(
                self._records,
                PeerCode.E2E_REQUIRED,
                "A message came unsealed and was not taken; "
                "something on the way copied or changed it.",
                ref=_ref(envelope.id),
            )
        return [*answer, Ignored("a message that was not sealed", envelope.id)]

    def _clear_error(self, error: ErrorPayload, id: str, now: float) -> list[Event]:
        if (wait := error.retry_after_ms) is not None:
            # Anybody may write an integer here that no arithmetic with floats survives.
            wait = min(max(wait, 0), MAX_SAFE_INTEGER)
            error = msgspec.structs.replace(error, retry_after_ms=wait)
        events = self._told(error, now)
        if error.code in RELAY_CODES:
            hint = Hint(error.code, error.message, error.ref, error.retry_after_ms)
            return [*events, hint]
        return events or [Ignored("an error that was not sealed", id)]


def candidates(secrets: Secrets) -> list[bytes]:
    """The secrets that a handshake may be made with, the likelier first."""
    return [secrets.current] if secrets.next is None else [secrets.current, secrets.next]


def peer_info(payload: dict[str, Any]) -> PeerInfo:
    """Who the other end says it is. Raises InvalidMessage."""
    try:
        identity = msgspec.convert(payload, Identity)
    except msgspec.ValidationError:
        raise InvalidMessage("The other end does not say who it is") from None
    return PeerInfo(
        name=_printable(identity.name),
        version=_printable(identity.version),
        caps=identity.caps[:_CAPS],
        protocol=PROTOCOL,
        verified=True,
    )


def _printable(text: str) -> str:
    """So much of a name as does nothing to a terminal."""
    return "".join(character for character in text if character.isprintable())[:_NAME_CHARACTERS]


def _ref(id: str) -> str:
    return id[:_REF_CHARACTERS]


def _is_counter(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_SAFE_INTEGER
