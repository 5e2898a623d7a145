"""Why a relay did not do what it was asked over HTTP: what is so, and what to do."""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from coralmux.bridge.backend import Finding
from coralmux.bridge.web.causes import Certificate, causes, numbers, origin
from coralmux.text import discreet, duration, one_line

# Characters of the relay's own words that are repeated.
_MOST_QUOTED = 200


class RelayProblem(Exception):
    """`what` is so, and the `remedy`; `code` is the relay's own, "" where it said none."""

    def __init__(self, what: str, remedy: str = "", *, code: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy
        self.code = code

    def finding(self) -> Finding:
        return Finding(False, self.what, self.remedy)


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object of the body, {} where it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def no_relay(address: str) -> RelayProblem:
    return RelayProblem(
        f"Something answers at {address}, but it is no CoralMux relay.",
        "Check the relay's address, its port and its path.",
    )


def of_setup(error: Exception) -> RelayProblem:
    """Why not even a request could be made; none of the error's text, which may name a
    proxy with its password."""
    if isinstance(error, ImportError):
        return RelayProblem(
            "The environment names a SOCKS proxy, which needs one more package.",
            "Type: pip install socksio",
        )
    return RelayProblem(
        "The proxy that the environment names is not a valid address.",
        "Correct https_proxy or the like, for example http://proxy.example.com:3128.",
    )


# No answer


def of_error(
    error: Exception, address: str, *, proxied: bool = False, tls: bool = False
) -> RelayProblem:
    """Why there is no answer. `proxied` tells that the way leads through a proxy, `tls` that
    the relay was spoken to by TLS."""
    problem = _of_error(error, address, tls)
    if proxied and not any(isinstance(cause, ssl.SSLError) for cause in causes(error)):
        problem = RelayProblem(
            problem.what,
            f"{problem.remedy} The environment names a proxy (https_proxy or the like): it may "
            "be the proxy that cannot be reached. no_proxy makes exceptions.",
        )
    return problem


def _of_error(error: Exception, address: str, tls: bool) -> RelayProblem:
    found = list(causes(error))
    for cause in found:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause, address)
    for cause in found:
        if isinstance(cause, ssl.SSLError):
            return RelayProblem(
                f"No TLS connection with {address} came about.",
                "Check the port. The address of a relay without TLS begins with ws://.",
            )
        if isinstance(cause, socket.gaierror | UnicodeError):
            return RelayProblem(
                f"The name of the relay {address} is not known (DNS).",
                "Check the address for typing errors, and whether this machine is online.",
            )
    if isinstance(error, httpx.ProxyError):
        return RelayProblem(
            f"The proxy on the way to {address} does not do its work.",
            "Ask who runs it.",
        )
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        # One without TLS waits for the rest of what it takes for a request.
        or_none = " If the relay has no TLS, its address begins with ws://." if tls else ""
        return RelayProblem(
            f"The relay {address} did not answer in time.",
            f"Check its address, the network and the firewall.{or_none}",
        )
    known = numbers(error)
    if errno.ECONNREFUSED in known:
        return RelayProblem(
            f"Nobody listens at {address} (connection refused).",
            "Check the relay's address and port, and whether the relay runs.",
        )
    if known & {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}:
        return RelayProblem(
            f"There is no way from here to {address}.", "Check whether this machine is online."
        )
    if isinstance(error, httpx.NetworkError | httpx.ProtocolError):
        return RelayProblem(
            f"The connection was cut before {address} had answered, or what it said is no HTTP.",
            "Check the port. The address of a relay with TLS begins with wss://.",
        )
    return RelayProblem(f"No connection to {address} came about.", "Check the relay's address.")


def _of_certificate(error: ssl.SSLCertVerificationError, address: str) -> RelayProblem:
    of_whom = f"The certificate of {address}"
    fault = Certificate.fault(error)
    if fault is Certificate.NOT_YET_VALID:
        return RelayProblem(f"{of_whom} is not valid yet.", "Check the clock of this machine.")
    if fault is Certificate.EXPIRED:
        return RelayProblem(
            f"{of_whom} has expired.",
            "Check the clock of this machine. If it is right, the relay's operator has to "
            "renew the certificate.",
        )
    if fault is Certificate.OTHER_NAME:
        return RelayProblem(
            f"{of_whom} is for another name.",
            "Use the name that stands in the certificate, or have one made for this name.",
        )
    if fault is Certificate.STRANGERS:
        return RelayProblem(
            f"{of_whom} is signed by nobody whom this machine trusts; it may be self-signed.",
            "If it is your relay, name its certificate file in the environment variable "
            "SSL_CERT_FILE. If it is not, somebody may be listening in: do not go on.",
        )
    why = one_line(str(getattr(error, "verify_message", "")))[:_MOST_QUOTED]
    return RelayProblem(f"{of_whom} is not valid ({why}).", "Have it replaced.")


# An answer that is no success


def of_status(response: Answer, address: str) -> RelayProblem:
    """What such an answer means."""
    said = response.object.get("error")
    said = said if isinstance(said, dict) else {}
    code, status = said.get("code"), response.status
    if isinstance(code, str) and code in _BY_CODE:
        what, remedy = _BY_CODE[code]
        if code == "RATE_LIMITED":
            remedy = f"Try again {_when(response, said)}."
        return RelayProblem(what, remedy, code=code)
    if 300 <= status < 400:
        target = origin(response.headers.get("Location", ""))
        return RelayProblem(
            f"{address} sends us on to {target or 'another address'}, which is not followed.",
            "If you trust that address, give it as the relay's.",
        )
    if status in (502, 503, 504):
        return RelayProblem(
            f"The relay behind {address} does not run, or is overloaded (HTTP {status}).",
            "Try again in a moment; if it stays so, ask who runs it.",
        )
    if isinstance(code, str) and isinstance(said.get("message"), str):
        words = discreet(one_line(said["message"]))[:_MOST_QUOTED]
        return RelayProblem(
            f"The relay refuses (HTTP {status}): “{words}”", "Ask who runs the relay."
        )
    if status in (401, 403, 407):
        return RelayProblem(
            f"Something before the relay at {address} refuses us or wants a log-in "
            f"(HTTP {status}).",
            "Ask who runs it to let /api, /health and /ws through.",
        )
    return no_relay(address)


_BY_CODE = {
    "REGISTRATION_CLOSED": (
        "This relay does not give tokens to everybody (its registration is closed).",
        "Get a token from whoever runs it, and give it by coralmux-agent pair --token - (which "
        "asks for it). If that is you, make one on the relay's machine: coralmux-relay token "
        'issue --label "my phone"; or give the relay\'s admin key by coralmux-agent pair '
        "--admin-key - (which asks for it) or coralmux-agent pair --admin-key env (which takes "
        "the environment variable CORALMUX_ADMIN_KEY).",
    ),
    "UNAUTHORIZED": (
        "The relay does not take this admin key.",
        "It is the relay's CORALMUX_ADMIN_KEY: copy it once more.",
    ),
    "ADMIN_CLOSED": (
        "This relay has no admin key, so it takes none.",
        "Leave --admin-key and --revoke out. The relay's tokens are made and revoked on its "
        "machine by coralmux-relay token issue and coralmux-relay token revoke; coralmux-agent "
        "pair --token - takes one.",
    ),
    "RATE_LIMITED": ("The relay wants fewer attempts from this network.", ""),
    "UNAVAILABLE": (
        "The relay is not ready: its database is away, or it is restarting.",
        "Try again in a moment.",
    ),
    "INTERNAL": ("The relay failed.", "Its operator finds the reason in its log."),
    "NOT_FOUND": (
        "The relay does not know this token: it was revoked, has expired, or is another relay's.",
        "Pair the phone anew: coralmux-agent unpair NAME, then coralmux-agent pair.",
    ),
}


def _when(response: Answer, said: Mapping[str, Any]) -> str:
    """ "in 7 min", as the relay says it."""
    given = said.get("retry_after_ms")
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 10**9:
        return f"in {duration(given / 1000)}"
    header = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,6}", header):
        return f"in {duration(int(header))}"
    return "later"
