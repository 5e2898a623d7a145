"""The receiver of files alone: what it refuses, what it keeps, and for how long."""

from __future__ import annotations

import re
from typing import Any

import pytest

from coralmux.client.files import FileError, Inbox
from coralmux.protocol.limits import FILE_CHUNK_BYTES
from tests.client.file_pair import PNG, TWO, begin_of, chunk_of, gone, refusal

# Refusals


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


# What is kept


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


def test_a_finished_file_waits_to_be_claimed_from_its_end_on() -> None:
    inbox = Inbox(idle_seconds=600)
    inbox.receive("file.begin", begin_of(b""), 0.0)
    inbox.receive("file.end", {"file_id": "f1"}, 500.0)
    assert inbox.deadline == 1_100.0


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
