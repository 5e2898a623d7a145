"""Forgetting what nobody needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from axes.models import AccessAttempt, AccessLog
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from pairing.models import DailyUsage, PairingToken
from pairing.usage import today

# A year's report and its month before.
USAGE_KEPT = timedelta(days=400)

# Rows in one transaction. SQLite has one writer: usage is flushed in between.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of each kind are gone."""

    tokens: int
    usage: int
    sessions: int
    logins: int


def prune(*, before: datetime) -> Pruned:
    """Delete tokens (with their usage) revoked or expired before `before`.

    And what has its own age: usage older than 400 days, expired admin sessions,
    and the admin site's log of logins and failed logins before `before`.
    """
    tokens = 0
    dead = PairingToken.objects.filter(Q(revoked_at__lt=before) | Q(expires_at__lt=before))
    while batch := list(dead.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            _, deleted = PairingToken.objects.filter(pk__in=batch).delete()
        tokens += deleted.get("pairing.PairingToken", 0)
    usage, _ = DailyUsage.objects.filter(day__lt=today() - USAGE_KEPT).delete()
    sessions, _ = Session.objects.filter(expire_date__lt=timezone.now()).delete()
    logins = sum(
        model.objects.filter(attempt_time__lt=before).delete()[0]
        for model in (AccessAttempt, AccessLog)
    )
    return Pruned(tokens=tokens, usage=usage, sessions=sessions, logins=logins)
