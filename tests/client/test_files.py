"""Sender and receiver of files back to back, across lost sessions, and against hostile peers."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralmux.client.attachments import Attachment
from coralmux.client.file_messages import Begin, Chunk
from coralmux.client.files import ACK_SECONDS, RETRIES, FileError, Inbox, Outgoing
from coralmux.protocol.limits import FILE_CHUNK_BYTES, FILE_WINDOW, MAX_FILE_BYTES
from tests.client.file_pair import TWO, Pair, begin_of, chunk_of, file_of, gone

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
@pytest.mark.slow
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
@pytest.mark.slow
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


# Secrecy


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
