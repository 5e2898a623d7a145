"""Counting by client address and hour, through django-ratelimit."""

from __future__ import annotations

from django_ratelimit.core import get_usage

from pairing.addresses import limit_key

# Wrong tokens and wrong admin keys count together: both are guesses.
FAILURES = "pairing.failures"
REGISTRATIONS = "pairing.registrations"


def hit(*, group: str, address: str, per_hour: int) -> int | None:
    """Count one event; the seconds to wait when the address is over its limit, else None.

    The first `per_hour` events of an hour pass; 0 means no limit. The count and
    the test are one atomic step, so concurrent guesses cannot slip through.
    """
    if per_hour == 0:
        return None
    usage = get_usage(
        request=None,
        group=group,
        key=lambda _group, _request: limit_key(address),
        rate=f"{per_hour}/h",
        increment=True,
    )
    if usage is None or not usage["should_limit"]:
        return None
    # -1 stands for a cache that did not answer, 0 for a window that ends now.
    return max(1, int(usage["time_left"]))
