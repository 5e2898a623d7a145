"""`coralmux-agent check`: what is wrong, in plain words, and what to do about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coralmux import BackendError, PairingLink
from coralmux.bridge import Backend, Finding, backends, config
from coralmux.bridge import check as checking
from coralmux.bridge.check import Checked, check
from coralmux.bridge.home import Home as AgentHome
from tests.bridge.agent_command import Home, plain
from tests.bridge.doubles.http_exchange import Exchange, http_server
from tests.client.meeting import new_link, phone_for
from tests.support.process import RelayProcess

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def config_of(*links: PairingLink, backend: str = "echo") -> str:
    text = f'backend = "{backend}"\n'
    for number, link in enumerate(links):
        text += f'[[phone]]\nname = "Phone {number}"\nlink = "{link.web()}"\n'
    return text


async def checked(home: Home, **overrides: Any) -> list[Checked]:
    """All findings, in this process; in a loop of its own, for it asks the relay while it
    blocks."""
    place = AgentHome(home.config, home.data)
    load = partial(config.load, home.config, home.data, overrides=overrides, environ={})

    async def collected() -> list[Checked]:
        return [one async for one in check(place, load)]

    return await asyncio.to_thread(lambda: asyncio.run(collected()))


def said(found: list[Checked]) -> str:
    return "\n".join(f"{'✓' if f.good else '✗'} {a}: {f.text} {f.remedy}" for a, f in found)


# The command


@pytest.mark.slow
async def test_where_all_is_well_it_says_so(relay: RelayProcess, home: Home) -> None:
    link = new_link(relay)
    home.write(config_of(link))
    ended = await home.agent("check")
    assert (ended.status, ended.err) == (0, "")
    *lines, last = ended.out.strip().splitlines()
    assert last == "All is well."
    assert [line[0] for line in lines if line] == ["✓"] * 5
    for words in (
        f"at 127.0.0.1:{relay.port} answers",
        "clock of this machine agrees",
        "'Phone 0' is known to the relay, and not connected now.",
        "The echo backend needs nothing.",
    ):
        assert words in ended.out
    assert link.token not in ended.out


@pytest.mark.slow
async def test_a_token_that_was_revoked_is_found_and_the_status_tells(
    relay: RelayProcess, home: Home
) -> None:
    link = new_link(relay)
    relay.http("DELETE", f"/api/v1/pair/{link.token}", admin=True)
    home.write(config_of(link))
    ended = await home.on_a_terminal("check")
    assert ended.status == 1
    shown = plain(ended.out)
    assert "✗ 'Phone 0': The relay does not know this token" in shown
    assert "\n    Pair the phone anew: coralmux-agent unpair NAME" in shown
    assert "To be seen to: 1." in shown
    assert "\x1b[31m" in ended.out
    assert link.token[12:] not in shown


@pytest.mark.slow
async def test_scripts_get_an_object_for_each_finding(home: Home) -> None:
    home.write(config_of(PairingLink.new("ws://127.0.0.1:1", TOKEN)))
    ended = await home.agent("check", "--json", "--backend", "ecko")
    assert ended.status == 1
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [(one["about"], one["good"]) for one in found] == [
        ("config", True),
        ("relay", False),
        ("backend", False),
    ]
    assert "connection refused" in found[1]["text"]
    assert found[1]["remedy"]
    assert "no backend 'ecko'" in found[2]["text"]


@pytest.mark.slow
async def test_an_agent_that_runs_is_not_disturbed(relay: RelayProcess, home: Home) -> None:
    link = new_link(relay)
    home.write(config_of(link))
    async with home.running() as log, phone_for(link) as phone:
        assert await phone.ask("before") == "before"
        ended = await home.agent("check")
        assert ended.status == 0, ended.out
        assert "'Phone 0' is known to the relay, and connected now." in ended.out
        assert await phone.ask("after") == "after"
        assert log.read_text().count("connected to") == 1


# The config


async def test_a_config_that_is_not_there_is_told(home: Home) -> None:
    found = said(await checked(home))
    assert "✗ config: There is no config" in found
    assert "coralmux-agent init" in found
    assert "✗ phone: No phone is paired. Pair one: coralmux-agent pair" in found


async def test_a_config_that_others_could_read_is_told_once(home: Home) -> None:
    home.write(config_of())
    home.config.chmod(0o644)
    assert "✗ config: Other users of this machine could read" in said(await checked(home))
    assert "could read" not in said(await checked(home))


@pytest.mark.slow
async def test_a_config_that_cannot_be_used_does_not_keep_the_relay_from_being_checked(
    relay: RelayProcess, home: Home
) -> None:
    text = config_of(new_link(relay), backend="openai")
    home.write(f'{text}[openai]\napi_key = "${{NO_SUCH_KEY}}"\n')
    found = said(await checked(home))
    assert "✗ config" in found
    assert "NO_SUCH_KEY is not set" in found
    assert "✓ phone: 'Phone 0' is known" in found


# The relay


async def test_a_relay_that_is_no_address_is_told_and_not_repeated(home: Home) -> None:
    home.write(f'relay = "nonsense?token={TOKEN}"\n{config_of()}')
    found = said(await checked(home))
    assert "✗ relay: No phone can be paired at the relay that `relay` names." in found
    assert "must begin with wss://" in found
    assert TOKEN not in found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "✓ relay: The clock of this machine agrees"),
        (25, "✓ relay: The clock of this machine agrees"),
        (300, "✗ relay: The clock of this machine is 5 min behind the relay's. Set it"),
        (-7200, "✗ relay: The clock of this machine is 2 h ahead of the relay's. Set it"),
        (None, "✓ relay: The relay does not tell the time"),
    ],
)
async def test_a_clock_that_is_wrong_is_found(home: Home, seconds: int | None, words: str) -> None:
    async def answer(exchange: Exchange) -> None:
        headers = {}
        if seconds is not None:
            then = datetime.now(UTC) + timedelta(seconds=seconds)
            headers["date"] = format_datetime(then, usegmt=True)
        await exchange.respond(200, {"status": "ok", "sessions": 0}, **headers)

    async with http_server(answer) as url:
        home.write(f'relay = "{url}"\n' + config_of())
        assert words in said(await checked(home))


async def test_each_relay_is_checked_once_and_phones_of_dead_ones_are_not_tried(
    home: Home,
) -> None:
    visits = []

    async def answer(exchange: Exchange) -> None:
        visits.append(exchange.path)
        if exchange.path == "/health":
            await exchange.respond(200, {"status": "ok", "sessions": 0})
        else:
            await exchange.respond(200, {"phone": True, "agent": False})

    async with http_server(answer) as url:
        links = [
            PairingLink.new(url, "a"),
            PairingLink.new("ws://127.0.0.1:1", "b"),
            PairingLink.new(url, "c"),
        ]
        home.write(config_of(*links))
        found = said(await checked(home))
    assert visits == ["/health", "/api/v1/pair/a", "/api/v1/pair/c"]
    assert "'Phone 0' is known to the relay, and connected now." in found
    assert "'Phone 1'" not in found
    assert found.count("connection refused") == 1


# The backend


class Odd(Backend):
    """`check` is put in by each test."""


async def found_by(
    home: Home, monkeypatch: pytest.MonkeyPatch, work: Any
) -> tuple[list[Checked], list[str]]:
    """What `check` says where the backend's own does this, and which of its methods ran."""
    called = []

    class Tried(Odd):
        async def start(self) -> None:
            called.append("start")

        async def stop(self) -> None:
            called.append("stop")

        check = work

    monkeypatch.setattr(backends, "find", lambda name: Tried)
    home.write('backend = "odd"\n[odd]\n')
    return [one for one in await checked(home) if one.about == "backend"], called


async def test_what_a_backend_finds_is_told_without_controls_or_tokens(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(self: Backend) -> AsyncIterator[Finding]:
        yield Finding(True, "fine")
        yield Finding(False, f"bad\x1b[31m\n{TOKEN}", "do\tit")

    found, called = await found_by(home, monkeypatch, work)
    assert [one.finding for one in found] == [
        Finding(True, "fine"),
        Finding(False, "bad [31m …", "do it"),
    ]
    assert called == ["stop"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BackendError("The AI is ill."), "The AI is ill."),
        (RuntimeError(TOKEN), "The check of the backend failed (RuntimeError)."),
        (StopAsyncIteration(), "The check of the backend failed (RuntimeError)."),
    ],
)
async def test_a_check_that_fails_is_a_finding(
    home: Home, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    async def work(self: Backend) -> AsyncIterator[Finding]:
        yield Finding(True, "fine")
        raise error

    found, called = await found_by(home, monkeypatch, work)
    assert [one.finding for one in found] == [Finding(True, "fine"), Finding(False, words)]
    assert called == ["stop"]


async def test_a_check_that_hangs_is_given_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(self: Backend) -> AsyncIterator[Finding]:
        await asyncio.Event().wait()
        yield Finding(True, "never")

    monkeypatch.setattr(checking, "_PATIENCE", 0.05)
    found, called = await found_by(home, monkeypatch, work)
    assert [one.finding.good for one in found] == [False]
    assert "did not say anything" in found[0].finding.text
    assert called == ["stop"]
