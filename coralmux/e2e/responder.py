"""The agent's side of version 2: it answers handshakes, and rotates a link's secret."""

from __future__ import annotations

import base64
import secrets as system_random
from collections import deque

import msgspec

from coralmux.e2e.errors import E2EError, Failure
from coralmux.e2e.events import Event, Ignored, PairingRefused, Secrets, Store
from coralmux.e2e.noise import HandshakeState
from coralmux.e2e.records import Record, Records
from coralmux.e2e.session import (
    ANSWER_SECONDS,
    HS_BYTES,
    PATIENCE_SECONDS,
    PROTOCOL,
    RESTART_SECONDS,
    SECRET_BYTES,
    Entropy,
    ErrorPayload,
    Identity,
    KeyExchange,
    Session,
    candidates,
    encode,
    peer_info,
    prologue,
)
from coralmux.protocol import base64url
from coralmux.protocol.envelope import Envelope, decode_object
from coralmux.protocol.errors import InvalidMessage, PeerCode

# Handshakes and sessions whose names are kept.
_REMEMBERED = 1024

# Refusals in the clear that are said in any minute. A phone with another secret tries a few
# times, and then once a minute; a relay could make up thousands a second.
_REFUSALS = 30
_REFUSAL_SECONDS = 60.0


class AgentSession(Session):
    """See `session`. `secrets.next` is an offer that no phone has confirmed yet.

    With `rotate` the secret of a link is replaced in its first handshake, so that the
    link is good once; somebody must carry out `Store` then. Without, the link stays
    good for whoever has it.
    """

    def __init__(
        self,
        token: str,
        secrets: Secrets,
        identity: Identity,
        *,
        rotate: bool,
        entropy: Entropy = system_random.token_bytes,
    ) -> None:
        super().__init__(token, secrets, identity, entropy)
        self._rotate = rotate
        self._pending: Records | None = None
        self._pending_secret = b""
        # A step 1 that came before is a replay; records of sessions that a newer one
        # replaced are late or replayed, and no reason to start anything.
        self._answered: deque[str] = deque(maxlen=_REMEMBERED)
        self._replaced: deque[str] = deque(maxlen=_REMEMBERED)
        self._asked = float("-inf")
        self._patience = ANSWER_SECONDS
        self._online = False
        self._told_version_1 = False
        self._refused_at: deque[float] = deque(maxlen=_REFUSALS)

    @property
    def ready(self) -> bool:
        return self._records is not None

    def connected(self, now: float, *, paired: bool) -> list[Event]:
        """`auth.ok` came; a phone that is there begins."""
        return self.peer_online(now) if paired else []

    def peer_online(self, now: float) -> list[Event]:
        """`status online` came: the phone begins, and the old session stays until it has."""
        self._online = True
        self._told_version_1 = False
        self._patience = ANSWER_SECONDS
        self._wait(now)
        return []

    def peer_offline(self, now: float) -> list[Event]:
        """`status offline` came."""
        self._online = False
        self._pending = None
        self.deadline = None
        return self._end(Failure.CONNECTION_ENDED)

    def disconnected(self, now: float) -> list[Event]:
        """The connection to the relay ended."""
        return self.peer_offline(now)

    def tick(self, now: float) -> list[Event]:
        """End a session whose counter has run out, or ask for one that does not come."""
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        if exhausted := self._end_if_exhausted(now):
            return exhausted
        return self._restart(now) if self._online and self._records is None else []

    def _restart(self, now: float) -> list[Event]:
        """Step 0."""
        if now < self._asked + RESTART_SECONDS:
            self._wait(self._asked, RESTART_SECONDS)
            return []
        self._asked = now
        self._wait(now)
        self._patience = min(2 * self._patience, PATIENCE_SECONDS)
        return [self._send("key_exchange", {"v": PROTOCOL, "step": 0})]

    def _wait(self, now: float, seconds: float | None = None) -> None:
        """Ask again later, unless there is a session by then.

        Step 3, a failure's report and step 0 may all get lost, and a phone that believes
        in a session asks for none until it has something to say. One that never made a
        step 1 is not asked: it may speak version 1, and know no step 0.
        """
        if self._records is None and self._answered:
            self.deadline = now + (self._patience if seconds is None else seconds)

    def _step(self, message: KeyExchange, id: str, now: float) -> list[Event]:
        if message.v != PROTOCOL:
            if not message.pubkey or self._told_version_1:
                return [Ignored("a key exchange of another version", id)]
            self._told_version_1 = True
            return self._refuse(PeerCode.E2E_REQUIRED, Failure.NO_VERSION_1, id, now)
        if message.step != 1:
            return [Ignored("a step of no handshake that runs", id)]
        if message.hs in self._answered:
            return [Ignored("a step 1 that came before", id)]
        try:
            hs = base64url.decode(message.hs, HS_BYTES)
        except ValueError:
            return [Ignored("a step 1 that cannot be read", id)]
        for secret in candidates(self._secrets):
            handshake = HandshakeState(
                initiator=False,
                prologue=prologue(self._token, hs),
                psk=secret,
                ephemeral=self._entropy(32),
            )
            try:
                handshake.read_message(message.noise)
            except E2EError:
                continue
            return self._step_2(handshake, message.hs, secret, id, now)
        return self._refuse(PeerCode.E2E_REFUSED, Failure.SECRET_REFUSED, id, now)

    def _refuse(self, code: PeerCode, failure: Failure, id: str, now: float) -> list[Event]:
        """Say so in the clear, unless it was said too often lately."""
        times = self._refused_at
        if len(times) == _REFUSALS and now < times[0] + _REFUSAL_SECONDS:
            return [Ignored("a handshake beyond those that are refused in a minute", id)]
        times.append(now)
        payload = {"code": code, "message": failure.value, "ref": id[:64]}
        return [self._send("chat.error", payload), PairingRefused(failure)]

    def _step_2(
        self, handshake: HandshakeState, hs: str, secret: bytes, id: str, now: float
    ) -> list[Event]:
        payload = msgspec.to_builtins(self._identity)
        agreed = secret
        rotate = self._rotate and self._secrets.link and secret == self._secrets.current
        if rotate:
            # A fresh one for each that asks: of two who hold the link, the one that
            # confirms must not share its secret with the other.
            agreed = self._entropy(SECRET_BYTES)
            payload["next_psk"] = base64url.encode(agreed)
        try:
            noise = base64.b64encode(handshake.write_message(encode(payload))).decode()
        except E2EError:
            return [Ignored("a step 1 with a public key that makes no keys", id)]
        events: list[Event] = []
        if rotate:
            self._secrets = Secrets(secret, agreed, link=True)
            events.append(Store(self._secrets))
        self._answered.append(hs)
        self._wait(now)
        receiving, sending = handshake.split()
        self._pending = Records(hs, sending, receiving)
        self._pending_secret = agreed
        step_2 = {"v": PROTOCOL, "step": 2, "hs": hs, "noise": noise}
        return [*events, self._send("key_exchange", step_2)]

    def _foreign(self, envelope: Envelope, record: Record, now: float) -> list[Event]:
        if self._pending is not None and record.hs == self._pending.hs:
            return self._step_3(self._pending, envelope, record)
        ignored = Ignored("a record of another session", envelope.id)
        if self._records is not None and record.hs in self._replaced:
            return [ignored]
        # The phone believes in a session that came to nothing, or that a former process
        # of this agent knew.
        return [*self._restart(now), ignored]

    def _step_3(self, pending: Records, envelope: Envelope, record: Record) -> list[Event]:
        self._pending = None
        failure = Failure.TAMPERED
        try:
            if record.n != 0 or envelope.type != "key_exchange":
                raise E2EError(failure)
            payload = decode_object(pending.open(envelope.type, envelope.id, 0, record.ciphertext))
            if payload.get("step") != 3:
                raise InvalidMessage("The first record of a session is not step 3")
            peer = peer_info(payload)
        except (E2EError, InvalidMessage):
            # The phone believes in this session, and hears that it came to nothing. The
            # old session, if there is one, goes on here.
            told = self._send_error(
                pending, PeerCode.E2E_FAILED, failure.value, failure=failure.name
            )
            return [*told, Ignored("a step 3 that does not open", envelope.id)]
        events: list[Event] = []
        if self._secrets.link and self._pending_secret == self._secrets.next:
            self._secrets = Secrets(self._pending_secret, None, link=False)
            events.append(Store(self._secrets))
            events += self._send_sealed(pending, "key_exchange", {"step": 4})
        if self._records is not None:
            self._replaced.append(self._records.hs)
        self.deadline = None
        self._patience = ANSWER_SECONDS
        return events + self._establish(pending, peer)

    def _told(self, error: ErrorPayload, now: float) -> list[Event]:
        return []
