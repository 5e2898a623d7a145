"""Why the gateway cannot be spoken to: what is so, and what to do about it.

What the gateway itself says is repeated in one line, cut, and without tokens; it is for the
user who asked, never for a log.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
)

from coralmux import BackendError
from coralmux.text import discreet, duration, one_line

# Characters of the gateway's own words that are shown.
_MOST_QUOTED = 300

# As the gateway makes them; anything else is not put into a command line to be typed.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

_SET_TOKEN = (
    "Set token in [openclaw] to what openclaw gateway auth-token --show says on its machine."
)

# Seconds to wait where the gateway lets nobody in and does not say for how long.
_LOCKED_OUT_SECONDS = 60

# Seconds to wait after a token that was not taken: many wrong attempts would lock out others
# as well.
_WRONG_TOKEN_SECONDS = 30

ASK_AGAIN = "Ask again."


class Trouble(BackendError):
    """What happened, and what to do. `code` is the gateway's word for it, "" for ours.

    `said` are its words about it. `kind` is what is logged: what happened, without them.
    `retry_seconds` is how long there must be no other attempt, whoever asks.
    """

    def __init__(
        self,
        what: str,
        remedy: str = "",
        *,
        said: str = "",
        code: str = "",
        retry_seconds: float = 0,
    ) -> None:
        self.kind = what
        if said := said.rstrip("."):
            what = f"{what.rstrip('.')}: {said}."
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy
        self.code = code
        self.retry_seconds = retry_seconds


class NoResponse(Trouble):
    """A request was sent, and the time for the response to it is over."""


def words(text: object, secrets: tuple[str, ...] = ()) -> str:
    """Words of the gateway: one line, short, without what may be a token."""
    if not isinstance(text, str):
        return ""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")
    text = discreet(one_line(text))
    return text if len(text) <= _MOST_QUOTED else text[: _MOST_QUOTED - 1] + "…"


def of_error(error: BaseException, where: str) -> Trouble:
    """Why no connection came about, or why it ended."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble(
            f"The certificate of the OpenClaw gateway at {where} is not trusted: "
            f"{one_line(error.verify_message)}.",
            "If it is your own, name its certificate file in SSL_CERT_FILE; check the clock of "
            "this machine.",
        )
    if isinstance(error, ssl.SSLError):
        return Trouble(
            f"No TLS connection with the OpenClaw gateway at {where} came about.",
            "If it does not speak TLS, base_url begins with ws://.",
        )
    if isinstance(error, TimeoutError):
        return Trouble(
            f"The OpenClaw gateway at {where} does not answer.",
            "Check base_url, and whether the gateway is well: openclaw gateway status",
        )
    if isinstance(error, InvalidProxy):
        return Trouble(
            "The proxy that the environment names cannot be used.",
            "Check https_proxy and no_proxy.",
        )
    if isinstance(error, InvalidStatus):
        return Trouble(
            f"What answers at {where} is no OpenClaw gateway (HTTP {error.response.status_code}).",
            "Check base_url.",
        )
    if isinstance(error, ConnectionClosed):
        return Trouble(f"The OpenClaw gateway at {where} closed the connection.", ASK_AGAIN)
    if isinstance(error, InvalidHandshake | ValueError):
        return Trouble(f"What answers at {where} is no OpenClaw gateway.", "Check base_url.")
    return Trouble(
        f"No OpenClaw gateway can be reached at {where}.",
        "Start it (openclaw gateway run), or correct base_url.",
    )


def of_refusal(error: Mapping[str, Any], secrets: tuple[str, ...]) -> Trouble:
    """Why the gateway does not take the connection: `error` of its answer to `connect`."""
    details = error.get("details")
    details = details if isinstance(details, Mapping) else {}
    code = str(details.get("code") or error.get("code") or "")
    retry = error.get("retryAfterMs", details.get("retryAfterMs"))
    seconds = min(max(retry, 0) / 1000, 3600) if isinstance(retry, int | float) else 0
    if code == "AUTH_RATE_LIMITED":
        seconds = seconds or _LOCKED_OUT_SECONDS
    elif code.startswith("AUTH_"):
        seconds = seconds or _WRONG_TOKEN_SECONDS
    what, remedy = _of_code(code, details, seconds)
    said = ""
    if not what:
        what = "The OpenClaw gateway does not take the connection."
        said = words(error.get("message"), secrets)
        remedy = "Look into its log (openclaw logs)."
    return Trouble(what, remedy, said=said, code=code, retry_seconds=seconds)


def _of_code(code: str, details: Mapping[str, Any], seconds: float) -> tuple[str, str]:
    if code == "PAIRING_REQUIRED" or code == "NOT_PAIRED":
        return _of_pairing(details)
    if code.startswith("AUTH_PASSWORD"):
        return (
            "The OpenClaw gateway does not take the password."
            if code.endswith("MISMATCH")
            else "The OpenClaw gateway wants a password.",
            "Set password in [openclaw] to the gateway's gateway.auth.password.",
        )
    if code == "AUTH_TOKEN_NOT_CONFIGURED":
        return (
            "The OpenClaw gateway has no token of its own yet.",
            "On its machine type: openclaw configure --section gateway",
        )
    if code == "AUTH_SCOPE_MISMATCH":
        return (
            "What the OpenClaw gateway allows this bridge is not enough to chat.",
            "On its machine look at openclaw devices list, and approve this bridge anew.",
        )
    if code == "AUTH_RATE_LIMITED":
        return (
            "After too many wrong attempts the OpenClaw gateway lets nobody in for "
            f"{duration(seconds)}.",
            "Correct the token, and wait.",
        )
    if code in ("AUTH_TOKEN_MISSING", "AUTH_REQUIRED"):
        return (
            "The OpenClaw gateway wants its token.",
            _SET_TOKEN,
        )
    if code.startswith("AUTH_"):
        return (
            "The OpenClaw gateway does not take the token.",
            _SET_TOKEN,
        )
    if code == "PROTOCOL_MISMATCH":
        return (
            "The OpenClaw gateway does not speak version 4 of its protocol.",
            "Bring OpenClaw and this bridge up to date.",
        )
    if code == "DEVICE_AUTH_SIGNATURE_EXPIRED":
        return (
            "To the OpenClaw gateway this bridge's signature came too late: a clock was set "
            "meanwhile, or the connection is very slow.",
            "Compare the clocks of both machines.",
        )
    if code.startswith("DEVICE_"):
        return (
            "The OpenClaw gateway does not take this bridge's device key.",
            "Bring OpenClaw up to date. If that does not help, delete device.json in the "
            "bridge's data directory, and approve the bridge anew.",
        )
    if code == "UNAVAILABLE":
        return "The OpenClaw gateway is not ready yet.", "Try again in a moment."
    return "", ""


def _of_pairing(details: Mapping[str, Any]) -> tuple[str, str]:
    request = details.get("requestId")
    if isinstance(request, str) and _REQUEST_ID.fullmatch(request):
        line = f"openclaw devices approve {request}"
    else:
        line = "openclaw devices list, and then openclaw devices approve with the id it shows"
    return (
        "The OpenClaw gateway has to approve this bridge first.",
        f"On the gateway's machine type: {line}",
    )
