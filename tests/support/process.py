"""Real `coralmux-relay` processes on free ports, in temporary directories."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ADMIN_KEY = "test-admin-key"

# Every timer at a tenth of its default.
FAST = {
    "CORALMUX_AUTH_TIMEOUT_SECONDS": "1",
    "CORALMUX_REQUEST_TIMEOUT_SECONDS": "2",
    "CORALMUX_PING_INTERVAL_SECONDS": "3",
    "CORALMUX_SILENCE_TIMEOUT_SECONDS": "6",
    "CORALMUX_STALL_TIMEOUT_SECONDS": "3",
    "CORALMUX_HOLD_SECONDS": "0.8",
    "CORALMUX_CLOSE_TIMEOUT_SECONDS": "1",
    "CORALMUX_DRAIN_TIMEOUT_SECONDS": "2",
    "CORALMUX_FLUSH_INTERVAL_SECONDS": "0.1",
    "CORALMUX_WATCH_INTERVAL_SECONDS": "0.1",
    "CORALMUX_FAILED_ATTEMPTS_PER_HOUR": "0",
}

_OURS = ("CORALMUX_", "RELAY_", "DATABASE_URL", "REDIS_URL")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the relay's settings, and with these."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    # A server must not pick up a .env, nor write coverage or bytecode elsewhere.
    return {**env, "PYTHONUNBUFFERED": "1", **extra}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RelayProcess:
    """One server process; its output is kept in a file."""

    def __init__(
        self,
        directory: Path,
        *,
        env: dict[str, str] | None = None,
        command: Sequence[str] | None = None,
        port: int | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port() if port is None else port
        self.state_dir = directory / "state"
        self.env = clean_environment(
            CORALMUX_STATE_DIR=str(self.state_dir),
            CORALMUX_ADMIN_KEY=ADMIN_KEY,
            **(FAST if env is None else env),
        )
        self.command = list(
            command
            or [sys.executable, "-m", "coralmux_site.cli", "-addr", f"127.0.0.1:{self.port}"]
        )
        self.command = [part.replace("{port}", str(self.port)) for part in self.command]
        self._log = directory / "output.txt"
        self._tokens: list[str] = []

    def start(self, *, wait: bool = True) -> RelayProcess:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env={**self.env, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            self._wait_until_healthy()
        return self

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the relay ended at once:\n{self.output}")
            with contextlib.suppress(OSError):
                if self.http("GET", "/health")[0] == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the relay does not answer:\n{self.output}")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def http(
        self,
        method: str,
        path: str,
        *,
        admin: bool = False,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and body (decoded where it is JSON)."""
        status, _, content = self.http_full(method, path, admin=admin, body=body, headers=headers)
        return status, content

    def http_full(
        self,
        method: str,
        path: str,
        *,
        admin: bool = False,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, headers=headers or {}
        )
        if admin:
            request.add_header("X-Admin-Key", ADMIN_KEY)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, dict(response.headers), _decode(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), _decode(error.read())

    def token(self, **options: Any) -> str:
        """A new pairing token, made through the REST API."""
        status, body = self.http("POST", "/api/v1/pair", admin=True, body=options or None)
        assert status == 201, body
        self._tokens.append(str(body["token"]))
        return self._tokens[-1]

    def check_output(self) -> None:
        """Whatever happened, the output holds no token and no admin key."""
        output = self.output
        assert ADMIN_KEY not in output, "the admin key was logged"
        for token in self._tokens:
            # Its first 12 characters may be shown, for people to recognise it.
            assert token[12:] not in output, "a token was logged"

    def metric(self, line: str) -> float:
        """The value of one line of /metrics, 0.0 if it is not there."""
        text = self.http("GET", "/metrics", admin=True)[1]
        for row in text.splitlines():
            if row.startswith(line + " "):
                return float(row.rsplit(" ", 1)[1])
        return 0.0

    def manage(
        self, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run manage.py on the same state, as an operator would beside the relay."""
        root = Path(__file__).parents[2]
        return subprocess.run(
            [sys.executable, str(root / "manage.py"), *arguments],
            env={**self.env, **(env or {})},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def terminate(self, *, timeout: float = 20) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def stop(self) -> None:
        if getattr(self, "process", None) is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


@contextlib.contextmanager
def relay_process(**options: Any) -> Iterator[RelayProcess]:
    """A relay of one's own, for tests that end it or change its settings.

    `env` adds to the fast timers; `fast=False` leaves every timer at its default.
    """
    fast = options.pop("fast", True)
    env = {**(FAST if fast else {}), **options.pop("env", {})}
    with tempfile.TemporaryDirectory(prefix="coralmux-relay-") as directory:
        relay = RelayProcess(Path(directory), env=env, **options)
        try:
            yield relay.start()
        finally:
            relay.stop()
        relay.check_output()
