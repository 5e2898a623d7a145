from __future__ import annotations

import time

import pytest

from pairing import services, throttle
from tests.pairing.conftest import KEY

pytestmark = pytest.mark.django_db

ANNA = "203.0.113.1"
BEN = "203.0.113.2"


def fail(address: str, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(services.UnknownToken):
            services.authenticate(token="wrong", address=address)


def refused(address: str) -> services.TooManyFailures:
    with pytest.raises(services.TooManyFailures) as caught:
        services.authenticate(token="wrong", address=address)
    return caught.value


def test_only_as_many_failures_pass_as_the_setting_says(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=3)
    fail(ANNA, 3)
    assert 1 <= refused(ANNA).retry_after_seconds <= 3600


def test_a_valid_token_and_the_right_key_pass_while_the_address_is_limited(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    token = services.issue().token
    fail(ANNA)
    refused(ANNA)
    assert services.authenticate(token=token, address=ANNA)
    assert services.status(token=token, address=ANNA) == {"phone": False, "agent": False}
    services.check_admin_key(key=KEY, address=ANNA)


def test_successes_are_not_counted(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    token = services.issue().token
    for _ in range(5):
        services.authenticate(token=token, address=ANNA)
        services.check_admin_key(key=KEY, address=ANNA)
    fail(ANNA)


def test_one_address_does_not_pay_for_another(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    fail(ANNA)
    refused(ANNA)
    fail(BEN)


def test_ipv6_neighbours_in_a_64_share_a_limit_and_other_networks_do_not(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    fail("2001:db8:1:2::1")
    refused("2001:db8:1:2:aaaa::5")
    fail("2001:db8:1:3::1")


def test_a_mapped_ipv4_address_is_the_ipv4_address(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    fail(ANNA)
    refused(f"::ffff:{ANNA}")


def test_wrong_keys_wrong_tokens_and_status_guesses_count_together(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=3)
    fail(ANNA)
    with pytest.raises(services.AdminKeyWrong):
        services.check_admin_key(key="guess", address=ANNA)
    with pytest.raises(services.UnknownToken):
        services.status(token="guess", address=ANNA)
    refused(ANNA)
    with pytest.raises(services.TooManyFailures):
        services.check_admin_key(key="guess", address=ANNA)
    with pytest.raises(services.TooManyFailures):
        services.status(token="guess", address=ANNA)


def test_zero_means_no_limit(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=0, REGISTRATIONS_PER_HOUR=0, PUBLIC=True)
    fail(ANNA, 50)
    for _ in range(10):
        services.register(address=ANNA)


def test_registrations_are_counted_apart_from_failures(coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1, REGISTRATIONS_PER_HOUR=2, PUBLIC=True)
    fail(ANNA)
    refused(ANNA)
    services.register(address=ANNA)
    services.register(address=ANNA)
    with pytest.raises(services.TooManyRegistrations) as caught:
        services.register(address=ANNA)
    assert 1 <= caught.value.retry_after_seconds <= 3600
    services.register(address=BEN)


def test_the_limit_ends_with_the_hour(coralmux, monkeypatch) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    fail(ANNA)
    wait = refused(ANNA).retry_after_seconds
    now = time.time()
    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: now + wait + 1)
    fail(ANNA)


def test_a_cache_that_does_not_answer_refuses_guesses(monkeypatch) -> None:
    monkeypatch.setattr(
        throttle,
        "get_usage",
        lambda **_: {"count": 0, "limit": 0, "should_limit": True, "time_left": -1},
    )
    assert throttle.hit(group="g", address=ANNA, per_hour=5) == 1
