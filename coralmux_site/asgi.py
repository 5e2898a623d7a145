"""The ASGI application: `daphne coralmux_site.asgi:application`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coralmux_site.settings")

from django.core.asgi import get_asgi_application

_http: Any = get_asgi_application()

# Only now are Django's applications loaded, which these import.
from coralmux_site import logs  # noqa: E402
from relay.consumers import RelayConsumer  # noqa: E402
from relay.runtime import runtime  # noqa: E402

logs.redact_daphne_access_log()
logs.redact_uvicorn_access_log()

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_relay = RelayConsumer.as_asgi()


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """HTTP to Django, /ws to the relay, any other WebSocket refused."""
    if scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["type"] == "websocket":
        if scope["path"] == "/ws":
            await _relay(scope, receive, send)
        else:
            await send({"type": "websocket.close"})
    else:
        await _lifespan(receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    """For servers that have it; Daphne starts the runtime with the first connection."""
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            runtime.start()
            await send({"type": "lifespan.startup.complete"})
        else:
            await runtime.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
