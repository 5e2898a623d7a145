"""Writes the reference in docs/library.md from the docstrings: `make docs`.

With `--check` it writes nothing, and exits 1 when the page is out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import coralmux
from coralmux import events
from coralmux.client.queries import Queries
from coralmux.e2e import errors, initiator, legacy, noise, records, responder

PAGE = Path(__file__).parent / "library.md"
MARK = "<!-- reference: made by `make docs` from the docstrings -->\n"


def page(text: str) -> str:
    """The page with its reference made anew."""
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} has lost its mark: {MARK.strip()}")
    return head + mark + "\n" + "\n".join(_entries())


# Heading, what it is about, and what is listed under it.
GROUPS: list[tuple[str, str, list[Any]]] = [
    (
        "`coralmux`",
        "The public interface.",
        [getattr(coralmux, name) for name in coralmux.__all__ if not name.startswith("__")],
    ),
    (
        "`coralmux.events`",
        "What `on_event` is told.",
        [getattr(events, name) for name in events.__all__],
    ),
    (
        "`coralmux.e2e`",
        "The encryption itself: pure machines, for those who build another client.",
        [
            noise.CipherState,
            noise.SymmetricState,
            noise.HandshakeState,
            records.Records,
            initiator.PhoneSession,
            responder.AgentSession,
            legacy.LegacySession,
            legacy.derive_key,
            legacy.seal_payload,
            legacy.open_payload,
            errors.E2EError,
            errors.Failure,
        ],
    ),
]


def _entries() -> list[str]:
    lines: list[str] = []
    for heading, about, things in GROUPS:
        lines += [f"### {heading}", "", about, ""]
        for thing in things:
            lines += _entry(thing.__name__, thing)
    return lines


def _entry(name: str, thing: Any) -> list[str]:
    lines = [f"#### `{name}`", "", *_signature(name, thing), _text(thing), ""]
    if inspect.isclass(thing):
        for owner in reversed(thing.__mro__):
            if owner is thing or owner is Queries:
                for member, value in vars(owner).items():
                    lines += _member(owner.__name__, member, value)
    return lines


def _signature(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, Exception | Enum):
        return []
    if dataclasses.is_dataclass(thing):
        fields = ", ".join(field.name for field in dataclasses.fields(thing))
        return [f"`{name}({fields})`", ""]
    if getattr(thing, "_is_protocol", False):
        return []
    return [f"`{name}{_parameters(thing)}`", ""]


def _parameters(thing: Any) -> str:
    signature = inspect.signature(thing)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    shown = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    # A function as a default is shown with its address, which is another in each run.
    return re.sub(r"<function ([\w.]+) at [^>]*>", r"\1", str(shown))


# Public for their neighbours in the package only.
INTERNAL = {"Phone": ("turn", "abandon", "exchange")}


def _member(owner: str, name: str, value: Any) -> list[str]:
    if name.startswith("_") or name in INTERNAL.get(owner, ()):
        return []
    if isinstance(value, property):
        return [f"- `.{name}`: {_inline(value.fget)}", ""] if value.__doc__ else []
    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    if not inspect.isfunction(function) or not function.__doc__:
        return []
    return [f"- `.{name}{_parameters(function)}`: {_inline(function)}", ""]


def _text(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def _inline(thing: Any) -> str:
    return " ".join(_text(thing).split())


def main() -> int:
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            sys.stderr.write("docs/library.md is out of date: run `make docs`\n")
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
