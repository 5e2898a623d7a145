"""Pairing links for a one-off: from the command line, a file, standard input or the environment."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from coralmux import PairingLink

VARIABLE = "CORALMUX_AGENT_LINK"

# Characters that are read of one link; the longest that is one is shorter.
_LONGEST = 20_000


def read(
    links: Sequence[str],
    files: Sequence[str],
    warn: Callable[[str], None],
    environ: Mapping[str, str] | None = None,
) -> list[PairingLink]:
    """The links of `--link` ("-": a line of standard input) and `--link-file` (one a line);
    the environment's where neither is given. Raises LinkError and OSError."""
    texts = [secret("Pairing link") if link == "-" else link for link in links]
    for file in files:
        texts += _of_file(Path(file), warn)
    if not links and not files:
        texts = ((os.environ if environ is None else environ).get(VARIABLE) or "").split()
    return [PairingLink.parse(text) for text in texts]


def secret(what: str) -> str:
    """A line of standard input; a terminal is asked for it and does not show it."""
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        return getpass.getpass(f"{what} (not shown): ", stream=sys.stderr).strip()
    return sys.stdin.buffer.readline(_LONGEST).decode("utf-8", "replace").strip()


def _of_file(path: Path, warn: Callable[[str], None]) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        mode = os.fstat(file.fileno()).st_mode
        if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o044:
            warn(f"Other users may read {path}. Close it to them: chmod 600 FILE.")
        lines = [line.strip() for line in file.read(100 * _LONGEST).splitlines()]
    # An empty file is told of as a link that is none.
    return [line for line in lines if line] or [""]
