"""The processes of the demo: started, listened to, and ended, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from coralmux.text import discreet, one_line

ROOT = Path(__file__).parents[1]

# Seconds that a process gets to end before it is killed.
PATIENCE = 8.0

_LONGEST_LINE = 1_000_000

_GROUPS = os.name == "posix"

# What would steer a part from outside; and nothing here goes through a proxy.
_STEERING = ("CORALMUX_", "RELAY_", "DATABASE_URL", "REDIS_URL")
_NO_PROXY = dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")

T = TypeVar("T")


class DemoError(Exception):
    """The demo cannot start or go on; the text says why and what to do."""


class Stopping(Exception):
    """Somebody wants the demo to end."""


def environment(**more: str) -> dict[str, str]:
    """What a part of the demo gets to see."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_STEERING)}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, **_NO_PROXY, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


class Part:
    """One process, in a group of its own, so that Ctrl-C reaches the demo alone.

    What it prints is kept in `log`, and given to `hear` line by line.
    """

    def __init__(self, name: str, log: Path, hear: Callable[[str], None] = lambda line: None):
        self.name = name
        self.log = log
        self._hear = hear
        self._last = ""
        self._awaited: list[tuple[re.Pattern[str], asyncio.Future[re.Match[str]]]] = []

    async def start(self, module: str, *arguments: str, env: Mapping[str, str]) -> None:
        """Run this module of ours with these arguments."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=env,
            # There is no .env here for it to read.
            cwd=self.log.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=_GROUPS,
            limit=_LONGEST_LINE,
        )
        self._reader = asyncio.create_task(self._read())

    def line(self, pattern: str) -> asyncio.Future[re.Match[str]]:
        """The next line that it prints in which this is found."""
        found = asyncio.get_running_loop().create_future()
        self._awaited.append((re.compile(pattern), found))
        return found

    async def ended(self) -> int:
        """Its exit status, once all that it printed has been read."""
        await asyncio.wait({self._reader})
        return await self._process.wait()

    def why(self) -> str:
        """How it ended, in one line."""
        status = self._process.returncode or 0
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = f": {self._last}" if self._last else "."
        return f"The {self.name} {how}{said} (All that it said is in {shown(self.log)}.)"

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if _GROUPS:
                os.killpg(self._process.pid, number)
            elif self._process.returncode is None:
                self._process.send_signal(number)

    async def stop(self) -> None:
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.ended()
        except TimeoutError:
            self.signal(signal.SIGKILL if _GROUPS else signal.SIGTERM)
            await self.ended()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("wb") as log:
            while line := await self._process.stdout.readline():
                log.write(line)
                log.flush()
                self._take(line.decode(errors="replace").rstrip())

    def _take(self, line: str) -> None:
        if line.strip():
            self._last = one_line(discreet(line))
        self._hear(line)
        for pattern, found in self._awaited:
            if not found.done() and (match := pattern.search(line)):
                found.set_result(match)


class Parts:
    """All that run, ended together in the order opposite to that in which they started."""

    def __init__(self) -> None:
        self._running: list[Part] = []
        self._asked_to_stop = asyncio.Event()

    async def start(self, part: Part, module: str, *arguments: str, env: Mapping[str, str]) -> None:
        await part.start(module, *arguments, env=env)
        self._running.append(part)

    async def output(self, name: str, module: str, *arguments: str, env: Mapping[str, str]) -> str:
        """Run a module of ours to its end; what it printed, which is kept nowhere.

        Raises DemoError when it fails.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=_GROUPS,
        )
        try:
            printed, complaint = await self.until(process.communicate())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = one_line(discreet(complaint.decode(errors="replace")))
            raise DemoError(f"The {name} failed: {said}")
        return printed.decode()

    def ask_to_stop(self) -> None:
        """What Ctrl-C does; a second time nobody is waited for."""
        if self._asked_to_stop.is_set():
            for part in self._running:
                part.signal(signal.SIGKILL if _GROUPS else signal.SIGTERM)
        self._asked_to_stop.set()

    async def until(self, awaited: Awaitable[T]) -> T:
        """Its result. Raises DemoError when a part ends before, and Stopping."""
        wanted = asyncio.ensure_future(awaited)
        asked = asyncio.create_task(self._asked_to_stop.wait())
        ends = {asyncio.create_task(part.ended()): part for part in self._running}
        try:
            await asyncio.wait({wanted, asked, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                raise Stopping
            if wanted.done():
                return wanted.result()
            for end, part in ends.items():
                if end.done():
                    raise DemoError(part.why())
            raise AssertionError("nothing of what was awaited has come")
        finally:
            for task in (wanted, asked, *ends):
                task.cancel()

    async def stop(self) -> None:
        for part in reversed(self._running):
            await part.stop()


def shown(path: Path) -> str:
    """A path as one would type it here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
