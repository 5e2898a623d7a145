"""Noise_NNpsk0_25519_AESGCM_SHA256, laid out like its specification.

Source: The Noise Protocol Framework, revision 34; the section numbers below are its own.
The pattern NN with a pre-shared key in front (sections 7.4 and 9) has two messages:

    -> psk, e
    <- e, ee

Whoever lacks the key can neither begin nor answer; the ephemeral keys give every
session fresh keys, which nobody can compute again once both ends have forgotten them.

What we do on top of the specification: the counter stops where wire integers end, and
a message that is refused changes nothing, so that a forgery does not spoil the
handshake for the honest message behind it.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coralmux.e2e.errors import E2EError, Failure
from coralmux.protocol.limits import MAX_SAFE_INTEGER

__all__ = ["CipherState", "HandshakeState", "SymmetricState"]

PROTOCOL_NAME = b"Noise_NNpsk0_25519_AESGCM_SHA256"

# Bytes of a key, a hash, a public key and a Diffie-Hellman result alike.
KEY_BYTES = 32
TAG_BYTES = 16

# Bytes of a handshake message (section 3). Transport messages are left to the layer
# above: a record of ours may be as large as the relay takes, far below what GCM bears.
MAX_MESSAGE_BYTES = 65_535
_OVERHEAD_BYTES = KEY_BYTES + TAG_BYTES

Buffer = bytes | bytearray | memoryview


class CipherState:
    """A key and its counter (section 5.1). Without a key, data passes as it is."""

    __slots__ = ("_aead", "_n")

    def __init__(self) -> None:
        self._aead: AESGCM | None = None
        self._n = 0

    def __repr__(self) -> str:
        return f"<CipherState {'keyed' if self._aead else 'empty'}, n={self._n}>"

    @property
    def n(self) -> int:
        """The counter of the next message."""
        return self._n

    def initialize_key(self, key: bytes) -> None:
        """Take a key of 32 bytes, and count from 0."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._aead = AESGCM(key)
        self._n = 0

    def has_key(self) -> bool:
        return self._aead is not None

    def set_nonce(self, n: int) -> None:
        """Go on from counter `n`. Only for receiving: a sender that goes back breaks its key."""
        if n < 0:
            raise ValueError("a counter is not negative")
        self._n = n

    def encrypt_with_ad(self, ad: Buffer, plaintext: Buffer) -> bytes:
        """The ciphertext, 16 bytes of tag at its end. Raises E2EError(EXHAUSTED)."""
        n = self._n
        if n >= MAX_SAFE_INTEGER:
            raise E2EError(Failure.EXHAUSTED)
        if self._aead is None:
            return bytes(plaintext)
        # Section 12.4's nonce, four zero bytes and the counter in eight, big-endian,
        # is the counter in twelve.
        ciphertext = self._aead.encrypt(n.to_bytes(12, "big"), plaintext, ad)
        self._n = n + 1
        return ciphertext

    def decrypt_with_ad(self, ad: Buffer, ciphertext: Buffer) -> bytes:
        """The plaintext. Raises E2EError(TAMPERED or EXHAUSTED), and then has not counted."""
        n = self._n
        if n >= MAX_SAFE_INTEGER:
            raise E2EError(Failure.EXHAUSTED)
        if self._aead is None:
            return bytes(ciphertext)
        try:
            plaintext = self._aead.decrypt(n.to_bytes(12, "big"), ciphertext, ad)
        except InvalidTag:
            raise E2EError(Failure.TAMPERED) from None
        self._n = n + 1
        return plaintext

    def copy(self) -> CipherState:
        """The same key and counter. Only one of the two may go on encrypting."""
        other = CipherState()
        other._aead = self._aead
        other._n = self._n
        return other


class SymmetricState:
    """The chaining key, the hash over everything so far, and a cipher (section 5.2)."""

    __slots__ = ("_cipher", "_ck", "_h")

    def __init__(self, protocol_name: bytes = PROTOCOL_NAME) -> None:
        if len(protocol_name) <= KEY_BYTES:
            self._h = protocol_name.ljust(KEY_BYTES, b"\0")
        else:
            self._h = hashlib.sha256(protocol_name).digest()
        self._ck = self._h
        self._cipher = CipherState()

    def __repr__(self) -> str:
        return f"<SymmetricState {self._cipher!r}>"

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that both ends share, and that bind to this one handshake (section 11.2)."""
        return self._h

    def mix_key(self, material: bytes) -> None:
        self._ck, key = _hkdf(self._ck, material, 2)
        self._cipher.initialize_key(key)

    def mix_hash(self, data: bytes) -> None:
        self._h = hashlib.sha256(self._h + data).digest()

    def mix_key_and_hash(self, material: bytes) -> None:
        self._ck, hashed, key = _hkdf(self._ck, material, 3)
        self.mix_hash(hashed)
        self._cipher.initialize_key(key)

    def encrypt_and_hash(self, plaintext: Buffer) -> bytes:
        ciphertext = self._cipher.encrypt_with_ad(self._h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Raises E2EError(TAMPERED)."""
        plaintext = self._cipher.decrypt_with_ad(self._h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers of the session: initiator to responder, responder to initiator."""
        first, second = CipherState(), CipherState()
        key_1, key_2 = _hkdf(self._ck, b"", 2)
        first.initialize_key(key_1)
        second.initialize_key(key_2)
        return first, second

    def copy(self) -> SymmetricState:
        other = SymmetricState.__new__(SymmetricState)
        other._ck = self._ck
        other._h = self._h
        other._cipher = self._cipher.copy()
        return other


class HandshakeState:
    """One side of the handshake (section 5.3): each end writes once and reads once.

    `psk` is the secret of 32 bytes that both ends hold. `prologue` is what both must
    know alike besides. `ephemeral` is a fixed private key, 32 bytes, for test vectors;
    all else must leave it out.

    A message that is refused leaves the state as it was. To write or read out of turn
    is a mistake of the caller and raises RuntimeError.
    """

    __slots__ = ("_ciphers", "_done", "_e", "_initiator", "_psk", "_re", "_symmetric")

    def __init__(
        self, *, initiator: bool, prologue: bytes, psk: bytes, ephemeral: bytes | None = None
    ) -> None:
        if len(psk) != KEY_BYTES:
            raise ValueError(f"a pre-shared key has {KEY_BYTES} bytes")
        self._initiator = initiator
        self._psk = psk
        self._e = None if ephemeral is None else X25519PrivateKey.from_private_bytes(ephemeral)
        self._re: X25519PublicKey | None = None
        self._symmetric = SymmetricState()
        self._symmetric.mix_hash(prologue)
        self._done = 0  # messages, both directions together
        self._ciphers: tuple[CipherState, CipherState] | None = None

    def __repr__(self) -> str:
        role = "initiator" if self._initiator else "responder"
        return f"<HandshakeState {role}, {self._done} of 2 messages done>"

    @property
    def finished(self) -> bool:
        return self._ciphers is not None

    @property
    def handshake_hash(self) -> bytes:
        """See SymmetricState; the final value once `finished`."""
        return self._symmetric.handshake_hash

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers after the last message: initiator to responder, responder to initiator.

        Each call gives the same two: a second pair would count from 0 again.
        """
        if self._ciphers is None:
            raise RuntimeError("the handshake is not finished")
        return self._ciphers

    def write_message(self, payload: Buffer = b"") -> bytes:
        """The next handshake message, with a payload of up to 65,487 bytes.

        Raises E2EError(TAMPERED) where the peer's public key, though it came with the
        right pre-shared key, is one that makes no secret (section 12.1).
        """
        self._check_turn(writing=True)
        if len(payload) > MAX_MESSAGE_BYTES - _OVERHEAD_BYTES:
            raise ValueError(f"a payload has at most {MAX_MESSAGE_BYTES - _OVERHEAD_BYTES} bytes")
        symmetric = self._begin()
        e = self._e or X25519PrivateKey.generate()
        public = e.public_key().public_bytes_raw()
        _mix_public(symmetric, public)
        if self._re is not None:
            symmetric.mix_key(_dh(e, self._re))
        message = public + symmetric.encrypt_and_hash(payload)
        self._e = e
        self._commit(symmetric)
        return message

    def read_message(self, message: Buffer) -> bytes:
        """The payload of the peer's message.

        Raises E2EError(TAMPERED) where the message is not what a holder of the same
        pre-shared key and prologue wrote; the honest one can still be read then.
        """
        self._check_turn(writing=False)
        if not _OVERHEAD_BYTES <= len(message) <= MAX_MESSAGE_BYTES:
            raise E2EError(Failure.TAMPERED)
        symmetric = self._begin()
        public = bytes(message[:KEY_BYTES])
        re = X25519PublicKey.from_public_bytes(public)
        _mix_public(symmetric, public)
        if self._e is not None and self._done:
            symmetric.mix_key(_dh(self._e, re))
        payload = symmetric.decrypt_and_hash(bytes(message[KEY_BYTES:]))
        self._re = re
        self._commit(symmetric)
        return payload

    def _check_turn(self, *, writing: bool) -> None:
        if self._done == 2:
            raise RuntimeError("the handshake is finished")
        if writing is not ((self._done == 0) is self._initiator):
            raise RuntimeError("it is the other end's turn to write")

    def _begin(self) -> SymmetricState:
        """What the next message is worked out on: a copy, which counts once all went well."""
        symmetric = self._symmetric.copy()
        if self._done == 0:
            symmetric.mix_key_and_hash(self._psk)
        return symmetric

    def _commit(self, symmetric: SymmetricState) -> None:
        self._symmetric = symmetric
        self._done += 1
        if self._done == 2:
            self._ciphers = symmetric.split()
            # Whoever takes hold of this object later must not learn the session's keys.
            symmetric._ck = b""
            symmetric._cipher = CipherState()
            self._e = self._re = None
            self._psk = b""


def _mix_public(symmetric: SymmetricState, public: bytes) -> None:
    """The token `e`. With a pre-shared key it is mixed into the key too (section 9.2)."""
    symmetric.mix_hash(public)
    symmetric.mix_key(public)


def _dh(private: X25519PrivateKey, public: X25519PublicKey) -> bytes:
    try:
        return private.exchange(public)
    except ValueError:  # the result is all zeros
        raise E2EError(Failure.TAMPERED) from None


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Section 4.3's HKDF, which is RFC 5869's with the chaining key as salt and no info."""
    length = outputs * KEY_BYTES
    stream = HKDF(SHA256(), length=length, salt=chaining_key, info=b"").derive(material)
    return [stream[start : start + KEY_BYTES] for start in range(0, length, KEY_BYTES)]
