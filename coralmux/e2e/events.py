"""What the machines of both versions put out, in the order in which it must be carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coralmux.e2e.errors import Failure


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Who is at the other end.

    `verified` means that the other end holds the secret of the pairing link, which
    the relay has never seen. `caps` are names of optional abilities.
    """

    name: str
    version: str
    caps: tuple[str, ...]
    protocol: int
    verified: bool


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a pairing, 32 bytes each.

    `link` says that `current` is still the one that stands in the link. `next` is an
    agent's offer that no phone has confirmed yet, or the phone's older secret, which it
    keeps until the agent is known to have taken the new one.
    """

    current: bytes = field(repr=False)
    next: bytes | None = field(default=None, repr=False)
    link: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Put this message on the wire; `payload` is finished JSON."""

    type: str
    id: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A message of the peer. `sealed` tells whether it came encrypted (v1 leaves some clear).

    `size` is the bytes of the JSON that `payload` was decoded from.
    """

    type: str
    id: str
    payload: dict[str, Any] = field(repr=False)
    sealed: bool
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Established:
    """Messages can be exchanged from now on."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over, and with it whatever is unanswered in it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Gap:
    """The peer's records `first` to `last` never came; the peer has been told."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Lost:
    """These of our messages never arrived, says the peer. Refused ones are not among them."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hint:
    """A `chat.error` in the clear: the relay's, or forged; never to be taken as the peer's."""

    code: str
    message: str = field(repr=False)
    ref: str = ""
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """Write these down before carrying out what comes behind."""

    secrets: Secrets


@dataclass(frozen=True, slots=True)
class PairingRefused:
    """The other end does not take our secret, or does not speak our version.

    Told in the clear, so it may be forged: stop and ask the user, delete nothing.
    """

    failure: Failure


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that must not be acted on was dropped. `why` never holds its contents.

    `type` is that of the message where somebody may be waiting for it.
    """

    why: str
    id: str = ""
    type: str = field(default="", compare=False)


Event = Send | Opened | Established | Ended | Gap | Lost | Hint | Store | PairingRefused | Ignored
