"""Why there is no connection, in sentences that say what to do about it.

Words of the relay, which anybody on the way may have written, are repeated only
where they help, cleaned of control characters and cut.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import urllib.parse
import urllib.request

from websockets.exceptions import (
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
)

from coralmux.protocol.close_codes import CloseCode

_MOST_QUOTED = 200


def plain(text: object) -> str:
    """Text from outside, fit for a terminal and a log line; "" if it is no text."""
    if not isinstance(text, str):
        return ""
    kept = "".join(c if c.isprintable() else " " for c in text[: 2 * _MOST_QUOTED])
    return " ".join(kept.split())[:_MOST_QUOTED]


def quoted(words: str) -> str:
    """The relay's own words behind ours, or nothing."""
    return f" The relay says: “{words}”" if words else ""


# Close codes

_BY_CODE: dict[int, str] = {
    CloseCode.NORMAL: "The relay closed the connection.",
    CloseCode.PROTOCOL_ERROR: (
        "The relay could not read what this client sent. If this repeats, update both."
    ),
    CloseCode.NOT_UTF8: (
        "This client sent a message that is not UTF-8, and the relay closed the connection. "
        "Mend what makes the messages."
    ),
    CloseCode.TOO_LARGE: (
        "This client sent a message that is larger than the relay takes. Send less at a time."
    ),
    CloseCode.RELAY_ERROR: "The relay failed. Its operator finds the reason in its log.",
    CloseCode.RESTARTING: "The relay restarts.",
    CloseCode.TRY_LATER: "The relay takes no more connections just now.",
    CloseCode.UNAUTHORIZED: "The relay does not take this token. Check it, or pair again.",
    CloseCode.REPLACED: (
        "Another device or program connected with this pairing in the same role, and took "
        "the place of this one. Only one can be connected at a time."
    ),
    CloseCode.REVOKED: "This pairing was revoked or has expired. Pair again.",
    CloseCode.AUTH_TIMEOUT: "The relay waited for the token in vain. The network may be too slow.",
    CloseCode.TOO_SLOW: (
        "The relay gave this connection up: it was too slow to read, or silent for too long."
    ),
    CloseCode.TOO_MANY_FAILURES: (
        "The relay saw too many failed attempts from this network, and lets it wait."
    ),
}

BROKE = "The connection to the relay broke. Check the network if this repeats."
SILENCE = (
    "Nothing came from the relay any more, not even the answer to a ping. "
    "Check the network if this repeats."
)
NO_AUTH_ANSWER = (
    "The relay did not answer the token in time. It is overloaded, or is no CoralMux relay."
)
UNREADABLE = (
    "What came from the relay breaks the WebSocket protocol, or is larger than a message may "
    "be. Something on the way may have changed it; if this repeats, update both ends."
)


def of_code(code: int) -> str:
    """What the relay's close code means. Codes from 3000 that Daphne raised count as theirs."""
    known = _BY_CODE.get(code) or _BY_CODE.get(code - 3000)
    return known or f"The relay closed the connection with code {code}."


# Failures to connect

_OPENSSL = {
    9: (
        "The relay's certificate is not valid yet. Check the clock of this machine, "
        "then the certificate."
    ),
    10: (
        "The relay's certificate has expired. Check the clock of this machine; if it is "
        "right, the relay's operator has to renew the certificate."
    ),
    62: (
        "The relay's certificate is for another host name. Use the name that stands in the "
        "certificate, or have one made for this name."
    ),
    64: (
        "The relay's certificate does not name this IP address. Use the host name that stands "
        "in the certificate, or have one made for this address."
    ),
}
_SIGNED_BY_STRANGERS = (
    "The relay's certificate is signed by nobody whom this machine trusts (it may be "
    "self-signed). If it is your relay, name its certificate file in the environment variable "
    "SSL_CERT_FILE, or pass ssl=ssl.create_default_context(cafile=...). If it is not, somebody "
    "may be listening in: do not go on."
)
# Verification results of OpenSSL that mean "no chain to a trusted certificate".
_STRANGERS = {2, 18, 19, 20, 21}

_STATUS = {
    401: "Something before the relay asks for a login.",
    403: "Something before the relay, or the relay itself, refuses this client.",
    404: "Nothing is there: check the address, which mostly ends in /ws.",
    426: "It does not take WebSocket connections at this address.",
    429: "It asks for fewer attempts.",
    502: "The relay behind it does not run.",
    503: "It is overloaded, or the relay behind it does not run.",
    504: "The relay behind it does not answer.",
}


def of_failure(error: BaseException, *, proxied: bool = False) -> str:
    """Why dialling failed. `proxied` tells that the way leads through a proxy."""
    text = _of_failure(error)
    if proxied and isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        text += (
            " The environment names a proxy (https_proxy or the like); it may be the proxy "
            "that cannot be reached. no_proxy makes exceptions."
        )
    return text


def _of_failure(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _STRANGERS:
            return _SIGNED_BY_STRANGERS
        why = plain(getattr(error, "verify_message", ""))
        known = _OPENSSL.get(error.verify_code)
        return known or f"The relay's certificate is not valid ({why}). Have it replaced."
    if isinstance(error, ssl.SSLError):
        return (
            "No TLS connection with the relay came about. Check the port, and whether the relay "
            "speaks TLS: a relay without it has an address that begins with ws://."
        )
    if isinstance(error, TimeoutError):
        return "The relay did not answer in time. Check its address, the network and the firewall."
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return (
            "The relay's name is not known (DNS). Check the address for typing errors, "
            "and whether this machine is online."
        )
    if isinstance(error, OSError):
        return _of_os_error(error)
    if isinstance(error, ProxyError | InvalidProxy):
        return _of_proxy(error)
    if isinstance(error, InvalidStatus):
        return _of_status(error)
    if isinstance(error, InvalidHandshake):
        return (
            "Whoever answers at the relay's address does not speak WebSocket, or closed the "
            "connection at once. Check the address and the port."
        )
    if isinstance(error, ImportError):
        return (
            "The environment names a SOCKS proxy, which needs one more package: "
            "pip install python-socks."
        )
    return f"Connecting failed in a way that nobody foresaw ({type(error).__name__})."


def _of_os_error(error: OSError) -> str:
    # asyncio tries every address of a name, and melts several errors into one text.
    numbers = {error.errno} if error.errno else set(map(int, _ERRNO.findall(str(error))))
    if numbers == {errno.ECONNREFUSED}:
        return (
            "Nobody listens at the relay's address (connection refused). Check the address and "
            "the port, and whether the relay runs."
        )
    if numbers & {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}:
        return "The relay cannot be reached from here. Check whether this machine is online."
    # During the TLS handshake asyncio raises ConnectionResetError without a number.
    if isinstance(error, ConnectionError) or errno.ECONNRESET in numbers:
        return (
            "The connection was cut before the relay answered. Check the address and the port. "
            "A relay without TLS has an address that begins with ws://, others with wss://."
        )
    return "The connection to the relay failed. Check the network and the address."


_ERRNO = re.compile(r"\[Errno (\d+)\]")


def _of_proxy(error: ProxyError | InvalidProxy) -> str:
    # Never the text of InvalidProxy: it repeats the proxy's address, password included.
    if isinstance(error, InvalidProxy):
        return (
            "The proxy that the environment names is not a valid address. Correct https_proxy "
            "or the like, for example http://proxy.example.com:3128."
        )
    if isinstance(error, InvalidProxyStatus):
        status = error.response.status_code
        if status == 407:
            return (
                "The proxy asks for a login (HTTP 407). Put user name and password into its "
                "address: http://user:password@proxy.example.com:3128."
            )
        return f"The proxy does not connect to the relay (HTTP {status}). Ask who runs the proxy."
    return "The proxy that the environment names does not do its work. Check its address."


def _of_status(error: InvalidStatus) -> str:
    response = error.response
    status = response.status_code
    if 300 <= status < 400:
        target = _origin(response.headers.get("Location", ""))
        return (
            f"The relay's address sends us on to {target or 'another address'} (HTTP {status}), "
            "which this client does not follow. If you trust that address, use it instead."
        )
    known = _STATUS.get(status, "Check the address.")
    return f"What answers at the relay's address is no WebSocket (HTTP {status}). {known}"


def _origin(location: str) -> str:
    """Scheme and host of a redirect's target: the rest may hold anything."""
    try:
        parts = urllib.parse.urlsplit(location)
        return plain(f"{parts.scheme}://{parts.hostname}") if parts.hostname else ""
    except ValueError:
        return ""


def environment_proxies(relay: str) -> bool:
    """Whether the environment sends connections to this ws(s) URL through a proxy."""
    parts = urllib.parse.urlsplit(relay)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return False
    schemes = (
        {"wss", "socks", "https"} if parts.scheme == "wss" else {"ws", "socks", "https", "http"}
    )
    return not schemes.isdisjoint(urllib.request.getproxies())
