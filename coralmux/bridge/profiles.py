"""Agents that phones make for a backend that has none of its own: a name, and how it answers.

They stand in one file, which is read anew each time: of two processes that change them,
the last one wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import msgspec

import coralmux
from coralmux import private_files
from coralmux.bridge.backend import AgentSpec
from coralmux.text import one_line

# The agent that the config describes.
DEFAULT = "default"

MOST = 100
_LONGEST_ID = 40
# Characters that each value may have.
_LONGEST = {"name": 100, "description": 1000, "model": 200, "system_prompt": 20_000}


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One agent. An empty value, or no temperature, means the one of the config."""

    id: str
    name: str
    description: str = ""
    model: str = ""
    system_prompt: str = ""
    temperature: float | None = None

    def __repr__(self) -> str:
        return f"<Profile {self.id}>"

    def shown(self) -> coralmux.AgentProfile:
        return coralmux.AgentProfile(
            id=self.id,
            name=self.name,
            description=self.description or None,
            model=self.model or None,
        )


class _Content(msgspec.Struct):
    agents: list[Profile] = []


class Profiles:
    """The agents in one directory. `say` tells the operator of a file that cannot be read.

    All methods raise BackendError, in words for the phone's user.
    """

    def __init__(self, directory: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self._path = directory / "agents.json"
        self._say = say
        self._changing = asyncio.Lock()

    async def all(self) -> list[Profile]:
        return list((await asyncio.to_thread(self._read)).values())

    async def get(self, id: str) -> Profile:
        found = await asyncio.to_thread(self._read)
        if id not in found:
            raise _unknown(id)
        return found[id]

    async def create(self, spec: AgentSpec) -> Profile:
        """A new agent, with an id made of its name."""
        values = _checked(spec)
        if "name" not in values:
            raise coralmux.BackendError("The new agent needs a name.")
        async with self._changing:
            agents = await asyncio.to_thread(self._read)
            if len(agents) >= MOST:
                raise coralmux.BackendError(
                    f"There are {MOST} agents, which is all that are kept. Delete one first."
                )
            profile = msgspec.convert(
                {**values, "id": _free_id(values["name"], {DEFAULT, *agents})}, Profile
            )
            await self._write(agents | {profile.id: profile})
        return profile

    async def update(self, spec: AgentSpec) -> Profile:
        _not_the_default(spec.id)
        values = _checked(spec)
        async with self._changing:
            agents = await asyncio.to_thread(self._read)
            if spec.id not in agents:
                raise _unknown(spec.id)
            profile = msgspec.structs.replace(agents[spec.id], **values)
            await self._write(agents | {profile.id: profile})
        return profile

    async def delete(self, id: str) -> Profile:
        _not_the_default(id)
        async with self._changing:
            agents = await asyncio.to_thread(self._read)
            if id not in agents:
                raise _unknown(id)
            profile = agents.pop(id)
            await self._write(agents)
        return profile

    def _read(self) -> dict[str, Profile]:
        try:
            content = msgspec.json.decode(private_files.read(self._path), type=_Content)
        except FileNotFoundError:
            return {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            aside = self._path.with_suffix(".damaged")
            with contextlib.suppress(OSError):
                os.replace(self._path, aside)
            self._say(f"The agents in {self._path} cannot be read; the file is {aside.name} now.")
            return {}
        except OSError as error:
            self._say(f"The agents in {self._path} cannot be read: {error.strerror}.")
            raise coralmux.BackendError(
                "The agents cannot be read just now. Whoever runs the bridge finds out why there."
            ) from None
        return {profile.id: profile for profile in content.agents}

    async def _write(self, agents: dict[str, Profile]) -> None:
        content = msgspec.json.encode(_Content(list(agents.values())))

        def write() -> None:
            private_files.make_directory(self._path.parent)
            private_files.replace(self._path, content)

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            self._say(f"The agents in {self._path} cannot be written: {error.strerror}.")
            raise coralmux.BackendError(
                "The agent could not be kept. Whoever runs the bridge finds out why there."
            ) from None


def _checked(spec: AgentSpec) -> dict[str, str | float]:
    """The values that are set. Raises BackendError for one that is no good."""
    values: dict[str, str | float] = {}
    for field, longest in _LONGEST.items():
        value: str | None = getattr(spec, field)
        if value is None:
            continue
        value = value.strip() if field == "system_prompt" else one_line(value)
        if len(value) > longest:
            raise coralmux.BackendError(
                f"The agent's {field.replace('_', ' ')} is too long: "
                f"at most {longest} characters are taken."
            )
        if not value and field == "name":
            raise coralmux.BackendError("The agent needs a name.")
        values[field] = value
    if spec.temperature is not None:
        if not (math.isfinite(spec.temperature) and 0 <= spec.temperature <= 2):
            raise coralmux.BackendError("The agent's temperature lies between 0 and 2.")
        values["temperature"] = spec.temperature
    return values


def _free_id(name: str | float, taken: set[str]) -> str:
    """[a-z0-9-], made of the name, and not taken."""
    plain = unicodedata.normalize("NFKD", str(name)).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_ID].rstrip("-") or "agent"
    id, number = base, 2
    while id in taken:
        id, number = f"{base}-{number}", number + 1
    return id


def _not_the_default(id: str) -> None:
    if id in ("", DEFAULT):
        raise coralmux.BackendError(
            "This agent is the one in the bridge's config, and is changed there."
        )


def _unknown(id: str) -> coralmux.BackendError:
    return coralmux.BackendError(
        f"There is no agent {one_line(id)[:_LONGEST_ID]!r} (any more). Choose another one."
    )
