"""Agents that phones make: kept on disk, within bounds."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from coralmux import BackendError
from coralmux.bridge import AgentSpec, profiles
from coralmux.bridge.profiles import Profiles


@pytest.fixture
def kept(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path / "backends" / "openai")


async def test_an_agent_is_kept_for_the_next_start(kept: Profiles, tmp_path: Path) -> None:
    spec = AgentSpec(name="Pirate", system_prompt="Talk like one.", temperature=0, model="m")
    made = await kept.create(spec)
    again = Profiles(tmp_path / "backends" / "openai")
    assert await again.get("pirate") == made
    assert (made.system_prompt, made.temperature, made.model) == ("Talk like one.", 0, "m")
    file = tmp_path / "backends" / "openai" / "agents.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("Über-Köchin Nr. 1!", "uber-kochin-nr-1"),
        ("料理", "agent"),
        ("default", "default-2"),
        ("x" * 90, "x" * 40),
    ],
)
async def test_ids_are_made_of_names(kept: Profiles, name: str, id: str) -> None:
    assert (await kept.create(AgentSpec(name=name))).id == id


async def test_equal_names_get_ids_of_their_own(kept: Profiles) -> None:
    ids = [(await kept.create(AgentSpec(name="Cook"))).id for _ in range(3)]
    assert ids == ["cook", "cook-2", "cook-3"]


async def test_a_change_leaves_what_it_does_not_name(kept: Profiles) -> None:
    made = await kept.create(AgentSpec(name="Cook", description="Cooks", temperature=1))
    await kept.update(AgentSpec(id=made.id, name="Chef", description=""))
    (found,) = await kept.all()
    assert (found.id, found.name, found.description) == ("cook", "Chef", "")
    assert found.temperature == 1


async def test_a_deleted_agent_is_gone(kept: Profiles) -> None:
    made = await kept.create(AgentSpec(name="Cook"))
    assert await kept.delete(made.id) == made
    for attempt in (kept.get(made.id), kept.delete(made.id), kept.update(AgentSpec(id=made.id))):
        with pytest.raises(BackendError, match="no agent 'cook'"):
            await attempt
    assert await kept.all() == []


@pytest.mark.parametrize("id", ["", "default"])
async def test_the_agent_of_the_config_is_changed_there(kept: Profiles, id: str) -> None:
    for attempt in (kept.delete(id), kept.update(AgentSpec(id=id, name="X"))):
        with pytest.raises(BackendError, match="changed there"):
            await attempt


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (AgentSpec(), "needs a name"),
        (AgentSpec(name=" \n"), "needs a name"),
        (AgentSpec(name="x" * 101), "name is too long: at most 100"),
        (AgentSpec(name="x", system_prompt="x" * 20_001), "system prompt is too long"),
        (AgentSpec(name="x", temperature=2.1), "between 0 and 2"),
        (AgentSpec(name="x", temperature=float("nan")), "between 0 and 2"),
    ],
)
async def test_an_agent_that_makes_no_sense_is_refused(
    kept: Profiles, spec: AgentSpec, text: str
) -> None:
    with pytest.raises(BackendError, match=text):
        await kept.create(spec)
    assert await kept.all() == []


async def test_there_is_an_end_to_agents(kept: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MOST", 2)
    for _ in range(2):
        await kept.create(AgentSpec(name="Cook"))
    with pytest.raises(BackendError, match="Delete one first"):
        await kept.create(AgentSpec(name="Cook"))


@pytest.mark.parametrize(
    "content", [b'{"agents": [{"id": 1', b'{"agents": [{"id": "\xff"', b'{"x": ' + b"[" * 100_000]
)
async def test_a_damaged_file_is_moved_aside_and_told(tmp_path: Path, content: bytes) -> None:
    said: list[str] = []
    kept = Profiles(tmp_path, said.append)
    (tmp_path / "agents.json").write_bytes(content)
    assert await kept.all() == []
    await kept.create(AgentSpec(name="Cook"))
    assert (tmp_path / "agents.damaged").read_bytes() == content
    assert len(said) == 1
    assert "agents.damaged" in said[0]


async def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").touch()
    kept = Profiles(tmp_path / "file", said.append)
    with pytest.raises(BackendError, match="agents cannot be read"):
        await kept.create(AgentSpec(name="Cook"))
    assert "Not a directory" in said[0]
    # An agents.json that is a directory can be replaced by no file.
    (tmp_path / "agents.json").mkdir()
    with pytest.raises(BackendError):
        await Profiles(tmp_path).create(AgentSpec(name="Cook"))
