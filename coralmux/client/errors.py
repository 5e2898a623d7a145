"""What a client raises. Every text says what happened and what to do next."""

from __future__ import annotations

from coralmux.e2e.errors import Failure


class ClientError(Exception):
    """The root of everything that `coralmux.client` raises on purpose.

    `ids` are the ids of the messages that it is about, as far as they are known.
    """

    def __init__(self, text: str, *, ids: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.ids = ids


class NotConnected(ClientError):
    """There is no connection to send on."""


class ConnectionLost(ClientError):
    """The connection or the session ended before an answer came.

    Whether the messages in `ids` arrived is not known. Sending again under the same id
    is safe: a receiver takes each id once.
    """


class Stopped(ClientError):
    """The relay does not want this client back: the token is wrong or revoked, or
    another device took the place. `code` is the close code."""

    def __init__(self, text: str, *, code: int, ids: tuple[str, ...] = ()) -> None:
        super().__init__(text, ids=ids)
        self.code = code


class PairingRefused(ClientError):
    """The other end does not take this pairing: pair again, or pair otherwise."""

    def __init__(self, text: str, *, failure: Failure, ids: tuple[str, ...] = ()) -> None:
        super().__init__(text, ids=ids)
        self.failure = failure


class PeerOffline(ClientError):
    """The other end is not connected, or was not known to get the message."""


class RequestTimeout(ClientError):
    """No answer came in time."""


class MessageLost(ClientError):
    """The other end reports that the message never arrived."""


class RelayRefused(ClientError):
    """The relay refused a message, or somebody on the way says so: `code` is
    RATE_LIMITED, DAILY_QUOTA_EXCEEDED, …; `retry_after_ms` says when it would pass."""

    def __init__(
        self,
        text: str,
        *,
        code: str,
        retry_after_ms: int | None = None,
        ids: tuple[str, ...] = (),
    ) -> None:
        super().__init__(text, ids=ids)
        self.code = code
        self.retry_after_ms = retry_after_ms


class AgentError(ClientError):
    """The agent answered with an error: `code` is BACKEND_ERROR, UNSUPPORTED, …"""

    def __init__(self, text: str, *, code: str, ids: tuple[str, ...] = ()) -> None:
        super().__init__(text, ids=ids)
        self.code = code


class MessageTooLarge(ClientError):
    """The message is larger than the relay takes; nothing was sent."""


class InvalidAnswer(ClientError):
    """The answer breaks the protocol; the other end has to be mended."""


class ReplyIncomplete(ClientError):
    """Parts of a reply were lost on the way; `full_text` is the whole of it if it came."""

    def __init__(self, text: str, *, full_text: str | None, ids: tuple[str, ...] = ()) -> None:
        super().__init__(text, ids=ids)
        self.full_text = full_text


def copied(error: ClientError) -> ClientError:
    """The same error for one more who waits: its traceback and ids are that one's own."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy
