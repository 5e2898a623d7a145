"""Codes of `chat.error` and `auth.fail`, and the payload they travel in."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from coralmux.protocol.limits import MAX_REF_BYTES


class ErrorCode(StrEnum):
    """What went wrong, for programs; the message beside it is for people."""

    UNAUTHORIZED = "UNAUTHORIZED"
    PEER_OFFLINE = "PEER_OFFLINE"
    RATE_LIMITED = "RATE_LIMITED"
    DAILY_QUOTA_EXCEEDED = "DAILY_QUOTA_EXCEEDED"
    MONTHLY_QUOTA_EXCEEDED = "MONTHLY_QUOTA_EXCEEDED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    BACKEND_ERROR = "BACKEND_ERROR"


class PeerCode(StrEnum):
    """Codes of a `chat.error` that one end sends the other; the relay knows none of them."""

    E2E_REQUIRED = "E2E_REQUIRED"  # came in the clear, or in version 1, where version 2 is due
    E2E_REFUSED = "E2E_REFUSED"  # the secret of a handshake is not known
    E2E_FAILED = "E2E_FAILED"  # a record cannot be trusted: the session is over
    E2E_GAP = "E2E_GAP"  # records `from` to `to` never came
    UNSUPPORTED = "UNSUPPORTED"  # nobody handles this request
    DUPLICATE = "DUPLICATE"  # a request with this id came before
    UNKNOWN_REF = "UNKNOWN_REF"  # no running chat has the id that is to be cancelled


# What a relay says itself. Clients take it in the clear, as a hint that anybody on
# the way may have forged; BACKEND_ERROR is the agent's word and comes sealed.
RELAY_CODES = frozenset(ErrorCode) - {ErrorCode.BACKEND_ERROR}


class InvalidMessage(ValueError):
    """A message breaks the contract. The text says how, and repeats none of it.

    `ref` is the message's id where it could be read.
    """

    def __init__(self, text: str, *, ref: str = "") -> None:
        super().__init__(text)
        self.ref = ref


class NotUtf8(ValueError):
    """A message is not UTF-8: its sender is closed with 1007, and it goes nowhere."""


def error_payload(
    code: ErrorCode, message: str, *, ref: str = "", retry_after_ms: int | None = None
) -> dict[str, Any]:
    """The payload of a `chat.error`: `ref` names the refused message by its id.

    An id that is absent or longer than 128 bytes is left out; `retry_after_ms`
    is in milliseconds from now.
    """
    payload: dict[str, Any] = {"code": code.value, "message": message}
    if ref and len(ref.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES:
        payload["ref"] = ref
    if retry_after_ms is not None:
        payload["retry_after_ms"] = retry_after_ms
    return payload
