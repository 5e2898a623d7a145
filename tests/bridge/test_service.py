"""Questions and requests of real phones, and what a backend gets to see of them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.bridge import AgentSpec, Backend, NoSettings, Piece, Place, Question
from coralmux.bridge.backends.echo import EchoBackend
from tests.bridge.bridges import Served, served
from tests.client.meeting import new_link
from tests.support.field import FieldPhone
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


class Recording(Backend):
    """Keeps what it is asked, and has one of everything."""

    def __init__(self) -> None:
        super().__init__(NoSettings(), Place(Path("/nowhere"), "Agent at home"))
        self.questions: list[Question] = []
        self.specs: list[AgentSpec] = []
        self.asked: list[tuple[Any, ...]] = []
        self.garbage = False

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        self.questions.append(question)
        question.usage["total_tokens"] = 7
        if question.text == "draw":
            question.usage["broken"] = object()
            yield coralmux.Attachment("dot.png", "image/png", PICTURE)
            return
        yield f"to {question.text}"


class Able(Recording):
    """Can do all that a backend can."""

    async def history(self, phone: str, agent_id: str, limit: int) -> list[coralmux.HistoryEntry]:
        self.asked.append((phone, agent_id, limit))
        size = 100_000 if agent_id == "long" else 1
        return [coralmux.HistoryEntry("user", str(n % 10) * size, n) for n in range(limit)]

    async def agents(self) -> list[coralmux.AgentProfile]:
        if self.garbage:
            return ["no agent"]  # type: ignore[list-item]
        return [coralmux.AgentProfile("main", "Main", model="large")]

    async def create_agent(self, spec: AgentSpec) -> coralmux.AgentProfile:
        self.specs.append(spec)
        return coralmux.AgentProfile("new", spec.name or "")

    async def update_agent(self, spec: AgentSpec) -> coralmux.AgentProfile:
        self.specs.append(spec)
        if spec.id != "new":
            raise coralmux.BackendError("There is no such agent.")
        return coralmux.AgentProfile("new", spec.name or "")

    async def delete_agent(self, id: str) -> coralmux.AgentProfile:
        if self.garbage:
            raise RuntimeError("what nobody may read")
        return coralmux.AgentProfile(id)

    async def memory(self, agent_id: str, query: str, limit: int) -> list[coralmux.MemoryHit]:
        self.asked.append((agent_id, query, limit))
        return [coralmux.MemoryHit("notes.md", "tea at four", 0.5)]

    async def groups(self) -> list[dict[str, Any]]:
        return [{"id": "hall"}]

    async def group_messages(self, room_id: str, limit: int) -> list[dict[str, Any]]:
        return [{"text": f"{room_id}, {limit}"}]

    async def group_send(self, room_id: str, text: str) -> dict[str, Any]:
        return {"text": text}


@pytest.fixture
async def there(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[tuple[Served, Recording]]:
    backend = Recording()
    async with served(relay, backend, tmp_path) as it:
        yield it, backend


@pytest.fixture
async def able(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[tuple[Served, Able]]:
    backend = Able()
    async with served(relay, backend, tmp_path, system_status=True) as it:
        yield it, backend


def turns(question: Question) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in question.history]


# Questions.


async def test_a_backend_gets_all_that_the_phone_sent(there: tuple[Served, Recording]) -> None:
    it, backend = there
    async with it.phone() as phone:
        picture = coralmux.Attachment("cat.png", "image/png", PICTURE)
        answer = phone.ask(
            "what is this?",
            images=[picture],
            agent_id="cook",
            model="large",
            options={"temperature": 0.5},
        )
        assert await answer == "to what is this?"
        assert answer.usage == {"total_tokens": 7}
        (question,) = backend.questions
        assert question.id == answer.id
        assert question.phone == it.key()
        assert (question.agent_id, question.model) == ("cook", "large")
        assert question.options == {"temperature": 0.5}
        assert [(a.name, a.data) for a in question.attachments] == [("cat.png", PICTURE)]
        assert [entry.content for entry in await phone.history("cook")] == [
            "what is this?\n[picture: cat.png]",
            "to what is this?",
        ]


async def test_what_was_said_before_is_told_for_each_agent(
    there: tuple[Served, Recording],
) -> None:
    it, backend = there
    async with it.phone() as phone:
        await phone.ask("one")
        await phone.ask("other", agent_id="cook")
        await phone.ask("two")
    assert turns(backend.questions[1]) == []
    assert turns(backend.questions[2]) == [("user", "one"), ("assistant", "to one")]


async def test_phones_do_not_see_each_others_conversations(
    relay: RelayProcess, tmp_path: Path
) -> None:
    backend = Recording()
    links = [new_link(relay), new_link(relay)]
    async with served(links, backend, tmp_path) as it, it.phone(0) as first, it.phone(1) as second:
        await first.ask("mine")
        assert await second.history() == []
        await second.ask("yours")
        assert [entry.content for entry in await first.history()] == ["mine", "to mine"]
    assert turns(backend.questions[1]) == []


async def test_a_conversation_that_the_phone_sends_takes_the_place_of_what_was_kept(
    there: tuple[Served, Recording],
) -> None:
    it, backend = there
    async with it.phone() as phone:
        await phone.ask("one")
        await phone.ask("two", conversation=[coralmux.Turn("user", "something else")])
    assert turns(backend.questions[1]) == [("user", "something else")]


async def test_a_backend_that_keeps_its_own_is_told_no_history(
    there: tuple[Served, Recording],
) -> None:
    it, backend = there
    backend.wants_history = False
    async with it.phone() as phone:
        await phone.ask("one")
        await phone.ask("two")
    assert turns(backend.questions[1]) == []


async def test_an_answer_may_be_a_picture_alone(there: tuple[Served, Recording]) -> None:
    it, _ = there
    async with it.phone() as phone:
        answer = phone.ask("draw")
        assert await answer == ""
        assert [(a.name, a.data) for a in answer.attachments] == [("dot.png", PICTURE)]  # type: ignore[union-attr]
        assert answer.usage == {}  # it could not be sent, and nothing else suffers from that
        assert (await phone.history())[-1].content == "[picture: dot.png]"


@pytest.mark.parametrize("text", ["", " \n"])
async def test_a_question_of_nothing_is_not_asked(
    there: tuple[Served, Recording], text: str
) -> None:
    it, backend = there
    async with it.phone() as phone:
        with pytest.raises(coralmux.AgentError, match="The question is empty"):
            await phone.ask(text)
        assert await phone.ask("something") == "to something"
    assert [question.text for question in backend.questions] == ["something"]


async def test_a_name_of_an_agent_that_goes_on_and_on_is_refused(
    there: tuple[Served, Recording],
) -> None:
    it, backend = there
    async with it.phone() as phone:
        with pytest.raises(coralmux.AgentError, match="agent_id is too long: at most 200"):
            await phone.ask("?", agent_id="a" * 201)
    assert backend.questions == []


async def test_a_file_that_the_fields_phones_cannot_take_is_named_in_words(
    relay: RelayProcess, tmp_path: Path
) -> None:
    class Clerk(Backend):
        async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
            yield "Here it is."
            yield coralmux.Attachment.from_bytes(b"a,b\n", "text/csv", "table.csv")

    link = coralmux.PairingLink(relay.url, relay.token())
    async with (
        served([link], Clerk(None, Place(tmp_path)), tmp_path),
        FieldPhone(relay.url, link.token) as phone,
    ):
        _, done = await phone.ask("The table, please.")
    assert done["full_text"].startswith("Here it is.\n\n[file: table.csv] (this phone takes")
    assert "attachments" not in done


async def test_the_phones_of_the_field_are_served_by_token_alone(
    relay: RelayProcess, tmp_path: Path
) -> None:
    backend = Recording()
    link = coralmux.PairingLink(relay.url, relay.token())
    async with (
        served([link], backend, tmp_path) as it,
        FieldPhone(relay.url, link.token) as phone,
    ):
        deltas, done = await phone.ask("hello")
        assert ("".join(deltas), done["usage"]) == ("to hello", {"total_tokens": 7})
        look = {"text": "look", "attachments": [{"url": "http://127.0.0.1/cat.png"}]}
        await phone.send("chat.send", phone.keys.seal(json.dumps(look).encode()))
        await eventually(lambda: phone.errors)
        assert phone.errors[0]["code"] == "BACKEND_ERROR"
        assert "fetches nothing from web addresses" in phone.errors[0]["message"]
        found = (await phone.request("chat.history", {"agent_id": "", "limit": 10}))["messages"]
        assert [message["content"] for message in found] == ["hello", "to hello"]
        assert (await phone.request("agent.list"))["agents"] == [
            {"id": "default", "name": "Agent at home"}
        ]
        made = await phone.request("agent.create", {"name": "B"})
        assert (made["ok"], made["action"]) == (False, "create")
        assert "not supported by this backend (recording)" in made["error"]
    assert [question.text for question in backend.questions] == ["hello"]
    # Those apps may give two questions one id, which a backend must not take for one.
    sent = [fields["id"] for fields in it.log.of("asked")]
    assert backend.questions[0].id not in ("", *sent)


# Requests.


async def test_what_a_backend_can_do_is_answered_by_it(able: tuple[Served, Able]) -> None:
    it, backend = able
    async with it.phone() as phone:
        (profile,) = await phone.agents()
        assert (profile.id, profile.name, profile.model) == ("main", "Main", "large")
        made = await phone.create_agent(
            name="Cook", model="m", system_prompt="You cook.", temperature=1, unknown="kept out"
        )
        assert (made.ok, made.action) == (True, "create")
        assert made.agent is not None
        assert made.agent.name == "Cook"
        assert backend.specs == [
            AgentSpec("", "Cook", model="m", system_prompt="You cook.", temperature=1.0)
        ]
        changed = await phone.update_agent("new", description="Cooks.")
        assert (changed.ok, backend.specs[1]) == (True, AgentSpec("new", description="Cooks."))
        refused = await phone.update_agent("old")
        assert (refused.ok, refused.error) == (False, "There is no such agent.")
        (hit,) = await phone.search_memory("tea", "main", 3)
        assert (hit.path, hit.snippet, hit.score) == ("notes.md", "tea at four", 0.5)
        assert await phone.groups() == [{"id": "hall"}]
        heard = await phone.group_messages("hall", 5)
        assert (heard.room_id, heard.messages) == ("hall", ({"text": "hall, 5"},))
        said = await phone.send_group_message("hall", "hello")
        assert (said.room_id, said.message) == ("hall", {"text": "hello"})
        assert [entry.content for entry in await phone.history("main", 2)] == ["0", "1"]
        assert backend.asked == [("main", "tea", 3), (it.key(), "main", 2)]


async def test_a_history_too_long_for_a_message_is_cut_at_its_old_end(
    able: tuple[Served, Able],
) -> None:
    it, _ = able
    async with it.phone() as phone:
        found = await phone.history("long", 200)
        assert [entry.timestamp for entry in found] == list(range(194, 200))


async def test_deleting_an_agent_deletes_what_was_said_to_it(able: tuple[Served, Able]) -> None:
    it, _ = able
    async with it.phone() as phone:
        await phone.ask("mine", agent_id="new")
        await phone.ask("else", agent_id="other")
        assert (await phone.delete_agent("new")).ok
        assert it.conversations.entries(it.key(), "new", 10) == []
        assert len(it.conversations.entries(it.key(), "other", 10)) == 2


async def test_an_agent_that_cannot_be_deleted_keeps_what_was_said(
    able: tuple[Served, Able],
) -> None:
    it, backend = able
    backend.garbage = True
    async with it.phone() as phone:
        await phone.ask("mine", agent_id="new")
        result = await phone.delete_agent("new")
        assert not result.ok
        assert "failed (RuntimeError)" in (result.error or "")
        assert "what nobody may read" not in repr(result.error) + repr(it.log.lines)
        assert len(it.conversations.entries(it.key(), "new", 10)) == 2


async def test_garbage_of_a_backend_is_an_error_and_not_sent(able: tuple[Served, Able]) -> None:
    it, backend = able
    backend.garbage = True
    async with it.phone() as phone:
        with pytest.raises(coralmux.AgentError, match="cannot be sent"):
            await phone.agents()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda phone: phone.search_memory("tea"), "Searching memory: not supported"),
        (lambda phone: phone.groups(), "Groups: not supported by this backend"),
        (lambda phone: phone.group_messages("hall"), "Groups: not supported"),
        (lambda phone: phone.send_group_message("hall", "hello"), "Groups: not supported"),
        (lambda phone: phone.system_status(), "system_status = true in its config"),
    ],
)
async def test_what_a_backend_cannot_do_is_told_as_unsupported(
    there: tuple[Served, Recording], ask: Any, words: str
) -> None:
    it, _ = there
    async with it.phone() as phone:
        with pytest.raises(coralmux.AgentError, match=words) as caught:
            await ask(phone)
        assert caught.value.code == "UNSUPPORTED"


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda phone: phone.history("", 0), "limit has to be a whole number from 1 to 200"),
        (lambda phone: phone.history("", "all"), "limit has to be a whole number"),
        (lambda phone: phone.history("", True), "limit has to be a whole number"),
        (lambda phone: phone.history(["main"]), "agent_id has to be a text"),
        (lambda phone: phone.search_memory(" "), "query is missing"),
        (lambda phone: phone.group_messages(None), "room_id is missing"),
        (lambda phone: phone.send_group_message("hall", ""), "text is missing"),
    ],
)
async def test_a_request_that_makes_no_sense_is_explained(
    able: tuple[Served, Able], ask: Any, words: str
) -> None:
    it, backend = able
    async with it.phone() as phone:
        with pytest.raises(coralmux.AgentError, match=words) as caught:
            await ask(phone)
        assert caught.value.code == "BACKEND_ERROR"
    assert backend.asked == []


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"name": 5}, "name has to be a text"),
        ({"name": "n" * 201}, "name is too long"),
        ({"temperature": "hot"}, "temperature has to be a number"),
        ({"temperature": True}, "temperature has to be a number"),
    ],
)
async def test_an_agent_that_makes_no_sense_is_not_made(
    able: tuple[Served, Able], profile: dict[str, Any], words: str
) -> None:
    it, backend = able
    async with it.phone() as phone:
        result = await phone.create_agent(**profile)
        assert not result.ok
        assert words in (result.error or "")
        assert not (await phone.update_agent("")).ok
    assert backend.specs == []


async def test_the_machine_is_shown_where_its_owner_allows_it(able: tuple[Served, Able]) -> None:
    it, _ = able
    async with it.phone() as phone:
        status = await phone.system_status()
    assert status.memory_total_gb is not None
    assert status.memory_used_gb is not None
    assert 0 < status.memory_used_gb < status.memory_total_gb
    assert status.memory_percent is not None
    assert 0 < status.memory_percent <= 100
    assert status.cpu_percent is not None
    assert 0 <= status.cpu_percent <= 100
    assert status.uptime_seconds is not None
    assert status.uptime_seconds > 0


async def test_the_echo_backend_lists_itself(relay: RelayProcess, tmp_path: Path) -> None:
    backend = EchoBackend(NoSettings(), Place(tmp_path, "Mine"))
    async with served(relay, backend, tmp_path) as it, it.phone() as phone:
        assert [agent.name for agent in await phone.agents()] == ["Mine"]
