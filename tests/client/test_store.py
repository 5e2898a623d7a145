"""What endpoints keep in any store, what becomes of it with a new link, and where it goes."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from pathlib import Path

import pytest

from coralmux.client.store import (
    FileStore,
    MemoryStore,
    PairingState,
    Store,
    StoreError,
    load_own,
    user_data_directory,
)
from coralmux.e2e.events import Secrets
from coralmux.protocol import Role
from tests.client.kept import LINK, OTHER, ROTATED, STATE, TOKEN


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "data")


# Any store


def test_what_is_saved_is_loaded_token_by_token(store: Store) -> None:
    assert store.load(TOKEN) is None
    store.save(TOKEN, STATE)
    store.save(OTHER, PairingState(peer_name="other"))
    assert store.load(TOKEN) == STATE
    assert store.load(OTHER) == PairingState(peer_name="other")
    store.save(TOKEN, PairingState())
    assert store.load(TOKEN) == PairingState()


def test_what_is_forgotten_is_gone_and_forgetting_twice_is_no_error(store: Store) -> None:
    store.forget(TOKEN)
    store.save(TOKEN, STATE)
    store.save(OTHER, STATE)
    store.forget(TOKEN)
    store.forget(TOKEN)
    assert store.load(TOKEN) is None
    assert store.load(OTHER) == STATE


def test_a_state_in_use_is_not_the_one_that_is_kept(store: Store) -> None:
    state = PairingState(peer_name="before")
    store.save(TOKEN, state)
    state.peer_name = "after"
    state.seen_ids.append("after")
    assert store.load(TOKEN) == PairingState(peer_name="before")
    loaded = store.load(TOKEN)
    assert loaded is not None
    loaded.seen_ids.append("after")
    assert store.load(TOKEN) == PairingState(peer_name="before")


def test_the_last_1024_ids_are_kept_oldest_first(store: Store) -> None:
    state = PairingState(seen_ids=deque(str(n) for n in range(2000)))
    state.seen_ids.append("2000")
    store.save(TOKEN, state)
    loaded = store.load(TOKEN)
    assert loaded is not None
    assert list(loaded.seen_ids) == [str(n) for n in range(977, 2001)]
    loaded.seen_ids.append("2001")
    assert len(loaded.seen_ids) == 1024


def test_no_repr_shows_a_secret_or_a_token(store: Store) -> None:
    store.save(TOKEN, STATE)
    for shown in (repr(STATE), str(STATE), repr([STATE]), repr(store), f"{store}"):
        for hidden in (TOKEN, TOKEN[12:], "RRRR", "NNNN", repr(STATE.link_digest)[2:-1]):
            assert hidden not in shown
    assert "agent at home" in repr(STATE)


# Links and what is kept


def test_a_link_opened_for_the_first_time_starts_with_its_own_secret() -> None:
    state = PairingState.for_link(None, LINK)
    assert state.secrets == Secrets(LINK, None, link=True)
    assert state.link_digest == hashlib.sha256(LINK).digest()
    assert (list(state.seen_ids), state.peer_name) == ([], "")


def test_the_same_link_again_goes_on_with_what_is_kept(store: Store) -> None:
    state = PairingState.for_link(None, LINK)
    state.secrets = Secrets(ROTATED, None, link=False)
    state.seen_ids.append("a")
    store.save(TOKEN, state)
    assert PairingState.for_link(store.load(TOKEN), LINK) == state


def test_a_new_link_for_the_same_token_starts_afresh() -> None:
    state = PairingState.for_link(STATE, b"M" * 32)
    assert state == PairingState.for_link(None, b"M" * 32)


def test_a_link_with_a_secret_ends_a_pairing_by_token_alone() -> None:
    state = PairingState.for_link(PairingState(peer_name="v1"), LINK)
    assert state == PairingState.for_link(None, LINK)


def test_a_link_without_a_secret_never_undoes_a_pairing_with_one() -> None:
    assert PairingState.for_link(STATE, None) is STATE
    assert PairingState.for_link(None, None) == PairingState()


# Whose it is


def test_what_one_end_keeps_is_not_the_other_s(store: Store) -> None:
    assert load_own(store, TOKEN, Role.AGENT) is None
    store.save(TOKEN, STATE)
    assert load_own(store, TOKEN, Role.PHONE) == STATE
    with pytest.raises(StoreError, match=r"is the phone's\. Give the agent a directory") as caught:
        load_own(store, TOKEN, Role.AGENT)
    assert caught.value.path == (store.directory if isinstance(store, FileStore) else None)
    assert TOKEN not in str(caught.value)
    assert "None" not in str(caught.value)
    assert store.load(TOKEN) == STATE


# Where


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("CORALMUX_DATA_DIR", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_data_goes_where_the_platform_wants_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert user_data_directory() == home / ".local/share/coralmux"
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert user_data_directory() == Path("/elsewhere/coralmux")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert user_data_directory() == home / ".local/share/coralmux"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert user_data_directory() == home / "Library/Application Support/coralmux"
    monkeypatch.setattr(sys, "platform", "win32")
    assert user_data_directory() == home / "AppData/Local/coralmux"
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert user_data_directory() == Path("/local/coralmux")


def test_the_directory_that_the_user_chose_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    monkeypatch.setenv("CORALMUX_DATA_DIR", str(home / "mine"))
    assert user_data_directory() == home / "mine"
    assert not (home / "mine").exists()


def test_a_user_without_a_home_is_told_what_to_set(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(StoreError, match="CORALMUX_DATA_DIR"):
        user_data_directory()
