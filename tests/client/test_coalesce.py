"""Pacing and joining of deltas, against the relay's own buckets, in simulated time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralmux.client.coalesce import MAX_DELTA, Coalescer, Pacer
from coralmux.protocol.limits import STREAM_BURST_SECONDS
from relay.limits import TokenBucket

# A reply: when it starts (seconds), tokens a second, tokens.
Reply = tuple[float, float, int]


@dataclass
class Run:
    """What a simulated agent sent: (reply, seq or 0 for chat.done, time, waited since)."""

    frames: list[tuple[int, int, float, float]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    deltas: dict[int, list[str]] = field(default_factory=dict)
    tripped: int = 0

    def of(self, reply: int) -> list[tuple[int, int, float, float]]:
        return [frame for frame in self.frames if frame[0] == reply]


def simulate(pacer: Pacer, relay: TokenBucket, replies: list[Reply]) -> Run:
    """Sends the replies as an agent does, side by side, each frame checked by the relay."""
    run = Run(texts=["" for _ in replies], deltas={i: [] for i in range(len(replies))})
    coalescers = [Coalescer() for _ in replies]
    waiting_since: dict[int, float] = {}
    woken: set[int] = set()
    finished: set[int] = set()
    events: list[tuple[float, int, str, int]] = []  # time, order, kind, reply
    order = 0

    def plan(at: float, kind: str, reply: int) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, kind, reply))

    def send(reply: int, seq: int, now: float) -> None:
        since = waiting_since.pop(reply, now)
        run.frames.append((reply, seq, now, now - since))
        run.tripped += relay.take(now) > 0

    def flush(reply: int, now: float) -> None:
        """Everything that may go now goes; else a wake-up is planned, one at a time."""
        coalescer = coalescers[reply]
        while coalescer.pending or reply in finished:
            urgent = coalescer.urgent or not coalescer.pending
            waiting_since.setdefault(reply, now)
            if wait := pacer.take(now, urgent):
                if reply not in woken:
                    woken.add(reply)
                    plan(now + wait, "wake", reply)
                return
            if taken := coalescer.take():
                run.deltas[reply].append(taken[0])
                send(reply, taken[1], now)
            else:
                finished.discard(reply)
                send(reply, 0, now)

    for index, (start, speed, count) in enumerate(replies):
        for token in range(count):
            plan(start + token / speed, "token", index)
        plan(start + count / speed, "end", index)
    while events:
        now, _, kind, index = heapq.heappop(events)
        if kind == "token":
            text = f"{index}:{order} "
            run.texts[index] += text
            coalescers[index].add(text)
        elif kind == "end":
            finished.add(index)
        else:
            woken.discard(index)
        flush(index, now)
    for index, coalescer in enumerate(coalescers):
        assert "".join(run.deltas[index]) == run.texts[index] == coalescer.full_text
        seqs = [seq for _, seq, _, _ in run.of(index)]
        assert seqs == [*range(1, len(run.deltas[index]) + 1), 0]
    return run


def v1_bucket() -> TokenBucket:
    return TokenBucket(rate=2.0, burst=120.0)


speeds = st.floats(1, 5_000)


@st.composite
def any_reply(draw: st.DrawFn) -> Reply:
    speed = draw(speeds)
    seconds = draw(st.floats(0.1, 60))
    return draw(st.floats(0, 30)), speed, max(1, min(int(speed * seconds), 3_000))


@settings(max_examples=60)
@given(st.lists(any_reply(), min_size=1, max_size=3))
def test_a_relay_that_announces_nothing_is_never_tripped(replies: list[Reply]) -> None:
    run = simulate(Pacer.announced(None), v1_bucket(), replies)
    assert run.tripped == 0
    for index in range(len(replies)):
        first, done = run.of(index)[0], run.of(index)[-1]
        assert first[3] == 0.0
        assert done[1] == 0


@pytest.mark.parametrize("speed", [1, 5, 50, 500, 5_000])
@pytest.mark.slow
def test_replies_that_follow_each_other_never_trip_a_version_1_relay(speed: float) -> None:
    replies: list[Reply] = [(n * 8.0, speed, int(speed * 8)) for n in range(5)]
    run = simulate(Pacer.announced(None), v1_bucket(), replies)
    assert run.tripped == 0
    for index in range(len(replies)):
        assert run.of(index)[0][3] == 0.0  # the first delta of each, when the burst is long gone


def test_an_hour_of_talk_never_trips_a_version_1_relay() -> None:
    run = simulate(Pacer.announced(None), v1_bucket(), [(0.0, 3.0, 3 * 3_600)])
    assert run.tripped == 0


def test_chat_done_follows_the_last_delta_at_once() -> None:
    run = simulate(Pacer.announced(None), v1_bucket(), [(0.0, 2_000, 2_000)])
    *_, last, done = run.of(0)
    assert done[2] == last[2]


def test_a_delta_waits_less_than_a_second_on_a_version_1_relay() -> None:
    run = simulate(Pacer.announced(None), v1_bucket(), [(0.0, 500, 3_000)])
    assert max(waited for _, _, _, waited in run.frames) < 1.0


def test_without_pacing_the_simulated_relay_is_tripped() -> None:
    run = simulate(Pacer(None, 1), v1_bucket(), [(0.0, 500, 500)])
    assert run.tripped > 300


@settings(max_examples=60)
@given(st.integers(1, 2_000), st.lists(any_reply(), min_size=1, max_size=3))
def test_the_announced_limit_is_never_tripped(announced: int, replies: list[Reply]) -> None:
    relay = TokenBucket(float(announced), float(announced * STREAM_BURST_SECONDS))
    assert simulate(Pacer.announced(announced), relay, replies).tripped == 0


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 2), st.floats(1_000, 5_000)), min_size=1, max_size=3))
def test_long_fast_replies_stay_inside_a_thousand_a_second(
    given: list[tuple[float, float]],
) -> None:
    relay = TokenBucket(1_000.0, 5_000.0)
    replies = [(start, speed, 12_000) for start, speed in given]
    assert simulate(Pacer.announced(1_000), relay, replies).tripped == 0


def test_a_fast_reply_uses_what_was_announced() -> None:
    relay = TokenBucket(1_000.0, 5_000.0)
    run = simulate(Pacer.announced(1_000), relay, [(0.0, 5_000, 20_000)])
    assert run.tripped == 0
    assert 3_500 <= len(run.frames) <= 5_000  # 4 s at 900 a second and a burst


@given(st.floats(1, 800), st.integers(1, 400))
def test_a_slow_reply_is_sent_token_by_token_without_delay(speed: float, count: int) -> None:
    relay = TokenBucket(1_000.0, 5_000.0)
    run = simulate(Pacer.announced(1_000), relay, [(0.0, speed, count)])
    assert len(run.frames) == count + 1
    assert all(waited == 0.0 for _, _, _, waited in run.frames)


def test_no_limit_delays_nothing() -> None:
    pacer = Pacer.announced(0)
    assert all(pacer.take(0.0) == 0.0 for _ in range(100_000))


def test_asking_takes_nothing() -> None:
    pacer = Pacer(1.0, 1)
    assert [pacer.delay(0.0) for _ in range(3)] == [0.0] * 3
    assert pacer.take(0.0) == 0.0
    assert [pacer.take(0.0) for _ in range(3)] == [1.0] * 3


@given(st.floats(0.1, 5_000), st.floats(0, 1e6), st.integers(1, 50))
def test_a_frame_goes_after_exactly_the_delay_that_was_told(
    rate: float, start: float, frames: int
) -> None:
    pacer = Pacer(rate, 1)
    now = start
    for _ in range(frames):
        now += pacer.delay(now)
        assert pacer.take(now) == 0.0


def test_a_refusal_holds_everything_back_for_as_long_as_the_relay_said() -> None:
    pacer = Pacer.announced(None)
    pacer.limited(100.0, 7.0)
    assert pacer.delay(100.0) == pacer.delay(100.0, urgent=True) == 7.0
    assert pacer.delay(106.0, urgent=True) == 1.0
    assert pacer.take(107.0, urgent=True) == 0.0  # the refused one again
    assert pacer.delay(107.0, urgent=True) > 0.0
    assert pacer.delay(107.0) > 10.0  # the rest wait until the reserve is there again


def test_a_refusal_holds_back_where_no_limit_was_announced() -> None:
    pacer = Pacer.announced(0)
    pacer.limited(10.0, 2.0)
    assert pacer.take(10.0) == 2.0
    assert pacer.take(12.0) == 0.0


def test_a_later_refusal_does_not_shorten_the_wait() -> None:
    pacer = Pacer.announced(1_000)
    pacer.limited(0.0, 30.0)
    pacer.limited(1.0, 0.5)
    assert pacer.delay(2.0) == 28.0


def test_frames_sent_without_asking_count_too() -> None:
    pacer = Pacer(1.0, 2)
    for _ in range(3):
        pacer.sent(0.0)
    assert pacer.delay(0.0) == pytest.approx(2.0)


def test_a_new_connection_changes_the_limit_and_fills_nothing() -> None:
    pacer = Pacer.announced(10)
    for _ in range(10):
        assert pacer.take(0.0) == 0.0
    assert pacer.take(0.0) > 0
    pacer.announce(10, 0.0)
    assert pacer.take(0.0) > 0
    pacer.announce(20, 0.0)
    assert [pacer.take(0.0) == 0.0 for _ in range(11)] == [True] * 10 + [False]
    pacer.announce(0, 0.0)
    assert pacer.take(0.0) == 0.0


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    pacer = Pacer(1.0, 1)
    assert pacer.take(100.0) == 0.0
    assert pacer.take(50.0) > 0
    assert pacer.delay(100.0) == 1.0


@pytest.mark.parametrize(
    ("rate", "burst", "reserve"), [(0, 1, 0), (-1, 1, 0), (1, 0, 0), (1, 1, -1)]
)
def test_a_pacer_that_could_never_send_is_refused(
    rate: float, burst: float, reserve: float
) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pacer(rate, burst, reserve=reserve)


# The coalescer alone

wild = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


@given(st.lists(st.one_of(wild, st.none()), max_size=60))
def test_deltas_join_to_the_full_text_whatever_the_timing(steps: list[str | None]) -> None:
    coalescer = Coalescer()
    taken: list[str] = []
    for step in [*steps, None]:
        if step is not None:
            coalescer.add(step)
        elif got := coalescer.take():
            assert got[1] == len(taken) + 1
            taken.append(got[0])
        waiting = coalescer.full_text[len("".join(taken)) :]
        assert coalescer.pending == len(waiting.encode())
    assert "".join(taken) == coalescer.full_text
    assert coalescer.take() is None
    assert "" not in taken


@given(st.lists(st.text(max_size=30), max_size=30))
def test_clean_text_comes_out_as_it_went_in(texts: list[str]) -> None:
    coalescer = Coalescer()
    for text in texts:
        coalescer.add(text)
    assert coalescer.full_text == "".join(texts)


@given(st.text(max_size=12), st.integers(1, 5_000))
def test_a_delta_is_never_longer_than_allowed(text: str, times: int) -> None:
    coalescer = Coalescer()
    coalescer.add(text * times)
    coalescer.add(text)
    taken = []
    while got := coalescer.take():
        assert 0 < len(got[0].encode()) <= MAX_DELTA
        taken.append(got[0])
    assert "".join(taken) == text * (times + 1)


def test_nothing_is_no_delta() -> None:
    coalescer = Coalescer()
    coalescer.add("")
    assert coalescer.take() is None
    assert coalescer.urgent
    coalescer.add("a")
    assert coalescer.take() == ("a", 1)
    assert not coalescer.urgent


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["\ud83d", "\ude00!"], "😀!"),
        (["a\ud83d", "", "\ude00"], "a😀"),
        (["\ud83d\ude00"], "😀"),
        (["\ud83d", "x"], "\ufffdx"),
        (["\ude00x"], "\ufffdx"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
def test_halves_of_an_emoji_are_put_together(parts: list[str], whole: str) -> None:
    coalescer = Coalescer()
    for part in parts:
        coalescer.add(part)
    assert coalescer.full_text == whole


def test_half_an_emoji_at_the_end_becomes_the_replacement_character() -> None:
    coalescer = Coalescer()
    coalescer.add("a\ud83d")
    assert coalescer.take() == ("a", 1)
    coalescer.finish()
    coalescer.finish()
    assert coalescer.take() == ("\ufffd", 2)
    assert coalescer.take() is None
    assert coalescer.full_text == "a\ufffd"


def test_the_text_stays_out_of_the_repr() -> None:
    coalescer = Coalescer()
    coalescer.add("confidential")
    assert "confidential" not in repr(coalescer)
