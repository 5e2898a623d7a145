"""What can go wrong between the two ends."""

from __future__ import annotations

from enum import Enum


class Failure(Enum):
    """Why a session, a handshake or a pairing ended. The value is a sentence for people.

    The name travels to the peer, sealed, in `chat.error {code: "E2E_FAILED", failure}`.
    """

    REPLAYED = "A record came twice, or later than one that was sent after it."
    TAMPERED = "A record was changed on its way."
    EXHAUSTED = "The session has sealed as many records as its keys may."
    CONNECTION_ENDED = "The connection that the session belonged to ended."
    SUPERSEDED = "A new session took the old one's place."
    PEER_ENDED = "The other end gave the session up."
    NO_ANSWER = (
        "The agent is connected and does not answer the handshake: it may be too old for "
        "pairing secrets (version 2), or stuck. Update or restart it."
    )
    # The next two are told in the clear, by whoever likes to: no reason to give anything up.
    SECRET_REFUSED = (
        "It looks as if the agent did not know this link's secret: the link was used before, "
        "on another device perhaps, or belongs to another pairing; "
        "or somebody on the way may be lying. "
        "Make a new link on the agent's side and pair again."
    )
    NO_VERSION_2 = (
        "It looks as if the agent could not encrypt with a pairing secret (version 2); "
        "or somebody on the way may be lying. Update the agent, then make a new link there "
        "and pair again."
    )
    NO_VERSION_1 = (
        "The other end has a pairing secret and takes nothing without it. "
        "Pair by its link instead of the token alone."
    )


class E2EError(Exception):
    """A record or handshake message must not be trusted; `failure` says why.

    The text never holds keys, secrets or message contents.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class NotReady(Exception):
    """There is no session to seal a message with; wait for `Established`."""
