from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from pairing import services
from pairing.management.output import duration, table
from pairing.models import PairingToken
from pairing.services import UsageRow
from pairing.usage import today

pytestmark = pytest.mark.django_db

COMMANDS = ("issuetoken", "listtokens", "revoketoken", "usage", "prunetokens")


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def run_json(*arguments: str):
    return json.loads(run(*arguments, "--json")[0])


def test_issuing_prints_the_token_alone_on_standard_output() -> None:
    out, err = run("issuetoken", "--label", "Anna", "--expires-in", "7d")
    services.authenticate(token=out.strip(), address="203.0.113.1")
    assert "shown only now" in err
    record = PairingToken.objects.get()
    assert record.label == "Anna"
    assert timedelta(days=6) < record.expires_at - timezone.now() <= timedelta(days=7)


def test_issuing_in_json() -> None:
    issued = run_json("issuetoken", "--label", "Änna")
    record = PairingToken.objects.get()
    assert issued["token"].startswith(issued["prefix"])
    assert (issued["id"], issued["label"], issued["expires_at"]) == (record.pk, "Änna", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--label", "a\nb"),
        ("--expires-in", "soon"),
        ("--expires-in", "0"),
        ("--expires-in", "999999999w"),
    ],
)
def test_issuing_with_values_that_cannot_be_used_says_why(arguments) -> None:
    with pytest.raises(CommandError):
        run("issuetoken", *arguments)
    assert not PairingToken.objects.exists()


def test_listing_shows_active_tokens_and_all_on_request() -> None:
    anna, ben = services.issue(label="Anna").record, services.issue(label="Ben").record
    services.revoke(token_id=ben.pk)
    services.record_usage([UsageRow(anna.pk, today(), 2048)])
    out, _ = run("listtokens")
    assert "Anna" in out
    assert "2.0 KB" in out
    assert "Ben" not in out
    assert "revoked" in run("listtokens", "--all")[0]
    (listed,) = run_json("listtokens")
    assert (listed["id"], listed["state"], listed["bytes_today"]) == (anna.pk, "active", 2048)
    assert {token["label"] for token in run_json("listtokens", "--all")} == {"Anna", "Ben"}
    assert anna.digest not in json.dumps(run_json("listtokens", "--all"))


def test_an_empty_list_says_what_to_do() -> None:
    out, err = run("listtokens")
    assert out == ""
    assert "issuetoken" in err
    assert run_json("listtokens") == []


def test_revoking_by_id_prefix_or_token() -> None:
    by_id, by_prefix, by_token = (services.issue() for _ in range(3))
    PairingToken.objects.filter(pk=by_prefix.record.pk).update(prefix="oc_pair_ffff")
    PairingToken.objects.filter(pk=by_token.record.pk).update(prefix="oc_pair_0000")
    for name in (str(by_id.record.pk), "oc_pair_fff", by_token.token):
        assert "Revoked" in run("revoketoken", name)[0]
    assert not PairingToken.objects.filter(revoked_at=None).exists()


def test_revoking_takes_the_token_from_standard_input(monkeypatch) -> None:
    issued = services.issue()
    monkeypatch.setattr("sys.stdin", io.StringIO(issued.token + "\n"))
    assert run_json("revoketoken", "-") == {"id": issued.record.pk, "revoked": True}
    monkeypatch.setattr("sys.stdin", io.StringIO(issued.token + "\n"))
    assert run_json("revoketoken", "-") == {"id": issued.record.pk, "revoked": False}


def test_an_ambiguous_prefix_revokes_nothing_and_names_the_ids() -> None:
    ids = [services.issue().record.pk for _ in range(2)]
    PairingToken.objects.update(prefix="oc_pair_abcd")
    with pytest.raises(CommandError, match=f"{ids[0]}, {ids[1]}"):
        run("revoketoken", "oc_pair_abcd")
    assert PairingToken.objects.filter(revoked_at=None).count() == 2


@pytest.mark.parametrize(
    "name", ["4711", "oc_pair_" + "0" * 32, "oc_pair_0", "", "nonsense", "٣", "9" * 30, "%", "\x00"]
)
def test_revoking_what_does_not_exist_tells_the_next_step(name: str) -> None:
    with pytest.raises(CommandError) as caught:
        run("revoketoken", name)
    assert "oc_pair_" + "0" * 32 not in str(caught.value)


def test_usage_is_reported_by_day_and_token() -> None:
    anna, ben = services.issue(label="Anna").record, services.issue(label="Ben").record
    services.record_usage(
        [
            UsageRow(anna.pk, today(), 1024, 2048, 3, 4),
            UsageRow(anna.pk, today() - timedelta(days=1), 1),
            UsageRow(ben.pk, today(), 1),
        ]
    )
    out, _ = run("usage")
    line = next(line for line in out.splitlines() if "Anna" in line)
    assert "1.0 KB" in line
    assert "2.0 KB" in line
    assert " 7 " in line
    assert len(run_json("usage")) == 3
    assert len(run_json("usage", "--days", "1")) == 2
    (row,) = run_json("usage", "--days", "1", "--token", str(anna.pk))
    assert row["messages_from_agent"] == 4
    assert "Nothing" in run("usage", "--token", "4711")[1]


def test_pruning_counts_what_it_deleted() -> None:
    record = services.issue().record
    PairingToken.objects.update(revoked_at=timezone.now() - timedelta(days=10))
    services.record_usage([UsageRow(record.pk, today(), 1)])
    assert "Deleted 0 tokens" in run("prunetokens")[0]
    assert run_json("prunetokens", "--days", "9")["tokens"] == 1
    assert not PairingToken.objects.exists()


@pytest.mark.parametrize("days", ["0", "-1", "x", "99999"])
def test_days_are_checked(days: str) -> None:
    for command in ("usage", "prunetokens"):
        with pytest.raises(CommandError, match="days"):
            run(command, f"--days={days}")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        call_command(command, "--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "Examples:" in printed
    assert f" {command}" in printed
    assert "--json" in printed


@pytest.mark.parametrize("command", ["listtokens", "usage"])
def test_a_database_that_is_away_is_one_clear_line(command, monkeypatch) -> None:
    def away(**_: object) -> None:
        raise OperationalError("unable to open database file")

    monkeypatch.setattr(services, "list_tokens", away)
    monkeypatch.setattr(services, "usage_report", away)
    with pytest.raises(CommandError, match="migrate"):
        run(command)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


def test_tables_align_numbers_right_and_words_left() -> None:
    lines = table(("ID", "NAME", "SIZE"), [(1, "a", "1.0 KB"), (100, "long name", "12 bytes")])
    assert lines == [
        " ID  NAME           SIZE",
        "  1  a            1.0 KB",
        "100  long name  12 bytes",
    ]
