"""What phones may ask for, checked, and what backends answer, as it can be sent.

Everything raises BackendError with a sentence for the phone's user.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from coralmux import BackendError
from coralmux.bridge.backend import AgentSpec

# Characters of names and ids, and of whole texts.
SHORT, LONG = 200, 50_000

# Messages or findings in one answer.
MOST = 200

# Bytes of messages in one answer: what every relay takes, with encryption around it.
MOST_BYTES = 700_000


def text(payload: dict[str, Any], key: str, *, needed: bool = False, longest: int = SHORT) -> str:
    """A text; "" where there is none, unless it is needed."""
    value = payload.get(key)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise BackendError(f"{key} has to be a text.")
    if needed and not value.strip():
        raise BackendError(f"{key} is missing.")
    if len(value) > longest:
        raise BackendError(f"{key} is too long: at most {longest:,} characters are taken.")
    return value


def short(value: str, key: str) -> str:
    return text({key: value}, key)


def limit(payload: dict[str, Any], default: int) -> int:
    """How many are wanted, from 1; more than there can be in one answer is no mistake."""
    value = payload.get("limit")
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise BackendError(f"limit has to be a whole number from 1 to {MOST}.")
    return min(value, MOST)


def agent(payload: dict[str, Any], *, named: bool = False) -> AgentSpec:
    """What an agent is to be. `named`: it is there already, so its id is needed."""
    texts = {
        key: text(payload, key, longest=SHORT if key in ("name", "model") else LONG)
        for key in ("name", "description", "model", "system_prompt")
        if payload.get(key) is not None
    }
    temperature = payload.get("temperature")
    if temperature is not None:
        if type(temperature) not in (int, float) or not math.isfinite(temperature):
            raise BackendError("temperature has to be a number.")
        temperature = float(temperature)
    return AgentSpec(id=text(payload, "id", needed=named), temperature=temperature, **texts)


def newest(messages: list[Any]) -> list[Any]:
    """As many of the last ones as fit into one message to the phone."""
    size = 0
    for n, message in enumerate(reversed(messages)):
        size += len(msgspec.json.encode(message))
        if size > MOST_BYTES:
            return messages[len(messages) - n :]
    return messages


def plain(value: Any, type: Any) -> Any:
    """What a backend answered, as JSON has it, if it is of this type."""
    try:
        found = msgspec.to_builtins(value)
        msgspec.convert(found, type)
        msgspec.json.encode(found)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        raise BackendError(
            "The AI's backend answered something that cannot be sent. "
            "Whoever runs this agent has to look at it."
        ) from None
    return found
