"""WebSocket close codes that the relay uses, and what a client does about each."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Codes under 3000 are RFC 6455's (section 7.4.1), those from 4000 are ours."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    NOT_UTF8 = 1007
    TOO_LARGE = 1009
    RELAY_ERROR = 1011
    RESTARTING = 1012
    TRY_LATER = 1013
    UNAUTHORIZED = 4001
    REPLACED = 4002
    REVOKED = 4003
    AUTH_TIMEOUT = 4004
    TOO_SLOW = 4008
    TOO_MANY_FAILURES = 4029


# The reason that travels in the close frame, at most 123 bytes (RFC 6455, 5.5.1).
REASONS: dict[CloseCode, str] = {
    CloseCode.NORMAL: "bye",
    CloseCode.PROTOCOL_ERROR: "not a valid WebSocket frame",
    CloseCode.NOT_UTF8: "messages must be UTF-8",
    CloseCode.TOO_LARGE: "message too large",
    CloseCode.RELAY_ERROR: "the relay failed; connect again",
    CloseCode.RESTARTING: "the relay restarts; connect again in a moment",
    CloseCode.TRY_LATER: "the relay cannot take this connection now; try later",
    CloseCode.UNAUTHORIZED: "unauthorized",
    CloseCode.REPLACED: "replaced by a newer connection with the same token and role",
    CloseCode.REVOKED: "the token was revoked or has expired",
    CloseCode.AUTH_TIMEOUT: "no auth message came in time",
    CloseCode.TOO_SLOW: "too slow to read, or silent for too long",
    CloseCode.TOO_MANY_FAILURES: "too many failed attempts from this address; try later",
}
