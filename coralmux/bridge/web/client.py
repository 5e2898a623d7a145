"""How backends reach an AI server over HTTP: the settings that they share, and the client."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

# Seconds for a request that is answered at once, such as a list of models, and for
# handing over a question with its pictures.
SHORT_SECONDS = 20
_SENDING_SECONDS = 60


class ServerSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where an AI server is, and what it wants to see. Raises ValueError, for people.

    `connect_timeout` in seconds. `headers` go out with every request.
    """

    base_url: str
    api_key: str = ""
    headers: dict[str, str] = {}
    connect_timeout: float = 10

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(
                "base_url is an address such as http://127.0.0.1:8000, with http:// or https://"
            )
        # httpx would name the value in its error.
        if not _fit_for_header(self.api_key.strip()):
            raise ValueError("api_key holds characters that no key has: copy it once more")
        for name, value in self.headers.items():
            if not (name and _fit_for_header(name + value)):
                raise ValueError("headers have names, and values of plain printable characters")
        if not 0 < self.connect_timeout <= 600:
            raise ValueError("connect_timeout is between 0 and 600 seconds")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @property
    def root(self) -> str:
        """`base_url` without a slash at its end, and without a password."""
        parts = urlsplit(self.base_url.strip())
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl().rstrip("/")

    @property
    def login(self) -> tuple[str, str] | None:
        """User name and password, where `base_url` has them."""
        parts = urlsplit(self.base_url.strip())
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    @property
    def address(self) -> str:
        """Host and port for people: no password, no path."""
        parts = urlsplit(self.root)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{port}"

    @property
    def local(self) -> bool:
        """Whether the server is on this machine, as far as its address tells."""
        host = urlsplit(self.root).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not stand in any text, however it came there."""
        password = self.login[1] if self.login else ""
        kept = (self.api_key.strip(), password, *self.headers.values())
        # What is shorter is no secret, but the "none" of servers that want no key.
        return tuple(secret for secret in kept if len(secret) >= 8)


class Web:
    """One httpx client for all questions of a backend, made when it is first used."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """Waits for answers without end: the longest silence is the bridge's affair.

        Raises httpx.ProxyError where the environment's proxy cannot be used.
        """
        if self._client is None:
            settings = self._settings
            headers = {"Accept-Encoding": "identity", **settings.headers}
            if key := settings.api_key.strip():
                headers.setdefault("Authorization", f"Bearer {key}")
            # A connection that is kept may be closed by the server as a question goes
            # out on it, and nobody knows then whether the question arrived.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            # Those whom this machine trusts, as for the relay; httpx would bring its own list.
            trusted = ssl.create_default_context()
            try:
                self._client = httpx.AsyncClient(
                    verify=trusted,
                    headers=headers,
                    auth=settings.login if "Authorization" not in headers else None,
                    timeout=httpx.Timeout(
                        None, connect=settings.connect_timeout, write=_SENDING_SECONDS
                    ),
                    limits=limits,
                    # No proxy leads to this machine itself.
                    transport=httpx.AsyncHTTPTransport(verify=trusted, limits=limits)
                    if settings.local
                    else None,
                )
            except (ImportError, ValueError):
                raise httpx.ProxyError("unusable") from None
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()


async def read_body(response: httpx.Response, most: int) -> bytes:
    """A streamed body, cut after `most` bytes."""
    found = bytearray()
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) >= most:
            break
    return bytes(found[:most])


def numbers(values: Mapping[str, Any], *names: str) -> dict[str, float]:
    """Those of the named values that are numbers."""
    return {
        name: value
        for name in names
        if isinstance(value := values.get(name), int | float) and not isinstance(value, bool)
    }


def _fit_for_header(text: str) -> bool:
    return text.isascii() and text.isprintable()
