"""The config: one TOML file, environment variables over it, the command line over both.

    name = "Agent"
    backend = "openai"

    [openai]
    api_key = "${OPENAI_API_KEY}"

docs/agent.md lists every key. No error repeats a value: it may be a key or a link.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from coralmux import private_files
from coralmux.bridge import backends, phones
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.phones import PairedPhone, PhoneError
from coralmux.bridge.variables import VariableError, expanded, expanded_all
from coralmux.text import discreet, one_line

# Environment variables that stand for keys: CORALMUX_AGENT_NAME, CORALMUX_AGENT_OPENAI_MODEL.
PREFIX = "CORALMUX_AGENT_"

# Settings that a backend takes one of: whoever gives the one means it instead of the other.
_INSTEAD = {"app": "base_url", "base_url": "app"}


class ConfigError(Exception):
    """The config cannot be used; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the top level. `least` and `most` bound numbers, both included."""

    name: str
    default: str | float | bool
    meaning: str
    least: float = 0
    most: float = math.inf

    @property
    def wanted(self) -> str:
        """What a value has to be."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return "a text in quotes"
        whole = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{whole}, {self.least:g} to {self.most:g}"


KEYS = (
    Key("name", "Agent", "What phones show as the agent's name."),
    Key("backend", "", "Which AI answers: the name of a backend."),
    Key("relay", "", "The relay's address, for `pair` without --relay."),
    Key("silence_seconds", 300.0, "The longest silence of the AI within an answer.", 1, 86_400),
    Key(
        "drain_seconds", 30.0, "What running answers get to end when the agent is stopped.", 0, 3600
    ),
    Key("system_status", False, "Whether phones may see this machine's load and memory."),
    Key("history_turns", 200, "Messages kept of each conversation; 0 keeps none.", 0, 10_000),
)


@dataclass(frozen=True, slots=True)
class Config:
    """All that `run` needs. `settings`: the chosen backend's, complete and expanded.

    `path` is the file, which need not be there; `directory` is where data is kept.
    """

    path: Path
    directory: Path
    name: str
    backend: str
    relay: str
    silence_seconds: float
    drain_seconds: float
    system_status: bool
    history_turns: int
    settings: dict[str, Any] = field(repr=False)
    phones: tuple[PairedPhone, ...]


def load(
    path: Path,
    directory: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read everything that `run` needs; a file that is not there has nothing in it.

    `overrides`: the command line's values by key; "settings" holds those of the backend.
    `environ`: the process's environment where it is None. Raises ConfigError.
    """
    given = dict(overrides or {})
    environ = os.environ if environ is None else environ
    table = read_table(path)
    try:
        values = {key.name: _value(key, table, environ, given) for key in KEYS}
        name = values["backend"]
        if not name:
            raise ConfigError(
                f"No backend is chosen. In {path} write for example: "
                'backend = "echo", or give --backend. '
                f"There are: {', '.join(backends.names())}."
            )
        _refuse_unknown(table, name)
        options = given.get("settings", {})
        above = {**_left_by(options, _settings_from(environ, name)), **options}
        below = _left_by(above, _settings_table(table, name))
        settings = {**expanded_all(below, environ, f"[{name}]"), **above}
        paired = phones_of(path, table, environ)
    except VariableError as error:
        raise ConfigError(f"{path}: {error}") from None
    except _Unusable as error:
        raise ConfigError(f"{error}" if error.outside else f"{path}: {error}") from None
    return Config(path=path, directory=directory, settings=settings, phones=paired, **values)


def load_phones(path: Path, environ: Mapping[str, str] | None = None) -> tuple[PairedPhone, ...]:
    """The phones alone, whatever the rest may be like. Raises ConfigError."""
    return phones_of(path, read_table(path), environ)


def phones_of(
    path: Path, table: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> tuple[PairedPhone, ...]:
    """The phones of the file's table. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    try:
        return phones.read(table.get("phone"), lambda text, what: expanded(text, environ, what))
    except (VariableError, PhoneError) as error:
        raise ConfigError(f"{path}: {error}") from None


def load_key(path: Path, name: str, environ: Mapping[str, str] | None = None) -> Any:
    """One key of the top level, whatever the rest may be like. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    key = next(key for key in KEYS if key.name == name)
    try:
        return _value(key, read_table(path), environ, {})
    except (VariableError, _Unusable) as error:
        raise ConfigError(f"{path}: {error}") from None


def read_table(path: Path) -> dict[str, Any]:
    """What the file says; {} where there is none. Raises ConfigError."""
    return parse(path, read_text(path))


def read_text(path: Path) -> str:
    """The file's text, "" where there is none. One that others may read is closed to them,
    with a warning, for there are secrets in it. Raises ConfigError."""
    try:
        # Whoever keeps the config elsewhere and links to it knows what they do.
        return private_files.read(path.resolve()).decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror or type(error).__name__}."
    except UnicodeDecodeError:
        why = f"{path} is not UTF-8 text. Save it as UTF-8."
    raise ConfigError(why)


def parse(path: Path, text: str) -> dict[str, Any]:
    """The file's TOML. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why = discreet(one_line(str(error)))
    raise ConfigError(f"{path} is not TOML: {why}.")


class _Unusable(Exception):
    """A value is not what it has to be. `outside`: it did not come from the file."""

    def __init__(self, text: str, *, outside: bool = False) -> None:
        super().__init__(text)
        self.outside = outside


def _value(
    key: Key, table: Mapping[str, Any], environ: Mapping[str, str], given: Mapping[str, Any]
) -> Any:
    """A key's value from the command line, the environment, the file, or its default."""
    variable = PREFIX + key.name.upper()
    if given.get(key.name) is not None:
        return _checked(key, given[key.name], f"--{key.name.replace('_', '-')}", outside=True)
    if environ.get(variable):
        value = _converted(environ[variable], type(key.default))
        return _checked(key, value, variable, outside=True)
    if key.name not in table:
        return key.default
    value = table[key.name]
    if isinstance(value, str):
        value = expanded(value, environ, key.name)
    return _checked(key, value, key.name)


def _checked(key: Key, value: Any, where: str, *, outside: bool = False) -> Any:
    kind = type(key.default)
    if kind is float and type(value) is int:
        value = float(value)
    fits = type(value) is kind
    if isinstance(value, int | float) and fits:
        fits = key.least <= value <= key.most  # NaN is refused, too
    if not fits:
        raise _Unusable(f"{where} must be {key.wanted}.", outside=outside)
    return value


def _converted(text: str, kind: Any) -> Any:
    """A text of the environment as this type, or as it is where it is no such thing."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        return text


def _refuse_unknown(table: Mapping[str, Any], backend: str) -> None:
    known = [key.name for key in KEYS]
    allowed = {*known, "phone", backend, *backends.names()}
    if unknown := sorted(set(table) - allowed):
        raise _Unusable(
            f"there is no key {one_line(unknown[0])!r} at the top level. There are: "
            f"{', '.join(known)}; and a table for each backend."
        )


def _settings_table(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise _Unusable(f"{name} must be a table: [{name}], with its settings below it.")
    return found


def _left_by(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """What holds of `below` where `above` wins. An app and a server take each other's place."""
    gone = {*above, *(_INSTEAD[key] for key in above if key in _INSTEAD)}
    return {key: value for key, value in below.items() if key not in gone}


def _settings_from(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    """Settings of the backend that the environment has."""
    try:
        fields = msgspec.structs.fields(backends.find(name).Settings)
    except BackendUnusable:  # said in better words by whoever makes the backend
        return {}
    prefix = PREFIX + name.upper().replace("-", "_") + "_"
    return {
        field.encode_name: _setting(environ[variable], field.type)
        for field in fields
        if environ.get(variable := prefix + field.encode_name.upper())
    }


def _setting(text: str, kind: Any) -> Any:
    """A text of the environment as the setting's type; lists and tables are TOML there."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
