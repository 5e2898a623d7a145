"""What an endpoint keeps beyond the life of its process, token by token.

A pairing's secret changes at the first handshake (PROTOCOL.md, section 3), so the
link alone does not open it again: what is kept here does. `FileStore` keeps one
file for each token and never shows a reader half of one.
"""

from __future__ import annotations

import base64
import copy
import errno
import hashlib
import hmac
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from coralmux import private_files
from coralmux.client.errors import ClientError
from coralmux.e2e.events import Secrets
from coralmux.protocol import Role
from coralmux.protocol.limits import SEEN_IDS

_SECRET_BYTES = 32
_VERSION = 1


class StoreError(ClientError):
    """What is kept cannot be read, written or used; nothing was overwritten.

    `path` is the file or directory that it is about, None where it is about neither.
    """

    def __init__(self, path: Path | None, text: str) -> None:
        super().__init__(text if path is None else f"{path}: {text}")
        self.path = path


@dataclass(slots=True)
class PairingState:
    """What one end knows about one pairing.

    `secrets`: None for a pairing by token alone. `seen_ids`: ids of the last 1,024
    messages received, oldest first. `peer_name`: as the other end called itself last.
    `link_digest`: SHA-256 of the link's secret that all this began with, 32 bytes, or
    None when it began without one. `role`: which end it is, "agent" or "phone"; "" where
    that was not written down.
    """

    secrets: Secrets | None = None
    seen_ids: deque[str] = field(default_factory=deque)
    peer_name: str = ""
    link_digest: bytes | None = None
    role: Literal["", "agent", "phone"] = ""

    def __post_init__(self) -> None:
        self.seen_ids = deque(self.seen_ids, maxlen=SEEN_IDS)

    def __repr__(self) -> str:
        secrets = None if self.secrets is None else "<hidden>"
        return (
            f"PairingState(secrets={secrets}, seen_ids=<{len(self.seen_ids)}>, "
            f"peer_name={self.peer_name!r}, role={self.role!r})"
        )

    @staticmethod
    def for_link(state: PairingState | None, link_secret: bytes | None) -> PairingState:
        """The state to go on with when a user opens a link, given what the store holds.

        The same link again: what was kept wins, for the link's own secret is used up.
        Another link for the same token: a new pairing, which starts afresh. A link
        without a secret: what was kept wins, since an end that holds a secret never
        falls back to version 1; to do without it on purpose, `forget` the token first.

        Save a fresh state no sooner than its secret has opened a handshake, or an old
        link pasted by mistake costs the user the pairing that works.
        """
        if link_secret is None:
            return PairingState() if state is None else state
        digest = hashlib.sha256(link_secret).digest()
        if (
            state is not None
            and state.link_digest is not None
            and hmac.compare_digest(state.link_digest, digest)
        ):
            return state
        return PairingState(Secrets(link_secret, link=True), link_digest=digest)


class Store(Protocol):
    """Where an endpoint keeps its pairings. Methods raise StoreError."""

    def load(self, token: str) -> PairingState | None:
        """What was saved last, the caller's to change; None when there is nothing."""

    def save(self, token: str, state: PairingState) -> None:
        """Keep this instead. It outlives the process once this has returned."""

    def forget(self, token: str) -> None:
        """Keep nothing of this pairing. No error when there is nothing."""


class MemoryStore:
    """A store that ends with the process: for tests, and for what must leave no trace."""

    def __init__(self) -> None:
        self._states: dict[str, PairingState] = {}

    def __repr__(self) -> str:
        return f"MemoryStore(<{len(self._states)}>)"

    def load(self, token: str) -> PairingState | None:
        return copy.deepcopy(self._states.get(token))

    def save(self, token: str, state: PairingState) -> None:
        self._states[token] = copy.deepcopy(state)

    def forget(self, token: str) -> None:
        self._states.pop(token, None)


class FileStore:
    """One file for each token, readable by its owner alone.

    `directory` is made when needed (mode 0700). A file (0600) is named by the first 32
    hex digits of the token's SHA-256, and the token stands nowhere in it. Files are
    replaced whole: of two processes that write, the last one wins, and a process killed
    at any moment leaves the old file or the new one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def __repr__(self) -> str:
        return f"FileStore({str(self.directory)!r})"

    def load(self, token: str) -> PairingState | None:
        """What was saved last. A file that others may read is closed to them, with a warning."""
        path = self._path(token)
        try:
            content = private_files.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(path, "cannot be read", error) from error
        try:
            return _decode(content)
        except _FromTheFuture:
            why = (
                "was written by a newer version of this program. Update the program, or move "
                "the file away and pair again with a new link."
            )
        except (msgspec.MsgspecError, ValueError, RecursionError):
            why = (
                "is damaged and was left as it is. Put a copy of it back, or move the file "
                "away and pair again with a new link."
            )
        # Outside of the handlers: a decoding error in the chain may hold the content.
        raise StoreError(path, why)

    def save(self, token: str, state: PairingState) -> None:
        """Replace the file, and return when the disk has it."""
        path = self._path(token)
        content = _encode(state)
        try:
            private_files.make_directory(self.directory)
            private_files.replace(path, content)
        except OSError as error:
            raise _failed(path, "cannot be written", error) from error

    def forget(self, token: str) -> None:
        """Delete the file, and what a killed process left of it."""
        path = self._path(token)
        try:
            private_files.delete(path)
        except OSError as error:
            raise _failed(path, "cannot be deleted", error) from error

    def _path(self, token: str) -> Path:
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return self.directory / f"{digest[:32]}.json"


def load_own(store: Store, token: str, role: Role) -> PairingState | None:
    """What a store keeps of this end's. Raises StoreError, also where it is the other end's.

    Both ends of a pairing can be one user's on one machine. They hold different secrets
    while one is replaced, and each has to keep its own.
    """
    state = store.load(token)
    if state is not None and state.role not in ("", role):
        raise StoreError(
            store.directory if isinstance(store, FileStore) else None,
            f"what is kept here of this pairing is the {state.role}'s. "
            f"Give the {role} a directory (a store) of its own.",
        )
    return state


def user_data_directory() -> Path:
    """The directory where this user's programs keep their data for CoralMux; not made here.

    `CORALMUX_DATA_DIR` where it is set; else `%LOCALAPPDATA%\\coralmux` on Windows,
    `~/Library/Application Support/coralmux` on macOS, and elsewhere
    `$XDG_DATA_HOME/coralmux` or `~/.local/share/coralmux` (XDG Base Directory
    Specification, which has relative paths ignored). Raises StoreError when the user
    has no home directory.
    """
    if chosen := os.environ.get("CORALMUX_DATA_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else _home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Application Support"
    else:
        shared = Path(os.environ.get("XDG_DATA_HOME", ""))
        base = shared if shared.is_absolute() else _home() / ".local" / "share"
    return base / "coralmux"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise StoreError(
            Path("~"), "there is no home directory. Set CORALMUX_DATA_DIR to a directory."
        ) from None


def _failed(path: Path, what: str, error: OSError) -> StoreError:
    if error.errno == errno.ELOOP:
        why, remedy = "is a symbolic link", "Put the file itself there, or remove the link"
    else:
        why = error.strerror or type(error).__name__
        remedy = "Mend the path, its owner or its mode, or choose another directory"
    return StoreError(path, f"{what}: {why}. {remedy}.")


# ---- The file


class _Kept(msgspec.Struct):
    """The file's JSON. Secrets in unpadded base64url, the digest in hex."""

    version: int
    current: str | None
    next: str | None
    link: bool
    link_digest: str | None
    seen_ids: list[str]
    peer_name: str
    role: Literal["", "agent", "phone"] = ""


class _Versioned(msgspec.Struct):
    version: int


class _FromTheFuture(Exception):
    """A later version of this module wrote the file."""


def _encode(state: PairingState) -> bytes:
    kept = state.secrets
    return msgspec.json.encode(
        _Kept(
            version=_VERSION,
            current=None if kept is None else _text(kept.current),
            next=None if kept is None or kept.next is None else _text(kept.next),
            link=kept is not None and kept.link,
            link_digest=None if state.link_digest is None else state.link_digest.hex(),
            seen_ids=list(state.seen_ids),
            peer_name=state.peer_name,
            role=state.role,
        )
    )


def _decode(content: bytes) -> PairingState:
    """Raises _FromTheFuture, MsgspecError or ValueError."""
    version = msgspec.json.decode(content, type=_Versioned).version
    if version > _VERSION:
        raise _FromTheFuture
    kept = msgspec.json.decode(content, type=_Kept)
    if version != _VERSION or (kept.current is None and kept.next is not None):
        raise ValueError
    digest = None if kept.link_digest is None else bytes.fromhex(kept.link_digest)
    if digest is not None and len(digest) != hashlib.sha256().digest_size:
        raise ValueError
    following = None if kept.next is None else _bytes(kept.next)
    return PairingState(
        None if kept.current is None else Secrets(_bytes(kept.current), following, kept.link),
        deque(kept.seen_ids),
        kept.peer_name,
        digest,
        kept.role,
    )


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    secret = base64.urlsafe_b64decode(f"{text}=")
    if len(secret) != _SECRET_BYTES or _text(secret) != text:
        raise ValueError
    return secret
