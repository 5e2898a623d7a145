"""An agent in the test's event loop, and `coralmux-phone` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coralmux import Agent, ChatMessage, PairingLink, ToolStatus
from coralmux.client.store import Store
from tests.support.client import SOON
from tests.support.process import RelayProcess, clean_environment

ROOT = Path(__file__).parents[2]
MODULE = (sys.executable, "-m", "coralmux.terminal.cli")
SCRIPT = (str(Path(sys.executable).parent / "coralmux-phone"),)

# Python has to start, and a relay may be busy with other tests.
PATIENCE = 2 * SOON

TOKEN, SECRET = "oc_pair_0123456789abcdef0123456789abcdef", "A" * 42 + "B"

# As prompt_toolkit draws it.
PROMPT = "\x1b[0m>"

Handler = Callable[[ChatMessage], Any]


async def echo(message: ChatMessage) -> AsyncIterator[str]:
    """Says what it was asked, word by word."""
    yield "You said: "
    yield message.text


async def endless(message: ChatMessage) -> AsyncIterator[str]:
    """Begins, and has to be stopped."""
    yield "one "
    yield ToolStatus("counting")  # type: ignore[misc]
    yield "two "
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def agent_at(
    relay: RelayProcess,
    handler: Handler = echo,
    *,
    link: PairingLink | None = None,
    store: Store | None = None,
) -> AsyncIterator[tuple[PairingLink, Agent]]:
    """A running agent with a pairing of its own, and its link."""
    link = PairingLink.new(relay.url, relay.token()) if link is None else link
    agent = Agent.from_link(link, name="Agent at home", store=store)
    agent.on_chat(handler)
    serving = asyncio.create_task(agent.serve())
    try:
        yield link, agent
    finally:
        await agent.close()
        async with asyncio.timeout(SOON):
            await serving


@dataclass
class Ended:
    status: int
    out: bytes
    err: str


def environment(home: Path, **more: str) -> dict[str, str]:
    return clean_environment(
        **{
            "CORALMUX_DATA_DIR": str(home),
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            # A warning on standard error is a failure, and so is a resource left open.
            "PYTHONWARNINGS": "error",
            **more,
        }
    )


@contextlib.asynccontextmanager
async def started(
    home: Path, *arguments: str, command: Sequence[str] = MODULE, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command with pipes all around, killed if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        cwd=home,
        env=environment(home, **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(
    home: Path,
    *arguments: str,
    stdin: bytes = b"",
    command: Sequence[str] = MODULE,
    within: float = PATIENCE,
    **env: str,
) -> Ended:
    """The command, to its end."""
    async with started(home, *arguments, command=command, **env) as process:
        async with asyncio.timeout(within):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ended(process.returncode, out, err.decode())


class Terminal:
    """A process on a terminal of its own. `shown` is all that it wrote, as it came."""

    def __init__(self, home: Path, *arguments: str, columns: int = 100, **streams: Any) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.shown = ""
        self._moved = asyncio.Event()
        self._waiting = b""
        env = environment(home, **streams.pop("env", {}))
        try:
            self.process = subprocess.Popen(
                [*MODULE, *arguments],
                cwd=home,
                env=env,
                start_new_session=True,
                # Ctrl-C is for whoever has it as the controlling terminal.
                preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
                **{"stdin": slave, "stdout": slave, "stderr": slave, **streams},
            )
        finally:
            os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux: nobody has the other end open any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self._waiting += data
        # A character may come in two pieces.
        text = self._waiting.decode("utf-8", "ignore")
        self._waiting = self._waiting[len(text.encode()) :]
        self.shown += text
        self._moved.set()

    async def expect(self, *texts: str, after: int = 0) -> int:
        """Wait until these were shown, in this order; where the last one ends."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (end := self._find(texts, after)) < 0:
                    self._moved.clear()
                    await self._moved.wait()
                return end
        except TimeoutError:
            raise AssertionError(f"{texts} not in {self.shown[after:]!r}") from None

    def _find(self, texts: Sequence[str], after: int) -> int:
        for text in texts:
            at = self.shown.find(text, after)
            if at < 0:
                return -1
            after = at + len(text)
        return after

    def type(self, text: str) -> int:
        """Press keys; where what is shown thereupon begins."""
        os.write(self._master, os.fsencode(text))
        return len(self.shown)

    async def ended(self) -> int:
        """The exit status."""
        async with asyncio.timeout(PATIENCE):
            status = await asyncio.to_thread(self.process.wait, PATIENCE)
        await asyncio.sleep(0)
        self._read_rest()
        return status

    def _read_rest(self) -> None:
        os.set_blocking(self._master, False)
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._master, 65536):
                self.shown += data.decode("utf-8", "replace")

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@contextlib.asynccontextmanager
async def terminal(home: Path, *arguments: str, **options: Any) -> AsyncIterator[Terminal]:
    """The command at a terminal, killed if it has not ended."""
    there = Terminal(home, *arguments, **options)
    try:
        yield there
    finally:
        there.close()
