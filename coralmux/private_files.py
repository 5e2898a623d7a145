"""Files with secrets in them: for their owner alone, and never seen half-written.

Modes mean something on POSIX systems; elsewhere the user's own directories are closed to
others already. Every function raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

# Seconds after which a temporary file is what a killed process left behind. Another
# process's write does not take as long.
_LEFT_BEHIND_SECONDS = 600
# Random bytes that end a temporary file's name, in hexadecimal.
_SUFFIX_BYTES = 8
_POSIX = os.name == "posix"

logger = logging.getLogger(__name__)


def make_directory(directory: Path) -> None:
    """Make it (0700) where it is missing."""
    # A directory that is already there is its owner's business: it may be one
    # that others have to get into. The files in it are closed in any case.
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        # A umask can take away the owner's own rights.
        directory.chmod(0o700)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def read(path: Path) -> bytes:
    """What a regular file holds. One that others may read is closed to them, with a warning.

    A symbolic link is not followed (ELOOP).
    """
    # Without O_NONBLOCK the opening of a pipe would wait for its writer.
    with open(path, "rb", opener=_opener("O_NOFOLLOW", "O_NONBLOCK")) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if _POSIX and about.st_mode & 0o077:
            closed = False
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), 0o600)
                closed = True
            logger.warning(
                "%s: other users could read the secrets in it; %s",
                path,
                "the file is closed to them now"
                if closed
                else "close the file to them (chmod 600)",
            )
        return file.read()


def replace(path: Path, content: bytes) -> None:
    """Write the file as a whole (0600), and return when the disk has it.

    Of two processes that write, the last one wins, and a process killed at any moment
    leaves the old file or the new one.
    """
    _sweep(path, older_than=_LEFT_BEHIND_SECONDS)
    try:
        _write(path, content)
    except FileNotFoundError:
        # Another process that deleted the file took the temporary one, too.
        _write(path, content)
    _sync_directory(path.parent)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_SUFFIX_BYTES)}")
    try:
        with open(temporary, "xb", opener=_opener("O_NOFOLLOW")) as file:
            if _POSIX:
                # A umask can take away the owner's own rights.
                os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            # The name must not reach the disk before the content does.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def delete(path: Path) -> None:
    """Delete the file, and what a killed process left of it. No error where there is none.

    A process that is just writing the file writes it all the same.
    """
    try:
        path.unlink(missing_ok=True)
        _sweep(path, older_than=0)
        _sync_directory(path.parent)
    except FileNotFoundError:
        return


def _sweep(path: Path, *, older_than: float) -> None:
    """Delete temporary files that killed processes left."""
    # Nothing else that begins like it: an editor's `.config.toml.swp` is not ours.
    ours = f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * _SUFFIX_BYTES}"
    for left in path.parent.glob(ours):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime >= older_than:
                left.unlink()


def _sync_directory(directory: Path) -> None:
    if not _POSIX:
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opener(*names: str) -> Callable[[str, int], int]:
    """Open with these flags too, as far as the platform has them, and for the owner alone."""
    more = sum(int(getattr(os, name, 0)) for name in names)
    return lambda path, flags: os.open(path, flags | more, 0o600)
