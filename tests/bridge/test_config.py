"""The config: what wins over what, variables, and what is said of a config that is wrong."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coralmux import PairingLink
from coralmux.bridge.config import KEYS, Config, ConfigError, load

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
LINK = PairingLink.new("wss://relay.example.com", TOKEN)

Loaded = Callable[..., Config]


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """Loads a config of this text; `environ` and `overrides` as `load` takes them."""

    def loads(text: str, environ: dict[str, str] | None = None, **overrides: Any) -> Config:
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        return load(path, tmp_path, overrides=overrides, environ=environ or {})

    return loads


def phone(name: str = "My phone", link: str = LINK.web()) -> str:
    return f'[[phone]]\nname = "{name}"\nlink = "{link}"\n'


def test_what_is_not_there_has_its_default(tmp_path: Path) -> None:
    chosen = load(tmp_path / "none.toml", tmp_path, overrides={"backend": "echo"}, environ={})
    assert (chosen.name, chosen.silence_seconds, chosen.drain_seconds) == ("Agent", 300, 30)
    assert (chosen.system_status, chosen.history_turns, chosen.relay) == (False, 200, "")
    assert (chosen.settings, chosen.phones) == ({}, ())
    assert chosen.directory == tmp_path


def test_everything_in_the_file_is_taken(loaded: Loaded) -> None:
    chosen = loaded(
        'name = "Anna"\nbackend = "command"\nrelay = "wss://relay.example.com"\n'
        "silence_seconds = 5\ndrain_seconds = 0.5\nsystem_status = true\nhistory_turns = 0\n"
        '[command]\ncommand = "cat"\n[openai]\nmodel = "x"\n'
        + phone()
        + "paired = 2026-11-23T08:00:00Z\n"
    )
    assert (chosen.name, chosen.backend, chosen.relay) == (
        "Anna",
        "command",
        "wss://relay.example.com",
    )
    assert (chosen.silence_seconds, chosen.drain_seconds) == (5.0, 0.5)
    assert (chosen.system_status, chosen.history_turns) == (True, 0)
    assert chosen.settings == {"command": "cat"}
    (paired,) = chosen.phones
    assert (paired.name, paired.link) == ("My phone", LINK)
    assert paired.paired == datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert len(paired.key) == 32
    assert not set(paired.key) - set("0123456789abcdef")


# What wins


def test_the_command_line_beats_the_environment_which_beats_the_file(loaded: Loaded) -> None:
    text = 'name = "file"\nbackend = "openai"\n[openai]\nmodel = "file"\nbase_url = "file"\n'
    text += 'api_key = "file"\n'
    environ = {
        "CORALMUX_AGENT_NAME": "environment",
        "CORALMUX_AGENT_OPENAI_MODEL": "environment",
        "CORALMUX_AGENT_OPENAI_BASE_URL": "environment",
        "CORALMUX_AGENT_COMMAND_COMMAND": "another backend's",
    }
    chosen = loaded(text, environ)
    assert chosen.name == "environment"
    assert chosen.settings == {
        "model": "environment",
        "base_url": "environment",
        "api_key": "file",
    }
    chosen = loaded(text, environ, name="line", settings={"model": "line"})
    assert chosen.name == "line"
    assert chosen.settings["model"] == "line"
    assert chosen.settings["base_url"] == "environment"
    assert loaded(text, environ, backend="echo", name=None).backend == "echo"


def test_an_app_and_a_server_take_each_others_place(loaded: Loaded) -> None:
    text = 'backend = "langchain"\n[langchain]\napp = "${MINE}"\ninput = "text"\n'
    server = {"CORALMUX_AGENT_LANGCHAIN_BASE_URL": "http://example.com/e"}
    by_environment = loaded(text, environ=server)
    assert by_environment.settings == {"base_url": "http://example.com/e", "input": "text"}
    by_option = loaded(text, settings={"base_url": "http://example.com/o"})
    assert by_option.settings == {"base_url": "http://example.com/o", "input": "text"}
    app = loaded(text, environ=server, settings={"app": "my:app"})
    assert app.settings == {"app": "my:app", "input": "text"}


def test_what_the_environment_says_is_read_as_what_it_has_to_be(loaded: Loaded) -> None:
    environ = {
        "CORALMUX_AGENT_BACKEND": "openai",
        "CORALMUX_AGENT_SILENCE_SECONDS": "7.5",
        "CORALMUX_AGENT_SYSTEM_STATUS": "true",
        "CORALMUX_AGENT_HISTORY_TURNS": "12",
        "CORALMUX_AGENT_OPENAI_TEMPERATURE": "0.5",
        "CORALMUX_AGENT_OPENAI_MAX_TOKENS": "256",
        "CORALMUX_AGENT_OPENAI_MODEL": "7",
        "CORALMUX_AGENT_OPENAI_HEADERS": '{ X-Title = "mine" }',
    }
    chosen = loaded("", environ)
    assert (chosen.silence_seconds, chosen.system_status, chosen.history_turns) == (7.5, True, 12)
    assert chosen.settings == {
        "temperature": 0.5,
        "max_tokens": 256,
        "model": "7",
        "headers": {"X-Title": "mine"},
    }


def test_an_empty_variable_counts_as_none(loaded: Loaded) -> None:
    environ = {"CORALMUX_AGENT_NAME": "", "CORALMUX_AGENT_OPENAI_MODEL": ""}
    chosen = loaded('name = "file"\nbackend = "openai"\n[openai]\nmodel = "file"\n', environ)
    assert (chosen.name, chosen.settings) == ("file", {"model": "file"})


# Variables in values


def test_variables_are_put_in_wherever_there_is_text(loaded: Loaded) -> None:
    chosen = loaded(
        'name = "${WHO}\'s"\nbackend = "command"\n[command]\n'
        'command = ["cat", "${FILE:-none}", "$$HOME $5 ${EMPTY}"]\nenv = { A = "${WHO}" }\n'
        + phone("${WHO}", LINK.web().replace(TOKEN, "${TOKEN}")),
        {"WHO": "Anna", "TOKEN": TOKEN, "EMPTY": ""},
    )
    assert chosen.name == "Anna's"
    assert chosen.settings == {"command": ["cat", "none", "$HOME $5 "], "env": {"A": "Anna"}}
    assert [(one.name, one.link) for one in chosen.phones] == [("Anna", LINK)]


def test_a_variable_that_is_not_set_is_named_with_its_key(loaded: Loaded) -> None:
    text = 'backend = "openai"\n[openai]\nheaders = { X = "${NOWHERE_SET}" }\n'
    with pytest.raises(ConfigError, match=r"\[openai\]\.headers\.X: .*NOWHERE_SET is not set"):
        loaded(text)
    # Of a backend that is not chosen it does not matter.
    assert loaded(text, backend="echo").backend == "echo"


def test_the_default_stands_in_for_a_variable_that_is_empty(loaded: Loaded) -> None:
    chosen = loaded('backend = "echo"\nname = "${A:-x${B}"', {"A": "", "B": "b"})
    assert chosen.name == "x${B"


@pytest.mark.parametrize("value", ["${", "${}", "${1}", "${A B}", "${A-x}"])
def test_what_only_looks_like_a_variable_is_refused(loaded: Loaded, value: str) -> None:
    with pytest.raises(ConfigError, match=r"name: .*\$\{NAME\}"):
        loaded(f'backend = "echo"\nname = "{value}"')


# What is wrong with a config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No backend is chosen. .*There are: .*echo"),
        ('backend = "echo"\nmodle = "x"', "no key 'modle' .*history_turns"),
        ('backend = "echo"\n[opanai]\n', "no key 'opanai'"),
        ('backend = "echo"\nname = 5', "name must be a text in quotes"),
        ('backend = "echo"\nsystem_status = "yes"', "system_status must be true or false"),
        ('backend = "echo"\nsystem_status = 1', "system_status must be true or false"),
        ('backend = "echo"\nsilence_seconds = "5"', "silence_seconds must be a number, 1 to 86400"),
        ('backend = "echo"\nsilence_seconds = 0', "silence_seconds must be a number"),
        ('backend = "echo"\nsilence_seconds = nan', "silence_seconds must be a number"),
        ('backend = "echo"\ndrain_seconds = inf', "drain_seconds must be a number"),
        ('backend = "echo"\nhistory_turns = 1.5', "history_turns must be a whole number"),
        ('backend = "echo"\nhistory_turns = true', "history_turns must be a whole number"),
        ('backend = "echo"\necho = "x"', r"echo must be a table: \[echo\]"),
        ("backend = echo", "is not TOML: .*line 1"),
        ('backend = "echo"\nphone = 5', r"\[\[phone\]\]"),
        ('backend = "echo"\n[phone]\nname = "x"', r"\[\[phone\]\]"),
        ('backend = "echo"\n[[phone]]\nname = "x"', "number 1 needs the key 'link'"),
        ('backend = "echo"\n[[phone]]\nlink = "x"', "number 1 needs the key 'name'"),
        ('backend = "echo"\n' + phone() + "lnk = 1", "there is no key 'lnk'"),
        ('backend = "echo"\n' + phone() + 'paired = "today"', "paired must be a date"),
        ('backend = "echo"\n' + phone(""), "1 to 60 printable characters"),
        ('backend = "echo"\n' + phone("a\\u001b"), "1 to 60 printable characters"),
        ('backend = "echo"\n' + phone() + phone(), "Two phones are named 'My phone'"),
        ('backend = "echo"\n' + phone("a") + phone("b"), "'a' and 'b' have the same token"),
        ('backend = "echo"\n' + phone(link=f"https://x.example.com/#token={TOKEN}"), "'My phone'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_without_any_secret(
    loaded: Loaded, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        loaded(text)
    said = str(raised.value)
    assert "\n" not in said
    assert "config.toml" in said
    assert TOKEN[8:] not in said
    assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_a_wrong_value_of_the_environment_is_told_as_such(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"^CORALMUX_AGENT_DRAIN_SECONDS must be a number"):
        loaded('backend = "echo"', {"CORALMUX_AGENT_DRAIN_SECONDS": "soon"})


def test_every_key_can_come_from_the_environment(loaded: Loaded) -> None:
    examples = {"backend": "echo", "system_status": "1"}
    for key in KEYS:
        text = examples.get(key.name, "7")
        environ = {f"CORALMUX_AGENT_{key.name.upper()}": text}
        chosen = loaded("" if key.name == "backend" else 'backend = "echo"', environ)
        assert getattr(chosen, key.name) == type(key.default)(text), key.name


# The file


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_config_that_others_may_read_is_closed_to_them_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('backend = "echo"\n')
    path.chmod(0o644)
    load(path, tmp_path, environ={})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_config_may_be_a_link_to_the_file(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text('backend = "echo"\n')
    real.chmod(0o600)
    (tmp_path / "config.toml").symlink_to(real)
    assert load(tmp_path / "config.toml", tmp_path, environ={}).backend == "echo"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b'name = "\xff"', "not UTF-8"), (None, "cannot be read: .*regular file")],
)
def test_a_file_that_cannot_be_read_says_so(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "config.toml"
    if content is None:
        os.mkfifo(path, 0o600)
    else:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(ConfigError, match=words):
        load(path, tmp_path, environ={})


def test_nothing_secret_stands_in_a_configs_representation(loaded: Loaded) -> None:
    key = "sk-0123456789"
    chosen = loaded(f'backend = "openai"\n[openai]\napi_key = "{key}"\n' + phone())
    assert key not in repr(chosen)
    assert TOKEN[12:] not in repr(chosen)
