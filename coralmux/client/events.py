"""What a connection tells whoever iterates it, and what `auth.ok` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coralmux.client import causes
from coralmux.protocol.envelope import Envelope
from coralmux.protocol.limits import MAX_SAFE_INTEGER


@dataclass(frozen=True, slots=True)
class Limits:
    """What the relay announces to take from this role."""

    max_message_bytes: int | None = None
    messages_per_minute: int | None = None
    stream_frames_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which relay this is, in its own words."""

    name: str = ""
    version: str = ""
    protocol: int = 1


@dataclass(frozen=True, slots=True)
class Greeting:
    """The payload of `auth.ok`: bytes of quota, and whether the peer is there.

    All but `paired` is None where the relay does not say it, as v1 relays do not.
    Source: PROTOCOL.md, "auth.ok".
    """

    paired: bool
    daily_quota_bytes: int | None = None
    daily_used_bytes: int | None = None
    monthly_quota_bytes: int | None = None
    monthly_used_bytes: int | None = None
    limits: Limits | None = None
    connection_id: str = ""
    server: ServerInfo | None = None

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Greeting:
        """From the decoded payload; what is not of the right type counts as not said."""
        limits, server = payload.get("limits"), payload.get("server")
        return cls(
            paired=payload.get("paired") is True,
            daily_quota_bytes=count(payload.get("daily_quota_bytes")),
            daily_used_bytes=count(payload.get("daily_used_bytes")),
            monthly_quota_bytes=count(payload.get("monthly_quota_bytes")),
            monthly_used_bytes=count(payload.get("monthly_used_bytes")),
            limits=Limits(
                count(limits.get("max_message_bytes")),
                count(limits.get("messages_per_minute")),
                count(limits.get("stream_frames_per_second")),
            )
            if isinstance(limits, dict)
            else None,
            connection_id=causes.plain(payload.get("connection_id")),
            server=ServerInfo(
                causes.plain(server.get("name")),
                causes.plain(server.get("version")),
                count(server.get("protocol")) or 1,
            )
            if isinstance(server, dict)
            else None,
        )


def count(value: object) -> int | None:
    """A number that may stand on the wire, or None."""
    if type(value) is int and 0 <= value <= MAX_SAFE_INTEGER:
        return value
    return None


@dataclass(frozen=True, slots=True)
class Connecting:
    """A dial begins, the `attempt`-th (from 1) since there was a connection."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Connected:
    """Logged in: messages can be posted from now on."""

    greeting: Greeting


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The peer came (also: came back without having been gone), or went."""

    online: bool


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """A forwarded message, or a `chat.error`, which may be the relay's own."""

    envelope: Envelope

    def __repr__(self) -> str:
        # Not the payload: in v1 some of it is readable.
        return f"Received(type={self.envelope.type!r}, id={self.envelope.id!r})"


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or an attempt failed; another follows in `retry_in` seconds.

    `code` is the WebSocket close code, 1006 if none came; `reason` the relay's own words,
    `cause` a sentence for people. `unsent` are the ids that were posted and not known to be
    written to the socket. Others may be lost as well: what was written may not have arrived.
    """

    code: int
    reason: str
    unsent: tuple[str, ...]
    retry_in: float
    cause: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """As Disconnected, but nothing follows: for good if `final`, else until `reconnect`."""

    code: int
    cause: str
    reason: str = ""
    unsent: tuple[str, ...] = ()
    final: bool = True


ConnectionEvent = Connecting | Connected | PeerStatus | Received | Disconnected | Stopped
