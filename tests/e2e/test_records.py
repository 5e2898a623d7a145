"""Records alone: what seals, what opens, and how each kind of meddling ends."""

from __future__ import annotations

import base64
import json
import logging

import msgspec
import pytest

from coralmux.e2e import records
from coralmux.e2e.errors import E2EError, Failure
from coralmux.e2e.noise import HandshakeState
from coralmux.e2e.records import PAD_BYTES, Records
from coralmux.protocol.limits import MAX_SAFE_INTEGER

PLAINTEXT = b'{"text":"nobody else reads this"}'


def pair() -> tuple[Records, Records]:
    initiator, responder = (
        HandshakeState(initiator=role, prologue=b"test", psk=bytes(32)) for role in (True, False)
    )
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    receiving, sending = responder.split()
    return Records("hs", *initiator.split()), Records("hs", sending, receiving)


def failure_of(receiver: Records, type: str, id: str, n: int, ciphertext: bytes) -> Failure:
    with pytest.raises(E2EError) as refused:
        receiver.open(type, id, n, ciphertext)
    return refused.value.failure


# The form


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 5_000])
def test_plaintexts_are_padded_to_a_multiple_of_128(length: int) -> None:
    sender, receiver = pair()
    text = b'"' + b"x" * length + b'"'
    ciphertext = sender.seal("chat.send", "1", text)
    assert (len(ciphertext) - 16) % PAD_BYTES == 0
    assert len(ciphertext) - 16 - len(text) < PAD_BYTES
    opened = receiver.open("chat.send", "1", 0, ciphertext)
    assert opened.rstrip(b" ") == text
    assert json.loads(opened) == "x" * length


def test_chunks_of_files_are_not_padded() -> None:
    sender, receiver = pair()
    ciphertext = sender.seal("file.chunk", "1", PLAINTEXT)
    assert len(ciphertext) == len(PLAINTEXT) + 16
    assert receiver.open("file.chunk", "1", 0, ciphertext) == PLAINTEXT


def test_a_record_travels_in_the_form_of_the_contract() -> None:
    sender, receiver = pair()
    for n in range(3):
        payload = sender.seal_payload("chat.send", "id", PLAINTEXT)
        value = json.loads(payload)
        assert list(value) == ["enc", "v", "hs", "n", "ciphertext"]
        assert (value["enc"], value["v"], value["hs"], value["n"]) == (True, 2, "hs", n)
        record = records.read(payload)
        assert record is not None
        assert record.ciphertext == base64.b64decode(value["ciphertext"], validate=True)
        opened = receiver.open("chat.send", "id", record.n, record.ciphertext)
        assert json.loads(opened) == json.loads(PLAINTEXT)


@pytest.mark.parametrize(
    "change",
    [
        {"enc": False},
        {"enc": 1},
        {"enc": None},
        {"v": 1},
        {"v": True},
        {"v": "2"},
        {"hs": 7},
        {"n": "0"},
        {"n": 0.5},
        {"n": True},
        {"ciphertext": "AAA"},
        {"ciphertext": "A-_A"},
        {"ciphertext": "AA AA"},
    ],
    ids=repr,
)
def test_what_has_another_form_is_no_record(change: dict[str, object]) -> None:
    whole = {"enc": True, "v": 2, "hs": "hs", "n": 0, "ciphertext": "AAAA"}
    assert records.read(json.dumps(whole).encode()) is not None
    assert records.read(json.dumps(whole | change).encode()) is None
    for member in change:
        assert (
            records.read(json.dumps({k: whole[k] for k in whole if k != member}).encode()) is None
        )


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"enc":' * 50_000]
)
def test_what_is_no_json_is_no_record(payload: bytes) -> None:
    assert records.read(payload) is None
    assert records.read(msgspec.Raw(payload)) is None


# Meddling


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_a_change_of_any_byte_is_seen(bit: int) -> None:
    length = len(pair()[0].seal("chat.send", "1", PLAINTEXT))
    for position in range(length):
        sender, receiver = pair()
        forged = bytearray(sender.seal("chat.send", "1", PLAINTEXT))
        forged[position] ^= bit
        assert failure_of(receiver, "chat.send", "1", 0, bytes(forged)) is Failure.TAMPERED


def test_every_truncation_and_any_addition_is_seen() -> None:
    whole = len(pair()[0].seal("chat.send", "1", PLAINTEXT))
    for length in range(whole):
        sender, receiver = pair()
        short = sender.seal("chat.send", "1", PLAINTEXT)[:length]
        assert failure_of(receiver, "chat.send", "1", 0, short) is Failure.TAMPERED
    sender, receiver = pair()
    longer = sender.seal("chat.send", "1", PLAINTEXT) + b"\0"
    assert failure_of(receiver, "chat.send", "1", 0, longer) is Failure.TAMPERED


@pytest.mark.parametrize(
    ("type", "id"),
    [("chat.done", "1"), ("chat.send", "2"), ("chat.send", ""), ("", "1"), ("chat.sen", "d\n1")],
)
def test_type_and_id_belong_to_the_record(type: str, id: str) -> None:
    sender, receiver = pair()
    ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
    assert failure_of(receiver, type, id, 0, ciphertext) is Failure.TAMPERED


def test_where_the_type_ends_cannot_be_moved() -> None:
    # Both spellings make the same associated data.
    sender, receiver = pair()
    ciphertext = sender.seal("chat.send\nx", "1", PLAINTEXT)
    assert failure_of(receiver, "chat.send", "x\n1", 0, ciphertext) is Failure.TAMPERED


def test_half_of_a_character_in_an_id_is_a_refusal_and_not_a_crash() -> None:
    sender, receiver = pair()
    ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
    assert failure_of(receiver, "chat.send", "\ud800", 0, ciphertext) is Failure.TAMPERED


def test_a_record_that_comes_again_or_late_is_a_replay() -> None:
    for expected in (1, 2):
        sender, receiver = pair()
        sealed = [sender.seal("chat.send", "1", PLAINTEXT) for _ in range(expected)]
        receiver.open("chat.send", "1", expected - 1, sealed[-1])
        assert failure_of(receiver, "chat.send", "1", 0, sealed[0]) is Failure.REPLAYED


def test_a_counter_that_is_not_the_record_s_own_is_seen() -> None:
    for n in (1, 2**32, 2**40, MAX_SAFE_INTEGER - 1):
        sender, receiver = pair()
        ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
        assert failure_of(receiver, "chat.send", "1", n, ciphertext) is Failure.TAMPERED
    sender, receiver = pair()
    ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
    assert failure_of(receiver, "chat.send", "1", -1, ciphertext) is Failure.REPLAYED


@pytest.mark.parametrize("n", [MAX_SAFE_INTEGER, 2**64, 2**200])
def test_counters_beyond_exact_integers_are_refused(n: int) -> None:
    sender, receiver = pair()
    ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
    assert failure_of(receiver, "chat.send", "1", n, ciphertext) is Failure.EXHAUSTED


def test_the_last_counter_is_sealed_and_none_behind_it() -> None:
    sender, receiver = pair()
    sender.sending.set_nonce(MAX_SAFE_INTEGER - 1)
    last = sender.seal("chat.send", "1", PLAINTEXT)
    assert receiver.open("chat.send", "1", MAX_SAFE_INTEGER - 1, last).startswith(PLAINTEXT)
    with pytest.raises(E2EError) as refused:
        sender.seal("chat.send", "2", PLAINTEXT)
    assert refused.value.failure is Failure.EXHAUSTED
    assert failure_of(receiver, "chat.send", "2", MAX_SAFE_INTEGER, last) is Failure.EXHAUSTED


def test_a_record_sent_back_to_its_sender_does_not_open() -> None:
    sender, _ = pair()
    ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
    assert failure_of(sender, "chat.send", "1", 0, ciphertext) is Failure.TAMPERED


def test_a_record_of_another_session_does_not_open() -> None:
    sender, _ = pair()
    _, receiver = pair()
    ciphertext = sender.seal("chat.send", "1", PLAINTEXT)
    assert failure_of(receiver, "chat.send", "1", 0, ciphertext) is Failure.TAMPERED


# What was lost


def sent(*ids: str) -> Records:
    sender, _ = pair()
    for id in ids:
        sender.seal("chat.send", id, PLAINTEXT)
    return sender


def test_a_receiver_goes_on_behind_missing_records() -> None:
    sender, receiver = pair()
    sealed = [sender.seal("chat.send", str(n), PLAINTEXT) for n in range(5)]
    for n in (0, 3, 4):
        assert receiver.open("chat.send", str(n), n, sealed[n]).startswith(PLAINTEXT)


def test_missing_records_are_named_by_their_ids() -> None:
    sender = sent("a", "b", "c", "d")
    assert sender.lost(1, 2) == ("b", "c")
    assert sender.lost(0, 0) == ("a",)
    assert sender.lost(3, MAX_SAFE_INTEGER) == ("d",)
    assert sender.lost(0, 3) == ("a", "b", "c", "d")


def test_records_that_were_never_sealed_are_not_lost() -> None:
    sender = sent("a", "b")
    assert sender.lost(2, 5) == ()
    assert sender.lost(MAX_SAFE_INTEGER - 2, MAX_SAFE_INTEGER - 1) == ()
    assert sender.lost(1, 0) == ()


def test_what_was_refused_is_no_news_and_its_second_try_is() -> None:
    sender = sent("a", "b", "c")
    sender.refused("b")
    sender.refused("nothing of ours")
    assert sender.lost(0, 2) == ("a", "c")
    sender.seal("chat.send", "b", PLAINTEXT)
    assert sender.lost(0, 3) == ("a", "c", "b")
    sender.refused("b")
    sender.refused("b")
    assert sender.lost(0, 3) == ("a", "c")


def test_records_of_long_ago_are_forgotten_and_the_rest_keep_their_names() -> None:
    ids = [str(n) for n in range(records._REMEMBERED + 10)]
    sender = sent(*ids)
    assert sender.lost(0, 10) == ("10",)
    assert sender.lost(0, 3) == ()
    assert sender.lost(0, MAX_SAFE_INTEGER) == tuple(ids[10:])
    sender.refused("5")
    sender.refused("10")
    assert sender.lost(9, 11) == ("11",)


# Secrecy


def test_no_text_about_records_tells_their_contents(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sender, receiver = pair()
    payload = sender.seal_payload("chat.send", "1", PLAINTEXT)
    record = records.read(payload)
    assert record is not None
    with pytest.raises(E2EError) as refused:
        receiver.open("chat.done", "1", 0, record.ciphertext)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    shown = [f(x) for f in (str, repr) for x in (sender, receiver, record, refused.value)]
    ciphertext = json.loads(payload)["ciphertext"]
    for text in [*shown, caplog.text]:
        assert "nobody else" not in text
        assert ciphertext[:12] not in text
        assert repr(record.ciphertext[:6])[2:-1] not in text
    assert repr(sender) == "Records(hs='hs', sent=1, received=0)"
    assert repr(record) == f"Record(hs='hs', n=0, {len(record.ciphertext)} bytes)"
