"""The admin site: a token is shown once and kept nowhere; lists cost the same at any length."""

from __future__ import annotations

import html
import ipaddress
import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from pairing import qr, services
from pairing.admin import PairingTokenAdmin
from pairing.models import PairingToken
from pairing.services import UsageRow
from pairing.usage import today

pytestmark = pytest.mark.django_db

LIST = "/admin/pairing/pairingtoken/"
ADD = LIST + "add/"
USAGE = "/admin/pairing/dailyusage/"


@pytest.fixture
def operator(admin_user: User) -> Client:
    client = Client()
    client.force_login(admin_user)
    return client


def issue(operator: Client, **values: object):
    values = {"label": "Anna", "submission": str(uuid4()), **values}
    return operator.post(ADD, values)


def token_in(response) -> str:
    return re.search(r'id="token"[^>]*value="(oc_pair_[0-9a-f]{32})"', response.content.decode())[1]


def test_adding_shows_a_token_that_works_with_link_and_qr_code(operator) -> None:
    response = issue(operator, daily_quota_bytes="1000")
    assert response.status_code == 200
    token = token_in(response)
    grant = services.authenticate(token=token, address="203.0.113.1")
    assert grant.daily_quota_bytes == 1000
    link = f"openclaw://pair?token={token}&relay=ws%3A%2F%2Ftestserver%2Fws"
    page = html.unescape(response.content.decode())
    assert f'value="{link}"' in page
    assert str(qr.svg(link)) in page
    assert "no-store" in response["Cache-Control"]


def test_the_link_is_wss_behind_a_trusted_tls_proxy_alone(operator, coralmux) -> None:
    def link() -> str:
        response = operator.post(
            ADD, {"submission": str(uuid4())}, headers={"X-Forwarded-Proto": "https"}
        )
        return re.search(r"relay=(wss?)%3A", response.content.decode())[1]

    assert link() == "ws"
    coralmux(TRUSTED_PROXIES=[ipaddress.ip_network("127.0.0.0/8")])
    assert link() == "wss"


def test_a_token_is_kept_nowhere_but_in_that_page(operator, monkeypatch) -> None:
    kept: list[object] = []
    original = cache.set

    def spy(*args: object, **kwargs: object) -> None:
        kept.append((args, kwargs))
        original(*args, **kwargs)

    monkeypatch.setattr(cache, "set", spy)
    response = issue(operator)
    token = token_in(response)
    sessions = [session.get_decoded() for session in Session.objects.all()]
    entries = list(LogEntry.objects.values())
    assert entries
    rows = list(PairingToken.objects.values())
    headers = [*response.headers.items(), *map(str, operator.cookies.values())]
    for place in (sessions, entries, rows, headers, kept):
        assert token not in str(place)
    following = [operator.get(LIST), operator.get(f"{LIST}{rows[0]['id']}/change/")]
    for page in (*following, operator.get("/admin/")):
        assert page.status_code == 200
        assert token not in page.content.decode()


def test_sending_the_same_form_again_issues_nothing_and_shows_nothing(operator) -> None:
    submission = str(uuid4())
    token = token_in(issue(operator, submission=submission))
    response = issue(operator, submission=submission)
    assert response.status_code == 302
    assert PairingToken.objects.count() == 1
    page = operator.get(response.url).content.decode()
    assert "shown only once" in page
    assert token not in page


def test_each_form_may_be_sent_once(operator) -> None:
    found = {
        re.search(r'name="submission" value="([^"]+)"', operator.get(ADD).content.decode())[1]
        for _ in range(2)
    }
    assert len(found) == 2
    for submission in found:
        assert issue(operator, submission=submission).status_code == 200
    assert PairingToken.objects.count() == 2


@pytest.mark.parametrize(
    "bad",
    [
        {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"},
        {"max_message_bytes": "0"},
        {"daily_quota_bytes": "-1"},
        {"daily_quota_bytes": str(2**60)},
        {"label": "x" * 201},
    ],
)
def test_a_bad_form_is_explained_and_issues_nothing(operator, bad) -> None:
    response = issue(operator, **bad)
    assert response.status_code == 200
    assert "errornote" in response.content.decode()
    assert not PairingToken.objects.exists()


def test_the_digest_is_shown_nowhere(operator) -> None:
    record = services.issue(label="Anna").record
    for path in (LIST, f"{LIST}{record.pk}/change/", USAGE):
        assert record.digest not in operator.get(path).content.decode()


def test_the_list_tells_state_presence_and_use(operator, online) -> None:
    record = services.issue(label="Anna").record
    online[record.pk] = frozenset({"phone", "agent"})
    services.record_usage([UsageRow(record.pk, today(), 1024, 1024)])
    page = operator.get(LIST).content.decode().replace("\xa0", " ")
    for text in ("Anna", record.prefix, "agent, phone", "2.0 KB", "active"):
        assert text in page


def test_the_list_costs_the_same_queries_with_1000_tokens(operator) -> None:
    def queries(path: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert operator.get(path).status_code == 200
        return len(captured)

    first = services.issue(label="first").record
    services.record_usage([UsageRow(first.pk, today(), 1)])
    few = {path: queries(path) for path in (LIST, USAGE)}
    PairingToken.objects.bulk_create(
        PairingToken(label=f"token {n}", digest=f"{n:064x}", prefix=f"oc_pair_{n % 65536:04x}")
        for n in range(1000)
    )
    services.record_usage(
        UsageRow(pk, today(), 1) for pk in PairingToken.objects.values_list("pk", flat=True)
    )
    assert {path: queries(path) for path in (LIST, USAGE)} == few
    assert max(few.values()) <= 10


def test_lists_are_searched_by_label_and_prefix_and_filtered_by_state(operator) -> None:
    anna, ben, cem = (services.issue(label=name).record for name in ("Anna", "Ben", "Cem"))
    services.revoke(token_id=ben.pk)
    PairingToken.objects.filter(pk=cem.pk).update(expires_at=timezone.now() - timedelta(seconds=1))

    def found(query: str) -> set[str]:
        page = operator.get(f"{LIST}?{query}").content.decode()
        return {name for name in ("Anna", "Ben", "Cem") if f">{name}</a>" in page}

    assert found("q=ann") == {"Anna"}
    assert "Anna" in found(f"q={anna.prefix}")
    assert found("state=active") == {"Anna"}
    assert found("state=revoked") == {"Ben"}
    assert found("state=expired") == {"Cem"}


def test_revoking_asks_first_and_then_announces(
    operator, django_capture_on_commit_callbacks, revocations
) -> None:
    anna, ben = services.issue(label="Anna").record, services.issue(label="Ben").record
    order = {"action": "revoke_tokens", "_selected_action": [anna.pk, ben.pk]}
    with django_capture_on_commit_callbacks(execute=True):
        page = operator.post(LIST, order)
    assert "no way back" in page.content.decode()
    assert revocations == []
    with django_capture_on_commit_callbacks(execute=True):
        page = operator.post(LIST, {**order, "confirmed": "yes"}, follow=True)
    assert "Revoked 2 tokens" in page.content.decode()
    assert sorted(revocations) == [anna.pk, ben.pk]
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 2
    page = operator.post(LIST, order, follow=True)
    assert "revoked already" in page.content.decode()


def test_the_change_page_has_a_button_to_revoke_while_that_is_possible(operator) -> None:
    record = services.issue().record
    path = f"{LIST}{record.pk}/change/"
    assert ">Revoke</button>" in operator.get(path).content.decode()
    services.revoke(token_id=record.pk)
    assert ">Revoke</button>" not in operator.get(path).content.decode()


def test_changing_limits_tells_the_relay(operator) -> None:
    record = services.issue(label="Anna").record
    before = timezone.now()
    response = operator.post(
        f"{LIST}{record.pk}/change/", {"label": "Anna", "daily_quota_bytes": "5"}
    )
    assert response.status_code == 302
    assert [state.daily_quota_bytes for state in services.changed_since(before)] == [5]


def test_saving_a_page_opened_before_a_revocation_does_not_undo_it(operator, monkeypatch) -> None:
    record = services.issue(label="Anna").record
    save_model = PairingTokenAdmin.save_model

    def revoked_meanwhile(self, request, obj, form, change) -> None:
        services.revoke(token_id=obj.pk)
        save_model(self, request, obj, form, change)

    monkeypatch.setattr(PairingTokenAdmin, "save_model", revoked_meanwhile)
    operator.post(f"{LIST}{record.pk}/change/", {"label": "Ben"})
    record.refresh_from_db()
    assert record.label == "Ben"
    assert record.revoked_at is not None


def test_a_token_that_has_expired_can_still_be_relabelled(operator) -> None:
    record = services.issue(label="Anna").record
    expired = (timezone.now() - timedelta(days=1)).replace(microsecond=0)
    PairingToken.objects.filter(pk=record.pk).update(expires_at=expired)
    response = operator.post(
        f"{LIST}{record.pk}/change/",
        {
            "label": "Ben",
            "expires_at_0": expired.strftime("%Y-%m-%d"),
            "expires_at_1": expired.strftime("%H:%M:%S"),
        },
    )
    assert response.status_code == 302
    record.refresh_from_db()
    assert record.label == "Ben"


def test_nothing_is_deleted_and_usage_is_not_edited_by_hand(operator) -> None:
    record = services.issue().record
    services.record_usage([UsageRow(record.pk, today(), 1)])
    usage = record.usage.get()
    assert operator.get(f"{LIST}{record.pk}/delete/").status_code == 403
    assert operator.get(f"{USAGE}add/").status_code == 403
    assert operator.post(f"{USAGE}{usage.pk}/change/", {"bytes_from_phone": 0}).status_code == 403
    assert operator.get(f"{USAGE}?token__id__exact={record.pk}").status_code == 200


def test_staff_that_may_only_look_can_neither_issue_nor_revoke() -> None:
    viewer = User.objects.create_user("viewer", password="long-enough-1", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_pairingtoken"))
    client = Client()
    client.force_login(viewer)
    record = services.issue().record
    assert client.get(LIST).status_code == 200
    assert issue(client).status_code == 403
    page = client.get(f"{LIST}{record.pk}/change/").content.decode()
    assert ">Revoke</button>" not in page
    client.post(
        LIST,
        {"action": "revoke_tokens", "_selected_action": [record.pk], "confirmed": "yes"},
    )
    record.refresh_from_db()
    assert record.revoked_at is None


def test_strangers_are_sent_to_the_login() -> None:
    response = issue(Client())
    assert response.status_code == 302
    assert response.url.startswith("/admin/login/")
    assert not PairingToken.objects.exists()


def test_labels_are_escaped(operator) -> None:
    services.issue(label="<script>alert(1)</script>")
    assert "<script>alert" not in operator.get(LIST).content.decode()
    page = issue(operator, label="<script>alert(2)</script>").content.decode()
    assert "<script>alert" not in page
