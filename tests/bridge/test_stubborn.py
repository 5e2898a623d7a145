"""A backend of somebody else's that does not start, or does not end, in a real process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bridge.bridges import ROOT, Bridge, bridge
from tests.bridge.test_run import begun
from tests.client.meeting import new_link
from tests.support.client import SOON
from tests.support.process import RelayProcess

pytestmark = pytest.mark.slow

MODULE = """\
import asyncio, threading, time
import msgspec
from coralmux import BackendError
from coralmux.bridge import Backend

class Settings(msgspec.Struct, forbid_unknown_fields=True):
    start: str = ""

class Stubborn(Backend):
    Settings = Settings

    async def start(self):
        match self.settings.start:
            case "explained":
                raise BackendError("The model is missing. Fetch it.")
            case "broken":
                raise ValueError("what nobody may read")
            case "never":
                self.place.say("Starting, for ever.")
                await asyncio.Event().wait()

    async def stop(self):
        if not self.settings.start:
            await asyncio.Event().wait()

    async def reply(self, question):
        yield "begun"
        match question.text:
            case "task":
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        pass
            case "asyncio's thread":
                await asyncio.to_thread(time.sleep, 600)
            case "thread":
                threading.Thread(target=time.sleep, args=(600,)).start()
                await asyncio.Event().wait()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """PYTHONPATH with a package that offers the backend, as pip would have installed it."""
    place = tmp_path / "installed"
    about = place / "stubborn-1.0.dist-info"
    about.mkdir(parents=True)
    (place / "stubborn.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stubborn\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[coralmux.backends]\nstubborn = stubborn:Stubborn\n")
    return f"{ROOT}:{place}"


@pytest.mark.parametrize("what", ["task", "asyncio's thread", "thread"])
async def test_it_leaves_whatever_the_backend_still_does(
    relay: RelayProcess, tmp_path: Path, path: str, what: str
) -> None:
    config = 'backend = "stubborn"\ndrain_seconds = 0.1\n'
    async with (
        bridge(relay, tmp_path, config, PYTHONPATH=path) as there,
        there.phone() as phone,
    ):
        task = await begun(phone.ask(what))
        there.signal()
        await there.says("Leaving; 1 answer may end first")
        there.signal()
        async with asyncio.timeout(1.5 * SOON):
            assert await there.ended() == 0
        await asyncio.wait([task])
        assert task.exception() is not None


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("explained", "The model is missing. Fetch it."),
        ("broken", "The backend stubborn failed (ValueError)."),
    ],
)
async def test_a_backend_that_does_not_start_is_told_in_one_line(
    relay: RelayProcess, tmp_path: Path, path: str, start: str, words: str
) -> None:
    there = Bridge(tmp_path, [new_link(relay)], [])
    there.write(f'backend = "stubborn"\n[stubborn]\nstart = "{start}"\n')
    there.start(PYTHONPATH=path)
    assert await there.ended() == 1
    assert there.output()[9:] == f"{words}\n"


async def test_a_start_that_takes_for_ever_can_be_broken_off(
    relay: RelayProcess, tmp_path: Path, path: str
) -> None:
    there = Bridge(tmp_path, [new_link(relay)], [])
    there.write('backend = "stubborn"\n[stubborn]\nstart = "never"\n')
    there.start(PYTHONPATH=path)
    try:
        await there.says("Starting, for ever.")
        there.signal()
        async with asyncio.timeout(SOON):
            assert await there.ended() == 0
    finally:
        there.process.kill()
