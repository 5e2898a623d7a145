"""The records of one version 2 session: sealed messages with a counter.

On the wire a record is the payload of an envelope (PROTOCOL.md, "Encryption, version 2"):

    {"enc":true,"v":2,"hs":"<22 characters>","n":<counter>,"ciphertext":"<base64>"}

`hs` names the handshake that made the keys, `n` is the counter of Noise's CipherState,
one for each direction, and the envelope's type and id are the associated data: a relay
can neither change what a record says nor what it is, nor in which order it counts.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Literal

import msgspec

from coralmux.e2e.errors import E2EError, Failure
from coralmux.e2e.noise import CipherState

# Plaintexts are padded with spaces to a multiple of this, so that a record's length
# tells little about a delta. Chunks of files are all of one length anyway.
PAD_BYTES = 128
_UNPADDED = "file.chunk"

# Records whose ids are kept, to name those that the other end reports as missing.
_REMEMBERED = 8192


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as it travels; `ciphertext` is base64 (RFC 4648, section 4) in JSON."""

    enc: Literal[True]
    v: Literal[2]
    hs: str
    n: int
    ciphertext: bytes

    def __repr__(self) -> str:
        return f"Record(hs={self.hs!r}, n={self.n}, {len(self.ciphertext)} bytes)"


_record_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()


def read(payload: msgspec.Raw | bytes) -> Record | None:
    """The record in an envelope's payload, or None if it is none of version 2."""
    try:
        return _record_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


class Records:
    """Seals what one side says and opens what the other says, each counter from 0.

    After an E2EError it is not to be used again: a record that fails ends its session.
    """

    __slots__ = ("_refused", "_remembered", "hs", "receiving", "sending")

    def __init__(self, hs: str, sending: CipherState, receiving: CipherState) -> None:
        self.hs = hs
        self.sending = sending
        self.receiving = receiving
        self._remembered: deque[str] = deque(maxlen=_REMEMBERED)
        self._refused: set[int] = set()  # counters

    def __repr__(self) -> str:
        return f"Records(hs={self.hs!r}, sent={self.sending.n}, received={self.receiving.n})"

    def seal(self, type: str, id: str, plaintext: bytes) -> bytes:
        """Encrypt a JSON object; the ciphertext of the record with the counter before.

        Raises E2EError (EXHAUSTED) when the counter has run out.
        """
        if type != _UNPADDED and (rest := len(plaintext) % PAD_BYTES):
            plaintext += b" " * (PAD_BYTES - rest)
        ciphertext = self.sending.encrypt_with_ad(f"{type}\n{id}".encode(), plaintext)
        self._remembered.append(id)
        return ciphertext

    def seal_payload(self, type: str, id: str, plaintext: bytes) -> bytes:
        """`seal`, as the JSON payload that goes on the wire."""
        n = self.sending.n
        return _encoder.encode(Record(True, 2, self.hs, n, self.seal(type, id, plaintext)))

    def open(self, type: str, id: str, n: int, ciphertext: bytes) -> bytes:
        """Decrypt a record; its plaintext with the padding still behind it.

        `n` may be ahead of `receiving.n`: then the records between are missing. Raises
        E2EError: REPLAYED for a counter that was passed, else TAMPERED or EXHAUSTED.
        """
        receiving = self.receiving
        expected = receiving.n
        if n != expected:
            if n < expected:
                raise E2EError(Failure.REPLAYED)
            receiving.set_nonce(n)
        if "\n" in id:
            # It would leave open where in the associated data the type ends.
            raise E2EError(Failure.TAMPERED)
        try:
            return receiving.decrypt_with_ad(f"{type}\n{id}".encode(), ciphertext)
        except UnicodeEncodeError:
            raise E2EError(Failure.TAMPERED) from None

    def refused(self, id: str) -> None:
        """The relay refused the latest message of this id: its gap will be no news."""
        n = self.sending.n
        for remembered in reversed(self._remembered):
            n -= 1
            if remembered == id:
                self._refused.add(n)
                return

    def lost(self, first: int, last: int) -> tuple[str, ...]:
        """Ids of the records `first` to `last` that the other end misses and nobody refused."""
        oldest = self.sending.n - len(self._remembered)
        first = max(first, oldest)
        missing = islice(self._remembered, first - oldest, max(last + 1 - oldest, 0))
        return tuple(id for n, id in enumerate(missing, first) if n not in self._refused)
