"""Pairing links: how the relay's address, the token and the secret reach a phone.

    https://<relay>/phone#token=...&psk=...        for a camera and a browser
    coralmux://pair?relay=...&token=...#psk=...    for programs
    openclaw://pair?token=...&relay=...            the field's, without a secret

See PROTOCOL.md, section 3. A server never sees what stands behind the `#` of a
link, and that is the only place where the secret may stand. Everything here is
strict where two readers could understand a link differently (Python and the
browser's JavaScript share tests/vectors/links.json), and no error repeats
anything of the link it is about.
"""

from __future__ import annotations

import base64
import io
import re
import secrets
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

import segno

from coralmux.e2e.address import (
    AROUND,
    Address,
    LinkError,
    Part,
    normalise_relay,
    parse_address,
    unseen,
)

__all__ = ["LinkError", "PairingLink", "Part", "normalise_relay"]

SECRET_BYTES = 32

# Characters: a page's and a relay's address, the latter tripled by percent-encoding, and
# the rest. Twice that, so that nothing that can be made is too long to be read.
MAX_LINK = 16_384

# Columns of the terminal that a QR code has to fit into.
TERMINAL_COLUMNS = 80

# Light modules around a QR code (ISO/IEC 18004); cameras find no code without them.
QUIET_ZONE = 4

_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_TOKEN = re.compile(r"[!-~]{1,256}")
_PSK = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, repr=False)
class PairingLink:
    """A relay, a token, and the secret that only the two ends may know.

    `relay`: `ws://` or `wss://` URL that ends in `/ws`; `normalise_relay` tells what
    else is taken. `token`: 1 to 256 printable ASCII characters without a space.
    `secret`: 32 bytes, or None for a pairing by token alone, which speaks version 1.
    Making one raises LinkError when a value is none of these.
    """

    relay: str
    token: str
    secret: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "relay", normalise_relay(self.relay))
        if not _TOKEN.fullmatch(self.token):
            raise LinkError(
                "token",
                "The token must be 1 to 256 printable ASCII characters without "
                "spaces. Copy it again from where the relay showed it.",
            )
        if self.secret is not None and (
            not isinstance(self.secret, bytes) or len(self.secret) != SECRET_BYTES
        ):
            raise LinkError("psk", f"The secret of a pairing is {SECRET_BYTES} bytes.")

    def __repr__(self) -> str:
        secret = None if self.secret is None else "<hidden>"
        return f"PairingLink(relay={self.relay!r}, token={_shown(self.token)!r}, secret={secret})"

    @classmethod
    def new(cls, relay: str, token: str) -> PairingLink:
        """A link with a fresh secret, for one phone and good for one pairing."""
        return cls(relay, token, secrets.token_bytes(SECRET_BYTES))

    def with_secret(self, secret: bytes | None) -> PairingLink:
        """The same relay and token with another secret, or with none."""
        return replace(self, secret=secret)

    @classmethod
    def parse(cls, text: str) -> PairingLink:
        """Read a link of any of the three forms. Raises LinkError.

        White space around it is taken off, since people paste. The field's form takes
        its relay percent-encoded or not, with `/ws` or without; a query of that relay
        is dropped, for a relay has no use for one. Unknown fields are ignored.
        """
        if len(text) > MAX_LINK:
            raise LinkError("form", "The text is too long for a pairing link. Copy only the link.")
        text = text.strip(AROUND)
        if any(unseen(character) for character in text):
            raise LinkError(
                "form",
                "The link holds spaces, line breaks or invisible characters. "
                "Copy it again in one piece, or scan the code.",
            )
        scheme = text.partition(":")[0].lower()
        if scheme in ("https", "http"):
            return cls(*_read_web(text))
        if scheme == "coralmux":
            return cls(*_read_uri(text))
        if scheme == "openclaw":
            return cls(*_read_field(text))
        if scheme in ("wss", "ws"):
            raise LinkError(
                "scheme",
                "This is the address of a relay, not a pairing link. "
                "Make a link on the agent's side and paste that.",
            )
        raise LinkError(
            "scheme",
            "A pairing link begins with https://, coralmux:// or openclaw://. "
            "Copy it whole from the agent's side.",
        )

    def web(self, phone_url: str | None = None) -> str:
        """The link for a camera and a browser.

        Leads to the relay's own page, or to the page at `phone_url` (http or https,
        no query), which is then told the relay in the fragment. Raises LinkError
        with part `form` when `phone_url` is not such an address.
        """
        own = parse_address(self.relay, "relay")
        page = own._replace(path=own.path.removesuffix("/ws") + "/phone")
        if phone_url is not None:
            page = parse_address(phone_url, "form", schemes=("https", "http"))
            page = page._replace(path=page.path or "/")
        link = f"{page.url('http')}#token={quote(self.token, safe='')}"
        if self.secret is not None:
            link += f"&psk={_base64url(self.secret)}"
        if _relay_of_page(page) != self.relay:
            link += f"&relay={quote(self.relay, safe='')}"
        return link

    def uri(self) -> str:
        """The link for programs, which no browser turns into a request."""
        link = f"coralmux://pair?relay={quote(self.relay, safe='')}"
        link += f"&token={quote(self.token, safe='')}"
        return link if self.secret is None else f"{link}#psk={_base64url(self.secret)}"

    def field_uri(self) -> str:
        """The link that the field's apps read. Raises LinkError when there is a secret.

        Those apps would overlook the secret and speak version 1, to which an agent
        that has a secret does not answer.
        """
        if self.secret is not None:
            raise LinkError(
                "psk",
                "An openclaw:// link cannot carry the pairing's secret. "
                "Use the https:// or coralmux:// link, or pair by token alone.",
            )
        token, relay = quote(self.token, safe=""), quote(self.relay, safe="")
        return f"openclaw://pair?token={token}&relay={relay}"

    def qr_terminal(self, text: str | None = None) -> str:
        """A QR code of `text` (one of this link's forms; `web()` when None) for a terminal.

        Lines of half blocks, each ending in a line feed and at most 80 columns wide.
        Colours are set by ANSI sequences, dark on light whatever the terminal's theme,
        for not every camera app reads an inverted code; they are the two of the 256
        that themes leave alone. Raises LinkError (`form`) when the text is too long.
        """
        # A screen has no stains: the lowest level of correction makes the smallest
        # code. segno raises the level again where that costs nothing.
        code = _code(self.web() if text is None else text, "l")
        rows = [[bool(module) for module in row] for row in code.matrix_iter(border=QUIET_ZONE)]
        width = len(rows[0])
        if width > TERMINAL_COLUMNS:
            raise LinkError(
                "form",
                f"The link is too long for a code of {TERMINAL_COLUMNS} columns. "
                "Save the code as a picture, or paste the link instead.",
            )
        if len(rows) % 2:
            rows.append([False] * width)
        blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
        lines = (
            "".join(blocks[pair] for pair in zip(upper, lower, strict=True))
            for upper, lower in zip(rows[::2], rows[1::2], strict=True)
        )
        return "".join(f"\x1b[38;5;16;48;5;231m{line}\x1b[0m\n" for line in lines)

    def qr_svg(self, text: str | None = None) -> str:
        """A QR code of `text` (one of this link's forms; `web()` when None) as an SVG file.

        Dark on light and without style attributes, so that a strict content policy
        lets it be. Raises LinkError (`form`) when the text is too long.
        """
        drawn = io.BytesIO()
        _code(self.web() if text is None else text, "m").save(
            drawn,
            kind="svg",
            scale=6,
            border=QUIET_ZONE,
            dark="#000",
            light="#fff",
            title="CoralMux pairing link",
        )
        return drawn.getvalue().decode()


def _relay_of_page(page: Address) -> str:
    """The relay that serves this page, or "" where the address does not tell."""
    path = page.path.removesuffix("/")
    if not path.endswith("/phone"):
        return ""
    return page._replace(path=path.removesuffix("/phone") + "/ws").url("ws")


_Values = tuple[str, str, bytes | None]


def _read_web(text: str) -> _Values:
    place, sharp, fragment = text.partition("#")
    address, _, query = place.partition("?")
    for name in _names(query) & {"psk", "token"}:
        raise _exposed(name)
    values = _fields(fragment, whole=bool(sharp))
    if "relay" in values:
        parse_address(address, "form", schemes=("https", "http"))
        relay = _unquoted(values["relay"], "relay")
    else:
        relay = _relay_of_page(parse_address(address, "relay", schemes=("https", "http")))
        if not relay:
            raise LinkError(
                "form",
                "This is not a pairing link: its address must end in /phone. "
                "Copy the link whole from the agent's side.",
            )
    return relay, _token(values), _psk(values)


def _read_uri(text: str) -> _Values:
    place, sharp, fragment = text.partition("#")
    query = _query_of(place)
    if "psk" in _names(query):
        raise _exposed("psk")
    values = _fields(query, whole=True)
    return (
        _unquoted(_relay(values), "relay"),
        _token(values),
        _psk(_fields(fragment, whole=bool(sharp))),
    )


def _read_field(text: str) -> _Values:
    place, _, fragment = text.partition("#")
    query = _query_of(place)
    values = _fields(query, whole=False)
    relay = _relay(values)
    # An address in the clear may hold escapes of its own, which stay.
    relay, _, asked = (relay if "://" in relay else _unquoted(relay, "relay")).partition("?")
    if "psk" in _names(query) | _names(asked):
        raise _exposed("psk")
    if "psk" in _names(fragment):
        raise LinkError(
            "psk",
            "An openclaw:// link cannot carry the pairing's secret. "
            "Ask for the https:// or coralmux:// link.",
        )
    return relay, _token(values), None


def _query_of(place: str) -> str:
    """The query of `scheme://pair?query`; only the first question mark counts."""
    before, mark, query = place.partition("?")
    if not mark or before.partition(":")[2].lower() not in ("//pair", "//pair/"):
        raise LinkError(
            "form",
            "The link must go on with //pair? behind its first colon. "
            "Copy it whole from the agent's side.",
        )
    return query


def _names(text: str) -> set[str]:
    return {field.partition("=")[0] for field in text.split("&")}


def _fields(text: str, *, whole: bool) -> dict[str, str]:
    """The known `name=value` fields, still encoded; `whole`: nothing else may stand there."""
    values: dict[str, str] = {}
    for field in text.split("&"):
        name, equals, value = field.partition("=")
        # A shell cuts an unquoted link at its &, and what is left must not pass
        # for a pairing by token alone.
        if whole and not equals:
            raise LinkError(
                "form", "The link was cut off. Copy it whole; in a shell, put it in quotes."
            )
        for part in _PARTS:
            if name == part and name in values:
                raise LinkError(part, f"The link names {name}= twice. Make a new link.")
            if name == part:
                values[part] = value
    return values


_PARTS: tuple[Part, ...] = ("relay", "token", "psk")


def _relay(values: dict[str, str]) -> str:
    if not values.get("relay"):
        raise LinkError("relay", "The link names no relay (relay=). Copy it whole.")
    return values["relay"]


def _token(values: dict[str, str]) -> str:
    if not values.get("token"):
        raise LinkError("token", "The link holds no token (token=). Copy it whole.")
    return _unquoted(values["token"], "token")


def _psk(values: dict[str, str]) -> bytes | None:
    """Base64url without padding (RFC 4648, section 5) of exactly 32 bytes, in its one spelling."""
    text = values.get("psk")
    if text is None:
        return None
    secret = base64.urlsafe_b64decode(f"{text}=") if _PSK.fullmatch(text) else b""
    if _base64url(secret) != text or not secret:
        raise LinkError(
            "psk",
            "The link's secret (psk=) must be 43 characters of A-Z, a-z, 0-9, - and _, "
            "without = at the end. The link was changed or cut off: copy it whole, "
            "or make a new one.",
        )
    return secret


def _exposed(name: str) -> LinkError:
    part: Part = "token" if name == "token" else "psk"
    return LinkError(
        part,
        f"The link carries {part}= in its query, which servers read and log; it belongs "
        "behind the #. Take it as known to others: make a new link and use that.",
    )


def _unquoted(text: str, part: Part) -> str:
    """Percent-decoded; a plus sign is a plus sign."""
    decoded = unquote_to_bytes(text) if _ESCAPES.fullmatch(text) else b"\xff"
    # Not decoded inside `except`: the UnicodeError would hold the value.
    plain = decoded.decode("utf-8", "replace")
    if plain.encode() != decoded:
        raise LinkError(part, f"The link's {part}= is not percent-encoded UTF-8. Make a new link.")
    return plain


def _base64url(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def _shown(token: str) -> str:
    """The start that people recognise a token by, as the relay shows it."""
    return f"{token[:12]}…" if len(token) >= 24 else "…"


def _code(text: str, level: Literal["l", "m"]) -> segno.QRCode:
    try:
        return segno.make(text, error=level, micro=False)
    except segno.DataOverflowError:
        pass
    raise LinkError("form", "The link is too long for a QR code. Paste the link instead.")
