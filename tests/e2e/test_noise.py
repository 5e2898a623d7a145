"""Noise: what an independent implementation says, pinned vectors, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from coralmux.e2e.errors import E2EError, Failure
from coralmux.e2e.noise import CipherState, HandshakeState, SymmetricState
from coralmux.protocol.limits import MAX_SAFE_INTEGER

NAME = b"Noise_NNpsk0_25519_AESGCM_SHA256"
VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "noise.json").read_text()
)["vectors"]

# noiseprotocol warns whoever fixes a key.
pytestmark = pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")

PSK = bytes(range(32))
KEYS = st.binary(min_size=32, max_size=32)
PAYLOADS = st.binary(max_size=300) | st.integers(0, 65_487).map(bytes)


class Reference:
    """One end as the package noiseprotocol has it, with our names."""

    def __init__(
        self, *, initiator: bool, prologue: bytes, psk: bytes, ephemeral: bytes | None = None
    ) -> None:
        self._noise = NoiseConnection.from_name(NAME)
        if initiator:
            self._noise.set_as_initiator()
        else:
            self._noise.set_as_responder()
        self._noise.set_prologue(prologue)
        self._noise.set_psks(psk)
        if ephemeral is not None:
            self._noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        self._noise.start_handshake()
        self._initiator = initiator

    def write_message(self, payload: bytes = b"") -> bytes:
        return bytes(self._noise.write_message(payload))

    def read_message(self, message: bytes) -> bytes:
        return bytes(self._noise.read_message(message))

    @property
    def handshake_hash(self) -> bytes:
        return bytes(self._noise.get_handshake_hash())

    def split(self) -> tuple[Any, Any]:
        protocol = self._noise.noise_protocol
        ours, theirs = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        return (ours, theirs) if self._initiator else (theirs, ours)


End = HandshakeState | Reference


def shake(initiator: End, responder: End, first: bytes = b"", second: bytes = b"") -> None:
    assert responder.read_message(initiator.write_message(first)) == first
    assert initiator.read_message(responder.write_message(second)) == second
    assert initiator.handshake_hash == responder.handshake_hash


def pair(
    *, prologue: bytes = b"prologue", psk: bytes = PSK
) -> tuple[HandshakeState, HandshakeState]:
    return (
        HandshakeState(initiator=True, prologue=prologue, psk=psk),
        HandshakeState(initiator=False, prologue=prologue, psk=psk),
    )


# An independent implementation


@pytest.mark.parametrize(
    ("initiator_class", "responder_class"),
    [(HandshakeState, Reference), (Reference, HandshakeState), (HandshakeState, HandshakeState)],
)
@settings(max_examples=60, deadline=None)
@given(
    prologue=st.binary(max_size=100),
    psk=KEYS,
    ephemerals=st.none() | st.tuples(KEYS, KEYS),
    payloads=st.tuples(PAYLOADS, PAYLOADS),
    records=st.lists(st.tuples(st.booleans(), st.binary(max_size=40), st.binary(max_size=300))),
)
def test_both_roles_agree_with_noiseprotocol(
    initiator_class: type[End],
    responder_class: type[End],
    prologue: bytes,
    psk: bytes,
    ephemerals: tuple[bytes, bytes] | None,
    payloads: tuple[bytes, bytes],
    records: list[tuple[bool, bytes, bytes]],
) -> None:
    first, second = ephemerals or (None, None)
    initiator = initiator_class(initiator=True, prologue=prologue, psk=psk, ephemeral=first)
    responder = responder_class(initiator=False, prologue=prologue, psk=psk, ephemeral=second)
    shake(initiator, responder, *payloads)
    there, back = initiator.split(), responder.split()
    for from_initiator, ad, plaintext in records:
        way = 0 if from_initiator else 1
        sender, receiver = (there, back) if from_initiator else (back, there)
        ciphertext = sender[way].encrypt_with_ad(ad, plaintext)
        assert receiver[way].decrypt_with_ad(ad, ciphertext) == plaintext


# Pinned vectors


def recompute(case: dict[str, Any], end: type[End]) -> dict[str, Any]:
    """The case's outputs, worked out from its inputs by one implementation."""
    hs = base64.urlsafe_b64decode(case["hs"] + "==")
    prologue = b"CoralMux/2" + hashlib.sha256(case["token"].encode()).digest() + hs
    common = {"prologue": prologue, "psk": bytes.fromhex(case["psk"])}
    ends: list[End] = [
        end(initiator=role == "initiator", ephemeral=bytes.fromhex(case[f"{role}_e"]), **common)
        for role in ("initiator", "responder")
    ]
    messages = []
    for writer, reader, message in zip(ends, reversed(ends), case["messages"], strict=True):
        payload = bytes.fromhex(message["payload"])
        written = writer.write_message(payload)
        assert reader.read_message(written) == payload
        messages.append({"payload": message["payload"], "message": written.hex()})
    ciphers = dict(
        zip(("initiator_to_responder", "responder_to_initiator"), ends[0].split(), strict=True)
    )
    transport = []
    for record in case["transport"]:
        ciphertext = ciphers[record["direction"]].encrypt_with_ad(
            record["ad"].encode(), record["plaintext"].encode()
        )
        transport.append(record | {"ciphertext": ciphertext.hex()})
    return case | {
        "prologue": prologue.hex(),
        "messages": messages,
        "handshake_hash": ends[0].handshake_hash.hex(),
        "transport": transport,
    }


@pytest.mark.parametrize("end", [HandshakeState, Reference])
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vectors_are_what_both_implementations_say(case: dict[str, Any], end: type[End]) -> None:
    assert recompute(case, end) == case


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vectors_number_the_records_of_each_direction(case: dict[str, Any]) -> None:
    assert len(bytes.fromhex(case["prologue"])) == 10 + 32 + 16
    for direction in ("initiator_to_responder", "responder_to_initiator"):
        counters = [r["n"] for r in case["transport"] if r["direction"] == direction]
        assert counters == list(range(len(counters)))
        assert counters


# What is refused


@pytest.mark.parametrize("number", [1, 2])
def test_each_changed_byte_is_refused_and_the_honest_message_still_read(number: int) -> None:
    initiator, responder = pair()
    message = initiator.write_message(b"one")
    reader = responder
    if number == 2:
        responder.read_message(message)
        message, reader = responder.write_message(b"two"), initiator
    hash_before = reader.handshake_hash
    for position in range(len(message)):
        for bit in (0x01, 0x80):
            forged = bytearray(message)
            forged[position] ^= bit
            with pytest.raises(E2EError) as refused:
                reader.read_message(forged)
            assert refused.value.failure is Failure.TAMPERED
            assert reader.handshake_hash == hash_before
            assert not reader.finished
    assert reader.read_message(message) == (b"one" if number == 1 else b"two")
    if number == 1:
        assert initiator.read_message(responder.write_message()) == b""
    sent = initiator.split()[0].encrypt_with_ad(b"ad", b"hello")
    assert responder.split()[0].decrypt_with_ad(b"ad", sent) == b"hello"


@pytest.mark.parametrize(
    "change",
    [{"psk": bytes(32)}, {"prologue": b"prologuf"}, {"prologue": b""}],
    ids=["secret", "prologue", "no prologue"],
)
def test_another_secret_or_prologue_is_refused(change: dict[str, bytes]) -> None:
    initiator, responder = pair()[0], pair(**change)[1]
    with pytest.raises(E2EError) as refused:
        responder.read_message(initiator.write_message())
    assert refused.value.failure is Failure.TAMPERED


def test_only_the_holder_of_the_secret_can_answer() -> None:
    initiator, responder = pair()
    stranger = pair(psk=bytes(32))[1]
    message = initiator.write_message()
    responder.read_message(message)
    # The stranger knows the public key in front, and answers a handshake of its own.
    stranger.read_message(pair(psk=bytes(32))[0].write_message())
    with pytest.raises(E2EError):
        initiator.read_message(stranger.write_message())
    initiator.read_message(responder.write_message())
    assert initiator.handshake_hash == responder.handshake_hash


@pytest.mark.parametrize("length", [0, 1, 31, 32, 47])
def test_a_truncated_message_is_refused(length: int) -> None:
    initiator, responder = pair()
    message = initiator.write_message()
    assert len(message) == 48
    for short in (message[:length], message[:-1]):
        with pytest.raises(E2EError) as refused:
            responder.read_message(short)
        assert refused.value.failure is Failure.TAMPERED
    responder.read_message(message)


def first_message(public: bytes, payload: bytes) -> bytes:
    """What an initiator with the secret would write that keeps to no rule."""
    state = SymmetricState()
    state.mix_hash(b"prologue")
    state.mix_key_and_hash(PSK)
    state.mix_hash(public)
    state.mix_key(public)
    return public + state.encrypt_and_hash(payload)


def test_messages_end_at_65535_bytes() -> None:
    initiator, responder = pair()
    with pytest.raises(ValueError, match="65487"):
        initiator.write_message(bytes(65_488))
    message = initiator.write_message(bytes(65_487))
    assert len(message) == 65_535
    too_long = first_message(bytes(range(32)), bytes(65_488))
    with pytest.raises(E2EError):
        responder.read_message(too_long)
    assert pair()[1].read_message(first_message(bytes(range(32)), b"x")) == b"x"
    assert responder.read_message(message) == bytes(65_487)


# RFC 7748, section 6.1: the points that make an all-zero secret with every key.
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_a_public_key_that_makes_no_secret_is_refused_from_either_end(point: bytes) -> None:
    # From the initiator: its message is right, so the answer is what cannot be written.
    responder = pair()[1]
    responder.read_message(first_message(point, b""))
    with pytest.raises(E2EError) as refused:
        responder.write_message()
    assert refused.value.failure is Failure.TAMPERED
    # From the responder.
    initiator, honest = pair()
    honest.read_message(initiator.write_message())
    with pytest.raises(E2EError) as refused:
        initiator.read_message(point + bytes(16))
    assert refused.value.failure is Failure.TAMPERED
    initiator.read_message(honest.write_message())
    assert initiator.finished


def test_each_end_keeps_its_turn() -> None:
    initiator, responder = pair()
    with pytest.raises(RuntimeError):
        responder.write_message()
    with pytest.raises(RuntimeError):
        initiator.read_message(bytes(48))
    message = initiator.write_message()
    with pytest.raises(RuntimeError):
        initiator.write_message()
    for end in (initiator, responder):
        with pytest.raises(RuntimeError):
            end.split()
    responder.read_message(message)
    with pytest.raises(RuntimeError):
        responder.read_message(message)
    initiator.read_message(responder.write_message())
    for end in (initiator, responder):
        with pytest.raises(RuntimeError):
            end.write_message()
        with pytest.raises(RuntimeError):
            end.read_message(bytes(48))


def test_split_gives_the_same_ciphers_each_time() -> None:
    initiator, responder = pair()
    shake(initiator, responder)
    assert initiator.split() is initiator.split()
    first, second = initiator.split()
    assert first.encrypt_with_ad(b"", b"x") != second.encrypt_with_ad(b"", b"x")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_a_mistake(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        HandshakeState(initiator=True, prologue=b"", psk=bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        CipherState().initialize_key(bytes(length))


def test_no_two_handshakes_share_keys() -> None:
    ciphertexts = set()
    for _ in range(3):
        initiator, responder = pair()
        shake(initiator, responder)
        ciphertexts |= {cipher.encrypt_with_ad(b"", b"same") for cipher in initiator.split()}
    assert len(ciphertexts) == 6


# CipherState


def keyed() -> CipherState:
    cipher = CipherState()
    cipher.initialize_key(PSK)
    return cipher


def test_without_a_key_data_passes_as_it_is() -> None:
    cipher = CipherState()
    assert not cipher.has_key()
    assert cipher.encrypt_with_ad(b"ad", b"plain") == b"plain"
    assert cipher.decrypt_with_ad(b"ad", b"plain") == b"plain"
    assert cipher.n == 0


def test_the_counter_moves_with_what_is_encrypted_and_with_what_opens() -> None:
    sender, receiver = keyed(), keyed()
    first, second = (sender.encrypt_with_ad(b"ad", b"x") for _ in range(2))
    assert sender.n == 2
    assert first != second
    for wrong in (second, first[:-1], b"", bytes(17)):
        with pytest.raises(E2EError) as refused:
            receiver.decrypt_with_ad(b"ad", wrong)
        assert refused.value.failure is Failure.TAMPERED
        assert receiver.n == 0
    with pytest.raises(E2EError):
        receiver.decrypt_with_ad(b"other", first)
    assert receiver.decrypt_with_ad(b"ad", first) == b"x"
    assert receiver.decrypt_with_ad(b"ad", second) == b"x"
    assert receiver.n == 2


def test_a_receiver_can_go_on_behind_a_gap() -> None:
    sender, receiver = keyed(), keyed()
    for _ in range(5):
        last = sender.encrypt_with_ad(b"", b"x")
    receiver.set_nonce(4)
    assert receiver.decrypt_with_ad(b"", last) == b"x"
    assert receiver.n == 5
    with pytest.raises(ValueError, match="negative"):
        receiver.set_nonce(-1)


def test_the_counter_ends_where_wire_integers_do() -> None:
    sender, receiver = keyed(), keyed()
    for cipher in (sender, receiver):
        cipher.set_nonce(MAX_SAFE_INTEGER - 1)
    assert receiver.decrypt_with_ad(b"", sender.encrypt_with_ad(b"", b"last")) == b"last"
    for refuse in (sender.encrypt_with_ad, receiver.decrypt_with_ad):
        with pytest.raises(E2EError) as refused:
            refuse(b"", bytes(20))
        assert refused.value.failure is Failure.EXHAUSTED
    assert sender.n == receiver.n == MAX_SAFE_INTEGER
    receiver.set_nonce(2**64 - 1)
    with pytest.raises(E2EError):
        receiver.decrypt_with_ad(b"", bytes(20))


def test_buffers_of_every_kind_are_taken() -> None:
    sender, receiver = keyed(), keyed()
    sealed = sender.encrypt_with_ad(memoryview(b"ad"), bytearray(b"text"))
    assert receiver.decrypt_with_ad(bytearray(b"ad"), memoryview(sealed)) == b"text"


# Secrecy


def test_no_repr_and_no_error_holds_a_key() -> None:
    secret = bytes.fromhex("5e" * 32)
    initiator, responder = (
        HandshakeState(initiator=role, prologue=b"", psk=secret, ephemeral=secret)
        for role in (True, False)
    )
    symmetric = SymmetricState()
    symmetric.mix_key_and_hash(secret)
    cipher = CipherState()
    cipher.initialize_key(secret)
    shown = [repr(x) for x in (initiator, responder, symmetric, cipher)]
    message = initiator.write_message(secret)
    with pytest.raises(E2EError) as refused:
        responder.read_message(message[:-1] + b"\0")
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    responder.read_message(message)
    initiator.read_message(responder.write_message(secret))
    shown += [repr(initiator), repr(initiator.split()), str(refused.value), repr(refused.value)]
    for text in shown:
        assert "^" * 4 not in text  # 0x5e is this character
        assert "5e5e" not in text
    assert shown[0] == "<HandshakeState initiator, 0 of 2 messages done>"
    assert shown[3] == "<CipherState keyed, n=0>"


def test_a_finished_handshake_has_forgotten_what_made_its_keys() -> None:
    initiator, responder = pair()
    shake(initiator, responder)
    kept = [getattr(initiator, name) for name in HandshakeState.__slots__ if name != "_ciphers"]
    assert PSK not in kept
    assert not any(type(thing).__name__.startswith("X25519") for thing in kept)
    assert not initiator._symmetric._cipher.has_key()
    assert initiator._symmetric._ck == b""
