"""The bridge as a process of its own at a real relay, and phones for it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import coralmux
from coralmux.bridge import Backend
from coralmux.bridge.conversations import Conversations, phone_key
from coralmux.bridge.logs import Log
from coralmux.bridge.reports import Reports
from coralmux.bridge.service import Service
from tests.client.meeting import agent_for, new_link, phone_for, serving
from tests.support.client import SOON
from tests.support.process import RelayProcess, clean_environment
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
MODULE = (sys.executable, "-m", "coralmux.bridge.cli")

# Python has to start, and two cores may be busy with other tests.
PATIENCE = 3 * SOON


class Bridge:
    """A process of `coralmux-agent run`; `config` is its config, `links` are its pairings."""

    def __init__(
        self, directory: Path, links: Sequence[coralmux.PairingLink], options: Sequence[str]
    ) -> None:
        self.directory = directory
        self.data = directory / "data" / "agent"
        self.config = self.data / "config.toml"
        self.links = list(links)
        self.options = list(options)
        self._log = directory / "bridge.txt"
        self.process: subprocess.Popen[bytes]

    def write(self, text: str) -> None:
        """The config: this, and the pairings."""
        for n, link in enumerate(self.links):
            text += f'\n[[phone]]\nname = "Phone {n}"\nlink = "{link.uri()}"\n'
        self.data.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text)
        self.config.chmod(0o600)

    def start(self, **env: str) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *MODULE,
                    "run",
                    *("--config", str(self.config)),
                    *("--data-dir", str(self.directory / "data")),
                    *self.options,
                ],
                cwd=self.directory,
                env=clean_environment(**{"PYTHONPATH": str(ROOT), **env}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """All that it has written since it was started."""
        return self._log.read_text(errors="replace")

    async def says(self, text: str, times: int = 1) -> None:
        """Wait until it has written this so often."""

        def said() -> bool:
            if self.output().count(text) >= times:
                return True
            assert self.process.poll() is None, f"the bridge ended:\n{self.output()}"
            return False

        try:
            await eventually(said, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}; {text!r} not in:\n{self.output()}") from None

    async def connected(self) -> None:
        """Wait until it is connected for every phone."""
        await self.says("connected to ", len(self.links))

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def phone(self, n: int = 0, **options: Any) -> coralmux.Phone:
        """A phone for the n-th pairing, to be entered by `async with`."""
        return phone_for(self.links[n], **options)

    def check_output(self) -> None:
        """No token stands in it, and nothing that Python itself complains of."""
        output = self.output()
        for link in self.links:
            assert link.token not in output, "a token was logged"
        for trouble in ("Traceback", "RuntimeWarning", "never awaited", "was destroyed"):
            assert trouble not in output, output


@contextlib.asynccontextmanager
async def bridge(
    relay: RelayProcess,
    directory: Path,
    config_toml: str = 'backend = "echo"\n',
    phones: int = 1,
    options: Sequence[str] = (),
    **env: str,
) -> AsyncIterator[Bridge]:
    """A bridge that is connected; it must end well when it is asked to."""
    there = Bridge(directory, [new_link(relay) for _ in range(phones)], options)
    there.write(config_toml)
    there.start(**env)
    try:
        await there.connected()
        yield there
        if there.process.poll() is None:
            there.signal()
            assert await there.ended() == 0, there.output()
        there.check_output()
    finally:
        if there.process.poll() is None:
            there.process.kill()
            there.process.wait()


class Heard(Log):
    """A log that keeps what it is told. `events` are their names with all fields."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[str] = []

    def tell(self, event: str, text: str, *, warning: bool = False, **fields: Any) -> None:
        self.events.append((event, fields))
        self.lines.append(text)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


class Served:
    """A backend in the test's process, behind all of the bridge but its command."""

    def __init__(
        self,
        links: Sequence[coralmux.PairingLink],
        backend: Backend,
        directory: Path,
        **options: Any,
    ) -> None:
        self.links = list(links)
        self.log = Heard()
        turns = options.pop("history_turns", 200)
        self.conversations = Conversations(directory, turns=turns, say=self.log.warn)
        reports = Reports(self.log, lambda link: f"Phone {self.links.index(link)}")
        self.service = Service(backend, self.conversations, reports, say=self.log.warn, **options)
        self.agent = agent_for(*links, finish_unheard=True)
        self.agent.on_event(reports.event)
        self.service.attach(self.agent)

    def phone(self, n: int = 0, **options: Any) -> coralmux.Phone:
        return phone_for(self.links[n], **options)

    def key(self, n: int = 0) -> str:
        return phone_key(self.links[n].token)


@contextlib.asynccontextmanager
async def served(
    links: RelayProcess | Sequence[coralmux.PairingLink],
    backend: Backend,
    directory: Path,
    **options: Any,
) -> AsyncIterator[Served]:
    """The backend is served, to one phone where a relay is given; everything must end well."""
    if isinstance(links, RelayProcess):
        links = [new_link(links)]
    there = Served(links, backend, directory, **options)
    try:
        async with serving(there.agent):
            yield there
    finally:
        async with asyncio.timeout(PATIENCE):
            await there.service.close()
