"""Every setting the relay reads from its environment, in one table.

`docs/settings.md` is compared with this table by a test, and `coralmux-relay
--help` points there. A secret can also be given as `NAME_FILE`, the path of a
file that holds it (Docker and systemd hand secrets over that way).
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coralmux.protocol import limits


class BadSetting(ValueError):
    """A setting has a value that the relay cannot use; the text says what to do."""


@dataclass(frozen=True)
class Setting:
    name: str
    default: Any
    parse: Callable[[str], Any]
    unit: str
    meaning: str
    aliases: tuple[str, ...] = ()
    secret: bool = False


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0 or math.isinf(number):
        raise ValueError("must be a number of seconds above 0")
    return number


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("must be 1 or 0")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _networks(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(word, strict=False) for word in _words(text)]


def _sqlite_url(text: str) -> str:
    if text and not text.startswith("sqlite:///"):
        raise ValueError("this release keeps its data in SQLite, sqlite:///PATH")
    return text


def _log_format(text: str) -> str:
    if text not in ("console", "json"):
        raise ValueError("must be console or json")
    return text


def default_state_dir() -> Path:
    """Where the database, the secret key and the admin key live, by the XDG rules."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "coralmux"


# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("CORALMUX_ADDR", "127.0.0.1:8080", str, "HOST:PORT", "Where `coralmux-relay` listens (the flag `-addr` wins). `:8080` is every address."),
    Setting("CORALMUX_ADMIN_KEY", "", str, "", "Key for creating and revoking tokens and for /metrics. Empty closes those endpoints.", ("RELAY_ADMIN_KEY",), secret=True),
    Setting("CORALMUX_SECRET_KEY", "", str, "", "Django's signing key. Made and kept in the state directory when absent.", secret=True),
    Setting("CORALMUX_STATE_DIR", None, Path, "directory", "Database, secret key and admin key. Default: `$XDG_STATE_HOME/coralmux`, else `~/.local/state/coralmux`."),
    Setting("DATABASE_URL", "", _sqlite_url, "URL", "`sqlite:///PATH`. Default: `coralmux.sqlite3` in the state directory.", secret=True),
    Setting("CORALMUX_ALLOWED_HOSTS", ["*"], _words, "names", "Host names that HTTP requests may ask for, separated by commas; health checks may ask for any."),
    Setting("CORALMUX_TRUSTED_PROXIES", [], _networks, "networks", "Proxies whose X-Forwarded-For is believed, as addresses or CIDR networks. Nobody else's is."),
    Setting("CORALMUX_PUBLIC", False, _flag, "0 or 1", "Open `POST /api/v1/register` to everyone (the switch `-public`)."),
    Setting("CORALMUX_LOG_FORMAT", "console", _log_format, "console or json", "How log lines look."),
    Setting("CORALMUX_PHONE_MESSAGES_PER_MINUTE", limits.PHONE_MESSAGES_PER_MINUTE, _whole, "messages/min", "Messages a phone may send; 0 = no limit."),
    Setting("CORALMUX_AGENT_MESSAGES_PER_MINUTE", limits.AGENT_MESSAGES_PER_MINUTE, _whole, "messages/min", "Messages an agent may send, stream frames not counted; 0 = no limit."),
    Setting("CORALMUX_STREAM_FRAMES_PER_SECOND", limits.STREAM_FRAMES_PER_SECOND, _whole, "frames/s", "Stream frames (deltas, file chunks) sustained; five seconds' worth may come at once; 0 = no limit."),
    Setting("CORALMUX_KEY_EXCHANGES_PER_MINUTE", limits.KEY_EXCHANGES_PER_MINUTE, _whole, "messages/min", "`key_exchange` messages per token and role; 0 = no limit."),
    Setting("CORALMUX_PINGS_PER_MINUTE", limits.PINGS_PER_MINUTE, _whole, "messages/min", "`ping` messages answered before the sender is slowed; 0 = no limit."),
    Setting("CORALMUX_INVALID_PER_MINUTE", limits.INVALID_PER_MINUTE, _whole, "messages/min", "Invalid messages answered before the sender is slowed; 0 = no limit."),
    Setting("CORALMUX_DAILY_QUOTA_BYTES", limits.DAILY_QUOTA_BYTES, _whole, "bytes", "Payload bytes per token and UTC day, both directions; 0 = no limit."),
    Setting("CORALMUX_MONTHLY_QUOTA_BYTES", limits.MONTHLY_QUOTA_BYTES, _whole, "bytes", "Payload bytes per token and UTC month, both directions; 0 = no limit."),
    Setting("CORALMUX_MAX_MESSAGE_BYTES", limits.MAX_MESSAGE_BYTES, _positive, "bytes", "Largest WebSocket message, summed over its fragments."),
    Setting("CORALMUX_REGISTRATIONS_PER_HOUR", 5, _whole, "requests/h", "Self-service registrations per client address; 0 = no limit."),
    Setting("CORALMUX_FAILED_ATTEMPTS_PER_HOUR", 60, _whole, "attempts/h", "Wrong tokens or admin keys per client address before the address is told to wait; 0 = no limit. Right ones always pass."),
    Setting("CORALMUX_MAX_CONNECTIONS", 15_000, _positive, "connections", "WebSocket connections in total; one more is closed with 1013."),
    Setting("CORALMUX_MAX_CONNECTIONS_PER_ADDRESS", 500, _positive, "connections", "WebSocket connections per client address; one more is closed with 1013."),
    Setting("CORALMUX_AUTH_TIMEOUT_SECONDS", 10.0, _seconds, "s", "Time for the first message, `auth`; then 4004."),
    Setting("CORALMUX_REQUEST_TIMEOUT_SECONDS", 20.0, _seconds, "s", "Time for a whole HTTP request to arrive, and between two on one connection; then TCP is cut."),
    Setting("CORALMUX_PING_INTERVAL_SECONDS", 30.0, _seconds, "s", "WebSocket pings to every client."),
    Setting("CORALMUX_SILENCE_TIMEOUT_SECONDS", 60.0, _seconds, "s", "A connection from which no byte came for so long is closed with 4008."),
    Setting("CORALMUX_STALL_TIMEOUT_SECONDS", 30.0, _seconds, "s", "A reader that takes nothing for so long is closed with 4008, an HTTP client cut off."),
    Setting("CORALMUX_HOLD_SECONDS", 8.0, _seconds, "s", "Longest pause in reading from a sender that is slowed; then its messages are refused. Below the 10 s after which clients give a silent relay up."),
    Setting("CORALMUX_CLOSE_TIMEOUT_SECONDS", 2.0, _seconds, "s", "Time for a client to answer a close frame before TCP is cut."),
    Setting("CORALMUX_DRAIN_TIMEOUT_SECONDS", 6.0, _seconds, "s", "Time at SIGTERM for what is buffered, before what is left is cut off."),
    Setting("CORALMUX_FLUSH_INTERVAL_SECONDS", 1.0, _seconds, "s", "How often usage is written to the database."),
    Setting("CORALMUX_WATCH_INTERVAL_SECONDS", 0.5, _seconds, "s", "How often tokens that another process revoked are looked for."),
)
# fmt: on

BY_NAME = {setting.name: setting for setting in SETTINGS}


def read(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """The value of a setting, from NAME, its aliases or NAME_FILE, else its default.

    Raises BadSetting with a text for the operator.
    """
    setting = BY_NAME[name]
    source = os.environ if environ is None else environ
    for key in (setting.name, *setting.aliases):
        if key in source:
            text = source[key]
            break
        if setting.secret and f"{key}_FILE" in source:
            path = source[f"{key}_FILE"]
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise BadSetting(
                    f"{key}_FILE names {path}, which cannot be read: {error.strerror}. "
                    "Check the path and its permissions."
                ) from None
            break
    else:
        return setting.default
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "its value" if setting.secret else repr(text)
        raise BadSetting(
            f"{key} cannot be {shown}: {error}. It takes {setting.unit or 'text'}; "
            "see docs/settings.md."
        ) from None
