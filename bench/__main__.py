"""`python -m bench`: run the servers side by side, print the table, write RESULTS.md.

The first server named is the yardstick. Then comes what end-to-end encryption costs a
client beside the bare cipher. `QUICK=1` runs one short round and writes nothing. Exit
status: 0, 1 when ours is slower than it has to be, 2 when a message was lost, doubled or
reordered or a server did not start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from bench import crypto, report
from bench.load import LoadError, Result
from bench.process import cores, pinned
from bench.servers import REPOSITORY, SERVERS, Running, ServerError

PAIRS = 50
OUTSTANDING = 4
MESSAGE_BYTES = 300
WARM_UP_SECONDS = 1.0
ROUND_SECONDS = 3.0
ROUNDS = 5
QUICK_SECONDS = 1.0

# The share of the first server's rate that ours has to reach.
GOAL = 0.6

LOG_COLUMNS = 160


def run_load(server: Running, core: int | None, *, warm_up: float, seconds: float) -> Result:
    """One round on one server; times in seconds. Raises LoadError."""
    command = [
        *(sys.executable, "-m", "bench.load"),
        *("--url", server.url),
        *("--pairs", str(PAIRS)),
        *("--outstanding", str(OUTSTANDING)),
        *("--bytes", str(MESSAGE_BYTES)),
        *("--warm-up", str(warm_up)),
        *("--seconds", str(seconds)),
        *("--server-pid", str(server.pid)),
    ]
    tokens = "\n".join(server.tokens(PAIRS))
    with pinned(core):
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            output, errors = process.communicate(tokens)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise LoadError(f"{server.name}: {errors.strip()}")
    return Result(**json.loads(output))


def measure(
    names: list[str], console: Console, *, rounds: int, warm_up: float, seconds: float
) -> list[report.Summary]:
    """All rounds on all servers; the order turns round each time. Times in seconds."""
    server_core, load_core = cores()
    results: dict[int, list[Result]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        running = [
            stack.enter_context(SERVERS[name].start(directory / f"{index}-{name}", server_core))
            for index, name in enumerate(names)
        ]
        for number in range(rounds):
            order = list(enumerate(running))
            for index, server in order if number % 2 == 0 else reversed(order):
                result = run_load(server, load_core, warm_up=warm_up, seconds=seconds)
                results[index].append(result)
                console.print(f"round {number + 1}/{rounds}  {_progress(server, result)}")
    return [report.summarise(name, results[index], results[0]) for index, name in enumerate(names)]


def _progress(server: Running, result: Result) -> str:
    line = (
        f"{server.name}: {result.messages_per_second:,.0f} messages/s, "
        f"generator's core {result.generator_cpu:.0%} busy"
    )
    if result.server_cpu is not None:
        line += f", server's {result.server_cpu:.0%}"
    if result.generator_cpu > report.BUSY_GENERATOR:
        line += "; the generator set the rate, the server can do more"
    elif report.is_disturbed(result):
        line += "; other work on these cores set the rate, the server can do more"
    return line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Messages a second through the relay and through a bare one, in one run. "
        "QUICK=1 in the environment: one short round, nothing written.",
    )
    parser.add_argument(
        "servers",
        nargs="*",
        metavar="SERVER",
        help=f"{', '.join(SERVERS)}; the first is the yardstick (default: websockets coralmux)",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=ROUND_SECONDS, help="of each round")
    arguments = parser.parse_args()
    if unknown := set(arguments.servers) - set(SERVERS):
        parser.error(f"no server is called {' or '.join(sorted(unknown))}")
    return arguments


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    arguments = _arguments()
    quick = os.environ.get("QUICK", "") not in ("", "0")
    names = arguments.servers or ["websockets", "coralmux"]
    rounds, seconds = (1, QUICK_SECONDS) if quick else (arguments.rounds, arguments.seconds)
    # As an exception, so that the servers are ended like on Ctrl-C.
    signal.signal(signal.SIGTERM, _terminated)
    # A log has no width of its own, and a table cut to 80 columns tells nothing.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_COLUMNS)
    warm_up = WARM_UP_SECONDS / 2 if quick else WARM_UP_SECONDS
    try:
        summaries = measure(names, console, rounds=rounds, warm_up=warm_up, seconds=seconds)
    except (LoadError, ServerError) as failure:
        sys.stderr.write(f"bench: {failure}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted, the servers are stopped\n")
        return 130
    title = (
        f"{PAIRS} pairs with {OUTSTANDING} messages of {MESSAGE_BYTES} bytes outstanding each, "
        f"median of {rounds} x {seconds:g} s"
    )
    console.print(report.table(title, summaries))
    if warning := report.disturbance(summaries):
        console.print(warning)
    with pinned(cores()[1]):
        costs = crypto.measure(rounds=5) if quick else crypto.measure()
        crypto_title = report.crypto_title(crypto.handshakes_per_second())
    console.print(report.crypto_table(crypto_title, costs))
    if not quick:
        server_core, load_core = cores()
        report.write(
            title,
            summaries,
            crypto_title,
            costs,
            command=" ".join(("python -m bench", *sys.argv[1:])),
            machine=report.machine(f"servers on core {server_core}, generator on {load_core}"),
        )
    return _verdict(summaries, costs, console)


def _verdict(summaries: list[report.Summary], costs: list[crypto.Cost], console: Console) -> int:
    for cost in costs:
        if cost.ratio > cost.goal:
            console.print(
                f"TOO SLOW: a {cost.name} takes {cost.ratio:.2f} times what the bare cipher "
                f"does, and may take {cost.goal}"
            )
            return 1
    yardstick, *others = summaries
    for summary in others:
        if summary.name == "coralmux" and summary.ratio < GOAL:
            console.print(
                f"TOO SLOW: coralmux forwards {summary.ratio:.2f} times what {yardstick.name} "
                f"does, and has to reach {GOAL}"
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
