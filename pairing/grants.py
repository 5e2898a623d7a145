"""What a token allows: the settings' limits, with the token's own on top."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from django.conf import settings

from pairing.models import LIMIT_FIELDS, PairingToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits in force for one token; 0 = no limit, except for max_message_bytes."""

    phone_messages_per_minute: int
    agent_messages_per_minute: int
    stream_frames_per_second: int
    daily_quota_bytes: int
    monthly_quota_bytes: int
    max_message_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Limits):
    """A login that was let in. The relay ends it itself at `expires_at`.

    `used_today` and `used_this_month` are payload bytes of both directions as
    the database knew them on `day` (UTC).
    """

    token_id: int
    expires_at: datetime | None
    used_today: int
    used_this_month: int
    day: date


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenState(Limits):
    """A token as it stands now; `active` means neither revoked nor expired."""

    token_id: int
    active: bool
    expires_at: datetime | None
    changed_at: datetime


def limits_in_force(record: PairingToken) -> dict[str, int]:
    """Every limit by name. A token may lower the largest message, never raise it:
    the server refuses what is above the setting before it knows the token.
    """
    in_force: dict[str, int] = {}
    for name in LIMIT_FIELDS:
        default: int = settings.CORALMUX[name.upper()]
        own: int | None = getattr(record, name)
        in_force[name] = default if own is None else own
    in_force["max_message_bytes"] = min(
        in_force["max_message_bytes"], settings.CORALMUX["MAX_MESSAGE_BYTES"]
    )
    return in_force
