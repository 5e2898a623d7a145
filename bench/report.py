"""What the bench says: the table, and the page of results."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich.table import Table

from bench.crypto import Cost
from bench.load import Result
from coralmux import __version__

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_HEADER = """\
# Results of the bench

Newest first, each written by one run of the command that it names. The servers of
a run share its machine, its core and its minute, so compare the lines of one table,
and ratios between tables; messages/s of two tables only where the machine is the same.

Latency is from an agent's send to its phone's receive. All figures are medians over
the rounds; a ratio is the median of the rounds' own ratios, because the two runs
of a round meet the same disturbances. "CPU µs" is the server's time for each message.

The second table is of the clients: one record sealed and opened, beside the bare cipher on
the same bytes. "with JSON" adds what a client does around it: payload, base64, envelope.
"""

# Beyond this share of its core the generator sets the rate, not the server.
BUSY_GENERATOR = 0.95

# Below this share of its core the server was not what the rate hung on.
FREE_SERVER = 0.85

CRYPTO_COLUMNS = ("sealed and opened", "bare µs", "record µs", "with JSON µs", "ratio", "at most")
COLUMNS = ("server", "messages/s", "range", "p50 µs", "p99 µs", "CPU µs", "ratio")


@dataclass(frozen=True)
class Summary:
    """The medians of one server's rounds. Times in microseconds; `ratio` is to the first server."""

    name: str
    messages_per_second: float
    lowest: float
    highest: float
    p50_us: float
    p99_us: float
    server_cpu_us: float | None
    ratio: float
    rounds: int
    disturbed: int  # rounds in which something else took the server's core

    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            f"{self.messages_per_second:,.0f}",
            f"{self.lowest:,.0f}-{self.highest:,.0f}",
            f"{self.p50_us:,.0f}",
            f"{self.p99_us:,.0f}",
            "" if self.server_cpu_us is None else f"{self.server_cpu_us:.1f}",
            f"{self.ratio:.2f}",
        )


def summarise(name: str, rounds: list[Result], yardstick: list[Result]) -> Summary:
    """Medians over the rounds; the two lists are of the same rounds in the same order."""
    rates = [result.messages_per_second for result in rounds]
    cpu = [result.server_cpu_us for result in rounds if result.server_cpu_us is not None]
    return Summary(
        name=name,
        messages_per_second=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        p50_us=statistics.median(result.p50_us for result in rounds),
        p99_us=statistics.median(result.p99_us for result in rounds),
        server_cpu_us=statistics.median(cpu) if cpu else None,
        ratio=statistics.median(
            ours.messages_per_second / theirs.messages_per_second
            for ours, theirs in zip(rounds, yardstick, strict=True)
        ),
        rounds=len(rounds),
        disturbed=sum(is_disturbed(result) for result in rounds),
    )


def is_disturbed(result: Result) -> bool:
    """Whether the rate hung on other work on these cores, and not on the server.

    A generator near its limit leaves the server idle too, and is no disturbance.
    """
    return (
        result.server_cpu is not None
        and result.server_cpu < FREE_SERVER
        and result.generator_cpu <= BUSY_GENERATOR
    )


def disturbance(summaries: list[Summary]) -> str | None:
    """A warning for whoever reads the table, or None if the cores were the bench's own."""
    disturbed = sum(summary.disturbed for summary in summaries)
    if not disturbed:
        return None
    rounds = sum(summary.rounds for summary in summaries)
    return (
        f"In {disturbed} of {rounds} runs other work took part of the server's core, so the "
        "rates are too low; compare CPU µs, and run the bench again on an idle machine."
    )


def table(title: str, summaries: list[Summary]) -> Table:
    return _drawn(title, COLUMNS, [summary.cells() for summary in summaries])


def crypto_title(handshakes_per_second: float) -> str:
    return (
        f"End-to-end encryption, both ends on one core, {handshakes_per_second:,.0f} handshakes/s"
    )


def crypto_table(title: str, costs: list[Cost]) -> Table:
    return _drawn(title, CRYPTO_COLUMNS, [crypto_cells(cost) for cost in costs])


def crypto_cells(cost: Cost) -> tuple[str, ...]:
    return (
        cost.name,
        f"{cost.bare_us:,.2f}",
        f"{cost.record_us:,.2f}",
        f"{cost.wire_us:,.1f}",
        f"{cost.ratio:.2f}",
        f"{cost.goal:.1f}",
    )


def _drawn(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    drawn = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if number else "left"
        drawn.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def machine(cores: str) -> str:
    """The lines that say where and with what a table was made; `cores` is how it was pinned."""
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("daphne", "websockets", "picows", "uvloop")
    )
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores ({cores}), {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, coralmux {__version__}, "
        f"{libraries}"
    )


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(
    title: str,
    summaries: list[Summary],
    crypto: str,
    costs: list[Cost],
    *,
    command: str,
    machine: str,
) -> None:
    """Put a run on top of RESULTS.md, below the page's header; `crypto` is the second title."""
    warning = disturbance(summaries)
    section = "\n".join(
        (
            f"\n## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "",
            f"{title}",
            "",
            f"- Command: `{command}`",
            f"- Machine: {machine}",
            *([f"- {warning}"] if warning else []),
            "",
            *_markdown(COLUMNS, [summary.cells() for summary in summaries]),
            "",
            crypto,
            "",
            *_markdown(CRYPTO_COLUMNS, [crypto_cells(cost) for cost in costs]),
            "",
        )
    )
    try:
        before = RESULTS.read_text(encoding="utf-8").removeprefix(_HEADER)
    except FileNotFoundError:
        before = ""
    RESULTS.write_text(_HEADER + section + before, encoding="utf-8")


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
