"""docs/library.md: its reference is the docstrings', and its programs run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import coralmux
from coralmux import events
from coralmux.client.requests import RESULTS
from coralmux.protocol.types import TYPES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")


def test_the_reference_is_that_of_the_docstrings() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_everything_public_is_in_the_page_and_has_a_docstring() -> None:
    for module in (coralmux, events):
        for name in module.__all__:
            if not name.startswith("__"):
                assert f"`{name}`" in PAGE or f"`{name}(" in PAGE, name
                assert getattr(module, name).__doc__, name


def test_every_exception_that_the_client_raises_is_explained() -> None:
    table = PAGE[PAGE.index("## What can happen") : PAGE.index("## The security model")]
    own = [
        name
        for name in coralmux.__all__
        if isinstance(getattr(coralmux, name), type)
        and issubclass(getattr(coralmux, name), coralmux.ClientError)
    ]
    reference_only = {"ClientError"}
    assert not [name for name in own if f"`{name}`" not in table and name not in reference_only]


def test_every_request_of_the_protocol_has_a_result() -> None:
    asked = {name for name, kind in TYPES.items() if kind.sender.name == "PHONE"}
    assert asked - {"chat.send", "chat.cancel"} == set(RESULTS)
    assert set(RESULTS.values()) <= set(TYPES)


def program(name: str) -> str:
    """The code block of the page that begins with this file name."""
    found = re.search(rf"```python\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1]


def test_the_bot_has_ten_lines() -> None:
    assert len([line for line in program("bot.py").splitlines() if line.strip()]) <= 10
