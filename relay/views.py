"""HTTP beside the sockets: liveness, readiness and metrics."""

from __future__ import annotations

import time

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET

from coralmux import __version__
from pairing import addresses, services
from relay.runtime import runtime


@require_GET
async def health(request: HttpRequest) -> HttpResponse:
    """The process is alive. Counts only; nothing that names anybody."""
    directory = runtime.directory
    return JsonResponse(
        {
            "status": "ok",
            "connections": sum(directory.connections.values()),
            "sessions": directory.pairs,
            "uptime_sec": int(time.monotonic() - runtime.started_at),
            "version": __version__,
        }
    )


@require_GET
async def ready(request: HttpRequest) -> HttpResponse:
    """The process takes new connections: the database answers, and it is not draining."""
    if runtime.draining:
        return _not_ready("The relay is shutting down.")
    try:
        await sync_to_async(_ask_database)()
    except DatabaseError:
        return _not_ready("The database does not answer.")
    return JsonResponse({"status": "ready"})


@require_GET
async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format, for holders of the admin key.

    Takes the key as `X-Admin-Key` or as `Authorization: Bearer`, which is what
    Prometheus sends. Raises as `pairing.services.check_admin_key` does.
    """
    key = request.headers.get("X-Admin-Key", "")
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if not key and scheme.lower() == "bearer":
        key = credentials.strip()
    await sync_to_async(services.check_admin_key)(key=key, address=addresses.of_request(request))
    body = runtime.metrics.render(runtime.directory, runtime.sockets)
    return HttpResponse(body, content_type="text/plain; version=0.0.4; charset=utf-8")


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _not_ready(message: str) -> HttpResponse:
    body = {"error": {"code": "UNAVAILABLE", "message": message}}
    return JsonResponse(body, status=503, headers={"Retry-After": "5"})
