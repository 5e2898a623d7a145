"""Apps of frameworks, as a user writes them into a file."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

_NUMBERS = itertools.count(1)


class AppFiles:
    """A directory on its own; what is loaded from it is forgotten after the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, source: str, **values: str) -> str:
        """A new module with this source, `{{name}}` replaced by the value; its name."""
        source = textwrap.dedent(source)
        for name, value in values.items():
            source = source.replace("{{" + name + "}}", value)
        name = f"app_{next(_NUMBERS)}"
        (self.directory / f"{name}.py").write_text(source, encoding="utf-8")
        return name


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppFiles]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    directory = tmp_path / "apps"
    directory.mkdir()
    yield AppFiles(directory)
    for name in set(sys.modules) - before:
        if name.startswith("app_"):
            del sys.modules[name]
