"""docs/backends.md, taken apart: its programs and configs are what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under the heading that begins with this."""
    found = re.search(rf"^## {re.escape(title)}.*?\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found is not None, title
    return found[1]


def program(name: str) -> str:
    """The code block of the page that begins with this file name."""
    found = re.search(rf"```\w+\n# {re.escape(name)}\n(.*?)```", PAGE, re.S)
    assert found is not None, name
    return found[1]


def blocks(title: str, language: str) -> list[str]:
    """The blocks in this language of a section, those that are files left out."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section(title), re.S)
    return [text for text in found if not re.match(r"# [\w.]+\n", text)]
