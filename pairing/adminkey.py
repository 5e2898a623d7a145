"""The operator's key, which opens the endpoints that make and revoke tokens."""

from __future__ import annotations

import hashlib
import hmac

from django.conf import settings

from pairing.exceptions import AdminClosed, AdminKeyWrong
from pairing.tokens import count_failure


def check_admin_key(*, key: str, address: str) -> None:
    """Return when the key is the configured one.

    Raises AdminClosed when none is configured, AdminKeyWrong, or TooManyFailures
    when the address has guessed too often; the right key always passes. A
    missing (empty) key is no guess and is not counted.
    """
    configured: str = settings.CORALMUX["ADMIN_KEY"]
    if not configured:
        raise AdminClosed
    # HTTP hands headers over as Latin-1, whatever the client's terminal wrote;
    # both readings are tried. Equal lengths (digests) make the comparison tell
    # nothing about the key, not even its length.
    expected = _digest(configured.encode("utf-8", "surrogateescape"))
    as_text = hmac.compare_digest(expected, _digest(key.encode("utf-8", "surrogatepass")))
    as_bytes = hmac.compare_digest(expected, _digest(key.encode("latin-1", "replace")))
    if as_text | as_bytes:
        return
    if key:
        count_failure(address=address)
    raise AdminKeyWrong


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
