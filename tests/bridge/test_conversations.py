"""What is kept of what was said: together, bounded, closed to others, and deletable."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from coralmux.bridge import Backend, NoSettings, Piece, Place, Question, conversations
from coralmux.bridge.backends.echo import EchoBackend
from coralmux.bridge.conversations import Conversations, phone_key
from coralmux.bridge.phones import PairedPhone
from tests.bridge.bridges import served
from tests.client.meeting import new_link
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

PHONE = phone_key("oc_pair_0123456789abcdef0123456789abcdef")


def said(kept: Conversations, agent: str = "", phone: str = PHONE) -> list[str]:
    return [entry.content for entry in kept.entries(phone, agent, 1000)]


def talk(kept: Conversations, *texts: str, agent: str = "") -> None:
    for text in texts:
        kept.asked(PHONE, agent, text, text)
        kept.answered(PHONE, agent, text, f"to {text}")


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_questions_and_answers_stay_together_whichever_ends_first(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    kept.asked(PHONE, "", "1", "one")
    kept.asked(PHONE, "", "2", "two")
    assert kept.turns(PHONE, "") == []  # none has an answer that one could go on from
    kept.answered(PHONE, "", "2", "to two")
    assert said(kept) == ["one", "two", "to two"]
    assert [turn.content for turn in kept.turns(PHONE, "")] == ["two", "to two"]
    kept.answered(PHONE, "", "1", "to one")
    assert said(kept) == ["one", "to one", "two", "to two"]
    assert [turn.role for turn in kept.turns(PHONE, "")] == ["user", "assistant"] * 2


def test_the_default_agent_is_the_one_that_no_name_is_given_of(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    talk(kept, "one", agent="default")
    talk(kept, "two", agent="")
    assert said(kept, "default") == said(kept, "") == ["one", "to one", "two", "to two"]


def test_entries_say_when_they_were(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    talk(kept, "one")
    asked, answered = (entry.timestamp for entry in kept.entries(PHONE, "", 10))
    assert isinstance(asked, int)
    assert isinstance(answered, int)
    assert 1_700_000_000_000 < asked <= answered


def test_the_last_ones_are_given(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    talk(kept, "one", "two")
    assert [entry.content for entry in kept.entries(PHONE, "", 3)] == ["to one", "two", "to two"]


def test_it_outlives_the_process(tmp_path: Path) -> None:
    talk(Conversations(tmp_path), "one")
    assert said(Conversations(tmp_path)) == ["one", "to one"]


def test_only_the_owner_can_read_it_and_no_name_tells_the_agent(tmp_path: Path) -> None:
    directory = tmp_path / "conversations"
    talk(Conversations(directory), "one", agent="../../a secret agent")
    (file,) = files(tmp_path)
    assert file.parent == directory / PHONE
    assert "agent" not in file.name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(("turns", "left"), [(4, 2), (3, 2), (1, 1), (0, 0)])
def test_no_more_is_kept_than_asked_for(tmp_path: Path, turns: int, left: int) -> None:
    kept = Conversations(tmp_path, turns=turns)
    talk(kept, "one", "two", "three")
    everything = ["one", "to one", "two", "to two", "three", "to three"]
    assert said(kept) == everything[6 - 2 * left :]
    assert len(files(tmp_path)) == (1 if turns else 0)


@pytest.mark.parametrize(("turns", "left"), [(4, 2), (1, 1), (0, 0)])
def test_of_what_was_kept_no_more_is_read_than_is_allowed_now(
    tmp_path: Path, turns: int, left: int
) -> None:
    talk(Conversations(tmp_path), "one", "two", "three")
    kept = Conversations(tmp_path, turns=turns)
    everything = ["one", "to one", "two", "to two", "three", "to three"]
    assert said(kept) == everything[6 - 2 * left :]
    assert [turn.content for turn in kept.turns(PHONE, "")] == everything[6 - 2 * left :]


def test_where_nothing_is_kept_any_more_the_next_question_deletes_what_was(
    tmp_path: Path,
) -> None:
    talk(Conversations(tmp_path), "one")
    talk(Conversations(tmp_path), "else", agent="cook")
    kept = Conversations(tmp_path, turns=0)
    kept.asked(PHONE, "", "2", "two")
    kept.answered(PHONE, "", "2", "to two")
    assert said(Conversations(tmp_path)) == []
    assert said(Conversations(tmp_path), "cook") == ["else", "to else"]


def test_a_damaged_file_is_deleted_with_its_conversation(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    talk(kept, "one", agent="cook")
    (file,) = files(tmp_path)
    file.write_bytes(b"{")
    talk(kept, "two", agent="cook")
    assert len(files(tmp_path)) == 2
    kept.delete(PHONE, "cook")
    assert files(tmp_path) == []


def test_a_file_is_bounded_in_bytes(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    for n in range(30):
        kept.asked(PHONE, "", str(n), f"{n} " + "ä" * conversations.MAX_CHARACTERS)
    (file,) = files(tmp_path)
    assert 600_000 < file.stat().st_size <= conversations.MAX_BYTES
    assert said(kept)[-1].startswith("29 ä")
    assert len(said(kept)[-1]) == conversations.MAX_CHARACTERS


def test_conversations_of_a_phone_are_bounded_in_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_AGENTS", 3)
    kept = Conversations(tmp_path)
    for n in range(5):
        talk(kept, "?", agent=f"agent {n}")
    assert len(files(tmp_path)) == 3
    assert said(kept, "agent 4") == ["?", "to ?"]
    assert said(kept, "agent 0") == []


def test_one_conversation_or_all_of_a_phone_can_be_deleted(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    for agent in ("", "cook", "gardener"):
        talk(kept, "one", agent=agent)
    kept.asked("f" * 32, "", "1", "another phone's")
    kept.delete(PHONE, "cook")
    assert (said(kept, "cook"), len(said(kept))) == ([], 2)
    kept.delete(PHONE)
    assert said(kept) == said(kept, "gardener") == []
    assert said(kept, phone="f" * 32) == ["another phone's"]
    kept.delete(PHONE)
    kept.delete(PHONE, "cook")  # nothing there is no error
    kept.delete_agent("cook")


def test_an_answer_to_a_question_that_was_deleted_is_not_kept(tmp_path: Path) -> None:
    kept = Conversations(tmp_path)
    kept.asked(PHONE, "", "1", "forget me")
    Conversations(tmp_path).delete(PHONE)  # another process
    kept.answered(PHONE, "", "1", "to what was forgotten")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": 1}',
        b'{"version": 2, "agent_id": "", "exchanges": []}',
        b'{"version": 1, "agent_id": "", "exchanges": [{"id": 1}]}',
    ],
)
def test_a_damaged_file_is_moved_aside_with_a_word(tmp_path: Path, content: bytes) -> None:
    lines: list[str] = []
    kept = Conversations(tmp_path, say=lines.append)
    talk(kept, "one")
    (file,) = files(tmp_path)
    file.write_bytes(content)
    talk(kept, "two")
    assert said(kept) == ["two", "to two"]
    aside = file.with_suffix(".damaged")
    assert aside.read_bytes() == content
    assert len(lines) == 1
    assert str(aside) in lines[0]


def test_the_key_of_a_phone_is_the_config_s(tmp_path: Path, relay: RelayProcess) -> None:
    link = new_link(relay)
    assert PairedPhone("My phone", link).key == phone_key(link.token)


# Through the door.


async def test_a_disk_that_is_full_keeps_nobody_from_an_answer(
    relay: RelayProcess, tmp_path: Path
) -> None:
    (tmp_path / "conversations").write_text("not a directory")
    backend = EchoBackend(NoSettings(), Place(tmp_path))
    async with (
        served(relay, backend, tmp_path / "conversations") as there,
        there.phone() as phone,
    ):
        assert await phone.ask("one") == "one"
        assert await phone.ask("two") == "two"
        assert await phone.history() == []
        told = [line for line in there.log.lines if "Conversations cannot be kept" in line]
        assert len(told) == 1


class Waiting(Backend):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__(NoSettings(), Place(Path("/nowhere")))
        self.go = {name: asyncio.Event() for name in ("first", "second")}
        self.histories: dict[str, list[str]] = {}

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        self.histories[question.text] = [turn.content for turn in question.history]
        if question.text in self.go:
            await self.go[question.text].wait()
        yield f"to {question.text}"


async def test_chats_side_by_side_do_not_mix(relay: RelayProcess, tmp_path: Path) -> None:
    backend = Waiting()
    async with served(relay, backend, tmp_path) as there, there.phone() as phone:
        first = asyncio.create_task(phone.ask("first")._whole())
        await eventually(lambda: "first" in backend.histories)
        second = asyncio.create_task(phone.ask("second")._whole())
        await eventually(lambda: "second" in backend.histories)
        backend.go["second"].set()
        assert await second == "to second"
        assert await phone.ask("third") == "to third"
        # A question without an answer is nothing that a model could go on from.
        assert backend.histories["third"] == ["second", "to second"]
        backend.go["first"].set()
        assert await first == "to first"
        assert [entry.content for entry in await phone.history()] == [
            *("first", "to first"),
            *("second", "to second"),
            *("third", "to third"),
        ]
