"""Where an agent's things are: its config, and the directory of all that it keeps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from coralmux import FileStore, user_data_directory
from coralmux.bridge.config import ConfigError
from coralmux.bridge.conversations import Conversations
from coralmux.bridge.running import is_running, watched
from coralmux.bridge.seen import Seen

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Home:
    """`config` is the file, `directory` has everything else; `is_named`: by --config."""

    config: Path
    directory: Path
    is_named: bool = False

    @classmethod
    def of(cls, config_file: str, data_dir: str) -> Home:
        """From the command line, "" where nothing is given. Raises StoreError."""
        directory = (Path(data_dir) if data_dir else user_data_directory()) / "agent"
        config = Path(config_file) if config_file else directory / "config.toml"
        return cls(config, directory, bool(config_file))

    @property
    def store(self) -> FileStore:
        return FileStore(self.directory / "pairings")

    @property
    def conversations(self) -> Conversations:
        return Conversations(self.directory / "conversations")

    @property
    def seen(self) -> Seen:
        return Seen(self.directory)

    @property
    def is_running(self) -> bool:
        """Whether `coralmux-agent run` is at work here."""
        return is_running(self.directory)

    @property
    def watched(self) -> Path | None:
        """The config that the agent at work here follows; None where it serves links."""
        return watched(self.directory)

    @property
    def is_followed(self) -> bool:
        """Whether an agent is at work here that follows what changes in this config."""
        return self.is_running and self.watched == self.config.resolve()


def placed_anew(function: F) -> F:
    """Adds the options for it to a command, which gets a `home` that may be empty."""

    @click.option("--config", "config_file", default="", metavar="FILE", help="The config file.")
    @click.option(
        "--data-dir",
        default="",
        metavar="DIR",
        help="Where to keep everything, instead of your data directory.",
    )
    @functools.wraps(function)
    def with_home(*arguments: Any, config_file: str, data_dir: str, **options: Any) -> Any:
        return function(*arguments, home=Home.of(config_file, data_dir), **options)

    return with_home  # type: ignore[return-value]


def placed(function: F) -> F:
    """The same, and a config that is named has to be there."""

    @functools.wraps(function)
    def with_config(*arguments: Any, home: Home, **options: Any) -> Any:
        if home.is_named and not home.config.exists():
            raise ConfigError(f"There is no config {home.config}. Check the name behind --config.")
        return function(*arguments, home=home, **options)

    return placed_anew(with_config)  # type: ignore[return-value]
