"""What pairing tells the rest of the process. It never learns who listens."""

from __future__ import annotations

from functools import partial

from django.db import transaction
from django.dispatch import Signal

# Sent with `token_id` after the transaction that revoked or deleted the token
# is committed. Other processes learn of it by `services.changed_since`.
token_revoked = Signal()


def announce_revocation(*, token_id: int, using: str | None = None) -> None:
    """Send `token_revoked` once the running transaction is committed.

    A receiver that fails is logged by Django and stops nobody: the token is
    revoked by then, whatever becomes of its sockets.
    """
    transaction.on_commit(
        partial(token_revoked.send_robust, sender=None, token_id=token_id), using=using
    )
