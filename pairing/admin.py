"""The admin site: issue tokens, see who is online and what they use, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.cache import cache
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from pairing import presence, qr, services
from pairing.models import LIMIT_FIELDS, DailyUsage, PairingToken
from pairing.usage import today, with_usage

if TYPE_CHECKING:
    from pairing.usage import TokenWithUsage

    ModelAdmin = admin.ModelAdmin[PairingToken]
    UsageModelAdmin = admin.ModelAdmin[DailyUsage]
    TokenModelForm = forms.ModelForm[PairingToken]
else:
    ModelAdmin = UsageModelAdmin = admin.ModelAdmin
    TokenModelForm = forms.ModelForm

admin.site.site_header = "CoralMux Relay"
admin.site.site_title = "CoralMux Relay"
admin.site.index_title = "Pairings and access"
admin.site.site_url = "/"

# Seconds for which a sent form is remembered: a session's life.
SUBMISSION_KEPT = 12 * 3600


class TokenForm(TokenModelForm):
    """Label, expiry and limits. `submission` tells a reloaded page from a new order."""

    submission = forms.UUIDField(widget=forms.HiddenInput, required=False, label="")

    class Meta:
        model = PairingToken
        fields = ("label", "expires_at", *LIMIT_FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "submission" in self.fields:
            self.fields["submission"].initial = uuid4

    def clean(self) -> dict[str, Any] | None:
        """The service's rules, so that what it would refuse is shown beside the form."""
        cleaned = super().clean() or {}
        changed = {name: cleaned.get(name) for name in self.changed_data if name in cleaned}
        changed.pop("submission", None)
        try:
            services.check_values(
                label=changed.pop("label", None) or "",
                expires_at=changed.pop("expires_at", None),
                **changed,
            )
        except services.InvalidValue as error:
            raise forms.ValidationError(str(error)) from None
        return cleaned


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("revoked", "Revoked"), ("expired", "Expired")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[PairingToken]
    ) -> QuerySet[PairingToken]:
        expired = Q(expires_at__lte=timezone.now())
        match self.value():
            case "active":
                return queryset.filter(revoked_at=None).exclude(expired)
            case "revoked":
                return queryset.exclude(revoked_at=None)
            case "expired":
                return queryset.filter(expired, revoked_at=None)
        return queryset


@admin.register(PairingToken)
class PairingTokenAdmin(ModelAdmin):
    form = TokenForm
    list_display = ("name", "prefix", "online", "state", "used_today", "used_month", "created_at")
    list_filter = (StateFilter,)
    search_fields = ("label", "prefix")
    search_help_text = "Search by label or by the token's first characters."
    actions = ("revoke_tokens",)
    # Counting all rows beside the filtered ones is a query that tells nothing.
    show_full_result_count = False
    readonly_fields = (
        "prefix",
        "state",
        "online",
        "used_today",
        "used_month",
        "created_at",
        "revoked_at",
        "phone_seen_at",
        "agent_seen_at",
    )

    def get_fieldsets(self, request: HttpRequest, obj: PairingToken | None = None) -> Any:
        limits = (
            "Limits",
            {
                "description": "Left empty, a limit is the relay's setting.",
                "classes": ["collapse"],
                "fields": LIMIT_FIELDS,
            },
        )
        if obj is None:
            return [(None, {"fields": ("label", "expires_at", "submission")}), limits]
        return [
            (None, {"fields": ("label", "expires_at")}),
            ("State", {"fields": self.readonly_fields}),
            limits,
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: PairingToken | None = None) -> Any:
        return () if obj is None else self.readonly_fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[PairingToken]:
        return with_usage(super().get_queryset(request), day=today())

    # Deleting loses what was used; pruning does it when nobody asks any more.
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="label", ordering="label")
    def name(self, token: PairingToken) -> str:
        return token.label or "(no label)"

    @admin.display(description="state")
    def state(self, token: PairingToken) -> str:
        return token.state()

    @admin.display(description="online")
    def online(self, token: PairingToken) -> str:
        return ", ".join(sorted(presence.online_roles(token.pk))) or "–"

    @admin.display(description="used today", ordering="used_today")
    def used_today(self, token: TokenWithUsage) -> str:
        return filesizeformat(token.used_today)

    @admin.display(description="used this month", ordering="used_this_month")
    def used_month(self, token: TokenWithUsage) -> str:
        return filesizeformat(token.used_this_month)

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # A reload of the page that shows a token sends the same form again.
        if request.method == "POST" and cache.get(_submission_key(request)):
            self.message_user(
                request,
                "That token was issued already, and it was shown only once. "
                "If it is lost, revoke it and issue another.",
                messages.WARNING,
            )
            return HttpResponseRedirect(reverse("admin:pairing_pairingtoken_changelist"))
        context = {
            "title": "Issue a pairing token",
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().add_view(request, form_url, context | (extra_context or {}))

    def save_model(self, request: HttpRequest, obj: PairingToken, form: Any, change: bool) -> None:
        if change:
            # Only what the form holds: a token revoked since the page was
            # opened must stay so.
            fields = [name for name in form.changed_data if name != "submission"]
            obj.save(update_fields=[*fields, "changed_at"])
            return
        issued = services.issue(
            label=obj.label,
            expires_at=obj.expires_at,
            **{name: getattr(obj, name) for name in LIMIT_FIELDS},
        )
        obj.pk = issued.record.pk
        obj.refresh_from_db()
        # The token lives on this object until the response is written, and nowhere else.
        obj.issued_token = issued.token  # type: ignore[attr-defined]
        cache.set(_submission_key(request), True, SUBMISSION_KEPT)

    def response_add(
        self, request: HttpRequest, obj: PairingToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        token: str = obj.issued_token  # type: ignore[attr-defined]
        link = qr.pairing_link(token=token, relay=qr.relay_url(request))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Pairing token issued",
            "record": obj,
            "token": token,
            "link": link,
            "relay": qr.relay_url(request),
            "qr": qr.svg(link),
        }
        response = TemplateResponse(
            request, "admin/pairing/pairingtoken/issued.html", context
        ).render()
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke selected tokens", permissions=["change"])
    def revoke_tokens(
        self, request: HttpRequest, queryset: QuerySet[PairingToken]
    ) -> HttpResponse | None:
        """Ask first: a revoked token cannot be brought back."""
        active = [token for token in queryset if token.revoked_at is None]
        if not active:
            self.message_user(request, "These tokens are revoked already.", messages.WARNING)
            return None
        if request.POST.get("confirmed") != "yes":
            context = {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "Revoke tokens",
                "tokens": active,
                "checkbox": ACTION_CHECKBOX_NAME,
            }
            return TemplateResponse(
                request, "admin/pairing/pairingtoken/revoke_confirmation.html", context
            )
        revoked = 0
        for token in active:
            if services.revoke(token_id=token.pk):
                self.log_change(request, token, "Revoked.")
                revoked += 1
        self.message_user(
            request,
            f"Revoked {revoked} token{'' if revoked == 1 else 's'}; "
            "live connections are being closed.",
            messages.SUCCESS,
        )
        return None


@admin.register(DailyUsage)
class DailyUsageAdmin(UsageModelAdmin):
    """To read only: the relay writes it."""

    list_display = ("day", "pairing", "from_phone", "from_agent", "messages")
    list_select_related = ("token",)
    list_display_links = None
    search_fields = ("token__label", "token__prefix")
    show_full_result_count = False
    ordering = ("-day", "token_id")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="token", ordering="token__label")
    def pairing(self, row: DailyUsage) -> str:
        url = reverse("admin:pairing_pairingtoken_change", args=[row.token_id])
        return format_html('<a href="{}">{}</a>', url, row.token)

    @admin.display(description="from phone", ordering="bytes_from_phone")
    def from_phone(self, row: DailyUsage) -> str:
        return filesizeformat(row.bytes_from_phone)

    @admin.display(description="from agent", ordering="bytes_from_agent")
    def from_agent(self, row: DailyUsage) -> str:
        return filesizeformat(row.bytes_from_agent)

    @admin.display(description="messages")
    def messages(self, row: DailyUsage) -> int:
        return row.messages_from_phone + row.messages_from_agent


def _submission_key(request: HttpRequest) -> str:
    # By user, so that nobody can spend another's form. Unprintable or overlong
    # values would upset some caches, hence the form's own idea of a UUID.
    try:
        submission = forms.UUIDField().clean(request.POST.get("submission", ""))
    except forms.ValidationError:
        submission = "none"
    return f"pairing:submission:{request.user.pk}:{submission}"
