"""The socket with flow control, on a kernel that is made up: its buffer is as small
as a test wants, and takes what it takes piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from websockets.frames import Frame, Opcode

from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.limits import HIGH_WATER_BYTES, LOW_WATER_BYTES, MAX_MESSAGE_BYTES
from coralmux_site import flow, outbox
from relay.sockets import Disconnected, TooLarge
from tests.support.transport import TIMERS, Sender, control, open_socket, step, text

# Numbers small enough for a machine to reach every edge of them.
HIGH, LOW = 10_000, 5_000
WATER = {"HIGH_WATER_BYTES": HIGH, "LOW_WATER_BYTES": LOW, "_OVERHEAD_BYTES": 8}
SMALL = {
    flow: {**WATER, "_MOST_QUEUED_BYTES": 4 * HIGH, "_JOIN_BYTES": 500},
    outbox: {**WATER, "_PROBE_BYTES": 100, "_GATHER_BYTES": 2_000},
}
BIGGEST = 8_000
sizes = st.one_of(st.integers(8, 40), st.integers(8, BIGGEST))


class FlowMachine(RuleBasedStateMachine):
    """Anything may happen in any order; what holds, holds after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = contextlib.ExitStack()
        for module, numbers in SMALL.items():
            self.patches.enter_context(mock.patch.multiple(module, **numbers))
        self.socket, self.transport = open_socket()
        self.sender = Sender()
        self.accepted: dict[str, bytes] = {}
        self.closed_by_us = False
        self.closed_by_client = False
        self.was_full = False
        self.sent: list[bytes] = []
        self.taken: list[bytes] = []
        self.pings: list[bytes] = []
        self.count = 0

    @property
    def ended(self) -> bool:
        return bool(self.socket.close_code)

    # Output

    @precondition(lambda self: not self.socket.full)
    @rule(size=sizes)
    def write(self, size: int) -> None:
        ref = f"{self.count:06}"
        self.count += 1
        payload = ref.encode().ljust(size, b"x")
        assert self.socket.write(payload, self.sender, ref) is not self.ended
        if not self.ended:
            self.accepted[ref] = payload

    @precondition(lambda self: not self.transport.finished and not self.transport.output_ended)
    @rule(room=st.integers(1, 20_000))
    def drain(self, room: int) -> None:
        self.transport.drain(room)

    @precondition(lambda self: not self.transport.finished and not self.transport.output_ended)
    @rule(room=st.integers(1, 150))
    def drip(self, room: int) -> None:
        self.transport.drain(room)

    # Input

    @precondition(lambda self: not self.transport.paused and not self.ended)
    @rule(lengths=st.lists(sizes, min_size=1, max_size=4), ping=st.booleans(), cut=st.integers(0))
    def client_sends(self, lengths: list[int], ping: bool, cut: int) -> None:
        data = b""
        for length in lengths:
            payload = f"{self.count:06}".encode().ljust(length, b"y")
            self.count += 1
            self.sent.append(payload)
            data += text(payload)
        if ping:
            self.pings.append(f"{self.count:06}".encode())
            data += control(Opcode.PING, self.pings[-1])
        # In two reads; the second is in the kernel already when the first pauses us.
        at = cut % len(data)
        for piece in (data[:at], data[at:]):
            self.socket.received(piece)

    @precondition(lambda self: len(self.taken) < len(self.sent) and not self.closed_by_us)
    @rule()
    def consumer_takes(self) -> None:
        """One message; those that are not parsed yet come when there is room for them."""
        if not self.socket._inbox and self.ended:
            return
        message = step(self.socket.receive())
        assert isinstance(message, (bytes, bytearray))
        self.taken.append(bytes(message))

    # The end

    @precondition(lambda self: not self.ended)
    @rule(discard=st.booleans())
    def relay_closes(self, discard: bool) -> None:
        self.socket.close(CloseCode.REVOKED, discard=discard)
        self.closed_by_us = True
        if not discard:
            assert not self.sender.undelivered_refs

    @precondition(lambda self: not self.ended and not self.transport.paused)
    @rule()
    def client_closes(self) -> None:
        self.socket.received(control(Opcode.CLOSE, b"\x03\xe8"))
        self.closed_by_client = self.ended

    @precondition(lambda self: self.closed_by_us and not self.transport.finished)
    @rule()
    def client_answers_close(self) -> None:
        self.socket.received(control(Opcode.CLOSE, b"\x0f\xa3"))

    # What always holds

    @invariant()
    def messages_come_out_once_whole_and_in_order(self) -> None:
        texts = self.transport.data(Opcode.TEXT)
        refs = [data[:6].decode() for data in texts]
        assert texts == [self.accepted[ref] for ref in refs]
        # In order; what is missing between them was reported, all of it.
        reported = set(self.sender.undelivered_refs)
        assert len(reported) == len(self.sender.undelivered_refs)
        # (A frame that was begun is kept when the others are discarded, and may still be lost.)
        assert [*self.sender.undelivered_refs[:-1]] == sorted(self.sender.undelivered_refs[:-1])
        assert refs == [ref for ref in self.accepted if ref not in reported][: len(refs)]
        assert not reported or self.ended

    @invariant()
    def the_close_frame_is_the_last_and_stands_behind_whole_frames(self) -> None:
        kinds = [frame.opcode for frame in self.transport.frames]
        if Opcode.CLOSE in kinds:
            assert kinds.index(Opcode.CLOSE) == len(kinds) - 1
            assert self.transport.whole
        if self.transport.finished or self.transport.output_ended:
            assert kinds[-1] is Opcode.CLOSE

    @invariant()
    def output_is_bounded_and_full_tells_it(self) -> None:
        waiting = sum(map(len, self.accepted.values())) - sum(
            len(self.accepted[ref]) for ref in self._done_refs()
        )
        begun = len(self.transport.wire) - self.transport._whole_bytes
        assert waiting <= HIGH + BIGGEST
        # Between the marks it stays as it was.
        full = self.socket.full
        if not self.ended:
            if waiting - begun > HIGH:
                assert full
            if full and not self.was_full:
                assert waiting + 64 * len(self.accepted) > HIGH
        self.was_full = full

    def _done_refs(self) -> list[str]:
        on_wire = [data[:6].decode() for data in self.transport.data(Opcode.TEXT)]
        return on_wire + self.sender.undelivered_refs

    @invariant()
    def input_is_bounded_and_in_order(self) -> None:
        assert self.taken == self.sent[: len(self.taken)]
        unread = sum(map(len, self.sent[len(self.taken) :]))
        # The high-water mark, the message that crossed it, and one round of the rule above.
        assert unread <= HIGH + BIGGEST + 4 * BIGGEST
        parsed = sum(map(len, self.socket._inbox))  # type: ignore[arg-type]
        assert parsed <= HIGH + BIGGEST

    @invariant()
    def nobody_is_paused_for_ever(self) -> None:
        if self.transport.paused:
            assert not self.ended
            assert not self.socket.idle
        elif not self.ended:
            assert self.socket._inbox_bytes < HIGH

    @invariant()
    def the_latest_ping_is_answered(self) -> None:
        if self.transport.paused or self.socket.full or self.ended or not self.pings:
            return
        waiting = self.socket._outbox.waiting()
        begun = self.transport.wire[-len(self.pings[-1]) :] if waiting else b""
        answered = self.transport.data(Opcode.PONG)
        assert self.pings[-1] in answered or self.pings[-1] in begun + waiting

    def teardown(self) -> None:
        try:
            self.finish_everything()
        finally:
            self.patches.close()

    def finish_everything(self) -> None:
        """Drain the input, then lose the connection: every frame has one fate."""
        if not self.closed_by_us:
            # Of what a client sent before it closed, nothing that was parsed is lost.
            while self.socket._inbox or (not self.ended and len(self.taken) < len(self.sent)):
                self.taken.append(bytes(step(self.socket.receive())))  # type: ignore[arg-type]
            if not self.ended:
                assert self.taken == self.sent
        self.socket.lost()
        self.messages_come_out_once_whole_and_in_order()
        assert set(self._done_refs()) == set(self.accepted)
        assert len(self._done_refs()) == len(self.accepted)
        with pytest.raises(Disconnected):
            step(self.socket.receive())


TestFlow = FlowMachine.TestCase
TestFlow.settings = settings(
    max_examples=min(settings().max_examples // 2, 5_000),
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)


# The real numbers


@pytest.fixture
def memory() -> Iterator[Any]:
    """Bytes allocated since the test began."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 40, 1000, 100_000, MAX_MESSAGE_BYTES])
def test_a_stuck_reader_costs_the_high_water_mark_and_one_message(size: int, memory: Any) -> None:
    socket, _ = open_socket()
    sender = Sender()
    count = 0
    while not socket.full:
        assert socket.write(bytes(size), sender, f"{count}")
        count += 1
    assert memory() <= HIGH_WATER_BYTES + size + 50_000
    socket.lost()
    assert sender.undelivered_refs == [f"{n}" for n in range(count)]
    assert memory() < 50_000 + 60 * count


def test_unread_messages_cost_the_high_water_mark_and_one_message(memory: Any) -> None:
    socket, transport = open_socket()
    tiny = text(b"x") * 1000
    while not transport.paused:
        socket.received(tiny)
    assert memory() <= HIGH_WATER_BYTES * 1.2
    assert not socket.idle


def test_a_reader_that_lets_the_relays_own_words_pile_up_is_closed() -> None:
    socket, transport = open_socket()
    written = 0
    while socket.write(b"x" * 200):
        written += 200
        assert written <= 4 * HIGH_WATER_BYTES + MAX_MESSAGE_BYTES + 1000
    assert socket.close_code == CloseCode.TOO_SLOW
    transport.drain(10_000)
    assert transport.whole
    assert [frame.opcode for frame in transport.frames] == [Opcode.TEXT, Opcode.CLOSE]


def test_pongs_do_not_pile_up_behind_a_reader_that_takes_nothing() -> None:
    socket, transport = open_socket()
    while not socket.full:
        socket.write(b"x" * 1000)
    queued = socket._outbox.queued_bytes
    for n in range(1000):
        socket.received(control(Opcode.PING, b"%d" % n))
    assert socket._outbox.queued_bytes == queued
    transport.drain(2 * HIGH_WATER_BYTES)
    assert transport.data(Opcode.PONG) == [b"999"]


def test_pings_are_answered_while_unread_messages_wait() -> None:
    socket, transport = open_socket(room=10_000)
    while not transport.paused:
        answers = len(transport.data(Opcode.PONG))
        transport.room = 10_000
        socket.received(text(b"x" * 10_000) + control(Opcode.PING, b"here?"))
        if not transport.paused:
            assert transport.data(Opcode.PONG)[answers:] == [b"here?"]
    assert sum(map(len, socket._inbox)) > LOW_WATER_BYTES  # type: ignore[arg-type]


def test_a_flood_of_odd_frames_pauses_reading_and_not_for_ever() -> None:
    socket, transport = open_socket(room=1_000_000)
    for _ in range(3000):
        socket.received(control(Opcode.PONG))
    assert transport.paused
    assert not socket.overdue
    socket.tick(socket._odd_resume_at - 0.01)
    assert transport.paused
    with mock.patch.object(flow.time, "monotonic", return_value=socket._odd_resume_at + 5):
        socket.tick(socket._odd_resume_at + 5)
    assert not transport.paused


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 3, 9, 10, 11, 12, 50_000])
def test_a_frame_that_is_partly_out_goes_out_whole_before_the_close_frame(
    discard: bool, taken: int
) -> None:
    socket, transport = open_socket(room=taken)
    sender = Sender()
    # Large enough that its header is a piece of its own (ten bytes).
    socket.write(b"a" * 100_000, sender, "first")
    socket.write(b"b" * 100, sender, "second")
    socket.close(CloseCode.RESTARTING, discard=discard)
    transport.drain(1_000_000)
    assert transport.whole
    assert transport.frames[-1].opcode is Opcode.CLOSE
    texts = [data[:1] for data in transport.data(Opcode.TEXT)]
    # The first piece was handed to the transport, whatever the kernel took of it.
    assert texts == ([b"a"] if discard else [b"a", b"b"])
    assert sender.undelivered_refs == (["second"] if discard else [])


def test_what_a_client_sent_before_it_closed_is_still_received() -> None:
    socket, transport = open_socket(room=1000)
    socket.received(text(b"one") + text(b"two") + control(Opcode.CLOSE, b"\x03\xe8"))
    assert step(socket.receive()) == b"one"
    assert step(socket.receive()) == b"two"
    with pytest.raises(Disconnected) as end:
        step(socket.receive())
    assert end.value.code == 1000
    assert transport.finished


def test_what_a_client_sent_is_not_received_after_we_closed() -> None:
    socket, _ = open_socket(room=1000)
    socket.received(text(b"one"))
    socket.close(CloseCode.REVOKED)
    with pytest.raises(Disconnected) as end:
        step(socket.receive())
    assert end.value.code == CloseCode.REVOKED


def test_the_rest_of_an_oversized_message_is_read_and_thrown_away() -> None:
    socket, transport = open_socket(room=1000)
    head = Frame(Opcode.TEXT, b'{"id":"big"}' + b"x" * MAX_MESSAGE_BYTES).serialize(mask=True)
    socket.received(head[:1000])
    assert transport.paused
    refused = step(socket.receive())
    assert isinstance(refused, TooLarge)
    assert refused.head.startswith(b'{"id":"big"}')
    socket.close(CloseCode.TOO_LARGE)
    assert not transport.paused
    assert transport.output_ended
    for _ in range(15):
        socket.received(bytes(1024 * 1024))
    assert not transport.aborted
    for _ in range(2):
        socket.received(bytes(1024 * 1024))
    assert transport.aborted


async def test_receive_waits_and_is_woken() -> None:
    socket, _ = open_socket(room=1000)
    waiting = asyncio.create_task(socket.receive())
    await asyncio.sleep(0)
    socket.received(text(b"late"))
    assert await waiting == b"late"
    waiting = asyncio.create_task(socket.receive())
    await asyncio.sleep(0)
    socket.lost()
    with pytest.raises(Disconnected):
        await waiting


# Timers


@pytest.mark.parametrize("readable", [True, False])
def test_silence_and_stall_close_with_4008(readable: bool) -> None:
    socket, transport = open_socket(room=1000 if readable else 0)
    socket.write(b"hello")
    begun = max(socket._heard_at, socket._outbox.progress_at)
    after = TIMERS.silence if readable else TIMERS.stall
    socket.tick(begun + after - 1)
    assert not socket.close_code
    socket.tick(begun + after + 1)
    assert socket.close_code == CloseCode.TOO_SLOW
    socket.tick(begun + after + TIMERS.close + 2)
    assert transport.aborted


def test_the_clock_of_silence_stands_while_we_do_not_read() -> None:
    socket, transport = open_socket(room=1000)
    while not transport.paused:
        socket.received(text(b"x" * 50_000))
    now = socket._paused_at
    socket.tick(now + TIMERS.silence - 1)
    socket.tick(now + 2 * TIMERS.silence - 2)
    assert not socket.close_code
    assert socket.overdue
    while transport.paused:
        step(socket.receive())
    assert not socket.overdue


@pytest.mark.parametrize("discard", [True, False])
def test_what_a_client_sent_before_its_close_is_handled_unless_it_is_discarded(
    discard: bool,
) -> None:
    socket, _ = open_socket(room=10_000)
    socket.received(text(b"one") + text(b"two") + control(Opcode.CLOSE, b"\x03\xe8"))
    assert step(socket.receive()) == b"one"
    socket.close(CloseCode.REPLACED, discard=discard)
    assert (socket.close_code, socket.ended_by) == (1000, "client")
    if not discard:
        assert step(socket.receive()) == b"two"
    with pytest.raises(Disconnected):
        step(socket.receive())
