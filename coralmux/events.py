"""What `on_event` is told, of the connection and of the encryption, as it happens.

    match event:
        case events.Disconnected(cause=cause, retry_in=seconds): ...
        case events.Established(peer): ...

None of them holds a token, a secret, or what a message says.
"""

from coralmux.client.connection import (
    Connected,
    Connecting,
    Disconnected,
    PeerStatus,
    Stopped,
)
from coralmux.e2e.events import (
    Ended,
    Established,
    Gap,
    Hint,
    Ignored,
    Lost,
    PairingRefused,
)

__all__ = [
    "Connected",
    "Connecting",
    "Disconnected",
    "Ended",
    "Established",
    "Gap",
    "Hint",
    "Ignored",
    "Lost",
    "PairingRefused",
    "PeerStatus",
    "Stopped",
]
