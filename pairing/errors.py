"""HTTP errors: one table, one shape.

    {"error": {"code": "NOT_FOUND", "message": "…", "retry_after_ms": 1000}}

`code` is for programs, `message` for people; `retry_after_ms` stands beside
RATE_LIMITED only, with the same in seconds as the header Retry-After.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from django.http import HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from pairing import exceptions


class Error(NamedTuple):
    status: int
    message: str


TABLE: dict[str, Error] = {
    "INVALID_REQUEST": Error(422, "The request cannot be understood."),
    "UNAUTHORIZED": Error(401, exceptions.AdminKeyWrong.default),
    "ADMIN_CLOSED": Error(403, exceptions.AdminClosed.default),
    "REGISTRATION_CLOSED": Error(403, exceptions.RegistrationClosed.default),
    "NOT_FOUND": Error(404, "There is nothing here."),
    "METHOD_NOT_ALLOWED": Error(405, "This address does not take that method; see Allow."),
    "TOO_LARGE": Error(413, "The request is too large."),
    "RATE_LIMITED": Error(429, "Too many requests. Wait, then try again."),
    "INTERNAL": Error(500, "The relay failed. The fault is not yours, and it is in the log."),
    "UNAVAILABLE": Error(503, "The relay's database is away. Try again in a moment."),
}

_BY_STATUS = {
    400: "INVALID_REQUEST",
    401: "UNAUTHORIZED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "TOO_LARGE",
    429: "RATE_LIMITED",
    503: "UNAVAILABLE",
}

# The most specific class wins, so look these up along the exception's ancestors.
_BY_EXCEPTION: dict[type[Exception], str] = {
    exceptions.InvalidValue: "INVALID_REQUEST",
    exceptions.AuthFailed: "NOT_FOUND",
    exceptions.Throttled: "RATE_LIMITED",
    exceptions.RegistrationClosed: "REGISTRATION_CLOSED",
    exceptions.AdminClosed: "ADMIN_CLOSED",
    exceptions.AdminKeyWrong: "UNAUTHORIZED",
}


def respond(
    code: str,
    message: str = "",
    *,
    status: int | None = None,
    retry_after_seconds: int | None = None,
) -> HttpResponse:
    """The response for a code of the table; message and status only where they differ."""
    error = TABLE[code]
    body: dict[str, object] = {"code": code, "message": message or error.message}
    if retry_after_seconds is not None:
        body["retry_after_ms"] = retry_after_seconds * 1000
    response = JsonResponse({"error": body}, status=status or error.status)
    if retry_after_seconds is not None:
        response["Retry-After"] = str(retry_after_seconds)
    # An error says how things stand now: a token that is unknown today may
    # exist tomorrow.
    response["Cache-Control"] = "no-store"
    return response


def for_exception(error: exceptions.PairingError) -> HttpResponse:
    """The response for whatever the services refuse."""
    code = next(_BY_EXCEPTION[cls] for cls in type(error).__mro__ if cls in _BY_EXCEPTION)
    return respond(
        code, str(error), retry_after_seconds=getattr(error, "retry_after_seconds", None)
    )


def code_for_status(status: int) -> str:
    """The code that tells most about a status that the framework chose."""
    return _BY_STATUS.get(status, "INTERNAL" if status >= 500 else "INVALID_REQUEST")


def has_shape(response: HttpResponseBase) -> bool:
    """Whether the response's body is an error of this module's shape."""
    if not isinstance(response, HttpResponse):
        return False
    if not response.get("Content-Type", "").startswith("application/json"):
        return False
    try:
        error = json.loads(response.content)["error"]
        return error["code"] in TABLE and isinstance(error["message"], str)
    except (ValueError, KeyError, TypeError):
        return False
