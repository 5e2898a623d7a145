"""The link that a phone app reads from a QR code."""

from __future__ import annotations

from urllib.parse import quote

import segno
from django.http import HttpRequest
from django.utils.safestring import SafeString, mark_safe


def relay_url(request: HttpRequest) -> str:
    """The WebSocket address of this relay as the request's client reaches it."""
    scheme = "wss" if request.is_secure() else "ws"
    return f"{scheme}://{request.get_host()}/ws"


def pairing_link(*, token: str, relay: str) -> str:
    """The link that the field's phone apps know; both values percent-encoded."""
    return f"openclaw://pair?token={quote(token, safe='')}&relay={quote(relay, safe='')}"


def svg(text: str) -> SafeString:
    """A QR code as inline SVG: no style attributes, so a strict policy lets it be.

    Dark on light whatever the page's theme, for many readers cannot invert.
    """
    code = segno.make(text, error="m", micro=False)
    markup: str = code.svg_inline(scale=6, border=4, dark="#000", light="#fff", svgclass="qr")
    # segno writes numbers and colours only, nothing of the text.
    return mark_safe(markup)
