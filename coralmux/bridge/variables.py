"""`${VAR}` and `${VAR:-default}` in the config's texts; `$$` is a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A dollar sign before anything else is one: prompts speak of money.
_SIGN = re.compile(r"\$(?:(\$)|\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*?))?\})?)", re.DOTALL)


class VariableError(ValueError):
    """A variable is not set, or what begins like one is none."""


def expanded(text: str, environ: Mapping[str, str], where: str) -> str:
    """The text with its variables put in; `where` is what an error calls it.

    The default stands in for a variable that is unset or empty, as in a shell.
    """

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        if not found[2]:
            raise VariableError(
                f"{where}: behind ${{ comes the name of a variable: ${{NAME}}. "
                "Write $$ for the sign itself."
            )
        if found[3] is not None:
            return environ.get(found[2]) or found[3]
        if found[2] not in environ:
            raise VariableError(
                f"{where}: the environment variable {found[2]} is not set. "
                f"Set it, or write ${{{found[2]}:-default}}."
            )
        return environ[found[2]]

    return _SIGN.sub(value, text)


def expanded_all(value: Any, environ: Mapping[str, str], where: str) -> Any:
    """The same for every text within lists and tables."""
    if isinstance(value, str):
        return expanded(value, environ, where)
    if isinstance(value, list):
        return [expanded_all(one, environ, where) for one in value]
    if isinstance(value, dict):
        return {key: expanded_all(one, environ, f"{where}.{key}") for key, one in value.items()}
    return value


def escaped(text: str) -> str:
    """A text that `expanded` gives back as it is."""
    return text.replace("$", "$$")
