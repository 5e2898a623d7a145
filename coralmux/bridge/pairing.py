"""Pairing a phone, and undoing it: the relay's token, the secret, the config."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from coralmux import PairingLink, StoreError
from coralmux.bridge.config import ConfigError
from coralmux.bridge.config_file import ConfigFile, editing
from coralmux.bridge.home import Home
from coralmux.bridge.phones import DEFAULT_NAME, PairedPhone
from coralmux.bridge.registration import Relay
from coralmux.bridge.relay_failures import RelayProblem
from coralmux.bridge.serving import served

# Seconds that a running agent gets to notice that a phone is unpaired, and between two looks
# at whether it has. It looks at the config once a second, and takes what two looks agree on.
_LET_GO_SECONDS = 5.0
_LOOK_SECONDS = 0.2


class PairingError(Exception):
    """The phone cannot be paired or unpaired; the text says why and what to do."""


class TokenLeftOver(PairingError):
    """The relay has made a token, and the config could not be written."""

    def __init__(self, text: str, token: str) -> None:
        super().__init__(text)
        self.token = token


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of pairing is wanted. `relay` as `registration.normalised` makes it.

    `token` "" is one that the relay is asked for: with the `admin_key`, or, without one,
    as everybody may ask where it is open to everybody.
    """

    name: str
    relay: str
    token: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)
    with_secret: bool = True


def address(phone: PairedPhone) -> str:
    """Where a phone's relay is, as people know it."""
    return urlsplit(phone.link.relay).netloc


def pair(home: Home, wish: Wish, say: Callable[[str], None]) -> PairedPhone:
    """Get a token, make the secret, and put both into the config.

    Raises PairingError, RelayProblem, ConfigError and LinkError; then nothing has changed,
    but for TokenLeftOver. `say` tells of what does not stand in the way.
    """
    with editing(home.config, say) as file:
        name = _free_name(wish, file)
        # Before there is a token: one that cannot be kept is of no use to anybody.
        file.prepare(relay=wish.relay)
        try:
            return _pair(home, wish, name, file, say)
        except BaseException:
            file.undo()
            raise


def _pair(
    home: Home, wish: Wish, name: str, file: ConfigFile, say: Callable[[str], None]
) -> PairedPhone:
    with Relay(wish.relay, admin_key=wish.admin_key) as relay:
        if wish.token:
            _look_at(relay, wish.token, say)
            token = wish.token
        else:
            token = relay.create(name) if wish.admin_key else relay.register()
        link = PairingLink.new(wish.relay, token)
        if not wish.with_secret:
            link = link.with_secret(None)
        phone = PairedPhone(name, link, datetime.now(UTC).replace(microsecond=0))
        try:
            # A pairing of the same token that was here before is over.
            home.store.forget(token)
            file.add(phone)
        except (ConfigError, StoreError) as error:
            why = str(error)
        else:
            return phone
        if wish.token:
            raise PairingError(why)
        raise _left_over(relay if wish.admin_key else None, token, why)


def unpair(
    home: Home, phone: PairedPhone, say: Callable[[str], None], *, admin_key: str = ""
) -> None:
    """Forget a phone and all that was said with it; with the key the relay's token, too.
    `say` tells of what takes long.

    Raises RelayProblem, after which nothing has changed, ConfigError, StoreError and OSError.
    """
    with editing(home.config, say) as file:
        file.prepare(relay="")
        if admin_key:
            revoke(phone, admin_key)
        # Before the config tells a running agent, which looks here when it lets go.
        home.store.forget(phone.link.token)
        file.remove(phone)
    if home.is_followed:
        _until_let_go(home, phone)
        # The end of its connection has written it once more.
        home.store.forget(phone.link.token)
    else:
        seen = home.seen
        seen.forget(phone.key)
        seen.write()
    home.conversations.delete(phone.key)


def _until_let_go(home: Home, phone: PairedPhone) -> None:
    """Wait until the running agent serves the phone no more, a few seconds at most."""
    deadline = time.monotonic() + _LET_GO_SECONDS
    while phone.key in served(home.directory) and home.is_running and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def revoke(phone: PairedPhone, admin_key: str) -> None:
    """Have the relay let nobody in by this phone's token. One that it does not know is
    no error. Raises RelayProblem."""
    with Relay(phone.link.relay, admin_key=admin_key) as relay:
        try:
            relay.revoke(phone.link.token)
        except RelayProblem as problem:
            if problem.code != "NOT_FOUND":
                raise


def _free_name(wish: Wish, file: ConfigFile) -> str:
    phones = file.phones
    if any(phone.name == wish.name for phone in phones):
        another = "" if wish.name != DEFAULT_NAME else f', for example --name "{DEFAULT_NAME} 2"'
        raise PairingError(
            f"There is a phone named {wish.name!r} already. Give this one another name by "
            f"--name{another}."
        )
    for phone in phones:
        if wish.token and phone.link.token == wish.token:
            raise PairingError(
                f"This token belongs to the phone {phone.name!r}. A token is for one phone: get "
                "another, or unpair that one first."
            )
    return wish.name


def _look_at(relay: Relay, token: str, say: Callable[[str], None]) -> None:
    """Whether the relay knows the token, as far as it tells."""
    try:
        relay.online(token)
    except RelayProblem as problem:
        if problem.code == "NOT_FOUND":
            raise PairingError(
                f"The relay {relay.address} does not know this token: it was revoked, has "
                "expired, or is another relay's. Copy it whole, or get a new one."
            ) from None
        say(f"The token could not be tried. {problem}")


def _left_over(relay: Relay | None, token: str, why: str) -> PairingError:
    """What to say of a new token that could not be kept; `relay` would revoke it."""
    try:
        if relay is not None:
            relay.revoke(token)
            return PairingError(f"{why} The token that the relay had made is revoked again.")
    except RelayProblem:
        pass
    return TokenLeftOver(
        f"{why} The relay had made a token before that, which is good still: once the config "
        "can be written, use it by coralmux-agent pair --token -",
        token,
    )
