"""The cryptography of version 1 beside a second reading of the text."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coralmux.e2e.errors import E2EError, Failure
from coralmux.e2e.legacy import derive_key, open_payload, seal_payload
from tests.e2e.legacy_peer import public_of, second_key, second_open, second_seal
from tests.e2e.test_noise import LOW_ORDER

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "legacy.json").read_text()
)["vectors"]

KEYS = st.binary(min_size=32, max_size=32)


@given(ours=KEYS, theirs=KEYS, plaintext=st.binary(max_size=300), nonce=st.binary(min_size=12))
def test_both_readings_of_the_text_agree(
    ours: bytes, theirs: bytes, plaintext: bytes, nonce: bytes
) -> None:
    key = derive_key(X25519PrivateKey.from_private_bytes(ours), public_of(theirs))
    assert key == second_key(theirs, public_of(ours))
    assert second_open(key, json.loads(seal_payload(key, plaintext))) == plaintext
    assert open_payload([key], second_seal(key, plaintext, nonce[:12])) == plaintext


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vectors_are_what_both_readings_say(case: dict[str, Any]) -> None:
    phone, agent = bytes.fromhex(case["phone_private"]), bytes.fromhex(case["agent_private"])
    key = bytes.fromhex(case["key"])
    plaintext = case["plaintext"].encode()
    assert public_of(phone).hex() == case["phone_public"]
    assert public_of(agent).hex() == case["agent_public"]
    for private, public in ((phone, public_of(agent)), (agent, public_of(phone))):
        assert derive_key(X25519PrivateKey.from_private_bytes(private), public) == key
        assert second_key(private, public) == key
    nonce = base64.b64decode(case["payload"]["nonce"])
    assert second_seal(key, plaintext, nonce) == case["payload"]
    assert open_payload([key], case["payload"]) == plaintext


def test_each_nonce_is_new() -> None:
    nonces = {json.loads(seal_payload(bytes(32), b"{}"))["nonce"] for _ in range(50)}
    assert len(nonces) == 50


def test_a_sealed_payload_has_three_members_and_base64_with_padding() -> None:
    payload = json.loads(seal_payload(bytes(32), b"{}"))
    assert list(payload) == ["enc", "ciphertext", "nonce"]
    assert len(base64.b64decode(payload["ciphertext"], validate=True)) == 2 + 16
    assert len(payload["ciphertext"]) % 4 == 0


@pytest.mark.parametrize("point", [*LOW_ORDER, b"", bytes(31), bytes(33)])
def test_a_public_key_that_makes_no_secret_is_refused(point: bytes) -> None:
    with pytest.raises(E2EError) as refused:
        derive_key(X25519PrivateKey.generate(), point)
    assert refused.value.failure is Failure.TAMPERED
    assert refused.value.__suppress_context__


def test_any_changed_byte_and_any_malformed_member_is_refused() -> None:
    key = bytes(range(32))
    payload = second_seal(key, b'{"text":"hi"}', bytes(12))
    broken: list[dict[str, Any]] = []
    for name in ("ciphertext", "nonce"):
        raw = base64.b64decode(payload[name])
        for position in range(len(raw)):
            changed = bytearray(raw)
            changed[position] ^= 1
            broken.append(payload | {name: base64.b64encode(changed).decode()})
        for value in ("", "!", "AAA", "é", "AAAA", base64.b64encode(raw[:-1]).decode(), None, 7):
            broken.append(payload | {name: value})
        broken.append({k: v for k, v in payload.items() if k != name})
    for forged in broken:
        with pytest.raises(E2EError) as refused:
            open_payload([key], forged)
        assert refused.value.failure is Failure.TAMPERED
    for keys in ([], [bytes(32)]):
        with pytest.raises(E2EError):
            open_payload(keys, payload)


def test_base64_broken_into_lines_is_read() -> None:
    key = bytes(32)
    payload = second_seal(key, bytes(200), bytes(12))
    text = payload["ciphertext"]
    lines = "\r\n".join(text[n : n + 76] for n in range(0, len(text), 76)) + "\n"
    assert open_payload([key], payload | {"ciphertext": lines}) == bytes(200)
