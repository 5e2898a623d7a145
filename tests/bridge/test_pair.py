"""`coralmux-agent pair`: where tokens come from, what is shown, and what is kept."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from coralmux import FileStore, PairingLink, PairingState
from coralmux.bridge.config import load, load_phones
from coralmux.bridge.phones import PairedPhone
from tests.bridge.agent_command import PATIENCE, Home, plain
from tests.bridge.doubles.http_exchange import Exchange, http_server
from tests.client.meeting import new_link, phone_for
from tests.support.process import ADMIN_KEY, RelayProcess, relay_process
from tests.support.waiting import eventually

# Each starts a Python or more.
pytestmark = pytest.mark.slow

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module")
def public_relay() -> Iterator[RelayProcess]:
    """A relay that gives everybody a token."""
    with relay_process(env={"CORALMUX_PUBLIC": "1"}) as relay:
        yield relay


def paired(home: Home) -> list[PairedPhone]:
    return list(load_phones(home.config))


def known(relay: RelayProcess, link: PairingLink) -> bool:
    return relay.http("GET", f"/api/v1/pair/{link.token}")[0] == 200


# Where the token comes from


async def test_a_relay_that_is_open_to_everybody_gives_a_token(
    public_relay: RelayProcess, home: Home
) -> None:
    ended = await home.agent("pair", "--relay", public_relay.url)
    assert ended.status == 0, ended.err
    # A pipe gets the link and nothing else.
    link = PairingLink.parse(ended.out)
    (phone,) = paired(home)
    assert (phone.name, phone.link) == ("My phone", link)
    assert link.secret is not None
    assert phone.paired is not None
    assert known(public_relay, link)
    assert stat.S_IMODE(home.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.data.stat().st_mode) == 0o700
    assert f"Next, choose the AI: see to backend in {home.config}." in ended.err
    for confidential in (link.token, link.web().rpartition("psk=")[2]):
        assert confidential not in ended.err
    # The relay is remembered.
    again = await home.agent("pair", "--name", "Tablet", CORALMUX_AGENT_BACKEND="echo")
    assert again.status == 0, again.err
    assert "Next, start the agent: coralmux-agent run" in again.err
    assert [one.name for one in paired(home)] == ["My phone", "Tablet"]
    assert paired(home)[1].link.relay == link.relay


@pytest.mark.parametrize("backend", ["openai", "langchain", "command"])
async def test_the_config_that_pairing_makes_decides_nothing_about_the_ai(
    relay: RelayProcess, home: Home, backend: str
) -> None:
    ended = await home.agent("pair", "--relay", relay.url, "--token", relay.token())
    assert ended.status == 0, ended.err
    chosen = load(home.config, home.data, overrides={"backend": backend}, environ={})
    assert chosen.settings == {}


async def test_a_relay_of_ones_own_gives_a_token_for_its_admin_key(
    relay: RelayProcess, home: Home
) -> None:
    ended = await home.agent("pair", "--relay", relay.url, "--admin-key", "-", stdin=ADMIN_KEY)
    assert ended.status == 0, ended.err
    assert known(relay, PairingLink.parse(ended.out))
    assert ADMIN_KEY not in ended.out + ended.err + home.config.read_text()


async def test_a_closed_relay_says_so_and_explains_how_to_get_a_token(
    relay: RelayProcess, home: Home
) -> None:
    ended = await home.agent("pair", "--relay", relay.url)
    assert (ended.status, ended.out) == (1, "")
    for words in ("registration is closed", "--token -", "coralmux-relay token issue"):
        assert words in ended.err
    # Nothing is left of the attempt.
    assert not home.config.exists()


async def test_the_key_of_the_environment_is_used_where_it_is_asked_for(
    relay: RelayProcess, home: Home
) -> None:
    arguments = ("pair", "--relay", relay.url, "--admin-key", "env")
    ended = await home.agent(*arguments, CORALMUX_ADMIN_KEY=ADMIN_KEY)
    assert ended.status == 0, ended.err
    assert known(relay, PairingLink.parse(ended.out))


async def test_a_key_that_the_environment_does_not_have_is_told(home: Home) -> None:
    ended = await home.agent("pair", "--relay", "ws://127.0.0.1:1", "--admin-key", "env")
    assert (ended.status, ended.out) == (1, "")
    assert "CORALMUX_ADMIN_KEY is not set" in ended.err


@pytest.mark.parametrize("command", [("pair",), ("run", "--backend", "echo")])
async def test_the_key_of_the_environment_is_shown_to_no_relay_unasked(
    home: Home, command: tuple[str, ...]
) -> None:
    heads = []

    async def answer(exchange: Exchange) -> None:
        heads.append((exchange.method, exchange.path, "x-admin-key" in exchange.headers))
        closed = {"code": "REGISTRATION_CLOSED", "message": "Give me your key."}
        await exchange.respond(403, {"error": closed})

    async with http_server(answer) as url:
        ended = await home.agent(*command, "--relay", url, CORALMUX_ADMIN_KEY=ADMIN_KEY)
    assert (ended.status, ended.out) == (1, "")
    assert heads == [("POST", "/api/v1/register", False)]
    for way in ("--token -", "--admin-key -", "--admin-key env"):
        assert f"coralmux-agent pair {way}" in ended.err


async def test_a_wrong_admin_key_is_told(relay: RelayProcess, home: Home) -> None:
    ended = await home.agent("pair", "--relay", relay.url, "--admin-key", "wrong")
    assert (ended.status, ended.out) == (1, "")
    assert "does not take this admin key" in ended.err


@pytest.mark.parametrize("way", ["option", "standard input", "environment"])
async def test_a_token_that_the_operator_made_is_used(
    relay: RelayProcess, home: Home, way: str
) -> None:
    token = relay.token()
    given = {"option": ["--token", token], "standard input": ["--token", "-"]}.get(way, [])
    env = {"CORALMUX_AGENT_TOKEN": token} if way == "environment" else {}
    ended = await home.agent("pair", "--relay", relay.url, *given, stdin=f"{token}\n", **env)
    assert ended.status == 0, ended.err
    assert PairingLink.parse(ended.out).token == token


async def test_a_token_is_for_one_phone(relay: RelayProcess, home: Home) -> None:
    link = new_link(relay)
    home.write(f'[[phone]]\nname = "My phone"\nlink = "{link.web()}"\n')
    ended = await home.agent("pair", "--token", link.token, "--name", "Another")
    assert (ended.status, ended.out) == (1, "")
    assert "belongs to the phone 'My phone'" in ended.err
    assert len(paired(home)) == 1


async def test_a_token_that_the_relay_does_not_know_is_refused(
    relay: RelayProcess, home: Home
) -> None:
    ended = await home.agent("pair", "--relay", relay.url, "--token", TOKEN)
    assert (ended.status, ended.out) == (1, "")
    assert "does not know this token" in ended.err
    assert TOKEN[12:] not in ended.err
    assert not home.config.exists()


async def test_what_was_kept_of_an_earlier_pairing_by_the_same_token_is_over(
    relay: RelayProcess, home: Home
) -> None:
    token = relay.token()
    store = FileStore(home.data / "pairings")
    store.save(token, PairingState(peer_name="An old phone"))
    ended = await home.agent("pair", "--relay", relay.url, "--token", token)
    assert ended.status == 0, ended.err
    assert store.load(token) is None


async def test_a_token_that_cannot_be_tried_is_taken_with_a_warning(home: Home) -> None:
    ended = await home.agent("pair", "--relay", "ws://127.0.0.1:1", "--token", TOKEN)
    assert ended.status == 0, ended.err
    assert "could not be tried. Nobody listens at 127.0.0.1:1" in ended.err
    assert paired(home)[0].link.token == TOKEN


# What is shown


async def test_a_terminal_shows_the_code_and_the_link(relay: RelayProcess, home: Home) -> None:
    ended = await home.on_a_terminal(
        "pair", "--relay", relay.url, "--token", "-", typed=(token := relay.token())
    )
    assert ended.status == 0, ended.out
    shown = plain(ended.out)
    (phone,) = paired(home)
    assert phone.link.web() in shown.splitlines()
    assert phone.link.qr_terminal() in ended.out.replace("\r\n", "\n")
    assert "coralmux-phone --link -" in shown
    # What was typed is not shown: the token stands in the link alone.
    assert shown.count(token) == 1


async def test_a_pairing_for_the_fields_apps_has_no_secret(relay: RelayProcess, home: Home) -> None:
    token = relay.token()
    ended = await home.on_a_terminal("pair", "--relay", relay.url, "--token", token, "--v1")
    assert ended.status == 0, ended.out
    (phone,) = paired(home)
    assert phone.link.secret is None
    assert phone.link.field_uri() in plain(ended.out).splitlines()
    assert phone.link.qr_terminal(phone.link.field_uri()) in ended.out.replace("\r\n", "\n")
    assert "not verified" in ended.out
    link = PairingLink.parse(phone.link.field_uri())
    async with home.running("--backend", "echo"), phone_for(link) as field_phone:
        assert await field_phone.ask("Hello there") == "Hello there"
        assert field_phone.agent is not None
        assert not field_phone.agent.verified


async def test_the_phones_page_may_be_elsewhere(relay: RelayProcess, home: Home) -> None:
    page = "https://pages.example.com/chat"
    ended = await home.agent(
        "pair", "--relay", relay.url, "--token", relay.token(), "--phone-url", page
    )
    assert ended.out.startswith(f"{page}#")
    assert PairingLink.parse(ended.out) == paired(home)[0].link


async def test_scripts_get_an_object(relay: RelayProcess, home: Home) -> None:
    ended = await home.agent("pair", "--relay", relay.url, "--token", relay.token(), "--json")
    (phone,) = paired(home)
    assert json.loads(ended.out) == {
        "name": "My phone",
        "relay": phone.link.relay,
        "link": phone.link.web(),
        "verified": True,
        "running": False,
    }


async def test_two_phones_cannot_have_one_name(relay: RelayProcess, home: Home) -> None:
    home.write(f'[[phone]]\nname = "My phone"\nlink = "{new_link(relay).web()}"\n')
    ended = await home.agent("pair", "--admin-key", ADMIN_KEY)
    assert (ended.status, ended.out) == (1, "")
    assert "named 'My phone' already" in ended.err
    assert '--name "My phone 2"' in ended.err


async def test_a_relay_without_tls_elsewhere_is_warned_of(home: Home) -> None:
    ended = await home.agent("pair", "--relay", "ws://relay.invalid", "--token", TOKEN)
    assert "no TLS (ws://)" in ended.err


# Nothing half-done


async def test_nothing_is_registered_where_the_config_cannot_be_written(home: Home) -> None:
    visits = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal visits
        visits += 1
        await exchange.respond(201, {"token": TOKEN})

    (home.path / "file").touch()
    async with http_server(answer) as url:
        ended = await home.agent("pair", "--relay", url, "--config", "file/config.toml")
    assert (ended.status, ended.out, visits) == (2, "", 0)
    assert "cannot be written" in ended.err


@pytest.mark.parametrize("by_key", [True, False])
async def test_a_token_that_cannot_be_kept_is_revoked_or_shown(home: Home, by_key: bool) -> None:
    asked = []

    async def answer(exchange: Exchange) -> None:
        asked.append((exchange.method, exchange.path))
        if exchange.method == "DELETE":
            await exchange.respond(204)
        else:
            # The disk goes away at the worst of moments.
            shutil.rmtree(home.data)
            await exchange.respond(201, {"token": TOKEN})

    key = ["--admin-key", ADMIN_KEY] if by_key else []
    async with http_server(answer) as url:
        ended = await home.agent("pair", "--relay", url, *key)
    assert ended.status == 1
    assert "cannot be written" in ended.err
    if by_key:
        assert asked == [("POST", "/api/v1/pair"), ("DELETE", f"/api/v1/pair/{TOKEN}")]
        assert ended.out == ""
        assert "revoked again" in ended.err
    else:
        assert asked == [("POST", "/api/v1/register")]
        # Where a link would stand, and not among the errors.
        assert ended.out == f"{TOKEN}\n"
        assert "--token -" in ended.err
    assert TOKEN[12:] not in ended.err


# On the way to serving


async def test_run_with_a_relay_pairs_the_first_phone_and_answers_it(
    public_relay: RelayProcess, home: Home
) -> None:
    arguments = ("--relay", public_relay.url, "--backend", "echo")
    async with home.running(*arguments) as log:
        await eventually(lambda: "connected to" in log.read_text(), PATIENCE)
        link = PairingLink.parse(
            next(line for line in log.read_text().splitlines() if line.startswith("http"))
        )
        async with phone_for(link) as phone:
            assert await phone.ask("One command.") == "One command."
    (phone_kept,) = paired(home)
    assert phone_kept.link == link
    # The next start serves that phone, and shows no other link.
    async with home.running(*arguments) as log:
        await eventually(lambda: "connected to" in log.read_text(), PATIENCE)
        assert "psk=" not in log.read_text()
    assert len(paired(home)) == 1
