"""The servers that are compared: how each is started, fed with tokens and ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.process import pinned

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0  # the relay's first start makes its database
STOP_SECONDS = 12.0  # the relay drains for up to 10
LOG_TAIL_BYTES = 2_000

# What must not reach a server from the caller's shell, or two runs of one
# command would measure two things.
_FOREIGN = ("CORALMUX_", "RELAY_ADMIN_KEY", "DATABASE_URL", "REDIS_URL", "DJANGO_", "PYTHON")

# Limits off, counting on: what stands in the way of a message is its checks.
_RELAY_SETTINGS = {
    "CORALMUX_PHONE_MESSAGES_PER_MINUTE": "0",
    "CORALMUX_AGENT_MESSAGES_PER_MINUTE": "0",
    "CORALMUX_STREAM_FRAMES_PER_SECOND": "0",
    "CORALMUX_KEY_EXCHANGES_PER_MINUTE": "0",
    "CORALMUX_DAILY_QUOTA_BYTES": str(10**15),
    "CORALMUX_MONTHLY_QUOTA_BYTES": str(10**15),
    "CORALMUX_MAX_CONNECTIONS": "20000",
    "CORALMUX_MAX_CONNECTIONS_PER_ADDRESS": "20000",
}


class ServerError(Exception):
    """A server did not start, or refused a token; the text says what it printed."""


@dataclass
class Running:
    """A server that answers."""

    name: str
    port: int
    pid: int
    _admin_key: str

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def tokens(self, number: int) -> list[str]:
        """Fresh tokens; a server without an admin key takes any."""
        if not self._admin_key:
            return [f"oc_pair_{secrets.token_hex(16)}" for _ in range(number)]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        with contextlib.closing(connection):
            return [self._issue(connection) for _ in range(number)]

    def _issue(self, connection: http.client.HTTPConnection) -> str:
        connection.request("POST", "/api/v1/pair", headers={"X-Admin-Key": self._admin_key})
        response = connection.getresponse()
        body = response.read()
        if response.status != 201:
            raise ServerError(f"{self.name} issued no token: {response.status} {body[:200]!r}")
        token: str = json.loads(body)["token"]
        return token


@dataclass(frozen=True)
class Server:
    """A server that can be started. `command` gets a port; with `settings` it is a relay
    that wants an admin key and a state directory, without it takes any token."""

    name: str
    command: Callable[[int], list[str]]
    settings: dict[str, str] | None = None

    @contextlib.contextmanager
    def start(self, directory: Path, core: int | None) -> Iterator[Running]:
        """Run on one core, with state and log in a directory of its own, until the block ends.

        Raises ServerError when it does not answer in time.
        """
        directory.mkdir()
        port = _free_port()
        admin_key = "" if self.settings is None else secrets.token_urlsafe(24)
        log = directory / "log"
        with log.open("wb") as output, pinned(core):
            # A session of its own, so that Ctrl-C reaches this process alone
            # and the server's children end with it.
            process = subprocess.Popen(
                [sys.executable, "-m", *self.command(port)],
                cwd=directory,
                env=self._environment(directory, admin_key),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_for_health(self.name, process, port, log)
            yield Running(self.name, port, process.pid, admin_key)
        finally:
            _stop(process)

    def _environment(self, directory: Path, admin_key: str) -> dict[str, str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)
        }
        environment["PYTHONPATH"] = str(REPOSITORY)
        if self.settings is not None:
            environment |= self.settings
            environment["CORALMUX_STATE_DIR"] = str(directory / "state")
            environment["CORALMUX_ADMIN_KEY"] = admin_key
        return environment


SERVERS = {
    server.name: server
    for server in (
        # On the loop that ours runs on too; with asyncio's own it is a quarter slower.
        Server("websockets", lambda port: ["bench.bare_relay", "--port", str(port)]),
        Server(
            "websockets-asyncio",
            lambda port: ["bench.bare_relay", "--asyncio", "--port", str(port)],
        ),
        Server(
            "coralmux",
            lambda port: ["coralmux_site.cli", "-addr", f"127.0.0.1:{port}"],
            _RELAY_SETTINGS,
        ),
    )
}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for_health(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(
                f"{name} ended with status {process.returncode} at its start:\n{_tail(log)}"
            )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise ServerError(f"{name} gave no GET /health within {START_SECONDS:.0f} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to all of its session, whatever interrupts the waiting."""
    try:
        process.terminate()
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
