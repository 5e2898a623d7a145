"""Files of a store: whole or not at all, closed to others, and never the token."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralmux.client import store as store_module
from coralmux.client.store import FileStore, PairingState, StoreError, load_own
from coralmux.e2e.events import Secrets
from coralmux.protocol import Role
from tests.client.kept import STATE, TOKEN

SECRETS = st.binary(min_size=32, max_size=32)
STATES = st.builds(
    PairingState,
    st.none() | st.builds(Secrets, SECRETS, st.none() | SECRETS, st.booleans()),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=64), max_size=20).map(
        deque
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.none() | SECRETS,
    st.sampled_from(["", "agent", "phone"]),
)


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "data")


def only_file(files: FileStore) -> Path:
    (path,) = files.directory.iterdir()
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@given(STATES)
def test_every_state_comes_back_from_its_file(
    tmp_path_factory: pytest.TempPathFactory, state: PairingState
) -> None:
    files = FileStore(tmp_path_factory.getbasetemp() / "states")
    files.save(TOKEN, state)
    assert files.load(TOKEN) == state


def test_a_file_is_named_by_the_tokens_digest_and_never_holds_the_token(files: FileStore) -> None:
    files.save(TOKEN, STATE)
    path = only_file(files)
    assert path.name == hashlib.sha256(TOKEN.encode()).hexdigest()[:32] + ".json"
    assert TOKEN[8:] not in path.read_text()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_directory_and_file_are_closed_to_others_whatever_the_umask(
    files: FileStore, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_creation: list[int] = []
    real_open = os.open

    def watched_open(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        descriptor = real_open(path, flags, *arguments, **more)
        if flags & os.O_CREAT:
            at_creation.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched_open)
    with umask(mask):
        files.save(TOKEN, STATE)
    assert mode(files.directory) == 0o700
    assert mode(only_file(files)) == 0o600
    assert at_creation == [0o600 & ~mask]
    assert files.load(TOKEN) == STATE


def test_a_directory_that_was_there_keeps_its_mode(files: FileStore) -> None:
    files.directory.mkdir()
    files.directory.chmod(0o755)
    files.save(TOKEN, STATE)
    assert mode(files.directory) == 0o755
    assert mode(only_file(files)) == 0o600


def test_a_file_that_others_may_read_is_closed_to_them_with_a_warning(
    files: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    files.save(TOKEN, STATE)
    path = only_file(files)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert files.load(TOKEN) == STATE
    assert mode(path) == 0o600
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    caplog.clear()
    assert files.load(TOKEN) == STATE
    assert not caplog.records


def test_a_save_replaces_the_file_and_tightens_it(files: FileStore) -> None:
    files.save(TOKEN, STATE)
    only_file(files).chmod(0o666)
    files.save(TOKEN, PairingState())
    assert mode(only_file(files)) == 0o600
    assert files.load(TOKEN) == PairingState()


GOOD = json.loads(store_module._encode(STATE))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b"[" * 200_000,
        store_module._encode(STATE)[:-1],
        *(
            json.dumps({**GOOD, **change}).encode()
            for change in (
                {"version": 0},
                {"version": "1"},
                {"current": None},
                {"current": "AAAA"},
                {"current": GOOD["current"] + "="},
                {"current": GOOD["current"][:-1] + "!"},
                {"current": "é" * 43},
                {"next": ""},
                {"next": 5},
                {"link": "no"},
                {"role": "relay"},
                {"role": 5},
                {"link_digest": "00"},
                {"link_digest": "x" * 64},
                {"seen_ids": [1]},
                {"seen_ids": None},
                {"peer_name": None},
            )
        ),
        json.dumps({key: value for key, value in GOOD.items() if key != "link"}).encode(),
    ],
)
def test_a_damaged_file_is_reported_and_left_as_it_is(files: FileStore, content: bytes) -> None:
    files.save(TOKEN, STATE)
    path = only_file(files)
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        files.load(TOKEN)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert "pair again" in str(caught.value)
    assert GOOD["current"][:8] not in str(caught.value)
    assert caught.value.__context__ is None
    assert path.read_bytes() == content


@given(st.data())
def test_no_damage_to_a_file_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files = FileStore(tmp_path_factory.getbasetemp() / "damaged")
    files.save(TOKEN, STATE)
    content = bytearray(store_module._encode(STATE))
    at = data.draw(st.integers(0, len(content)))
    content[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    only_file(files).write_bytes(content)
    with contextlib.suppress(StoreError):
        state = files.load(TOKEN)
        assert state is not None
        assert state.secrets is None or len(state.secrets.current) == 32


def test_a_file_of_a_newer_version_is_reported_as_that(files: FileStore) -> None:
    files.save(TOKEN, STATE)
    only_file(files).write_text(json.dumps({"version": 2, "everything": "else"}))
    with pytest.raises(StoreError, match="newer version"):
        files.load(TOKEN)


def test_fields_that_are_not_known_are_ignored(files: FileStore) -> None:
    files.save(TOKEN, STATE)
    only_file(files).write_text(json.dumps({**GOOD, "comment": "kept by hand"}))
    assert files.load(TOKEN) == STATE


@pytest.mark.parametrize("use", ["load", "save", "forget"])
def test_a_directory_that_is_a_file_is_reported(tmp_path: Path, use: str) -> None:
    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        files = FileStore(directory)
        act: dict[str, Callable[[], object]] = {
            "load": lambda files=files: files.load(TOKEN),
            "save": lambda files=files: files.save(TOKEN, STATE),
            "forget": lambda files=files: files.forget(TOKEN),
        }
        with pytest.raises(StoreError) as caught:
            act[use]()
        assert str(directory) in str(caught.value)
        assert TOKEN not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_leads_nowhere_is_reported(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError):
        FileStore(tmp_path / "link").save(TOKEN, STATE)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    FileStore(tmp_path / "link").save(TOKEN, STATE)
    assert FileStore(tmp_path / "real").load(TOKEN) == STATE


def test_a_symbolic_link_in_place_of_the_file_is_neither_read_nor_written_through(
    files: FileStore, tmp_path: Path
) -> None:
    files.save(TOKEN, STATE)
    path = only_file(files)
    target = tmp_path / "target.json"
    path.rename(target)
    path.symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"):
        files.load(TOKEN)
    before = target.read_bytes()
    files.save(TOKEN, PairingState())
    assert target.read_bytes() == before
    assert not path.is_symlink()
    assert files.load(TOKEN) == PairingState()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_what_is_no_file_is_reported_without_waiting(
    files: FileStore, make: Callable[[Path], None]
) -> None:
    files.save(TOKEN, STATE)
    path = only_file(files)
    path.unlink()
    make(path)
    with pytest.raises(StoreError):
        files.load(TOKEN)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(TOKEN, STATE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(StoreError, match="No space left"):
                files.save(TOKEN, PairingState())
        assert files.load(TOKEN) == STATE
        only_file(files)


def test_what_a_killed_process_left_is_swept_when_it_is_old(files: FileStore) -> None:
    files.save(TOKEN, STATE)
    path = only_file(files)
    old, fresh, foreign = (
        path.with_name(f".{path.name}.0000000000000000"),
        path.with_name(f".{path.name}.1111111111111111"),
        path.with_name("notes.txt"),
    )
    for file in (old, fresh, foreign):
        file.write_text("x")
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    os.utime(foreign, (hour_ago, hour_ago))
    files.save(TOKEN, STATE)
    assert {*files.directory.iterdir()} == {path, fresh, foreign}
    files.forget(TOKEN)
    assert {*files.directory.iterdir()} == {foreign}


def test_a_save_that_another_process_forgets_in_the_middle_is_done_all_the_same(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = os.fsync, []

    def fsync(descriptor: int) -> None:
        real(descriptor)
        times.append(1)
        if len(times) == 1:
            files.forget(TOKEN)

    monkeypatch.setattr(os, "fsync", fsync)
    files.save(TOKEN, STATE)
    assert files.load(TOKEN) == STATE
    only_file(files)


# Writes big states, told apart by a letter, as fast as it can.
WRITER = """
import sys
from collections import deque
from pathlib import Path
from coralmux.client.store import FileStore, PairingState
files = FileStore(Path(sys.argv[1]))
states = [
    PairingState(seen_ids=deque(f"{letter}{n:060}" for n in range(1024)), peer_name=letter)
    for letter in sys.argv[3]
]
files.save(sys.argv[2], states[0])
print("writing", flush=True)
while True:
    for state in states:
        files.save(sys.argv[2], state)
"""


@contextlib.contextmanager
def writer(files: FileStore, letters: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(files.directory), TOKEN, letters],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def check_whole(files: FileStore) -> str:
    state = files.load(TOKEN)
    assert state is not None
    assert len(state.seen_ids) == 1024
    assert {id[0] for id in state.seen_ids} == {state.peer_name}
    return state.peer_name


@pytest.mark.slow
def test_a_process_killed_in_the_middle_of_a_save_leaves_the_old_file_or_the_new(
    files: FileStore,
) -> None:
    chance = random.Random(3)
    for _ in range(15):
        with writer(files, "xy") as process:
            # Any moment of a save, which takes some milliseconds.
            deadline = time.monotonic() + chance.random() * 0.02
            while time.monotonic() < deadline:
                check_whole(files)
            process.kill()
            process.wait()
        assert check_whole(files) in "xy"


def test_two_processes_that_write_never_show_half_a_file(files: FileStore) -> None:
    seen = set()
    with writer(files, "ab"), writer(files, "cd"):
        deadline = time.monotonic() + 10
        while seen != {*"abcd"}:
            assert time.monotonic() < deadline
            seen.add(check_whole(files))
    check_whole(files)


@pytest.mark.parametrize("role", list(Role))
def test_a_file_that_does_not_say_whose_it_is_is_anybody_s(tmp_path: Path, role: Role) -> None:
    files = FileStore(tmp_path)
    files.save(TOKEN, STATE)
    old = {key: value for key, value in GOOD.items() if key != "role"}
    only_file(files).write_text(json.dumps(old))
    state = load_own(files, TOKEN, role)
    assert state is not None
    assert (state.role, state.secrets) == ("", STATE.secrets)
