"""The address of a relay: many spellings in, one out.

Strict where two programs could read an address differently (Python's and the
browser's idea of a URL differ in many corners): a link must lead every reader to
the same host, and that the host that a person sees.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Literal, NamedTuple

# Characters of an address.
MAX_RELAY = 2048

# What people paste along with a link. Spelt out, for `str.strip` and JavaScript's
# `trim` do not agree.
AROUND = " \t\r\n\f\v\u00a0\ufeff"

# Spaces, controls, and what turns or hides the text next to it (bidi, zero width).
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"}

# Characters of a host name (RFC 1035, section 2.3.4, less the length bytes of both ends).
_HOST = 253

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?")
_PORT = re.compile(r"[0-9]{1,5}")
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")

# Characters that the two standards for names (IDNA 2003 and 2008) spell
# differently, so that two programs would dial two hosts.
_DISPUTED = frozenset("ßςẞ\u200c\u200d")

Part = Literal["scheme", "form", "relay", "token", "psk"]


class LinkError(ValueError):
    """A pairing link cannot be read or made; `part` names what is wrong with it.

    `scheme`: what it begins with; `form`: its layout as a whole; `relay`, `token`,
    `psk`: that value. The text says what to do and repeats nothing of the link.
    """

    def __init__(self, part: Part, message: str) -> None:
        super().__init__(message)
        self.part: Part = part


# Part `form` stands for the address of a page.
Whose = Literal["relay", "form"]
_WHOSE: dict[Whose, str] = {"relay": "relay's", "form": "page's"}


def unseen(character: str) -> bool:
    """Whether people cannot see this character, or see something else because of it."""
    return unicodedata.category(character) in _UNSEEN


def normalise_relay(text: str) -> str:
    """The one spelling of a relay's address: `ws://` or `wss://`, host, path, `/ws`.

    Takes http and https too, with `/ws` or without. The host comes out in lower case,
    an international name in its `xn--` spelling, a default port not at all. Raises
    LinkError (`relay`) for user names, queries, and whatever two readers could
    understand differently.
    """
    address = parse_address(text.strip(AROUND), "relay", schemes=("wss", "ws", "https", "http"))
    path = address.path.removesuffix("/")
    relay = address._replace(path=path if path.endswith("/ws") else f"{path}/ws").url("ws")
    # An address that grew beyond the limit could not be read back.
    if len(relay) > MAX_RELAY:
        raise _too_long("relay")
    return relay


class Address(NamedTuple):
    """A URL taken apart. `port` is "" for the default one; `path` is "" or begins with /."""

    secure: bool
    host: str
    port: str
    path: str

    def url(self, scheme: Literal["ws", "http"]) -> str:
        """As text again, with `scheme` or its secure sister."""
        port = f":{self.port}" if self.port else ""
        return f"{scheme}{'s' if self.secure else ''}://{self.host}{port}{self.path}"


def parse_address(text: str, part: Whose, *, schemes: tuple[str, ...] = ("wss", "ws")) -> Address:
    """Take an absolute URL without user, query or fragment apart. Raises LinkError with `part`."""
    what = _WHOSE[part]
    if len(text) > MAX_RELAY:
        raise _too_long(part)
    match = _URL.match(text)
    if not match or match[1].lower() not in schemes:
        named = " or ".join(f"{scheme}://" for scheme in schemes[:2])
        raise LinkError(part, f"The {what} address must begin with {named} and name a host.")
    if match.end() != len(text):
        raise LinkError(
            part, f"The {what} address must have no query (?) and no fragment (#). Leave it out."
        )
    scheme, authority, path = match[1].lower(), match[2], match[3]
    if "@" in authority:
        raise LinkError(part, f"The {what} address holds a user name (before the @). Leave it out.")
    split = _AUTHORITY.fullmatch(authority)
    host, port = (_host(split[1]), split[2]) if split else ("", None)
    if not host:
        raise LinkError(
            part,
            f"The host in the {what} address is not valid. Write a name such as "
            "relay.example.com (an international one as xn--...) or an IP address.",
        )
    secure = scheme in ("wss", "https")
    number = ""
    if port is not None:
        if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
            raise LinkError(part, f"The port in the {what} address must be 1 to 65535.")
        number = "" if int(port) == (443 if secure else 80) else str(int(port))
    steps = path.lower().replace("%2e", ".").removesuffix("/").split("/")[1:]
    if not _PATH.fullmatch(path) or not {"", ".", ".."}.isdisjoint(steps):
        raise LinkError(
            part,
            f"The path in the {what} address is not valid. Percent-encode what is not "
            "ASCII, and leave out empty steps, . and ..",
        )
    return Address(secure, host, number, path)


def _too_long(part: Whose) -> LinkError:
    return LinkError(
        part,
        f"The {_WHOSE[part]} address is longer than {MAX_RELAY} characters. Use a shorter one.",
    )


def _host(text: str) -> str:
    """The one spelling of a host, or "" for what is none."""
    if text.startswith("["):
        return _ipv6(text[1:-1])
    labels = [_label(label) for label in text.split(".")]
    if not all(labels) or sum(map(len, labels)) + len(labels) - 1 > _HOST:
        return ""
    # Browsers read 127.1 and 0x7f000001 as IPv4 addresses; only the plain
    # spelling is the same to everybody.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(".".join(labels)))
        except ValueError:
            return ""
    return ".".join(labels)


def _label(text: str) -> str:
    label = text.lower()
    if not text.isascii():
        if not _DISPUTED.isdisjoint(text) or any(unseen(character) for character in text):
            return ""
        try:
            label = text.encode("idna").decode()
        except UnicodeError:
            return ""
        # What ends as plain ASCII was a disguise: full-width letters, a slash or a dot.
        if not label.startswith("xn--"):
            return ""
    return label if _LABEL.fullmatch(label) else ""


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return ""
    # A zone means something on one machine only, and browsers take none.
    if address.scope_id is not None:
        return ""
    if address.ipv4_mapped:
        # Python's spelling of these depends on its version; this is the browsers'.
        number = int(address.ipv4_mapped)
        return f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]"
    return f"[{address.compressed}]"
