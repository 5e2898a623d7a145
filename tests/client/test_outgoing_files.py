"""The sender of a file alone: when it sends, asks again, gives up, and whom it believes."""

from __future__ import annotations

from typing import Any

import pytest

from coralmux.client.files import ACK_SECONDS, RETRIES, Outgoing, OutgoingState
from coralmux.protocol.limits import FILE_CHUNK_BYTES
from tests.client.file_pair import file_of


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


def test_a_transfer_that_never_began_is_cancelled_without_a_word() -> None:
    outgoing = Outgoing(file_of(1))
    assert outgoing.cancel() == []
    assert outgoing.failed
    assert outgoing.start(0.0) == []


# What it is told


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


def test_an_acknowledgement_beyond_the_file_is_not_believed() -> None:
    progress: list[tuple[int, int]] = []
    outgoing = Outgoing(file_of(10), "f1", on_progress=lambda *p: progress.append(p))
    outgoing.start(0.0)
    assert outgoing.receive("file.ack", {"file_id": "f1", "index": 1}, 0.0) == []
    assert progress == []
    assert outgoing.state is OutgoingState.BEGINNING
