"""When each phone was last here, in a file that `coralmux-agent phones` reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from coralmux import private_files

# Seconds between two writes: a phone that talks is here all the time.
_PAUSE_SECONDS = 10.0


class Seen:
    """`seen.json` in this directory: for each phone's key its name, and when it was here.

    {"<key>": {"at": <Unix seconds>, "name": "My phone", "verified": true, "protocol": 2}}
    """

    def __init__(self, directory: Path) -> None:
        self._path = Path(directory) / "seen.json"
        self._phones = self.load()
        self._written = -_PAUSE_SECONDS
        self._changed = False

    def load(self) -> dict[str, dict[str, Any]]:
        """What the file says; nothing where there is none, or none that can be read."""
        try:
            found = msgspec.json.decode(private_files.read(self._path), type=dict[str, _Phone])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}
        return {key: msgspec.structs.asdict(phone) for key, phone in found.items()}

    def mark(self, key: str, name: str, *, verified: bool, protocol: int) -> None:
        """The phone is here now."""
        self._phones[key] = {
            "at": int(time.time()),
            "name": name,
            "verified": verified,
            "protocol": protocol,
        }
        self._changed = True

    def forget(self, key: str) -> None:
        self._changed = self._phones.pop(key, None) is not None or self._changed

    def write(self, *, at_once: bool = False) -> None:
        """Put it on the disk if anything changed, and not too often. Raises OSError."""
        now = time.monotonic()
        if not self._changed or (now - self._written < _PAUSE_SECONDS and not at_once):
            return
        self._changed, self._written = False, now
        private_files.make_directory(self._path.parent)
        private_files.replace(self._path, msgspec.json.encode(self._phones))


class _Phone(msgspec.Struct):
    at: int
    name: str
    verified: bool = False
    protocol: int = 0
