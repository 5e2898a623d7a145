"""The state of a pairing that the tests of stores keep."""

from __future__ import annotations

import hashlib
from collections import deque

from coralmux.client.store import PairingState
from coralmux.e2e.events import Secrets

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
OTHER = "oc_pair_ffffffffffffffffffffffffffffffff"
LINK, ROTATED, NEXT = b"L" * 32, b"R" * 32, b"N" * 32
STATE = PairingState(
    Secrets(ROTATED, NEXT, link=False),
    deque(["a", "b", "c"]),
    "agent at home",
    hashlib.sha256(LINK).digest(),
    "phone",
)
