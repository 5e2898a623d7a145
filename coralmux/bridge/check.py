"""`coralmux-agent check`: looks at the config, the relay and the backend, and says what is so."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

from coralmux import BackendError, LinkError
from coralmux.bridge import backends, config, registration
from coralmux.bridge.backend import Finding, Place
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.config import Config, ConfigError
from coralmux.bridge.home import Home
from coralmux.bridge.phones import PairedPhone
from coralmux.bridge.registration import Health, Relay
from coralmux.bridge.relay_failures import RelayProblem
from coralmux.text import discreet, duration, one_line

# Seconds between the clocks, from which on something may go wrong by it.
_SKEW = 30
# Seconds without a finding, after which a backend's check is given up.
_PATIENCE = 120


class Checked(NamedTuple):
    """A finding, and what it is about: "config", "relay", "phone" or "backend"."""

    about: str
    finding: Finding


async def check(home: Home, load: Callable[[], Config]) -> AsyncIterator[Checked]:
    """Look at everything that `run` needs, without changing anything."""
    for found in _file(home):
        yield Checked("config", found)
    chosen: Config | None = None
    try:
        chosen = load()
        yield Checked("config", Finding(True, f"The config {home.config} can be used."))
    except ConfigError as error:
        yield Checked("config", Finding(False, str(error)))
    for checked in _relays(home):
        yield checked
    if chosen is not None:
        async for found in _backend(chosen):
            yield Checked("backend", _readable(found))


def _file(home: Home) -> Iterator[Finding]:
    try:
        mode = home.config.stat().st_mode
    except FileNotFoundError:
        yield Finding(False, f"There is no config {home.config}.", "Make one: coralmux-agent init")
        return
    except OSError:  # said by whoever reads it
        return
    if os.name == "posix" and mode & 0o077:
        # Reading it has to close it, so this is said once.
        yield Finding(
            False,
            f"Other users of this machine could read {home.config}, which holds secrets.",
            "It is closed to them now (mode 600). If one of them may have read it, pair your "
            "phones anew and replace the API key.",
        )


# The relay


def _relays(home: Home) -> Iterator[Checked]:
    try:
        phones = config.load_phones(home.config)
        usual: str = config.load_key(home.config, "relay")
    except ConfigError:  # said already
        return
    if not phones:
        yield Checked(
            "phone", Finding(False, "No phone is paired.", "Pair one: coralmux-agent pair")
        )
    urls = dict.fromkeys(phone.link.relay for phone in phones)
    if usual:
        try:
            urls.setdefault(registration.normalised(usual))
        except LinkError as error:
            what = "No phone can be paired at the relay that `relay` names."
            yield Checked("relay", Finding(False, what, str(error)))
    for url in urls:
        yield from _relay(url, [phone for phone in phones if phone.link.relay == url])


def _relay(url: str, phones: list[PairedPhone]) -> Iterator[Checked]:
    try:
        with Relay(url) as relay:
            health = relay.health()
            version = f" {one_line(health.version)}" if health.version else ""
            yield Checked("relay", Finding(True, f"The relay{version} at {relay.address} answers."))
            yield Checked("relay", _clock(health))
            for phone in phones:
                yield Checked("phone", _phone(relay, phone))
    except RelayProblem as problem:
        yield Checked("relay", problem.finding())


def _clock(health: Health) -> Finding:
    if health.ahead is None:
        return Finding(True, "The relay does not tell the time, so the clock was not compared.")
    if abs(health.ahead) <= _SKEW:
        return Finding(True, "The clock of this machine agrees with the relay's.")
    side = "behind" if health.ahead > 0 else "ahead of"
    return Finding(
        False,
        f"The clock of this machine is {duration(abs(health.ahead))} {side} the relay's.",
        "Set it by the network (on Linux: timedatectl set-ntp true); if it is the relay's that "
        "is wrong, tell its operator. TLS certificates, and the OpenClaw gateway's signature, "
        "need the right time.",
    )


def _phone(relay: Relay, phone: PairedPhone) -> Finding:
    try:
        there = relay.online(phone.link.token)["phone"]
    except RelayProblem as problem:
        return Finding(False, f"{phone.name!r}: {problem.what}", problem.remedy)
    now = "connected now" if there else "not connected now"
    return Finding(True, f"{phone.name!r} is known to the relay, and {now}.")


# The backend


async def _backend(chosen: Config) -> AsyncIterator[Finding]:
    place = Place(chosen.directory / "backends" / chosen.backend, chosen.name)
    try:
        backend = backends.make(chosen.backend, chosen.settings, place)
    except BackendUnusable as error:
        yield Finding(False, str(error))
        return
    findings = aiter(backend.check())
    try:
        while True:
            async with asyncio.timeout(_PATIENCE):
                found = await anext(findings)
            yield found
    except StopAsyncIteration:
        pass
    except TimeoutError:
        yield Finding(False, f"The backend did not say anything for {duration(_PATIENCE)}.")
    except (BackendError, BackendUnusable) as error:
        yield Finding(False, str(error))
    except Exception as error:
        # Its text may hold anything.
        yield Finding(False, f"The check of the backend failed ({type(error).__name__}).")
    finally:
        with contextlib.suppress(Exception):
            await backend.stop()


def _readable(found: Finding) -> Finding:
    """What a backend found, fit for a terminal."""
    return Finding(found.good, discreet(one_line(found.text)), discreet(one_line(found.remedy)))
