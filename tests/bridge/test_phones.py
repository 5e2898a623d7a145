"""`coralmux-agent phones`, `unpair` and `forget`, with an agent at work and without."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import coralmux
from coralmux import FileStore, PairingLink
from coralmux.bridge import backends
from coralmux.bridge.commands import run
from coralmux.bridge.config import load_phones
from coralmux.bridge.conversations import Conversations, phone_key
from coralmux.bridge.phones import PairedPhone
from coralmux.bridge.seen import Seen
from coralmux.bridge.serving import served
from tests.bridge.agent_command import PATIENCE, Home
from tests.bridge.doubles.http_exchange import Exchange, http_server
from tests.client.meeting import new_link, phone_for
from tests.support.process import ADMIN_KEY, RelayProcess
from tests.support.waiting import eventually

# Each starts a Python or more.
pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def with_phones(home: Home, relay: RelayProcess, *names: str) -> list[PairedPhone]:
    """A config of the echo backend with these phones in it."""
    text = 'backend = "echo"  # mine\n'
    for name in names:
        text += f'[[phone]]\nname = "{name}"\nlink = "{new_link(relay).web()}"\n'
        text += "paired = 2026-11-23T12:00:00Z\n"
    home.write(text)
    return list(load_phones(home.config))


def conversations(home: Home) -> Conversations:
    return Conversations(home.data / "conversations")


def talked(home: Home, phone: PairedPhone, *agents: str) -> None:
    for agent in agents:
        conversations(home).asked(phone.key, agent, "1", "a question")


# phones


async def test_phones_are_listed_with_their_relay_and_when_they_were_seen(
    relay: RelayProcess, home: Home
) -> None:
    anna, _ = with_phones(home, relay, "Anna [bold] :smile:", "Never here")
    with home.config.open("a") as file:
        token_only = new_link(relay).with_secret(None).web()
        file.write(f'[[phone]]\nname = "Old"\nlink = "{token_only}"\n')
    seen = Seen(home.data)
    seen.mark(anna.key, anna.name, verified=True, protocol=2)
    seen.write()
    ended = await home.agent("phones")
    assert ended.status == 0, ended.err
    rows = [line.split("  ") for line in ended.out.splitlines() if line.strip()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    address = f"127.0.0.1:{relay.port}"
    assert cells[0] == ["Phone", "Relay", "Paired", "Last seen", "Verified"]
    assert cells[2][:3] == ["Anna [bold] :smile:", address, "2026-11-23"]
    assert cells[2][3].endswith("s ago")
    assert cells[2][4] == "yes"
    assert cells[3] == ["Never here", address, "2026-11-23", "never", "yes"]
    assert cells[4] == ["Old", address, "?", "never", "no (version 1)"]
    for phone in load_phones(home.config):
        assert phone.link.token not in ended.out


async def test_scripts_get_an_object_for_each_phone(relay: RelayProcess, home: Home) -> None:
    (phone,) = with_phones(home, relay, "Anna")
    seen = Seen(home.data)
    seen.mark(phone.key, phone.name, verified=True, protocol=2)
    seen.write()
    ended = await home.agent("phones", "--json")
    found = json.loads(ended.out)
    at = datetime.fromisoformat(found.pop("last_seen"))
    assert abs(time.time() - at.timestamp()) < PATIENCE
    assert found == {
        "name": "Anna",
        "relay": phone.link.relay,
        "paired": datetime(2026, 11, 23, 12, tzinfo=UTC).isoformat(),
        "verified": True,
        "key": phone.key,
    }
    assert phone.link.token not in ended.out


async def test_where_there_is_no_phone_it_says_how_to_pair_one(home: Home) -> None:
    ended = await home.agent("phones")
    assert (ended.status, ended.out) == (0, "")
    assert "coralmux-agent pair" in ended.err


# unpair and forget


async def test_unpairing_forgets_the_phone_and_nothing_else(
    relay: RelayProcess, home: Home
) -> None:
    gone, stays = with_phones(home, relay, "Gone", "Stays")
    store = FileStore(home.data / "pairings")
    seen = Seen(home.data)
    for phone in (gone, stays):
        store.save(phone.link.token, coralmux.PairingState())
        talked(home, phone, "", "other")
        seen.mark(phone.key, phone.name, verified=True, protocol=2)
    seen.write()
    ended = await home.agent("unpair", "Gone")
    assert (ended.status, ended.out) == (0, "")
    assert load_phones(home.config) == (stays,)
    assert home.config.read_text().startswith('backend = "echo"  # mine\n')
    assert store.load(gone.link.token) is None
    assert store.load(stays.link.token) is not None
    assert conversations(home).entries(gone.key, "other", 9) == []
    assert len(conversations(home).entries(stays.key, "other", 9)) == 1
    assert set(Seen(home.data).load()) == {stays.key}
    # The relay was not told, and that is told.
    assert f"still exists at 127.0.0.1:{relay.port}" in ended.err
    assert relay.http("GET", f"/api/v1/pair/{gone.link.token}")[0] == 200


@pytest.mark.parametrize("way", ["option", "variable", "environment"])
async def test_with_the_admin_key_the_token_is_revoked_too(
    relay: RelayProcess, home: Home, way: str
) -> None:
    (gone,) = with_phones(home, relay, "Gone")
    if way == "option":
        ended = await home.agent("unpair", "Gone", "--admin-key", "-", stdin=ADMIN_KEY)
    elif way == "variable":
        by_variable = ("--admin-key", "env")
        ended = await home.agent("unpair", "Gone", *by_variable, CORALMUX_ADMIN_KEY=ADMIN_KEY)
    else:
        ended = await home.agent("unpair", "Gone", "--revoke", CORALMUX_ADMIN_KEY=ADMIN_KEY)
    assert ended.status == 0, ended.err
    assert "still exists" not in ended.err
    assert relay.http("GET", f"/api/v1/pair/{gone.link.token}")[0] == 404
    assert load_phones(home.config) == ()


async def test_where_the_token_cannot_be_revoked_nothing_changes(
    relay: RelayProcess, home: Home
) -> None:
    phones = with_phones(home, relay, "Anna")
    talked(home, phones[0], "")
    ended = await home.agent("unpair", "Anna", "--admin-key", "wrong")
    assert ended.status == 1
    assert "does not take this admin key" in ended.err
    assert list(load_phones(home.config)) == phones
    assert len(conversations(home).entries(phones[0].key, "", 9)) == 1


async def test_a_token_that_is_gone_already_does_not_stand_in_the_way(home: Home) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(404, {"error": {"code": "NOT_FOUND", "message": "No such token."}})

    async with http_server(answer) as url:
        link = PairingLink.new(url, "oc_pair_gone")
        home.write(f'[[phone]]\nname = "Anna"\nlink = "{link.web()}"\n')
        ended = await home.agent("unpair", "Anna", "--admin-key", ADMIN_KEY)
    assert ended.status == 0, ended.err
    assert load_phones(home.config) == ()


async def test_the_key_of_the_environment_is_not_sent_unasked(home: Home) -> None:
    visits = []

    async def answer(exchange: Exchange) -> None:
        visits.append(exchange.method)
        await exchange.respond(204)

    async with http_server(answer) as url:
        link = PairingLink.new(url, "oc_pair_x")
        home.write(f'[[phone]]\nname = "Anna"\nlink = "{link.web()}"\n')
        ended = await home.agent("unpair", "Anna", CORALMUX_ADMIN_KEY=ADMIN_KEY)
    assert (ended.status, visits) == (0, [])


async def test_forgetting_deletes_what_was_said_and_keeps_the_pairing(
    relay: RelayProcess, home: Home
) -> None:
    (phone,) = phones = with_phones(home, relay, "Anna")
    talked(home, phone, "", "cook", "gardener")
    one = await home.agent("forget", "Anna", "--agent", "cook")
    assert one.status == 0, one.err

    def left() -> list[int]:
        kept = conversations(home)
        return [len(kept.entries(phone.key, agent, 9)) for agent in ("", "cook", "gardener")]

    assert left() == [1, 0, 1]
    rest = await home.agent("forget", "Anna")
    assert rest.status == 0, rest.err
    assert left() == [0, 0, 0]
    assert list(load_phones(home.config)) == phones


async def test_orphans_are_forgotten_with_all_that_is_kept_of_them(
    relay: RelayProcess, home: Home
) -> None:
    (stays,) = with_phones(home, relay, "Stays")
    links = {name: new_link(relay) for name in ("talked", "paired", "seen", "left")}
    orphans = {name: PairedPhone(name, link) for name, link in links.items()}
    store, seen = FileStore(home.data / "pairings"), Seen(home.data)
    for phone in (stays, orphans["paired"]):
        store.save(phone.link.token, coralmux.PairingState())
    for phone in (stays, orphans["talked"], orphans["paired"]):
        talked(home, phone, "", "other")
    for phone in (stays, orphans["seen"]):
        seen.mark(phone.key, phone.name, verified=True, protocol=2)
    seen.write()
    # A killed process's, with a secret in it; and files that are somebody else's.
    (store.directory / f".{orphans['left'].key}.json.0123456789abcdef").touch()
    foreign = [store.directory / "notes.json", home.data / "conversations" / "notes"]
    for file in foreign:
        file.touch()
    ended = await home.agent("forget", "--orphans")
    assert ended.status == 0, ended.err
    assert "What was kept of 4 phones that the config does not have: deleted." in ended.err
    assert {*store.directory.iterdir()} == {store.directory / f"{stays.key}.json", foreign[0]}
    kept = home.data / "conversations"
    assert {*kept.iterdir()} == {kept / stays.key, foreign[1]}
    assert len(conversations(home).entries(stays.key, "other", 9)) == 1
    assert set(Seen(home.data).load()) == {stays.key}
    assert load_phones(home.config) == (stays,)
    again = await home.agent("forget", "--orphans")
    assert (again.status, "Nothing is kept" in again.err) == (0, True)


async def test_what_a_link_served_once_has_left_is_an_orphan_once_its_agent_has_ended(
    relay: RelayProcess, home: Home
) -> None:
    link = new_link(relay)
    async with home.running("--link", link.web(), "--backend", "echo"):
        async with phone_for(link) as phone:
            assert await phone.ask("Hello") == "Hello"
        refused = await home.agent("forget", "--orphans")
        assert refused.status == 1
        assert "Stop it first" in refused.err
    assert FileStore(home.data / "pairings").load(link.token) is not None
    ended = await home.agent("forget", "--orphans")
    assert ended.status == 0, ended.err
    assert "of 1 phone that" in ended.err
    assert FileStore(home.data / "pairings").load(link.token) is None
    assert [*(home.data / "conversations").iterdir()] == []


@pytest.mark.parametrize("command", [("unpair", "Anna"), ("forget", "Anna")])
async def test_what_the_backend_keeps_itself_is_named(
    relay: RelayProcess, home: Home, command: tuple[str, str]
) -> None:
    with_phones(home, relay, "Anna")
    ended = await home.agent(*command, CORALMUX_AGENT_BACKEND="openclaw")
    assert ended.status == 0, ended.err
    keeps = backends.find("openclaw").keeps
    assert keeps
    assert f"What the backend openclaw keeps itself ({keeps}) stays there." in ended.err


@pytest.mark.parametrize("command", ["unpair", "forget"])
def test_a_phone_that_there_is_not_is_answered_with_those_that_there_are(
    relay: RelayProcess, home: Home, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_phones(home, relay, "Anna", "Tablet")
    assert run([command, "Ana", "--data-dir", str(home.path)]) == 1
    assert "There are: 'Anna', 'Tablet'." in capsys.readouterr().err


# With an agent at work


async def test_a_running_agent_takes_on_a_phone_that_is_paired_and_lets_it_go_again(
    relay: RelayProcess, home: Home
) -> None:
    first, second = with_phones(home, relay, "First", "Second")
    async with home.running() as log:
        async with phone_for(first.link) as phone:
            assert await phone.ask("one") == "one"
        made = await home.agent("pair", "--name", "New", "--token", relay.token())
        assert made.status == 0, made.err
        assert "takes the phone on by itself" in made.err
        async with phone_for(PairingLink.parse(made.out)) as phone:
            assert await phone.ask("two") == "two"
        token = PairingLink.parse(made.out).token
        # With the token revoked the relay itself has nothing to say of it any more.
        gone = await home.agent("unpair", "New", "--admin-key", ADMIN_KEY)
        assert gone.status == 0, gone.err
        assert "New: let go." in log.read_text()
        assert served(home.data) == {first.key, second.key}
        assert FileStore(home.data / "pairings").load(token) is None
    assert FileStore(home.data / "pairings").load(token) is None
    assert phone_key(token) not in Seen(home.data).load()
    assert FileStore(home.data / "pairings").load(first.link.token) is not None


@pytest.mark.parametrize("by", ["link", "another config"])
async def test_an_agent_that_does_not_look_at_this_config_is_not_said_to_follow_it(
    relay: RelayProcess, home: Home, by: str
) -> None:
    with_phones(home, relay, "First")
    another = home.path / "another.toml"
    another.write_text(home.config.read_text())
    another.chmod(0o600)
    arguments = ["--config", str(another)] if by == "another config" else []
    if by == "link":
        arguments = ["--link", new_link(relay).web()]
    async with home.running(*arguments) as log:
        await eventually(lambda: "connected to " in log.read_text(), PATIENCE)
        made = await home.agent("pair", "--name", "New", "--token", relay.token())
        assert made.status == 0, made.err
        assert "by itself" not in made.err
        assert "Stop it" in made.err
        assert ("by --link" in made.err) == (by == "link")
        assert (str(another) in made.err) == (by == "another config")
        start = time.monotonic()
        gone = await home.agent("unpair", "First")
        assert gone.status == 0, gone.err
        assert "was not told" in gone.err
        # It would not let go, so nothing was waited for.
        assert time.monotonic() - start < 5
