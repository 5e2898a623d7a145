"""The paired phones, as they stand in the config: `[[phone]]` with name, link and date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from coralmux import LinkError, PairingLink
from coralmux.bridge.conversations import phone_key

# Characters. A name is shown in one line of a table.
MAX_NAME = 60
DEFAULT_NAME = "My phone"

_KEYS = {"name", "link", "paired"}


class PhoneError(ValueError):
    """A phone cannot be had as it is written or asked for; repeats nothing of its link."""


@dataclass(frozen=True, slots=True)
class PairedPhone:
    """One pairing of the config. `paired`: when it was made, where that is known."""

    name: str
    link: PairingLink = field(repr=False)
    paired: datetime | None = None

    @property
    def key(self) -> str:
        """Names the phone in files and logs without telling its token: 32 hex digits."""
        return phone_key(self.link.token)


def checked_name(text: str) -> str:
    """A phone's name without space around it. Raises PhoneError."""
    name = text.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise PhoneError(f"A phone's name is 1 to {MAX_NAME} printable characters.")
    return name


def read(tables: Any, expand: Callable[[str, str], str]) -> tuple[PairedPhone, ...]:
    """The config's `[[phone]]` tables, of which there may be none (None).

    `expand` puts in the variables of a value, given what to call it. Raises PhoneError.
    """
    if tables is None:
        return ()
    if not isinstance(tables, Sequence) or not all(isinstance(one, Mapping) for one in tables):
        raise PhoneError("Phones are written as tables: [[phone]], with name and link below it.")
    phones = [_read(number, table, expand) for number, table in enumerate(tables, 1)]
    _tell_apart(phones)
    return tuple(phones)


def _read(number: int, table: Mapping[str, Any], expand: Callable[[str, str], str]) -> PairedPhone:
    where = f"[[phone]] number {number}"
    if unknown := sorted(set(table) - _KEYS):
        raise PhoneError(f"{where}: there is no key {unknown[0]!r}. It knows: name, link, paired.")
    for key in ("name", "link"):
        if not isinstance(table.get(key), str):
            raise PhoneError(f"{where} needs the key {key!r}, a text in quotes.")
    name = checked_name(expand(table["name"], f"{where}: name"))
    paired = table.get("paired")
    if not isinstance(paired, datetime | None):
        raise PhoneError(f"{where}: paired must be a date with its time: 2026-01-31T12:00:00Z.")
    if paired is not None and paired.tzinfo is None:
        paired = paired.replace(tzinfo=UTC)
    try:
        link = PairingLink.parse(expand(table["link"], f"{where}: link"))
    except LinkError as error:
        why = str(error)
    else:
        return PairedPhone(name, link, paired)
    # Outside of the handler: what was parsed may be in the error's frames.
    raise PhoneError(f"The link of the phone {name!r} cannot be used. {why}")


def _tell_apart(phones: Sequence[PairedPhone]) -> None:
    """Raises PhoneError where two have the same name or the same token."""
    for number, phone in enumerate(phones):
        for other in phones[:number]:
            if other.name == phone.name:
                raise PhoneError(f"Two phones are named {phone.name!r}. Rename one of them.")
            if other.link.token == phone.link.token:
                raise PhoneError(
                    f"The phones {other.name!r} and {phone.name!r} have the same token. "
                    "Each needs a pairing of its own: remove one, and pair it anew."
                )
