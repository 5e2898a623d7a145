"""What the services refuse, as exceptions. No text repeats a token or a key."""

from __future__ import annotations


class PairingError(Exception):
    """Base of everything the services raise on purpose."""

    default = "The relay refuses this."

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.default)


class InvalidValue(PairingError, ValueError):
    """A label, an expiry or a limit cannot be used; the text says why."""


class AuthFailed(PairingError):
    """The token lets nobody in."""

    default = "This token lets nobody in."


class UnknownToken(AuthFailed):
    default = "No such token."


class TokenRevoked(AuthFailed):
    default = "The token was revoked."


class TokenExpired(AuthFailed):
    default = "The token has expired."


class Throttled(PairingError):
    """An address is over a limit; `retry_after_seconds` (at least 1) is how long to wait."""

    def __init__(self, retry_after_seconds: int, message: str = "") -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyFailures(Throttled):
    default = "Too many failed attempts from this address. Wait, then try again."


class TooManyRegistrations(Throttled):
    default = "Too many registrations from this address. Wait, then try again."


class RegistrationClosed(PairingError):
    default = (
        "Registration is closed on this relay. "
        "Its operator opens it with -public or CORALMUX_PUBLIC=1."
    )


class AdminClosed(PairingError):
    default = (
        "The admin endpoints are closed, for this relay has no admin key. "
        "Set CORALMUX_ADMIN_KEY or start it with -admin-key."
    )


class AdminKeyWrong(PairingError):
    default = "The header X-Admin-Key is missing or wrong."
