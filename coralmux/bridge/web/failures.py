"""Why an AI server did not do what it was asked over HTTP: what is so, and what to do.

A server's own words are repeated where they help, in one line, cut, and without keys;
they are for the user who asked, never for a log.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import httpx

import coralmux
from coralmux.bridge.web.causes import Certificate, causes, numbers, origin
from coralmux.bridge.web.client import ServerSettings
from coralmux.text import discreet, duration, one_line

# Bytes of an error's body that are read, and characters of it that are shown.
MOST_READ = 64 * 1024
_MOST_QUOTED = 300
_QUOTE = " It says: “"

# What looks like a key of the providers, whoever's it is.
_KEY = re.compile(r"\b(?:sk|pk|gsk|xai|key)[-_][\w*.-]{6,}|\bBearer\s+\S+", re.IGNORECASE)

CUT_OFF = "The AI server closed the connection before the end of its answer."
ASK_AGAIN = "Ask again."


class Failure(coralmux.BackendError):
    """What happened, and what to do: a sentence or two each, fit for a phone and a terminal.

    `kind` is what is logged of it: what happened, without the server's own words.
    """

    def __init__(self, what: str, remedy: str = "", *, kind: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy
        self.kind = kind or what.partition(_QUOTE)[0]


def of_error(error: BaseException, settings: ServerSettings) -> Failure:
    """Why no answer came about, or broke off."""
    if isinstance(error, httpx.HTTPError) and not isinstance(error, httpx.ConnectError):
        return _of_exchange(error, settings)
    failure = _of_connecting(error, settings)
    if not settings.local and _proxied(settings):
        return Failure(
            failure.what,
            failure.remedy + " The environment names a proxy (https_proxy or the like); "
            "it may be the one that cannot be reached.",
        )
    return failure


def _proxied(settings: ServerSettings) -> bool:
    parts = urlsplit(settings.root)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return False
    return not {parts.scheme, "all"}.isdisjoint(urllib.request.getproxies())


def _of_connecting(error: BaseException, settings: ServerSettings) -> Failure:
    where = f"the AI server at {settings.address}"
    check = "Check base_url and the network."
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause, settings)
        if isinstance(cause, socket.gaierror):
            return Failure(
                f"The name of {where} is not known.",
                "Check base_url for typing errors, and whether this machine is online.",
            )
    known = numbers(error)
    if errno.ECONNREFUSED in known:
        return Failure(
            f"Nobody listens at {settings.address}, where the AI server should be.",
            "Start it, or correct base_url.",
        )
    if known & {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}:
        return Failure(f"There is no way from here to {where}.", check)
    return Failure(f"No connection to {where} came about.", check)


def _of_exchange(error: httpx.HTTPError, settings: ServerSettings) -> Failure:
    if isinstance(error, httpx.ConnectTimeout):
        return Failure(
            f"The AI server at {settings.address} could not be reached within "
            f"{duration(settings.connect_timeout)}.",
            "Check base_url, the network and the firewall.",
        )
    if isinstance(error, httpx.TimeoutException):
        return Failure(
            f"The AI server at {settings.address} did not answer in time.",
            "It may be overloaded. Try again later.",
        )
    if isinstance(error, httpx.ProxyError):
        return Failure(
            f"The proxy on the way to {settings.address} does not do its work.",
            "Check https_proxy, all_proxy and no_proxy in the environment; "
            "a SOCKS proxy needs: pip install 'httpx[socks]'.",
        )
    if isinstance(
        error, httpx.DecodingError | httpx.UnsupportedProtocol | httpx.LocalProtocolError
    ):
        return Failure(f"What answers at {settings.address} cannot be read.", "Check base_url.")
    return Failure(
        "The AI server closed the connection before it had answered.",
        "Ask again. If this repeats, look into its log.",
    )


def _of_tls(error: ssl.SSLError, settings: ServerSettings) -> Failure:
    if isinstance(error, ssl.SSLCertVerificationError):
        what, remedy = _CERTIFICATES[Certificate.fault(error)]
        return Failure(f"The certificate of {settings.address} {what}.", remedy)
    return Failure(
        f"No TLS connection with {settings.address} came about.",
        "If the AI server does not speak TLS, base_url begins with http://.",
    )


_CERTIFICATES = {
    Certificate.NOT_YET_VALID: ("is not valid yet", "Check the clock of this machine."),
    Certificate.EXPIRED: (
        "has expired",
        "Check the clock of this machine. If it is right, whoever runs the server has to renew it.",
    ),
    Certificate.OTHER_NAME: ("is for another name", "Use the name that stands in it in base_url."),
    Certificate.STRANGERS: (
        "is signed by nobody whom this machine trusts",
        "If it is your own server, name its certificate file in SSL_CERT_FILE.",
    ),
    Certificate.INVALID: ("is not valid", "Have it replaced."),
}


def of_status(response: httpx.Response, body: bytes, settings: ServerSettings) -> Failure:
    """What an answer means whose status is no success. `body` may be cut."""
    status = response.status_code
    what, remedy = _of_status(response, settings)
    return Failure(what + quoted(words(body, settings)), remedy + _wait(response, status))


def _of_status(response: httpx.Response, settings: ServerSettings) -> tuple[str, str]:
    status, address = response.status_code, settings.address
    path = urlsplit(str(response.url)).path
    if 300 <= status < 400:
        target = origin(response.headers.get("Location", ""))
        return (
            f"{address} sends us on to {target or 'another address'}, which is not followed.",
            "If you trust that address, put it into base_url.",
        )
    if status == 401:
        given = "does not take the API key" if settings.api_key else "wants an API key"
        return f"The AI server {given}.", "Check api_key."
    if status == 402:
        return "The AI server wants to be paid first.", "Look after the account's balance."
    if status == 403:
        return (
            "The AI server does not allow this.",
            "Check api_key, and what the account may use.",
        )
    if status in (404, 405):
        return f"There is nothing at {path} of {address}.", "Check base_url."
    if status == 413:
        return "The question is larger than the AI server takes.", "Send less at once."
    if status == 429:
        return "The AI server takes no more questions just now (limit reached).", "Try again"
    if status >= 500:
        return f"The AI server failed (HTTP {status}).", "Try again in a moment."
    return f"The AI server did not take the question (HTTP {status}).", "Ask in another way."


def _wait(response: httpx.Response, status: int) -> str:
    """The rest of "Try again" where the server asked to wait."""
    if status != 429:
        return ""
    given = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,6}(\.\d+)?", given):
        return f" in {duration(float(given))}."
    return " later."


def words(body: bytes, settings: ServerSettings) -> str:
    """What a server says of its error, in one line; "" where that is nothing for people."""
    try:
        found = _message(json.loads(body))
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        # A page for browsers says nothing here.
        found = "" if text.startswith("<") else text
    return clean(found, settings)


def clean(text: str, settings: ServerSettings) -> str:
    """Words of the server: one line, short, and without whatever may be a key."""
    for secret in settings.secrets:
        text = text.replace(secret, "…")
    text = discreet(_KEY.sub("…", one_line(text)))
    return text if len(text) <= _MOST_QUOTED else text[: _MOST_QUOTED - 1] + "…"


def quoted(text: str) -> str:
    return f"{_QUOTE}{text}”" if text else ""


def _message(found: Any) -> str:
    """The text in {"error": {"message": …}} and its relatives."""
    if isinstance(found, str):
        return found
    if isinstance(found, list) and found:
        return _message(found[0])
    if isinstance(found, dict):
        for key in ("error", "message", "detail", "msg"):
            if text := _message(found.get(key)):
                return text
    return ""
