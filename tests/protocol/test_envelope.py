"""The envelope: what is a message, what is not, and what an error may say about it."""

from __future__ import annotations

import contextlib
import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralmux.protocol import envelope
from coralmux.protocol.errors import ErrorCode, InvalidMessage, NotUtf8, error_payload

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)


@given(type=st.text(min_size=1, max_size=20), id=st.text(max_size=40), payload=OBJECTS)
def test_what_encode_writes_decode_reads(type: str, id: str, payload: dict[str, object]) -> None:
    message = envelope.decode(envelope.encode(type, payload, ts=1, id=id))
    assert (message.v, message.type, message.id, message.ts) == (1, type, id, 1)
    assert msgspec.json.decode(message.payload) == payload


def test_only_the_type_is_required() -> None:
    message = envelope.decode(b'{"type":"ping"}')
    assert (message.type, message.id, bytes(message.payload), message.ts) == ("ping", "", b"{}", 0)


def test_unknown_keys_are_ignored_and_the_payload_stays_as_it_was_written() -> None:
    message = envelope.decode(b'{"type":"a","extra":[1],"payload": { "x" :1.50 } }')
    assert bytes(message.payload).strip() == b'{ "x" :1.50 }'


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"type":1}',
        '{"type":null}',
        '{"type":"a","v":"1"}',
        '{"type":"a","v":1.5}',
        '{"type":"a","v":true}',
        '{"type":"a","id":7}',
        '{"type":"a","id":null}',
        '{"type":"a","ts":"0"}',
        '{"type":"a","ts":9007199254740993}',
        '{"type":"a","ts":-9007199254740993}',
        '{"type":"a","ts":1.5}',
        '{"type":"a","payload":[]}',
        '{"type":"a","payload":null}',
        '{"type":"a","payload":"{}"}',
        '{"type":"a"',
        '{"type":"a"} {}',
        "{'type':'a'}",
        '{"type":"a","payload":{"n":01}}',
        '{"type":"a","payload":{"n":NaN}}',
        '{"type":"a","payload":{"s":"\t"}}',
        '\ufeff{"type":"a"}',
        '{"type":"a","payload":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
        '{"type":"a","x":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_broken_messages_are_invalid_as_text_and_as_bytes(broken: str) -> None:
    with pytest.raises(InvalidMessage):
        envelope.decode(broken)
    with pytest.raises(InvalidMessage):
        envelope.decode(broken.encode())


@pytest.mark.parametrize("ts", [2**53, -(2**53), 0])
def test_ts_reaches_to_where_javascript_is_exact(ts: int) -> None:
    assert envelope.decode(f'{{"type":"a","ts":{ts}}}').ts == ts


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"\xff"}',
        b'{"type":"a","payload":{"x":"\xc3"}}',
        b'{"type":"a","payload":{"x":"\xed\xa0\x80"}}',
        b'{"type":"a","payload":{"x":"\xc0\xaf"}}',
        b"\x80" * 1000,
    ],
)
def test_bytes_that_are_not_utf8_are_told_apart_from_bad_json(frame: bytes) -> None:
    with pytest.raises(NotUtf8):
        envelope.decode(frame)


def test_half_an_emoji_as_a_lone_escape_is_taken() -> None:
    frame = (
        rb'{"type":"chat.stream","id":"a","payload":{"delta":"\ud83d","x":"\ud83d\ude00 \\ud800"}}'
    )
    message = envelope.decode(frame)
    assert msgspec.json.decode(message.payload) == {"delta": "\ufffd", "x": "\U0001f600 \\ud800"}


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_input_raises_anything_but_the_declared_errors(data: bytes | str) -> None:
    with contextlib.suppress(InvalidMessage, NotUtf8):
        envelope.decode(data)


@given(OBJECTS, st.integers(0, 300), st.binary(max_size=3))
def test_no_damage_to_a_message_raises_anything_else(
    payload: dict[str, object], at: int, damage: bytes
) -> None:
    frame = envelope.encode("chat.send", payload, ts=1)
    damaged = frame[:at] + damage + frame[at + len(damage) :]
    try:
        message = envelope.decode(damaged)
    except (InvalidMessage, NotUtf8):
        return
    assert isinstance(message.type, str)


@given(st.text(min_size=1, max_size=40), OBJECTS)
def test_errors_repeat_nothing_of_a_message(secret: str, payload: dict[str, object]) -> None:
    marked = f"S3CRET{secret}"
    frame = json.dumps({"type": "a", "id": 5, "payload": {**payload, "k": marked}})
    with pytest.raises(InvalidMessage) as caught:
        envelope.decode(frame)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ('{"v":1,"type":"chat.send","id":"abc","ts":5,"payload":{"te', "abc"),
        ('{"id":"a\\"b\\u00e9","payload":{', 'a"bé'),
        ('  {\n "id" : "spaced" ,', "spaced"),
        ('{"type":"x","payload":{"id":"inner"},"id":"late"}', ""),
        ('{"id":5,"type":"x"}', ""),
        ('{"id":"cut off', ""),
        ("[1,2]", ""),
        ("", ""),
        ('{"id":"\\ud800","type":1}', ""),
    ],
)
def test_the_id_of_a_broken_or_cut_off_message_is_found_where_it_can_be(
    head: str, found: str
) -> None:
    assert envelope.peek_id(head) == found
    assert envelope.peek_id(head.encode()) == found


@given(st.binary(max_size=300))
def test_looking_for_an_id_never_fails(head: bytes) -> None:
    assert isinstance(envelope.peek_id(head), str)


def test_looking_for_an_id_in_hostile_input_takes_no_time() -> None:
    for head in (b'{"' + b"\\" * 2000, b'{"a":"' + b'\\"' * 1000, b'{"a":' + b"1" * 2000):
        assert envelope.peek_id(head) == ""


def test_ref_is_left_out_when_absent_or_over_128_bytes() -> None:
    assert "ref" not in error_payload(ErrorCode.PEER_OFFLINE, "x")
    assert error_payload(ErrorCode.PEER_OFFLINE, "x", ref="é" * 64)["ref"] == "é" * 64
    assert "ref" not in error_payload(ErrorCode.PEER_OFFLINE, "x", ref="é" * 64 + "x")


def test_mending_never_takes_long() -> None:
    escapes = rb"\n" * 2_600_000
    for inside, end in ((escapes, b"} x"), (escapes + rb"\ud83d", b"}"), (rb"\ud83d" * 2700, b"}")):
        frame = b'{"type":"a","payload":{"x":"' + inside + b'"}' + end
        begun = time.process_time()
        with contextlib.suppress(InvalidMessage):
            envelope.decode(frame)
        assert time.process_time() - begun < 0.2


def test_a_payload_is_read_as_an_object() -> None:
    assert envelope.decode_object(b'{"a": [1, "\xc3\xa9"]}   ') == {"a": [1, "é"]}
    assert envelope.decode_object(rb'{"delta": "\ud83d"}') == {"delta": "�"}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b'{"a":', b"{} x", b'{"a": "\xff"}', b"[" * 100_000, b'{"a":"\n"}']
)
def test_a_payload_that_is_no_object_is_refused_without_repeating_it(data: bytes) -> None:
    with pytest.raises(InvalidMessage) as refused:
        envelope.decode_object(data)
    assert str(refused.value).startswith("The payload is not")
