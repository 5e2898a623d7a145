"""The programs of docs/library.md, run as they stand there, and what a relay keeps of them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import RelayProcess, relay_process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

# Ten lines, and words in them that must be found nowhere on the relay.
BOT_OF_4000_DELTAS = """\
import sys
import coralmux
agent = coralmux.Agent.from_link(sys.argv[1], name="Zanzibar")
@agent.on_chat
async def reply(message):
    yield message.text + ":"
    for number in range(1, 4000):
        yield f" quokka-{number}"
agent.run()
"""


def program(name: str) -> str:
    """The code block of the page that begins with this file name."""
    found = re.search(rf"```python\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1]


def make_link(directory: Path, relay: RelayProcess) -> str:
    (directory / "link.py").write_text(program("link.py"))
    made = subprocess.run(
        [sys.executable, "link.py", f"ws://127.0.0.1:{relay.port}", relay.token()],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    *drawn, link = made.stdout.splitlines()
    assert len(drawn) > 10, "no QR code was drawn"
    return link


@contextlib.contextmanager
def running(directory: Path, source: str, link: str) -> Iterator[subprocess.Popen[str]]:
    (directory / "bot.py").write_text(source)
    with (directory / "bot.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "bot.py", link],
            cwd=directory,
            env=ENVIRONMENT,
            stderr=log,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()
    assert process.returncode == 0, (directory / "bot.log").read_text()


def ask(directory: Path, link: str, question: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coralmux.terminal.cli", "--link", link, "ask", question],
        cwd=directory,
        env=ENVIRONMENT | {"CORALMUX_DATA_DIR": str(directory / "data")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_new_user_makes_a_link_runs_the_bot_and_asks_it(tmp_path: Path) -> None:
    with relay_process() as relay:
        link = make_link(tmp_path, relay)
        with running(tmp_path, program("bot.py"), link):
            asked = ask(tmp_path, link, "Hello there")
    assert (asked.stdout, asked.returncode) == ("olleH ereht \n", 0), asked.stderr


@pytest.mark.slow
def test_4000_deltas_arrive_whole_and_the_relay_keeps_nothing_of_them(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    with relay_process() as relay:
        link = make_link(mine, relay)
        with running(mine, BOT_OF_4000_DELTAS, link):
            asked = ask(mine, link, "xylophone")
        expected = "xylophone:" + "".join(f" quokka-{number}" for number in range(1, 4000))
        assert (asked.stdout, asked.returncode) == (expected + "\n", 0), asked.stderr
        relay.terminate()
        kept = {path: path.read_bytes() for path in relay.directory.rglob("*") if path.is_file()}
    assert any(path.name == "output.txt" for path in kept)
    assert any(content.startswith(b"SQLite format 3") for content in kept.values())
    secret = link.partition("psk=")[2].encode()
    for path, content in kept.items():
        for word in (b"xylophone", b"quokka", b"Zanzibar", secret):
            assert word not in content, f"{word!r} is in {path}"
