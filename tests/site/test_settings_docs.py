"""docs/settings.md and the code name the same settings, with the same defaults and units."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from coralmux_site.environment import SETTINGS, Setting

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


class Row(NamedTuple):
    name: str
    default: str
    unit: str
    meaning: str


ROWS = [
    Row(name.strip("`"), default.strip("`"), unit, meaning)
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for name, default, unit, meaning in [[cell.strip() for cell in line.strip("|").split("|")]]
]
DOCUMENTED = {row.name: row for row in ROWS}


def shown(setting: Setting) -> str:
    """A default as the page writes it."""
    if setting.default in ("", None, []):
        return "none"
    if isinstance(setting.default, bool):
        return str(int(setting.default))
    if isinstance(setting.default, list):
        return ",".join(setting.default)
    return f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_documented_as_it_is(setting: Setting) -> None:
    row = DOCUMENTED[setting.name]
    assert row.default == shown(setting)
    assert row.unit == (setting.unit or "text")
    assert row.meaning.startswith(setting.meaning)
    for alias in setting.aliases:
        assert f"`{alias}`" in row.meaning


def test_nothing_is_documented_that_does_not_exist_and_nothing_twice() -> None:
    assert len(DOCUMENTED) == len(ROWS)
    known = {name for s in SETTINGS for name in (s.name, *s.aliases)}
    known |= {f"{name}_FILE" for name in known}
    mentioned = set(re.findall(r"\b(?:CORALMUX|RELAY|DATABASE|REDIS)_[A-Z_]+", PAGE))
    assert mentioned <= known


def test_each_documented_default_is_one_that_the_setting_takes() -> None:
    by_name = {setting.name: setting for setting in SETTINGS}
    for row in ROWS:
        if row.default != "none":
            setting = by_name[row.name]
            assert setting.parse(row.default) == setting.default


def test_the_code_reads_no_variable_outside_the_table() -> None:
    known = {name for s in SETTINGS for name in (s.name, *s.aliases)}
    known |= {f"{s.name}_FILE" for s in SETTINGS if s.secret}
    for package in ("coralmux_site", "relay", "pairing"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            read = set(re.findall(r"\bCORALMUX_[A-Z][A-Z_]+\b", text))
            assert read <= known, path


def test_secrets_can_be_files_and_the_page_says_so() -> None:
    secrets = [name for s in SETTINGS if s.secret for name in (s.name, *s.aliases)]
    assert secrets
    assert "_FILE=" in PAGE
    for name in secrets:
        assert f"`{name}`" in PAGE
