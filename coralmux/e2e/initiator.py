"""The phone's side of version 2: it starts handshakes, and takes the secret handed over."""

from __future__ import annotations

import base64
import secrets as system_random

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
    peer_info,
    prologue,
)
from coralmux.protocol import base64url
from coralmux.protocol.envelope import Envelope, decode_object
from coralmux.protocol.errors import ErrorCode, PeerCode

# How often a phone asks before it says that no answer comes.
ATTEMPTS = 3


class PhoneSession(Session):
    """See `session`. `secrets.current` is tried first; `secrets.next` is the one before it."""

    def __init__(
        self,
        token: str,
        secrets: Secrets,
        identity: Identity,
        *,
        entropy: Entropy = system_random.token_bytes,
    ) -> None:
        super().__init__(token, secrets, identity, entropy)
        self._candidates = candidates(secrets)
        self._handshake: HandshakeState | None = None
        self._agreed = secrets.current
        self._hs = ""
        self._step_1_id = ""
        self._attempts = 0
        self._started = float("-inf")
        self._online = False
        self._heard = False
        self._old_key = False  # a key of version 1 came: the agent's, or forged

    @property
    def ready(self) -> bool:
        # While a handshake runs, the agent may not be the old session's any more.
        return self._records is not None and self._handshake is None

    def connected(self, now: float, *, paired: bool) -> list[Event]:
        """`auth.ok` came."""
        self._old_key = False
        self._online = paired
        return self._begin(now) if paired else []

    def peer_online(self, now: float) -> list[Event]:
        """`status online` came: whoever is there now needs a handshake."""
        self._old_key = False
        self._online = True
        return self._begin(now)

    def peer_offline(self, now: float) -> list[Event]:
        """`status offline` came."""
        self._online = False
        self._stop()
        return self._end(Failure.CONNECTION_ENDED)

    def disconnected(self, now: float) -> list[Event]:
        """The connection to the relay ended."""
        return self.peer_offline(now)

    def tick(self, now: float) -> list[Event]:
        """Ask again where no answer came, or start the handshake that had to wait."""
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        if exhausted := self._end_if_exhausted(now):
            return exhausted
        if self._attempts and self._old_key:
            # The key alone proves nothing; without an answer it is the likeliest reason.
            return self._give_up(Failure.NO_VERSION_2, now)
        if self._attempts >= ATTEMPTS:
            return self._give_up(Failure.NO_ANSWER, now)
        return self._step_1(now)

    def _begin(self, now: float) -> list[Event]:
        self._forget_attempts()
        return self._step_1(now)

    def _forget_attempts(self) -> None:
        self._attempts = 0
        self._candidates = candidates(self._secrets)

    def _give_up(self, failure: Failure, now: float) -> list[Event]:
        """Say so, and try again later: step 1 or its answer may have been damaged or forged."""
        self._stop()
        self._forget_attempts()
        self.deadline = now + PATIENCE_SECONDS
        return [PairingRefused(failure)]

    def _restart(self, now: float) -> list[Event]:
        if not self._online:
            return []
        if now >= self._started + RESTART_SECONDS:
            return self._begin(now)
        self._forget_attempts()
        self.deadline = self._started + RESTART_SECONDS
        return []

    def _stop(self) -> None:
        self._handshake = None
        self.deadline = None

    def _step_1(self, now: float) -> list[Event]:
        hs = self._entropy(HS_BYTES)
        self._hs = base64url.encode(hs)
        self._handshake = HandshakeState(
            initiator=True,
            prologue=prologue(self._token, hs),
            psk=self._candidates[0],
            ephemeral=self._entropy(32),
        )
        self._attempts += 1
        self._started = now
        self.deadline = now + ANSWER_SECONDS
        noise = base64.b64encode(self._handshake.write_message(b"")).decode()
        step = self._send(
            "key_exchange", {"v": PROTOCOL, "step": 1, "hs": self._hs, "noise": noise}
        )
        self._step_1_id = step.id
        return [step]

    def _step(self, message: KeyExchange, id: str, now: float) -> list[Event]:
        if message.v != PROTOCOL:
            self._old_key = self._old_key or bool(message.pubkey)
            return [Ignored("a key exchange of another version", id)]
        if message.step == 0:
            return [] if self._handshake is not None else self._restart(now)
        handshake = self._handshake
        if message.step != 2 or handshake is None or handshake.finished or message.hs != self._hs:
            return [Ignored("a step of no handshake that runs", id)]
        return self._step_2(handshake, message.noise, id)

    def _step_2(self, handshake: HandshakeState, noise: bytes, id: str) -> list[Event]:
        try:
            payload = decode_object(handshake.read_message(noise))
            peer = peer_info(payload)
            offered = payload.get("next_psk")
            secret = None if offered is None else base64url.decode(str(offered), SECRET_BYTES)
        except E2EError:
            # Not the agent's: the handshake goes on waiting for the one that is.
            return [Ignored("a step 2 that was not made with this pairing's secret", id)]
        except ValueError:
            # It holds the secret, and can do no better: a time-out like any other.
            return [Ignored("a step 2 that says nothing sensible", id)]
        events: list[Event] = []
        self._agreed = self._candidates[0]
        if secret is not None:
            # Written down before the agent may forget the old one, which stays beside it
            # until a record shows that the agent has come along.
            self._secrets = Secrets(secret, self._agreed, link=False)
            self._agreed = secret
            events.append(Store(self._secrets))
        keys = Records(self._hs, *handshake.split())
        self._stop()
        self._heard = self._old_key = False
        step_3 = {"step": 3, **msgspec.to_builtins(self._identity)}
        events += self._send_sealed(keys, "key_exchange", step_3)
        return events + self._establish(keys, peer)

    def _confirmed(self) -> list[Event]:
        self._heard = True
        if self._secrets.next is None:
            return []
        self._secrets = Secrets(self._agreed, None, link=self._secrets.link)
        return [Store(self._secrets)]

    def _foreign(self, envelope: Envelope, record: Record, now: float) -> list[Event]:
        ignored = Ignored("a record of another session", envelope.id)
        late = now >= self._started + RESTART_SECONDS
        if self._records is None or self._handshake is not None or self._heard or not late:
            return [ignored]
        # The agent goes on in its old session, and has said nothing in ours: step 3 seems
        # to be lost, and what it says would be lost until we happen to say something.
        return [*self._begin(now), ignored]

    def _told(self, error: ErrorPayload, now: float) -> list[Event]:
        if self._handshake is None or error.ref != self._step_1_id:
            return []
        if error.code == PeerCode.E2E_REFUSED:
            self._candidates = self._candidates[1:]
            if self._candidates:
                return self._step_1(now)
            return self._give_up(Failure.SECRET_REFUSED, now)
        if error.code == ErrorCode.PEER_OFFLINE:
            # Either `status offline` follows, or it is worth another try.
            self._attempts -= 1
        elif error.retry_after_ms is not None:
            self._attempts -= 1
            wait = min(error.retry_after_ms / 1000, PATIENCE_SECONDS)
            self.deadline = max(now + wait, self._started + RESTART_SECONDS)
        return []
