"""What is kept of phones that the config does not have: served by --link, or taken out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from coralmux.bridge.config_file import editing
from coralmux.bridge.home import Home
from coralmux.bridge.pairing import PairingError
from coralmux.bridge.running import AlreadyRunning, alone

_KEY = r"[0-9a-f]{32}"
# A pairing's file, and what a killed process left of one.
_PAIRING = re.compile(rf"\.?({_KEY})\.json(\.[0-9a-f]+)?")


def forget(home: Home, say: Callable[[str], None]) -> int:
    """Delete pairings, conversations and when they were seen; of how many phones that was.

    `say` tells of a wait that is long. Raises PairingError where an agent is at work, which
    may be serving them; ConfigError and OSError.
    """
    try:
        with alone(home.directory), editing(home.config, say) as file:
            return _forget(home, {phone.key for phone in file.phones})
    except AlreadyRunning:
        why = "An agent is at work here, and may be serving such phones. Stop it first."
    raise PairingError(why)


def _forget(home: Home, known: set[str]) -> int:
    found = set()
    for path in _inside(home.store.directory):
        name = _PAIRING.fullmatch(path.name)
        if name is not None and name[1] not in known:
            found.add(name[1])
            path.unlink(missing_ok=True)
    conversations = home.conversations
    for path in _inside(conversations.directory):
        if re.fullmatch(_KEY, path.name) and path.name not in known:
            found.add(path.name)
            conversations.delete(path.name)
    seen = home.seen
    for key in seen.load().keys() - known:
        found.add(key)
        seen.forget(key)
    seen.write(at_once=True)
    return len(found)


def _inside(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
