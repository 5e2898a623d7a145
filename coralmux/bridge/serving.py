"""Which phones the agent that runs here serves, in a file for who unpairs one of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from coralmux import private_files


def announce(directory: Path, keys: Iterable[str]) -> None:
    """Say that these phones are served, or are about to be. Raises OSError."""
    private_files.make_directory(directory)
    private_files.replace(_path(directory), msgspec.json.encode(sorted(keys)))


def withdraw(directory: Path) -> None:
    """Say that none is. Raises OSError."""
    private_files.delete(_path(directory))


def served(directory: Path) -> frozenset[str]:
    """The keys of the phones; of none where nothing is said. Means something where an agent
    runs: one that was killed has said nothing at its end."""
    try:
        return msgspec.json.decode(private_files.read(_path(directory)), type=frozenset[str])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return frozenset()


def _path(directory: Path) -> Path:
    return directory / "serving.json"
