"""Changing the config's file: comments stay, and nothing is ever half-written."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coralmux import PairingLink, private_files
from coralmux.bridge import config_file
from coralmux.bridge.config import ConfigError, load_phones
from coralmux.bridge.config_file import editing
from coralmux.bridge.phones import PairedPhone
from tests.support.waiting import eventually

WHEN = datetime(2026, 11, 23, 8, tzinfo=UTC)

COMMENTED = """\
# What I wrote myself.
name = "Anna"  # and why
backend = 'echo'

   # indented
[openai]
model = "x"
# the end"""


def phone(name: str, number: int = 0) -> PairedPhone:
    link = PairingLink.new("wss://relay.example.com/$/a", f"oc_pair_{number:032x}")
    return PairedPhone(name, link, WHEN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(COMMENTED)
    file.chmod(0o600)
    return file


def test_a_phone_comes_to_the_end_and_all_the_rest_stays(path: Path) -> None:
    added = [phone("One"), phone('Two "$" ${three}', 1)]
    for one in added:
        with editing(path, print) as file:
            file.add(one)
    assert path.read_text().startswith(COMMENTED)
    assert list(load_phones(path, {})) == added
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for one in added:
        with editing(path, print) as file:
            file.remove(one)
    assert path.read_text().strip() == COMMENTED
    assert load_phones(path) == ()


def test_what_an_editor_keeps_beside_the_config_stays(path: Path) -> None:
    kept = [
        path.with_name(f".{path.name}.{end}")
        for end in ("swp", "bak", "orig", "1", "0000000000000000.swp", "000000000000000g")
    ]
    left = path.with_name(f".{path.name}.0123456789abcdef")
    for file in (*kept, left):
        file.touch()
        os.utime(file, (0, 0))
    with editing(path, print) as config:
        config.add(phone("One"))
    private_files.delete(path)
    assert {*path.parent.iterdir()} == set(kept)


def test_the_phone_that_is_removed_is_the_right_one(path: Path) -> None:
    three = [phone(name, number) for number, name in enumerate("abc")]
    for one in three:
        with editing(path, print) as file:
            file.add(one)
    with editing(path, print) as file:
        file.remove(three[1])
    assert load_phones(path) == (three[0], three[2])


def test_phones_between_other_tables_are_found(path: Path) -> None:
    a, b, c = (phone(name, number) for number, name in enumerate("abc"))
    with editing(path, print) as file:
        file.add(a)
    with path.open("a") as text:
        text.write('\n# mine\n[langchain]\napp = "a:b"\n')
    for one in (b, c):
        with editing(path, print) as file:
            file.add(one)
    with editing(path, print) as file:
        file.remove(b)
    assert load_phones(path) == (a, c)
    assert 'app = "a:b"' in path.read_text()


def test_phones_in_another_notation_are_left_to_their_writer(path: Path) -> None:
    one = phone("a")
    link = one.link.web().replace("$", "$$")
    path.write_text(f'phone = [{{ name = "a", link = "{link}" }}]\n')
    before = path.read_bytes()
    with editing(path, print) as file, pytest.raises(ConfigError, match=r"\[\[phone\]\] tables"):
        file.add(phone("b", 1))
    assert path.read_bytes() == before


def test_a_config_that_is_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "config.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    with editing(link, print) as file:
        file.add(phone("a"))
    assert link.is_symlink()
    assert [one.name for one in load_phones(path)] == ["a"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"file/config.toml cannot be written: .*--config"),
        editing(tmp_path / "file" / "config.toml", print),
    ):
        pass


async def test_who_waits_long_for_another_to_end_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "_SILENT_SECONDS", 0.05)
    said: list[str] = []

    def wait() -> None:
        with editing(path, said.append) as file:
            file.add(phone("second", 1))

    with editing(path, said.append) as file:
        waiting = asyncio.create_task(asyncio.to_thread(wait))
        await eventually(lambda: said)
        file.add(phone("first"))
    await waiting
    (line,) = said
    assert str(path) in line
    assert "Waiting" in line
    assert [one.name for one in load_phones(path)] == ["first", "second"]


ADD = """\
import sys
from pathlib import Path
from coralmux import PairingLink, private_files
from coralmux.bridge.config_file import editing
from coralmux.bridge.phones import PairedPhone
path, number = Path(sys.argv[1]), sys.argv[2]
print("here", flush=True)
with editing(path, print) as file:
    print("in", flush=True)
    sys.stdin.readline()
    file.add(PairedPhone(number, PairingLink.new("wss://relay.example.com", number)))
"""


@pytest.mark.slow
def test_two_that_change_it_at_once_wait_for_each_other(path: Path) -> None:
    def start(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", ADD, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=Path(__file__).parents[2],
        )

    def says(process: subprocess.Popen[bytes], within: float) -> str:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], within)
        return process.stdout.readline().decode().strip() if ready else ""

    first, second = start(1), start(2)
    assert {says(first, 30), says(second, 30)} == {"here"}
    (inside, _, _) = select.select([first.stdout, second.stdout], [], [], 30)
    assert len(inside) == 1
    before, after = (first, second) if inside == [first.stdout] else (second, first)
    assert says(before, 30) == "in"
    # Would it come in, it would do so now.
    assert says(after, 0.5) == ""
    for process in (before, after):
        process.communicate(b"\n", timeout=30)
        assert process.returncode == 0
    assert {one.name for one in load_phones(path)} == {"1", "2"}
