"""That one agent alone runs on a data directory: two would answer every question twice."""

from __future__ import annotations

import contextlib
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
def alone(directory: Path) -> Iterator[None]:
    """Have the directory to oneself. Raises AlreadyRunning or OSError.

    The lock ends with the process, however that ends. Windows knows none of this kind.
    """
    private_files.make_directory(directory)
    with open(directory / "lock", "a") as file:
        if not _lock(file):
            raise AlreadyRunning
        yield


def is_running(directory: Path) -> bool:
    """Whether an agent runs on this directory; False where that cannot be known."""
    try:
        with open(directory / "lock", "a" if fcntl is None else "r+") as file:
            return not _lock(file)
    except OSError:
        return False


def _lock(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
