"""A program that is run for one answer: fed, read as fast as it is wanted, and always ended.

On POSIX systems it has a session and process group of its own, so that it ends together with
whatever it has started; only what leaves the group on purpose (a daemon) is out of reach.
Elsewhere the program alone is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psutil

# Bytes of output that wait here before the program has to.
_READ_AHEAD = 65_536
# Bytes at the end of standard error in which its last line is looked for.
_LAST_WORDS = 2048
# Seconds between asking the program to end and ending it, and for its death then.
GRACE_SECONDS = 2.0
# Seconds of silence, once the program is gone, after which nothing is awaited of what it
# has left behind with its output.
LINGER_SECONDS = 1.0

_GROUPS = os.name == "posix"


class Child(asyncio.SubprocessProtocol):
    """One run of a program. `end` must be called, whatever became of `start`."""

    def __init__(self) -> None:
        self._starting: asyncio.Future[Any] | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._fed = False  # it has read its input, or does not want it
        self._output = bytearray()
        self._ended = False  # the output
        self._complaints = b""
        self._something = asyncio.Event()
        self._gone = asyncio.Event()

    async def start(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], given: bytes
    ) -> None:
        """Run it with `given` as its standard input. Raises OSError."""
        self._starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                lambda: self, *command, cwd=directory, env=environment, start_new_session=_GROUPS
            )
        )
        # Whoever is cancelled here leaves a program behind that `end` has to know.
        await asyncio.shield(self._starting)
        # One that does not read what it is given breaks the pipe, which is no error.
        standard_input = self._pipe(0)
        standard_input.write(given)
        standard_input.close()

    async def read(self) -> bytes:
        """The next of its output; b"" when there will be no more."""
        while not self._output and not self._ended:
            self._something.clear()
            try:
                async with asyncio.timeout(LINGER_SECONDS if self._gone.is_set() else None):
                    await self._something.wait()
            except TimeoutError:
                break
        read = bytes(self._output)
        self._output.clear()
        if read and not self._ended:
            self._pipe(1).resume_reading()
        return read

    async def status(self) -> int:
        """Its exit status, once it is gone; below 0 the signal that ended it."""
        await self._gone.wait()
        assert self._transport is not None
        return self._transport.get_returncode() or 0

    @property
    def complaint(self) -> str:
        """The last line on its standard error, as far as that has come."""
        lines = self._complaints.decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    async def end(self) -> None:
        """End what still runs of it, and wait until it is gone."""
        if self._starting is None:
            return
        try:
            transport, _ = await self._starting
        except OSError:
            return
        try:
            if self._signal(signal.SIGTERM):
                await self._all_gone()
        finally:
            self._signal(signal.SIGKILL if _GROUPS else signal.SIGTERM)
            if not self._fed:
                self._pipe(0).abort()
            transport.close()
        await self._all_gone()

    async def _all_gone(self) -> None:
        """Wait until nobody of it is left, for as long as that may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._gone.wait()
                while self._signal(0) and await asyncio.to_thread(self._is_group_alive):
                    await asyncio.sleep(0.05)

    def _is_group_alive(self) -> bool:
        """Whether any of its group runs: orphans that nobody has reaped yet do not."""
        assert self._transport is not None
        group = self._transport.get_pid()
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                    return True
        return False

    def _signal(self, number: int) -> bool:
        """Send a signal to all of it; whether there was anybody to get it."""
        assert self._transport is not None
        try:
            if _GROUPS:
                os.killpg(self._transport.get_pid(), number)
            elif number:
                self._transport.send_signal(number)
        except (ProcessLookupError, PermissionError):
            return False
        return _GROUPS or not self._gone.is_set()

    def _pipe(self, number: int) -> Any:
        """The transport of standard input (0) or output (1)."""
        assert self._transport is not None
        return self._transport.get_pipe_transport(number)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._complaints = (self._complaints + data)[-_LAST_WORDS:]
            return
        self._output += data
        if len(self._output) >= _READ_AHEAD:
            self._pipe(1).pause_reading()
        self._something.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._fed = True
        elif fd == 1:
            self._ended = True
            self._something.set()

    def process_exited(self) -> None:
        self._gone.set()
        self._something.set()
