"""The library as people install and use it: what it needs, and what a relay learns from it."""

from __future__ import annotations

import base64
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import coralmux
from tests.client.meeting import agent_for, meeting
from tests.support.process import clean_environment, relay_process

DELTAS = 4000

# What `pip install .` brings, with what those bring themselves.
NEEDED = {"cryptography", "msgspec", "segno", "websockets"}
MODULES = NEEDED | {"cffi", "_cffi_backend", "pycparser", "_openssl", "coralmux"}


@pytest.mark.slow
async def test_a_relay_keeps_nothing_of_a_reply_of_4000_deltas() -> None:
    marker = "zanzibar-cardamom"
    agent = agent_for(name=f"{marker} agent")

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        assert message.text == f"{marker} question"
        for n in range(DELTAS):
            yield f"{marker} {n}\n"

    expected = "".join(f"{marker} {n}\n" for n in range(DELTAS))
    with relay_process() as relay:
        async with meeting(relay, agent, name=f"{marker} phone") as phone:
            answer = phone.ask(f"{marker} question")
            assert "".join([delta async for delta in answer]) == expected
            assert answer.text == expected
            assert phone.agent is not None
            assert phone.agent.name == f"{marker} agent"
            assert (phone.agent.verified, phone.agent.protocol) == (True, 2)
            token = phone.channel.link.token
            running = dict(_files(relay.directory))
        assert relay.terminate() == 0
        stopped = dict(_files(relay.directory))
        usage = relay.manage("usage").stdout
    # It did write about this pairing, so this is where a text would be.
    assert token[:12] in usage
    for files in (running, stopped):
        assert any(b"SQLite format 3" in content[:16] for content in files.values())
        assert b"CoralMux Relay" in files["output.txt"]
        for name, content in files.items():
            for form in _forms(marker):
                assert form not in content, name
            assert token[12:].encode() not in content, name


def _files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that the relay has on disk: state, journals, output."""
    for path in directory.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(directory)), path.read_bytes()


def _forms(text: str) -> Iterator[bytes]:
    """The text as it would stand in a log or a database, encodings of base64 included."""
    yield text.encode()
    yield text.encode().hex().encode()
    yield text.encode("utf-16-le")
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + text.encode())
        yield coded[4 : len(coded) // 4 * 4 - 4]


def test_it_needs_four_packages_and_no_django() -> None:
    requirements = importlib.metadata.requires("coralmux") or []
    plain = [text for text in requirements if "extra ==" not in text]
    assert {re.split(r"[<>=!~;\[ ]", text)[0] for text in plain} == NEEDED


# Stands in for an environment without anything else: what is tried then is not found.
ONLY = """
import sys

class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

allowed = set(sys.argv[1:])
sys.meta_path.insert(0, Only())
"""


def _run_with_only(modules: set[str], code: str) -> None:
    """Run it in a fresh interpreter that has the standard library and these packages."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ONLY + code, *modules],
        env=clean_environment(PYTHONPATH=str(Path(__file__).parents[2])),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_everything_public_works_with_what_is_installed_with_it() -> None:
    _run_with_only(
        MODULES, "import coralmux\nfor name in coralmux.__all__: getattr(coralmux, name)"
    )


def test_importing_coralmux_alone_needs_no_package() -> None:
    _run_with_only({"coralmux"}, "import coralmux; coralmux.__version__")


def test_the_protocol_needs_neither_websockets_nor_cryptography() -> None:
    _run_with_only({"coralmux", "msgspec"}, "import coralmux.protocol")


def test_the_agent_does_need_them() -> None:
    with pytest.raises(AssertionError, match="No module named 'websockets'"):
        _run_with_only(MODULES - {"websockets"}, "import coralmux; coralmux.Agent")


def test_every_public_name_is_there_and_no_other() -> None:
    assert coralmux.__all__ == sorted(coralmux.__all__, key=lambda n: (not n[0].isupper(), n))
    for name in coralmux.__all__:
        assert getattr(coralmux, name) is not None
    assert set(dir(coralmux)) == set(coralmux.__all__)
    with pytest.raises(AttributeError, match="Bot"):
        _ = coralmux.Bot  # type: ignore[attr-defined]
