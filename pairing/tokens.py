"""Issuing, knowing and revoking pairing tokens.

Look-ups go by the token's SHA-256 alone, so the database never sees what a
client sent, whatever characters it holds, and comparing needs no constant
time: nobody can steer a digest digit by digit.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from pairing import presence, throttle
from pairing.exceptions import (
    InvalidValue,
    RegistrationClosed,
    TokenExpired,
    TokenRevoked,
    TooManyFailures,
    TooManyRegistrations,
    UnknownToken,
)
from pairing.grants import Grant, TokenState, limits_in_force
from pairing.models import LIMIT_FIELDS, PREFIX_LENGTH, PairingToken
from pairing.signals import announce_revocation
from pairing.usage import with_usage

TOKEN_START = "oc_pair_"
SELF_REGISTERED = "self-registered"

# Control characters and lone surrogates: terminals obey them, databases refuse them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# The largest limit that both databases and JavaScript's numbers hold exactly.
MAX_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token. This is the only place where its text ever is."""

    token: str
    record: PairingToken

    def __repr__(self) -> str:
        return f"Issued({self.record!r})"


def digest_of(token: str) -> str:
    """The SHA-256 of a whole token in hex. Takes any string, lone surrogates too."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def issue(*, label: str = "", expires_at: datetime | None = None, **limits: int | None) -> Issued:
    """Make a token, with its own limits where given (names of `LIMIT_FIELDS`).

    Raises InvalidValue.
    """
    unknown = set(limits) - set(LIMIT_FIELDS)
    if unknown:
        raise TypeError(f"issue() knows no limit {', '.join(sorted(unknown))}")
    check_values(label=label, expires_at=expires_at, **limits)
    token = TOKEN_START + secrets.token_hex(16)
    record = PairingToken.objects.create(
        label=label.strip(),
        digest=digest_of(token),
        prefix=token[:PREFIX_LENGTH],
        expires_at=expires_at,
        **limits,
    )
    return Issued(token=token, record=record)


def check_values(
    *, label: str = "", expires_at: datetime | None = None, **limits: int | None
) -> None:
    """What a token may be issued with, or changed to; raises InvalidValue for the rest."""
    if len(label) > 200:
        raise InvalidValue("The label is longer than 200 characters.")
    if _UNPRINTABLE.search(label):
        raise InvalidValue("The label has control characters.")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidValue("The token would expire in the past.")
    for name, value in limits.items():
        if value is None:
            continue
        least = 1 if name == "max_message_bytes" else 0
        if not least <= value <= MAX_LIMIT:
            raise InvalidValue(f"{name} must be between {least} and {MAX_LIMIT}.")


def revoke(*, token_id: int) -> bool:
    """Let nobody in under the token from now on; live connections close within a second.

    False when it was revoked already. Raises UnknownToken.
    """
    with transaction.atomic():
        # In here, for SQLite's lock may have been waited for.
        now = timezone.now()
        changed = PairingToken.objects.filter(pk=token_id, revoked_at=None).update(
            revoked_at=now, changed_at=now
        )
        if changed == 1:
            announce_revocation(token_id=token_id)
            return True
    if not PairingToken.objects.filter(pk=token_id).exists():
        raise UnknownToken
    return False


def revoke_by_token(*, token: str) -> bool:
    """The same by the token itself."""
    token_id = (
        PairingToken.objects.filter(digest=digest_of(token)).values_list("pk", flat=True).first()
    )
    if token_id is None:
        raise UnknownToken
    return revoke(token_id=token_id)


def find(name: str) -> list[int]:
    """The ids of the tokens that a whole token, or its first characters, stand for.

    By first characters only active tokens are found, at most ten. Raises
    InvalidValue for what cannot be the beginning of a token.
    """
    if not re.fullmatch(TOKEN_START + "[0-9a-f]{1,32}", name):
        raise InvalidValue(f"A token begins with {TOKEN_START} and hex digits.")
    if len(name) > PREFIX_LENGTH:
        found = PairingToken.objects.filter(digest=digest_of(name))
    else:
        found = PairingToken.objects.filter(prefix__startswith=name, revoked_at=None)
    return list(found.order_by("pk").values_list("pk", flat=True)[:10])


def authenticate(*, token: str, address: str) -> Grant:
    """Let a connection in, or raise UnknownToken, TokenRevoked or TokenExpired (AuthFailed).

    An address with too many failures gets TooManyFailures instead. The token is
    looked up first, so that a good one passes however many bad ones came from
    the same address.
    """
    day = timezone.now().astimezone(UTC).date()
    record = with_usage(PairingToken.objects.filter(digest=digest_of(token)), day=day).first()
    if record is not None and record.revoked_at is None and not record.expired():
        return Grant(
            token_id=record.pk,
            expires_at=record.expires_at,
            used_today=record.used_today,
            used_this_month=record.used_this_month,
            day=day,
            **limits_in_force(record),
        )
    count_failure(address=address)
    if record is None:
        raise UnknownToken
    raise TokenExpired if record.revoked_at is None else TokenRevoked


def count_failure(*, address: str) -> None:
    """Count a wrong token or key of the address; raise TooManyFailures over the limit."""
    wait = throttle.hit(
        group=throttle.FAILURES,
        address=address,
        per_hour=settings.CORALMUX["FAILED_ATTEMPTS_PER_HOUR"],
    )
    if wait is not None:
        raise TooManyFailures(wait)


def seen(*, token_id: int, role: str) -> None:
    """Note that a role ("phone" or "agent") was online just now.

    `changed_at` stays as it is: nothing that other processes act on has changed.
    """
    PairingToken.objects.filter(pk=token_id).update(**{f"{role}_seen_at": timezone.now()})


def changed_since(when: datetime) -> list[TokenState]:
    """Tokens revoked or changed at `when` or later, in the order of their changes.

    A change is stamped before it is committed, so ask with an overlap of some
    seconds and expect to see a token twice. Expiry is no change: `expires_at`
    comes with the grant.
    """
    return [
        TokenState(
            token_id=record.pk,
            active=record.revoked_at is None and not record.expired(),
            expires_at=record.expires_at,
            changed_at=record.changed_at,
            **limits_in_force(record),
        )
        for record in PairingToken.objects.filter(changed_at__gte=when).order_by("changed_at")
    ]


def status(*, token: str, address: str) -> dict[str, bool]:
    """Which roles are online under a token: {"phone": bool, "agent": bool}.

    Raises UnknownToken, for revoked and expired tokens too, or TooManyFailures.
    """
    token_id = (
        PairingToken.objects.filter(digest=digest_of(token), revoked_at=None)
        .filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
        .values_list("pk", flat=True)
        .first()
    )
    if token_id is None:
        count_failure(address=address)
        raise UnknownToken
    roles = presence.online_roles(token_id)
    return {"phone": "phone" in roles, "agent": "agent" in roles}


def register(*, address: str) -> Issued:
    """Issue a token to anybody who asks, so many an hour to each address.

    Raises RegistrationClosed or TooManyRegistrations.
    """
    if not settings.CORALMUX["PUBLIC"]:
        raise RegistrationClosed
    wait = throttle.hit(
        group=throttle.REGISTRATIONS,
        address=address,
        per_hour=settings.CORALMUX["REGISTRATIONS_PER_HOUR"],
    )
    if wait is not None:
        raise TooManyRegistrations(wait)
    return issue(label=SELF_REGISTERED)
