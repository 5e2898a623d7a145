from __future__ import annotations

from datetime import timedelta

import pytest
from axes.models import AccessLog
from django.contrib.sessions.models import Session
from django.utils import timezone

from pairing import housekeeping, services
from pairing.models import DailyUsage, PairingToken
from pairing.services import UsageRow
from pairing.usage import today

pytestmark = pytest.mark.django_db


def token(**values: object) -> PairingToken:
    record = services.issue().record
    PairingToken.objects.filter(pk=record.pk).update(**values)
    services.record_usage([UsageRow(record.pk, today(), 1)])
    return record


def test_only_tokens_dead_for_long_enough_go_and_their_usage_with_them() -> None:
    now = timezone.now()
    long_ago, lately = now - timedelta(days=31), now - timedelta(days=29)
    keep = [
        token(),
        token(revoked_at=lately),
        token(expires_at=lately),
        token(expires_at=now + timedelta(days=1)),
    ]
    token(revoked_at=long_ago)
    token(expires_at=long_ago)
    pruned = services.prune(before=now - timedelta(days=30))
    assert pruned.tokens == 2
    assert set(PairingToken.objects.all()) == set(keep)
    assert set(DailyUsage.objects.values_list("token_id", flat=True)) == {t.pk for t in keep}


def test_many_tokens_go_in_batches(monkeypatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 2)
    for _ in range(5):
        token(revoked_at=timezone.now() - timedelta(days=2))
    assert services.prune(before=timezone.now() - timedelta(days=1)).tokens == 5


def test_usage_older_than_400_days_goes() -> None:
    anna = services.issue().record.pk
    for age in (400, 401):
        services.record_usage([UsageRow(anna, today() - timedelta(days=age), 1)])
    assert services.prune(before=timezone.now()).usage == 1
    assert DailyUsage.objects.get().day == today() - timedelta(days=400)


def test_expired_sessions_and_old_logins_go() -> None:
    now = timezone.now()
    for key, expires in (("old", now - timedelta(seconds=1)), ("new", now + timedelta(hours=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=expires)
    for age in (1, 40):
        log = AccessLog.objects.create(username="anna", ip_address="203.0.113.1")
        AccessLog.objects.filter(pk=log.pk).update(attempt_time=now - timedelta(days=age))
    pruned = services.prune(before=now - timedelta(days=30))
    assert (pruned.sessions, pruned.logins) == (1, 1)
    assert Session.objects.get().session_key == "new"
    assert AccessLog.objects.count() == 1
