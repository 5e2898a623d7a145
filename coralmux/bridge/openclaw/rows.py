"""The rows of `chat.history`, and the lists of agents and findings, as phones get them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coralmux import AgentProfile, HistoryEntry, MemoryHit
from coralmux.bridge.openclaw.frames import part
from coralmux.bridge.openclaw.text import of_message


def objects(of: object, key: str) -> list[Mapping[str, Any]]:
    """The objects in a list within an object; none where there is no such list."""
    found = of.get(key) if isinstance(of, Mapping) else None
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def entries(history: object) -> list[HistoryEntry]:
    """What was said, without what the tools did."""
    return [
        HistoryEntry(role=str(row["role"]), content=text, timestamp=_time(row.get("timestamp")))
        for row in objects(history, "messages")
        if row.get("role") in ("user", "assistant") and (text := of_message(row))
    ]


def answer(history: object, run: str) -> str:
    """What was answered to the question of this run; "" where that is not to be found."""
    return "\n\n".join(_answers(history, f"{run}:user"))


def _answers(history: object, asked: str) -> Iterator[str]:
    found = False
    for row in objects(history, "messages"):
        if row.get("role") == "user":
            mark = row.get("idempotencyKey") or part(row, "__openclaw").get("idempotencyKey")
            found = mark == asked
        elif found and row.get("role") == "assistant" and (text := of_message(row)):
            yield text


def agents(listed: object) -> list[AgentProfile]:
    """The agents to choose from, the gateway's default first."""
    default = listed.get("defaultId") if isinstance(listed, Mapping) else None
    found = [
        AgentProfile(
            id=id,
            name=_text(part(agent, "identity").get("name")) or _text(agent.get("name")) or id,
            model=_text(part(agent, "model").get("primary")) or None,
        )
        for agent in objects(listed, "agents")
        if (id := _text(agent.get("id"))) and agent.get("kind") != "system"
    ]
    return sorted(found, key=lambda agent: agent.id != default)


def findings(found: object) -> list[MemoryHit]:
    return [
        MemoryHit(
            path=_text(hit.get("path")),
            snippet=_text(hit.get("snippet")),
            score=float(score) if isinstance(score := hit.get("score"), int | float) else None,
        )
        for hit in objects(found, "results")
    ]


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _time(value: object) -> int | float | str | None:
    return value if isinstance(value, int | float | str) else None
