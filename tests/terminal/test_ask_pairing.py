"""`coralmux-phone ask`: where its link comes from, and which pairings it takes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from coralmux import FileStore, PairingLink
from tests.support.field import FieldConnector
from tests.support.process import RelayProcess
from tests.terminal.phones import SECRET, TOKEN, agent_at, run

pytestmark = pytest.mark.slow

# Links


@pytest.mark.parametrize("way", ["environment", "file", "standard input", "behind ask"])
async def test_the_link_need_not_stand_on_the_command_line(
    relay: RelayProcess, tmp_path: Path, way: str
) -> None:
    async with agent_at(relay) as (link, _):
        if way == "environment":
            ended = await run(tmp_path, "ask", "hi", CORALMUX_LINK=link.web())
        elif way == "file":
            file = tmp_path / "link"
            file.write_text(link.web() + "\n")
            file.chmod(0o600)
            wrong = "coralmux://pair?nonsense"
            ended = await run(tmp_path, "--link-file", str(file), "ask", "hi", CORALMUX_LINK=wrong)
            assert "chmod" not in ended.err
        elif way == "standard input":
            piped = f"{link.web()}\nwhat follows".encode()
            ended = await run(tmp_path, "--link", "-", "ask", "hi", stdin=piped)
        else:
            ended = await run(tmp_path, "ask", "--link", link.web(), "hi")
    piped_too = way == "standard input"
    assert ended.out == (b"You said: hi\n\nwhat follows\n" if piped_too else b"You said: hi\n")
    assert ended.status == 0


async def test_a_link_file_that_others_may_read_is_worth_a_warning(
    relay: RelayProcess, tmp_path: Path
) -> None:
    file = tmp_path / "link"
    async with agent_at(relay) as (link, _):
        file.write_text(link.web())
        file.chmod(0o644)
        ended = await run(tmp_path, "--link-file", str(file), "ask", "hi")
    assert (ended.status, ended.out) == (0, b"You said: hi\n")
    assert "chmod 600" in ended.err


FRAGMENT = f"token={TOKEN}&psk={SECRET}"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--link", f"https://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 2),
        (["--link", f"ftp://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 2),
        (["--link", f"https://relay.example.com/phone?{FRAGMENT}", "ask", "hi"], 2),
        (["--link", "https://relay.example.com/phone#token", "ask", "hi"], 2),
        ([f"https://relay.example.com/phone#{FRAGMENT}"], 1),
        (["ask", "--timeout", f"https://relay.example.com/phone#{FRAGMENT}", "hi"], 1),
        ([f"--lnk=https://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 1),
        ([f"--https://relay.example.com/phone#{FRAGMENT}", "ask", "hi"], 1),
        (["ask", "hi"], 1),
    ],
)
async def test_a_link_that_is_none_is_refused_without_being_repeated(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    ended = await run(tmp_path, *arguments)
    assert (ended.status, ended.out) == (status, b""), ended.err
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("coralmux-phone: ")
    for confidential in (TOKEN[8:], SECRET):
        assert confidential not in ended.err


# The pairing


async def test_the_same_link_works_again_after_the_agent_changed_its_secret(
    relay: RelayProcess, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with agent_at(relay, store=FileStore(tmp_path / "agent")) as (link, _):
        for _ in range(2):
            ended = await run(home, "--link", link.web(), "ask", "hi")
            assert (ended.status, ended.out) == (0, b"You said: hi\n"), ended.err
    (file,) = [path for path in home.rglob("*") if path.is_file()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    content = file.read_text()
    assert link.token not in content
    assert link.token not in file.name
    assert link.web().rpartition("psk=")[2] not in content


async def test_a_used_link_is_refused_elsewhere_in_words_that_say_what_to_do(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay, store=FileStore(tmp_path / "agent")) as (link, _):
        await run(tmp_path, "--link", link.web(), "ask", "hi", "--data-dir", str(tmp_path / "a"))
        ended = await run(
            tmp_path, "-q", "--link", link.web(), "ask", "hi", "--data-dir", str(tmp_path / "b")
        )
    assert (ended.status, ended.out) == (2, b"")
    assert ended.err.count("\n") == 1
    assert "used before" in ended.err
    assert "Make a new link" in ended.err
    assert (tmp_path / "a" / "phone").is_dir()
    assert not (tmp_path / "b").exists()


async def test_a_token_that_the_relay_does_not_know_is_refused(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, TOKEN)
    ended = await run(tmp_path, "--link", link.uri(), "ask", "hi")
    assert (ended.status, ended.out) == (2, b"")
    assert "does not take this token" in ended.err
    assert TOKEN not in ended.err


async def test_an_agent_that_takes_only_secrets_refuses_a_token_alone(
    relay: RelayProcess, tmp_path: Path
) -> None:
    async with agent_at(relay) as (link, _):
        bare = link.with_secret(None).uri()
        ended = await run(tmp_path, "--link", bare, "ask", "hi", "-q")
    assert (ended.status, ended.out) == (2, b"")
    assert "Pair by its link" in ended.err


@pytest.mark.slow
async def test_an_agent_that_knows_no_secrets_is_never_talked_to_without(
    relay: RelayProcess, tmp_path: Path
) -> None:
    link = PairingLink.new(relay.url, relay.token())
    async with FieldConnector(relay.url, link.token) as agent:
        await agent.connect()
        ended = await run(tmp_path, "--link", link.uri(), "ask", "hi", "-q")
        assert agent.chats == []
    assert (ended.status, ended.out) == (2, b"")
    assert "could not encrypt with a pairing secret" in ended.err
    assert ended.err.count("\n") == 1


async def test_a_pairing_by_token_alone_works_and_is_called_not_verified(
    relay: RelayProcess, tmp_path: Path
) -> None:
    token = relay.token()
    async with FieldConnector(relay.url, token, reply=("Hel", "lo"), tools=["search"]) as agent:
        await agent.connect()
        ended = await run(
            tmp_path, "--link", PairingLink(relay.url, token).field_uri(), "ask", "hi"
        )
    assert (ended.status, ended.out) == (0, b"Hello\n")
    assert "Not verified" in ended.err
    assert "search: running\nsearch: done\n" in ended.err
