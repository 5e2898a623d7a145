"""The client's address, for limits and logs.

A relay usually stands behind a proxy, so the peer of the TCP connection is not
the client. X-Forwarded-For says who is, and anybody can write it: it counts
only as far as configured proxies (CORALMUX_TRUSTED_PROXIES) have written it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"

# An IPv6 customer is given at least a /64, so single addresses limit nobody.
IPV6_LIMIT_PREFIX = 64


def client_address(*, peer: str | None, forwarded: str | None, trusted: Iterable[Network]) -> str:
    """The address of the client that a request or a socket came from.

    `forwarded` is the X-Forwarded-For list, nearest hop last. It is walked from
    the right while the hop that wrote the entry is trusted; an entry that is no
    address ends the walk, for whoever wrote it knew no better. Never raises;
    without a usable peer it is "unknown".
    """
    address = _parse(peer or "")
    if address is None:
        return UNKNOWN
    networks = tuple(trusted)
    for entry in reversed((forwarded or "").split(",")):
        if not _among(address, networks):
            break
        hop = _parse(entry)
        if hop is None:
            break
        address = hop
    return str(address)


def limit_key(address: str) -> str:
    """What a limit counts under: an IPv4 address, or the /64 of an IPv6 one."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(parsed), IPV6_LIMIT_PREFIX), strict=False))
    return UNKNOWN if parsed is None else str(parsed)


def of_request(request: HttpRequest) -> str:
    """The client's address of a Django request, or "unknown"."""
    return client_address(
        peer=request.META.get("REMOTE_ADDR"),
        forwarded=request.META.get("HTTP_X_FORWARDED_FOR"),
        trusted=settings.CORALMUX["TRUSTED_PROXIES"],
    )


def of_login(request: HttpRequest) -> str | None:
    """The same for django-axes, whose column takes an address or nothing."""
    address = of_request(request)
    return None if address == UNKNOWN else address


def of_scope(scope: Mapping[str, Any]) -> str:
    """The client's address of an ASGI scope, or "unknown"."""
    client = scope.get("client")
    forwarded = b",".join(
        value for name, value in scope.get("headers", ()) if name.lower() == b"x-forwarded-for"
    )
    return client_address(
        peer=client[0] if client else None,
        forwarded=forwarded.decode("latin-1"),
        trusted=settings.CORALMUX["TRUSTED_PROXIES"],
    )


def from_trusted_proxy(request: HttpRequest) -> bool:
    """Whether the TCP peer of the request is a configured proxy."""
    return is_trusted_proxy(request.META.get("REMOTE_ADDR") or "")


def is_trusted_proxy(peer: str) -> bool:
    """Whether the address is that of a configured proxy."""
    address = _parse(peer)
    return address is not None and _among(address, settings.CORALMUX["TRUSTED_PROXIES"])


def _among(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    """An address out of `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`; else None."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # The zone of a link-local address (`%eth0`) names our interface, not the client.
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
