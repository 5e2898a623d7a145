"""The quota: what is counted, what it costs, who hears of its end, and what survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import websockets

from tests.support.client import log_in, pair
from tests.support.process import RelayProcess, relay_process
from tests.support.waiting import eventually

KIB = 1024


def frame(type: str, size: int, id: str = "q") -> str:
    """An envelope of exactly so many bytes."""
    empty = f'{{"type":"{type}","id":"{id}","payload":{{"x":""}}}}'
    return empty.replace('""', '"' + "x" * (size - len(empty)) + '"')


def usage(relay: RelayProcess, label: str) -> dict[str, int]:
    """What `manage.py usage` says about a token, over all days."""
    done = relay.manage("usage", "--json")
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout) if row["label"] == label]
    names = ("bytes_from_phone", "bytes_from_agent", "messages_from_phone", "messages_from_agent")
    return {name: sum(row[name] for row in rows) for name in names}


async def used(relay: RelayProcess, token: str) -> int:
    async with log_in(relay.url, token, "phone") as phone:
        assert phone.greeting["monthly_used_bytes"] >= phone.greeting["daily_used_bytes"]
        return int(phone.greeting["daily_used_bytes"])


# What is counted


async def test_payload_bytes_count_once_and_in_both_directions(relay: RelayProcess) -> None:
    token = relay.token()
    async with pair(relay.url, token) as (phone, agent):
        await phone.send_raw(frame("chat.send", 1000))
        await agent.receive()
        await agent.send_raw(frame("chat.done", 2000))
        await agent.send_raw('{"type":"chat.stream","payload":{"x":"ü"}}')
        await phone.receive()
        await phone.receive()
    assert await used(relay, token) == 3000 + len(
        '{"type":"chat.stream","payload":{"x":"ü"}}'.encode()
    )


async def test_what_is_refused_or_answered_by_the_relay_does_not_count(
    relay: RelayProcess,
) -> None:
    token = relay.token(phone_messages_per_minute=1)
    async with log_in(relay.url, token, "phone") as phone:
        await phone.send("chat.send")
        await phone.expect("chat.error")
        await phone.send_raw("{broken")
        await phone.expect("chat.error")
        await phone.barrier()
        async with log_in(relay.url, token, "agent"):
            await phone.expect("status")
            id = await phone.send("chat.send")
            await phone.expect_error("RATE_LIMITED", ref=id)
    assert await used(relay, token) == 0


@pytest.mark.slow
async def test_a_day_is_one_row_however_many_messages(relay: RelayProcess) -> None:
    async with pair(relay.url, relay.token(label="one row")) as (phone, agent):
        for _ in range(1000):
            await agent.send_raw(frame("chat.stream", 100))
        for _ in range(1000):
            await phone.receive()
        expected = {
            "bytes_from_phone": 0,
            "bytes_from_agent": 100_000,
            "messages_from_phone": 0,
            "messages_from_agent": 1000,
        }
        # Flushed in batches while the pair goes on.
        await eventually(lambda: usage(relay, "one row") == expected, within=30)
        rows = json.loads(relay.manage("usage", "--json").stdout)
        assert len([row for row in rows if row["label"] == "one row"]) <= 2  # over midnight, two


# Exhaustion


@pytest.mark.parametrize(
    ("quota", "code"),
    [
        ({"daily_quota_bytes": 5000}, "DAILY_QUOTA_EXCEEDED"),
        ({"monthly_quota_bytes": 5000}, "MONTHLY_QUOTA_EXCEEDED"),
        ({"daily_quota_bytes": 5000, "monthly_quota_bytes": 5000}, "MONTHLY_QUOTA_EXCEEDED"),
    ],
)
async def test_exhaustion_in_the_middle_of_a_reply_is_told_to_both_sides(
    relay: RelayProcess, quota: dict[str, int], code: str
) -> None:
    async with pair(relay.url, relay.token(**quota)) as (phone, agent):
        ids = []
        for n in range(20):
            ids.append(f"d{n}")
            await agent.send_raw(frame("chat.stream", 1000, ids[-1]))
        # Refused when used >= quota: the fifth makes it 5,000, the sixth is the first refused.
        errors = [m["payload"] for m in await agent.barrier()]
        assert [error["ref"] for error in errors] == ids[5:]
        assert {error["code"] for error in errors} == {code}
        heard = await phone.barrier()
        assert [m["id"] for m in heard[:5]] == ids[:5]
        # The receiver hears of it once, about no message of its own.
        assert [m["type"] for m in heard[5:]] == ["chat.error"]
        assert heard[5]["payload"]["code"] == code
        assert "ref" not in heard[5]["payload"]
        # Each refused message of the other side is named too, and nobody is told again.
        id = await phone.send("chat.send", {"text": "?"})
        await phone.expect_error(code, ref=id)
        assert await phone.barrier() == []
        assert await agent.barrier() == []


async def test_the_last_message_may_go_over_the_quota(relay: RelayProcess) -> None:
    token = relay.token(daily_quota_bytes=5000)
    async with pair(relay.url, token) as (phone, agent):
        await phone.send_raw(frame("chat.send", 4999))
        await agent.receive()
        await phone.send_raw(frame("chat.send", 9000))
        await agent.receive()
        await phone.send_raw(frame("chat.send", 100, "over"))
        await phone.expect_error("DAILY_QUOTA_EXCEEDED", ref="over")
    assert await used(relay, token) == 13_999


@pytest.mark.parametrize("name", ["key_exchange", "chat.error"])
async def test_key_exchange_and_chat_error_up_to_4_kib_always_pass(
    relay: RelayProcess, name: str
) -> None:
    async with pair(relay.url, relay.token(daily_quota_bytes=1)) as (phone, agent):
        await phone.send_raw(frame("chat.send", 100))
        await agent.receive()
        for sender, receiver in ((agent, phone), (phone, agent)):
            await sender.send_raw(frame(name, 4096))
            assert await receiver.receive_raw() == frame(name, 4096)
        await agent.send_raw(frame(name, 4097, "large"))
        await agent.expect_error("DAILY_QUOTA_EXCEEDED", ref="large")
        assert [m["type"] for m in await phone.barrier()] == ["chat.error"]
        # Nothing else of that size does.
        await agent.send_raw(frame("chat.done", 4096, "done"))
        await agent.expect_error("DAILY_QUOTA_EXCEEDED", ref="done")


async def test_a_used_up_quota_stays_used_up_for_who_connects_again(relay: RelayProcess) -> None:
    token = relay.token(daily_quota_bytes=500)
    async with pair(relay.url, token) as (phone, agent):
        await phone.send_raw(frame("chat.send", 500))
        await agent.receive()
    async with pair(relay.url, token) as (phone, agent):
        assert phone.greeting["daily_quota_bytes"] == phone.greeting["daily_used_bytes"] == 500
        id = await agent.send("chat.stream")
        await agent.expect_error("DAILY_QUOTA_EXCEEDED", ref=id)


# The relay with a clock of ours: time.time() is moved by what the file says.
_MOVED_CLOCK = """
import sys, time
from pathlib import Path
from coralmux_site import cli
real, file = time.time, Path("moved-by")
time.time = lambda: real() + (float(file.read_text()) if file.exists() else 0.0)
cli.main(sys.argv[1:])
"""


_ADDRESS = ("-addr", "127.0.0.1:{port}")


def move_clock(directory: Path, to: datetime) -> None:
    new = directory / "moved-by.new"
    new.write_text(str(to.timestamp() - time.time()))
    new.rename(directory / "moved-by")


def end_of_next_month() -> datetime:
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(2):
        first = (first + timedelta(days=32)).replace(day=1)
    return first


@pytest.mark.parametrize(
    ("quota", "code"),
    [
        ("daily_quota_bytes", "DAILY_QUOTA_EXCEEDED"),
        ("monthly_quota_bytes", "MONTHLY_QUOTA_EXCEEDED"),
    ],
)
@pytest.mark.slow
async def test_retry_after_ms_of_a_quota_is_true_at_the_end_of_the_utc_day_or_month(
    quota: str, code: str
) -> None:
    with relay_process(command=[sys.executable, "-c", _MOVED_CLOCK, *_ADDRESS]) as relay:
        token = relay.token(**{quota: 500})
        async with pair(relay.url, token) as (phone, agent):
            await phone.send_raw(frame("chat.send", 500))
            await agent.receive()
            assert await phone.barrier() == []
            move_clock(relay.directory, end_of_next_month() - timedelta(seconds=4))
            # In that day and month nothing was used so far.
            await phone.send_raw(frame("chat.send", 500))
            await agent.receive()
            await phone.send_raw(frame("chat.send", 100, "again"))
            error = await phone.expect_error(code, ref="again")
            assert 0 < error["retry_after_ms"] <= 4002
            assert [m["payload"]["code"] for m in await agent.barrier()] == [code]
            await asyncio.sleep(error["retry_after_ms"] / 1000)
            await phone.send_raw(frame("chat.send", 100, "again"))
            assert await phone.barrier() == []
            assert (await agent.receive())["id"] == "again"


# Writing it down


@pytest.mark.slow
async def test_sigterm_writes_what_was_counted_to_the_byte_and_a_restart_knows_it() -> None:
    # No flush comes by itself within the test's time.
    with relay_process(env={"CORALMUX_FLUSH_INTERVAL_SECONDS": "600"}) as relay:
        token = relay.token(label="counted", daily_quota_bytes=1_000_000)
        sizes = [101 + 997 * n for n in range(20)]
        async with pair(relay.url, token) as (phone, agent):
            for size in sizes:
                await phone.send_raw(frame("chat.send", size))
                await agent.receive()
            for size in sizes[:10]:
                await agent.send_raw(frame("chat.stream", size))
                await phone.receive()
            assert usage(relay, "counted")["bytes_from_phone"] == 0
            assert await asyncio.to_thread(relay.terminate) == 0
        assert usage(relay, "counted") == {
            "bytes_from_phone": sum(sizes),
            "bytes_from_agent": sum(sizes[:10]),
            "messages_from_phone": 20,
            "messages_from_agent": 10,
        }
        relay.start()
        total = sum(sizes) + sum(sizes[:10])
        async with pair(relay.url, token) as (phone, agent):
            assert phone.greeting["daily_used_bytes"] == total
            assert phone.greeting["monthly_used_bytes"] == total
            await phone.send_raw(frame("chat.send", 1_000_000 - total))
            await agent.receive()
            await phone.send_raw(frame("chat.send", 100, "over"))
            await phone.expect_error("DAILY_QUOTA_EXCEEDED", ref="over")


@pytest.mark.slow
async def test_usage_is_written_at_sigterm_while_messages_still_flow() -> None:
    with relay_process() as relay:
        token = relay.token(label="flowing")
        async with pair(relay.url, token, max_queue=None) as (phone, agent):

            async def pour() -> None:
                while True:
                    await agent.send_raw(frame("chat.stream", 1000))

            pouring = asyncio.create_task(pour())
            got = 0
            while got < 500:
                await phone.expect("chat.stream")
                got += 1
            terminated = asyncio.create_task(asyncio.to_thread(relay.terminate))
            with contextlib.suppress(websockets.ConnectionClosed):
                while (await phone.receive())["type"] == "chat.stream":
                    got += 1
            assert phone.connection.close_code == 1012
            assert await terminated == 0
            await asyncio.gather(pouring, return_exceptions=True)
        # What was counted was buffered for the phone, and what was buffered arrived.
        counted = usage(relay, "flowing")
        assert counted["messages_from_agent"] == got
        assert counted["bytes_from_agent"] == got * 1000
