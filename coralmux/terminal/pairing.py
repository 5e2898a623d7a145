"""Which pairing is meant, and what is kept of it on this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from coralmux.client.store import FileStore, user_data_directory
from coralmux.e2e.link import MAX_LINK, PairingLink
from coralmux.terminal.standard_input import StandardInput

VARIABLE = "CORALMUX_LINK"


class NoLink(Exception):
    """There is nothing to read a pairing link from."""


def read_link(
    link: str, file: str, stdin: StandardInput, warn: Callable[[str], None]
) -> PairingLink:
    """The link: `file`'s, else `link` ("-": a line of stdin), else the environment's.

    Raises LinkError, NoLink, or OSError; none of them repeats the link.
    """
    if file:
        text = _read_file(Path(file), warn)
    elif link == "-":
        text = _read_line(stdin)
    else:
        text = link or os.environ.get(VARIABLE, "")
    if not text.strip():
        raise NoLink(
            "There is no pairing link. Get one on the agent's side, and give it by --link, "
            f"--link-file or the environment variable {VARIABLE}."
        )
    return PairingLink.parse(text)


def _read_file(path: Path, warn: Callable[[str], None]) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        mode = os.fstat(file.fileno()).st_mode
        if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o044:
            warn("Other users may read the link's file. Close it to them: chmod 600 FILE.")
        # A line too long is for the parser to complain about.
        return file.readline(MAX_LINK + 1)


def _read_line(stdin: StandardInput) -> str:
    if stdin.is_terminal:
        with contextlib.suppress(EOFError):
            return getpass.getpass("Pairing link (not shown): ", stream=sys.stderr)
        return ""
    return stdin.read_line(MAX_LINK + 1).decode("utf-8", "replace")


def store(data_dir: str) -> FileStore:
    """What a phone keeps: beside an agent's on the same machine, which may have the same token.

    Raises StoreError.
    """
    return FileStore((Path(data_dir) if data_dir else user_data_directory()) / "phone")
