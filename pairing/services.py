"""Everything that pairing does for others: plain synchronous verbs.

Callers bring the client's address (`pairing.addresses`) and catch the
exceptions named here. Nothing in here knows a request, a socket or a console.
"""

from __future__ import annotations

from pairing.adminkey import check_admin_key
from pairing.exceptions import (
    AdminClosed,
    AdminKeyWrong,
    AuthFailed,
    InvalidValue,
    PairingError,
    RegistrationClosed,
    Throttled,
    TokenExpired,
    TokenRevoked,
    TooManyFailures,
    TooManyRegistrations,
    UnknownToken,
)
from pairing.grants import Grant, Limits, TokenState
from pairing.housekeeping import Pruned, prune
from pairing.tokens import (
    Issued,
    authenticate,
    changed_since,
    check_values,
    find,
    issue,
    register,
    revoke,
    revoke_by_token,
    seen,
    status,
)
from pairing.usage import (
    UsageRow,
    list_tokens,
    record_usage,
    usage_report,
)

__all__ = [
    "AdminClosed",
    "AdminKeyWrong",
    "AuthFailed",
    "Grant",
    "InvalidValue",
    "Issued",
    "Limits",
    "PairingError",
    "Pruned",
    "RegistrationClosed",
    "Throttled",
    "TokenExpired",
    "TokenRevoked",
    "TokenState",
    "TooManyFailures",
    "TooManyRegistrations",
    "UnknownToken",
    "UsageRow",
    "authenticate",
    "changed_since",
    "check_admin_key",
    "check_values",
    "find",
    "issue",
    "list_tokens",
    "prune",
    "record_usage",
    "register",
    "revoke",
    "revoke_by_token",
    "seen",
    "status",
    "usage_report",
]
