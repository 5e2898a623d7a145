"""What every HTTP answer of the relay has in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.utils.decorators import sync_and_async_middleware

from pairing import addresses, errors
from pairing.exceptions import PairingError

log = structlog.get_logger(__name__)

Answer = HttpResponseBase | Awaitable[HttpResponseBase]
GetResponse = Callable[[HttpRequest], Any]

# Programs read these paths, so their errors are JSON whoever makes them.
_FOR_PROGRAMS = ("/api", "/health", "/ready", "/metrics")

# Whoever asks these comes by IP address, which is none of the allowed host names.
_HEALTH_CHECKS = ("/health", "/ready")

# The admin site and the API's pages need no more than this. Neither runs inline
# scripts, so a label that gets past the escaping still runs nothing.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class ErrorShape:
    """Give every error for a program the one shape, the framework's own included.

    Status and headers stay as they are (405 keeps its Allow); a body that has
    the shape already stays too.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        if self.is_async:
            return self._later(request)
        return _shaped(request, self.get_response(request))

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        return _shaped(request, await self.get_response(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer what a view lets through: a service's refusal, or a database that is away."""
        if not _for_program(request):
            return None
        if isinstance(exception, PairingError):
            return errors.for_exception(exception)
        if isinstance(exception, (OperationalError, InterfaceError)):
            log.error("database unavailable", error=str(exception))
            return errors.respond("UNAVAILABLE")
        return None


def _for_program(request: HttpRequest) -> bool:
    return any(
        request.path_info == path or request.path_info.startswith(path + "/")
        for path in _FOR_PROGRAMS
    )


def _shaped(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code < 400 or not _for_program(request) or errors.has_shape(response):
        return response
    shaped = errors.respond(
        errors.code_for_status(response.status_code), status=response.status_code
    )
    for name, value in response.items():
        if name.lower() not in ("content-type", "content-length", "content-encoding"):
            shaped[name] = value
    shaped.cookies = response.cookies
    response.close()
    return shaped


class CheckedHost(CommonMiddleware):
    """Django's check of the host name, for everything but health checks."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in _HEALTH_CHECKS else super().process_request(request)


@sync_and_async_middleware
def forwarded_scheme(get_response: GetResponse) -> Callable[[HttpRequest], Answer]:
    """Believe `X-Forwarded-Proto` of configured proxies alone.

    Django reads it by SECURE_PROXY_SSL_HEADER from anybody, so here it is taken
    out of the requests of everybody else.
    """

    def check(request: HttpRequest) -> None:
        if "HTTP_X_FORWARDED_PROTO" in request.META and not addresses.from_trusted_proxy(request):
            del request.META["HTTP_X_FORWARDED_PROTO"]

    if iscoroutinefunction(get_response):

        async def later(request: HttpRequest) -> HttpResponseBase:
            check(request)
            response: HttpResponseBase = await get_response(request)
            return response

        return later

    def now(request: HttpRequest) -> HttpResponseBase:
        check(request)
        response: HttpResponseBase = get_response(request)
        return response

    return now


@sync_and_async_middleware
def content_security_policy(get_response: GetResponse) -> Callable[[HttpRequest], Answer]:
    """Set the strict policy on every response that brings none of its own."""

    if iscoroutinefunction(get_response):

        async def later(request: HttpRequest) -> HttpResponseBase:
            response: HttpResponseBase = await get_response(request)
            return _with_policy(response)

        return later

    def now(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = get_response(request)
        return _with_policy(response)

    return now


def _with_policy(response: HttpResponseBase) -> HttpResponseBase:
    # What a 304 says replaces what the browser has of the page, its own policy too.
    if response.status_code != 304:
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    return response
