"""Every error has the one shape, whoever made it: a service, ninja, Django or a crash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client, RequestFactory

from coralmux_site.middleware import ErrorShape
from pairing import errors, exceptions, services
from tests.pairing.conftest import KEY

pytestmark = pytest.mark.django_db

ADMIN = {"X-Admin-Key": KEY}


def crash(error: Exception):
    def crashes(**_: object) -> None:
        raise error

    return crashes


def check_shape(response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status
    assert response["Content-Type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) - {"retry_after_ms"} == {"code", "message"}
    assert error["code"] == code
    assert error["message"]
    assert ("retry_after_ms" in error) == ("Retry-After" in response)
    if response.has_header("Content-Length"):
        assert int(response["Content-Length"]) == len(response.content)
    return error


CASES = {
    "unknown path": ("GET", "/api/nothing", {}, 404, "NOT_FOUND"),
    "unknown path under pair": ("GET", "/api/v1/pair/a/b", {}, 404, "NOT_FOUND"),
    "the bare prefix": ("GET", "/api", {}, 404, "NOT_FOUND"),
    "a slash too many": ("POST", "/api/v1/pair/", {}, 404, "NOT_FOUND"),
    "unknown token": ("GET", "/api/v1/pair/x", {}, 404, "NOT_FOUND"),
    "wrong method": ("PUT", "/api/v1/pair", {}, 405, "METHOD_NOT_ALLOWED"),
    "options": ("OPTIONS", "/api/v1/register", {}, 405, "METHOD_NOT_ALLOWED"),
    "wrong method on health": ("POST", "/health", {}, 405, "METHOD_NOT_ALLOWED"),
    "wrong method on metrics": ("DELETE", "/metrics", {}, 405, "METHOD_NOT_ALLOWED"),
    "no key": ("POST", "/api/v1/pair", {}, 401, "UNAUTHORIZED"),
    "no key for metrics": ("GET", "/metrics", {}, 401, "UNAUTHORIZED"),
    "registration closed": ("POST", "/api/v1/register", {}, 403, "REGISTRATION_CLOSED"),
    "no JSON": ("POST", "/api/v1/pair", {"headers": ADMIN, "data": "{"}, 400, "INVALID_REQUEST"),
    "bad JSON": ("POST", "/api/v1/pair", {"headers": ADMIN, "data": "5"}, 422, "INVALID_REQUEST"),
    "too large": (
        "POST",
        "/api/v1/pair",
        {"headers": ADMIN, "data": " " * 70_000},
        413,
        "TOO_LARGE",
    ),
    "bad host": ("GET", "/api/v1/pair/x", {"headers": {"Host": "a b"}}, 400, "INVALID_REQUEST"),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_have_the_shape(client, case: str) -> None:
    method, path, how, status, code = CASES[case]
    if "data" in how:
        how = {**how, "content_type": "application/json"}
    check_shape(client.generic(method, path, **how), status, code)


@pytest.mark.parametrize("case", CASES)
async def test_errors_have_the_shape_over_asgi(case: str) -> None:
    method, path, how, status, code = CASES[case]
    if "data" in how:
        how = {**how, "content_type": "application/json"}
    client = AsyncClient(raise_request_exception=False)
    check_shape(await client.generic(method, path, **how), status, code)


def test_head_on_an_error_is_no_surprise(client) -> None:
    assert client.head("/api/v1/register").status_code == 405


def test_being_limited_has_the_shape(client, coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1, PUBLIC=True, REGISTRATIONS_PER_HOUR=1)
    for method, path, headers in (
        ("GET", "/api/v1/pair/guess", {}),
        ("POST", "/api/v1/pair", {"X-Admin-Key": "guess"}),
        ("GET", "/metrics", {"X-Admin-Key": "guess"}),
        ("POST", "/api/v1/register", {}),
    ):
        client.generic(method, path, headers=headers)
        response = client.generic(method, path, headers=headers)
        error = check_shape(response, 429, "RATE_LIMITED")
        assert error["retry_after_ms"] == int(response["Retry-After"]) * 1000


def test_admin_endpoints_without_a_key_have_the_shape(client, coralmux) -> None:
    coralmux(ADMIN_KEY="")
    for method, path in (("POST", "/api/v1/pair"), ("GET", "/metrics")):
        check_shape(client.generic(method, path), 403, "ADMIN_CLOSED")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("secret detail"), 500, "INTERNAL"),
        (OperationalError("secret detail"), 503, "UNAVAILABLE"),
        (SuspiciousOperation("secret detail"), 400, "INVALID_REQUEST"),
        (PermissionDenied("secret detail"), 403, "INVALID_REQUEST"),
    ],
)
def test_a_view_that_fails_has_the_shape_and_tells_no_detail(
    client, monkeypatch, error, status, code
) -> None:
    monkeypatch.setattr(services, "status", crash(error))
    response = client.get("/api/v1/pair/x")
    check_shape(response, status, code)
    assert "secret" not in response.content.decode()


async def test_a_view_that_fails_over_asgi_has_the_shape(monkeypatch) -> None:
    monkeypatch.setattr(services, "status", crash(OperationalError("gone")))
    client = AsyncClient(raise_request_exception=False)
    check_shape(await client.get("/api/v1/pair/x"), 503, "UNAVAILABLE")


def test_405_keeps_its_allow_header(client) -> None:
    response = client.put("/api/v1/register")
    assert response["Allow"] == "POST"


def test_pages_for_people_keep_their_own_errors(client) -> None:
    response = client.get("/nothing")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("code", errors.TABLE)
def test_each_code_of_the_table_makes_its_response(code: str) -> None:
    check_shape_of = errors.respond(code)
    assert errors.has_shape(check_shape_of)
    assert check_shape_of.status_code == errors.TABLE[code].status


def all_refusals(cls: type[exceptions.PairingError] = exceptions.PairingError):
    return [found for sub in cls.__subclasses__() for found in (sub, *all_refusals(sub))]


@pytest.mark.parametrize("cls", all_refusals())
def test_every_refusal_of_the_services_has_a_response(cls) -> None:
    error = cls(30) if issubclass(cls, exceptions.Throttled) else cls()
    response = errors.for_exception(error)
    assert errors.has_shape(response)
    assert response.has_header("Retry-After") == isinstance(error, exceptions.Throttled)


@pytest.mark.parametrize(
    "response",
    [
        HttpResponse("Not found", status=404),
        HttpResponse("{", status=404, content_type="application/json"),
        JsonResponse({"detail": "no"}, status=404),
        JsonResponse({"error": "no"}, status=404),
        JsonResponse([], safe=False, status=404),
    ],
)
def test_other_bodies_are_rewritten(response) -> None:
    shape = ErrorShape(lambda _request: response)
    check = shape(RequestFactory().get("/api/x"))
    assert errors.has_shape(check)


def test_a_body_in_shape_stays_as_it_is() -> None:
    response = errors.respond("UNAVAILABLE", "The relay is shutting down.")
    shape = ErrorShape(lambda _request: response)
    assert shape(RequestFactory().get("/ready")) is response


def test_no_error_repeats_the_token_or_the_key(client: Client) -> None:
    token = "oc_pair_" + "ab" * 16
    for response in (
        client.get(f"/api/v1/pair/{token}"),
        client.put(f"/api/v1/pair/{token}"),
        client.get(f"/api/v1/pair/{token}/x"),
        client.delete(f"/api/v1/pair/{token}", headers={"X-Admin-Key": token}),
        client.post(
            "/api/v1/pair",
            f'{{"label": ["{token}"], "daily_quota_bytes": "{token}"}}',
            content_type="application/json",
            headers=ADMIN,
        ),
    ):
        assert response.status_code >= 400
        assert "abab" not in response.content.decode() + str(response.headers)


def test_the_documentation_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tokens.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+)", page, re.MULTILINE))
    assert documented == {code: str(error.status) for code, error in errors.TABLE.items()}
