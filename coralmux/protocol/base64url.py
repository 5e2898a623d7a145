"""Base64 for ids, secrets, handshakes and links: RFC 4648, section 5, unpadded, strict."""

from __future__ import annotations

import base64


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str, length: int) -> bytes:
    """The bytes that `encode` wrote. Raises ValueError unless they are `length` of them."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        data = b""
    # The decoder skips what it does not know; only the one spelling is right.
    if len(data) != length or encode(data) != text:
        raise ValueError(f"not {length} bytes in unpadded base64url")
    return data
