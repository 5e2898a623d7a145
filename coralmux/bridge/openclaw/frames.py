"""The frames of the gateway's protocol: JSON objects, as text, and not believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit


def part(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object within an object; an empty one where there is none."""
    found = of.get(key)
    return found if isinstance(found, Mapping) else {}


def request_frame(id: str, method: str, params: Mapping[str, Any]) -> str:
    return json.dumps({"type": "req", "id": id, "method": method, "params": params})


def read_frame(text: str | bytes) -> dict[str, Any]:
    """Raises ValueError for what is no frame."""
    try:
        frame = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(frame, dict):
        raise ValueError("no object")
    return frame


def challenge_of(frame: Mapping[str, Any]) -> Mapping[str, Any]:
    """What has to be signed. Raises ValueError."""
    payload = part(frame, "payload")
    nonce, ts = payload.get("nonce"), payload.get("ts")
    if frame.get("event") != "connect.challenge" or not isinstance(nonce, str) or not nonce:
        raise ValueError("no challenge")
    if type(ts) is not int or ts < 0:
        raise ValueError("a challenge without its time")
    return {"nonce": nonce, "ts": ts}


def address_of(url: str) -> SplitResult | None:
    """None for what is no address of a gateway."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if good else None
