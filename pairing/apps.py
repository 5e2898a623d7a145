"""The pairing app: who may meet under which token, and what each token used."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_delete


class PairingConfig(AppConfig):
    name = "pairing"
    verbose_name = "Pairing"

    def ready(self) -> None:
        post_delete.connect(
            _announce_deletion,
            sender=self.get_model("PairingToken"),
            dispatch_uid="pairing.token_deleted",
        )


def _announce_deletion(*, instance: Any, using: str, **_: Any) -> None:
    """A deleted token lets nobody in any more: to live sockets that is a revocation."""
    from pairing.signals import announce_revocation

    announce_revocation(token_id=instance.pk, using=using)
