"""Any program: the message on its standard input, the answer from its standard output."""

from __future__ import annotations

import asyncio
import codecs
import errno
import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from coralmux import Attachment, BackendError
from coralmux.bridge.answering import Failed
from coralmux.bridge.backend import Backend, Finding, Piece, Place, Question
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.child import Child
from coralmux.text import discreet, duration, one_line

# Characters of a program's complaint that the phone's user gets to read.
_LONGEST_COMPLAINT = 300

# The bridge's own settings, among them links and keys, are nothing for the program.
_OURS = "CORALMUX_"
ATTACHMENTS = "CORALMUX_ATTACHMENTS"


class CommandSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`command`: one line, taken apart as a shell would (no shell runs it), or a list.
    `stdin`: "text" gives the program the message alone; "json" one object with the message,
    the conversation and who asks. `env` is added to the bridge's own environment."""

    command: str | list[str]
    directory: str = "."
    env: dict[str, str] = {}
    stdin: Literal["text", "json"] = "text"
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 600


class CommandBackend(Backend):
    """Runs the program once for each question."""

    Settings = CommandSettings

    def __init__(self, settings: CommandSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._command = _words(settings.command)
        self._directory = Path(settings.directory).expanduser().absolute()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._environment = kept | settings.env
        self.wants_history = settings.stdin == "json"
        self._endings: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        await asyncio.gather(*self._endings)

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        deadline = asyncio.get_running_loop().time() + self.settings.timeout_seconds
        program = self._program()
        files = Path(tempfile.mkdtemp(prefix="coralmux-"))
        child = Child()
        try:
            paths = await asyncio.to_thread(_write, files, question.attachments)
            await self._start(child, program, question, paths)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            try:
                while True:
                    async with asyncio.timeout_at(deadline):
                        output = await child.read()
                    if text := decoder.decode(output, final=not output):
                        yield text
                    if not output:
                        break
                async with asyncio.timeout_at(deadline):
                    status = await child.status()
            except TimeoutError:
                allowed = duration(self.settings.timeout_seconds)
                raise Failed(
                    f"The agent's program was stopped because it took longer than {allowed}. "
                    "Ask for less at once, or raise timeout_seconds where the agent runs.",
                    f"the program took longer than {allowed}",
                ) from None
            if status:
                raise _failure(status, child.complaint)
        finally:
            # Goes on where this generator is cancelled a second time.
            ending = asyncio.create_task(_clean_up(child, files))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            await asyncio.shield(ending)

    async def check(self) -> AsyncIterator[Finding]:
        try:
            yield Finding(True, f"The program is {self._program()}.")
        except BackendError as error:
            yield Finding(False, str(error), "Mend command and directory under [command].")

    def _program(self) -> str:
        """Where the program is. Raises BackendError."""
        name = os.path.expanduser(self._command[0])
        if not self._directory.is_dir():
            raise BackendError(
                f"The directory {one_line(str(self._directory))}, in which the agent's program "
                "is to run, does not exist. Make it, or set another directory."
            )
        # What is named by a path is named from the directory in which it runs.
        given = str(self._directory / name) if os.path.dirname(name) else name
        found = shutil.which(given, path=self._environment.get("PATH"))
        if found is not None:
            return os.path.abspath(found)
        if os.path.dirname(name) and Path(given).is_file():
            raise BackendError(
                f"The agent's program {one_line(name)} may not be executed. Type: "
                f"chmod +x {one_line(given)}"
            )
        raise BackendError(
            f"The agent's program {one_line(name)} is not there. Install it, or name it by "
            "its whole path."
        )

    async def _start(
        self, child: Child, program: str, question: Question, paths: list[str]
    ) -> None:
        environment = {**self._environment, ATTACHMENTS: os.pathsep.join(paths)}
        try:
            await child.start(
                [program, *self._command[1:]],
                self._directory,
                environment,
                self._given(question, paths),
            )
        except OSError as error:
            remedy = (
                "A script needs a first line such as #!/bin/sh."
                if error.errno == errno.ENOEXEC
                else "Look whether it runs by hand, and whether this machine has memory left."
            )
            raise BackendError(
                f"The agent's program cannot be started: {error.strerror}. {remedy}"
            ) from None

    def _given(self, question: Question, paths: list[str]) -> bytes:
        if self.settings.stdin == "text":
            return question.text.encode()
        return msgspec.json.encode(
            {
                "text": question.text,
                "history": [
                    {"role": turn.role, "content": turn.content} for turn in question.history
                ],
                "agent": question.agent_id,
                "phone": question.phone,
                "attachments": paths,
            }
        )


def _words(command: str | list[str]) -> list[str]:
    """The program and its arguments. Raises BackendUnusable."""
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError:
        raise BackendUnusable(
            "[command] command: a quote is opened in it and not closed."
        ) from None
    if not words or not words[0]:
        raise BackendUnusable("[command] command: it names no program.")
    return words


def _write(directory: Path, attachments: tuple[Attachment, ...]) -> list[str]:
    """Each attachment as a file; their paths. Two may have the same name."""
    paths = []
    for number, attachment in enumerate(attachments, start=1):
        path = directory / str(number) / attachment.name.replace(os.pathsep, "_")
        path.parent.mkdir()
        path.write_bytes(attachment.data)
        paths.append(str(path))
    return paths


async def _clean_up(child: Child, files: Path) -> None:
    try:
        await child.end()
    finally:
        await asyncio.to_thread(shutil.rmtree, files, ignore_errors=True)


def _failure(status: int, complaint: str) -> Failed:
    how = f"with status {status}"
    if status < 0:
        how = f"by signal {-status}"
        if -status in set(signal.Signals):
            how = f"by {signal.Signals(-status).name}"
    said = one_line(discreet(complaint))[:_LONGEST_COMPLAINT]
    return Failed(
        f"The agent's program ended {how}" + (f": {said}" if said else " and gave no reason."),
        f"the program ended {how}",
    )
