"""Files between a real Phone and a real Agent, and what happens to them on a bad day."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import coralmux
from coralmux.client import connection as wire
from coralmux.client.channel import Channel
from coralmux.protocol.limits import FILE_CHUNK_BYTES, FILE_WINDOW
from tests.client.meeting import Events, agent_for, meeting, new_link, phone_for, serving
from tests.support.client import SOON
from tests.support.process import RelayProcess, relay_process
from tests.support.waiting import eventually

Pieces = AsyncIterator[Any]
PNG = b"\x89PNG\r\n\x1a\n"


def image(size: int, name: str = "a.png") -> coralmux.Attachment:
    return coralmux.Attachment.from_bytes(PNG + os.urandom(size - len(PNG)), name=name)


def echo(agent: coralmux.Agent) -> coralmux.Agent:
    """It says the checksum of whatever comes, and sends it back."""

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        for attachment in message.attachments:
            assert isinstance(attachment, coralmux.Attachment)
            yield f"{attachment.name} {attachment.sha256} "
            yield attachment

    return agent


def count_chunks(channel: Channel) -> Counter[int]:
    """How often each chunk is sent from now on."""
    counts: Counter[int] = Counter()
    send = channel.send

    def counted(type: str, payload: dict[str, Any], **more: Any) -> str:
        if type == "file.chunk":
            counts[payload["index"]] += 1
        return send(type, payload, **more)

    channel.send = counted  # type: ignore[method-assign]
    return counts


async def test_5_000_000_bytes_arrive_whole_and_come_back(shared_relay: RelayProcess) -> None:
    picture = image(5_000_000)
    steps: list[tuple[int, int]] = []

    def progress(attachment: coralmux.Attachment, sent: int, total: int) -> None:
        assert attachment is picture
        steps.append((sent, total))

    async with meeting(shared_relay, echo(agent_for())) as phone:
        counts = count_chunks(phone.channel)
        answer = phone.ask("?", images=[picture], on_progress=progress)
        assert await answer == f"a.png {picture.sha256} "
        (back,) = answer.attachments
    assert isinstance(back, coralmux.Attachment)
    assert (back.sha256, back.mime_type, back.name) == (picture.sha256, "image/png", "a.png")
    sizes = [sent for sent, _ in steps]
    assert all(before < after for before, after in pairwise(sizes))
    assert sizes[-1] == 5_000_000
    assert len(sizes) > 5_000_000 // FILE_CHUNK_BYTES
    assert {total for _, total in steps} == {5_000_000}
    assert set(counts.values()) == {1}


async def test_several_files_of_any_kind_go_in_one_question(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("tea at four")
    empty = coralmux.Attachment.from_bytes(b"", "text/plain", "empty.txt")
    files = [image(70_000, "one.png"), empty]
    async with meeting(shared_relay, echo(agent_for())) as phone:
        answer = phone.ask("?", images=[*files, str(path)])
        await answer
    assert [back.name for back in answer.attachments] == ["one.png", "empty.txt", "notes.txt"]
    assert [back.data for back in answer.attachments[:2]] == [file.data for file in files]
    assert answer.attachments[2].data == b"tea at four"


async def test_files_sent_at_once_keep_apart(shared_relay: RelayProcess) -> None:
    pictures = [image(100_000 + n, f"{n}.png") for n in range(4)]
    async with meeting(shared_relay, echo(agent_for())) as phone:
        texts = await asyncio.gather(*(phone.ask("?", images=[p]) for p in pictures))
    assert texts == [f"{p.name} {p.sha256} " for p in pictures]


async def test_a_path_that_cannot_be_read_is_told_before_anything_is_sent(
    shared_relay: RelayProcess, tmp_path: Path
) -> None:
    async with meeting(shared_relay, echo(agent_for())) as phone:
        with pytest.raises(FileNotFoundError):
            phone.ask("?", images=[str(tmp_path / "none.png")])


async def test_a_file_over_the_cap_is_refused_in_words_and_not_sent(
    shared_relay: RelayProcess,
) -> None:
    big = coralmux.Attachment.from_bytes(bytes(25_000_001), "application/octet-stream", "big")
    async with meeting(shared_relay, echo(agent_for())) as phone:
        counts = count_chunks(phone.channel)
        answer = phone.ask("?", images=[big])
        with pytest.raises(coralmux.FileError, match="at most 25") as caught:
            await answer
        assert caught.value.ids == (answer.id,)
        assert not counts
        assert await phone.ask("still there?") == ""


async def test_a_file_that_nobody_sent_cannot_be_named(shared_relay: RelayProcess) -> None:
    async with meeting(shared_relay, echo(agent_for())) as phone:
        await phone.ready()
        with phone.exchange("q", "chat.done") as waiting:
            phone.channel.send("chat.send", {"attachments": [{"file_id": "never"}]}, id="q")
            with pytest.raises(coralmux.AgentError, match="Send the file again"):
                await waiting.next(5)


async def test_a_handler_of_progress_that_fails_stops_nothing(
    shared_relay: RelayProcess, caplog: pytest.LogCaptureFixture
) -> None:
    picture = image(100_000)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async with meeting(shared_relay, echo(agent_for())) as phone:
        text = await phone.ask("?", images=[picture], on_progress=fail)
        assert text == f"a.png {picture.sha256} "
    assert "the handler of progress failed" in caplog.text


@pytest.mark.parametrize("way", ["cancel", "task"])
async def test_a_question_cancelled_during_its_upload_is_never_asked(
    shared_relay: RelayProcess, way: str
) -> None:
    agent = agent_for()
    asked: list[str] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> str:
        asked.append(message.text)
        return "ok"

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        reached = asyncio.Event()
        counts = count_chunks(phone.channel)
        answer = phone.ask(
            "not this", images=[image(5_000_000)], on_progress=lambda *_: reached.set()
        )
        task = asyncio.create_task(answer._whole())
        await reached.wait()
        if way == "cancel":
            answer.cancel()
            assert await task == ""
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert counts.total() < 5_000_000 // FILE_CHUNK_BYTES
        assert await phone.ask("this") == "ok"
        assert asked == ["this"]
        # The place in the agent's inbox is free again: it holds eight files.
        for _ in range(2):
            many = [image(1000, f"{n}.png") for n in range(8)]
            assert await phone.ask("more", images=many[:4]) == "ok"


@pytest.mark.parametrize("why", ["cancelled", "refused"])
async def test_files_of_a_question_that_is_not_asked_free_their_places(
    shared_relay: RelayProcess, why: str
) -> None:
    agent = echo(agent_for())
    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        inbox = agent._pairings[0]._transfers.inbox
        for n in range(3):
            pictures = [image(1000, "first.png"), image(5_000_000, "second.png")]
            answer = phone.ask("?", images=pictures)
            if why == "refused":
                answer._question.more["text"] = "x" * 5_000_000
                with pytest.raises(coralmux.MessageTooLarge):
                    await answer
            else:
                second = asyncio.Event()
                answer._question.on_progress = lambda picture, *_, second=second: (
                    second.set() if picture.name == "second.png" else None
                )
                task = asyncio.create_task(answer._whole())
                await second.wait()
                answer.cancel()
                await task
            assert await phone.ask(f"{n}") == ""
            assert repr(inbox) == "Inbox(0 files)"


async def test_files_of_an_answer_that_nobody_reads_free_their_places(
    shared_relay: RelayProcess,
) -> None:
    agent = agent_for()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        if message.text == "picture":
            yield image(1000)
            yield "there it is"
            await asyncio.Event().wait()

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        async with phone.ask("picture") as answer:
            async for _ in answer:
                assert repr(phone.transfers.inbox) == "Inbox(1 files)"
                break
        while repr(phone.transfers.inbox) != "Inbox(0 files)":
            await phone.ask("still there?")


async def test_a_cancelled_answer_ends_the_agents_upload(shared_relay: RelayProcess) -> None:
    agent = agent_for()
    began, ended = asyncio.Event(), asyncio.Event()

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        try:
            yield "look: "
            began.set()
            yield image(20_000_000)
            yield "there"
        finally:
            ended.set()

    async with meeting(shared_relay, agent) as phone, asyncio.timeout(SOON):
        answer = phone.ask("?")
        async for _ in answer:
            await began.wait()
            answer.cancel()
        await ended.wait()
        assert (answer.text, answer.cancelled, answer.attachments) == ("look: ", True, [])


@pytest.mark.slow
async def test_a_file_goes_on_where_it_was_when_the_relay_was_killed() -> None:
    picture = image(5_000_000)
    chunks = -(-5_000_000 // FILE_CHUNK_BYTES)
    with relay_process() as relay:
        link = new_link(relay)
        steps: list[int] = []
        events = Events()

        def progress(attachment: coralmux.Attachment, sent: int, total: int) -> None:
            steps.append(sent)
            if (
                sent > total / 2
                and relay.process.poll() is None
                and events.count(wire.Connected) == 1
            ):
                relay.process.kill()

        async def revive() -> None:
            await events.wait_for(wire.Disconnected)
            relay.process.wait()
            await asyncio.to_thread(relay.start)

        async with (
            serving(echo(agent_for(link))),
            phone_for(link, on_event=events) as phone,
            asyncio.timeout(2 * SOON),
        ):
            counts = count_chunks(phone.channel)
            reviving = asyncio.create_task(revive())
            answer = phone.ask("?", images=[picture], on_progress=progress)
            assert await answer == f"a.png {picture.sha256} "
            await reviving
            assert events.count(wire.Connected) == 2
    assert set(counts) == set(range(chunks))
    # What was on its way is sent again, and nothing else.
    assert counts.total() <= chunks + FILE_WINDOW
    assert all(before < after for before, after in pairwise(steps))
    assert steps[-1] == 5_000_000


async def test_an_agent_that_leaves_for_good_in_the_middle_of_a_file_is_told(
    shared_relay: RelayProcess,
) -> None:
    agent = echo(agent_for())
    link = new_link(shared_relay)
    agent.add(link)
    reached = asyncio.Event()
    async with phone_for(link) as phone, asyncio.timeout(SOON):
        async with serving(agent):
            answer = phone.ask(
                "?",
                images=[image(20_000_000)],
                on_progress=lambda *_: reached.set(),
                timeout=0.3,
            )
            await phone.ready()
            task = asyncio.create_task(answer._whole())
            await reached.wait()
        with pytest.raises(coralmux.PeerOffline, match="middle of a file") as caught:
            await task
        assert caught.value.ids == (answer.id,)


@pytest.mark.parametrize("version", [1, 2])
async def test_megabytes_in_both_directions_at_once_do_not_wait_for_each_other(
    shared_relay: RelayProcess, version: int
) -> None:
    """More than the relay takes and the ends read ahead: both have to go on reading."""
    link = new_link(shared_relay)
    if version == 1:
        link = coralmux.PairingLink(link.relay, link.token)
    agent = agent_for(link)
    heard: list[int] = []
    came: list[int] = []

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        heard.append(len(message.text))
        yield "yes"

    @agent.on("chat.history")
    async def history(request: coralmux.Request) -> dict[str, Any]:
        heard.append(len(request.payload["filler"]))
        return {}

    count, text = 27, "x" * 220_000  # 8 MB when sealed
    async with (
        serving(agent),
        phone_for(link, on_group_message=lambda m: came.append(len(m.message["text"]))) as phone,
    ):
        assert await phone.ask("here?") == "yes"
        channel = agent._pairings[0].channel
        for _ in range(count):
            # Queued in one breath: nobody has read or written anything in between.
            channel.send("group.message", {"room_id": "r", "message": {"text": text}})
            phone.channel.send("chat.history", {"filler": text})
        assert await phone.ask("still there?") == "yes"
        await eventually(lambda: len(came) == count)
    assert heard == [5, *[len(text)] * count, 12]


async def test_images_in_both_directions_at_once_arrive_whole(shared_relay: RelayProcess) -> None:
    ours, theirs = image(5_000_000, "ours.png"), image(5_000_000, "theirs.png")
    link = new_link(shared_relay)
    agent = agent_for(link)

    @agent.on_chat
    async def reply(message: coralmux.ChatMessage) -> Pieces:
        for attachment in message.attachments:
            assert isinstance(attachment, coralmux.Attachment)
            yield attachment.sha256
        if not message.attachments:
            yield theirs

    async with serving(agent), phone_for(link) as phone:
        await phone.ready()
        answers = [phone.ask("send one"), phone.ask("take one", images=[ours])]
        async with asyncio.timeout(20):
            assert await asyncio.gather(*(answer._whole() for answer in answers)) == [
                "",
                ours.sha256,
            ]
        assert [item.sha256 for item in answers[0].attachments] == [theirs.sha256]
