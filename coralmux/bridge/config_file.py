"""Changing the config's file: phones come and go, and everything else in it stays as it is."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from coralmux import private_files
from coralmux.bridge import config, template
from coralmux.bridge.config import ConfigError
from coralmux.bridge.phones import PairedPhone
from coralmux.bridge.variables import escaped

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Seconds that are waited for another command without a word, and between two looks.
_SILENT_SECONDS = 1.0
_LOOK_SECONDS = 0.05


@contextlib.contextmanager
def editing(path: Path, say: Callable[[str], None]) -> Iterator[ConfigFile]:
    """Have the config to oneself; another process that wants to change it waits until then.

    `say` tells of a wait that is long. Raises ConfigError.
    """
    directory = path.resolve().parent
    try:
        private_files.make_directory(directory)
        descriptor = os.open(directory, os.O_RDONLY) if fcntl else -1
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        # Not the file: it is replaced, and then the lock would be on the old one.
        if fcntl and not _locked(descriptor, _SILENT_SECONDS):
            say(f"Another command is changing {path}. Waiting for it; Ctrl-C gives up.")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield ConfigFile(path)
    finally:
        if fcntl:
            os.close(descriptor)


def _locked(descriptor: int, seconds: float) -> bool:
    """Whether the lock could be had within this time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        else:
            return True


class ConfigFile:
    """The file as it is now; one that is not there is made with examples.

    Every method that changes it writes it whole, or raises ConfigError and leaves it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_new = not path.exists()
        self._text = config.read_text(path)

    @property
    def phones(self) -> tuple[PairedPhone, ...]:
        return config.phones_of(self._path, config.parse(self._path, self._text))

    def prepare(self, *, relay: str) -> None:
        """Write it as it is, or a new one with this relay: can it be written at all?"""
        self._write(template.config(relay=relay, tables=False) if self.is_new else self._text)

    def undo(self) -> None:
        """Take a file away again that was not there before."""
        if self.is_new:
            with contextlib.suppress(OSError):
                private_files.delete(self._path.resolve())

    def add(self, phone: PairedPhone) -> None:
        """Put a phone at the end."""
        before = self.phones
        table = tomlkit.table()
        table["name"] = escaped(phone.name)
        table["link"] = escaped(phone.link.web())
        if phone.paired is not None:
            table["paired"] = phone.paired
        # As text behind everything: tomlkit would put it behind the last phone, and move
        # what stands in between.
        block = tomlkit.dumps({"phone": [table]})
        ahead = self._text if not self._text or self._text.endswith("\n") else f"{self._text}\n"
        self._change(f"{ahead}\n{block}", (*before, phone))

    def remove(self, phone: PairedPhone) -> None:
        """Take a phone out."""
        before = self.phones
        try:
            document = tomlkit.parse(self._text)
            del document["phone"][before.index(phone)]
            if len(before) == 1:
                del document["phone"]
            # An agent that runs takes an empty file for one that is being written.
            text = tomlkit.dumps(document) or "\n"
        except (TOMLKitError, KeyError, IndexError, TypeError):
            raise self._by_hand() from None
        self._change(text, tuple(one for one in before if one != phone))

    def _change(self, text: str, phones: tuple[PairedPhone, ...]) -> None:
        """Write the text, if it says what the file said but for its phones."""
        before = config.parse(self._path, self._text)
        try:
            after = config.parse(self._path, text)
            well = config.phones_of(self._path, after) == phones
        except ConfigError:
            raise self._by_hand() from None
        before.pop("phone", None)
        after.pop("phone", None)
        if not well or before != after:
            raise self._by_hand()
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            private_files.replace(self._path.resolve(), text.encode())
        except OSError as error:
            raise _not_written(self._path, error) from None
        self._text = text

    def _by_hand(self) -> ConfigError:
        return ConfigError(
            f"{self._path} is written in a way that cannot be changed by this program. Write "
            "the phones as [[phone]] tables at its end, and try again."
        )


def write_new(path: Path, text: str) -> None:
    """Make the file, its directory too. Raises ConfigError."""
    try:
        private_files.make_directory(path.resolve().parent)
        private_files.replace(path.resolve(), text.encode())
    except OSError as error:
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> ConfigError:
    why = error.strerror or type(error).__name__
    return ConfigError(
        f"{path} cannot be written: {why}. Mend its directory, owner or mode, or name another "
        "file by --config."
    )
