"""The rules by which a connection comes back, without a socket and without a clock."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from coralmux.client.backoff import Again, Backoff, Rule, Stop, Timers, rule_of
from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.types import Role

STOPPING = {4001, 4003}
# An hour between failures: the outage is older than any ceiling.
HOUR = 3600.0


class Highest(Random):
    """Throws the highest number each time."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


class Lowest(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


def backoff(role: Role = Role.AGENT, random: Random | None = None) -> Backoff:
    return Backoff(role, random=random or Highest())


def seconds(verdict: Again | Stop) -> float:
    assert isinstance(verdict, Again)
    return verdict.seconds


def old_outage(machine: Backoff, failures: int = 1) -> float:
    """Fail so often by refused connections, an hour apart; the time afterwards."""
    for n in range(failures):
        machine.failed(n * HOUR, 1006)
    return failures * HOUR


# Every code has its rule


@pytest.mark.parametrize("role", Role)
def test_only_the_codes_of_the_contract_end_a_connection_for_good(role: Role) -> None:
    for code in range(1000, 5000):
        verdict = backoff(role).failed(0, code)
        if code in STOPPING:
            assert verdict == Stop(final=True), code
        elif code == 4002 and role is Role.PHONE:
            assert verdict == Stop(final=False), code
        else:
            assert isinstance(verdict, Again), code


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (1000, Rule.AGAIN),
        (1002, Rule.AGAIN),
        (1005, Rule.AGAIN),
        (1006, Rule.AGAIN),
        (1007, Rule.AGAIN),
        (1009, Rule.AGAIN),
        (1011, Rule.AGAIN),
        (1012, Rule.SOON),
        (1013, Rule.LATER),
        (4001, Rule.STOP),
        (4002, Rule.REPLACED),
        (4003, Rule.STOP),
        (4004, Rule.AGAIN),
        (4007, Rule.AGAIN),
        (4008, Rule.AGAIN),
        (4009, Rule.AGAIN),
        (4011, Rule.AGAIN),
        (4012, Rule.SOON),
        (4013, Rule.LATER),
        (4029, Rule.LATER),
        (0, Rule.AGAIN),
        (9999, Rule.AGAIN),
    ],
)
def test_the_rule_of_each_code(code: int, rule: Rule) -> None:
    assert rule_of(code) is rule


def test_every_code_that_the_relay_sends_is_in_the_table_above() -> None:
    rows = test_the_rule_of_each_code.pytestmark[0].args[1]
    assert set(CloseCode) <= {code for code, _ in rows}


# AGAIN


def test_the_ceiling_grows_by_half_from_one_second_to_a_minute() -> None:
    machine = backoff()
    machine.failed(0, 1006)
    ceilings = [seconds(machine.failed(HOUR, 1006)) for _ in range(12)]
    assert ceilings[:4] == [1.5, 1.5**2, 1.5**3, 1.5**4]
    assert ceilings[9] == pytest.approx(1.5**10)
    assert ceilings[10:] == [60.0, 60.0]


def test_the_first_pause_is_at_most_a_second() -> None:
    assert seconds(backoff().failed(0, 1006)) == 1.0


def test_a_pause_may_be_anything_down_to_nothing() -> None:
    machine = backoff(random=Lowest())
    assert {seconds(machine.failed(n * HOUR, 1006)) for n in range(20)} == {0.0}


def test_two_clients_come_back_at_different_times() -> None:
    verdicts = {seconds(Backoff(Role.PHONE).failed(0, 1006)) for _ in range(20)}
    assert len(verdicts) == 20


def test_a_given_random_decides_the_pauses() -> None:
    def pauses() -> list[float]:
        machine = backoff(random=Random(7))
        return [seconds(machine.failed(n * HOUR, 1006)) for n in range(10)]

    assert pauses() == pauses()


def test_failing_for_years_raises_nothing() -> None:
    machine = backoff()
    for n in range(5_000):
        machine.failed(n * HOUR, 1006)
        machine.failed(n * HOUR, 4002)
    assert seconds(machine.failed(HOUR, 1006)) == 60.0
    assert seconds(machine.failed(HOUR, 4002)) == 900.0


def test_a_pause_is_never_longer_than_the_outage_and_a_second() -> None:
    machine = backoff()
    for _ in range(20):
        assert seconds(machine.failed(100.0, 1006)) == 1.0
    assert seconds(machine.failed(104.0, 1006)) == 5.0


def test_an_outage_of_four_seconds_costs_at_most_five_more() -> None:
    for seed in range(1_000):
        machine = backoff(random=Random(seed))
        machine.opened(0.0)
        began = now = 1_000.0
        while now < began + 4.0:
            now += seconds(machine.failed(now, 1006))
        assert now <= began + 9.0, seed


# What resets


@pytest.mark.parametrize(("stayed", "ceiling"), [(9.9, 1.5**3), (10.0, 1.0), (1e6, 1.0)])
def test_only_a_connection_that_stayed_resets_the_ceiling(stayed: float, ceiling: float) -> None:
    machine = backoff()
    now = old_outage(machine, 3)
    machine.opened(now)
    assert seconds(machine.failed(now + stayed, 1006)) == ceiling


def test_a_relay_that_takes_in_and_drops_at_once_is_not_hammered() -> None:
    machine = backoff()
    pauses = []
    now = 0.0
    for _ in range(30):
        machine.opened(now)
        pauses.append(seconds(machine.failed(now + 1, 1000)))
        now += 1 + pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0


def test_time_spent_without_logging_in_resets_nothing() -> None:
    machine = backoff()
    now = old_outage(machine, 3)
    assert seconds(machine.failed(now + 1e6, 1006)) == 1.5**3


def test_an_earlier_connection_is_counted_once() -> None:
    machine = backoff()
    machine.opened(0)
    machine.failed(100, 1006)
    assert seconds(machine.failed(HOUR, 1006)) == 1.5


def test_being_asked_forgets_the_failures() -> None:
    machine = backoff()
    now = old_outage(machine, 8)
    machine.reset()
    assert seconds(machine.failed(now, 1006)) == 1.0


# SOON


@pytest.mark.parametrize("code", [1012, 4012])
def test_a_restart_is_followed_within_a_second_however_often_it_failed_before(code: int) -> None:
    machine = backoff()
    now = old_outage(machine, 9)
    assert seconds(machine.failed(now, code)) == 1.0


def test_a_relay_that_always_restarts_is_not_hammered() -> None:
    machine = backoff()
    machine.failed(0, 1012)
    pauses = [seconds(machine.failed(HOUR, 1012)) for _ in range(12)]
    assert pauses[:3] == [1.0, 1.5, 1.5**2]
    assert pauses[-1] == 60.0


def test_a_restart_after_a_good_connection_is_again_a_first_one() -> None:
    machine = backoff()
    machine.failed(0, 1012)
    machine.failed(HOUR, 1012)
    machine.opened(HOUR)
    assert seconds(machine.failed(2 * HOUR, 1012)) == 1.0


# LATER and retry_after


@pytest.mark.parametrize("code", [1013, 4013, 4029])
def test_later_is_at_least_five_seconds(code: int) -> None:
    assert backoff(random=Lowest()).failed(0, code) == Again(5.0)
    assert backoff().failed(0, code) == Again(6.0)


@pytest.mark.parametrize("code", [1006, 1012, 1013, 4013, 4029])
def test_a_time_that_the_relay_names_is_kept_and_jitter_comes_on_top(code: int) -> None:
    assert backoff(random=Lowest()).failed(0, code, 2.5) == Again(2.5, not_before=2.5)
    assert backoff().failed(0, code, 2.5) == Again(3.5, not_before=2.5)


def test_an_agent_that_was_replaced_keeps_a_named_time_too() -> None:
    assert backoff().failed(0, 4002, 90.0) == Again(90.0, not_before=90.0)


def test_more_than_a_day_is_not_believed() -> None:
    day = 24 * HOUR
    assert backoff(random=Lowest()).failed(0, 4029, 1e300) == Again(day, not_before=day)


def test_a_named_time_does_not_soften_a_stop() -> None:
    assert backoff().failed(0, 4003, 5.0) == Stop(final=True)


# REPLACED


def test_a_replaced_agent_waits_a_minute_and_doubles_to_a_quarter_of_an_hour() -> None:
    machine = backoff()
    pauses = [seconds(machine.failed(n * HOUR, 4002)) for n in range(6)]
    assert pauses == [60, 120, 240, 480, 900, 900]


@pytest.mark.parametrize(("stayed", "pause"), [(899.0, 240.0), (900.0, 60.0)])
def test_a_quarter_of_an_hour_connected_ends_the_doubling(stayed: float, pause: float) -> None:
    machine = backoff()
    machine.failed(0, 4002)
    machine.failed(0, 4002)
    machine.opened(0)
    assert seconds(machine.failed(stayed, 4002)) == pause


def test_a_replaced_phone_stays_away_each_time() -> None:
    machine = backoff(Role.PHONE)
    for now in range(3):
        machine.opened(now)
        assert machine.failed(now, 4002) == Stop(final=False)


# All together


def test_no_sequence_of_ends_makes_a_pause_out_of_bounds() -> None:
    codes = [1006, 1012, 1013, 4002, 4029, 4999]
    for sequence in itertools.product(codes, repeat=4):
        machine = backoff()
        for now, code in enumerate(sequence):
            verdict = machine.failed(float(now), code)
            assert 0 <= seconds(verdict) <= (900 if code == 4002 else 66)


def test_every_number_can_be_set() -> None:
    timers = Timers(first_pause=0.1, growth=2.0, longest_pause=0.3, later_pause=0.5)
    machine = Backoff(Role.AGENT, timers=timers, random=Highest())
    pauses = [seconds(machine.failed(n * HOUR, 1006)) for n in range(4)]
    assert pauses == [0.1, 0.2, 0.3, 0.3]
    assert seconds(machine.failed(4 * HOUR, 1013)) == 0.8
