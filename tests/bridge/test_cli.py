"""`coralmux-agent` itself: help that teaches, exit statuses, and what no error repeats."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from coralmux.bridge.commands import agent, run
from tests.bridge.agent_command import Home

TOKEN, SECRET = "oc_pair_0123456789abcdef0123456789abcdef", "A" * 42 + "E"
LINK = f"https://relay.example.com/phone#token={TOKEN}&psk={SECRET}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.slow
async def test_the_bare_command_teaches_the_first_steps(home: Home) -> None:
    ended = await home.agent()
    assert (ended.status, ended.err) == (0, "")
    steps = ["coralmux-agent init", "coralmux-agent pair --relay wss://", "coralmux-agent run"]
    places = [ended.out.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'tomlkit' else real(name, *more)\n"
        "from coralmux.bridge.cli import main; main(['phones'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == "coralmux-agent needs: pip install 'coralmux[bridge]'\n"


@pytest.mark.parametrize("name", sorted(agent.commands))
def test_each_command_and_option_explains_itself(name: str) -> None:
    command = agent.commands[name]
    assert len(command.help or "") > 40
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize(
    "arguments",
    [
        [LINK],
        ["run", LINK],
        ["run", f"--lnk={LINK}"],
        ["run", "--link", LINK.replace("#", "?")],
        ["run", "--link", f"{LINK} x"],
        ["unpair", LINK],
        ["pair", "--relay", LINK],
        ["pair", "--relay", "wss://relay.example.com", "--name", LINK],
        ["pair", "--relay", "wss://relay.example.com", "--token", f"{TOKEN} x"],
    ],
)
def test_no_error_repeats_a_link_or_a_token(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORALMUX_DATA_DIR", str(tmp_path))
    assert run(arguments) in (1, 2)
    said = "".join(capsys.readouterr())
    assert said.startswith("coralmux-agent: ")
    assert said.count("\n") == 1
    assert TOKEN[8:] not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["frobnicate"], 1, "no such command. There are: check, forget"),
        (["run"], 2, "no phone yet. Pair one first: coralmux-agent pair"),
        (["run", "--relay", "wss://relay.example.com"], 2, "No backend is chosen"),
        (["run", "--relay", "http:x", "--backend", "echo"], 2, "must begin with wss://"),
        (["run", "--link", "https://x"], 2, "not a pairing link"),
        (["run", "--link", LINK], 2, "No backend is chosen"),
        (["run", "--link", LINK, "--backend", "ecko"], 2, "no backend 'ecko'"),
        (["run", "--link", LINK, "--backend", "echo", "--model", "x"], 2, "no setting 'model'"),
        (["run", "--link-file", "/nowhere/link"], 1, "/nowhere/link: No such file"),
        (["run", "--config", "/nowhere/x.toml"], 2, "no config /nowhere/x.toml"),
        (["unpair", "X"], 1, "no phone of that name, nor any other"),
        (["forget"], 1, "Which phone?"),
        (["forget", "X", "--orphans"], 1, "goes without a name"),
        (["forget", "--agent", "X", "--orphans"], 1, "goes without a name"),
        (["pair"], 1, "Which relay?"),
        (["pair", "--token", "x", "--admin-key", "y"], 1, "not both"),
        (["pair", "--v1", "--phone-url", "https://x"], 1, "leads to no page"),
        (["pair", "--relay", "relay.example.com"], 2, "must begin with wss://"),
        (["pair", "--relay", "wss://relay.example.com", "--phone-url", "x"], 2, "page's address"),
        (["pair", "--relay", "wss://relay.example.com", "--name", " "], 1, "1 to 60"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    arguments: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORALMUX_DATA_DIR", str(tmp_path))
    assert run(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert list(tmp_path.rglob("*.toml")) == []
