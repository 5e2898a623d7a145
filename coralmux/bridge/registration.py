"""The relay's REST API: registering a token, revoking it, asking how things are.

    with Relay("wss://relay.example.com/ws", admin_key="") as relay:
        token = relay.register()

Every method raises RelayProblem. Nothing in it repeats a token or a key.
"""

from __future__ import annotations

import ipaddress
import ssl
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from coralmux import LinkError, PairingLink, __version__
from coralmux.bridge import relay_failures
from coralmux.bridge.relay_failures import Answer, RelayProblem

__all__ = ["Health", "Relay", "RelayProblem", "is_unprotected", "normalised"]

# Seconds for each step of a request, and for the whole of it; relays answer these at once.
_TIMEOUT = 10.0
_DEADLINE = 20.0
# Bytes. What a relay answers here is much shorter.
_LONGEST_BODY = 256 * 1024


@dataclass(frozen=True, slots=True)
class Health:
    """`version` of the relay; `ahead`: how many seconds its clock is before ours, None where
    it does not tell the time. Answers take a moment and clocks show whole seconds, so a few
    seconds mean nothing."""

    version: str
    ahead: float | None


def normalised(relay: str) -> str:
    """The one spelling of a relay's address: ws:// or wss://, ending in /ws. Raises LinkError."""
    return PairingLink(relay, "token").relay


def is_unprotected(url: str) -> bool:
    """Whether the token travels readable for everybody on the way to this relay."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "wss" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


class Relay:
    """One relay, reached over HTTP beside its `/ws`. `url` is as `normalised` makes it."""

    def __init__(self, url: str, *, admin_key: str = "") -> None:
        self.url = url
        scheme, rest = url.removesuffix("/ws").split("://", 1)
        self.base = f"{'https' if scheme == 'wss' else 'http'}://{rest}"
        self.address = urlsplit(url).netloc
        self._admin_key = admin_key
        if admin_key and not (admin_key.isascii() and admin_key.isprintable()):
            raise RelayProblem(
                "The admin key holds characters that no key has.", "Copy it once more."
            )
        try:
            self._client = httpx.Client(
                # The system's certificates and SSL_CERT_FILE, as when `run` connects.
                verify=ssl.create_default_context(),
                timeout=_TIMEOUT,
                headers={"User-Agent": f"coralmux-agent/{__version__}"},
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            problem = relay_failures.of_setup(error)
        else:
            return
        raise problem

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def register(self) -> str:
        """A new token, from a relay that is open to everybody."""
        return self._token(self._ask("POST", "/api/v1/register"))

    def create(self, label: str) -> str:
        """A new token, by the admin key."""
        return self._token(self._ask("POST", "/api/v1/pair", admin=True, json={"label": label}))

    def revoke(self, token: str) -> None:
        """Let nobody in by this token any more; needs the admin key."""
        self._ask("DELETE", _path_of(token), admin=True)

    def online(self, token: str) -> dict[str, bool]:
        """Whether "phone" and "agent" are connected under this token now."""
        found = self._ask("GET", _path_of(token)).object
        phone, agent = found.get("phone"), found.get("agent")
        if not isinstance(phone, bool) or not isinstance(agent, bool):
            raise relay_failures.no_relay(self.address)
        return {"phone": phone, "agent": agent}

    def health(self) -> Health:
        """That it is there, and a CoralMux relay."""
        answer = self._ask("GET", "/health")
        now = datetime.now(UTC)
        if answer.object.get("status") != "ok" or "sessions" not in answer.object:
            raise relay_failures.no_relay(self.address)
        return Health(str(answer.object.get("version", ""))[:20], _ahead(answer, now))

    def _ask(self, method: str, path: str, *, admin: bool = False, json: Any = None) -> Answer:
        headers = {"X-Admin-Key": self._admin_key} if admin else {}

        def ask() -> Answer:
            with self._client.stream(
                method, self.base + path, headers=headers, json=json
            ) as response:
                return Answer(response.status_code, response.headers, _body(response))

        try:
            answer = _within(_DEADLINE, ask)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            problem = relay_failures.of_error(
                error,
                self.address,
                proxied=_is_proxied(self.base),
                tls=self.base.startswith("https:"),
            )
        else:
            if 200 <= answer.status < 300:
                return answer
            problem = relay_failures.of_status(answer, self.address)
        # Outside of the handler: the error knows the request, and that the token.
        raise problem

    def _token(self, answer: Answer) -> str:
        token = answer.object.get("token")
        try:
            return PairingLink(self.url, token if isinstance(token, str) else "").token
        except LinkError:
            pass
        raise relay_failures.no_relay(self.address)


def _within(seconds: float, work: Callable[[], Answer]) -> Answer:
    """What it returns or raises; TimeoutError when it has not come to that by then.

    A thread does it, which is left to itself then: httpx limits each step alone, and looking
    up a name not at all.
    """
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="relay request", daemon=True).start()
    return outcome.result(seconds)


def _is_proxied(url: str) -> bool:
    """Whether the environment sends requests to this address through a proxy."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    return not {parts.scheme, "all"}.isdisjoint(proxies) and not urllib.request.proxy_bypass(
        parts.netloc
    )


def _path_of(token: str) -> str:
    return f"/api/v1/pair/{quote(token, safe='')}"


def _body(response: httpx.Response) -> bytes:
    """As much of the body as a relay would send."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _LONGEST_BODY:
            break
    return bytes(content)


def _ahead(answer: Answer, now: datetime) -> float | None:
    try:
        return (parsedate_to_datetime(answer.headers["Date"]) - now).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
