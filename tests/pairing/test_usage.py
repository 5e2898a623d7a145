from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError

from pairing import services, usage
from pairing.models import DailyUsage, PairingToken
from pairing.services import UsageRow
from pairing.usage import today

pytestmark = pytest.mark.django_db


def row_of(token_id: int) -> tuple[int, int, int, int]:
    return DailyUsage.objects.values_list(*usage.COUNTERS).get(token=token_id, day=today())


def test_usage_adds_up_by_token_and_day() -> None:
    anna, ben = services.issue().record.pk, services.issue().record.pk
    yesterday = today() - timedelta(days=1)
    services.record_usage([UsageRow(anna, today(), 1, 2, 3, 4), UsageRow(ben, today(), 5)])
    services.record_usage([UsageRow(anna, today(), 10, 20, 30, 40), UsageRow(anna, yesterday, 7)])
    assert row_of(anna) == (11, 22, 33, 44)
    assert row_of(ben) == (5, 0, 0, 0)
    assert DailyUsage.objects.count() == 3


def test_the_same_token_twice_in_a_batch_counts_twice() -> None:
    anna = services.issue().record.pk
    services.record_usage([UsageRow(anna, today(), 1), UsageRow(anna, today(), 1)])
    assert row_of(anna) == (2, 0, 0, 0)


def test_rows_of_vanished_tokens_are_skipped_and_the_rest_is_kept() -> None:
    gone, anna = services.issue().record, services.issue().record.pk
    gone_id = gone.pk
    gone.delete()
    services.record_usage([UsageRow(gone_id, today(), 1), UsageRow(anna, today(), 1)])
    assert list(DailyUsage.objects.values_list("token_id", flat=True)) == [anna]


def test_a_token_that_vanishes_while_its_usage_is_written_is_skipped(monkeypatch) -> None:
    """PostgreSQL reports it at the commit; the second attempt leaves the row out."""
    anna = services.issue().record.pk
    add, calls = usage._add, []

    def fails_once(parameters) -> None:
        calls.append(parameters)
        if len(calls) == 1:
            raise IntegrityError("violates foreign key constraint")
        add(parameters)

    monkeypatch.setattr(usage, "_add", fails_once)
    services.record_usage([UsageRow(anna, today(), 1)])
    assert row_of(anna) == (1, 0, 0, 0)


def test_nothing_to_record_asks_nothing(django_assert_num_queries) -> None:
    with django_assert_num_queries(0):
        services.record_usage([])


def test_large_counters_fit() -> None:
    anna = services.issue().record.pk
    services.record_usage([UsageRow(anna, today(), 2**53)] * 2)
    assert row_of(anna)[0] == 2**54


_WRITER = """
import sys, threading, django
django.setup()
from django.db import connection
from pairing import services
from pairing.usage import today

def write():
    for _ in range(25):
        services.record_usage(
            services.UsageRow(token, today(), 1, 2, 3, 4) for token in map(int, sys.argv[1:])
        )
    connection.close()

threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.slow
def test_threads_of_several_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """On a real file, as two relays or a relay and a command share it."""
    environment = {
        **os.environ,
        "CORALMUX_STATE_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "coralmux_site.settings",
    }

    def run(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return out

    finish(run("manage.py", "migrate", "--verbosity", "0"))
    tokens = finish(
        run(
            "-c",
            "import django; django.setup(); from pairing import services\n"
            "import sys; sys.stdout.write(' '.join(str(services.issue().record.pk) for _ in '12'))",
        )
    ).split()
    # In opposite orders, which deadlocks where rows are locked as they come.
    writers = [run("-c", _WRITER, *tokens), run("-c", _WRITER, *reversed(tokens))]
    for writer in writers:
        finish(writer)
    report = finish(run("manage.py", "usage", "--json"))
    rows = json.loads(report)
    assert len(rows) == 2
    for row in rows:
        assert [row[name] for name in usage.COUNTERS] == [200, 400, 600, 800]


def test_the_month_is_the_calendars_in_utc() -> None:
    anna = services.issue().record.pk
    for day, amount in ((date(2026, 2, 28), 1), (date(2026, 3, 1), 10), (date(2026, 3, 31), 100)):
        services.record_usage([UsageRow(anna, day, amount)])
    for day, amount in ((date(2026, 3, 31), 110), (date(2026, 3, 1), 10), (date(2026, 2, 28), 1)):
        tokens = usage.with_usage(PairingToken.objects.filter(pk=anna), day=day)
        assert tokens.get().used_this_month == amount


def test_lists_take_one_query_however_many_tokens_there_are(django_assert_num_queries) -> None:
    ids = [services.issue(label=f"token {n}").record.pk for n in range(30)]
    services.record_usage(UsageRow(pk, today(), pk) for pk in ids)
    with django_assert_num_queries(1):
        listed = services.list_tokens()
    assert [token.pk for token in listed] == sorted(ids, reverse=True)
    assert [token.used_today for token in listed] == sorted(ids, reverse=True)
    with django_assert_num_queries(1):
        assert next(row.token.label for row in services.usage_report(days=1)) == "token 0"


def test_lists_leave_out_what_is_revoked_unless_asked() -> None:
    active, revoked = services.issue().record.pk, services.issue().record.pk
    services.revoke(token_id=revoked)
    assert [token.pk for token in services.list_tokens()] == [active]
    assert {token.pk for token in services.list_tokens(include_inactive=True)} == {active, revoked}


def test_the_report_covers_its_days_and_its_token() -> None:
    anna, ben = services.issue().record.pk, services.issue().record.pk
    for age in (0, 6, 7):
        services.record_usage([UsageRow(anna, today() - timedelta(days=age), 1)])
    services.record_usage([UsageRow(ben, today(), 1)])
    assert len(services.usage_report(days=7)) == 3
    assert len(services.usage_report(days=7, token_id=anna)) == 2
    assert len(services.usage_report(days=8, token_id=anna)) == 3
