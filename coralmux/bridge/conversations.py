"""What phones and agents have said to each other, on disk: bounded, and deletable.

One file for each phone and agent, `<phone>/<first 32 hex digits of the agent id's
SHA-256>.json`, readable by its owner alone and replaced whole. A question and its answer
stand together in it, so that chats which run side by side do not mix.

Nothing is kept in memory: what another process deletes (`coralmux-agent forget`) is gone.
Methods are for one thread at a time; they write to a disk, so call them off the event loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from coralmux import HistoryEntry, Turn, private_files

# Bytes of a conversation's file, which is written anew with each question and answer.
MAX_BYTES = 1_000_000

# Characters of one question or answer that are kept.
MAX_CHARACTERS = 100_000

# Conversations of one phone: a phone can name as many agents as it likes.
MAX_AGENTS = 100

# A phone may name it, or none: it is one agent either way.
_DEFAULT = "default"

_VERSION = 1


def phone_key(token: str) -> str:
    """The name of a pairing in files and logs: 32 hex digits, from which no token follows."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]


class _Exchange(msgspec.Struct, omit_defaults=True):
    """A question and its answer, the latter "" until it ends; times in Unix milliseconds."""

    id: str
    question: str
    asked: int
    answer: str = ""
    answered: int = 0

    def __repr__(self) -> str:
        return "<exchange>"


class _File(msgspec.Struct):
    version: int
    agent_id: str
    exchanges: list[_Exchange]

    def __repr__(self) -> str:
        return f"<conversation of {len(self.exchanges)}>"


class Conversations:
    """All conversations. `turns` is how many messages are kept of each; of 0 none are.

    `say` tells the operator of a file that is damaged. Methods raise OSError.
    """

    def __init__(
        self, directory: Path, *, turns: int = 200, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.directory = Path(directory)
        self._most = (turns + 1) // 2
        self._say = say

    def turns(self, phone: str, agent_id: str) -> list[Turn]:
        """What a model has to know to go on: questions that were answered, and the answers."""
        return [
            turn
            for exchange in self._last(phone, agent_id)
            if exchange.answer
            for turn in (Turn("user", exchange.question), Turn("assistant", exchange.answer))
        ]

    def entries(self, phone: str, agent_id: str, limit: int) -> list[HistoryEntry]:
        """The last messages, oldest first."""
        found = []
        for exchange in self._last(phone, agent_id):
            found.append(HistoryEntry("user", exchange.question, exchange.asked))
            if exchange.answer:
                found.append(HistoryEntry("assistant", exchange.answer, exchange.answered))
        return found[-limit:]

    def asked(self, phone: str, agent_id: str, id: str, question: str) -> None:
        """Keep a question; `id` is the message's."""
        if not self._most:
            # Nor what was kept when more was allowed.
            self.delete(phone, agent_id)
            return
        kept = self._read(phone, agent_id)
        kept.exchanges.append(_Exchange(id, question[:MAX_CHARACTERS], _now()))
        self._write(phone, kept)

    def answered(self, phone: str, agent_id: str, id: str, answer: str) -> None:
        """Keep what was answered to it, whole or not. Nothing happens where the question
        was deleted meanwhile."""
        if not self._most:
            return
        kept = self._read(phone, agent_id)
        for exchange in reversed(kept.exchanges):
            if exchange.id == id:
                exchange.answer, exchange.answered = answer[:MAX_CHARACTERS], _now()
                self._write(phone, kept)
                return

    def delete(self, phone: str, agent_id: str | None = None) -> None:
        """Delete a phone's conversation with an agent, or all of its conversations."""
        if agent_id is not None:
            path = self._path(phone, agent_id)
            private_files.delete(path)
            private_files.delete(_aside(path))
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory / phone)

    def delete_agent(self, agent_id: str) -> None:
        """Delete every phone's conversation with an agent."""
        if self.directory.is_dir():
            for directory in self.directory.iterdir():
                self.delete(directory.name, agent_id)

    def _path(self, phone: str, agent_id: str) -> Path:
        if agent_id == _DEFAULT:
            agent_id = ""
        digest = hashlib.sha256(agent_id.encode("utf-8", "surrogatepass")).hexdigest()
        return self.directory / phone / f"{digest[:32]}.json"

    def _last(self, phone: str, agent_id: str) -> list[_Exchange]:
        """What is kept of it, as many as are allowed now: it may have been more."""
        return self._read(phone, agent_id).exchanges[-self._most :] if self._most else []

    def _read(self, phone: str, agent_id: str) -> _File:
        path = self._path(phone, agent_id)
        try:
            kept = msgspec.json.decode(private_files.read(path), type=_File)
            if kept.version == _VERSION:
                return kept
        except FileNotFoundError:
            return _File(_VERSION, agent_id, [])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        # Somebody may want to mend it, and the next question must not wait for that.
        aside = _aside(path)
        os.replace(path, aside)
        self._say(f"A conversation cannot be read. It was moved to {aside}, and a new one begins.")
        return _File(_VERSION, agent_id, [])

    def _write(self, phone: str, kept: _File) -> None:
        path = self._path(phone, kept.agent_id)
        del kept.exchanges[: -self._most]
        while len(content := msgspec.json.encode(kept)) > MAX_BYTES and len(kept.exchanges) > 1:
            del kept.exchanges[: 1 + len(kept.exchanges) // 10]
        # The directory above may be this phone's first as well.
        private_files.make_directory(self.directory)
        private_files.make_directory(path.parent)
        if not path.exists():
            self._make_room(path.parent)
        private_files.replace(path, content)

    def _make_room(self, directory: Path) -> None:
        there = sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in there[: len(there) - MAX_AGENTS + 1]:
            private_files.delete(path)


def _aside(path: Path) -> Path:
    """Where a damaged file goes."""
    return path.with_suffix(".damaged")


def _now() -> int:
    return int(time.time() * 1000)
