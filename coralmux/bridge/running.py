"""That one agent alone runs on a data directory: two would answer every question twice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from coralmux import private_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class AlreadyRunning(Exception):
    """Another process has the directory."""


@contextlib.contextmanager
def alone(directory: Path, *, watches: Path | None = None) -> Iterator[None]:
    """Have the directory to oneself. Raises AlreadyRunning or OSError.

    `watches` is the config that is followed as it changes, which the lock's file names.
    The lock ends with the process, however that ends. Windows knows none of this kind.
    """
    private_files.make_directory(directory)
    with open(directory / "lock", "a", encoding="utf-8", opener=_privately) as file:
        if not _lock(file):
            raise AlreadyRunning
        file.truncate(0)
        file.write("" if watches is None else str(watches.resolve()))
        file.flush()
        yield


def is_running(directory: Path) -> bool:
    """Whether an agent runs on this directory; False where that cannot be known."""
    try:
        with open(directory / "lock", "a" if fcntl is None else "r+") as file:
            return not _lock(file)
    except OSError:
        return False


def watched(directory: Path) -> Path | None:
    """The config that the agent which runs here follows; None where it follows none.

    Means something where `is_running` alone.
    """
    try:
        text = (directory / "lock").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text else None


def _privately(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    if os.name == "posix":
        # One that was made before may be open to others.
        os.fchmod(descriptor, 0o600)
    return descriptor


def _lock(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
