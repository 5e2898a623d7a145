"""`coralmux-agent` as a user starts it, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.client import SOON
from tests.support.process import clean_environment

ROOT = Path(__file__).parents[2]
MODULE = (sys.executable, "-m", "coralmux.bridge.cli")
PATIENCE = 3 * SOON


@dataclass
class Ended:
    status: int
    out: str
    err: str


@dataclass
class Home:
    """A user's data directory; `config` is where the agent's is."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "agent"

    @property
    def config(self) -> Path:
        return self.data / "config.toml"

    def write(self, text: str) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text)
        self.config.chmod(0o600)

    def environment(self, **more: str) -> dict[str, str]:
        # A warning on standard error is a failure, and so is a resource left open.
        fixed = {"CORALMUX_DATA_DIR": str(self.path), "PYTHONPATH": str(ROOT)}
        return clean_environment(**fixed, PYTHONWARNINGS="error", **more)

    async def agent(self, *arguments: str, stdin: str = "", **env: str) -> Ended:
        """The command, to its end."""
        process = await asyncio.create_subprocess_exec(
            *MODULE,
            *arguments,
            cwd=self.path,
            env=self.environment(**env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        ended = Ended(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ended.err, ended.err
        return ended

    @contextlib.asynccontextmanager
    async def running(self, *arguments: str, **env: str) -> AsyncIterator[Path]:
        """`run` meanwhile, which must leave well when it is told to; the file of its output."""
        log = self.path / "run.txt"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *MODULE,
                "run",
                *arguments,
                cwd=self.path,
                env=self.environment(**env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield log
            process.terminate()
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0, log.read_text()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def on_a_terminal(self, *arguments: str, typed: str = "", **env: str) -> Ended:
        """The same on a terminal of its own: all that it shows is in `out`."""
        return await asyncio.to_thread(self._on_a_terminal, arguments, typed, env)

    def _on_a_terminal(self, arguments: tuple[str, ...], typed: str, env: dict[str, str]) -> Ended:
        master, slave = pty.openpty()
        try:
            process = subprocess.Popen(
                [*MODULE, *arguments],
                cwd=self.path,
                env=self.environment(TERM="xterm-256color", COLUMNS="100", **env),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)
        shown = b""
        with open(master, "r+b", buffering=0) as terminal:
            while data := _read(terminal.fileno()):
                shown += data
                if typed and b"(not shown): " in shown:
                    terminal.write(f"{typed}\n".encode())
                    typed = ""
        return Ended(process.wait(PATIENCE), shown.decode(), "")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux: nobody has the other end open any more
        return b""


def plain(text: str) -> str:
    """What a terminal shows, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n")
