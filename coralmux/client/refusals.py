"""What a relay's refusals mean, in our own words."""

from __future__ import annotations

from coralmux.client.errors import ClientError, PeerOffline, RelayRefused
from coralmux.e2e.events import Hint
from coralmux.protocol import ErrorCode
from coralmux.text import duration


def refusal(hint: Hint) -> ClientError:
    """A relay's error for whoever sent the message; the relay's text may be anybody's."""
    ids = (hint.ref,)
    if hint.code == ErrorCode.PEER_OFFLINE:
        return PeerOffline(
            "The other end is not connected, or did not take the message. "
            "Send it again when it is back.",
            ids=ids,
        )
    after = hint.retry_after_ms
    again = "later" if after is None else f"in {duration(after / 1000)}"
    texts: dict[str, str] = {
        ErrorCode.RATE_LIMITED: f"Too many messages for the relay. Send it again {again}.",
        ErrorCode.DAILY_QUOTA_EXCEEDED: (
            f"The day's bandwidth of this pairing is used up. Send it again {again}."
        ),
        ErrorCode.MONTHLY_QUOTA_EXCEEDED: (
            f"The month's bandwidth of this pairing is used up. Send it again {again}."
        ),
        ErrorCode.MESSAGE_TOO_LARGE: "The message is too large for the relay. Send less at once.",
    }
    text = texts.get(hint.code, "The relay did not take the message. Bring both ends up to date.")
    return RelayRefused(text, code=hint.code, retry_after_ms=after, ids=ids)
