"""Pairing tokens and what they used, by UTC day.

A token is shown once, when it is issued. The database keeps its SHA-256, so a
stolen copy of the database lets nobody in.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

# Characters of a token that people recognise it by: `oc_pair_` and four of the
# 32 hex digits. The other 28 (112 bits) stay out of reach.
PREFIX_LENGTH = 12
DIGEST_LENGTH = 64

# Limits that a token may override; each has a setting of the same name in
# capitals behind CORALMUX_.
LIMIT_FIELDS = (
    "phone_messages_per_minute",
    "agent_messages_per_minute",
    "stream_frames_per_second",
    "daily_quota_bytes",
    "monthly_quota_bytes",
    "max_message_bytes",
)


def _override(
    verbose_name: str, help_text: str
) -> models.PositiveBigIntegerField[int | None, int | None]:
    return models.PositiveBigIntegerField(verbose_name, null=True, blank=True, help_text=help_text)


_ZERO_IS_FREE = "Empty: the relay's setting. 0: no limit."


class PairingToken(models.Model):
    """The place where one agent and one phone meet."""

    label = models.CharField(
        max_length=200, blank=True, help_text="For you to recognise it: whose phone, which agent."
    )
    digest = models.CharField(max_length=DIGEST_LENGTH, unique=True, editable=False)
    prefix = models.CharField(max_length=PREFIX_LENGTH, editable=False)
    created_at = models.DateTimeField("created", default=timezone.now, editable=False)
    expires_at = models.DateTimeField(
        "expires", null=True, blank=True, help_text="UTC. Empty: never."
    )
    revoked_at = models.DateTimeField("revoked", null=True, blank=True, editable=False)
    changed_at = models.DateTimeField("changed", auto_now=True, editable=False)
    phone_seen_at = models.DateTimeField("phone last seen", null=True, blank=True, editable=False)
    agent_seen_at = models.DateTimeField("agent last seen", null=True, blank=True, editable=False)

    phone_messages_per_minute = _override("phone messages per minute", _ZERO_IS_FREE)
    agent_messages_per_minute = _override("agent messages per minute", _ZERO_IS_FREE)
    stream_frames_per_second = _override("stream frames per second", _ZERO_IS_FREE)
    daily_quota_bytes = _override("daily quota (bytes)", _ZERO_IS_FREE)
    monthly_quota_bytes = _override("monthly quota (bytes)", _ZERO_IS_FREE)
    max_message_bytes = _override(
        "largest message (bytes)", "Empty: the relay's setting. It can only be lowered."
    )

    class Meta:
        verbose_name = "pairing token"
        ordering = ("-created_at", "-id")
        constraints = [
            models.CheckConstraint(
                name="pairing_token_max_message_positive",
                condition=Q(max_message_bytes__isnull=True) | Q(max_message_bytes__gte=1),
                violation_error_message="The largest message must be at least 1 byte.",
            ),
            models.CheckConstraint(name="pairing_token_digest_not_empty", condition=~Q(digest="")),
        ]
        indexes = [
            # services.changed_since: every relay process asks twice a second.
            models.Index(name="pairing_token_changed", fields=["changed_at"]),
            # The admin's list and `listtokens`, newest first.
            models.Index(name="pairing_token_newest", fields=["-created_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.prefix}…)" if self.label else f"{self.prefix}…"

    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    def state(self) -> str:
        """ "active", "revoked" or "expired"."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expired() else "active"


class DailyUsage(models.Model):
    """WebSocket payload bytes and messages of a token on one UTC day, by sender."""

    # The unique constraint below is the index by token; a second one would only
    # be written at every flush.
    token = models.ForeignKey(
        PairingToken, on_delete=models.CASCADE, related_name="usage", db_index=False
    )
    day = models.DateField("day (UTC)")
    bytes_from_phone = models.PositiveBigIntegerField(default=0)
    bytes_from_agent = models.PositiveBigIntegerField(default=0)
    messages_from_phone = models.PositiveBigIntegerField(default=0)
    messages_from_agent = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = "daily usage"
        verbose_name_plural = "daily usage"
        ordering = ("-day", "token_id")
        constraints = [
            # services.record_usage adds to the row that this finds; the quota's
            # sums by token and month read it too.
            models.UniqueConstraint(name="pairing_usage_token_day", fields=["token", "day"]),
        ]
        indexes = [
            # services.prune and the report over all tokens.
            models.Index(name="pairing_usage_day", fields=["day"]),
        ]

    def __str__(self) -> str:
        return f"token {self.token_id} on {self.day}"
