"""Sender and receiver of files back to back, across lost sessions, and against hostile peers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralmux.client.attachments import Attachment
from coralmux.client.file_messages import Begin, Chunk
from coralmux.client.files import (
    ACK_SECONDS,
    RETRIES,
    FileError,
    Inbox,
    Message,
    Outgoing,
    OutgoingState,
)
from coralmux.protocol.limits import FILE_CHUNK_BYTES, FILE_WINDOW, MAX_FILE_BYTES

PNG = b"\x89PNG\r\n\x1a\n"


def file_of(size: int, seed: int = 1) -> Attachment:
    data = random.Random(seed).randbytes(size)
    return Attachment.from_bytes(data, "application/octet-stream", "data.bin")


class Pair:
    """One sender and one receiver, with what is on its way between them, oldest first."""

    def __init__(self, attachment: Attachment, **inbox: Any) -> None:
        self.sent_progress: list[tuple[int, int]] = []
        self.received_progress: list[tuple[str, str, int, int]] = []
        self.outgoing = Outgoing(attachment, "f1", lambda *p: self.sent_progress.append(p))
        self.inbox = Inbox(**inbox, on_progress=lambda *p: self.received_progress.append(p))
        self.now = 0.0
        self.there: list[Message] = []
        self.back: list[Message] = []
        self.chunks: list[int] = []  # indexes in the order in which they were sent
        self.most_in_flight = 0
        self.most_really = FILE_WINDOW

    def start(self) -> None:
        self.send(self.outgoing.start(self.now))

    def send(self, messages: list[Message]) -> None:
        for message in messages:
            # As JSON, for nothing else travels.
            self.there.append((message[0], json.loads(json.dumps(message[1]))))
            if message[0] == "file.chunk":
                self.chunks.append(message[1]["index"])
        self.most_in_flight = max(self.most_in_flight, self.outgoing.unacknowledged)
        # Whatever the sender believes: this many are really on their way.
        assert sum(type == "file.chunk" for type, _ in self.there) <= self.most_really

    def step_there(self) -> None:
        if self.there:
            self.back += self.inbox.receive(*self.there.pop(0), self.now)

    def step_back(self) -> None:
        if self.back:
            self.send(self.outgoing.receive(*self.back.pop(0), self.now))

    def run(self) -> None:
        while self.there or self.back:
            self.step_there()
            self.step_back()

    def lose_everything(self) -> None:
        self.there.clear()
        self.back.clear()

    def check_arrived(self) -> None:
        assert self.outgoing.done, self.outgoing.error
        got = self.inbox.claim("f1")
        sent = self.outgoing.attachment
        assert (got.name, got.mime_type, got.sha256) == (sent.name, sent.mime_type, sent.sha256)
        assert got.data == sent.data
        total = len(sent.data)
        numbers = [acked for acked, _ in self.sent_progress]
        assert numbers == sorted(set(numbers))
        assert self.sent_progress[-1] == (total, total)
        assert {told for _, told in self.sent_progress} == {total}
        arrived = [received for *_, received, _ in self.received_progress]
        assert arrived == sorted(arrived)
        assert self.received_progress[-1] == ("f1", sent.name, total, total)


SIZES = [
    0,
    1,
    FILE_CHUNK_BYTES - 1,
    FILE_CHUNK_BYTES,
    FILE_CHUNK_BYTES + 1,
    FILE_CHUNK_BYTES * FILE_WINDOW,
    FILE_CHUNK_BYTES * 9 + 17,
    5_000_000,
]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives_whole(size: int) -> None:
    pair = Pair(file_of(size))
    pair.start()
    pair.run()
    pair.check_arrived()
    assert pair.chunks == list(range(-(-size // FILE_CHUNK_BYTES)))
    assert pair.most_in_flight == min(FILE_WINDOW, len(pair.chunks))


def test_the_messages_have_the_shapes_of_the_protocol() -> None:
    attachment = Attachment.from_bytes(b"hello", "text/plain", "a.txt")
    outgoing, inbox = Outgoing(attachment, "f1"), Inbox()
    begin = outgoing.start(0.0)
    assert begin == [
        (
            "file.begin",
            {
                "file_id": "f1",
                "name": "a.txt",
                "mime_type": "text/plain",
                "size": 5,
                "sha256": hashlib.sha256(b"hello").hexdigest(),
            },
        )
    ]
    ack = inbox.receive(*begin[0], 0.0)
    assert ack == [("file.ack", {"file_id": "f1", "index": -1})]
    chunk = outgoing.receive(*ack[0], 0.0)
    assert chunk == [("file.chunk", {"file_id": "f1", "index": 0, "data_b64": "aGVsbG8="})]
    ack = inbox.receive(*chunk[0], 0.0)
    assert ack == [("file.ack", {"file_id": "f1", "index": 0})]
    end = outgoing.receive(*ack[0], 0.0)
    assert end == [("file.end", {"file_id": "f1"})]
    result = inbox.receive(*end[0], 0.0)
    assert result == [("file.result", {"file_id": "f1", "ok": True})]
    assert outgoing.receive(*result[0], 0.0) == []
    assert outgoing.done
    assert outgoing.deadline is None


@settings(max_examples=150)
@given(
    size=st.integers(0, FILE_CHUNK_BYTES * 12),
    lives=st.lists(st.lists(st.booleans(), max_size=40), max_size=8),
)
def test_a_file_arrives_whole_however_often_the_session_is_lost(
    size: int, lives: list[list[bool]]
) -> None:
    """Each life delivers some messages, in either direction, and loses the rest."""
    pair = Pair(file_of(size))
    pair.start()
    for steps in lives:
        for there in steps:
            pair.step_there() if there else pair.step_back()
        pair.lose_everything()
        pair.outgoing.suspend()
        assert pair.outgoing.tick(pair.now + 1e6) == []
        pair.send(pair.outgoing.restart(pair.now))
    pair.run()
    pair.check_arrived()
    assert pair.most_in_flight <= FILE_WINDOW


def test_after_a_lost_session_only_the_rest_is_sent() -> None:
    pair = Pair(file_of(FILE_CHUNK_BYTES * 20))
    pair.start()
    while len(pair.received_progress) < 11:
        pair.step_there()
        pair.step_back()
    pair.lose_everything()
    pair.chunks.clear()
    pair.send(pair.outgoing.restart(0.0))
    pair.run()
    pair.check_arrived()
    assert pair.chunks == list(range(10, 20))


def test_a_receiver_that_lost_everything_gets_it_from_the_beginning() -> None:
    pair = Pair(file_of(FILE_CHUNK_BYTES * 10))
    pair.start()
    while len(pair.received_progress) < 6:
        pair.step_there()
        pair.step_back()
    pair.lose_everything()
    pair.received_progress.clear()
    pair.inbox = Inbox(on_progress=lambda *p: pair.received_progress.append(p))
    pair.send(pair.outgoing.restart(0.0))
    pair.run()
    pair.check_arrived()


@settings(max_examples=100)
@given(
    count=st.integers(1, 12),
    lost=st.sets(st.integers(0, 25), max_size=5),
)
def test_lost_chunks_are_sent_again_and_nothing_is_sent_without_end(
    count: int, lost: set[int]
) -> None:
    """Single chunks are refused on the way, in a session that lives on."""
    pair = Pair(file_of(FILE_CHUNK_BYTES * count))
    pair.most_really = 2 * FILE_WINDOW  # a second copy of each that is out
    pair.start()
    number = 0
    for _ in range(RETRIES * count + 1):
        while pair.there or pair.back:
            if pair.there and pair.there[0][0] == "file.chunk":
                number += 1
                if number - 1 in lost:
                    pair.there.pop(0)
            pair.step_there()
            pair.step_back()
        if pair.outgoing.deadline is None:
            break
        pair.now = pair.outgoing.deadline
        pair.send(pair.outgoing.tick(pair.now))
    # The last chunk, lost at every attempt, is a reason to give up, and nothing else is.
    if len(lost) <= RETRIES or not pair.outgoing.failed:
        pair.check_arrived()
    assert len(pair.chunks) <= count + (len(lost) + 1) * FILE_WINDOW * 2


def test_a_chunk_lost_in_the_middle_is_made_good_without_waiting() -> None:
    pair = Pair(file_of(FILE_CHUNK_BYTES * 8))
    pair.most_really = 2 * FILE_WINDOW  # a second copy of each that is out
    pair.start()
    while not (pair.there and pair.there[0][1].get("index") == 2):
        pair.step_there()
        pair.step_back()
    pair.there.pop(0)
    pair.run()
    pair.check_arrived()
    assert len(pair.chunks) <= 8 + FILE_WINDOW


def test_answers_that_come_late_do_not_double_the_rest_of_the_file() -> None:
    pair = Pair(file_of(FILE_CHUNK_BYTES * 40))
    pair.most_really = 2 * FILE_WINDOW  # a second copy of each that is out
    pair.start()
    pair.step_there()
    pair.step_back()
    pair.now = ACK_SECONDS
    pair.send(pair.outgoing.tick(pair.now))  # while all four chunks are still under way
    # The answers to the chunks come first, then that to the second begin.
    pair.run()
    pair.check_arrived()
    assert len(pair.chunks) <= 40 + 2 * FILE_WINDOW


def test_an_end_whose_answer_was_lost_is_answered_again() -> None:
    pair = Pair(file_of(100))
    pair.start()
    for _ in range(2):
        pair.step_there()
        pair.step_back()
    pair.step_there()
    assert pair.back == [("file.result", {"file_id": "f1", "ok": True})]
    pair.lose_everything()
    pair.send(pair.outgoing.restart(0.0))
    pair.run()
    pair.check_arrived()
    assert pair.chunks == [0]


def test_a_late_result_is_taken_although_the_sender_began_again() -> None:
    pair = Pair(file_of(100))
    pair.start()
    for _ in range(2):
        pair.step_there()
        pair.step_back()
    pair.step_there()
    assert pair.outgoing.tick(ACK_SECONDS)[0][0] == "file.begin"
    pair.step_back()
    assert pair.outgoing.done


def test_a_silent_receiver_is_asked_again_and_then_given_up() -> None:
    outgoing = Outgoing(file_of(10), "f1")
    outgoing.start(100.0)
    assert outgoing.tick(100.0 + ACK_SECONDS - 0.01) == []
    for n in range(1, RETRIES + 1):
        assert outgoing.deadline == 100.0 + n * ACK_SECONDS
        assert [type for type, _ in outgoing.tick(outgoing.deadline)] == ["file.begin"]
    assert outgoing.deadline is not None
    assert outgoing.tick(outgoing.deadline) == [("file.cancel", {"file_id": "f1"})]
    assert outgoing.failed
    assert "stopped answering" in outgoing.error
    assert "again" in outgoing.error
    assert outgoing.deadline is None
    assert outgoing.tick(1e9) == outgoing.restart(1e9) == outgoing.cancel() == []


def test_a_receiver_that_only_answers_begin_is_given_up_too() -> None:
    outgoing = Outgoing(file_of(10), "f1")
    outgoing.start(0.0)
    begins = 1
    while outgoing.deadline is not None:
        now = outgoing.deadline
        outgoing.receive("file.ack", {"file_id": "f1", "index": -1}, now - 1)
        for type, _ in outgoing.tick(outgoing.deadline):
            begins += type == "file.begin"
        assert now < 1_000
    assert outgoing.failed
    assert begins == RETRIES + 1


def test_chunks_are_made_when_they_are_due() -> None:
    outgoing = Outgoing(file_of(FILE_CHUNK_BYTES * 50), "f1")
    assert [type for type, _ in outgoing.start(0.0)] == ["file.begin"]
    messages = outgoing.receive("file.ack", {"file_id": "f1", "index": -1}, 0.0)
    assert [payload["index"] for _, payload in messages] == [0, 1, 2, 3]
    messages = outgoing.receive("file.ack", {"file_id": "f1", "index": 1}, 0.0)
    assert [payload["index"] for _, payload in messages] == [4, 5]


# Refusals


def test_the_reason_of_a_refusal_reaches_the_sender() -> None:
    pair = Pair(file_of(MAX_FILE_BYTES + 1))
    pair.start()
    pair.run()
    assert pair.outgoing.failed
    assert "at most 25.0 MB" in pair.outgoing.error
    assert pair.chunks == []


def test_a_file_of_exactly_the_cap_is_taken() -> None:
    pair = Pair(file_of(MAX_FILE_BYTES))
    pair.start()
    pair.run()
    pair.check_arrived()


def test_the_reason_of_a_refusal_is_short_and_printable() -> None:
    outgoing = Outgoing(file_of(1), "f1")
    outgoing.start(0.0)
    outgoing.receive("file.result", {"file_id": "f1", "ok": False, "error": "a\n\u202e" * 999}, 0.0)
    assert outgoing.failed
    assert set(outgoing.error) == {"a"}
    assert len(outgoing.error) <= 500


@pytest.mark.parametrize("error", [{}, {"error": ""}, {"error": None}, {"error": "\n"}])
def test_a_refusal_without_a_reason_says_so(error: dict[str, Any]) -> None:
    outgoing = Outgoing(file_of(1), "f1")
    outgoing.start(0.0)
    outgoing.receive("file.result", {"file_id": "f1", "ok": False, **error}, 0.0)
    assert outgoing.failed
    assert "no reason" in outgoing.error


def begin_of(data: bytes, file_id: str = "f1", **change: Any) -> dict[str, Any]:
    return {
        "file_id": file_id,
        "name": "a.bin",
        "mime_type": "application/octet-stream",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **change,
    }


def chunk_of(data: bytes, index: Any = 0, file_id: str = "f1") -> dict[str, Any]:
    return {"file_id": file_id, "index": index, "data_b64": b64encode(data).decode()}


def refusal(messages: list[Message], file_id: str = "f1") -> str:
    """The text of the one refusal."""
    ((type, payload),) = messages
    assert type == "file.result"
    assert (payload["file_id"], payload["ok"]) == (file_id, False)
    assert set(payload) == {"file_id", "ok", "error"}
    return str(payload["error"])


def gone(inbox: Inbox, file_id: str = "f1") -> bool:
    with pytest.raises(FileError):
        inbox.claim(file_id)
    return inbox.deadline is None


TWO = bytes(FILE_CHUNK_BYTES) + b"xyz"


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (chunk_of(bytes(FILE_CHUNK_BYTES + 1)), r"at `\$.data_b64`|bytes where"),
        (chunk_of(bytes(FILE_CHUNK_BYTES + 3)), r"at `\$.data_b64`"),
        (chunk_of(b"short"), "5 bytes where 65536 are due"),
        (chunk_of(b""), "0 bytes where"),
        (chunk_of(b"x", 2), "More came than the 65539 bytes"),
        (chunk_of(b"x", 2**53), "More came than"),
        (chunk_of(b"x", 2**70), "at `\\$.index`"),
        (chunk_of(b"x", -1), "at `\\$.index`"),
        (chunk_of(b"x", True), "at `\\$.index`"),
        (chunk_of(b"x", "0"), "at `\\$.index`"),
        (chunk_of(b"x", 0.0), "at `\\$.index`"),
        (chunk_of(b"x", None), "at `\\$.index`"),
        ({"file_id": "f1", "index": 0}, "data_b64"),
        ({"file_id": "f1", "index": 0, "data_b64": "é"}, "not base64"),
        ({"file_id": "f1", "index": 0, "data_b64": "eHh4 eHh4"}, "not base64"),
        ({"file_id": "f1", "index": 0, "data_b64": ["eHh4"]}, "data_b64"),
    ],
)
def test_a_wrong_chunk_ends_its_transfer(chunk: dict[str, Any], why: str) -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(TWO), 0.0)
    assert re.search(why, refusal(inbox.receive("file.chunk", chunk, 0.0)))
    assert gone(inbox)


def test_more_bytes_than_were_told_are_refused() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(b"abc"), 0.0)
    assert "4 bytes where 3" in refusal(inbox.receive("file.chunk", chunk_of(b"abcd"), 0.0))
    assert gone(inbox)


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": True},
        {"size": "3"},
        {"size": 3.0},
        {"size": 2**60},
        {"size": None},
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"sha256": "0" * 64 + "\n"},
        {"name": None},
        {"name": "a" * 2_000},
        {"mime_type": 7},
        {"mime_type": "a" * 300},
    ],
)
def test_a_wrong_begin_is_refused(change: dict[str, Any]) -> None:
    inbox = Inbox()
    begin = begin_of(b"abc", **change)
    assert "Not a valid file message" in refusal(inbox.receive("file.begin", begin, 0.0))
    assert gone(inbox)


@pytest.mark.parametrize(
    "file_id", ["", "a" * 65, "a/b", "a\n", "é", None, 7, True, ["a"], {"a": 1}]
)
def test_a_wrong_id_is_refused_and_not_repeated(file_id: Any) -> None:
    inbox = Inbox()
    begin = begin_of(b"abc", file_id=file_id)
    assert refusal(inbox.receive("file.begin", begin, 0.0), "")
    with pytest.raises(FileError):
        inbox.claim(file_id)


def test_a_refusal_repeats_nothing_of_the_message() -> None:
    inbox = Inbox()
    for payload in ({"file_id": "secret text"}, begin_of(b"", size="secret text"), "secret text"):
        ((_, answer),) = inbox.receive("file.begin", payload, 0.0)
        assert "secret" not in answer["error"]


def test_a_changed_file_is_refused_at_its_end() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(b"abc"), 0.0)
    inbox.receive("file.chunk", chunk_of(b"abd"), 0.0)
    assert "checksum" in refusal(inbox.receive("file.end", {"file_id": "f1"}, 0.0))
    assert gone(inbox)


def test_an_end_before_the_last_chunk_is_refused() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(TWO), 0.0)
    inbox.receive("file.chunk", chunk_of(bytes(FILE_CHUNK_BYTES)), 0.0)
    with pytest.raises(FileError, match="not arrived completely"):
        inbox.claim("f1")
    error = refusal(inbox.receive("file.end", {"file_id": "f1"}, 0.0))
    assert "65536 of 65539" in error
    assert gone(inbox)


def test_what_is_called_a_picture_must_be_that_picture() -> None:
    inbox = Inbox()
    for mime_type in ("image/jpeg", "image/svg+xml", "nonsense"):
        inbox.receive("file.begin", begin_of(PNG, mime_type=mime_type), 0.0)
        inbox.receive("file.chunk", chunk_of(PNG), 0.0)
        error = refusal(inbox.receive("file.end", {"file_id": "f1"}, 0.0))
        assert "image/png" in error
        assert gone(inbox)


def test_the_name_is_bare_when_the_file_is_claimed() -> None:
    told: list[str] = []
    inbox = Inbox(on_progress=lambda _id, name, *_: told.append(name))
    inbox.receive("file.begin", begin_of(b"", name="../../etc/\u202epasswd"), 0.0)
    inbox.receive("file.end", {"file_id": "f1"}, 0.0)
    assert inbox.claim("f1").name == "passwd"
    assert told == ["passwd"]


def test_a_file_is_claimed_once() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(b""), 0.0)
    inbox.receive("file.end", {"file_id": "f1"}, 0.0)
    assert inbox.claim("f1").data == b""
    assert gone(inbox)


def test_a_chunk_that_comes_twice_or_too_early_is_answered_with_how_far_the_file_is() -> None:
    inbox = Inbox()
    data = bytes(FILE_CHUNK_BYTES) * 3
    part = bytes(FILE_CHUNK_BYTES)
    inbox.receive("file.begin", begin_of(data), 0.0)
    for index, answer in [(1, -1), (0, 0), (0, 0), (2, 0), (1, 1), (2, 2), (0, 2)]:
        messages = inbox.receive("file.chunk", chunk_of(part, index), 0.0)
        assert messages == [("file.ack", {"file_id": "f1", "index": answer})]
    assert inbox.receive("file.end", {"file_id": "f1"}, 0.0)[0][1]["ok"]
    assert inbox.claim("f1").data == data


def test_another_file_under_the_same_id_is_refused() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(b"abc"), 0.0)
    assert "new one" in refusal(inbox.receive("file.begin", begin_of(b"abd"), 0.0))
    assert gone(inbox)


def test_what_follows_a_refusal_is_not_answered_a_second_time() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(bytes(FILE_CHUNK_BYTES) * 4), 0.0)
    refusal(inbox.receive("file.chunk", chunk_of(b"short"), 0.0))
    for index in (1, 2, 3):
        assert inbox.receive("file.chunk", chunk_of(bytes(FILE_CHUNK_BYTES), index), 0.0) == []
    assert inbox.receive("file.end", {"file_id": "f1"}, 0.0) == []
    # A new beginning is a new chance.
    assert inbox.receive("file.begin", begin_of(b"abc"), 0.0)[0][0] == "file.ack"


@pytest.mark.parametrize("type", ["file.chunk", "file.end"])
def test_a_file_that_was_never_begun_is_refused(type: str) -> None:
    assert "Begin again" in refusal(Inbox().receive(type, chunk_of(b"x"), 0.0))


def test_only_so_many_files_are_kept_until_they_are_claimed() -> None:
    inbox = Inbox(max_files=3)
    for n in range(3):
        assert inbox.receive("file.begin", begin_of(b"", f"f{n}"), 0.0)[0][0] == "file.ack"
    inbox.receive("file.end", {"file_id": "f0"}, 0.0)
    assert "Too many files" in refusal(inbox.receive("file.begin", begin_of(b"", "f3"), 0.0), "f3")
    inbox.claim("f0")
    assert inbox.receive("file.begin", begin_of(b"", "f3"), 0.0)[0][0] == "file.ack"


def test_only_so_many_bytes_are_promised_together() -> None:
    inbox = Inbox(max_total_bytes=1_000_000)
    assert inbox.receive("file.begin", begin_of(b"", "f0", size=600_000), 0.0)[0][0] == "file.ack"
    error = refusal(inbox.receive("file.begin", begin_of(b"", "f1", size=400_001), 0.0))
    assert "together may have 1.0 MB" in error
    assert inbox.receive("file.begin", begin_of(b"", "f1", size=400_000), 0.0)[0][0] == "file.ack"


def test_what_nobody_touches_is_dropped() -> None:
    inbox = Inbox(idle_seconds=600)
    inbox.receive("file.begin", begin_of(TWO, "f0"), 0.0)
    inbox.receive("file.begin", begin_of(TWO, "f1"), 0.0)
    inbox.receive("file.chunk", chunk_of(bytes(FILE_CHUNK_BYTES), 0, "f1"), 500.0)
    assert inbox.deadline == 600.0
    assert inbox.prune(599.0) == 0
    assert inbox.prune(600.0) == 1
    assert inbox.deadline == 1_100.0
    assert inbox.receive("file.begin", begin_of(TWO, "f1"), 1_099.0)[0][1]["index"] == 0
    # The message that comes too late finds nothing to go on with.
    assert "waited too long" in refusal(
        inbox.receive("file.chunk", chunk_of(b"xyz", 1), 1_099.0 + 600.0)
    )


# Cancelling


def midway() -> Pair:
    pair = Pair(file_of(FILE_CHUNK_BYTES * 10))
    pair.start()
    while len(pair.received_progress) < 4:
        pair.step_there()
        pair.step_back()
    return pair


def test_the_sender_cancels() -> None:
    pair = midway()
    pair.send(pair.outgoing.cancel())
    pair.run()
    assert pair.outgoing.failed
    assert pair.outgoing.error == "The transfer was cancelled."
    assert gone(pair.inbox)
    assert pair.outgoing.cancel() == []


def test_a_transfer_that_never_began_is_cancelled_without_a_word() -> None:
    outgoing = Outgoing(file_of(1))
    assert outgoing.cancel() == []
    assert outgoing.failed
    assert outgoing.start(0.0) == []


def test_the_receiver_cancels() -> None:
    pair = midway()
    pair.back += pair.inbox.cancel("f1")
    pair.run()
    assert pair.outgoing.failed
    assert "other end cancelled" in pair.outgoing.error
    assert gone(pair.inbox)
    assert pair.inbox.cancel("f1") == []


def test_cancelling_something_else_changes_nothing() -> None:
    pair = midway()
    pair.send(pair.outgoing.receive("file.cancel", {"file_id": "f2"}, 0.0))
    assert pair.inbox.receive("file.cancel", {"file_id": "f2"}, 0.0) == []
    pair.run()
    pair.check_arrived()


# Hostile peers

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["f1", "f2", -1, 0, 1, 2, 3, 2**53, "", "eHh4", "image/png"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)
MEMBERS = ["file_id", "name", "mime_type", "size", "sha256", "index", "data_b64", "ok", "error"]
good = st.sampled_from(
    [
        begin_of(TWO),
        begin_of(b"", "f2"),
        chunk_of(bytes(FILE_CHUNK_BYTES)),
        chunk_of(b"xyz", 1),
        {"file_id": "f1", "index": -1},
        {"file_id": "f1", "index": 1},
        {"file_id": "f1", "ok": True},
    ]
)
hostile = st.one_of(
    json_values,
    st.dictionaries(st.sampled_from(MEMBERS), json_values),
    good,
    st.builds(
        lambda base, change: {**base, **change},
        good,
        st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=2),
    ),
)
TYPES = ["file.begin", "file.chunk", "file.end", "file.cancel", "file.ack", "file.result", "file.x"]
messages = st.lists(st.tuples(st.sampled_from(TYPES), hostile, st.floats(0, 400)), max_size=25)


@given(messages)
def test_a_hostile_sender_gets_results_and_nothing_is_raised(given: list[Any]) -> None:
    inbox = Inbox(max_files=2)
    now = 0.0
    for type, payload, later in given:
        now += later
        for answer, body in inbox.receive(type, payload, now):
            assert answer in ("file.ack", "file.result")
            json.dumps(body)
            if answer == "file.result" and not body["ok"]:
                assert body["error"]
        if isinstance(payload, dict):
            with contextlib.suppress(FileError):
                assert inbox.claim(payload.get("file_id")).data in (TWO, b"")  # type: ignore[arg-type]


@given(messages)
def test_a_hostile_receiver_gets_only_the_file_and_nothing_is_raised(given: list[Any]) -> None:
    progress: list[int] = []
    outgoing = Outgoing(
        Attachment.from_bytes(TWO), "f1", on_progress=lambda acked, _: progress.append(acked)
    )
    outgoing.start(0.0)
    now = 0.0
    for type, payload, later in given:
        now += later
        for sent, body in outgoing.receive(type, payload, now) + outgoing.tick(now):
            assert sent.startswith("file.")
            assert body["file_id"] == "f1"
        assert outgoing.unacknowledged <= FILE_WINDOW
        assert (outgoing.error != "") == outgoing.failed
    assert progress == sorted(set(progress))


def test_an_answer_before_anything_was_sent_changes_nothing() -> None:
    outgoing = Outgoing(file_of(1), "f1")
    for type in ("file.ack", "file.result", "file.cancel"):
        assert outgoing.receive(type, {"file_id": "f1", "index": 0, "ok": True}, 0.0) == []
    assert outgoing.state is OutgoingState.NEW


def test_success_is_not_believed_before_everything_was_acknowledged() -> None:
    outgoing = Outgoing(file_of(0), "f1")
    outgoing.start(0.0)
    outgoing.receive("file.result", {"file_id": "f1", "ok": True}, 0.0)
    assert not outgoing.done


@pytest.mark.parametrize(
    "make",
    [
        lambda: Outgoing(Attachment.from_bytes(b"hidden", "text/plain", "hidden"), "f1"),
        lambda: Begin("f1", "hidden", "text/plain", 1, "0" * 64),
        lambda: Chunk("f1", 0, "hidden"),
        lambda: Inbox(),
    ],
)
def test_contents_and_names_stay_out_of_reprs(make: Callable[[], object]) -> None:
    assert "hidden" not in repr(make())


def test_an_acknowledgement_beyond_the_file_is_not_believed() -> None:
    progress: list[tuple[int, int]] = []
    outgoing = Outgoing(file_of(10), "f1", on_progress=lambda *p: progress.append(p))
    outgoing.start(0.0)
    assert outgoing.receive("file.ack", {"file_id": "f1", "index": 1}, 0.0) == []
    assert progress == []
    assert outgoing.state is OutgoingState.BEGINNING


def test_a_finished_file_waits_to_be_claimed_from_its_end_on() -> None:
    inbox = Inbox(idle_seconds=600)
    inbox.receive("file.begin", begin_of(b""), 0.0)
    inbox.receive("file.end", {"file_id": "f1"}, 500.0)
    assert inbox.deadline == 1_100.0


def test_chunks_behind_a_cancel_are_not_answered() -> None:
    inbox = Inbox()
    inbox.receive("file.begin", begin_of(TWO), 0.0)
    inbox.receive("file.cancel", {"file_id": "f1"}, 0.0)
    assert inbox.receive("file.chunk", chunk_of(bytes(FILE_CHUNK_BYTES)), 0.0) == []


def test_only_the_latest_refusals_are_remembered() -> None:
    inbox = Inbox()
    for n in range(100):
        refusal(inbox.receive("file.end", {"file_id": f"f{n}"}, 0.0), f"f{n}")
    assert inbox.receive("file.end", {"file_id": "f99"}, 0.0) == []
    assert refusal(inbox.receive("file.end", {"file_id": "f0"}, 0.0), "f0")
