"""The phone in the browser: its page, its files, its service worker and its manifest.

All of it is the same for everybody and made once; nothing here reads a cookie or sets one.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from coralmux_site import phone_files
from coralmux_site.phone_files import PackagesMissing

# Where a file is, by its name.
Address = Callable[[str], str]

PAGE = "/phone"
WORKER = "/phone/service-worker.js"
MANIFEST = "/phone/manifest.webmanifest"

_ICONS = (
    ("icons/icon-192.png", "192x192", "any"),
    ("icons/icon-512.png", "512x512", "any"),
    ("icons/maskable-512.png", "512x512", "maskable"),
)
# The surfaces of styles/shared/properties.css.
LIGHT, DARK = "#faf8f6", "#171413"

_FOREVER = f"public, max-age={365 * 24 * 3600}, immutable"


def url(name: str) -> str:
    """The address of one of the phone's files."""
    return f"{settings.STATIC_URL}phone/{name}"


@dataclass(frozen=True)
class Made:
    """An answer that is made once."""

    body: bytes
    type: str
    policy: str = ""

    @functools.cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body + self.policy.encode()).hexdigest()[:16]}"'

    @functools.cached_property
    def packed(self) -> bytes:
        return gzip.compress(self.body, mtime=0)

    def respond(self, request: HttpRequest, **headers: str) -> HttpResponse:
        """Packed for who takes that, where it helps; 304 for who has it.

        A 304 has all of these headers: a browser puts them in the place of those it has kept.
        """
        small = not self.type.startswith("image/png") and "gzip" in request.headers.get(
            "Accept-Encoding", ""
        )
        response = HttpResponse(self.packed if small else self.body, content_type=self.type)
        if small:
            response["Content-Encoding"] = "gzip"
        response["ETag"] = self.etag
        answer = get_conditional_response(request, etag=self.etag, response=response) or response
        if self.policy:
            answer["Content-Security-Policy"] = self.policy
        for name, value in headers.items():
            answer[name.replace("_", "-")] = value
        patch_vary_headers(answer, ["Accept-Encoding"])
        return answer


def page_for(address: Address, *, manifest: str, worker: str, elsewhere: bool = False) -> Made:
    """The page, whose files have these addresses. Raises PackagesMissing.

    With `elsewhere` it is at no relay, talks to all of them, and carries its policy itself.
    """
    import_map = json.dumps(
        {"imports": {name: address(f"npm/{path}") for name, path in phone_files.IMPORTS.items()}}
    )
    policy = _policy(
        import_map, "'self' wss: ws://127.0.0.1:* ws://localhost:*" if elsewhere else "'self'"
    )
    text = render_to_string(
        "phone.html",
        {
            # The only one that a page cannot set by itself, and no browser takes from it.
            "policy": policy.replace("frame-ancestors 'none'; ", "") if elsewhere else "",
            "fragment": address(phone_files.FRAGMENT),
            "main": address(phone_files.MAIN),
            "modules": [address(name) for name in phone_files.modules()],
            "styles": [address(name) for name in phone_files.styles()],
            "icon": address("icons/icon.svg"),
            "touch_icon": address("icons/touch-180.png"),
            "manifest": manifest,
            "worker": worker,
            "import_map": import_map,
            "light": LIGHT,
            "dark": DARK,
        },
    )
    return Made(text.encode(), "text/html; charset=utf-8", policy)


def worker_for(page: Made, manifest: Made, paths: list[str]) -> Made:
    """The service worker, which begins with what it keeps: these paths, the page's first."""
    source = (phone_files.folder() / phone_files.WORKER).read_text("utf-8")
    version = hashlib.sha256(
        "\n".join((source, page.etag, manifest.etag, *paths)).encode()
    ).hexdigest()[:16]
    head = (
        f"const VERSION = {json.dumps(version)};\nconst PATHS = {json.dumps(paths, indent=2)};\n\n"
    )
    policy = "default-src 'none'; connect-src 'self'"
    return Made((head + source).encode(), phone_files.TYPES[".js"], policy)


def manifest_for(address: Address, page: str) -> Made:
    """What makes an app of the page."""
    manifest: dict[str, Any] = {
        "name": "CoralMux",
        "short_name": "CoralMux",
        "description": "Talk to your AI agent, end-to-end encrypted.",
        "start_url": page,
        "scope": page,
        "display": "standalone",
        "theme_color": LIGHT,
        "background_color": LIGHT,
        "icons": [
            {"src": address("icons/icon.svg"), "sizes": "any", "type": "image/svg+xml"},
            *(
                {"src": address(name), "sizes": sizes, "type": "image/png", "purpose": purpose}
                for name, sizes, purpose in _ICONS
            ),
        ],
    }
    return Made(json.dumps(manifest, indent=2).encode(), "application/manifest+json")


def _policy(import_map: str, connect: str) -> str:
    """What the page may do: run our files, and talk to relays."""
    import_map_hash = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'sha256-{import_map_hash}'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            f"connect-src {connect}",
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types coralmux",
        )
    )


@functools.cache
def the_page() -> Made:
    """Raises PackagesMissing."""
    return page_for(url, manifest=MANIFEST, worker=WORKER)


@functools.cache
def the_worker() -> Made:
    """Raises PackagesMissing."""
    paths = [PAGE, MANIFEST, *map(url, phone_files.shell())]
    return worker_for(the_page(), the_manifest(), paths)


@functools.cache
def the_manifest() -> Made:
    return manifest_for(url, PAGE)


@functools.cache
def the_file(name: str) -> Made:
    """A served file. Raises PackagesMissing and KeyError."""
    if name not in phone_files.served():
        raise KeyError(name)
    return Made(phone_files.content(name), phone_files.media_type(name))


@csrf_exempt
@require_safe
async def page(request: HttpRequest) -> HttpResponse:
    """The page, or 503 where the packages it is made of are not installed."""
    try:
        made = the_page()
    except PackagesMissing as error:
        return _unavailable(error)
    return made.respond(
        request,
        Cache_Control="no-cache",
        Referrer_Policy="no-referrer",
        Permissions_Policy="camera=(self), microphone=(), geolocation=()",
        Cross_Origin_Opener_Policy="same-origin",
    )


@csrf_exempt
@require_safe
async def slash(request: HttpRequest) -> HttpResponse:
    """Browsers take the fragment along."""
    return HttpResponsePermanentRedirect(PAGE)


@csrf_exempt
@require_safe
async def worker(request: HttpRequest) -> HttpResponse:
    """The service worker; its scope is wider than its folder."""
    try:
        made = the_worker()
    except PackagesMissing as error:
        return _unavailable(error)
    return made.respond(request, Cache_Control="no-cache", Service_Worker_Allowed=PAGE)


@csrf_exempt
@require_safe
async def manifest(request: HttpRequest) -> HttpResponse:
    return the_manifest().respond(request, Cache_Control="no-cache")


@csrf_exempt
@require_safe
async def file(request: HttpRequest, name: str) -> HttpResponse:
    """One of the files, for ever: what changes has another address."""
    try:
        made = the_file(name)
    except (PackagesMissing, KeyError):
        raise Http404 from None
    return made.respond(request, Cache_Control=_FOREVER)


def _unavailable(error: PackagesMissing) -> HttpResponse:
    return HttpResponse(f"{error}\n", status=503, content_type="text/plain; charset=utf-8")
