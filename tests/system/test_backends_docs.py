"""docs/backends.md: its programs run as they stand there, and no setting is left out."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from coralmux import AgentError, Attachment
from coralmux.bridge import backends
from tests.bridge.bridges import Bridge, bridge
from tests.bridge.doubles.chat_server import chat_server, refuses
from tests.support.model import model_server as model_server
from tests.support.process import RelayProcess, clean_environment
from tests.system.backends_page import PAGE, ROOT, blocks, program, section

# `python`, as the page has it, is the one with our packages.
PATH = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}

SECTIONS = {
    "autogen": "AutoGen",
    "autogpt": "AutoGPT",
    "command": "Your own bot: any program",
    "crewai": "CrewAI",
    "langchain": "LangChain",
    "openai": "`openai`",
    "openclaw": "OpenClaw",
}


def write(directory: Path, *names: str) -> None:
    """Programs of the page, in files of their names."""
    for name in names:
        (directory / name).write_text(program(name))


def options(title: str, number: int = 0) -> list[str]:
    """What stands behind the section's `coralmux-agent run`."""
    text = "".join(blocks(title, "bash"))
    lines = re.findall(r"^coralmux-agent run(.*)$", text.replace("\\\n", ""), re.MULTILINE)
    return shlex.split(lines[number], comments=True)


async def check(there: Bridge, **env: str) -> str:
    """What `coralmux-agent check` prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coralmux.bridge.cli", "check"),
        *("--config", str(there.config), "--data-dir", str(there.directory / "data")),
        env=clean_environment(**{"PYTHONPATH": str(ROOT), **env}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return (await process.communicate())[0].decode()


@pytest.mark.slow
async def test_a_program_is_a_bot(relay: RelayProcess, tmp_path: Path) -> None:
    write(tmp_path, "bot.py")
    arguments = options("Your own bot: any program")
    async with (
        bridge(relay, tmp_path, options=arguments, **PATH) as there,
        there.phone() as phone,
    ):
        deltas = [delta async for delta in phone.ask("Hello there")]
    assert "".join(deltas) == "olleH ereht "


@pytest.mark.slow
async def test_a_program_that_wants_the_conversation_gets_it(
    relay: RelayProcess, tmp_path: Path
) -> None:
    write(tmp_path, "remembers.py")
    [config] = blocks("Your own bot: any program", "toml")
    async with bridge(relay, tmp_path, config, **PATH) as there, there.phone() as phone:
        assert await phone.ask("One") == "Hello!\n"
        note = Attachment("note.txt", "text/plain", b"12345")
        answer = await phone.ask("Two", images=[note])
    assert answer == "You said 'Two', and 'One' before.\nnote.txt has 5 bytes.\n"


@pytest.mark.slow
async def test_a_backend_of_ones_own_is_found_by_its_entry_point(
    relay: RelayProcess, tmp_path: Path
) -> None:
    write(tmp_path, "parrot.py")
    # What `pip install .` makes of it.
    project = tomllib.loads(program("pyproject.toml"))["project"]
    (about := tmp_path / "coralmux_parrot-1.0.dist-info").mkdir()
    (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    [(group, points)] = project["entry-points"].items()
    listed = "".join(f"{name} = {value}\n" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[{group}]\n{listed}")
    environment = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    [config] = blocks("Your own bot: a backend", "toml")
    async with bridge(relay, tmp_path, config, **environment) as there, there.phone() as phone:
        assert await phone.ask("Polly!") == "Polly! Polly! Polly! "
        with pytest.raises(AgentError, match="A parrot needs words"):
            await phone.ask(" ", images=[Attachment("a.txt", "text/plain", b"1")])
        checked = await check(there, **environment)
    assert "It says everything 3 times." in checked


@pytest.mark.slow
async def test_a_server_of_openais_language_answers_and_is_checked(
    relay: RelayProcess, tmp_path: Path, model_server: str
) -> None:
    [config] = blocks("`openai`", "toml")
    right = config.replace("http://127.0.0.1:11434/v1", model_server).replace("llama3.2", "smollm2")
    assert "smollm2" in right
    async with bridge(relay, tmp_path, right) as there, there.phone() as phone:
        deltas = [delta async for delta in phone.ask("Say hello")]
        assert len(deltas) >= 3
        assert "✓ The model smollm2 answers" in await check(there)


@pytest.mark.slow
async def test_a_model_that_the_server_does_not_know_is_found_out(
    relay: RelayProcess, tmp_path: Path
) -> None:
    """llama.cpp takes any name for its model, so another server stands in for Ollama."""
    [config] = blocks("`openai`", "toml")
    [printed] = blocks("`openai`", "text")
    async with chat_server() as server:
        server.models = ["smollm2"]
        server.answer = refuses(404, {"error": {"message": "model 'llama3.2' not found"}})
        config = config.replace("http://127.0.0.1:11434/v1", server.base_url)
        async with bridge(relay, tmp_path, config) as there:
            checked = await check(there)
    for line in printed.replace("127.0.0.1:11434", server.base_url.split("/")[2]).splitlines():
        assert line in checked


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(0, "chain.py"), (1, "graph.py")])
async def test_a_chain_and_a_graph_of_langchain_answer(
    relay: RelayProcess, tmp_path: Path, model_server: str, number: int, name: str
) -> None:
    write(tmp_path, name)
    arguments = options("LangChain", number)
    environment = PATH | {"MODEL_URL": model_server}
    async with (
        bridge(relay, tmp_path, options=arguments, **environment) as there,
        there.phone() as phone,
    ):
        deltas = [delta async for delta in phone.ask("Say hello")]
        assert len(deltas) >= 3


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_of_a_backend_is_in_its_table_and_no_other(name: str) -> None:
    known = {field.encode_name for field in msgspec.structs.fields(backends.find(name).Settings)}
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section(SECTIONS[name]), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(named))) == known


@pytest.mark.parametrize("name", SECTIONS)
def test_the_configs_of_the_page_are_taken(name: str) -> None:
    for config in map(tomllib.loads, blocks(SECTIONS[name], "toml")):
        assert config["backend"] == name
        msgspec.convert(config.get(name, {}), backends.find(name).Settings)


def test_every_backend_is_in_the_table_and_its_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    }
    rows = dict(re.findall(r"^\| \[`?([\w ]+?)`?\]\(#(.*?)\)", PAGE, re.MULTILINE))
    assert set(backends.OWN) <= set(rows)
    assert set(rows.values()) <= anchors


def test_the_page_leads_to_pages_that_there_are() -> None:
    for target in re.findall(r"\]\(([\w./-]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
