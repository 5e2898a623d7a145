"""When phones were last here: on disk, for another process, and not written too often."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from coralmux.bridge import seen
from coralmux.bridge.seen import Seen


def test_what_was_marked_is_there_for_another_process(tmp_path: Path) -> None:
    there = Seen(tmp_path / "agent")
    there.mark("a" * 32, "My phone", verified=True, protocol=2)
    there.write()
    (file,) = (tmp_path / "agent").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = Seen(tmp_path / "agent").load()
    at = found["a" * 32].pop("at")
    assert abs(at - time.time()) < 60
    assert found == {"a" * 32: {"name": "My phone", "verified": True, "protocol": 2}}


def test_it_is_written_once_in_a_while_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Seen(tmp_path)
    there.mark("a", "One", verified=True, protocol=2)
    there.write()
    there.mark("b", "Two", verified=False, protocol=1)
    there.write()
    assert list(there.load()) == ["a"]
    there.write(at_once=True)
    assert list(there.load()) == ["a", "b"]
    monkeypatch.setattr(seen, "_PAUSE_SECONDS", 0.0)
    there.forget("a")
    there.write()
    assert list(there.load()) == ["b"]


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    Seen(tmp_path / "agent").write(at_once=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"a": 1}', b'{"a": {"at": "now"}}'])
def test_a_file_that_makes_no_sense_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "seen.json").write_bytes(content)
    there = Seen(tmp_path)
    assert there.load() == {}
    there.mark("a", "One", verified=True, protocol=2)
    there.write()
    assert list(there.load()) == ["a"]
