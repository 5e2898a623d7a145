"""Who is online, asked without knowing the relay.

The relay imports pairing, so pairing cannot import the relay: the relay hands
its look-up over when it starts. A process without a relay (a management
command) sees nobody online.
"""

from __future__ import annotations

from collections.abc import Callable

Lookup = Callable[[int], frozenset[str]]

_NOBODY: frozenset[str] = frozenset()


def _nobody(_token_id: int) -> frozenset[str]:
    return _NOBODY


_lookup: Lookup = _nobody


def register(lookup: Lookup | None) -> None:
    """Answer `online_roles` by this function from now on; None means nobody is online.

    It is called from any thread and must neither block nor raise.
    """
    global _lookup
    _lookup = lookup or _nobody


def online_roles(token_id: int) -> frozenset[str]:
    """The roles ("phone", "agent") that hold a live connection under the token."""
    return _lookup(token_id)
