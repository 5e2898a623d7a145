"""Token buckets, with the clock in the test's hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralmux.protocol.types import RateClass, Role
from relay.limits import Allowance, Rates, TokenBucket, Window


def test_the_burst_passes_at_once_and_the_next_waits() -> None:
    bucket = TokenBucket(rate=0.5, burst=30)
    assert [bucket.take(100.0) for _ in range(30)] == [0.0] * 30
    assert bucket.take(100.0) == pytest.approx(2.0)


def test_the_wait_that_is_named_is_true() -> None:
    bucket = TokenBucket(rate=0.5, burst=1)
    bucket.take(0.0)
    wait = bucket.take(0.7)
    assert bucket.take(0.7 + wait - 0.01) > 0
    assert bucket.take(0.7 + wait) == 0.0


def test_a_rate_of_zero_is_no_limit() -> None:
    bucket = TokenBucket(rate=0, burst=0)
    assert all(bucket.take(0.0) == 0.0 for _ in range(10_000))
    assert bucket.full(0.0)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(rate=1, burst=1)
    assert bucket.take(100.0) == 0.0
    assert bucket.take(50.0) > 0


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    steps=st.lists(st.floats(0, 10), max_size=200),
)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, steps: list[float]) -> None:
    bucket = TokenBucket(rate, burst)
    now, passed = 0.0, 0
    for step in steps:
        now += step
        passed += bucket.take(now) == 0.0
        assert passed <= burst + rate * now + 1e-6


def test_resizing_keeps_what_was_used() -> None:
    bucket = TokenBucket(rate=1, burst=10)
    for _ in range(10):
        bucket.take(0.0)
    bucket.resize(1, 12, 0.0)
    assert [bucket.take(0.0) == 0.0 for _ in range(3)] == [True, True, False]


def test_roles_have_the_allowance_of_the_contract() -> None:
    phone, agent = Allowance(Role.PHONE, Rates()), Allowance(Role.AGENT, Rates())

    def burst(allowance: Allowance, kind: RateClass) -> int:
        return next(n for n in range(10_000) if allowance.take(kind, 0.0))

    assert burst(phone, RateClass.MESSAGE) == 30
    assert burst(agent, RateClass.MESSAGE) == 120
    assert burst(agent, RateClass.STREAM) == 5000
    assert burst(phone, RateClass.KEY_EXCHANGE) == 30
    assert burst(phone, RateClass.PING) == 60
    assert burst(phone, RateClass.INVALID) == 30


def test_an_allowance_is_forgettable_only_when_it_is_full_again() -> None:
    allowance = Allowance(Role.PHONE, Rates())
    assert allowance.full(0.0)
    allowance.take(RateClass.MESSAGE, 0.0)
    assert not allowance.full(1.0)
    assert allowance.full(2.1)


@given(st.lists(st.floats(0, 40), max_size=100))
def test_a_window_never_lets_more_pass_however_the_clock_goes(steps: list[float]) -> None:
    window, now, passed = Window(6, 60.0), 0.0, list[float]()
    for step in steps:
        now += step
        within = [then for then in passed if now < then + 60]
        assert (window.take(now) == 0.0) is (len(within) < 6)
        if len(within) < 6:
            passed.append(now)


def test_the_seventh_replacement_within_a_minute_waits_until_the_first_is_a_minute_old() -> None:
    allowance = Allowance(Role.PHONE, Rates())
    assert [allowance.replacements.take(float(now)) for now in range(0, 60, 10)] == [0.0] * 6
    assert allowance.replacements.take(59.0) == 1.0
    assert allowance.replacements.take(60.0) == 0.0
    assert allowance.replacements.take(60.0) == 10.0
    assert not allowance.full(119.0)
    assert allowance.full(120.0)
