"""Every HTTP address of the relay. `/ws` is the consumer's, in asgi.py."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView

from coralmux_site import phone
from pairing.api import api
from relay import views

# No cookie opens these, so there is nothing to forge; without the exemption a
# wrong method would be answered 403 instead of 405.
urlpatterns = [
    path("", TemplateView.as_view(template_name="index.html"), name="index"),
    path("phone", phone.page, name="phone"),
    path("phone/", phone.slash),
    path("phone/service-worker.js", phone.worker),
    path("phone/manifest.webmanifest", phone.manifest),
    path(settings.STATIC_URL.lstrip("/") + "phone/<path:name>", phone.file),
    path("health", csrf_exempt(views.health), name="health"),
    path("ready", csrf_exempt(views.ready), name="ready"),
    path("metrics", csrf_exempt(views.metrics), name="metrics"),
    path("api/", api.urls),
    path("admin/", admin.site.urls),
]
