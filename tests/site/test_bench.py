"""The bench itself: what it reports, and that no fault of a relay escapes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

pytest.importorskip("picows", reason="picows, of the load generator, does not run on Windows")

from bench import crypto, report
from bench.bare_relay import BareRelay, start
from bench.crypto import Cost
from bench.load import Result

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


class Every100th(BareRelay):
    """A relay that does something of its own to every hundredth message."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def forward(self, message: str | bytes, peer: ServerConnection) -> None:
        self.count += 1
        if self.count % 100 == 0:
            await self.spoil(message, peer)
        else:
            await peer.send(message)

    @abstractmethod
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        """What happens to every hundredth message."""


class Dropping(Every100th):
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        pass


class Doubling(Every100th):
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        await peer.send(message)
        await peer.send(message)


class Altering(Every100th):
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        assert isinstance(message, str)
        await peer.send(message.replace("xxx", "xxy", 1))


class AsBinary(Every100th):
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        assert isinstance(message, str)
        await peer.send(message.encode())


class Refusing(Every100th):
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        await peer.send('{"v":1,"type":"chat.error","payload":{"code":"RATE_LIMITED"}}')


class Closing(Every100th):
    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        await peer.close(1011)


class Reordering(Every100th):
    """Holds the hundredth back until the one behind it has passed."""

    held: str | bytes | None = None

    async def forward(self, message: str | bytes, peer: ServerConnection) -> None:
        await super().forward(message, peer)
        if self.held is not None and self.count % 100:
            held, self.held = self.held, None
            await peer.send(held)

    async def spoil(self, message: str | bytes, peer: ServerConnection) -> None:
        self.held = message


class Swallowing(BareRelay):
    """Loses the last messages of all, behind which nothing comes that would tell."""

    async def forward(self, message: str | bytes, peer: ServerConnection) -> None:
        assert isinstance(message, str)
        if json.loads(message)["payload"]["seq"] <= 100:
            await peer.send(message)


@asynccontextmanager
async def listening(relay: BareRelay) -> AsyncIterator[str]:
    async with await start(relay) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws"


async def generate(url: str, pairs: int = 1) -> tuple[int | None, str, str]:
    """Status, output and errors of one short run of the load generator."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", "--url", url, "--pairs", str(pairs)),
        *("--warm-up", "0.1", "--seconds", "0.5", "--server-pid", str(os.getpid())),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    tokens = "".join(f"oc_pair_{number:032x}\n" for number in range(pairs))
    output, errors = await process.communicate(tokens.encode())
    return process.returncode, output.decode(), errors.decode()


async def test_load_reports_rate_and_latency_of_a_sound_relay() -> None:
    async with listening(BareRelay()) as url:
        status, output, errors = await generate(url, pairs=3)
    assert (status, errors) == (0, "")
    result = Result(**json.loads(output))
    assert (result.pairs, result.outstanding, result.message_bytes) == (3, 4, 300)
    assert result.messages > 0
    assert result.messages_per_second == pytest.approx(result.messages / result.seconds, rel=0.01)
    assert 0 < result.p50_us <= result.p99_us < 10_000_000
    assert 0 < result.generator_cpu < 2


async def test_load_sends_valid_envelopes_of_the_size_asked_for() -> None:
    seen: list[str | bytes] = []

    class Watching(BareRelay):
        async def forward(self, message: str | bytes, peer: ServerConnection) -> None:
            seen.append(message)
            await peer.send(message)

    async with listening(Watching()) as url:
        status, _, _ = await generate(url)
    assert status == 0
    envelopes = [json.loads(message) for message in seen]
    assert {len(message) for message in seen} == {300}
    assert {(e["v"], e["type"]) for e in envelopes} == {(1, "chat.stream")}
    assert [e["payload"]["seq"] for e in envelopes] == list(range(1, len(seen) + 1))
    assert len({e["id"] for e in envelopes}) == len(seen)


@pytest.mark.parametrize(
    ("relay", "words"),
    [
        (Dropping, "message 100 was lost or overtaken: 101 came in its place"),
        (Doubling, "message 100 came twice"),
        (Reordering, "message 100 was lost or overtaken: 101 came in its place"),
        (Altering, "message 100 was altered on its way"),
        (AsBinary, "message 100 came as a frame that is not text"),
        (Refusing, "RATE_LIMITED"),
        (Closing, "was closed with 1011"),
        (Swallowing, "4 messages from 101 on had not come"),
    ],
)
async def test_load_fails_loudly_on_a_relay_that_is(relay: type[BareRelay], words: str) -> None:
    async with listening(relay()) as url:
        status, output, errors = await generate(url)
    assert status == 1
    assert output == ""
    assert words in errors


async def test_load_fails_where_nothing_listens() -> None:
    async with listening(BareRelay()) as url:
        pass
    status, _, errors = await generate(url)
    assert status == 1
    assert "cannot reach the relay" in errors


def bench(*servers: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *servers],
        cwd=REPOSITORY,
        env=os.environ | {"QUICK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("servers", [("websockets", "websockets"), ("websockets", "coralmux")])
def test_quick_bench_prints_each_server_and_writes_no_results(servers: tuple[str, str]) -> None:
    before = report.RESULTS.read_bytes() if report.RESULTS.exists() else None
    done = bench(*servers)
    # A busy machine may push one short round below the goal; that is not asked here.
    assert done.returncode in (0, 1), done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    records = [workload.name for workload in crypto.workloads()]
    assert [row[1].strip() for row in rows] == [*servers, *records]
    assert float(rows[0][-2]) == 1.0
    assert all(float(row[-2]) > 0 for row in rows[1:])
    assert "handshakes/s" in done.stdout
    assert (done.returncode == 1) == ("TOO SLOW" in done.stdout)
    assert (report.RESULTS.read_bytes() if report.RESULTS.exists() else None) == before


def test_bench_refuses_an_unknown_server() -> None:
    done = bench("nonesuch")
    assert done.returncode == 2
    assert "nonesuch" in done.stderr


def _child(parent: int, module: str) -> int:
    """The process id of a child that runs this module; waits for it to be started."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                stat = (directory / "stat").read_text(errors="replace")
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if int(stat.rpartition(")")[2].split()[1]) == parent and module.encode() in words:
                    return int(directory.name)
        time.sleep(0.05)
    raise AssertionError(f"{module} was not started within 30 s")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_bench_leaves_nothing_running_after(number: signal.Signals, status: int) -> None:
    # Where the tests run in the background SIGINT is ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", "websockets", "--seconds", "60"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            relay = _child(process.pid, "bench.bare_relay")
            load = _child(process.pid, "bench.load")
        finally:
            process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == status
    for child in (relay, load):
        assert not Path(f"/proc/{child}").exists()


def test_results_are_written_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    rounds = [_result(rate) for rate in (10.0, 30.0, 20.0)]
    summary = report.summarise("coralmux", rounds, [_result(rate) for rate in (20.0, 20.0, 20.0)])
    assert (summary.messages_per_second, summary.lowest, summary.highest) == (20.0, 10.0, 30.0)
    assert summary.ratio == 1.0
    cost = Cost("small record", bare_us=2.0, record_us=4.0, wire_us=8.0, ratio=2.0, goal=2.5)
    for title in ("older", "newer"):
        report.write(title, [summary], "encryption", [cost], command="bench", machine="a machine")
    text = report.RESULTS.read_text(encoding="utf-8")
    assert text.count("# Results of the bench") == 1
    assert text.index("newer") < text.index("older")
    assert text.count("| coralmux | 20 | 10-30 |") == 2
    assert text.count("| small record | 2.00 | 4.00 | 8.0 | 2.00 | 2.5 |") == 2


def test_encryption_is_measured_on_what_really_opens() -> None:
    for cost in crypto.measure(rounds=1, seconds=0.01):
        # A tenth of a round tells the order of what lies far apart alone.
        assert 0 < cost.bare_us < cost.wire_us
        assert cost.ratio > 0
    assert crypto.handshakes_per_second(seconds=0.05) > 1


def test_a_run_beside_other_work_is_marked_as_such() -> None:
    alone = report.summarise("coralmux", [_result(1.0, 0.99)], [_result(1.0)])
    beside = report.summarise("coralmux", [_result(1.0, 0.5)], [_result(1.0)])
    assert report.disturbance([alone]) is None
    assert "In 1 of 2 runs" in (report.disturbance([alone, beside]) or "")


def _result(rate: float, server_cpu: float | None = None) -> Result:
    return Result(
        pairs=50,
        outstanding=4,
        message_bytes=300,
        seconds=1.0,
        messages=int(rate),
        messages_per_second=rate,
        p50_us=1.0,
        p99_us=2.0,
        server_cpu_us=None,
        server_cpu=server_cpu,
        generator_cpu=0.5,
    )
