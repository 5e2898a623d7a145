"""The commands about phones: `pair`, `phones`, `unpair` and `forget`."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from coralmux import LinkError, PairingLink
from coralmux.bridge import backends, config, pairing
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.config import ConfigError
from coralmux.bridge.home import Home, placed, placed_anew
from coralmux.bridge.links import secret
from coralmux.bridge.orphans import forget as forget_orphans
from coralmux.bridge.pairing import TokenLeftOver, Wish
from coralmux.bridge.phones import DEFAULT_NAME, PairedPhone, checked_name
from coralmux.bridge.registration import is_unprotected, normalised
from coralmux.text import duration

TOKEN_VARIABLE = "CORALMUX_AGENT_TOKEN"
KEY_VARIABLE = "CORALMUX_ADMIN_KEY"

_KEY_WAYS = f"- asks for it, env takes {KEY_VARIABLE}"

_WIDEST = 300

_PAIR_HELP = """\
Pair a phone: show a code and a link that it opens.

\b
  coralmux-agent pair --relay wss://relay.example.com
      a relay that is open to everybody gives a token
  coralmux-agent pair --token -
      with a token that the relay's operator made: coralmux-relay token issue
  coralmux-agent pair --admin-key -
      on a relay of your own: - asks for its key, and env takes the environment
      variable CORALMUX_ADMIN_KEY
  coralmux-agent pair --name "Tablet"
      one more phone, at the same relay

The link carries a secret that the relay never sees. It is for one phone, and good until that
phone has used it; treat it like a key. It goes to standard output and into the config, and
nowhere else. A pipe gets the link alone.

With --v1 the pairing has no secret, for the phone apps in the field: the relay could then
read along or pose as the phone.
"""

_UNPAIR_HELP = """\
Undo a pairing: forget the phone, its secret, and all that was said with it.

The phone cannot reach this agent any more. The relay still knows its token, though, under
which nobody answers from now on. With --admin-key the token is revoked there first; --revoke
is short for --admin-key env.
"""


@click.command("pair", help=_PAIR_HELP)
@placed_anew
@click.option("--relay", default="", metavar="URL", help="The relay. Default: the config's.")
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="What to call the phone.")
@click.option("--token", default="", help="Use this token of the relay's; - asks for it.")
@click.option("--admin-key", default="", metavar="KEY", help=f"Have a token made; {_KEY_WAYS}.")
@click.option("--v1", is_flag=True, help="Without a secret, for the field's apps (openclaw://).")
@click.option("--phone-url", metavar="URL", help="Take the phone's page from an address of yours.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead.")
def pair(
    home: Home,
    relay: str,
    name: str,
    token: str,
    admin_key: str,
    v1: bool,
    phone_url: str | None,
    as_json: bool,
) -> int:
    if token and admin_key:
        raise click.UsageError("Give --token or --admin-key, not both.")
    if v1 and phone_url is not None:
        raise click.UsageError("A code of --v1 leads to no page: leave --phone-url out.")
    wish = _wish(
        relay or _usual_relay(home), name=name, token=token, admin_key=admin_key, with_secret=not v1
    )
    phone = _paired(home, wish, phone_url)
    link = _shown(phone.link, phone_url)
    if as_json:
        _show_json(home, phone, link)
        return 0
    _show(phone, link)
    if home.is_followed:
        _say("The agent that is running takes the phone on by itself.")
    elif home.is_running:
        _say(
            f"{_other_agent(home)} It does not take the phone on. Stop it, and start it again "
            "for this config."
        )
    elif config.load_key(home.config, "backend"):
        _say("Next, start the agent: coralmux-agent run")
    else:
        _say(
            f"Next, choose the AI: see to backend in {home.config}. Then: coralmux-agent run "
            "(with --backend echo to try the line without any AI)."
        )
    return 0


def _other_agent(home: Home) -> str:
    """What an agent is at work on that does not follow this config."""
    if home.watched is None:
        return "The agent that is running serves links given by --link, not the config."
    return f"The agent that is running goes by another config: {home.watched}."


def pair_first(home: Home, relay: str) -> None:
    """Pair the first phone on the way to serving it, and show its code.

    Raises what `pairing.pair` raises.
    """
    wish = _wish(relay, name=DEFAULT_NAME)
    phone = _paired(home, wish, None)
    _show(phone, _shown(phone.link, None))


def _wish(
    relay: str, *, name: str, token: str = "", admin_key: str = "", with_secret: bool = True
) -> Wish:
    return Wish(
        name=checked_name(name),
        relay=normalised(relay),
        token=_token(token) if not admin_key else "",
        admin_key=_key(admin_key),
        with_secret=with_secret,
    )


def _paired(home: Home, wish: Wish, phone_url: str | None) -> PairedPhone:
    # Whatever is wrong with a name or an address is found before there is a token.
    tried = PairingLink.new(wish.relay, wish.token or "token")
    _shown(tried if wish.with_secret else tried.with_secret(None), phone_url)
    if is_unprotected(wish.relay):
        _say(
            "The way to this relay has no TLS (ws://): whoever is on it sees the token and can "
            "take the phone's or the agent's place at the relay. Use wss:// wherever you can."
        )
    try:
        return pairing.pair(home, wish, _say)
    except TokenLeftOver as left:
        # Where a link would go, and nowhere else.
        click.echo(left.token)
        raise


def _usual_relay(home: Home) -> str:
    """The config's relay, or else the one of the phone that was paired last."""
    found: str = config.load_key(home.config, "relay")
    if not found and (phones := config.load_phones(home.config)):
        found = phones[-1].link.relay
    if not found:
        raise click.UsageError(
            "Which relay? For example: coralmux-agent pair --relay wss://relay.example.com."
        )
    return found


def _token(given: str) -> str:
    """The option's value, which may have to be asked for, or else the environment's."""
    return _asked(given, "Token") or os.environ.get(TOKEN_VARIABLE, "").strip()


def _key(given: str) -> str:
    """The option's value; the environment's where that is asked for, and not otherwise: a
    key is shown to nobody but the relay that the user means."""
    if given != "env":
        return _asked(given, "Admin key")
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return key
    raise click.UsageError(f"The environment variable {KEY_VARIABLE} is not set.")


def _asked(given: str, what: str) -> str:
    if given != "-":
        return given
    if not (value := secret(what)):
        raise click.UsageError(f"{what}: nothing was given.")
    return value


def _shown(link: PairingLink, phone_url: str | None) -> str:
    """The link in the form that its phone reads. Raises LinkError."""
    return link.field_uri() if link.secret is None else link.web(phone_url)


def _show_json(home: Home, phone: PairedPhone, link: str) -> None:
    about = {
        "name": phone.name,
        "relay": phone.link.relay,
        "link": link,
        "verified": phone.link.secret is not None,
        "running": home.is_running,
    }
    click.echo(json.dumps(about))


def _show(phone: PairedPhone, link: str) -> None:
    """The code and the link, and what to do with them."""
    if sys.stdout.isatty():
        click.echo(_code(phone.link, link))
    click.echo(link)
    if phone.link.secret is None:
        _say(
            f"{phone.name!r} is paired by a token alone, not verified: whoever runs the relay "
            "could read along or pose as the phone."
        )
    else:
        _say(
            f"{phone.name!r} may come: scan the code with it, or open the link there. In a "
            "terminal: coralmux-phone --link - and paste it. Whoever has it first is the phone."
        )


def _code(link: PairingLink, text: str) -> str:
    try:
        return link.qr_terminal(text)
    except LinkError as error:
        return f"(There is no code. {error})"


@click.command("phones")
@placed
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
def phones(home: Home, as_json: bool) -> int:
    """List the paired phones: at which relay, since when, and when each was last here."""
    listed = config.load_phones(home.config)
    seen = home.seen.load()
    if as_json:
        for phone in listed:
            click.echo(json.dumps(_about(phone, seen.get(phone.key, {}))))
        return 0
    if not listed:
        _say("There is no phone yet. Pair one: coralmux-agent pair")
        return 0
    table = Table(box=SIMPLE)
    for heading in ("Phone", "Relay", "Paired", "Last seen", "Verified"):
        table.add_column(heading, overflow="fold")
    for phone in listed:
        at = seen.get(phone.key, {}).get("at")
        paired = phone.paired.astimezone().strftime("%Y-%m-%d") if phone.paired else "?"
        ago = "never" if at is None else f"{duration(max(0, time.time() - at))} ago"
        verified = "no (version 1)" if phone.link.secret is None else "yes"
        table.add_row(phone.name, pairing.address(phone), paired, ago, verified)
    # A pipe has no width that lines would have to be broken for.
    width = None if sys.stdout.isatty() else _WIDEST
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)
    return 0


def _about(phone: PairedPhone, seen: dict[str, Any]) -> dict[str, Any]:
    at = seen.get("at")
    return {
        "name": phone.name,
        "relay": phone.link.relay,
        "paired": None if phone.paired is None else phone.paired.astimezone(UTC).isoformat(),
        "last_seen": None if at is None else datetime.fromtimestamp(at, UTC).isoformat(),
        "verified": phone.link.secret is not None,
        "key": phone.key,
    }


@click.command("unpair", help=_UNPAIR_HELP)
@placed
@click.argument("name")
@click.option("--admin-key", default="", metavar="KEY", help=f"The relay's; {_KEY_WAYS}.")
@click.option("--revoke", is_flag=True, help="Short for --admin-key env.")
def unpair(home: Home, name: str, admin_key: str, revoke: bool) -> int:
    phone = _named(home, name)
    key = _key(admin_key or ("env" if revoke else ""))
    pairing.unpair(home, phone, _say, admin_key=key)
    _say(f"{phone.name!r} is unpaired. Its secret and what was said with it are deleted.")
    _say_what_stays(home)
    if home.is_running and not home.is_followed:
        _say(f"{_other_agent(home)} It was not told: if it serves this phone, stop it.")
    if not key:
        _say(
            f"Its token still exists at {pairing.address(phone)}, and lets its holder in "
            "there, but not to this agent. Whoever runs that relay can revoke it."
        )
    return 0


@click.command("forget")
@placed
@click.argument("name", required=False)
@click.option("--agent", "agent_id", metavar="ID", help="The conversation with this agent alone.")
@click.option("--orphans", is_flag=True, help="All that is kept of phones not in the config.")
def forget(home: Home, name: str | None, agent_id: str | None, orphans: bool) -> int:
    """Delete what was said with a phone. The pairing stays.

    With --orphans instead of a phone's NAME: delete the pairings, the conversations and the
    times of all phones that the config does not have, such as those of run --link.
    """
    if orphans:
        if name is not None or agent_id is not None:
            raise click.UsageError("--orphans goes without a name and without --agent.")
        return _forget_orphans(home)
    if name is None:
        raise click.UsageError("Which phone? Give its name, or --orphans.")
    phone = _named(home, name)
    home.conversations.delete(phone.key, agent_id)
    what = "All conversations" if agent_id is None else "The conversation with that agent"
    _say(f"{what} of {phone.name!r}: deleted.")
    _say_what_stays(home)
    return 0


def _forget_orphans(home: Home) -> int:
    if number := forget_orphans(home, _say):
        of_whom = "1 phone" if number == 1 else f"{number} phones"
        _say(f"What was kept of {of_whom} that the config does not have: deleted.")
        _say_what_stays(home)
    else:
        _say("Nothing is kept of phones that the config does not have.")
    return 0


def _say_what_stays(home: Home) -> None:
    """That not everything is deleted, where the backend has a memory of its own."""
    try:
        name = config.load_key(home.config, "backend")
        keeps = backends.find(name).keeps if name else ""
    except (ConfigError, BackendUnusable):  # whoever runs it is told
        return
    if keeps:
        _say(f"What the backend {name} keeps itself ({keeps}) stays there.")


def _named(home: Home, name: str) -> PairedPhone:
    listed = config.load_phones(home.config)
    for phone in listed:
        if phone.name == name.strip():
            return phone
    known = ", ".join(repr(phone.name) for phone in listed)
    raise click.UsageError(
        f"There is no phone of that name. There are: {known}."
        if known
        else "There is no phone of that name, nor any other."
    )


def _say(text: str) -> None:
    click.echo(f"coralmux-agent: {text}", err=True)
