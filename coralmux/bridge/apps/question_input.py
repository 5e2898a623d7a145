"""What a LangChain Runnable or a LangGraph graph wants as its input, from its own schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import coralmux
from coralmux import Turn
from coralmux.bridge.backend import Question
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.web import completions

Messages = Callable[[list[completions.Message]], Any]


@dataclass(frozen=True, slots=True)
class InputShape:
    """`key`: of the table that the question goes into; "" where it goes in as it is.

    `messages`: whether it is a list of messages, with what was said before, or the text
    alone. `history`: the key for what was said before, where that has one of its own.
    """

    key: str = ""
    messages: bool = False
    history: str = ""

    def of(self, question: Question, history: Sequence[Turn], made: Messages = list) -> Any:
        """The input for a question; `made` makes the messages from their JSON.

        Raises BackendError for files that it cannot take.
        """
        asked = completions.question(question.text, question.attachments)
        if self.messages:
            found: Any = made(completions.messages("", history, asked))
        elif isinstance(asked["content"], str):
            found = asked["content"]
        else:
            raise coralmux.BackendError(
                "This app takes text alone. Send the question without pictures."
            )
        if not self.key:
            return found
        if not self.history:
            return {self.key: found}
        before = completions.messages("", history, {"role": "user", "content": ""})[:-1]
        return {self.key: found, self.history: made(before)}


def shape(schema: Mapping[str, Any], wanted: str = "") -> InputShape:
    """How to put a question to an app with this JSON schema.

    `wanted` is the operator's word: "text", "messages", or the key that takes the question.
    Raises BackendUnusable where the schema leaves the choice open and there is no such word.
    """
    root = _resolved(schema, schema)
    fields = {name: _resolved(field, schema) for name, field in root.get("properties", {}).items()}
    if root.get("type") != "object" and not fields:
        return _bare(root, schema, wanted)
    lists = [name for name, field in fields.items() if _takes_list(field, schema)]
    if wanted == "text":
        return InputShape()
    if wanted:
        return _of_table(wanted, fields, lists)
    if "messages" in lists:
        return InputShape("messages", messages=True)
    others = [name for name in fields if name not in lists]
    required = [name for name in others if name in root.get("required", ())]
    for candidates in (required, others, lists):
        if len(candidates) == 1:
            return _of_table(candidates[0], fields, lists)
    keys = ", ".join(fields) or "a table with keys that it does not tell"
    raise BackendUnusable(
        f"The app takes {keys}. Say which key is the question's, such as input = "
        f'"{next(iter(required or others or fields), "question")}".'
    )


def _bare(root: Mapping[str, Any], schema: Mapping[str, Any], wanted: str) -> InputShape:
    if wanted == "messages" or (not wanted and _takes_list(root, schema)):
        return InputShape(messages=True)
    if wanted in ("", "text"):
        return InputShape()
    return InputShape(wanted)


def _of_table(key: str, fields: Mapping[str, Any], lists: Sequence[str]) -> InputShape:
    before = [name for name in lists if name != key]
    return InputShape(key, messages=key in lists, history=before[0] if len(before) == 1 else "")


def _takes_list(field: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    return field.get("type") == "array" or any(
        _takes_list(_resolved(one, schema), schema) for one in field.get("anyOf", ())
    )


def _resolved(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` within the schema leads to."""
    for _ in range(5):
        name = str(field.get("$ref", "")).removeprefix("#/$defs/")
        if not name:
            break
        field = schema.get("$defs", {}).get(name, {})
    return field
