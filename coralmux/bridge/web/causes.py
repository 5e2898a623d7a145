"""What lies behind a failed HTTP request, whoever was asked."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from enum import Enum
from urllib.parse import urlsplit

from coralmux.text import one_line


class Certificate(Enum):
    """What is wrong with a certificate. Values: OpenSSL's results of a verification."""

    NOT_YET_VALID = frozenset({9})
    EXPIRED = frozenset({10})
    OTHER_NAME = frozenset({62, 64})
    # No chain to a certificate that is trusted.
    STRANGERS = frozenset({2, 18, 19, 20, 21})
    INVALID = frozenset[int]()

    @classmethod
    def fault(cls, error: ssl.SSLCertVerificationError) -> Certificate:
        return next((one for one in cls if error.verify_code in one.value), cls.INVALID)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what led to it: httpx wraps httpcore wraps anyio wraps the system's."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from causes(each)
        error = error.__cause__ or error.__context__


def numbers(error: BaseException) -> set[int]:
    """The `errno`s in it."""
    return {cause.errno for cause in causes(error) if isinstance(cause, OSError) and cause.errno}


def origin(location: str) -> str:
    """Scheme and host of a redirect's target: the rest may hold anything. "" for none."""
    try:
        parts = urlsplit(location)
        return one_line(f"{parts.scheme}://{parts.hostname}")[:200] if parts.hostname else ""
    except ValueError:
        return ""
