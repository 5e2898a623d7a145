"""Every endpoint's statuses and bodies, as PROTOCOL.md has them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import AsyncClient, Client
from django.utils import timezone

from pairing import services
from pairing.models import PairingToken
from tests.pairing.conftest import KEY

pytestmark = pytest.mark.django_db

ADMIN = {"X-Admin-Key": KEY}
TOKEN = r"oc_pair_[0-9a-f]{32}"


def create(client: Client, body: str = "", headers=ADMIN):
    return client.post("/api/v1/pair", body, content_type="application/json", headers=headers)


def error_of(response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_creating_a_pairing_needs_no_body(client) -> None:
    response = create(client)
    assert response.status_code == 201
    assert set(response.json()) == {"token"}
    assert re.fullmatch(TOKEN, response.json()["token"])
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("body", ["{}", "null", '{"unknown": 1}'])
def test_empty_bodies_and_unknown_keys_are_fine(client, body: str) -> None:
    assert create(client, body).status_code == 201


def test_curls_content_type_for_data_is_taken(client) -> None:
    response = client.post(
        "/api/v1/pair",
        '{"label":"curl"}',
        content_type="application/x-www-form-urlencoded",
        headers=ADMIN,
    )
    assert response.status_code == 201
    assert PairingToken.objects.get().label == "curl"


def test_label_expiry_and_limits_are_kept(client) -> None:
    body = '{"label": "Anna", "expires_in_seconds": 60.0, "daily_quota_bytes": 0}'
    token = create(client, body).json()["token"]
    grant = services.authenticate(token=token, address="203.0.113.1")
    assert grant.daily_quota_bytes == 0
    assert grant.expires_at is not None
    assert timedelta(seconds=50) < grant.expires_at - timezone.now() <= timedelta(seconds=60)
    assert PairingToken.objects.get().label == "Anna"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("{", 400, "JSON"),
        ("[" * 60_000, 400, "JSON"),
        ("\xff", 400, "JSON"),
        ("[]", 422, "body"),
        ("5", 422, "body"),
        ('"text"', 422, "body"),
        ('{"label": 5}', 422, "label"),
        ('{"label": "\\ud800"}', 422, "label"),
        ('{"label": "a\\u0000b"}', 422, "label"),
        ('{"label": "' + "x" * 201 + '"}', 422, "label"),
        ('{"expires_in_seconds": 0}', 422, "expires_in_seconds"),
        ('{"expires_in_seconds": 1e300}', 422, "expires_in_seconds"),
        ('{"expires_in_seconds": NaN}', 422, "expires_in_seconds"),
        ('{"daily_quota_bytes": false}', 422, "daily_quota_bytes"),
        ('{"daily_quota_bytes": "5"}', 422, "daily_quota_bytes"),
        ('{"daily_quota_bytes": -1}', 422, "daily_quota_bytes"),
        ('{"daily_quota_bytes": 1' + "0" * 30 + "}", 422, "daily_quota_bytes"),
        ('{"max_message_bytes": 0}', 422, "max_message_bytes"),
    ],
)
def test_bodies_that_cannot_be_used_are_refused_by_name(client, body, status, field) -> None:
    data = body.encode("latin-1")
    response = client.post("/api/v1/pair", data, content_type="application/json", headers=ADMIN)
    assert error_of(response) == (status, "INVALID_REQUEST")
    assert field in response.json()["error"]["message"]
    assert not PairingToken.objects.exists()


def test_a_large_body_is_refused(client) -> None:
    response = create(client, '{"label": "' + "x" * 70_000 + '"}')
    assert error_of(response) == (413, "TOO_LARGE")


async def test_a_large_body_without_a_declared_length_is_refused() -> None:
    """A chunked request: the ASGI server has read it, and no header says how long it is."""
    from asgiref.testing import ApplicationCommunicator
    from django.core.asgi import get_asgi_application

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/pair",
        "query_string": b"",
        "headers": [(b"x-admin-key", KEY.encode()), (b"host", b"localhost")],
        "client": ("203.0.113.1", 1),
    }
    communicator = ApplicationCommunicator(get_asgi_application(), scope)
    await communicator.send_input({"type": "http.request", "body": b" " * 70_000})
    start = await communicator.receive_output(5)
    assert start["status"] == 413
    await communicator.receive_output(5)
    await communicator.wait(5)


@pytest.mark.parametrize("headers", [{}, {"X-Admin-Key": ""}, {"X-Admin-Key": "wrong"}])
@pytest.mark.parametrize(
    ("method", "path"), [("post", "/api/v1/pair"), ("delete", "/api/v1/pair/x")]
)
def test_without_the_key_nothing_is_made_or_revoked(client, method, path, headers) -> None:
    response = getattr(client, method)(path, headers=headers)
    assert error_of(response) == (401, "UNAUTHORIZED")
    assert not PairingToken.objects.exists()


def test_the_key_is_checked_before_the_body(client) -> None:
    assert error_of(create(client, "{", headers={})) == (401, "UNAUTHORIZED")


def test_keys_that_are_no_ascii_are_just_wrong(client) -> None:
    assert error_of(create(client, headers={"X-Admin-Key": "schlüssel"}))[0] == 401


def test_without_a_configured_key_the_admin_endpoints_are_closed(client, coralmux) -> None:
    coralmux(ADMIN_KEY="")
    for headers in ({}, {"X-Admin-Key": ""}, ADMIN):
        response = create(client, headers=headers)
        assert error_of(response) == (403, "ADMIN_CLOSED")
        assert "CORALMUX_ADMIN_KEY" in response.json()["error"]["message"]
        assert "-admin-key" in response.json()["error"]["message"]
    assert error_of(client.delete("/api/v1/pair/x", headers=ADMIN)) == (403, "ADMIN_CLOSED")


def test_status_tells_which_sides_are_online(client, online) -> None:
    issued = services.issue()
    online[issued.record.pk] = frozenset({"phone"})
    response = client.get(f"/api/v1/pair/{issued.token}")
    assert response.status_code == 200
    assert response.json() == {"phone": True, "agent": False}


@pytest.mark.parametrize(
    "token",
    [
        "unknown",
        "oc_pair_" + "0" * 32,
        "%00",
        "a%00b",
        "%ff%fe",
        "%ED%A0%80",
        "ü",
        "x" * 4000,
        "' OR 1=1 --",
        "%25",
    ],
)
def test_tokens_nobody_issued_are_not_found(client, token: str) -> None:
    services.issue()
    for response in (
        client.get(f"/api/v1/pair/{token}"),
        client.delete(f"/api/v1/pair/{token}", headers=ADMIN),
    ):
        assert error_of(response) == (404, "NOT_FOUND")
        assert token not in response.content.decode()


def test_guessing_is_limited_and_says_when_to_come_back(client, coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=2)
    token = services.issue().token
    for _ in range(2):
        assert error_of(client.get("/api/v1/pair/guess")) == (404, "NOT_FOUND")
    response = client.get("/api/v1/pair/guess")
    assert error_of(response) == (429, "RATE_LIMITED")
    seconds = int(response["Retry-After"])
    assert 1 <= seconds <= 3600
    assert response.json()["error"]["retry_after_ms"] == seconds * 1000
    assert error_of(create(client, headers={"X-Admin-Key": "guess"})) == (429, "RATE_LIMITED")
    assert client.get(f"/api/v1/pair/{token}").status_code == 200
    assert create(client).status_code == 201


def test_forwarded_headers_of_strangers_do_not_lift_the_limit(client, coralmux) -> None:
    coralmux(FAILED_ATTEMPTS_PER_HOUR=1)
    answers = [
        client.get("/api/v1/pair/guess", headers={"X-Forwarded-For": f"198.51.100.{n}"})
        for n in range(3)
    ]
    assert [answer.status_code for answer in answers] == [404, 429, 429]


def test_revoking_closes_the_token_once(
    client, django_capture_on_commit_callbacks, revocations
) -> None:
    issued = services.issue()
    with django_capture_on_commit_callbacks(execute=True):
        response = client.delete(f"/api/v1/pair/{issued.token}", headers=ADMIN)
    assert response.status_code == 204
    assert response.content == b""
    assert revocations == [issued.record.pk]
    assert error_of(client.get(f"/api/v1/pair/{issued.token}")) == (404, "NOT_FOUND")
    again = client.delete(f"/api/v1/pair/{issued.token}", headers=ADMIN)
    assert error_of(again) == (404, "NOT_FOUND")


def test_registration_is_closed_by_default_and_names_the_switch(client) -> None:
    response = client.post("/api/v1/register")
    assert error_of(response) == (403, "REGISTRATION_CLOSED")
    assert "-public" in response.json()["error"]["message"]
    assert "CORALMUX_PUBLIC=1" in response.json()["error"]["message"]


def test_a_public_relay_registers_five_an_hour(client, coralmux) -> None:
    coralmux(PUBLIC=True)
    for _ in range(5):
        response = client.post("/api/v1/register")
        assert response.status_code == 201
        assert re.fullmatch(TOKEN, response.json()["token"])
    response = client.post("/api/v1/register")
    assert error_of(response) == (429, "RATE_LIMITED")
    assert int(response["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/pair", {"POST"}),
        ("/api/v1/pair/token", {"GET", "DELETE"}),
        ("/api/v1/register", {"POST"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_405_with_allow(client, path, allowed, method) -> None:
    if method in allowed:
        return
    response = client.generic(method, path)
    assert response.status_code == 405
    assert set(response["Allow"].replace(" ", "").split(",")) == allowed


async def test_the_same_over_asgi() -> None:
    client = AsyncClient(raise_request_exception=False)
    response = await client.get("/api/v1/pair/unknown")
    assert error_of(response) == (404, "NOT_FOUND")
    response = await client.put("/api/v1/register")
    assert error_of(response) == (405, "METHOD_NOT_ALLOWED")


def test_the_schema_names_every_operation_and_the_docs_open(client) -> None:
    schema = client.get("/api/openapi.json").json()
    assert set(schema["paths"]) == {"/api/v1/pair", "/api/v1/pair/{token}", "/api/v1/register"}
    assert client.get("/api/docs").status_code == 200
