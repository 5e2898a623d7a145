"""What tokens used: adding to it, summing it up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from django.db import IntegrityError, connection, transaction
from django.db.models import F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from pairing.models import DailyUsage, PairingToken

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

    class _Totals(TypedDict):
        used_today: int
        used_this_month: int

    TokenWithUsage: TypeAlias = WithAnnotations[PairingToken, _Totals]

COUNTERS = (
    "bytes_from_phone",
    "bytes_from_agent",
    "messages_from_phone",
    "messages_from_agent",
)

# Django's update_conflicts overwrites; two processes would lose each other's
# bytes. The WHERE skips tokens pruned since the bytes were counted (and is what
# lets SQLite tell this ON CONFLICT from a join's ON).
_ADD = """
INSERT INTO pairing_dailyusage (token_id, day, {columns})
SELECT %s, %s, {marks} FROM pairing_pairingtoken WHERE id = %s
ON CONFLICT (token_id, day) DO UPDATE SET {additions}
""".format(
    columns=", ".join(COUNTERS),
    marks=", ".join(["%s"] * len(COUNTERS)),
    additions=", ".join(
        f"{name} = pairing_dailyusage.{name} + excluded.{name}" for name in COUNTERS
    ),
)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one token used on one UTC day since the last time it was recorded."""

    token_id: int
    day: date
    bytes_from_phone: int = 0
    bytes_from_agent: int = 0
    messages_from_phone: int = 0
    messages_from_agent: int = 0


def today() -> date:
    """The UTC day that usage counts under now."""
    return timezone.now().astimezone(UTC).date()


def record_usage(rows: Iterable[UsageRow]) -> None:
    """Add the rows to what is recorded, all or nothing, in one statement each.

    Rows of tokens that no longer exist are skipped.
    """
    # Sorted, so that two processes lock rows in the same order and cannot deadlock.
    ordered = sorted(rows, key=lambda row: (row.token_id, row.day))
    if not ordered:
        return
    adapt = connection.ops.adapt_datefield_value
    parameters = [
        (
            row.token_id,
            adapt(row.day),
            *(getattr(row, name) for name in COUNTERS),
            row.token_id,
        )
        for row in ordered
    ]
    try:
        _add(parameters)
    except IntegrityError:
        # PostgreSQL lets a token be pruned between our SELECT and our commit.
        # Nothing was written; the second time the SELECT does not find it.
        _add(parameters)


def _add(parameters: list[tuple[Any, ...]]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(_ADD, parameters)


def with_usage(tokens: QuerySet[PairingToken], *, day: date) -> QuerySet[TokenWithUsage]:
    """The tokens with `used_today` and `used_this_month` (bytes), in the same query."""
    usage = DailyUsage.objects.filter(token=OuterRef("pk"))
    total = F("bytes_from_phone") + F("bytes_from_agent")
    this_month = (
        usage.filter(day__gte=day.replace(day=1), day__lte=day)
        .order_by()
        .values("token")
        .annotate(total=Sum(total))
        .values("total")
    )
    return tokens.annotate(
        used_today=Coalesce(Subquery(usage.filter(day=day).order_by().values(total=total)), 0),
        used_this_month=Coalesce(Subquery(this_month), 0),
    )


def list_tokens(*, include_inactive: bool = False) -> list[TokenWithUsage]:
    """Tokens, newest first, with their usage annotated; revoked and expired ones on request."""
    tokens = PairingToken.objects.all()
    if not include_inactive:
        tokens = tokens.filter(revoked_at=None).exclude(expires_at__lte=timezone.now())
    return list(with_usage(tokens, day=today()))


def usage_report(*, days: int, token_id: int | None = None) -> list[DailyUsage]:
    """Usage of the last `days` UTC days, today included, newest first, tokens joined."""
    rows = DailyUsage.objects.filter(day__gt=today() - timedelta(days=days))
    if token_id is not None:
        rows = rows.filter(token=token_id)
    return list(rows.select_related("token"))
