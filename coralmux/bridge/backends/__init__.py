"""The backends by name: those in this directory, and others by entry point.

A package of somebody else's offers one in its pyproject.toml:

    [project.entry-points."coralmux.backends"]
    parrot = "my_package:Parrot"
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import msgspec

from coralmux.bridge.backend import Backend, Place

GROUP = "coralmux.backends"

# Module of this package, and class in it.
OWN = {
    "autogen": "AutogenBackend",
    "autogpt": "AutogptBackend",
    "command": "CommandBackend",
    "crewai": "CrewaiBackend",
    "echo": "EchoBackend",
    "langchain": "LangchainBackend",
    "openai": "OpenaiBackend",
    "openclaw": "OpenclawBackend",
}


class BackendUnusable(Exception):
    """A backend cannot be had as it is asked for; the text says why and what to do."""


def names() -> list[str]:
    """All that can be named."""
    return sorted({*OWN, *(entry.name for entry in metadata.entry_points(group=GROUP))})


def find(name: str) -> type[Backend]:
    """The class of a backend. Raises BackendUnusable for one that is unknown or broken."""
    try:
        if name in OWN:
            return getattr(  # type: ignore[no-any-return]
                importlib.import_module(f"{__name__}.{name}"), OWN[name]
            )
        for entry in metadata.entry_points(group=GROUP, name=name):
            found = entry.load()
            if not (isinstance(found, type) and issubclass(found, Backend)):
                raise BackendUnusable(
                    f"The backend {name!r} leads to {entry.value}, which is no "
                    "coralmux.bridge.Backend. Its package has to be mended."
                )
            return found
    except ImportError as error:
        raise BackendUnusable(f"The backend {name!r} cannot be loaded: {error}") from error
    except BackendUnusable:
        raise
    except Exception as error:
        # Somebody else's module ran: the error's text may hold anything.
        raise BackendUnusable(
            f"The backend {name!r} cannot be loaded ({type(error).__name__}). "
            "Its package has to be mended."
        ) from None
    raise BackendUnusable(f"There is no backend {name!r}. There are: {', '.join(names())}.")


def make(name: str, settings: Mapping[str, Any], place: Place) -> Backend:
    """A backend with these settings. Raises BackendUnusable."""
    kind = find(name)
    missing = [module for module in kind.needs if not _is_there(module)]
    if missing:
        raise BackendUnusable(
            f"The backend {name} needs {', '.join(missing)}, which is not installed here. "
            f"Type: {kind.install_line()}"
        )
    try:
        read = msgspec.convert(settings, kind.Settings)
    except msgspec.ValidationError as error:
        raise BackendUnusable(_wrong_setting(name, kind, str(error))) from None
    try:
        return kind(read, place)
    except BackendUnusable:
        raise
    except Exception as error:
        # The settings, and keys among them, may stand in its text.
        raise BackendUnusable(
            f"The backend {name} cannot be made ({type(error).__name__}). Look through its "
            f"settings under [{name}]; if they are right, its package has to be mended."
        ) from None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent is missing
        return False


def _wrong_setting(name: str, kind: type[Backend], text: str) -> str:
    known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind.Settings))
    if unknown := re.search(r"unknown field `(.*?)`", text):
        return f"[{name}] has no setting {unknown[1]!r}. It knows: {known or 'none'}."
    if absent := re.search(r"missing required field `(.*?)`", text):
        return f"[{name}] needs the setting {absent[1]!r}. It knows: {known}."
    if found := re.search(r"at `\$\.(.*?)`", text):
        return f"[{name}] {found[1]}: {text.partition(' - at')[0]}."
    return f"[{name}]: {text}."
