from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from coralmux.protocol import limits
from pairing import services
from pairing.models import DailyUsage, PairingToken
from pairing.usage import today
from tests.pairing.conftest import KEY

pytestmark = pytest.mark.django_db

HERE = "203.0.113.1"


def authenticate(token: str) -> services.Grant:
    return services.authenticate(token=token, address=HERE)


def expire(record: PairingToken) -> None:
    PairingToken.objects.filter(pk=record.pk).update(expires_at=timezone.now())


def test_a_token_has_the_contracts_form_and_is_never_stored() -> None:
    issued = services.issue(label="Anna")
    assert re.fullmatch(r"oc_pair_[0-9a-f]{32}", issued.token)
    stored = PairingToken.objects.filter(pk=issued.record.pk).values().get()
    assert issued.token not in str(stored)
    assert stored["prefix"] == issued.token[:12]
    assert issued.token not in repr(issued)


def test_two_tokens_differ() -> None:
    assert services.issue().token != services.issue().token


def test_a_fresh_token_gets_the_settings_limits() -> None:
    issued = services.issue()
    grant = authenticate(issued.token)
    assert grant.token_id == issued.record.pk
    assert grant.phone_messages_per_minute == limits.PHONE_MESSAGES_PER_MINUTE
    assert grant.daily_quota_bytes == limits.DAILY_QUOTA_BYTES
    assert grant.max_message_bytes == limits.MAX_MESSAGE_BYTES
    assert (grant.used_today, grant.used_this_month, grant.expires_at) == (0, 0, None)
    assert grant.day == datetime.now(UTC).date()


def test_a_tokens_own_limits_replace_the_settings_and_zero_means_none() -> None:
    issued = services.issue(phone_messages_per_minute=7, daily_quota_bytes=0)
    grant = authenticate(issued.token)
    assert grant.phone_messages_per_minute == 7
    assert grant.daily_quota_bytes == 0
    assert grant.agent_messages_per_minute == limits.AGENT_MESSAGES_PER_MINUTE


def test_the_largest_message_can_only_be_lowered() -> None:
    assert authenticate(services.issue(max_message_bytes=1000).token).max_message_bytes == 1000
    raised = services.issue(max_message_bytes=2 * limits.MAX_MESSAGE_BYTES)
    assert authenticate(raised.token).max_message_bytes == limits.MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "values",
    [
        {"label": "x" * 201},
        {"label": "a\x00b"},
        {"label": "\ud800"},
        {"label": "\x1b[2J"},
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"daily_quota_bytes": -1},
        {"daily_quota_bytes": 2**64},
        {"max_message_bytes": 0},
    ],
)
def test_values_that_cannot_be_used_are_refused(values) -> None:
    with pytest.raises(services.InvalidValue):
        services.issue(**values)
    assert not PairingToken.objects.exists()


def test_labels_take_what_people_write() -> None:
    assert services.issue(label=" Großmutters 📱 👨‍👩‍👧 ").record.label == "Großmutters 📱 👨‍👩‍👧"


def test_an_unknown_limit_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="bogus"):
        services.issue(bogus=1)


@pytest.mark.parametrize("token", ["", "oc_pair_" + "0" * 32, "\x00", "\ud800", "x" * 100_000])
def test_unknown_tokens_let_nobody_in(token: str) -> None:
    services.issue()
    with pytest.raises(services.UnknownToken) as caught:
        authenticate(token)
    assert not token or token not in str(caught.value)


def test_a_token_is_looked_up_whole() -> None:
    token = services.issue().token
    for near in (token[:-1], token + "0", token.upper(), " " + token):
        with pytest.raises(services.UnknownToken):
            authenticate(near)


def test_a_revoked_token_lets_nobody_in() -> None:
    issued = services.issue()
    assert services.revoke(token_id=issued.record.pk) is True
    with pytest.raises(services.TokenRevoked):
        authenticate(issued.token)


def test_an_expired_token_lets_nobody_in() -> None:
    issued = services.issue(expires_at=timezone.now() + timedelta(hours=1))
    assert authenticate(issued.token).expires_at == issued.record.expires_at
    expire(issued.record)
    with pytest.raises(services.TokenExpired):
        authenticate(issued.token)


def test_revoking_is_announced_once_and_only_after_the_commit(
    django_capture_on_commit_callbacks, revocations
) -> None:
    token_id = services.issue().record.pk
    with django_capture_on_commit_callbacks(execute=True):
        assert services.revoke(token_id=token_id) is True
        assert services.revoke(token_id=token_id) is False
        assert revocations == []
    assert revocations == [token_id]


@pytest.mark.django_db(transaction=True)
def test_a_revocation_is_stamped_when_the_database_may_be_written(monkeypatch) -> None:
    """Waiting for SQLite's lock takes seconds; a stamp from before is overlooked."""
    token_id, now, locked = services.issue().record.pk, timezone.now, []

    def look_at_the_clock() -> datetime:
        locked.append(connection.in_atomic_block)
        return now()

    monkeypatch.setattr(timezone, "now", look_at_the_clock)
    services.revoke(token_id=token_id)
    assert locked == [True]


def test_a_token_can_be_revoked_by_itself(django_capture_on_commit_callbacks, revocations) -> None:
    issued = services.issue()
    with django_capture_on_commit_callbacks(execute=True):
        assert services.revoke_by_token(token=issued.token) is True
    assert revocations == [issued.record.pk]
    assert services.revoke_by_token(token=issued.token) is False


def test_revoking_what_does_not_exist_says_so() -> None:
    with pytest.raises(services.UnknownToken):
        services.revoke(token_id=4711)
    with pytest.raises(services.UnknownToken):
        services.revoke_by_token(token="nobody's")


def test_deleting_a_token_is_a_revocation(django_capture_on_commit_callbacks, revocations) -> None:
    record = services.issue().record
    token_id = record.pk
    with django_capture_on_commit_callbacks(execute=True):
        record.delete()
    assert revocations == [token_id]


def test_a_listener_that_fails_does_not_stop_a_revocation(
    django_capture_on_commit_callbacks, revocations
) -> None:
    from pairing.signals import token_revoked

    def fails(**_: object) -> None:
        raise RuntimeError("no")

    token_revoked.connect(fails)
    issued = services.issue()
    try:
        with django_capture_on_commit_callbacks(execute=True):
            assert services.revoke(token_id=issued.record.pk)
    finally:
        token_revoked.disconnect(fails)
    with pytest.raises(services.TokenRevoked):
        authenticate(issued.token)


def test_being_seen_is_noted_by_role_and_is_no_change() -> None:
    record = services.issue().record
    changed = record.changed_at
    services.seen(token_id=record.pk, role="phone")
    record.refresh_from_db()
    assert record.phone_seen_at is not None
    assert record.agent_seen_at is None
    assert record.changed_at == changed


def test_changes_since_a_moment_are_told_and_earlier_ones_are_not() -> None:
    old, revoked, limited = (services.issue().record for _ in range(3))
    since = timezone.now()
    services.revoke(token_id=revoked.pk)
    limited.agent_messages_per_minute = 5
    limited.save(update_fields=["agent_messages_per_minute", "changed_at"])
    states = {state.token_id: state for state in services.changed_since(since)}
    assert set(states) == {revoked.pk, limited.pk}
    assert old.pk not in states
    assert states[revoked.pk].active is False
    assert states[limited.pk].active is True
    assert states[limited.pk].agent_messages_per_minute == 5
    assert states[limited.pk].phone_messages_per_minute == limits.PHONE_MESSAGES_PER_MINUTE


def test_asking_for_changes_is_one_query_that_uses_the_index(django_assert_num_queries) -> None:
    for _ in range(5):
        services.issue()
    with django_assert_num_queries(1):
        assert len(services.changed_since(timezone.now() - timedelta(minutes=1))) == 5
    changed = PairingToken.objects.filter(changed_at__gte=timezone.now())
    plan = changed.order_by("changed_at").explain()
    assert "pairing_token_changed" in plan


def test_a_login_is_one_query(django_assert_num_queries) -> None:
    token = services.issue().token
    with django_assert_num_queries(1):
        authenticate(token)


def test_a_grant_knows_what_was_used_today_and_this_month() -> None:
    issued = services.issue()
    month_start = today().replace(day=1)
    for day, amount in {
        today(): 100,
        month_start - timedelta(days=1): 1_000_000,
    }.items():
        DailyUsage.objects.create(
            token=issued.record, day=day, bytes_from_phone=amount, bytes_from_agent=amount
        )
    grant = authenticate(issued.token)
    assert grant.used_today == 200
    assert grant.used_this_month == 200


def test_status_tells_who_is_online(online) -> None:
    issued = services.issue()
    online[issued.record.pk] = frozenset({"agent"})
    assert services.status(token=issued.token, address=HERE) == {"phone": False, "agent": True}


def test_status_of_revoked_and_expired_tokens_is_unknown() -> None:
    revoked, expired = services.issue(), services.issue()
    services.revoke(token_id=revoked.record.pk)
    expire(expired.record)
    for token in (revoked.token, expired.token, "never issued"):
        with pytest.raises(services.UnknownToken):
            services.status(token=token, address=HERE)


def test_registration_is_closed_unless_the_relay_is_public(coralmux) -> None:
    with pytest.raises(services.RegistrationClosed, match="CORALMUX_PUBLIC=1"):
        services.register(address=HERE)
    coralmux(PUBLIC=True)
    assert services.register(address=HERE).record.label == "self-registered"


def test_the_admin_key_opens() -> None:
    services.check_admin_key(key=KEY, address=HERE)


@pytest.mark.parametrize("key", ["", "wrong", KEY + " ", KEY[:-1], "schlüssel", "\ud800", "\x00"])
def test_other_keys_do_not(key: str) -> None:
    with pytest.raises(services.AdminKeyWrong):
        services.check_admin_key(key=key, address=HERE)


def test_without_a_configured_key_not_even_the_empty_key_opens(coralmux) -> None:
    coralmux(ADMIN_KEY="")
    for key in ("", KEY):
        with pytest.raises(services.AdminClosed, match="CORALMUX_ADMIN_KEY"):
            services.check_admin_key(key=key, address=HERE)


def test_a_key_with_umlauts_opens_however_http_decoded_it(coralmux) -> None:
    coralmux(ADMIN_KEY="schlüssel")
    services.check_admin_key(key="schlüssel", address=HERE)
    services.check_admin_key(key="schlüssel".encode().decode("latin-1"), address=HERE)


@pytest.mark.parametrize(
    "bad", [{"max_message_bytes": 0}, {"daily_quota_bytes": -1}, {"digest": ""}]
)
def test_the_database_refuses_what_no_service_would_write(bad) -> None:
    record = services.issue().record
    with pytest.raises(IntegrityError), transaction.atomic():
        PairingToken.objects.filter(pk=record.pk).update(**bad)


def test_a_token_is_found_by_its_first_characters_or_whole() -> None:
    issued = services.issue()
    assert services.find(issued.token[:12]) == [issued.record.pk]
    assert services.find(issued.token) == [issued.record.pk]
    assert services.find(issued.token[:-1]) == []
    services.revoke(token_id=issued.record.pk)
    assert services.find(issued.token[:12]) == []
    with pytest.raises(services.InvalidValue):
        services.find("anything else")
