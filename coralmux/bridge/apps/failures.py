"""Why an app that runs in this process failed: a sentence for the phone, a line for home.

Frameworks wrap the errors of a dozen model providers, each with its own classes, whose
texts may quote the question, the key, or the whole prompt. So none of them is repeated:
the status of HTTP and the name of the class say enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import coralmux
from coralmux.bridge.apps.loading import own_line
from coralmux.text import one_line

_BY_STATUS = {
    400: "The app's model server did not take the request. Ask in another way, or with less text.",
    401: "The app's model server does not take its API key. The key has to be set anew at home.",
    402: "The account of the app's model wants to be paid first.",
    403: "The app's API key does not allow what the app wants from its model.",
    404: "The app's model server does not know the model or the address that the app uses.",
    413: "The question is larger than the app's model takes. Send less at once.",
    422: "The app's model server did not take the request. Ask in another way, or with less text.",
    429: "The app's model takes no more questions just now (limit reached). Try again later.",
}

_UNREACHABLE = "The app cannot reach its model server. Look whether that is running."
_BROKE_OFF = "The connection to the app's model broke off. Ask again."
_TOO_SLOW = "The app's model did not answer in time. Try again later."
_TOO_LONG = "The conversation is longer than the app's model takes. Send less at once."

# Endings of the names of classes, of many frameworks and their HTTP clients.
_BY_NAME = {
    "GraphRecursionError": (
        "The app went around in circles and was stopped (recursion limit). Ask in another way."
    ),
    "ContextOverflowError": _TOO_LONG,
    "ContextWindowExceededError": _TOO_LONG,
    "LLMContextLengthExceededError": _TOO_LONG,
    "Timeout": _TOO_SLOW,
    "TimeoutError": _TOO_SLOW,
    "TimeoutException": _TOO_SLOW,
    "ConnectError": _UNREACHABLE,
    "ConnectionError": _UNREACHABLE,
    "ConnectionRefusedError": _UNREACHABLE,
    "AuthenticationError": _BY_STATUS[401],
    "PermissionDeniedError": _BY_STATUS[403],
    "NotFoundError": _BY_STATUS[404],
    "RateLimitError": _BY_STATUS[429],
    "RemoteProtocolError": _BROKE_OFF,
    "ReadError": _BROKE_OFF,
}


def explain(error: BaseException) -> coralmux.BackendError:
    """What the phone's user is told of it."""
    if isinstance(error, coralmux.BackendError):
        return error
    for cause in _causes(error):
        status = _status(cause)
        if status is not None:
            return coralmux.BackendError(_BY_STATUS.get(status) or _of_status(status))
        for kind in type(cause).__mro__:
            if sentence := of_name(kind.__name__):
                return coralmux.BackendError(sentence)
        if sentence := of_name(_name(cause)):
            return coralmux.BackendError(sentence)
    return coralmux.BackendError(
        f"The app failed with {_name(error)}. The agent's window at home says where."
    )


def of_name(name: str) -> str:
    """A sentence for the class of an error; "" for one that says nothing to people."""
    return next((said for ending, said in _BY_NAME.items() if name.endswith(ending)), "")


def locate(error: BaseException, directory: Path) -> str:
    """What the operator is told: the classes of the errors, and the app's own line."""
    names = " from ".join(_name(cause) for cause in _causes(error))
    line = next((line for c in _causes(error) if (line := own_line(c, directory))), "")
    return one_line(f"The app failed with {names}{f' at {line}' if line else ''}.")


def _name(error: BaseException) -> str:
    """The class of an error, or of the one that it tells of as a text."""
    told = re.match(r"(\w+(?:Error|Exception)): ", str(error))
    return told[1] if told else type(error).__name__


def _of_status(status: int) -> str:
    if status >= 500:
        return f"The app's model server failed (HTTP {status}). Try again in a moment."
    return f"The app's model server did not take the request (HTTP {status})."


def _status(error: BaseException) -> int | None:
    found = getattr(error, "status_code", None)
    if found is None:
        found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) and found >= 400 else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it, as far as that was not hidden on purpose."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
