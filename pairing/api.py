"""The REST API, version 1: create, look at and revoke pairings; register.

Thin on purpose: each operation calls one service and names its status. Errors
come out of `errors.py`, whoever raises them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Body, NinjaAPI, Path, Schema
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from ninja.responses import Status
from ninja.security import APIKeyHeader
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from coralmux import __version__
from pairing import addresses, errors, services
from pairing.exceptions import PairingError
from pairing.tokens import MAX_LIMIT

# Ten years. Whoever wants longer wants no expiry.
MAX_EXPIRES_IN_SECONDS = 10 * 366 * 24 * 3600


class AdminKey(APIKeyHeader):
    """The operator's key (CORALMUX_ADMIN_KEY)."""

    param_name = "X-Admin-Key"

    def authenticate(self, request: HttpRequest, key: str | None) -> bool:
        services.check_admin_key(key=key or "", address=addresses.of_request(request))
        return True


class BoundedParser(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        # Django checks the length that the client declares; a chunked body has none.
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if limit is not None and len(request.body) > limit:
            raise RequestDataTooBig
        return super().parse_body(request)


api = NinjaAPI(
    title="CoralMux Relay",
    version=__version__,
    description=(
        "Pairing tokens under which a phone and an agent meet at `/ws`. "
        'Every error is `{"error": {"code": …, "message": …}}`.'
    ),
    parser=BoundedParser(),
    urls_namespace="api",
)


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 60.0 is as good as 60."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT), BeforeValidator(_whole)]
Size = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_whole)]
Seconds = Annotated[int, Field(ge=1, le=MAX_EXPIRES_IN_SECONDS), BeforeValidator(_whole)]


# Ninja's own Schema would read attributes, and finds none missing in `[]` or `5`.
class PairRequest(BaseModel):
    """Everything is optional. Limits left out are the relay's settings; 0 = no limit."""

    # Else `false` would be a limit of 0, which lifts it.
    model_config = ConfigDict(
        strict=True,
        # What the documentation page offers to send.
        json_schema_extra={"example": {"label": "my phone", "expires_in_seconds": 604_800}},
    )

    label: Annotated[str, StringConstraints(max_length=200)] = Field(
        "",
        description="For people to recognise the pairing.",
        # The service checks it, and says so in better words than a pattern's.
        json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
    )
    expires_in_seconds: Seconds | None = Field(
        None, description="The token lets nobody in after that; left out: never expires."
    )
    phone_messages_per_minute: Limit | None = None
    agent_messages_per_minute: Limit | None = None
    stream_frames_per_second: Limit | None = None
    daily_quota_bytes: Limit | None = None
    monthly_quota_bytes: Limit | None = None
    max_message_bytes: Size | None = Field(
        None, description="It can only be lower than the relay's setting."
    )


class Pairing(Schema):
    token: str = Field(description="Shown this once; the relay keeps only its SHA-256.")


class Online(Schema):
    """Which sides hold a live connection."""

    phone: bool
    agent: bool


class ErrorDetail(Schema):
    code: str = Field(description="For programs.", json_schema_extra={"enum": list(errors.TABLE)})
    message: str = Field(description="For people.")
    retry_after_ms: int | None = Field(None, description="With RATE_LIMITED: how long to wait.")


class ErrorBody(Schema):
    error: ErrorDetail


Token = Path[Annotated[str, Field(description="The whole token, `oc_pair_` and 32 hex digits.")]]

_ADMIN_ERRORS = frozenset({400, 401, 403, 413, 422, 429, 500, 503})


@api.post(
    "/v1/pair",
    auth=AdminKey(),
    response={201: Pairing, _ADMIN_ERRORS: ErrorBody},
    summary="Create a pairing token",
    tags=["Pairing"],
)
def create(
    request: HttpRequest, response: HttpResponse, spec: Body[PairRequest | None] = None
) -> Status[Any]:
    """Make a token for one phone and one agent. The body may be left out."""
    response["Cache-Control"] = "no-store"
    wanted = spec.model_dump() if spec else {}
    seconds = wanted.pop("expires_in_seconds", None)
    expires_at = None if seconds is None else timezone.now() + timedelta(seconds=seconds)
    return Status(201, {"token": services.issue(expires_at=expires_at, **wanted).token})


@api.get(
    "/v1/pair/{token}",
    response={200: Online, frozenset({404, 429, 500, 503}): ErrorBody},
    summary="Who is online under a token",
    tags=["Pairing"],
)
def status(request: HttpRequest, token: Token) -> Status[Any]:
    """Tokens that are unknown, revoked or expired are 404, and count as failed attempts."""
    return Status(200, services.status(token=token, address=addresses.of_request(request)))


@api.delete(
    "/v1/pair/{token}",
    auth=AdminKey(),
    response={204: None, frozenset({401, 403, 404, 429, 500, 503}): ErrorBody},
    summary="Revoke a token",
    tags=["Pairing"],
)
def revoke(request: HttpRequest, token: Token) -> Status[Any]:
    """Let nobody in any more; live connections close within a second."""
    if not services.revoke_by_token(token=token):
        raise services.UnknownToken
    return Status(204, None)


@api.post(
    "/v1/register",
    response={201: Pairing, frozenset({403, 429, 500, 503}): ErrorBody},
    summary="Register yourself on a public relay",
    tags=["Pairing"],
)
def register(request: HttpRequest, response: HttpResponse) -> Status[Any]:
    """Make a token without a key, where the operator opened that (`-public`)."""
    response["Cache-Control"] = "no-store"
    issued = services.register(address=addresses.of_request(request))
    return Status(201, {"token": issued.token})


@api.exception_handler(PairingError)
def _refused(_request: HttpRequest, error: PairingError) -> HttpResponse:
    return errors.for_exception(error)


@api.exception_handler(ValidationError)
def _invalid(_request: HttpRequest, error: ValidationError) -> HttpResponse:
    # Field and reason, never the value: it may be a token in the wrong place.
    reasons = (
        f"{'.'.join(str(part) for part in detail['loc'][2:]) or 'body'}: {detail['msg']}"
        for detail in error.errors
    )
    return errors.respond("INVALID_REQUEST", "; ".join(reasons))


@api.exception_handler(HttpError)
def _http_error(_request: HttpRequest, error: HttpError) -> HttpResponse:
    if isinstance(error.__cause__, RequestDataTooBig):
        return errors.respond("TOO_LARGE")
    if error.status_code == 400:
        return errors.respond("INVALID_REQUEST", "The body is not JSON.", status=400)
    return errors.respond(errors.code_for_status(error.status_code), status=error.status_code)


@api.exception_handler(RequestDataTooBig)
def _too_large(_request: HttpRequest, _error: RequestDataTooBig) -> HttpResponse:
    return errors.respond("TOO_LARGE")


@api.exception_handler(Http404)
def _not_found(_request: HttpRequest, _error: Http404) -> HttpResponse:
    return errors.respond("NOT_FOUND")
