"""`coralmux-agent run` as a process: phones are answered, and it leaves as it should."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import coralmux
from coralmux.bridge.conversations import phone_key
from coralmux.bridge.running import is_running
from coralmux.bridge.seen import Seen
from coralmux.bridge.serving import served
from coralmux.events import PeerStatus
from tests.bridge.bridges import PATIENCE, Bridge, bridge
from tests.client.meeting import Events, new_link
from tests.support.client import SOON
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

# Each starts a Python or two.
pytestmark = pytest.mark.slow

# Says "begun", waits for the file "go" beside it, and says "ended".
SLOW = """\
import pathlib, sys, time
sys.stdin.read()
print("begun", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
print("ended", flush=True)
"""


def slow_config(directory: Path, more: str = "") -> str:
    """The config of a bridge whose answers end when `directory / "go"` is there."""
    program = directory / "slow.py"
    program.write_text(SLOW)
    command = json.dumps([sys.executable, str(program), str(directory / "go")])
    return f'backend = "command"\n{more}\n[command]\ncommand = {command}\n'


async def begun(answer: coralmux.Answer) -> asyncio.Task[str]:
    """The answer's whole text, of which something has come."""
    task = asyncio.create_task(answer._whole())
    await eventually(lambda: answer.text, 2 * SOON)
    return task


async def test_a_phone_is_answered_and_seen(relay: RelayProcess, tmp_path: Path) -> None:
    async with bridge(relay, tmp_path) as there:
        async with there.phone() as phone:
            assert await phone.ask("Hello there") == "Hello there"
            assert [entry.content for entry in await phone.history()] == ["Hello there"] * 2
            assert phone.agent is not None
            assert phone.agent.verified
        await there.says("the phone has left")
        there.signal()
        assert await there.ended() == 0
        output = there.output()
        for words in (
            "Agent answers 1 phone by the backend echo. Ctrl-C ends it.",
            f"Phone 0: connected to 127.0.0.1:{relay.port}.",
            "Phone 0: the phone is here, verified.",
            "Phone 0: a question (11 characters).",
            "Phone 0: answered after ",
            " 11 characters in 2 deltas.",
            "Leaving.",
        ):
            assert words in output
        assert "Hello" not in output
        (seen,) = Seen(there.data).load().values()
        assert (seen["name"], seen["verified"]) == ("Phone 0", True)
    for path in there.data.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_bridge_that_starts_again_knows_its_phones_and_what_was_said(
    relay: RelayProcess, tmp_path: Path
) -> None:
    store = coralmux.MemoryStore()
    async with bridge(relay, tmp_path) as there:
        async with there.phone(store=store) as phone:
            assert await phone.ask("before") == "before"
        there.signal()
        assert await there.ended() == 0
        there.start()
        await there.connected()
        async with there.phone(store=store) as phone:
            assert await phone.ask("after") == "after"
            found = [entry.content for entry in await phone.history()]
            assert found == ["before", "before", "after", "after"]


async def test_for_programs_it_logs_objects(relay: RelayProcess, tmp_path: Path) -> None:
    async with bridge(relay, tmp_path, options=["--log-json"]) as there:
        async with there.phone() as phone:
            await phone.ask("a secret question")
        await there.says('"event": "phone_left"')
        there.signal()
        assert await there.ended() == 0
        lines = [json.loads(line) for line in there.output().splitlines()]
        assert {"serving", "connected", "phone_here", "asked", "answered", "left", "log"} <= {
            line["event"] for line in lines
        }
        (answered,) = (line for line in lines if line["event"] == "answered")
        assert (answered["phone"], answered["characters"], answered["deltas"]) == ("Phone 0", 17, 3)
        assert answered["seconds"] >= 0
        assert answered["level"] == "info"
        assert answered["timestamp"].endswith("Z")
        assert "secret question" not in there.output()


async def test_a_quiet_one_says_only_what_goes_wrong(relay: RelayProcess, tmp_path: Path) -> None:
    there = Bridge(tmp_path, [new_link(relay)], ["--quiet"])
    there.write('backend = "echo"\n')
    there.start()
    try:
        async with there.phone() as phone:
            assert await phone.ask("Hello") == "Hello"
        there.signal()
        assert await there.ended() == 0
        assert there.output() == ""
    finally:
        there.process.kill()


async def test_a_link_for_once_is_served_instead_of_the_config_s_phones(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = new_link(relay)
    async with bridge(relay, tmp_path, phones=0, CORALMUX_AGENT_LINK=link.uri()) as there:
        there.links = [link]
        await there.connected()
        async with there.phone() as phone:
            assert await phone.ask("Hello") == "Hello"


# Leaving.


async def test_running_answers_may_end_before_it_leaves(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        bridge(relay, tmp_path, slow_config(tmp_path)) as there,
        there.phone() as phone,
    ):
        task = await begun(phone.ask("?"))
        there.signal()
        await there.says(
            "Leaving; 1 answer may end first, 30 s at most. Ctrl-C again leaves at once."
        )
        with pytest.raises(coralmux.AgentError, match="shutting down"):
            await phone.ask("too late")
        (tmp_path / "go").touch()
        assert await task == "begun\nended\n"
        assert await there.ended() == 0
        assert "Left." in there.output()


async def test_answers_that_take_too_long_are_cut_off_and_kept(
    relay: RelayProcess, tmp_path: Path
) -> None:
    config = slow_config(tmp_path, "drain_seconds = 0.2")
    store = coralmux.MemoryStore()
    async with bridge(relay, tmp_path, config) as there:
        async with there.phone(store=store) as phone:
            task = await begun(phone.ask("?"))
            there.signal()
            assert await there.ended() == 0
            with pytest.raises(coralmux.ConnectionLost):
                await task
        there.start()
        await there.connected()
        async with there.phone(store=store) as phone:
            assert [entry.content for entry in await phone.history()] == ["?", "begun\n"]


async def test_asked_twice_it_leaves_at_once(relay: RelayProcess, tmp_path: Path) -> None:
    async with (
        bridge(relay, tmp_path, slow_config(tmp_path)) as there,
        there.phone() as phone,
    ):
        task = await begun(phone.ask("?"))
        there.signal(signal.SIGINT)
        await there.says("may end first")
        there.signal(signal.SIGINT)
        async with asyncio.timeout(SOON):
            assert await there.ended() == 0
        with pytest.raises(coralmux.ConnectionLost):
            await task


async def test_a_closed_terminal_lets_running_answers_end_too(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        bridge(relay, tmp_path, slow_config(tmp_path)) as there,
        there.phone() as phone,
    ):
        task = await begun(phone.ask("?"))
        there.signal(signal.SIGHUP)
        await there.says("may end first")
        there.signal(signal.SIGHUP)  # of the shell, behind the system's
        (tmp_path / "go").touch()
        assert await task == "begun\nended\n"
        assert await there.ended() == 0


async def test_under_nohup_a_closed_terminal_is_nothing(
    relay: RelayProcess, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a child inherits
    try:
        async with bridge(relay, tmp_path) as there, there.phone() as phone:
            there.signal(signal.SIGHUP)
            assert await phone.ask("Hello") == "Hello"
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_second_agent_on_the_same_directory_is_refused(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with bridge(relay, tmp_path) as there:
        assert is_running(there.data)
        second = await asyncio.to_thread(
            subprocess.run, there.process.args, cwd=tmp_path, capture_output=True, check=False
        )
        assert second.returncode == 1
        words = f"An agent runs on {there.data} already. Stop it first"
        assert words in second.stderr.decode()
        async with there.phone() as phone:
            assert await phone.ask("Hello") == "Hello"
    assert not is_running(there.data)


async def test_a_revoked_pairing_ends_and_the_others_go_on_until_the_last_one(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with bridge(relay, tmp_path, phones=2) as there:

        def revoke(n: int) -> None:
            token = there.links[n].token
            assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204

        revoke(0)
        await there.says("Phone 0: ", 3)
        async with there.phone(1) as phone:
            assert await phone.ask("Hello") == "Hello"
        revoke(1)
        assert await there.ended() == 2
        assert "No phone is left to serve. " in there.output()
        assert "Pair anew: coralmux-agent pair" in there.output()


@pytest.mark.parametrize(
    ("config", "status", "words"),
    [
        ('backend = "nonsense"\n', 2, "There is no backend 'nonsense'"),
        ('backend = "echo"\n[echo]\nmodel = "x"\n', 2, "[echo] has no setting 'model'"),
    ],
)
async def test_a_backend_that_cannot_be_had_is_explained_in_one_line(
    relay: RelayProcess, tmp_path: Path, config: str, status: int, words: str
) -> None:
    there = Bridge(tmp_path, [new_link(relay)], [])
    there.write(config)
    there.start()
    assert await there.ended() == status
    (line,) = there.output().splitlines()
    assert words in line


# The config, while it runs.


@pytest.fixture
async def watched(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[Bridge]:
    async with bridge(relay, tmp_path) as there:
        yield there


async def test_a_phone_that_is_paired_meanwhile_is_taken_on(
    relay: RelayProcess, watched: Bridge
) -> None:
    watched.links.append(new_link(relay))
    watched.write('backend = "echo"\n')
    await watched.connected()
    assert "Phone 1: taken on." in watched.output()
    async with watched.phone(0) as first, watched.phone(1) as second:
        assert await first.ask("one") == "one"
        assert await second.ask("two") == "two"


async def test_a_phone_that_is_taken_out_of_the_config_meanwhile_is_let_go(
    relay: RelayProcess, watched: Bridge
) -> None:
    events = Events()
    async with watched.phone(0, on_event=events) as phone:
        await phone.ask("one")
        gone, kept = watched.links[0], new_link(relay)
        watched.links = [kept]
        watched.write('backend = "echo"\n')
        await watched.says("Phone 0: let go.")
        await watched.says("connected to ", 2)
        keys = frozenset({phone_key(kept.token)})
        await eventually(lambda: served(watched.data) == keys, PATIENCE)
        await eventually(lambda: PeerStatus(online=False) in events.all)
    async with watched.phone(0) as phone:
        assert await phone.ask("new") == "new"
    watched.signal()
    assert await watched.ended() == 0
    assert served(watched.data) == frozenset()
    assert [seen["name"] for seen in Seen(watched.data).load().values()] == ["Phone 0"]
    watched.links.append(gone)  # it must not stand in the output either


async def test_the_last_phone_may_be_paired_anew_and_when_it_goes_so_does_the_agent(
    relay: RelayProcess, watched: Bridge
) -> None:
    gone = watched.links[0]
    watched.links = [coralmux.PairingLink.new(gone.relay, gone.token)]
    watched.write('backend = "echo"\n')
    await watched.says("connected to ", 2)
    async with watched.phone(0) as phone:
        assert await phone.ask("new secret") == "new secret"
    watched.links = []
    watched.write('backend = "echo"\n')
    assert await watched.ended() == 2
    assert "No phone is left to serve. Pair one: coralmux-agent pair" in watched.output()
    watched.links = [gone]


async def test_a_config_that_breaks_is_told_once_and_the_old_one_holds(watched: Bridge) -> None:
    before = watched.config.read_text()
    watched.config.write_text("backend = \n")
    await watched.says("The config was changed and is not taken: ")
    async with watched.phone(0) as phone:
        await asyncio.sleep(2.2)  # two more looks at it, at least: nothing may come of them
        assert await phone.ask("Hello") == "Hello"
        watched.config.write_text('name = "Another"\n' + before)
        await watched.says("the rest holds from the next start on")
        assert await phone.ask("Hello") == "Hello"
    assert watched.output().count("is not taken") == 1


@pytest.mark.parametrize("how", ["empty", "missing"])
async def test_a_config_that_is_gone_lets_no_phone_go(watched: Bridge, how: str) -> None:
    before = watched.config.read_text()
    if how == "empty":
        watched.config.write_text("")
    else:
        watched.config.unlink()
    await watched.says(f"is not taken: {watched.config} is {how}.")
    async with watched.phone(0) as phone:
        assert await phone.ask("Hello") == "Hello"
    watched.config.write_text('name = "Another"\n' + before)
    await watched.says("the rest holds from the next start on")
    assert ": let go." not in watched.output()


async def test_a_config_that_is_being_written_is_not_taken_by_halves(watched: Bridge) -> None:
    before = watched.config.read_text()
    half = 'backend = "echo"\n'  # a whole config by itself, and its phones are still to come
    for n in range(30):
        watched.config.write_text(half + "#" * n)
        await asyncio.sleep(0.1)
    watched.config.write_text('name = "Another"\n' + before)
    await watched.says("the rest holds from the next start on")
    assert ": let go." not in watched.output()
