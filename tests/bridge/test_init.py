"""`coralmux-agent init`: a config that explains itself, and works after one line is edited."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

import msgspec
import pytest

from coralmux import PairingLink
from coralmux.bridge import backends, template
from coralmux.bridge.backends import OWN
from coralmux.bridge.commands import run
from coralmux.bridge.config import KEYS, load
from tests.bridge.agent_command import Home
from tests.client.meeting import phone_for
from tests.support.process import RelayProcess


def table(name: str, *, examples: bool) -> dict[str, object]:
    """What the written config says of a backend, with its examples or without them."""
    text = template.config().partition(f"\n[{name}]\n")[2].partition("\n\n")[0]
    if examples:
        text = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    return tomllib.loads(text)


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_setting_of_every_backend_stands_in_it(name: str) -> None:
    fields = msgspec.structs.fields(backends.find(name).Settings)
    assert set(table(name, examples=True)) == {field.encode_name for field in fields}


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_example_in_it_is_one_that_the_backend_takes(name: str) -> None:
    kind = backends.find(name).Settings
    for examples in (True, False):
        msgspec.convert(table(name, examples=examples), kind)


def test_every_key_stands_in_it_with_its_default() -> None:
    written = tomllib.loads(template.config())
    assert list(written)[: len(KEYS)] == [key.name for key in KEYS]
    for key in KEYS:
        assert written[key.name] == key.default
        assert key.meaning in template.config()


def test_a_backend_of_somebody_else_gets_a_table(tmp_path: Path) -> None:
    assert tomllib.loads(template.config(backend="parrot"))["parrot"] == {}


def test_the_tables_of_a_config_that_nobody_asked_for_are_there_to_be_taken_in() -> None:
    written = template.config(tables=False)
    assert list(tomllib.loads(written)) == [key.name for key in KEYS]
    said = "have no effect as they are"
    assert said in written
    assert said not in template.config()
    body = re.sub(r"^#(?! |$)", "", written, flags=re.MULTILINE)
    assert tomllib.loads(body) == tomllib.loads(template.config())


def init(home: Path, *arguments: str) -> int:
    return run(["init", "--data-dir", str(home), *arguments])


def test_it_is_for_its_owner_alone_and_not_overwritten_by_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent" / "config.toml"
    assert init(tmp_path) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "autogen, autogpt, command" in capsys.readouterr().err
    path.write_text("# mine\n")
    assert init(tmp_path) == 1
    assert path.read_text() == "# mine\n"
    assert "--force" in capsys.readouterr().err
    assert init(tmp_path, "--force", "--backend", "echo", "--relay", "https://r.example.com") == 0
    chosen = load(path, path.parent, environ={})
    assert (chosen.backend, chosen.relay) == ("echo", "wss://r.example.com/ws")


def test_a_backend_that_there_is_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, "--backend", "ecko") == 2
    assert "There is no backend 'ecko'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
async def test_from_nothing_to_an_answer_by_init_pair_and_run(
    relay: RelayProcess, tmp_path: Path
) -> None:
    """The steps that the bare command names, with one line of the config edited."""
    home = Home(tmp_path)
    assert (await home.agent("init")).status == 0
    text = home.config.read_text()
    home.config.write_text(text.replace('backend = "" ', 'backend = "command"', 1))
    made = await home.agent("pair", "--relay", relay.url, "--token", relay.token())
    assert made.status == 0, made.err
    async with home.running(), phone_for(PairingLink.parse(made.out)) as phone:
        # The program of the config is `cat`.
        assert await phone.ask("Hello there") == "Hello there"
