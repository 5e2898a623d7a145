"""The frame reader: what goes in by pieces comes out whole, and nothing else comes out.

Frames are made by the `websockets` library, and its protocol is the second
opinion on what may be accepted.
"""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from coralmux.protocol.close_codes import CloseCode
from coralmux_site.frames import (
    Closing,
    Event,
    FrameReader,
    Odd,
    Oversize,
    Ping,
    ProtocolViolation,
    close_frame,
    ping_frame,
    pong_frame,
    text_header,
)

MIB = 1024 * 1024
LIMIT = 200_000
MASK = b"\x01\x02\x03\x04"

# What a reader gives for a stream: its events as plain values, and how it ended.
Outcome = tuple[list[tuple[str, bytes]], str]


def serialize(frame: Frame) -> bytes:
    return frame.serialize(mask=True)


def header(first: int, length: int, *, form: int | None = None, masked: bool = True) -> bytes:
    """A frame's header; `form` 126 or 127 asks for a longer length than is needed."""
    mark = 0x80 if masked else 0
    if form is None:
        form = length if length < 126 else 126 if length < 65536 else 127
    extended = {126: "!H", 127: "!Q"}.get(form)
    lengths = b"" if extended is None else struct.pack(extended, length)
    return bytes((first, mark | form)) + lengths + (MASK if masked else b"")


def plain(event: Event) -> tuple[str, bytes]:
    if isinstance(event, (bytes, bytearray)):
        return "message", bytes(event)
    if isinstance(event, Ping):
        return "ping", event.payload
    if isinstance(event, Closing):
        return "closing", str(event.code).encode()
    if isinstance(event, Oversize):
        return "oversize", event.head
    return event.name.lower(), b""


def read(pieces: Iterable[bytes], *, limit: int = LIMIT) -> Outcome:
    """Feed a reader until it ends; events after the end are not asked for, as in the relay."""
    reader = FrameReader(limit)
    events: list[tuple[str, bytes]] = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (event := reader.next()) is not None:
                events.append(plain(event))
                if isinstance(event, (Oversize, Closing)):
                    return events, events[-1][0]
        except ProtocolViolation as violation:
            return events, f"violation {int(violation.code)}"
    return events, "waiting" if reader.pending_bytes else "even"


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Pieces of the data, cut at these places (taken modulo its length)."""
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


# Strategies

# Sizes on both sides of every boundary: of the length's form, of what is put
# together in place, and of a fragment that counts as small.
sizes = st.one_of(
    st.integers(0, 200),
    st.sampled_from([125, 126, 127, 511, 512, 513, 32767, 32768, 32769, 65535, 65536, 65537]),
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    size = draw(sizes)
    seed = draw(st.binary(min_size=1, max_size=16))
    return (seed * (size // len(seed) + 1))[:size]


@st.composite
def controls(draw: st.DrawFn) -> Frame:
    opcode = draw(st.sampled_from([Opcode.PING, Opcode.PONG]))
    return Frame(opcode, draw(st.binary(max_size=125)))


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """One message in fragments, with control frames between them."""
    opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
    fragments = draw(st.lists(payloads(), min_size=1, max_size=4))
    frames: list[Frame] = []
    for n, payload in enumerate(fragments):
        frames += draw(st.lists(controls(), max_size=2))
        kind = opcode if n == 0 else Opcode.CONT
        frames.append(Frame(kind, payload, fin=n == len(fragments) - 1))
    return frames


streams = st.lists(messages(), max_size=4).map(
    lambda lists: [f for frames in lists for f in frames]
)
places = st.lists(st.integers(0, 2**20), max_size=12)


def expected(frames: list[Frame]) -> list[tuple[str, bytes]]:
    """Expected events; a small fragment that ends nothing is one `fragment` event."""
    events: list[tuple[str, bytes]] = []
    message = b""
    for frame in frames:
        if frame.opcode is Opcode.PING:
            events.append(("ping", bytes(frame.data)))
        elif frame.opcode is Opcode.PONG:
            events.append(("pong", b""))
        elif frame.fin:
            events.append(("message", message + bytes(frame.data)))
            message = b""
        else:
            message += bytes(frame.data)
            if len(frame.data) < 512:
                events.append(("fragment", b""))
    return events


# Properties


@given(frames=streams, at=places)
@pytest.mark.slow
def test_whatever_the_cuts_the_events_are_those_of_the_frames(
    frames: list[Frame], at: list[int]
) -> None:
    data = b"".join(map(serialize, frames))
    assert read(cut(data, at), limit=MIB) == (expected(frames), "even")


@given(frames=streams)
@pytest.mark.slow
def test_byte_by_byte_is_the_same_as_at_once(frames: list[Frame]) -> None:
    data = b"".join(map(serialize, frames))[:2000]
    assert read([data[n : n + 1] for n in range(len(data))]) == read([data])


@given(data=st.binary(max_size=300), at=places)
@example(data=b"\x01\x80" + MASK + b"\x00\x80" + MASK, at=[1])
def test_random_bytes_raise_nothing_but_protocol_violation(data: bytes, at: list[int]) -> None:
    # Nor does the outcome depend on the cuts, where it is not the head of an oversized one.
    whole, pieces = read([data], limit=1000), read(cut(data, at), limit=1000)
    if whole[1] == "oversize":
        whole[0].pop()
        pieces[0].pop()
    assert pieces == whole


# Valid-looking noise: real frames in which some bytes were changed.
@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    frames = draw(st.lists(messages(), min_size=1, max_size=3))
    frames_flat = [frame for message in frames for frame in message]
    if draw(st.booleans()):
        reason = draw(st.one_of(st.binary(max_size=8), st.just(struct.pack("!H", 1000) + b"bye")))
        frames_flat.append(Frame(Opcode.CLOSE, reason))
    parts = [bytearray(serialize(frame)) for frame in frames_flat]
    for _ in range(draw(st.integers(0, 3))):
        part = parts[draw(st.integers(0, len(parts) - 1))]
        # The first two bytes decide what a frame is.
        part[draw(st.integers(0, 1))] = draw(st.integers(0, 255))
    order = draw(st.permutations(range(len(parts)))) if draw(st.booleans()) else range(len(parts))
    return b"".join(bytes(parts[n]) for n in order)


@given(data=damaged(), at=places)
@pytest.mark.slow
def test_accepts_and_refuses_what_the_websockets_library_does(data: bytes, at: list[int]) -> None:
    oracle = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)
    oracle.receive_data(data)
    theirs: list[tuple[str, bytes]] = []
    message = b""
    for frame in oracle.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode is Opcode.PING:
            theirs.append(("ping", bytes(frame.data)))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            message += bytes(frame.data)
            if frame.fin:
                theirs.append(("message", message))
                message = b""
        elif frame.opcode is Opcode.CLOSE:
            code = str(oracle.close_rcvd.code) if oracle.close_rcvd is not None else ""
            theirs.append(("closing", code.encode()))

    events, end = read(cut(data, at))
    ours = [event for event in events if event[0] in ("message", "ping", "closing")]
    refused = end.startswith("violation") or end == "oversize"
    if str(oracle.parser_exc) == "incomplete fragmented message":
        # It wants no close frame inside a message; the RFC allows control frames there.
        assert end == "closing"
        assert ours[:-1] == theirs
    elif oracle.parser_exc is not None:
        assert refused
        assert ours == theirs
    elif refused:
        # It looks at a frame only when all of it is there, and takes lengths
        # that are longer than they need to be. It has no more than we had.
        assert theirs[: len(ours)] == ours
        assert end == "oversize" or len(theirs) == len(ours) or _not_minimal(data)
    else:
        assert ours == theirs


def _not_minimal(data: bytes) -> bool:
    reader = FrameReader(LIMIT)
    reader.feed(data)
    try:
        while (event := reader.next()) is not None and not isinstance(event, Oversize):
            pass
    except ProtocolViolation as violation:
        return "minimal" in str(violation)
    return False


# Bounds


def test_a_message_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    at_limit = serialize(Frame(Opcode.TEXT, b"x" * LIMIT))
    over = serialize(Frame(Opcode.TEXT, b"x" * (LIMIT + 1)))
    assert read([at_limit]) == ([("message", b"x" * LIMIT)], "even")
    assert read([over])[1] == "oversize"


def test_the_limit_is_over_all_fragments() -> None:
    first = serialize(Frame(Opcode.TEXT, b"x" * (LIMIT - 1), fin=False))
    fits = serialize(Frame(Opcode.CONT, b"y"))
    over = serialize(Frame(Opcode.CONT, b"yz"))
    assert read([first + fits]) == ([("message", b"x" * (LIMIT - 1) + b"y")], "even")
    events, end = read([first + over])
    assert end == "oversize"
    assert events[-1][1].startswith(b"xxx")


@pytest.mark.parametrize("size", [LIMIT + 1, 2**30, 2**62, 2**63 - 1])
def test_an_oversized_frame_is_refused_by_its_header_alone(size: int) -> None:
    reader = FrameReader(LIMIT)
    reader.feed(header(0x81, size))
    assert reader.next() is None
    assert reader.head_so_far() == Oversize(b"")


def test_the_beginning_of_an_oversized_message_is_kept_unmasked_to_find_its_id_in() -> None:
    body = b'{"id":"big","type":"chat.send","payload":{"text":"' + b"x" * LIMIT
    events, end = read(cut(serialize(Frame(Opcode.TEXT, body)), [20, 100, 3000]))
    assert end == "oversize"
    assert len(events[-1][1]) <= 1024
    assert body.startswith(events[-1][1])
    assert b'"id":"big"' in events[-1][1]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param([header(0x81, 2**40)], id="header of a terabyte"),
        pytest.param([header(0x81, LIMIT)], id="header of a message at the limit"),
        pytest.param(
            [header(0x01, LIMIT - 10), b"x" * (LIMIT - 10), header(0x80, 2**30)],
            id="oversized by its last fragment",
        ),
        pytest.param([header(0x01, 1000) + b"x" * 1000] * 500, id="endless fragments"),
        pytest.param([header(0x01, 0), *[header(0x00, 0)] * 20_000], id="endless empty fragments"),
        pytest.param([header(0x81, LIMIT)[:9], *[b""] * 1000], id="half a header"),
    ],
)
def test_never_more_than_the_limit_is_held(stream: list[bytes]) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        reader = FrameReader(LIMIT)
        for piece in stream:
            reader.feed(piece)
            try:
                while (event := reader.next()) is not None and not isinstance(event, Oversize):
                    pass
            except ProtocolViolation:
                break
            if isinstance(event, Oversize):
                break
            held = tracemalloc.get_traced_memory()[0] - before
            # A bytearray that grows is allocated an eighth larger than it is.
            assert held <= LIMIT * 9 / 8 + 10_000
    finally:
        tracemalloc.stop()


def test_a_header_alone_costs_nothing() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        reader = FrameReader(5 * MIB)
        reader.feed(header(0x81, 5 * MIB) + b"x" * 1000)
        assert reader.next() is None
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_many_large_fragments_in_one_read_do_not_exhaust_the_stack() -> None:
    fragments = [serialize(Frame(Opcode.TEXT, b"a" * 512, fin=False))]
    fragments += [serialize(Frame(Opcode.CONT, b"a" * 512, fin=False))] * 5000
    fragments += [serialize(Frame(Opcode.CONT, b"end"))]
    assert read([b"".join(fragments)], limit=5 * MIB) == (
        [("message", b"a" * 512 * 5001 + b"end")],
        "even",
    )


# Every violation, with its close code


VIOLATIONS = {
    "reserved bit 1": header(0xC1, 0),
    "reserved bit 2": header(0xA1, 0),
    "reserved bit 3": header(0x91, 0),
    "reserved bit on a control frame": header(0xC9, 0),
    "unmasked text": header(0x81, 1, masked=False) + b"x",
    "unmasked ping": header(0x89, 0, masked=False),
    "unmasked close": header(0x88, 0, masked=False),
    **{f"reserved opcode {n:#x}": header(0x80 | n, 0) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "ping of 126 bytes": header(0x89, 126) + b"x" * 126,
    "pong of 126 bytes": header(0x8A, 126) + b"x" * 126,
    "close of 126 bytes": header(0x88, 126) + b"x" * 126,
    "ping of a gigabyte": header(0x89, 2**30),
    "fragmented ping": header(0x09, 0),
    "fragmented pong": header(0x0A, 0),
    "fragmented close": header(0x08, 0),
    "continuation without a start": header(0x80, 0),
    "continuation without a start, not final": header(0x00, 0),
    "continuation after a whole message": header(0x81, 0) + header(0x80, 0),
    "new text inside a fragmented message": header(0x01, 0) + header(0x81, 0),
    "new binary inside a fragmented message": header(0x01, 0) + header(0x02, 0),
    "two bytes of length for 125": header(0x81, 125, form=126) + b"x" * 125,
    "eight bytes of length for 125": header(0x81, 125, form=127) + b"x" * 125,
    "eight bytes of length for 65,535": header(0x81, 65535, form=127),
    "length over 2^63": header(0x81, 2**63),
    "longest length": header(0x81, 2**64 - 1),
    "close of one byte": serialize(Frame(Opcode.CLOSE, b"\x03")),
    **{
        f"close code {code}": serialize(Frame(Opcode.CLOSE, struct.pack("!H", code)))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_is_refused_with_1002(data: bytes) -> None:
    before = serialize(Frame(Opcode.BINARY, b"good"))
    for pieces in ([before + data], [before, data], cut(before + data, [1, 7, 11, 12])):
        events, end = read(pieces)
        assert end == f"violation {int(CloseCode.PROTOCOL_ERROR)}"
        assert ("message", b"good") in events


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent_are_read(code: int) -> None:
    frame = serialize(Frame(Opcode.CLOSE, struct.pack("!H", code) + "Grüße".encode()))
    assert read([frame]) == ([("closing", str(code).encode())], "closing")


def test_an_empty_close_frame_has_no_code() -> None:
    assert read([serialize(Frame(Opcode.CLOSE, b""))]) == ([("closing", b"1005")], "closing")


def test_a_close_reason_that_is_not_utf8_is_refused_with_1007() -> None:
    frame = serialize(Frame(Opcode.CLOSE, struct.pack("!H", 1000) + b"\xff\xfe"))
    assert read([frame]) == ([], f"violation {int(CloseCode.NOT_UTF8)}")


def test_odd_frames_are_told_apart_from_messages() -> None:
    stream = (
        serialize(Frame(Opcode.PONG, b""))
        + serialize(Frame(Opcode.TEXT, b"a", fin=False))
        + serialize(Frame(Opcode.CONT, b"b"))
    )
    reader = FrameReader(LIMIT)
    reader.feed(stream)
    assert [reader.next() for _ in range(4)] == [Odd.PONG, Odd.FRAGMENT, b"ab", None]


# Writing


@given(payload=payloads())
def test_frames_that_are_written_are_read_by_the_websockets_library(payload: bytes) -> None:
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    client.receive_data(
        text_header(len(payload))
        + payload
        + ping_frame(payload[:125])
        + pong_frame(payload[:125])
        + close_frame(4003, "revoked")
    )
    text, ping, pong, close = client.events_received()
    assert (text.opcode, text.data) == (Opcode.TEXT, payload)  # type: ignore[union-attr]
    assert (ping.opcode, ping.data) == (Opcode.PING, payload[:125])  # type: ignore[union-attr]
    assert (pong.opcode, pong.data) == (Opcode.PONG, payload[:125])  # type: ignore[union-attr]
    assert close.opcode is Opcode.CLOSE  # type: ignore[union-attr]
    assert client.close_rcvd is not None
    assert (client.close_rcvd.code, client.close_rcvd.reason) == (4003, "revoked")


def test_without_the_c_extension_frames_are_unmasked_all_the_same() -> None:
    """A platform without a wheel of `websockets` has none."""
    code = (
        "import sys; sys.modules['websockets.speedups'] = None\n"
        "from coralmux_site.frames import FrameReader\n"
        "reader = FrameReader(100)\n"
        "reader.feed(bytes.fromhex('818537fa213d7f9f4d5158'))\n"
        "assert reader.next() == b'Hello'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
