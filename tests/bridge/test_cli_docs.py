"""docs/agent.md and the code name the same commands, options, keys and variables."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from coralmux.bridge import links, phone_commands
from coralmux.bridge.commands import agent
from coralmux.bridge.config import KEYS, PREFIX, load
from coralmux.bridge.template import as_toml

PAGE = (Path(__file__).parents[2] / "docs" / "agent.md").read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """The text below each heading of a command."""
    found = re.split(r"^### coralmux-agent (\w+).*$", PAGE, flags=re.MULTILINE)
    return {
        name: text.partition("\n### ")[0].partition("\n## ")[0]
        for name, text in zip(found[1::2], found[2::2], strict=True)
    }


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_command_is_documented_and_no_other() -> None:
    assert list(sections()) == ["pair", "phones", "unpair", "forget", "run", "check", "init"]
    assert set(sections()) == set(agent.commands)


@pytest.mark.parametrize("name", sorted(agent.commands))
def test_each_option_is_documented_as_it_is(name: str) -> None:
    shared = {"--config", "--data-dir"}
    told = {}
    for option in agent.commands[name].params:
        if isinstance(option, click.Option):
            metavar = "" if option.is_flag else f" {option.metavar or 'TEXT'}"
            spelt = ", ".join(f"`{one}`" for one in option.opts[:-1])
            told[f"{spelt}{', ' if spelt else ''}`{option.opts[-1]}{metavar}`"] = option.help
    common = dict(rows(PAGE.partition("### coralmux-agent pair")[0]))
    assert common == {spelt: help for spelt, help in told.items() if spelt.split()[0][1:] in shared}
    assert dict(rows(sections()[name])) | common == told


def test_each_key_is_documented_with_its_default() -> None:
    table = PAGE.partition("| key | default | |")[2].partition("\n\n")[0]
    wanted = [[f"`{key.name}`", f"`{as_toml(key.default)}`", key.meaning] for key in KEYS]
    assert rows(table) == wanted


def test_each_variable_is_documented_and_no_other() -> None:
    known = {PREFIX + key.name.upper() for key in KEYS} | {
        f"{PREFIX}OPENAI_MODEL",
        links.VARIABLE,
        phone_commands.TOKEN_VARIABLE,
        phone_commands.KEY_VARIABLE,
        "CORALMUX_DATA_DIR",
    }
    assert set(re.findall(r"\bCORALMUX_[A-Z_]+\b", PAGE)) == known


def test_the_example_of_a_config_can_be_used(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    path = tmp_path / "config.toml"
    path.write_text(example[1])
    path.chmod(0o600)
    chosen = load(path, tmp_path, environ={})
    assert (chosen.backend, chosen.settings["api_key"]) == ("openai", "")
